"""Counters of each transmitter of security events, for metrics and status."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from authz.config import Transmitter
from authz.model import MetricFamily, MetricKind
from authz.server.http.shared_signals.events import EVENTS

__all__ = ["UNREAD", "EventResult", "SignalCounts"]

UNREAD: Final = "unread"
"""Event of a token that was refused before its event was read, in metrics."""


class EventResult:
    """Results of tokens, in metrics."""

    ENDED: Final = "ended"
    RECORDED: Final = "recorded"
    IGNORED: Final = "ignored"
    REFUSED: Final = "refused"
    FAILED: Final = "failed"


_RESULTS: Final = (
    EventResult.ENDED,
    EventResult.RECORDED,
    EventResult.IGNORED,
    EventResult.REFUSED,
    EventResult.FAILED,
)


@dataclass
class _Stream:
    taken_at: float | None = None
    verified_at: float | None = None
    state: str = ""
    status: str = "enabled"


class SignalCounts:
    """Counts tokens, and remembers the last verification of each stream.

    Args:
        transmitters: The transmitters, by name.
        clock: Unix time.
    """

    def __init__(
        self, transmitters: Mapping[str, Transmitter], clock: Callable[[], float] = time.time
    ) -> None:
        self._transmitters = transmitters
        self._clock = clock
        self._started_at = clock()
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._streams = {name: _Stream() for name in transmitters}

    def count(self, transmitter: str, event: str, result: str) -> None:
        """Count a token."""
        with self._lock:
            self._counts[transmitter, event, result] += 1
            if result not in {EventResult.REFUSED, EventResult.FAILED}:
                self._streams[transmitter].taken_at = self._clock()

    def verified(self, transmitter: str, state: str | None) -> None:
        """Note a verification event."""
        with self._lock:
            stream = self._streams[transmitter]
            stream.verified_at, stream.state = self._clock(), state or ""

    def updated(self, transmitter: str, status: str) -> None:
        """Note the status of a stream."""
        with self._lock:
            self._streams[transmitter].status = status

    def problems(self) -> Iterator[str]:
        """Yield one line for each stream that the transmitter has paused or disabled."""
        with self._lock:
            stopped = [
                (name, stream.status)
                for name, stream in self._streams.items()
                if stream.status != "enabled"
            ]
        for name, status in stopped:
            yield f"transmitter `{name}` has {status} its stream of security events"

    def detail(self) -> dict[str, Any]:
        """Return the status of each transmitter as JSON values."""
        with self._lock:
            return {
                name: {
                    "last_event_at": _shown(stream.taken_at),
                    "last_verification_at": _shown(stream.verified_at),
                    "verification_state": stream.state,
                    "verification_overdue": self._is_overdue(name, stream),
                    "stream": stream.status,
                }
                for name, stream in self._streams.items()
            }

    def families(self) -> Iterator[MetricFamily]:
        """Yield every metric."""
        with self._lock:
            counts = dict(self._counts)
            overdue = {
                name: self._is_overdue(name, stream) for name, stream in self._streams.items()
            }
        for name in self._transmitters:
            # From the first event on, a rate sees the change from zero.
            for event in EVENTS:
                for result in (EventResult.ENDED, EventResult.RECORDED, EventResult.IGNORED):
                    counts.setdefault((name, event, result), 0)
            for result in (EventResult.REFUSED, EventResult.FAILED):
                counts.setdefault((name, UNREAD, result), 0)
        yield MetricFamily(
            "authz_security_events",
            "Security event tokens of identity providers, by result.",
            MetricKind.COUNTER,
            tuple(
                (
                    "authz_security_events_total",
                    {"transmitter": name, "event": event, "result": result},
                    float(count),
                )
                for (name, event, result), count in counts.items()
            ),
        )
        yield MetricFamily(
            "authz_security_verification_overdue",
            "1 if no verification event of the transmitter came in time.",
            MetricKind.GAUGE,
            tuple(
                ("authz_security_verification_overdue", {"transmitter": name}, float(is_overdue))
                for name, is_overdue in overdue.items()
                if self._transmitters[name].verification_within is not None
            ),
        )

    def _is_overdue(self, name: str, stream: _Stream) -> bool:
        within = self._transmitters[name].verification_within
        last = stream.verified_at or self._started_at
        return within is not None and self._clock() - last > within


def _shown(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
