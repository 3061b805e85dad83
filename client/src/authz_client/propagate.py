"""Name of the current task, in the form of headers and of `_meta`, for clients without an integration."""

from collections.abc import Mapping
from typing import Any

from authz_client.context import TASK_HEADER, TASK_META, outgoing_task

__all__ = ["task_headers", "task_meta"]


def task_headers() -> dict[str, str]:
    """Give the headers that name the current task.

    Returns:
        One header, or none without a task.
    """
    task = outgoing_task()
    return {TASK_HEADER: task} if task is not None else {}


def task_meta(meta: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Give `_meta` of an MCP request that names the current task.

    Args:
        meta: Further members.

    Returns:
        A new mapping.
    """
    task = outgoing_task()
    named = {TASK_META: task} if task is not None else {}
    return {**named, **(meta or {})}
