"""Counters and errors of each broker: for metrics and status, and for the pause of a broker that cannot reach its system."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from authz.leases.lease import error_text
from authz.leases.pauses import backoff
from authz.leases.protocol import UnreachableError
from authz.telemetry import Logger

__all__ = ["BrokerCounts", "CountsOfBrokers"]

# Failures in a row after which a broker pauses.
_FAILURES_BEFORE_PAUSE: Final = 3


@dataclass(slots=True)
class BrokerCounts:
    """Counters and errors of one broker."""

    made: int = 0
    """Secrets that were made."""
    not_made: int = 0
    """Secrets that could not be made."""
    not_made_error: str = ""
    """Error of the last attempt to make a secret; empty if it succeeded."""
    ended: int = 0
    """Secrets that were removed."""
    not_ended: int = 0
    """Attempts to remove a secret that failed."""
    last_error: str = ""
    """Error of the last attempt to remove a secret; empty if it succeeded."""
    failures_in_a_row: int = 0
    """Attempts in a row that did not reach the system."""
    paused_until: float = 0.0
    """End of the pause, by the monotonic clock."""
    is_failure_logged: bool = False
    """The log has a failure to remove secrets, and not yet that it is over."""
    orphans: int = 0
    """Secrets without a lease that were removed."""
    orphan_failures: int = 0
    """Searches in a row for secrets without a lease that failed."""
    findings: tuple[str, ...] = ()
    """Problems of the system's settings."""


class CountsOfBrokers:
    """The counts of all brokers, and the log lines when one begins or ceases to fail.

    Args:
        names: Names of the brokers.
        log: Receives the lines.
    """

    def __init__(self, names: Iterable[str], log: Logger) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._counts = {name: BrokerCounts() for name in names}

    def copy(self) -> dict[str, BrokerCounts]:
        """Return a copy of the counts, by broker."""
        with self._lock:
            return {name: replace(counts) for name, counts in self._counts.items()}

    # --- making

    def made(self, broker: str) -> None:
        """Count a secret that was made."""
        with self._lock:
            counts = self._counts[broker]
            counts.made += 1
            counts.not_made_error = ""

    def not_made(self, broker: str, reason: str = "") -> None:
        """Count a secret that was not made. A reason of the broker is logged once, until it changes."""
        with self._lock:
            counts = self._counts.get(broker)
            if counts is None:
                return
            counts.not_made += 1
            is_new = bool(reason) and counts.not_made_error != reason
            counts.not_made_error = reason or counts.not_made_error
        if is_new:
            self._log.warning("a leased secret cannot be made", broker=broker, error=reason)

    # --- removal

    def may_remove(self, broker: str, clock: float) -> bool:
        """Return whether removals may begin: the broker is configured and does not pause."""
        counts = self._counts.get(broker)
        return counts is not None and clock >= counts.paused_until

    def is_failing(self, broker: str) -> bool:
        """Return whether the last attempt of a broker did not reach its system."""
        counts = self._counts.get(broker)
        return counts is not None and counts.failures_in_a_row > 0

    def removal_failed(self, broker: str, error: BaseException) -> None:
        """Count a secret that was not removed.

        Only a broker that cannot reach its system pauses: a failure of one lease must not delay others.
        """
        text = error_text(error)
        with self._lock:
            counts = self._counts[broker]
            counts.not_ended += 1
            counts.last_error = text
            if isinstance(error, UnreachableError):
                counts.failures_in_a_row += 1
                failures_to_pause_for = counts.failures_in_a_row - _FAILURES_BEFORE_PAUSE + 1
                if failures_to_pause_for > 0:
                    counts.paused_until = time.monotonic() + backoff(failures_to_pause_for)
            is_new, counts.is_failure_logged = not counts.is_failure_logged, True
        if is_new:
            self._log.error(
                "a leased secret cannot be removed; trying again", broker=broker, error=text
            )

    def removal_succeeded(self, broker: str) -> None:
        """Count a secret that was removed, and end the broker's pause."""
        with self._lock:
            counts = self._counts[broker]
            counts.ended += 1
            counts.failures_in_a_row, counts.paused_until, counts.last_error = 0, 0.0, ""
            was_logged, counts.is_failure_logged = counts.is_failure_logged, False
        if was_logged:
            self._log.info("leased secrets can be removed again", broker=broker)

    # --- secrets without a lease

    def orphans_removed(self, broker: str, removed: int) -> None:
        """Count secrets without a lease that were removed."""
        with self._lock:
            self._counts[broker].orphans += removed
        if removed:
            self._log.warning("secrets without a lease were removed", broker=broker, count=removed)

    def orphan_search_ended(self, broker: str, failure: str) -> int:
        """Note the result of a search for secrets without a lease; return how many failed in a row.

        Args:
            broker: The broker.
            failure: Error of the search; empty if it succeeded.
        """
        with self._lock:
            counts = self._counts[broker]
            is_new = bool(failure) and not counts.orphan_failures
            counts.orphan_failures = counts.orphan_failures + 1 if failure else 0
            failures = counts.orphan_failures
        if is_new:
            what = "secrets without a lease cannot be looked for; trying again"
            self._log.warning(what, broker=broker, error=failure)
        return failures

    def inspected(self, broker: str, findings: tuple[str, ...]) -> None:
        """Note the problems of a system's settings. New ones are logged."""
        with self._lock:
            counts = self._counts[broker]
            before, counts.findings = counts.findings, findings
        for finding in set(findings) - set(before):
            self._log.warning("the system of leased secrets is not set up well", problem=finding)
