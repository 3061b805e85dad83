"""Probes: whether the threads of each listener of the Python lane still answer.

A probe waits behind all calls that wait, and is answered by a thread that decides. The queue is bounded, so overload alone
delays no probe for long; threads that hang do.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from authz.periodic import PeriodicThread

__all__ = ["Probed", "Probes"]

_INTERVAL: Final = 0.4
_IN_A_ROW: Final = 3


class Probed(Protocol):
    """Threads that can be probed."""

    def probe(self, answered: Callable[[], object]) -> None:
        """Have a thread call `answered` once it is free."""


class _Row:
    """The last probes of one listener."""

    def __init__(self, threads: Probed, patience: float) -> None:
        self._threads = threads
        self._patience = patience
        self._lock = threading.Lock()
        self._pending: list[float] = []
        self._late = 0

    def send(self) -> None:
        """Send a probe, unless three are under way."""
        sent = time.monotonic()
        with self._lock:
            if len(self._pending) >= _IN_A_ROW:
                return
            self._pending.append(sent)
        self._threads.probe(lambda: self._answered(sent))

    def _answered(self, sent: float) -> None:
        late = time.monotonic() - sent > self._patience
        with self._lock:
            self._pending.remove(sent)
            self._late = self._late + 1 if late else 0

    def is_late(self) -> bool:
        """Return whether three probes in a row were late, or are."""
        oldest = time.monotonic() - self._patience
        with self._lock:
            overdue = sum(1 for sent in self._pending if sent < oldest)
            return self._late + overdue >= _IN_A_ROW


class Probes:
    """Sends probes to the threads of each listener.

    Args:
        listeners: The threads of each listener.
        patience: Seconds that a probe may wait.
        failed: Receives every unexpected exception.
    """

    def __init__(
        self,
        listeners: Mapping[str, Probed],
        patience: float,
        failed: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self._rows = {name: _Row(threads, patience) for name, threads in listeners.items()}
        self._patience = patience
        self._follow: Callable[[], object] = lambda: None
        self._thread = PeriodicThread("probes", self._send_all, _INTERVAL, failed)

    def start(self, follow: Callable[[], object]) -> None:
        """Start the thread.

        Args:
            follow: Called after each round.
        """
        self._follow = follow
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._thread.close()

    def late(self) -> tuple[str, ...]:
        """Return the names of listeners that keep calls waiting for too long."""
        return tuple(name for name, row in self._rows.items() if row.is_late())

    def problems(self) -> tuple[str, ...]:
        """Return one line for each listener that keeps calls waiting for too long."""
        return tuple(
            f"listener `{name}`: calls wait longer than {self._patience:g} s for a thread (`limits.ready_after`)"
            for name in self.late()
        )

    def _send_all(self) -> None:
        for row in self._rows.values():
            row.send()
        self._follow()
