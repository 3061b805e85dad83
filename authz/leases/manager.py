"""Leases, from the committed record to the removed secret.

A record is committed before its secret is made, and removed after the secret is removed. Only the store knows which tasks are live:
a lease whose task has ended, or that has expired, is due, and its removal is tried until it succeeds.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from authz.errors import ApiError, AuthzError, GrpcCode
from authz.leases.counts import CountsOfBrokers
from authz.leases.due import DueLeases
from authz.leases.lease import Lease, LeaseState, LeaseStore, error_text
from authz.leases.orphans import OrphanRemoval
from authz.leases.pools import BrokerPools
from authz.leases.protocol import BrokerError, LeaseOrder, NothingMadeError, SecretBroker
from authz.leases.removal import LeaseRemoval
from authz.leases.status import LeaseStatus
from authz.model import MetricFamily
from authz.periodic import PeriodicThread
from authz.telemetry import Logger

__all__ = ["LeaseManager"]

_MAX_INTERVAL: Final = 0.5
_JOIN_SECONDS: Final = 10.0
# Lets the answer leave in time, and bounds the wait for a broker that is down.
_MARGIN: Final = 0.1
_LONGEST_WAIT: Final = 5.0


class LeaseManager:
    """The brokers, and the thread that removes secrets of leases that are due.

    Args:
        brokers: Brokers by name.
        store: Has the records.
        log: Receives a line when a secret cannot be removed, and when it can again.
        staleness: Seconds within which the end of a task on another node is seen here.
        clock: Unix time.
    """

    def __init__(
        self,
        brokers: Mapping[str, SecretBroker],
        store: LeaseStore,
        log: Logger,
        *,
        staleness: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._brokers = dict(brokers)
        self._store = store
        self._log = log
        self._counts = CountsOfBrokers(self._brokers, log)
        self._pools = BrokerPools(self._brokers)
        due = DueLeases()
        self._removal = LeaseRemoval(
            self._brokers, store, due, self._counts, self._pools, clock=clock
        )
        self._orphans = OrphanRemoval(self._brokers, store, self._counts, self._pools)
        self._status = LeaseStatus(due, self._counts)
        self._store_error = ""
        self._thread = PeriodicThread(
            "leases",
            self._run_once,
            min(_MAX_INTERVAL, staleness / 2),
            self._log_failure,
            starts_at_once=True,
        )

    # --- life

    def start(self) -> None:
        """Start the thread: it removes secrets that are due, and secrets without a lease."""
        self._thread.start()

    def close(self) -> None:
        """Stop. Leases that are due stay in the store, for the next start or another node."""
        self._pools.begin_close()
        self._thread.close(_JOIN_SECONDS)
        self._pools.close()
        for broker in self._brokers.values():
            broker.close()

    def _run_once(self) -> None:
        error = ""
        try:
            self._removal.begin()
        except BaseException as failure:  # noqa: BLE001 - a panic of the engine is not an Exception
            error = error_text(failure)
        self._log_store(error)
        self._orphans.begin()

    def _log_failure(self, error: BaseException) -> None:
        self._log.error("the round over all leases failed; trying again", error=repr(error))

    def _log_store(self, error: str) -> None:
        before, self._store_error = self._store_error, error
        if error and not before:
            self._log.warning("leases cannot be read; trying again", error=error)
        if before and not error:
            self._log.info("leases can be read again")

    # --- making

    def make(self, lease: Lease, within: float) -> Mapping[str, str]:
        """Make the secret of a lease whose record was committed as wanted.

        Args:
            lease: The record.
            within: Seconds that the caller still waits.

        Returns:
            The secret in named parts.

        Raises:
            BrokerError: The broker cannot make the secret.
            ApiError: The operation has no grants, or the task ended meanwhile.
        """
        broker = self._broker_for(lease)
        try:
            parts = broker.make(_order(lease), within)
            live = replace(lease, name=broker.name_of(lease.id), state=LeaseState.LIVE)
            is_live = self._store.put_lease(live, lease)
        except BrokerError as error:
            self._counts.not_made(lease.broker, error_text(error))
            self._give_up(lease, may_exist=not isinstance(error, NothingMadeError))
            # An agent must not learn how the system is set up.
            what = f"broker `{lease.broker}` cannot make a secret now; the node's log says why"
            raise BrokerError(what) from error
        except BaseException:
            self._counts.not_made(lease.broker)
            self._give_up(lease, may_exist=True)
            raise
        if not is_live:
            self._counts.not_made(lease.broker)
            self._give_up(lease, may_exist=True)
            what = "the task ended before its secret was made"
            raise ApiError("TASK_ENDED", GrpcCode.FAILED_PRECONDITION, what)
        self._counts.made(lease.broker)
        return parts

    def _broker_for(self, lease: Lease) -> SecretBroker:
        """Return the broker of a lease; where it cannot make the secret, remove the record and raise the reason."""
        broker = self._brokers.get(lease.broker)
        if broker is not None and broker.serves(lease.operation):
            return broker
        self._counts.not_made(lease.broker)
        self._give_up(lease, may_exist=False)
        if broker is None:
            raise BrokerError(f"there is no broker `{lease.broker}` here")
        what = "no grants are configured for this operation"
        raise ApiError("OUT_OF_SCOPE", GrpcCode.PERMISSION_DENIED, what)

    def _give_up(self, lease: Lease, *, may_exist: bool) -> None:
        """Remove the record of a secret that was not made; mark one that may exist, so that the thread removes the secret."""
        state = LeaseState.ENDING if may_exist else LeaseState.ENDED
        try:
            is_ours = self._store.put_lease(replace(lease, state=state), lease)
        except AuthzError:
            # It stays wanted, and is removed once no caller can be making its secret any more.
            return
        if may_exist and is_ours:
            self._thread.wake()
        elif may_exist:
            # Another node may have removed the record before the secret was made.
            self._removal.end_unrecorded(lease)

    # --- removal

    def end_due(self, within: float, session: str | None = None) -> bool:
        """Remove the secrets that are due, and wait for it.

        Args:
            within: Seconds to wait until no secret gives access any more. Removals that take longer continue in the background,
                as does one that takes more than a second after its secret has lost access.
            session: Only leases of this session.

        Returns:
            Whether no secret that is due is left.

        Raises:
            AuthzError: The store failed.
        """
        return self._removal.wait_for(within, session)

    def ended(self, left: float) -> None:
        """Remove secrets after a task ended, for as long as the caller that ended it waits.

        A removal that fails stays due, and the thread tries it again.

        Args:
            left: Seconds until the caller's deadline.
        """
        try:
            self.end_due(max(0.0, min(left - _MARGIN, _LONGEST_WAIT)))
        except AuthzError:
            self._thread.wake()

    # --- status

    def problems(self) -> tuple[str, ...]:
        """Return one line for each problem."""
        unread = f"leases cannot be looked up ({self._store_error})"
        return (*([unread] if self._store_error else ()), *self._status.problems())

    def detail(self) -> list[dict[str, Any]]:
        """Return the status of each broker as JSON values."""
        return self._status.detail()

    def families(self) -> Iterator[MetricFamily]:
        """Yield every metric; labels are names of the configuration."""
        return self._status.families()


def _order(lease: Lease) -> LeaseOrder:
    holder = str(lease.record.get("agent", ""))
    return LeaseOrder(lease.id, lease.operation, lease.expires_at, holder)
