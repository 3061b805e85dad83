"""Tasks on the requests of MCP client sessions, of either major version of the library `mcp`, which it does not import."""

from typing import Any, TypeVar, cast

from authz_client.context import TASK_META, outgoing_task

__all__ = ["mcp_session"]

Session = TypeVar("Session")


def mcp_session(session: Session) -> Session:
    """Let an MCP client session name the current task in each request.

    Args:
        session: `mcp.ClientSession`.

    Returns:
        The same session.
    """
    patched = cast("Any", session)
    send = patched.send_request

    async def send_request(request: Any, *args: Any, **kwargs: Any) -> Any:
        return await send(_with_meta(request), *args, **kwargs)

    patched.send_request = send_request
    return session


def _with_meta(request: Any) -> Any:
    """A request whose `_meta` names the task; both major versions of the library take it by this way."""
    task = outgoing_task()
    if task is None:
        return request
    data = request.model_dump(by_alias=True, mode="json", exclude_none=True)
    params = data.setdefault("params", {})
    meta = params.setdefault("_meta", {})
    if TASK_META in meta:
        return request
    meta[TASK_META] = task
    return type(request).model_validate(data)
