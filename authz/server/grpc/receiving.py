"""Receives the message of each call before a thread is given to the call.

grpcio's own server hands a call to its pool when the headers have arrived, and the pool's thread waits for the message: calls whose
message never ends stop the server as soon as there are as many as threads. Here the receipt begins where grpcio would hand the call
over, the message arrives by an event on grpcio's polling thread, and only then a thread gets the call.

Three other ways were measured, with a handler of 50 µs: `grpc.aio`, which receives in its event loop, takes 594 µs a call instead
of 421 µs; a proxy before the server would add two copies and hide the caller's address; channel options bound
connections, not calls. This way takes 417 µs, since no thread is woken twice for a message that has arrived.

A receipt that has begun lets the sender send its whole message, 16 MiB at most. So the number of receipts at once is bounded, and one
peer may have half of those that others leave. Other calls wait, with 64 KiB at most: connections take turns, and the newest call of
each is in front, since a complete message takes no time, so old calls are those that never end. A receipt that takes long is given
up if calls wait for its place.

`receipts` chooses which calls are received, and `grpcio_internals` receives their messages.

INVARIANT (locks): a call's own condition is taken before the receiver's lock or without it, never inside of it.
"""

import threading
import time
from collections.abc import Callable
from concurrent import futures
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

from authz.errors import ApiError, GrpcCode
from authz.periodic import PeriodicThread
from authz.server.grpc.decisions import UNRECEIVED
from authz.server.grpc.errors import details_of
from authz.server.grpc.executor import BoundedExecutor, Job
from authz.server.grpc.grpcio_internals import UnaryCall
from authz.server.grpc.receipts import IncomingCall, Receipts

__all__ = ["RUNS_ON", "Bounds", "Receiver"]

RUNS_ON: Final = "runs_on"
"""Attribute of a behaviour whose calls run on another executor once they were received."""

