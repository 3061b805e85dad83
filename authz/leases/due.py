"""The leases that are due: since when, and whose secrets may still give access."""

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from authz.leases.lease import Lease, LeaseState

__all__ = ["DueLeases", "Overdue"]

# Longer than any call may take: nobody can be making the secret of an older lease that is wanted.
_WANTED_SECONDS: Final = 75.0


@dataclass(frozen=True, slots=True)
class Overdue:
    """Due leases of one broker."""

    count: int = 0
    """Number of leases."""
    seconds: float = 0.0
    """Time since the oldest of them was first seen to be due."""


class DueLeases:
    """The leases that were seen to be due. Times are those of the monotonic clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Broker, and time at which the lease was first seen to be due.
        self._since: dict[str, tuple[str, float]] = {}
        self._wanted_since: dict[str, float] = {}
        # Secrets that give no access any more, and are not removed yet.
        self._stopped: set[str] = set()

    def select(
        self, leases: Iterable[Lease], now: float, clock: float, *, is_complete: bool
    ) -> list[Lease]:
        """Return the leases that are due, and remember since when.

        Args:
            leases: Leases of the store.
            now: Unix time.
            clock: Time of the monotonic clock.
            is_complete: These are all leases of the store. Others are forgotten.
        """
        listed = list(leases)
        with self._lock:
            due = [lease for lease in listed if lease.is_due(now) or self._is_stuck(lease, clock)]
            if is_complete:
                self._forget_others(listed, due)
            for lease in due:
                self._since.setdefault(lease.id, (lease.broker, clock))
        return due

    def _is_stuck(self, lease: Lease, clock: float) -> bool:
        """Return whether a lease is wanted for so long that no caller can be making its secret."""
        if lease.state is not LeaseState.WANTED:
            return False
        return clock - self._wanted_since.setdefault(lease.id, clock) > _WANTED_SECONDS

    def _forget_others(self, listed: list[Lease], due: list[Lease]) -> None:
        stored, still_due = {lease.id for lease in listed}, {lease.id for lease in due}
        self._stopped &= still_due
        self._since = {id_: since for id_, since in self._since.items() if id_ in still_due}
        self._wanted_since = {
            id_: since for id_, since in self._wanted_since.items() if id_ in stored
        }

    def stopped(self, lease: Lease) -> None:
        """Note that a secret gives no access any more."""
        with self._lock:
            self._stopped.add(lease.id)

    def removed(self, lease: Lease) -> None:
        """Note that a secret was removed."""
        with self._lock:
            self._since.pop(lease.id, None)
            self._stopped.discard(lease.id)

    def overdue(self, clock: float) -> dict[str, Overdue]:
        """Return the due leases of each broker, of brokers that are not configured, too."""
        overdue: dict[str, Overdue] = {}
        with self._lock:
            for broker, since in self._since.values():
                before = overdue.get(broker, Overdue())
                overdue[broker] = Overdue(before.count + 1, max(before.seconds, clock - since))
        return overdue

    def still_open(self) -> Counter[str]:
        """Count the due leases of each broker whose secrets may still give access."""
        with self._lock:
            return Counter(
                broker for id_, (broker, _) in self._since.items() if id_ not in self._stopped
            )
