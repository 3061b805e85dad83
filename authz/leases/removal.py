"""Removal of the secrets of leases that are due.

A removal has two steps. *Stop* ends the access, in a pool of its own, and *end* removes the secret with everything that its holder
created. The record leaves the store after that.
"""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from authz.errors import AuthzError
from authz.leases.counts import CountsOfBrokers
from authz.leases.due import DueLeases
from authz.leases.lease import Lease, LeaseState, LeaseStore, error_text
from authz.leases.pauses import backoff
from authz.leases.pools import BrokerPools
from authz.leases.protocol import BrokerError, SecretBroker

__all__ = ["LONGEST", "LeaseRemoval"]

LONGEST: Final = 60.0
"""Longest time for one call of a broker that no caller waits for, in seconds."""
_MOST_AT_ONCE: Final = 256
# A secret without access is removed in the background after this time.
_REMOVAL_WAIT: Final = 1.0
# A caller waits only for removals that began no earlier than this, in seconds.
_FRESH: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Ending:
    """The removal of a lease that is under way."""

    since: float
    """Start of the removal, by the monotonic clock."""
    stopped: "Future[bool]" = field(default_factory=Future)
    """Whether the secret gives no access any more."""
    removed: "Future[bool]" = field(default_factory=Future)
    """Whether nothing of the secret is left."""

    def finish(self, *, is_ended: bool) -> None:
        """Set the results for callers that wait."""
        if not self.stopped.done():
            self.stopped.set_result(is_ended)
        self.removed.set_result(is_ended)


@dataclass(frozen=True, slots=True)
class _Begun:
    """Removals that were begun."""

    endings: list[_Ending]
    """Removals that a caller waits for."""
    left: int
    """Number of other leases that are due."""


class LeaseRemoval:
    """Removes the secrets of leases that are due.

    Args:
        brokers: Brokers by name.
        store: Has the records.
        due: Remembers which leases are due.
        counts: Counts the removals of each broker.
        pools: Threads of the brokers.
        clock: Unix time.
    """

    def __init__(
        self,
        brokers: Mapping[str, SecretBroker],
        store: LeaseStore,
        due: DueLeases,
        counts: CountsOfBrokers,
        pools: BrokerPools,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._brokers = brokers
        self._store = store
        self._due = due
        self._counts = counts
        self._pools = pools
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[str, _Ending] = {}

    def begin(self, session: str | None = None) -> _Begun:
        """Begin to remove the secrets that are due. `session`: only leases of this session. Raises AuthzError if the store fails."""
        now, clock = self._clock(), time.monotonic()
        leases = self._store.leases(session)
        due = self._due.select(leases, now, clock, is_complete=session is None)
        with self._lock:
            endings = [
                ending
                for lease in due
                if (ending := self._running.get(lease.id) or self._submit(lease, now, clock))
                # A caller waits neither for a broker that fails nor for a removal that another caller has waited for.
                and clock - ending.since <= _FRESH
                and not self._counts.is_failing(lease.broker)
            ]
        return _Begun(endings, len(due) - len(endings))

    def wait_for(self, within: float, session: str | None = None) -> bool:
        """Remove the secrets that are due, and wait until none gives access; return whether none is left.

        Args:
            within: Seconds to wait. Removals that take longer continue in the background, as does one that takes more than a
                second after its secret has lost access.
            session: Only leases of this session.

        Raises:
            AuthzError: The store failed.
        """
        started = time.monotonic()
        begun = self.begin(session)

        def left() -> float:
            return max(0.0, within - (time.monotonic() - started))

        removals = [ending.removed for ending in begun.endings]
        done, waiting = wait(removals, timeout=min(left(), _REMOVAL_WAIT))
        wait([ending.stopped for ending in begun.endings], timeout=left())
        return not begun.left and not waiting and all(removal.result() for removal in done)

    def end_unrecorded(self, lease: Lease) -> None:
        """Remove a secret in the background whose record another node may have removed."""
        # Where the pools are closed or the broker fails, the secret is found later as one without a lease.
        with suppress(RuntimeError):
            self._pools.remove(lease.broker, partial(self._end_quietly, lease))

    def _end_quietly(self, lease: Lease) -> None:
        with suppress(BrokerError):
            self._brokers[lease.broker].end(lease.id, LONGEST)

    # --- the steps of one removal

    def _submit(self, lease: Lease, now: float, clock: float) -> _Ending | None:
        has_to_wait = lease.next_try is not None and lease.next_try > now
        if has_to_wait or not self._counts.may_remove(lease.broker, clock):
            return None
        if self._pools.is_closing or len(self._running) >= _MOST_AT_ONCE:
            return None
        ending = _Ending(clock)
        self._running[lease.id] = ending
        self._pools.stop(lease.broker, partial(self._stop, lease, ending))
        return ending

    def _stop(self, lease: Lease, ending: _Ending) -> None:
        """Claim a lease and end its access. Another pool removes the rest."""
        claim: Lease | None = None
        try:
            claim = self._claim(lease)
            if claim is None:
                self._finish(lease, ending, is_ended=self._is_gone(lease))
                return
            self._brokers[lease.broker].stop(lease.id, LONGEST)
            self._due.stopped(lease)
            ending.stopped.set_result(True)
            self._pools.remove(lease.broker, partial(self._end, claim, ending))
        except BaseException as error:  # noqa: BLE001 - a panic of the engine is not an Exception
            self._failed(lease, claim, error)
            self._finish(lease, ending, is_ended=False)

    def _claim(self, lease: Lease) -> Lease | None:
        """Mark a lease as ending; `None` if another node did."""
        attempts = lease.attempts + 1
        claim = replace(
            lease,
            state=LeaseState.ENDING,
            attempts=attempts,
            next_try=self._clock() + backoff(attempts),
        )
        # The first node has the claim. If that node dies, the lease is due again.
        return claim if self._store.put_lease(claim, lease) else None

    def _is_gone(self, lease: Lease) -> bool:
        return all(stored.id != lease.id for stored in self._store.leases(lease.session))

    def _end(self, claim: Lease, ending: _Ending) -> None:
        is_ended = False
        try:
            self._brokers[claim.broker].end(claim.id, LONGEST)
            self._store.put_lease(replace(claim, state=LeaseState.ENDED), claim)
            self._due.removed(claim)
            self._counts.removal_succeeded(claim.broker)
            is_ended = True
        except BaseException as error:  # noqa: BLE001 - a panic of the engine is not an Exception
            self._failed(claim, claim, error)
        finally:
            self._finish(claim, ending, is_ended=is_ended)

    def _finish(self, lease: Lease, ending: _Ending, *, is_ended: bool) -> None:
        with self._lock:
            self._running.pop(lease.id, None)
        ending.finish(is_ended=is_ended)

    def _failed(self, lease: Lease, claim: Lease | None, error: BaseException) -> None:
        self._counts.removal_failed(lease.broker, error)
        if claim is not None and isinstance(error, BrokerError):
            # If the store fails, the claim is tried again all the same.
            with suppress(AuthzError):
                self._store.put_lease(replace(claim, last_error=error_text(error)), claim)