# How long a receipt may take where others wait for its place, and where more wait than there are places.
_GRACE: Final = 0.1
_SHORT_GRACE: Final = 0.02
_SHORT_PAUSE: Final = 0.02
_LONG_PAUSE: Final = 0.25
# With more open calls, callers that do not take their answers lose them soon.
_MANY_OPEN: Final = 4096
_REFUSALS: Final = {
    "DEADLINE": ApiError(
        "DEADLINE", GrpcCode.DEADLINE_EXCEEDED, "the message of the call did not arrive in time"
    ),
    "OVERLOADED": ApiError(
        "OVERLOADED",
        GrpcCode.RESOURCE_EXHAUSTED,
        "too many calls whose message has not arrived",
    ),
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of the calls of one listener whose messages are received."""

    calls: int = 64
    """Messages that are received at once."""
    timeout: float = 5.0
    """Seconds from a call's arrival until its message must be complete."""


class Receiver(futures.Executor):
    """The executor of one grpcio server: receives, then hands over.

    Args:
        workers: Run the calls.
        bounds: Bounds of receipts.
        mutual: Callers are told apart by their certificates, otherwise by their addresses.
        failed: Receives every unexpected exception.
    """

    def __init__(
        self,
        workers: BoundedExecutor,
        bounds: Bounds,
        *,
        mutual: bool = False,
        failed: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self._workers = workers
        self._bounds = bounds
        self._failed = failed
        self._lock = threading.Lock()
        self._receipts = Receipts(bounds.calls, mutual=mutual)
        self._open: dict[IncomingCall, None] = {}
        self._untaken = 0
        self._refused = dict.fromkeys(_REFUSALS, 0)
        self._pause = min(_LONG_PAUSE, bounds.timeout / 4)
        self._thread = PeriodicThread(
            "unreceived", self._look_again, self._pause, failed, least_pause=_SHORT_PAUSE
        )
        self._thread.start()

    # --- for grpcio

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_kwargs: Any) -> futures.Future[Any]:
        """Take a call whose headers have come; never blocks and never raises, for it runs on grpcio's polling thread.

        Args:
            fn: Runs in the call's context.
            args: As grpcio gives them.

        Returns:
            The part of a future that grpcio uses: `add_done_callback`.
        """
        unary = UnaryCall.of(args)
        if unary is None:
            # The messages of a stream are received by its handler, which has an executor of its own.
            return self._workers.submit(fn, *args)
        call = IncomingCall(fn, args, unary)
        try:
            self._arrive(call)
        except BaseException as error:  # noqa: BLE001 - grpcio's polling thread would die of it
            self._give_up(call, error)
        return cast("futures.Future[Any]", call)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """End the thread. The owner of the workers ends them."""
        del wait, cancel_futures
        self._thread.close(0.0)

    # --- for metrics

    @property
    def unreceived(self) -> int:
        """Calls whose message has not come."""
        return self._receipts.count

    @property
    def open(self) -> int:
        """Calls that have arrived and whose callers have not taken the answer."""
        return len(self._open)

    def refused(self, reason: str) -> int:
        """Return the number of calls since the start that were refused because their message did not come.

        Args:
            reason: DEADLINE, or OVERLOADED where others waited.
        """
        return self._refused[reason]

    @property
    def untaken(self) -> int:
        """Calls that were cancelled because their callers did not take the answer, since the start."""
        return self._untaken

    # --- the way of a call

    def _arrive(self, call: IncomingCall) -> None:
        dropped = None
        call.unary.on_close(partial(self._close, call))
        with self._lock:
            self._open[call] = None
            has_begun = self._receipts.begin(call)
            if not has_begun:
                self._thread.wake()
                dropped = self._receipts.wait(call)
        if has_begun:
            self._receive(call)
        if dropped is not None:
            self._refuse(dropped, "OVERLOADED")

    def _receive(self, call: IncomingCall) -> None:
        call.begun_at = time.monotonic()
        if not call.unary.receive(partial(self._received, call)) and self._end_receipt(call):
            call.finish()

    def _received(self, call: IncomingCall) -> None:
        try:
            if self._end_receipt(call):
                self._hand_over(call)
            self._receive_waiting()
        except BaseException as error:  # noqa: BLE001 - grpcio's polling thread would die of it
            self._give_up(call, error)

    def _end_receipt(self, call: IncomingCall) -> bool:
        """Free the place of a call; return False where the call was refused before."""
        with self._lock:
            return self._receipts.end(call)

    def _receive_waiting(self) -> None:
        """Give free places to calls that wait."""
        while self._receipts.waiting:
            with self._lock:
                call = self._receipts.begin_next()
            if call is None:
                return
            self._receive(call)

    def _hand_over(self, call: IncomingCall) -> None:
        message = call.unary.take_message()
        if message is None:
            call.unary.abort_without_message()
            call.finish()
            return
        call.args = call.unary.arguments(message)
        elsewhere = getattr(call.unary.behavior, RUNS_ON, None)
        if elsewhere is None:
            self._workers.enter(call)
        else:
            elsewhere.submit(self._run, call)

    def _run(self, call: IncomingCall) -> None:
        try:
            call.fn(*call.args)
        except BaseException as error:  # noqa: BLE001 - as on the workers
            self._failed(error)
        finally:
            call.finish()

    def _close(self, call: IncomingCall) -> None:
        """Note that the caller has taken the answer, or has gone."""
        with self._lock:
            self._open.pop(call, None)
        call.close()

    def _give_up(self, call: IncomingCall, error: BaseException) -> None:
        with suppress(BaseException):
            self._failed(error)
        with suppress(BaseException):
            call.unary.cancel()
        with suppress(BaseException):
            self._end_receipt(call)
        with suppress(BaseException):
            call.finish()

    # --- refusals

    def _refuse(self, call: IncomingCall, reason: str) -> None:
        """Answer a call whose message has not come, on a shed thread."""
        self._refused[reason] += 1
        call.is_refused = True
        refusal = Job(self._answer, (call, reason))
        refusal.add_done_callback(lambda _: call.finish())
        self._workers.aside(refusal)

    @staticmethod
    def _answer(call: IncomingCall, reason: str) -> None:
        make = getattr(call.unary.behavior, UNRECEIVED, None)
        answer = make(reason) if make is not None else None
        if answer is not None:
            call.unary.answer(answer)
            return
        refusal = _REFUSALS[reason]
        call.unary.abort(int(refusal.grpc_code), str(refusal), details_of(refusal))

    # --- calls that take long

    def _look_again(self) -> float:
        is_long = self._receipts.waiting > self._bounds.calls
        self._look(_SHORT_GRACE if is_long else _GRACE)
        return _SHORT_PAUSE if self._receipts.waiting else self._pause

    def _look(self, grace: float) -> None:
        now = time.monotonic()
        with self._lock:
            late = self._receipts.take_late(now - self._bounds.timeout)
            crowding = self._receipts.choose_crowding(now, grace)
            gone = self._receipts.take_gone()
            untaken = self._take_untaken(now)
        for call in late:
            self._refuse(call, "DEADLINE")
        for call in crowding:
            self._ask_after(call)
        for call in gone:
            call.finish()
        for call in untaken:
            call.unary.cancel()
        self._receive_waiting()

    def _ask_after(self, call: IncomingCall) -> None:
        """Give a receipt up, unless its message is here and was not looked at.

        The polling thread of a busy node is behind. A batch without operations comes to it at once, but after every message that
        has come before, so what is unfinished when it comes was unfinished when it was sent.
        """
        with suppress(Exception):  # The call may just have ended.
            call.unary.after_events(partial(self._give_way, call))

    def _give_way(self, call: IncomingCall) -> None:
        try:
            if self._end_receipt(call):
                self._refuse(call, "OVERLOADED")
            self._receive_waiting()
        except BaseException as error:  # noqa: BLE001 - grpcio's polling thread would die of it
            self._give_up(call, error)

    def _take_untaken(self, now: float) -> list[IncomingCall]:
        """Take calls whose answer waits for its caller: it fills the memory of this process, where the caller reads nothing."""
        # The caller of a refused call goes on sending its message until the call is over.
        is_full = (
            len(self._open) > _MANY_OPEN
            # Streams that wait for people wait for no caller.
            and sum(1 for call in self._open if not call.is_waiting) > _MANY_OPEN
        )
        late, refused_late = now - self._bounds.timeout, now - _GRACE
        untaken = [
            call
            for call in self._open
            if 0.0 < call.answered_at < (refused_late if is_full or call.is_refused else late)
        ]
        for call in untaken:
            call.answered_at = 0.0
        self._untaken += len(untaken)
        return untaken
