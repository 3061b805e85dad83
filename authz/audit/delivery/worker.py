"""Delivers a log to one sink, on a thread of its own. Decisions never wait for it: it reads the files, not the engine."""

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

from authz.audit.delivery.batch import Batch, BatchKind
from authz.audit.delivery.cursor import Gap
from authz.audit.delivery.tail import LogTail, TailStatus
from authz.audit.delivery.target import DeliveryError, DeliveryErrorKind, Target
from authz.periodic import PeriodicThread

__all__ = ["SinkSettings", "SinkStatus", "SinkWorker"]

_LOOK: Final = 1.0
"""Longest pause between two looks at the files, in seconds."""
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
_LONGEST_RETRY_AFTER: Final = 600.0
"""Longest pause that a sink can ask for, in seconds: records wait, and may be removed from the disk meanwhile."""
_JITTER: Final = 0.5
_FLUSH: Final = 5.0
"""Time for the last records when the node stops, in seconds."""
_ROUND: Final = 64
"""Batches between two looks."""


class Log(Protocol):
    """Receives events."""

    def info(self, event: str, **fields: Any) -> object:
        """Log an event."""

    def warning(self, event: str, **fields: Any) -> object:
        """Log a warning."""

    def error(self, event: str, **fields: Any) -> object:
        """Log an error."""


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """How a log is delivered to one sink."""

    name: str
    """Name of the sink."""
    log: Path
    """The audit file."""
    batch_bytes: int
    """Size of a batch, in bytes."""
    batch_age: float
    """Seconds after which a smaller batch is sent."""


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """How a delivery goes."""

    tail: TailStatus = field(default_factory=TailStatus)
    """Delivered and undelivered records of the sink."""
    sent_records: int = 0
    """Records that were delivered since the start of the node."""
    errors: dict[DeliveryErrorKind, int] = field(default_factory=dict)
    """Failed deliveries since the start of the node."""
    last_error: str = ""
    """The last error; kept after a success."""
    last_error_at: float | None = None
    """Unix time of the last error."""
    is_failing: bool = False
    """Whether the last attempt failed."""


