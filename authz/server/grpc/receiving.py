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

INVARIANT (locks): a call's own condition is taken before the receiver's lock or without it, never inside of it.
"""

import inspect
import ipaddress
import threading
import time
from collections.abc import Callable
from concurrent import futures
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast
from urllib.parse import unquote

from grpc import _server
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from authz.errors import ApiError
from authz.periodic import PeriodicThread
from authz.server.grpc.decisions import UNRECEIVED
from authz.server.grpc.errors import details_of
from authz.server.grpc.executor import BoundedExecutor, Job

__all__ = ["RUNS_ON", "Bounds", "Receiver", "has_share", "peer_of_address"]

RUNS_ON: Final = "runs_on"
"""Attribute of a behaviour whose calls run on another executor once they were received."""

# How long a receipt may take where others wait for its place, and where more wait than there are places.
_GRACE: Final = 0.1
_SHORT_GRACE: Final = 0.02
_SHORT_PAUSE: Final = 0.02
_LONG_PAUSE: Final = 0.25
_MOST_WAITING: Final = 4096
# With more open calls, callers that do not take their answers lose them soon.
_MANY_OPEN: Final = 4096
_CODES: Final = {
    "DEADLINE": (
        4,
        cygrpc.StatusCode.deadline_exceeded,
        "the message of the call did not arrive in time",
    ),
    "OVERLOADED": (
        8,
        cygrpc.StatusCode.resource_exhausted,
        "too many calls whose message has not arrived",
    ),
}
# What grpcio gives `submit`: `in_pool(rpc_event, state, behavior, argument_thunk, …)`. Another grpcio may differ; then nothing starts.
_IN_POOL: Final = (_server._unary_response_in_pool, _server._stream_response_in_pool)  # noqa: SLF001
_EXPECTED: Final = ("rpc_event", "state", "behavior", "argument_thunk", "request_deserializer")
for _function in _IN_POOL:
    if tuple(inspect.signature(_function).parameters)[: len(_EXPECTED)] != _EXPECTED:
        raise ImportError("this version of grpcio hands calls over in another way")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of the calls of one listener whose messages are received."""

    calls: int = 64
    """Messages that are received at once."""
    timeout: float = 5.0
    """Seconds from a call's arrival until its message must be complete."""


