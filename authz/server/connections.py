"""Bounds the connections of each listener and of each of its peers.

grpcio has no hook where it accepts a connection, and a proxy of ours before the server would copy every byte and hide the
caller's address. So a thread lists the open sockets of this process, finds the listener of each by the address that accepted
it, and shuts down the sockets over a bound; grpcio then sees the end of the connection. The channel argument
`grpc.max_allowed_incoming_connections` bounds new connections between two rounds of the thread.

INVARIANT (foreign sockets): a descriptor may be closed and used again between any two calls. A socket is shut down only by a
duplicate whose inode was compared, and only that duplicate is closed here.
"""

import os
import socket
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from authz.config.addresses import host_and_port, socket_path
from authz.model import MetricFamily, MetricKind
from authz.periodic import PeriodicThread
from authz.server.grpc.peers import has_share, peer_of_address
from authz.server.socket_users import user_of

__all__ = ["ConnectionLimit", "ConnectionLimiter", "connection_families"]

_FOLDER: Final = Path("/proc/self/fd")
_PAUSE: Final = 0.25
_SHORT_PAUSE: Final = 0.025
_MANY_NEW: Final = 16
_WILDCARDS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared, never bound
_IP: Final = frozenset({socket.AF_INET, socket.AF_INET6})


@dataclass(slots=True)
class ConnectionLimit:
    """A listener, and its bound of connections."""

    name: str
    """Name of the listener."""
    address: str
    """Bound address: `host:port` or `unix:///path`."""
    most: int
    """Most connections. One peer may have half of those that the others leave, so that there is always room for another peer."""
    close_oldest: bool = False
    """Peers have no shares, and over `most` the oldest connection is closed: for listeners with short connections."""
    refused: dict[str, int] = field(default_factory=lambda: {"listener": 0, "peer": 0})
    """Number of closed connections, by the bound that they were over."""
    opened: int = 0
    """Number of open connections in the last round."""

    @property
    def listens_at(self) -> tuple[str, int] | str:
        """Host and port, or the path of the socket."""
        path = socket_path(self.address)
        if path is not None:
            return path
        return host_and_port(self.address) or ("", 0)


@dataclass(slots=True)
class _Connection:
    """An open descriptor of this process."""

    inode: int
    place: ConnectionLimit | None
    peer: str
    number: int
    closed: bool = False


