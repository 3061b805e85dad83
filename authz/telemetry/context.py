"""The trace that the work of a thread belongs to, for its log lines."""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Final

__all__ = ["current_trace", "in_trace"]

# W3C Trace Context §3.2.2; a later version may have more parts.
_PARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?"
)
_NONE: Final[Mapping[str, str]] = {}
_NO_TRACE: Final = nullcontext()
_current: ContextVar[Mapping[str, str]] = ContextVar("authz_trace", default=_NONE)


def in_trace(traceparent: str | None) -> AbstractContextManager[None]:
    """Let log lines of this thread carry a call's trace.

    Args:
        traceparent: As the caller sent it; a malformed one is ignored.

    Returns:
        Within it they do.
    """
    found = _PARENT.fullmatch(traceparent) if traceparent is not None else None
    if found is None or (found[1] == "00" and found[4] is not None):
        return _NO_TRACE
    return _within({"trace_id": found[2], "span_id": found[3]})


@contextmanager
def _within(trace: Mapping[str, str]) -> Iterator[None]:
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)


def current_trace() -> Mapping[str, str]:
    """Tell the trace that this thread works for.

    Returns:
        `trace_id` and `span_id`; empty where there is none.
    """
    return _current.get()
