"""Live changes: sends server-sent events to open pages, which then read their content again."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from starlette.responses import StreamingResponse

from authz.approvals import ApprovalChange, ApprovalHub, Subscription
from authz.server.http.approvals_page.sessions import Session, Sessions

__all__ = ["LiveChanges", "TooManyStreamsError"]

_BEAT_SECONDS: Final = 15.0
_LONGEST_SECONDS: Final = 600.0
_MOST_OF_SESSION: Final = 8
_CHANGED: Final = b"event: changed\ndata:\n\n"


class TooManyStreamsError(Exception):
    """Too many streams are open. A page without a stream works, but shows changes only after a reload."""


class _Stream:
    """An open stream. Any thread may wake it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._changed = asyncio.Event()

    def wake(self, _change: ApprovalChange | None = None) -> None:
        # The loop is closed if the listener ended before the hub.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._changed.set)

    async def wait(self, seconds: float) -> bool:
        """Wait for a change. Return false if none occurred in time."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return False
        self._changed.clear()
        return True


class LiveChanges:
    """Streams of changes. An event has no content: the page then reads the data that its person may see.

    Args:
        hub: Source of changes of approvals.
        sessions: Sessions of the page. A stream ends with its session.
        most: Maximum number of open streams.
    """

    def __init__(self, hub: ApprovalHub, sessions: Sessions, most: int) -> None:
        self._hub = hub
        self._sessions = sessions
        self._most = most
        self._open: set[_Stream] = set()
        self._is_closing = False

    def __len__(self) -> int:
        return len(self._open)

    def close(self) -> None:
        """End all streams. Any thread may call it."""
        self._is_closing = True
        for stream in tuple(self._open):
            stream.wake()

    def stream(self, session: Session, approval_id: str) -> StreamingResponse:
        """Answer with a stream.

        Args:
            session: Session of the open page.
            approval_id: Id of the approval to watch. Empty for all approvals.

        Raises:
            TooManyStreamsError: Too many streams are open.
        """
        if self._is_closing or len(self._open) >= self._most or session.streams >= _MOST_OF_SESSION:
            raise TooManyStreamsError
        events = self._events(session, approval_id)
        return StreamingResponse(events, media_type="text/event-stream")

    async def _events(self, session: Session, approval_id: str) -> AsyncIterator[bytes]:
        stream = _Stream(asyncio.get_running_loop())
        subscription = Subscription(stream.wake, approval_id)
        self._open.add(stream)
        session.streams += 1
        try:
            self._hub.subscribe(subscription)
            # The approval may have changed between the load of the page and this stream, so the page reads again.
            yield b"retry: 3000\n" + _CHANGED
            ends_at = time.monotonic() + _LONGEST_SECONDS
            while time.monotonic() < ends_at and self._sessions.is_live(session):
                is_changed = await stream.wait(_BEAT_SECONDS)
                if self._is_closing:
                    return
                yield _CHANGED if is_changed else b": beat\n\n"
        finally:
            self._hub.unsubscribe(subscription)
            self._open.discard(stream)
            session.streams -= 1
