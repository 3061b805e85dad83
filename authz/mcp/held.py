"""Keeps calls open until a person has answered, and asks the client to open the page meanwhile."""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, final

from authz.mcp.messages import Message, RequestId
from authz.mcp.passed import Passed, error_text, request_text
from authz_client import Refused, StepUp
from authz_client.mcp_held import MOST_HELD, url_elicitation

__all__ = ["Held", "HeldCalls", "PageDeclinedError", "PageRequest"]

_log: Final = logging.getLogger("authz.mcp")
_ID_BYTES: Final = 12
_FAILED: Final = -32000
_ACCEPT: Final = "accept"


class PageDeclinedError(Exception):
    """The user did not open the page."""


@dataclass(frozen=True, slots=True, eq=False)
class PageRequest:
    """Request to the client to open the page of one approval."""

    id: str
    """Id of the request, and of the elicitation."""
    text: str
    """The message."""
    action: "asyncio.Future[str]"
    """`accept`, `decline` or `cancel`. Empty if the client failed."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """An open call."""

    id: RequestId
    id_text: str
    """The id as the client sent it."""


@final
class HeldCalls:
    """The open calls of one session."""

    def __init__(self) -> None:
        self._held: dict[RequestId, tuple[Held, asyncio.Task[None]]] = {}
        self._pages: dict[RequestId, PageRequest] = {}
        # Bounded by MOST_HELD, because each call puts only its answer and at most one notification about its page.
        self._outgoing: asyncio.Queue[tuple[Held | None, Passed]] = asyncio.Queue()

    def __contains__(self, request_id: object) -> bool:
        """Return whether the call with an id is open."""
        return request_id in self._held

    def has_room(self) -> bool:
        """Return whether a further call can be kept open."""
        return len(self._held) < MOST_HELD

    def start(
        self, held: Held, work: Callable[[], Awaitable[Passed]], page: PageRequest | None
    ) -> None:
        """Keep a call open.

        Args:
            held: The call.
            work: Returns the outcome of the call.
            page: Request to open the page, if the client gets one.
        """

        async def run() -> None:
            try:
                passed = await work()
            except Exception:  # noqa: BLE001 - the client gets an answer after every failure
                # INVARIANT (fail closed): a failure of this process permits nothing.
                _log.exception("a call that waited for a person failed")
                text = "No decision could be made, so the operation may not be performed."
                passed = Passed(to_client=error_text(held.id_text, _FAILED, text))
            self._outgoing.put_nowait((held, passed))

        task = asyncio.create_task(run())
        if page is not None:
            task.add_done_callback(lambda _: self._close(page))
        self._held[held.id] = (held, task)

    def cancel(self, message: Message) -> bool:
        """End a call that the client cancelled.

        Args:
            message: `notifications/cancelled`.

        Returns:
            Whether the call was open.
        """
        named = message.params.get("requestId")
        kind = "string" if isinstance(named, str) else "integer"
        if (
            not isinstance(named, str | int)
            or (entry := self._held.pop((kind, named), None)) is None
        ):
            return False
        entry[1].cancel()
        return True

    async def next_outgoing(self) -> tuple[Held | None, Passed]:
        """Wait for the next message: the outcome of a call, or a notification about a page."""
        return await self._outgoing.get()

    def end(self, held: Held) -> bool:
        """Forget a call that has its answer.

        Args:
            held: The call.

        Returns:
            Whether the client still waits for the answer. False if it cancelled the call.
        """
        entry = self._held.get(held.id)
        if entry is None or entry[0] is not held:
            return False
        del self._held[held.id]
        return True

    def stop(self) -> list[str]:
        """End all calls.

        Returns:
            Their ids as the client sent them.
        """
        entries = list(self._held.values())
        self._held.clear()
        for _, task in entries:
            task.cancel()
        return [held.id_text for held, _ in entries]

    # --- pages

    def ask(self, step_up: StepUp) -> PageRequest:
        """Return the request to open a page.

        Args:
            step_up: The refusal.
        """
        request_id = f"authz-{secrets.token_hex(_ID_BYTES)}"
        params = {**url_elicitation(step_up), "elicitationId": request_id}
        text = request_text("elicitation/create", params, request_id)
        page = PageRequest(request_id, text, asyncio.get_running_loop().create_future())
        self._pages["string", request_id] = page
        return page

    def answer(self, message: Message) -> bool:
        """Process the client's response to a request to open a page.

        Args:
            message: A response of the client.

        Returns:
            Whether the response belongs to such a request.
        """
        page = self._pages.get(message.id) if message.id is not None else None
        if page is None:
            return False
        result = message.value.get("result")
        action = result.get("action") if isinstance(result, dict) else None
        if not page.action.done():
            page.action.set_result(action if isinstance(action, str) else "")
        return True

    async def until_answered(
        self, step_up: StepUp, page: PageRequest | None, seconds: float
    ) -> None:
        """Wait until a person has answered, the client failed to show the page, or the time has passed.

        Args:
            step_up: The refusal.
            page: The request to open the page that was sent.
            seconds: Longest wait, in seconds.

        Raises:
            PageDeclinedError: The user did not open the page.
        """
        end = time.monotonic() + seconds
        answered = asyncio.create_task(_answered(step_up, seconds))
        try:
            if page is not None:
                ends: set[asyncio.Future[Any]] = {answered, page.action}
                await asyncio.wait(
                    ends,
                    timeout=seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if page.action.done() and not answered.done():
                    if page.action.result() in {"decline", "cancel"}:
                        raise PageDeclinedError
                    if page.action.result() != _ACCEPT:
                        return
            await asyncio.wait({answered}, timeout=max(end - time.monotonic(), 0.0))
        finally:
            answered.cancel()
            if page is not None:
                self._close(page)

    def _close(self, page: PageRequest) -> None:
        if self._pages.pop(("string", page.id), None) is None:
            return
        if not page.action.done():
            params: dict[str, Any] = {"requestId": page.id, "reason": "The request has ended."}
            text = request_text("notifications/cancelled", params)
        elif page.action.result() == _ACCEPT:
            text = request_text("notifications/elicitation/complete", {"elicitationId": page.id})
        else:
            return
        self._outgoing.put_nowait((None, Passed(to_client=text)))


async def _answered(step_up: StepUp, seconds: float) -> None:
    """Wait for the answer. If the wait fails, return, so that the call is checked again."""
    try:
        await step_up.wait_async(seconds)
    except Refused as refused:
        _log.warning("cannot wait for request %s: %s", step_up.approval_id, refused.message)
