"""Calls whose messages have not arrived: those that are being received, and those that wait for a place.

`Receipts` chooses; it starts and ends nothing. Its owner holds one lock around each method.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from authz.server.grpc.executor import Job
from authz.server.grpc.grpcio_internals import UnaryCall
from authz.server.grpc.peers import has_share, peer_of_address

__all__ = ["STAYS_OPEN", "IncomingCall", "Receipts"]

STAYS_OPEN: Final = "stays_open"
"""Attribute of a behaviour whose answers come after it has returned: its calls are not answered when their thread is done."""

_MOST_WAITING: Final = 4096


class IncomingCall(Job):
    """A call from its arrival until its caller has taken the answer."""

    __slots__ = ("address", "answered_at", "begun_at", "is_refused", "is_waiting", "peer", "unary")

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], unary: UnaryCall) -> None:
        super().__init__(fn, args)
        self.unary = unary
        self.begun_at = 0.0
        self.answered_at = 0.0
        self.is_refused = False
        self.is_waiting = False
        self.peer = ""
        self.address = ""

    def finish(self) -> None:
        """Note that the call was answered or needs no answer, so that its message can be freed."""
        self.args = ()
        if getattr(self.unary.behavior, STAYS_OPEN, False) and self.unary.is_active:
            self.is_waiting = True
            return
        self.answered_at = time.monotonic()

    def close(self) -> None:
        """Note that the caller has taken the answer, or has gone: only now the call is done for grpcio."""
        super().finish()


class Receipts:
    """The receipts of one listener, and the calls that wait for one.

    One peer may have half of the receipts that others leave. Waiting calls take turns by connection, and the newest call of each
    connection comes first: a complete message takes no time, so old calls are those that never end.

    Args:
        most: Messages that are received at once.
        mutual: Peers are told apart by their certificates, otherwise by their addresses.
    """

    def __init__(self, most: int, *, mutual: bool) -> None:
        self._most = most
        self._mutual = mutual
        # In the order of arrival; waiting calls by connection.
        self._receiving: dict[IncomingCall, None] = {}
        self._waiting: dict[str, dict[IncomingCall, None]] = {}
        self._waiting_count = 0

    @property
    def waiting(self) -> int:
        """Number of calls that wait."""
        return self._waiting_count

    @property
    def count(self) -> int:
        """Number of calls whose message has not arrived."""
        return len(self._receiving) + self._waiting_count

    # --- arrival

    def begin(self, call: IncomingCall) -> bool:
        """Give a call a place, if there is one for its peer."""
        has_room = self._has_room(call)
        if has_room:
            self._receiving[call] = None
        return has_room

    def _has_room(self, call: IncomingCall) -> bool:
        begun = len(self._receiving)
        # Where all of them together do not exceed the share of one peer, the addresses are not asked for.
        if has_share(begun, begun, self._most):
            return True
        peer = self._peer_of(call)
        own = sum(1 for other in self._receiving if self._peer_of(other) == peer)
        return has_share(own, begun, self._most)

    def wait(self, call: IncomingCall) -> IncomingCall | None:
        """Let a call wait; where too many do, return the oldest of the connection that has most of them."""
        self._peer_of(call)
        self._waiting.setdefault(call.address, {})[call] = None
        self._waiting_count += 1
        if self._waiting_count <= _MOST_WAITING:
            return None
        greediest = max(self._waiting.values(), key=len)
        oldest = next(iter(greediest))
        self._leave(oldest)
        return oldest

    def begin_next(self) -> IncomingCall | None:
        """Give a free place to the newest call of the next connection; `None` where no peer has a share left."""
        if not self._waiting_count:
            return None
        counts, begun = self._count_peers(), len(self._receiving)
        for address, calls in self._waiting.items():
            peer = self._peer_of(next(iter(calls)))
            if has_share(counts[peer], begun, self._most):
                return self._begin_newest(address, calls)
        return None

    def _begin_newest(self, address: str, calls: dict[IncomingCall, None]) -> IncomingCall:
        # The connection goes to the end of the row.
        del self._waiting[address]
        call, _ = calls.popitem()
        self._waiting_count -= 1
        if calls:
            self._waiting[address] = calls
        self._receiving[call] = None
        return call

    # --- end

    def end(self, call: IncomingCall) -> bool:
        """Free the place of a call; return False where it had none any more."""
        return self._receiving.pop(call, self) is None

    def take_late(self, oldest: float) -> list[IncomingCall]:
        """Take the calls that arrived before a time."""
        late = [call for call in self._receiving if call.at < oldest]
        for call in late:
            del self._receiving[call]
        return late + self._take_waiting(lambda call: call.at < oldest)

    def take_gone(self) -> list[IncomingCall]:
        """Take the waiting calls whose callers have gone."""
        return self._take_waiting(lambda call: not call.unary.is_active)

    def _take_waiting(self, is_taken: Callable[[IncomingCall], bool]) -> list[IncomingCall]:
        taken = [call for call in self._each_waiting() if is_taken(call)]
        for call in taken:
            self._leave(call)
        return taken

    def choose_crowding(self, now: float, grace: float) -> list[IncomingCall]:
        """Choose calls whose receipt takes longer than `grace` while others wait for their places; each at most once in that time."""
        if not self._waiting_count:
            return []
        counts, begun = self._count_peers(), len(self._receiving)
        greediest = max(counts, key=lambda peer: counts[peer], default="")
        waiting = {self._peer_of(next(iter(calls))) for calls in self._waiting.values()}
        # Where a peer has no share left and no receipt of its own, others have its share.
        crowding = {
            peer if peer in counts else greediest
            for peer in waiting
            if not has_share(counts[peer], begun, self._most)
        }
        chosen = [
            call
            for call in self._receiving
            if call.begun_at and now - call.begun_at > grace and self._peer_of(call) in crowding
        ]
        for call in chosen:
            call.begun_at = now
        return chosen

    def _each_waiting(self) -> Iterator[IncomingCall]:
        for calls in self._waiting.values():
            yield from calls

    def _leave(self, call: IncomingCall) -> None:
        calls = self._waiting[call.address]
        del calls[call]
        self._waiting_count -= 1
        if not calls:
            del self._waiting[call.address]

    # --- peers

    def _count_peers(self) -> Counter[str]:
        return Counter(self._peer_of(call) for call in self._receiving)

    def _peer_of(self, call: IncomingCall) -> str:
        if not call.peer:
            call.address = call.unary.peer()
            name = call.unary.certificate_name() if self._mutual else ""
            call.peer = name or peer_of_address(call.address)
        return call.peer
