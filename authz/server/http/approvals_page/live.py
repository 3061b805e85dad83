"""Live changes: tells open pages, by server-sent events, that they should read their content again."""

import asyncio
import time
from collections.abc import AsyncIterator
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
    """Too many streams are open. A page without a stream works, but shows changes only when it is loaded again."""


class LiveChanges:
    """Streams of changes. An event has no content: the page reads again what its person may see.

    Args:
        hub: Tells changes.
        sessions: A stream ends with its session.
        most: Most streams at once.
    """

    def __init__(self, hub: ApprovalHub, sessions: Sessions, most: int) -> None:
        self._hub = hub
        self._sessions = sessions
        self._most = most
        self._open = 0

    def stream(self, session: Session, approval_id: str) -> StreamingResponse:
        """Answer with a stream.

        Args:
            session: Whose page is open.
            approval_id: Only changes of this approval. Empty: of all.

        Raises:
            TooManyStreamsError: Too many are open.
        """
        if self._open >= self._most or session.streams >= _MOST_OF_SESSION:
            raise TooManyStreamsError
        events = self._events(session, approval_id)
        return StreamingResponse(events, media_type="text/event-stream")

    async def _events(self, session: Session, approval_id: str) -> AsyncIterator[bytes]:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def note(_change: ApprovalChange | None) -> None:
            loop.call_soon_threadsafe(changed.set)

        subscription = Subscription(note, approval_id)
        self._open += 1
        session.streams += 1
        try:
            self._hub.subscribe(subscription)
            # Changes between the load of the page and this stream are not known here: read again.
            yield b"retry: 3000\n" + _CHANGED
            ends_at = time.monotonic() + _LONGEST_SECONDS
            while time.monotonic() < ends_at and self._sessions.is_live(session):
                try:
                    await asyncio.wait_for(changed.wait(), _BEAT_SECONDS)
                except TimeoutError:
                    yield b": beat\n\n"
                    continue
                changed.clear()
                yield _CHANGED
        finally:
            self._hub.unsubscribe(subscription)
            self._open -= 1
            session.streams -= 1