class SinkWorker:
    """Delivers a log to one sink.

    Args:
        settings: How the log is delivered.
        target: The sink.
        log: Receives errors, gaps, and the end of errors.
        clock: Unix time.
        monotonic: Monotonic clock, in seconds.
    """

    def __init__(
        self,
        settings: SinkSettings,
        target: Target,
        log: Log,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._target = target
        self._log = log
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._status = SinkStatus(errors=dict.fromkeys(DeliveryErrorKind, 0))
        self._tail: LogTail | None = None
        self._failures = 0
        self._max_bytes = settings.batch_bytes
        self._due: tuple[tuple[str, int], float] | None = None
        self._until: float | None = None
        self._retry_at = 0.0
        self._thread = PeriodicThread(
            f"audit-{settings.name}",
            self.round,
            _FIRST_PAUSE,
            self._broken,
            starts_at_once=True,
            has_last_round=True,
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread send the records that are left, for at most five seconds, and end. It does not wait for the thread."""
        if self._until is None:
            self._until = self._monotonic() + _FLUSH
            self._thread.close(0.0)

    def close(self) -> None:
        """Stop, and wait for the end. Records that are not delivered by then are delivered after the next start."""
        self.stop()
        left = max(0.0, (self._until or 0.0) - self._monotonic())
        if self._thread.close(left) and self._tail is not None:
            self._tail.close()

    @property
    def status(self) -> SinkStatus:
        """How the delivery goes. A thread that waits for the sink does not delay the answer."""
        with self._lock:
            return self._status

    # --- on the thread

    def round(self) -> float:
        """Deliver the batches that are due; return the seconds until the next round."""
        try:
            return self._deliver()
        except DeliveryError as error:
            return self._failed(error)
        except Exception as error:  # noqa: BLE001 - the thread outlives every error
            return self._failed(_internal(error))

    def _deliver(self) -> float:
        left = self._retry_at - self._monotonic()
        if left > 0 and self._until is None:
            self._watch()
            return min(_LOOK, left)
        tail = self._open()
        while True:
            self._look(tail)
            for _ in range(_ROUND):
                if self._is_over():
                    return _LOOK
                batch = self._next(tail)
                self._show(tail)
                if batch is None:
                    return min(_LOOK, self.settings.batch_age)
                self._send(tail, batch)
                self._show(tail)

    def _watch(self) -> None:
        """Look at the files until the next attempt, so that the status is true, and removed files are noticed."""
        if self._tail is None:
            return
        # Its errors are counted by the next attempt.
        with suppress(DeliveryError):
            self._look(self._tail)
            self._show(self._tail)

    def _open(self) -> LogTail:
        if self._tail is None:
            settings = self.settings
            try:
                self._tail = LogTail(settings.log, settings.name, settings.batch_bytes, self._clock)
            except (OSError, ValueError) as error:
                raise DeliveryError(DeliveryErrorKind.CURSOR, str(error)) from error
        return self._tail

    def _look(self, tail: LogTail) -> None:
        try:
            gaps = tail.look()
        except OSError as error:
            raise DeliveryError(DeliveryErrorKind.LOG, str(error)) from error
        for gap in gaps:
            self._tell(gap)

    def _next(self, tail: LogTail) -> Batch | None:
        """Return the next batch that is due."""
        try:
            batch = tail.next_batch(self._max_bytes)
        except OSError as error:
            raise DeliveryError(DeliveryErrorKind.LOG, str(error)) from error
        if batch is None or batch.is_whole or self._until is not None:
            return batch
        now, begin = self._monotonic(), (batch.position, batch.start)
        if self._due is None or self._due[0] != begin:
            self._due = (begin, now + self.settings.batch_age)
        return batch if now >= self._due[1] else None

    def _send(self, tail: LogTail, batch: Batch) -> None:
        try:
            tail.pin(batch)
        except OSError as error:
            raise DeliveryError(DeliveryErrorKind.CURSOR, str(error)) from error
        try:
            rejection = self._target.send(batch)
        except DeliveryError as error:
            if error.kind is DeliveryErrorKind.TOO_LARGE and batch.count > 1:
                self._max_bytes = max(1, len(batch.content) // 2)
                tail.unpin()
            raise
        self._max_bytes = min(self.settings.batch_bytes, self._max_bytes * 2)
        try:
            gaps = tail.commit(batch, rejection)
        except OSError as error:
            raise DeliveryError(DeliveryErrorKind.CURSOR, str(error)) from error
        finally:
            self._succeeded(batch)
        for gap in gaps:
            self._tell(gap)

    def _is_over(self) -> bool:
        return self._until is not None and self._monotonic() >= self._until

    def _show(self, tail: LogTail, **changes: Any) -> None:
        status = tail.status()
        with self._lock:
            self._status = replace(self._status, tail=status, **changes)

    def _succeeded(self, batch: Batch) -> None:
        is_again = self._failures > 0
        self._failures = 0
        records = batch.count if batch.kind is BatchKind.RECORDS else 0
        with self._lock:
            sent = self._status.sent_records + records
            self._status = replace(self._status, sent_records=sent, is_failing=False)
        if is_again:
            self._log.info("audit records are delivered again", sink=self.settings.name)

    def _failed(self, error: DeliveryError) -> float:
        """Count a failed delivery; return the seconds until the next round. Nothing is dropped."""
        self._failures += 1
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures - 1, 10))
        if error.kind is DeliveryErrorKind.REFUSED:
            pause = _LONGEST_PAUSE  # The same batch would be refused at once.
        if error.kind is DeliveryErrorKind.TOO_LARGE:
            pause = _FIRST_PAUSE
        # The random part spreads the attempts of nodes whose sink came back.
        spread = random.uniform(_JITTER, 1.0)  # noqa: S311 - no secret depends on it
        pause = max(pause * spread, min(error.retry_after or 0.0, _LONGEST_RETRY_AFTER))
        self._retry_at = self._monotonic() + pause
        with self._lock:
            errors = {**self._status.errors}
            errors[error.kind] += 1
            self._status = replace(
                self._status,
                errors=errors,
                last_error=str(error),
                last_error_at=self._clock(),
                is_failing=True,
            )
        self._log.warning(
            "audit records were not delivered",
            sink=self.settings.name,
            kind=str(error.kind),
            reason=str(error),
            retry_in=round(pause, 1),
        )
        return min(_LOOK, pause)

    def _tell(self, gap: Gap) -> None:
        with suppress(Exception):
            self._log.error(
                "audit records are missing at a sink",
                sink=self.settings.name,
                records=gap.records,
                what=gap.text,
            )

    def _broken(self, error: BaseException) -> None:
        """Note an unexpected error: the thread tries again."""
        self._failed(_internal(error))


def _internal(error: BaseException) -> DeliveryError:
    return DeliveryError(DeliveryErrorKind.INTERNAL, repr(error)[:300])