class _Call(Job):
    """A call from its arrival until its caller has taken the answer."""

    __slots__ = (
        "address",
        "answered",
        "begun",
        "behavior",
        "event",
        "is_refused",
        "peer",
        "state",
    )

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        super().__init__(fn, args)
        _, self.event, self.state, self.behavior, *_ = args
        self.begun = 0.0
        self.answered = 0.0
        self.is_refused = False
        self.peer = ""
        self.address = ""

    def finish(self) -> None:
        """Note that the call was answered or needs no answer, so that its message can be freed."""
        self.args = ()
        self.answered = time.monotonic()

    def close(self) -> None:
        """Note that the caller has taken the answer, or has gone: only now the call is done for grpcio."""
        super().finish()


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
        self._mutual = mutual
        self._failed = failed
        self._lock = threading.Lock()
        # In the order of arrival; those that wait by connection.
        self._receiving: dict[_Call, None] = {}
        self._waiting: dict[str, dict[_Call, None]] = {}
        self._waiting_count = 0
        self._open: dict[_Call, None] = {}
        self._untaken = 0
        self._refused = {"DEADLINE": 0, "OVERLOADED": 0}
        self._pause = min(_LONG_PAUSE, bounds.timeout / 4)
        self._thread = PeriodicThread(
            "unreceived", self._look_again, self._pause, failed, least_pause=_SHORT_PAUSE
        )
        self._thread.start()

    # --- grpcio's side

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_kwargs: Any) -> futures.Future[Any]:
        """Take a call whose headers have come; never blocks and never raises, for it runs on grpcio's polling thread.

        Args:
            fn: Runs in the call's context.
            args: As grpcio gives them.

        Returns:
            Something with `add_done_callback`.
        """
        if args[0] not in _IN_POOL or getattr(args[4], "__name__", "") != "unary_request":
            # The messages of a stream are received by its handler, which has an executor of its own.
            return self._workers.submit(fn, *args)
        call = _Call(fn, args)
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
        return len(self._receiving) + self._waiting_count

    @property
    def open(self) -> int:
        """Calls that have arrived and whose callers have not taken the answer."""
        return len(self._open)

    def refused(self, reason: str) -> int:
        """Count the calls that were refused because their message did not come.

        Args:
            reason: DEADLINE, or OVERLOADED where others waited.

        Returns:
            The number since the start.
        """
        return self._refused[reason]

    @property
    def untaken(self) -> int:
        """Calls that were cancelled because their callers did not take the answer, since the start."""
        return self._untaken

    # --- the way of a call

    def _arrive(self, call: _Call) -> None:
        dropped = None
        # grpcio runs these once the call is over, whatever ended it.
        call.state.callbacks.append(partial(self._close, call))
        with self._lock:
            self._open[call] = None
            begin = self._has_room(call)
            if begin:
                self._receiving[call] = None
            else:
                dropped = self._wait(call)
        if begin and not self._begin(call):
            self._end(call)
        if dropped is not None:
            self._refuse(dropped, "OVERLOADED")

    def _close(self, call: _Call) -> None:
        with self._lock:
            self._open.pop(call, None)
        call.close()

    def _has_room(self, call: _Call) -> bool:
        begun, most = len(self._receiving), self._bounds.calls
        # Where all of them together do not exceed the share of one peer, the addresses are not asked for.
        return has_share(begun, begun, most) or self._share_left(self._peer_of(call))

    def _share_left(self, peer: str) -> bool:
        mine = sum(1 for other in self._receiving if self._peer_of(other) == peer)
        return has_share(mine, len(self._receiving), self._bounds.calls)

    def _wait(self, call: _Call) -> _Call | None:
        """Let a call wait.

        Returns:
            Where too many do: the oldest of the connection that has most of them.
        """
        self._thread.wake()
        self._peer_of(call)
        self._waiting.setdefault(call.address, {})[call] = None
        self._waiting_count += 1
        if self._waiting_count <= _MOST_WAITING:
            return None
        greediest = max(self._waiting.values(), key=len)
        oldest = next(iter(greediest))
        self._leave(oldest)
        return oldest

    def _leave(self, call: _Call) -> None:
        mine = self._waiting[call.address]
        del mine[call]
        self._waiting_count -= 1
        if not mine:
            del self._waiting[call.address]

    def _counts(self) -> dict[str, int]:
        """Count the receipts of each peer."""
        counts: dict[str, int] = {}
        for call in self._receiving:
            peer = self._peer_of(call)
            counts[peer] = counts.get(peer, 0) + 1
        return counts

    def _next(self) -> _Call | None:
        """Choose the next call that waits: of each connection in turn, its newest."""
        if not self._waiting_count:
            return None
        counts, begun = self._counts(), len(self._receiving)
        for address, mine in self._waiting.items():
            peer = self._peer_of(next(iter(mine)))
            if has_share(counts.get(peer, 0), begun, self._bounds.calls):
                del self._waiting[address]
                call, _ = mine.popitem()
                self._waiting_count -= 1
                if mine:
                    self._waiting[address] = mine
                self._receiving[call] = None
                return call
        return None

    def _begin(self, call: _Call) -> bool:
        """Begin to receive.

        Returns:
            False where the caller has gone.
        """
        state = call.state
        with state.condition:
            if not _server._is_rpc_state_active(state):  # noqa: SLF001
                return False
            call.begun = time.monotonic()
            received = _server._receive_message(state, call.event.call, call.args[5])  # noqa: SLF001
            call.event.call.start_server_batch(
                (cygrpc.ReceiveMessageOperation(0),), partial(self._came, call, received)
            )
            state.due.add(_server._RECEIVE_MESSAGE_TOKEN)  # noqa: SLF001
            return True

    def _begin_following(self) -> None:
        """Give free places to calls that wait."""
        while self._waiting_count:
            with self._lock:
                call = self._next()
            if call is None:
                return
            if not self._begin(call):
                self._end(call)

    def _came(self, call: _Call, came: Callable[[Any], Any], event: Any) -> Any:
        outcome = came(event)
        try:
            if self._end_receipt(call):
                self._hand_over(call)
            self._begin_following()
        except BaseException as error:  # noqa: BLE001 - grpcio's polling thread would die of it
            self._give_up(call, error)
        return outcome

    def _end_receipt(self, call: _Call) -> bool:
        """Free the place of a call; false where the call was refused before."""
        with self._lock:
            return self._receiving.pop(call, self) is None

    def _hand_over(self, call: _Call) -> None:
        state = call.state
        message, state.request = state.request, None
        if message is None:
            self._without_message(call)
            call.finish()
            return

        def received() -> Any:
            # A caller that has gone meanwhile needs no answer.
            return message if _server._is_rpc_state_active(state) else None  # noqa: SLF001

        call.args = (*call.args[:4], received, *call.args[5:])
        elsewhere = getattr(call.behavior, RUNS_ON, None)
        if elsewhere is None:
            self._workers.enter(call)
        else:
            elsewhere.submit(self._run, call)

    def _run(self, call: _Call) -> None:
        try:
            call.fn(*call.args)
        except BaseException as error:  # noqa: BLE001 - as on the workers
            self._failed(error)
        finally:
            call.finish()

    @staticmethod
    def _without_message(call: _Call) -> None:
        state = call.state
        with state.condition:
            if _server._is_rpc_state_active(state) and state.client is _server._CLOSED:  # noqa: SLF001
                what = b"the method takes exactly one message"
                _server._abort(state, call.event.call, cygrpc.StatusCode.unimplemented, what)  # noqa: SLF001

    def _end(self, call: _Call) -> None:
        """End a call whose caller has gone."""
        if self._end_receipt(call):
            call.finish()

    def _give_up(self, call: _Call, error: BaseException) -> None:
        with suppress(BaseException):
            self._failed(error)
        with suppress(BaseException):
            call.event.call.cancel()
        with suppress(BaseException):
            self._end_receipt(call)
        with suppress(BaseException):
            call.finish()

    # --- refusals

    def _refuse(self, call: _Call, reason: str) -> None:
        """Answer a call whose message has not come, on a shed thread."""
        self._refused[reason] += 1
        call.is_refused = True
        refusal = Job(self._answer, (call, reason))
        refusal.add_done_callback(lambda _: call.finish())
        self._workers.aside(refusal)

    def _answer(self, call: _Call, reason: str) -> None:
        state = call.state
        make = getattr(call.behavior, UNRECEIVED, None)
        answer = make(reason) if make is not None else None
        with state.condition:
            if not _server._is_rpc_state_active(state):  # noqa: SLF001
                return
            if answer is not None:
                _server._status(call.event, state, answer)  # noqa: SLF001
                return
            number, code, what = _CODES[reason]
            state.trailing_metadata = details_of(ApiError(reason, number, what))
            _server._abort(state, call.event.call, code, what.encode())  # noqa: SLF001

    def _look_again(self) -> float:
        is_long = self._waiting_count > self._bounds.calls
        self._look(_SHORT_GRACE if is_long else _GRACE)
        return _SHORT_PAUSE if self._waiting_count else self._pause

    def _look(self, grace: float) -> None:
        now = time.monotonic()
        with self._lock:
            late = self._take_late(now)
            crowding = self._crowding(now, grace)
            gone = self._take_gone()
            untaken = self._take_untaken(now)
        for call in late:
            self._refuse(call, "DEADLINE")
        for call in crowding:
            self._ask_after(call)
        for call in gone:
            call.finish()
        for call in untaken:
            call.event.call.cancel()
        self._begin_following()

    def _take_late(self, now: float) -> list[_Call]:
        oldest = now - self._bounds.timeout
        late = [call for call in self._receiving if call.at < oldest]
        for call in late:
            del self._receiving[call]
        waiting = [call for mine in self._waiting.values() for call in mine if call.at < oldest]
        for call in waiting:
            self._leave(call)
        return late + waiting

    def _crowding(self, now: float, grace: float) -> list[_Call]:
        """Choose calls whose receipt takes long where others wait for their place."""
        if not self._waiting_count:
            return []
        counts, begun = self._counts(), len(self._receiving)
        greediest = max(counts, key=lambda peer: counts[peer], default="")
        waiting = {self._peer_of(next(iter(mine))) for mine in self._waiting.values()}
        # Where a peer has no share left and no receipt of its own, others have its share.
        crowding = {
            peer if peer in counts else greediest
            for peer in waiting
            if not has_share(counts.get(peer, 0), begun, self._bounds.calls)
        }
        taken = [
            call
            for call in self._receiving
            if call.begun and now - call.begun > grace and self._peer_of(call) in crowding
        ]
        for call in taken:
            call.begun = now  # Not asked after again before the answer could be here.
        return taken

    def _ask_after(self, call: _Call) -> None:
        """Give a receipt up, unless its message is here and was not looked at.

        The polling thread of a busy node is behind. A batch without operations comes to it at once, but after every message that
        has come before, so what is unfinished when it comes was unfinished when it was sent.
        """
        with suppress(Exception):  # The call may just have ended.
            call.event.call.start_server_batch((), partial(self._give_way, call))

    def _give_way(self, call: _Call, _event: object) -> tuple[None, tuple[()]]:
        try:
            if self._end_receipt(call):
                self._refuse(call, "OVERLOADED")
            self._begin_following()
        except BaseException as error:  # noqa: BLE001 - grpcio's polling thread would die of it
            self._give_up(call, error)
        return None, ()

    def _take_gone(self) -> list[_Call]:
        gone = [
            call
            for mine in self._waiting.values()
            for call in mine
            if not _server._is_rpc_state_active(call.state)  # noqa: SLF001
        ]
        for call in gone:
            self._leave(call)
        return gone

    def _take_untaken(self, now: float) -> list[_Call]:
        """Take calls whose answer waits for its caller: it fills the memory of this process, where the caller reads nothing."""
        # The caller of a refused call goes on sending its message until the call is over.
        is_full = len(self._open) > _MANY_OPEN
        late, refused_late = now - self._bounds.timeout, now - _GRACE
        untaken = [
            call
            for call in self._open
            if 0.0 < call.answered < (refused_late if is_full or call.is_refused else late)
        ]
        for call in untaken:
            call.answered = 0.0
        self._untaken += len(untaken)
        return untaken

    # --- who calls

    def _peer_of(self, call: _Call) -> str:
        if not call.peer:
            call.address = call.event.call.peer().decode("utf-8", "replace")
            call.peer = self._identity_of(call) or peer_of_address(call.address)
        return call.peer

    def _identity_of(self, call: _Call) -> str:
        if not self._mutual:
            return ""
        shown = cygrpc.auth_context(call.event.call) or {}
        names = shown.get(b"x509_subject_alternative_name") or shown.get(b"x509_common_name") or ()
        return b",".join(names).decode("utf-8", "replace")


def has_share(mine: int, everybody: int, most: int) -> bool:
    """Return whether a peer may have one more: half of those that others leave, so that there is always room for another peer."""
    return 2 * (mine + 1) <= most - (everybody - mine)


def peer_of_address(address: str) -> str:
    """Tell peers apart by their addresses: IPv4 by the whole one, IPv6 by its network of 64 bits.

    Args:
        address: As grpcio writes it: `ipv4:192.0.2.1:4711`, `ipv6:%5B2001:db8::1%5D:4711`, `unix:…`.

    Returns:
        The peer's name; all callers of a unix socket have the same.
    """
    kind, _, rest = unquote(address).partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return kind
    host = rest.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return kind
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    if isinstance(ip, ipaddress.IPv6Address) and mapped is None:
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(mapped or ip)