class ConnectionLimiter:
    """Enforces the bounds of all listeners.

    Args:
        places: The listeners.
        failed: Receives every unexpected exception.
    """

    def __init__(
        self,
        places: Sequence[ConnectionLimit],
        failed: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self.places = tuple(places)
        self._descriptors: dict[int, _Connection] = {}
        self._numbers = count()
        self._thread = PeriodicThread("connections", self._look_again, _PAUSE, failed)

    def start(self) -> None:
        """Start the thread. Where the system does not list open files, connections are not bounded."""
        if _FOLDER.is_dir():
            self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._thread.close()

    def look(self) -> int:
        """Close connections over a bound; return the number of connections that are new since the last round."""
        new = self._read()
        for place in self.places:
            mine = [
                (descriptor, connection)
                for descriptor, connection in self._descriptors.items()
                if connection.place is place and not connection.closed
            ]
            mine.sort(key=lambda pair: pair[1].number)
            place.opened = len(mine)
            self._bound(place, mine)
        return new

    def _look_again(self) -> float:
        return _SHORT_PAUSE if self.look() >= _MANY_NEW else _PAUSE

    def _read(self) -> int:
        new = 0
        descriptors: dict[int, _Connection] = {}
        for name in os.listdir(_FOLDER):  # noqa: PTH208 - names alone, many times a minute
            descriptor = int(name)
            try:
                status = os.fstat(descriptor)
            except OSError:
                continue
            connection = self._descriptors.get(descriptor)
            if connection is None or connection.inode != status.st_ino:
                place, peer = (
                    self._find_owner(descriptor) if stat.S_ISSOCK(status.st_mode) else (None, "")
                )
                connection = _Connection(status.st_ino, place, peer, next(self._numbers))
                new += place is not None
            descriptors[descriptor] = connection
        self._descriptors = descriptors
        return new

    def _find_owner(self, descriptor: int) -> tuple[ConnectionLimit | None, str]:
        """Return the listener and the peer of a connection; `None` for any other socket."""
        try:
            borrowed = socket.socket(fileno=descriptor)
        except OSError:
            return None, ""
        try:
            if borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return None, ""
            if borrowed.family == socket.AF_UNIX:
                return self._find_unix_owner(borrowed)
            if borrowed.family in _IP:
                return self._find_ip_owner(borrowed)
        except OSError:
            pass
        finally:
            borrowed.detach()
        return None, ""

    def _find_unix_owner(self, connection: socket.socket) -> tuple[ConnectionLimit | None, str]:
        path = connection.getsockname()
        for place in self.places:
            if place.listens_at == path:
                return place, f"uid:{user_of(connection)}"
        return None, ""

    def _find_ip_owner(self, connection: socket.socket) -> tuple[ConnectionLimit | None, str]:
        host, port = connection.getsockname()[:2]
        for place in self.places:
            at = place.listens_at
            if isinstance(at, tuple) and at[1] == port and _is_at(at[0], host):
                peer = connection.getpeername()[0]
                kind = "ipv6" if ":" in peer else "ipv4"
                return place, peer_of_address(f"{kind}:{peer}:0")
        return None, ""

    def _bound(self, place: ConnectionLimit, mine: list[tuple[int, _Connection]]) -> None:
        """Close connections over a bound. Older connections stay."""
        if place.close_oldest:
            self._shut_all(place, "listener", mine[: max(0, len(mine) - place.most)])
            return
        kept = 0
        by_peer: dict[str, int] = {}
        for pair in mine:
            theirs = by_peer.get(pair[1].peer, 0)
            if has_share(theirs, kept, place.most):
                by_peer[pair[1].peer] = theirs + 1
                kept += 1
            else:
                self._shut_all(place, "listener" if kept + 1 >= place.most else "peer", [pair])

    @staticmethod
    def _shut_all(
        place: ConnectionLimit, bound: str, over: Iterable[tuple[int, _Connection]]
    ) -> None:
        for descriptor, connection in over:
            connection.closed = True
            place.refused[bound] += 1
            _shut(descriptor, connection.inode)


def _is_at(host: str, local: str) -> bool:
    """Return whether a connection's own address can be that of a listener. A host name is not looked up."""
    if host in _WILDCARDS or local in _WILDCARDS:
        return True
    return host == local.removeprefix("::ffff:") or _is_name(host)


def _is_name(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            socket.inet_pton(family, host)
            return False
    return True


def _shut(descriptor: int, inode: int) -> None:
    with suppress(OSError):
        own = os.dup(descriptor)
        try:
            if os.fstat(own).st_ino == inode:
                borrowed = socket.socket(fileno=own)
                try:
                    borrowed.shutdown(socket.SHUT_RDWR)
                finally:
                    borrowed.detach()
        finally:
            os.close(own)


def connection_families(connections: ConnectionLimiter) -> list[MetricFamily]:
    """Return the metrics of connections, by listener."""
    opened = "authz_connections"
    closed = "authz_connections_refused_total"
    return [
        MetricFamily(
            opened,
            "Open connections.",
            MetricKind.GAUGE,
            tuple(
                (opened, {"listener": place.name}, float(place.opened))
                for place in connections.places
            ),
        ),
        MetricFamily(
            closed.removesuffix("_total"),
            "Connections closed because the listener, or their peer, had too many.",
            MetricKind.COUNTER,
            tuple(
                (closed, {"listener": place.name, "bound": bound}, float(number))
                for place in connections.places
                for bound, number in place.refused.items()
            ),
        ),
    ]
