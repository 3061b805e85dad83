"""Leases, from the committed record to the removed secret.

A record is committed before its secret is made, and removed after the secret is removed. Only the store knows which tasks are live:
a lease whose task has ended, or that has expired, is due, and its removal is tried until it succeeds.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, Protocol

from authz.errors import ApiError, AuthzError, GrpcCode
from authz.leases.protocol import (
    BrokerError,
    LeaseOrder,
    NothingMadeError,
    SecretBroker,
    UnreachableError,
)
from authz.model import MetricFamily, MetricKind
from authz.periodic import PeriodicThread
from authz.telemetry import Logger

__all__ = ["Lease", "LeaseManager", "LeaseState", "LeaseStore"]

_STOP_THREADS: Final = 16
_REMOVAL_THREADS: Final = 4
_MOST_AT_ONCE: Final = 256
_MOST_LEASES: Final = 10_000
_MAX_INTERVAL: Final = 0.5
_WANTED_SECONDS: Final = 75.0
_FIRST_BACKOFF: Final = 0.5
_LAST_BACKOFF: Final = 60.0
_DOUBLINGS: Final = 7
_STOP_AFTER: Final = 3
_ALARM_SECONDS: Final = 30.0
_ORPHAN_SECONDS: Final = 60.0
_LONGEST: Final = 60.0
_MAX_ERROR: Final = 300
# Lets the answer leave in time, and bounds the wait for a broker that is down.
_MARGIN: Final = 0.1
_LONGEST_WAIT: Final = 5.0
# A secret without access is removed in the background after this time.
_REMOVAL_WAIT: Final = 1.0
_FRESH: Final = 1.0
_JOIN_SECONDS: Final = 10.0


class LeaseState(StrEnum):
    """State of a lease."""

    WANTED = "wanted"
    LIVE = "live"
    ENDING = "ending"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Lease:
    """The record of a lease."""

    id: str
    """`<session>/<uuid>`."""
    broker: str
    """Name of the broker."""
    state: LeaseState
    """State of the lease."""
    expires_at: float
    """Unix time at which the lease ends at the latest."""
    operation: str = ""
    """The permitted operation."""
    attempts: int = 0
    """Number of attempts to remove the secret."""
    next_try: float | None = None
    """Unix time of the next attempt."""
    live: bool = True
    """The task and its ancestors are live, and nothing of it is revoked."""
    last_error: str = ""
    """Error of the last attempt to remove the secret."""
    name: str = ""
    """Name of the secret in the system, such as the role's."""
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The full record of the store."""

    @property
    def session(self) -> str:
        """Session of the lease."""
        return self.id.partition("/")[0]

    def is_due(self, now: float) -> bool:
        """Return whether the secret must be removed: the task has ended, the lease has expired, or its removal has begun."""
        return self.state is LeaseState.ENDING or not self.live or self.expires_at <= now


class LeaseStore(Protocol):
    """Has the records."""

    def leases(self, session: str | None = None) -> Iterable[Lease]:
        """Return leases, with the current state of their tasks. `session`: only leases of this session."""

    def put_lease(self, lease: Lease, before: Lease) -> bool:
        """Change a lease, or remove it (state `ended`), if it did not change meanwhile.

        Args:
            lease: The new record.
            before: The record that must be stored still.

        Returns:
            Whether the lease was changed. A lease becomes `live` only while its task is.
        """


@dataclass(slots=True)
class _Counts:
    """Counters and errors of one broker."""

    made: int = 0
    not_made: int = 0
    ended: int = 0
    not_ended: int = 0
    orphans: int = 0
    failures_in_a_row: int = 0
    paused_until: float = 0.0
    last_error: str = ""
    orphans_due: float = 0.0
    orphan_failures: int = 0
    is_logged: bool = False
    findings: tuple[str, ...] = ()
    not_made_error: str = ""


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
        self._interval = min(_MAX_INTERVAL, staleness / 2)
        self._clock = clock
        self._lock = threading.Lock()
        self._counts = {name: _Counts() for name in self._brokers}
        self._running: dict[str, _Ending] = {}
        # Time at which each lease was first seen to be due, or wanted, by the monotonic clock.
        self._due_since: dict[str, tuple[str, float]] = {}
        self._wanted_since: dict[str, float] = {}
        self._store_error = ""
        # Leases whose secrets give no access any more, and are not removed yet.
        self._stopped: set[str] = set()
        # The removal of a secret may take long, if its holder created much. The end of other secrets does not wait for it.
        self._stops = self._pools_of("stop", _STOP_THREADS)
        self._removals = self._pools_of("removal", _REMOVAL_THREADS)
        self._thread = PeriodicThread(
            "leases", self._run_once, self._interval, self._log_failure, starts_at_once=True
        )

    def _pools_of(self, work: str, threads: int) -> dict[str, ThreadPoolExecutor]:
        return {
            name: ThreadPoolExecutor(threads, thread_name_prefix=f"authz-lease-{work}-{name}")
            for name in self._brokers
        }

    # --- life

    def start(self) -> None:
        """Start the thread: it removes secrets that are due, and secrets without a lease."""
        self._thread.start()

    def close(self) -> None:
        """Stop. Leases that are due stay in the store, for the next start or another node."""
        self._thread.close(_JOIN_SECONDS)
        for pool in (*self._stops.values(), *self._removals.values()):
            pool.shutdown(wait=False, cancel_futures=True)
        for broker in self._brokers.values():
            broker.close()

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
        broker = self._brokers.get(lease.broker)
        if broker is None or not broker.serves(lease.operation):
            self._count(lease.broker, made=False)
            self._give_up(lease, None)
            if broker is None:
                raise BrokerError(f"there is no broker `{lease.broker}` here")
            what = "no grants are configured for this operation"
            raise ApiError("OUT_OF_SCOPE", GrpcCode.PERMISSION_DENIED, what)
        named_lease = replace(lease, name=broker.name_of(lease.id))
        try:
            holder = str(lease.record.get("agent", ""))
            order = LeaseOrder(lease.id, lease.operation, lease.expires_at, holder)
            parts = broker.make(order, within)
            is_live = self._store.put_lease(replace(named_lease, state=LeaseState.LIVE), lease)
        except BaseException as error:
            self._count(lease.broker, made=False)
            self._give_up(lease, None if isinstance(error, NothingMadeError) else broker)
            if isinstance(error, BrokerError):
                self._log_not_made(lease.broker, str(error)[:_MAX_ERROR])
                # An agent must not learn how the system is set up.
                what = f"broker `{lease.broker}` cannot make a secret now; the node's log says why"
                raise BrokerError(what) from error
            raise
        if not is_live:
            self._count(lease.broker, made=False)
            self._give_up(lease, broker)
            what = "the task ended before its secret was made"
            raise ApiError("TASK_ENDED", GrpcCode.FAILED_PRECONDITION, what)
        self._count(lease.broker, made=True)
        return parts

    def _log_not_made(self, broker: str, reason: str) -> None:
        with self._lock:
            counts = self._counts[broker]
            tell, counts.not_made_error = counts.not_made_error != reason, reason
        if tell:
            self._log.warning("a leased secret cannot be made", broker=broker, error=reason)

    def _give_up(self, lease: Lease, broker: SecretBroker | None) -> None:
        """Remove the record where no secret was made; otherwise mark it, so that the thread removes the secret."""
        state = LeaseState.ENDED if broker is None else LeaseState.ENDING
        try:
            is_ours = self._store.put_lease(replace(lease, state=state), lease)
        except AuthzError:
            # It stays wanted, and is removed once no caller can be making its secret any more.
            return
        if broker is None:
            return
        if is_ours:
            self._thread.wake()
            return
        # Another node may have removed the record before the secret was made.
        with suppress(RuntimeError):
            self._removals[lease.broker].submit(self._end_unknown, broker, lease)

    def _end_unknown(self, broker: SecretBroker, lease: Lease) -> None:
        # A secret that is left here is found as one without a lease.
        with suppress(BrokerError):
            broker.end(lease.id, _LONGEST)

    def _count(self, broker: str, *, made: bool) -> None:
        with self._lock:
            counts = self._counts.get(broker)
            if counts is not None:
                counts.made += made
                counts.not_made += not made
                if made:
                    counts.not_made_error = ""

    # --- removal

    def end_due(self, within: float, session: str | None = None) -> bool:
        """Remove the secrets that are due, and wait for it.

        Args:
            within: Seconds to wait until no secret gives access any more. A removal that takes longer continues in the background, as does one
                that takes more than a second after that.
            session: Only leases of this session.

        Returns:
            Whether no secret that is due is left.

        Raises:
            AuthzError: The store failed.
        """
        started = time.monotonic()
        begun, left = self._begin(session)
        removed = [ending.removed for ending in begun]
        spent = time.monotonic() - started
        done, waiting = wait(removed, timeout=max(0.0, min(within - spent, _REMOVAL_WAIT)))
        spent = time.monotonic() - started
        wait([ending.stopped for ending in begun], timeout=max(0.0, within - spent))
        return not left and not waiting and all(removal.result() for removal in done)

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

    def _begin(self, session: str | None) -> tuple[list[_Ending], int]:
        now, clock = self._clock(), time.monotonic()
        due: list[Lease] = []
        seen: set[str] = set()
        for lease in self._store.leases(session):
            seen.add(lease.id)
            if lease.is_due(now) or self._is_abandoned(lease, clock):
                due.append(lease)
        begun: list[_Ending] = []
        left = 0
        with self._lock:
            if session is None:
                still = {lease.id for lease in due}
                self._stopped &= still
                self._due_since = {k: v for k, v in self._due_since.items() if k in still}
                self._wanted_since = {k: v for k, v in self._wanted_since.items() if k in seen}
            for lease in due:
                self._due_since.setdefault(lease.id, (lease.broker, clock))
                ending = self._running.get(lease.id) or self._submit(lease, now, clock)
                # A caller waits neither for a broker that fails nor for a removal that another caller has waited for.
                if (
                    ending is None
                    or clock - ending.since > _FRESH
                    or self._is_failing(lease.broker)
                ):
                    left += 1
                else:
                    begun.append(ending)
        return begun, left

    def _is_abandoned(self, lease: Lease, clock: float) -> bool:
        """Return whether a wanted lease is older than any call may take, so that no caller can be making its secret."""
        if lease.state is not LeaseState.WANTED:
            return False
        with self._lock:
            since = self._wanted_since.setdefault(lease.id, clock)
        return clock - since > _WANTED_SECONDS

    def _submit(self, lease: Lease, now: float, clock: float) -> _Ending | None:
        counts = self._counts.get(lease.broker)
        waits = lease.next_try is not None and lease.next_try > now
        if counts is None or waits or clock < counts.paused_until or self._thread.is_closing:
            return None
        if len(self._running) >= _MOST_AT_ONCE:
            return None
        ending = _Ending(clock)
        self._running[lease.id] = ending
        self._stops[lease.broker].submit(self._stop_and_end, lease, ending)
        return ending

    def _is_failing(self, broker: str) -> bool:
        counts = self._counts.get(broker)
        return counts is not None and counts.failures_in_a_row > 0

    def _stop_and_end(self, lease: Lease, ending: _Ending) -> None:
        """Claim a lease and end its access. Another pool removes the rest."""
        claim: Lease | None = None
        try:
            claim = self._claim(lease)
            if claim is None:
                is_gone = not any(
                    stored.id == lease.id for stored in self._store.leases(lease.session)
                )
                self._finish(lease, ending, is_ended=is_gone)
                return
            self._brokers[lease.broker].stop(lease.id, _LONGEST)
            with self._lock:
                self._stopped.add(lease.id)
            ending.stopped.set_result(True)
            self._removals[lease.broker].submit(self._remove, claim, ending)
        except BaseException as error:  # noqa: BLE001 - a panic of the engine is no Exception
            self._not_ended(lease, claim, error)
            self._finish(lease, ending, is_ended=False)

    def _remove(self, claim: Lease, ending: _Ending) -> None:
        is_ended = False
        try:
            self._brokers[claim.broker].end(claim.id, _LONGEST)
            self._store.put_lease(replace(claim, state=LeaseState.ENDED), claim)
            self._succeeded(claim)
            is_ended = True
        except BaseException as error:  # noqa: BLE001 - a panic of the engine is no Exception
            self._not_ended(claim, claim, error)
        finally:
            self._finish(claim, ending, is_ended=is_ended)

    def _finish(self, lease: Lease, ending: _Ending, *, is_ended: bool) -> None:
        with self._lock:
            self._running.pop(lease.id, None)
        ending.finish(is_ended=is_ended)

    def _claim(self, lease: Lease) -> Lease | None:
        """Mark a lease as ending; `None` if another node did."""
        attempts = lease.attempts + 1
        claim = replace(
            lease,
            state=LeaseState.ENDING,
            attempts=attempts,
            next_try=self._clock() + _backoff(attempts),
        )
        # The first node has the claim. If that node dies, the lease is due again.
        return claim if self._store.put_lease(claim, lease) else None

    def _not_ended(self, lease: Lease, claim: Lease | None, error: BaseException) -> None:
        self._failed(lease.broker, error)
        if claim is not None and isinstance(error, BrokerError):
            # If the store fails, the claim is tried again all the same.
            with suppress(AuthzError):
                self._store.put_lease(replace(claim, last_error=str(error)[:_MAX_ERROR]), claim)

    def _failed(self, broker: str, error: BaseException) -> None:
        text = str(error)[:_MAX_ERROR]
        with self._lock:
            counts = self._counts[broker]
            counts.not_ended += 1
            counts.last_error = text
            # Only a broker that cannot reach its system pauses: a failure of one lease must not delay others.
            if isinstance(error, UnreachableError):
                counts.failures_in_a_row += 1
            if isinstance(error, UnreachableError) and counts.failures_in_a_row >= _STOP_AFTER:
                pause = _backoff(counts.failures_in_a_row - _STOP_AFTER + 1)
                counts.paused_until = time.monotonic() + pause
            is_new, counts.is_logged = not counts.is_logged, True
        if is_new:
            self._log.error(
                "a leased secret cannot be removed; trying again", broker=broker, error=text
            )

    def _succeeded(self, lease: Lease) -> None:
        with self._lock:
            self._due_since.pop(lease.id, None)
            self._stopped.discard(lease.id)
            counts = self._counts[lease.broker]
            counts.ended += 1
            counts.failures_in_a_row, counts.paused_until = 0, 0.0
            was_logged, counts.is_logged, counts.last_error = counts.is_logged, False, ""
        if was_logged:
            self._log.info("leased secrets can be removed again", broker=lease.broker)

    # --- the thread

    def _run_once(self) -> None:
        error = ""
        try:
            self._begin(None)
        except BaseException as failed:  # noqa: BLE001 - a panic of the engine is no Exception
            error = str(failed)[:_MAX_ERROR] or type(failed).__name__
        self._log_store(error)
        self._end_orphans()

    def _log_failure(self, error: BaseException) -> None:
        self._log.error("the round over all leases failed; trying again", error=repr(error))

    def _log_store(self, error: str) -> None:
        before, self._store_error = self._store_error, error
        if error and not before:
            self._log.warning("leases cannot be read; trying again", error=error)
        if before and not error:
            self._log.info("leases can be read again")

    def _end_orphans(self) -> None:
        clock = time.monotonic()
        with self._lock:
            for name, counts in self._counts.items():
                if counts.orphans_due > clock or self._thread.is_closing:
                    continue
                counts.orphans_due = clock + _LONGEST + _ORPHAN_SECONDS
                self._removals[name].submit(self._end_orphans_of, name)

    def _end_orphans_of(self, name: str) -> None:
        def known() -> frozenset[str]:
            ids = frozenset(lease.id for lease in self._store.leases())
            if len(ids) >= _MOST_LEASES:
                # A lease that is not listed would count as removed.
                raise BrokerError("there are more leases than can be listed at once")
            return ids

        removed, failure = 0, ""
        try:
            removed = self._brokers[name].end_orphans(known, _LONGEST)
            self._inspected(name, self._brokers[name].inspect(_LONGEST))
        except BaseException as error:  # noqa: BLE001 - a panic of the engine is no Exception
            failure = str(error)[:_MAX_ERROR] or type(error).__name__
        with self._lock:
            counts = self._counts[name]
            counts.orphans += removed
            before = counts.orphan_failures
            counts.orphan_failures = before + 1 if failure else 0
            pause = _backoff(counts.orphan_failures) if failure else _jittered(_ORPHAN_SECONDS)
            counts.orphans_due = time.monotonic() + pause
        if removed:
            self._log.warning("secrets without a lease were removed", broker=name, count=removed)
        if failure and not before:
            what = "secrets without a lease cannot be looked for; trying again"
            self._log.warning(what, broker=name, error=failure)

    def _inspected(self, name: str, findings: tuple[str, ...]) -> None:
        with self._lock:
            counts = self._counts[name]
            before, counts.findings = counts.findings, findings
        for finding in set(findings) - set(before):
            self._log.warning("the system of leased secrets is not set up well", problem=finding)

    # --- status

    def problems(self) -> tuple[str, ...]:
        """Return one line for each problem."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        if self._store_error:
            yield f"leases cannot be looked up ({self._store_error})"
        overdue = self._overdue()
        with self._lock:
            errors = {name: counts.last_error for name, counts in self._counts.items()}
            orphans = [n for n, counts in self._counts.items() if counts.orphan_failures > 0]
            findings = [finding for counts in self._counts.values() for finding in counts.findings]
            still_open = Counter(
                broker for id_, (broker, _) in self._due_since.items() if id_ not in self._stopped
            )
        for name, (count, seconds) in sorted(overdue.items()):
            if name not in errors:
                yield f"{count} leases are of broker `{name}`, which is not configured here"
            elif seconds > _ALARM_SECONDS:
                said = f" ({errors[name]})" if errors[name] else ""
                yield (
                    f"{count} leases of broker `{name}` cannot be removed, for {seconds:.0f} s;"
                    f" {still_open[name]} of them may still give access{said}"
                )
        for name in orphans:
            yield f"secrets without a lease cannot be looked for at broker `{name}`"
        yield from findings

    def _overdue(self) -> dict[str, tuple[int, float]]:
        clock = time.monotonic()
        found: dict[str, tuple[int, float]] = {}
        with self._lock:
            for broker, since in self._due_since.values():
                count, seconds = found.get(broker, (0, 0.0))
                found[broker] = (count + 1, max(seconds, clock - since))
        return found

    def detail(self) -> list[dict[str, Any]]:
        """Tell how each broker stands.

        Returns:
            JSON values.
        """
        overdue = self._overdue()
        with self._lock:
            counts = {name: replace(one) for name, one in self._counts.items()}
        return [
            {
                "broker": name,
                "due": overdue.get(name, (0, 0.0))[0],
                "overdue_seconds": round(overdue.get(name, (0, 0.0))[1], 3),
                "failures_in_a_row": one.failures_in_a_row,
                "error": one.last_error,
            }
            for name, one in counts.items()
        ]

    def families(self) -> Iterator[MetricFamily]:
        """Give the metrics.

        Yields:
            Every family; labels are the names of the configuration.
        """
        overdue = self._overdue()
        with self._lock:
            counts = {name: replace(one) for name, one in self._counts.items()}
        unknown = [at for name, at in overdue.items() if name not in counts]

        def counter(name: str, text: str, values: Iterable[tuple[dict[str, str], int]]) -> Any:
            samples = tuple((f"{name}_total", labels, float(value)) for labels, value in values)
            return MetricFamily(name, text, MetricKind.COUNTER, samples)

        def gauge(name: str, text: str, index: int) -> MetricFamily:
            of = {broker: overdue.get(broker, (0, 0.0))[index] for broker in counts}
            if unknown:
                of[""] = max(at[index] for at in unknown)
            samples = tuple((name, {"broker": b}, float(value)) for b, value in of.items())
            return MetricFamily(name, text, MetricKind.GAUGE, samples)

        yield counter(
            "authz_leases_made",
            "Secrets that were made for a lease, by result.",
            [
                pair
                for name, one in counts.items()
                for pair in (
                    ({"broker": name, "result": "success"}, one.made),
                    ({"broker": name, "result": "failure"}, one.not_made),
                )
            ],
        )
        yield counter(
            "authz_lease_ends",
            "Attempts to remove the secret of a lease, by result.",
            [
                pair
                for name, one in counts.items()
                for pair in (
                    ({"broker": name, "result": "success"}, one.ended),
                    ({"broker": name, "result": "failure"}, one.not_ended),
                )
            ],
        )
        yield counter(
            "authz_lease_orphans",
            "Secrets that were removed because they had no known lease.",
            [({"broker": name}, one.orphans) for name, one in counts.items()],
        )
        yield gauge(
            "authz_leases_due",
            "Leases that have ended and whose secret is not removed yet.",
            0,
        )
        yield gauge(
            "authz_lease_overdue_seconds",
            "How long the oldest lease that has ended waits for its secret to be removed.",
            1,
        )


def _backoff(attempts: int) -> float:
    return _jittered(min(_LAST_BACKOFF, _FIRST_BACKOFF * 2 ** min(attempts - 1, _DOUBLINGS)))


def _jittered(seconds: float) -> float:
    # Nodes that failed together do not come back together.
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
