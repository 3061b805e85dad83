"""Status of leases, for readiness, metrics and `authz status`."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from authz.leases.counts import BrokerCounts, CountsOfBrokers
from authz.leases.due import DueLeases, Overdue
from authz.model import MetricFamily, MetricKind

__all__ = ["LeaseStatus"]

_ALARM_SECONDS: Final = 30.0


class LeaseStatus:
    """Reports on the leases of each broker.

    Args:
        due: Knows which leases are due.
        counts: Has the counts of each broker.
    """

    def __init__(self, due: DueLeases, counts: CountsOfBrokers) -> None:
        self._due = due
        self._counts = counts

    def problems(self) -> Iterator[str]:
        """Yield one line for each problem."""
        counts, still_open = self._counts.copy(), self._due.still_open()
        for broker, overdue in sorted(self._overdue().items()):
            if broker not in counts:
                yield f"{overdue.count} leases are of broker `{broker}`, which is not configured here"
            elif overdue.seconds > _ALARM_SECONDS:
                error = counts[broker].last_error
                yield (
                    f"{overdue.count} leases of broker `{broker}` cannot be removed, for {overdue.seconds:.0f} s;"
                    f" {still_open[broker]} of them may still give access{f' ({error})' if error else ''}"
                )
        for broker, count in counts.items():
            if count.orphan_failures:
                yield f"secrets without a lease cannot be looked for at broker `{broker}`"
        for count in counts.values():
            yield from count.findings

    def detail(self) -> list[dict[str, Any]]:
        """Return the status of each broker as JSON values."""
        overdue = self._overdue()
        return [
            {
                "broker": broker,
                "due": overdue.get(broker, Overdue()).count,
                "overdue_seconds": round(overdue.get(broker, Overdue()).seconds, 3),
                "failures_in_a_row": counts.failures_in_a_row,
                "error": counts.last_error,
            }
            for broker, counts in self._counts.copy().items()
        ]

    def families(self) -> Iterator[MetricFamily]:
        """Yield every metric; labels are names of the configuration."""
        counts, overdue = self._counts.copy(), self._overdue()
        yield _counter(
            "authz_leases_made",
            "Secrets that were made for a lease, by result.",
            _by_result((name, one.made, one.not_made) for name, one in counts.items()),
        )
        yield _counter(
            "authz_lease_ends",
            "Attempts to remove the secret of a lease, by result.",
            _by_result((name, one.ended, one.not_ended) for name, one in counts.items()),
        )
        yield _counter(
            "authz_lease_orphans",
            "Secrets that were removed because they had no known lease.",
            [({"broker": name}, one.orphans) for name, one in counts.items()],
        )
        yield _gauge(
            "authz_leases_due",
            "Leases that have ended and whose secret is not removed yet.",
            _of_each(counts, {name: float(one.count) for name, one in overdue.items()}),
        )
        yield _gauge(
            "authz_lease_overdue_seconds",
            "How long the oldest lease that has ended waits for its secret to be removed.",
            _of_each(counts, {name: one.seconds for name, one in overdue.items()}),
        )

    def _overdue(self) -> dict[str, Overdue]:
        return self._due.overdue(time.monotonic())


def _of_each(counts: Mapping[str, BrokerCounts], values: Mapping[str, float]) -> dict[str, float]:
    """Return the value of each broker. The greatest value of brokers that are not configured has the name ``."""
    unknown = [value for name, value in values.items() if name not in counts]
    return {name: values.get(name, 0.0) for name in counts} | (
        {"": max(unknown)} if unknown else {}
    )


def _by_result(
    rows: Iterable[tuple[str, int, int]],
) -> list[tuple[dict[str, str], int]]:
    return [
        ({"broker": name, "result": result}, value)
        for name, success, failure in rows
        for result, value in (("success", success), ("failure", failure))
    ]


def _counter(name: str, text: str, values: Iterable[tuple[dict[str, str], int]]) -> MetricFamily:
    samples = tuple((f"{name}_total", labels, float(value)) for labels, value in values)
    return MetricFamily(name, text, MetricKind.COUNTER, samples)


def _gauge(name: str, text: str, values: Mapping[str, float]) -> MetricFamily:
    samples = tuple((name, {"broker": broker}, value) for broker, value in values.items())
    return MetricFamily(name, text, MetricKind.GAUGE, samples)
