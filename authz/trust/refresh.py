"""Keeps fetched keys and recipient lists fresh: one thread plans, and a few fetch.

A source is fetched again after the time that it names, within the configured bounds. A token that names an unknown key causes a
fetch at once, at most once a minute. A source that fails is tried again after growing, random pauses. A document that is
refused leaves the one before in use. Keys that could not be fetched for too long are dropped.
"""

import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from authz.errors import BundleError, TrustError
from authz.periodic import PeriodicThread
from authz.telemetry import Logger
from authz.trust.fetch import FetchError
from authz.trust.remote import RemoteSource
from authz.trust.sources import SourceKey

__all__ = ["DocumentHolder", "RefreshEvents", "RefreshOutcome", "Refresher", "SourceStatus"]

_TICK: Final = 0.5
_THREADS: Final = 4
_DEFAULT_INTERVAL: Final = 300.0
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
_ASKED_AGAIN: Final = 60.0
_CLOSING: Final = 2.0
_MAX_ERROR: Final = 500


class RefreshOutcome(StrEnum):
    """Result of one attempt."""

    UPDATED = "updated"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class RefreshEvents:
    """Log events of a refresh."""

    updated: str
    """A new document is in use."""
    failed: str
    """A document could not be fetched, or was refused."""
    dropped: str
    """A document was too old, and was dropped."""
    not_dropped: str
    """A document is too old, and is still in use because dropping it failed."""


_KEYS: Final = RefreshEvents(
    "keys were refreshed",
    "keys were not refreshed",
    "keys are too old and were dropped: every credential of this source is refused",
    "keys are too old and could not be dropped",
)


class DocumentHolder(Protocol):
    """Holds the documents in use: keys or recipient lists."""

    def current(self, key: SourceKey) -> str | None:
        """Return the document of a source that is in use; `None` where there never was one."""

    def renew(self, key: SourceKey, document: str) -> bool:
        """Replace the document of a source; return False where it is the same.

        Raises TrustError or BundleError to refuse it.
        """

    def drop(self, key: SourceKey) -> None:
        """Remove the document of a source."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """Status of a source."""

    key: SourceKey
    """The source."""
    place: str
    """URL, file or socket of the source."""
    age: float | None
    """Seconds since the document was last confirmed by the source. `None`: never."""
    stale: bool
    """The document was dropped."""
    error: str
    """Error of the last attempt; empty if it succeeded."""
    counts: dict[RefreshOutcome, int]
    """Number of attempts, by result."""


@dataclass
class _State:
    source: RemoteSource
    due: float
    flying: bool = False
    good: float | None = None
    dropped: bool = False
    drop_failed: bool = False
    """Dropping the document failed, and that was logged."""
    failures: int = 0
    error: str = ""
    asked: float | None = None
    planned: float | None = None
    """Time at which the source was due before an unknown key made it due at once."""
    counts: Counter[RefreshOutcome] = field(default_factory=Counter)


def boot_time() -> float:
    """Return the seconds of a clock that never goes back, and goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Refresher:
    """Fetches sources again and again.

    Args:
        sources: The sources.
        holds: Receives the documents.
        log: Receives the result of each attempt.
        unknown: Returns the sources of which a token named an unknown key since the last call.
        complete: Called once, when every source was fetched for the first time.
        clock: Seconds, also while the machine sleeps.
        spread: Returns a random number between two numbers.
        words: Log events.
        threads: Threads that fetch, where sources come and go. Default: as many as the sources need, at most four.
    """

    def __init__(
        self,
        sources: Sequence[RemoteSource],
        holds: DocumentHolder,
        log: Logger,
        *,
        unknown: Callable[[], Iterable[SourceKey]] = tuple,
        complete: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = boot_time,
        spread: Callable[[float, float], float] = random.uniform,
        words: RefreshEvents = _KEYS,
        threads: int | None = None,
    ) -> None:
        self._holds = holds
        self._log = log
        self._unknown = unknown
        self._complete = complete
        self._clock = clock
        self._spread = spread
        self._words = words
        now = clock()
        self._states = {source.key: _State(source, due=now) for source in sources}
        self._lock = threading.Lock()
        # A document that arrives while the keys are dropped must not be dropped with them.
        self._applying = threading.Lock()
        self._stop = threading.Event()
        # A source is in the queue once at most.
        self._work: queue.SimpleQueue[SourceKey | None] = queue.SimpleQueue()
        fetching = min(_THREADS, len(self._states)) if threads is None else threads
        self._planner = PeriodicThread(
            "refresh-plan", self._plan, _TICK, self._log_plan_failure, starts_at_once=True
        )
        self._fetchers = [
            threading.Thread(target=self._fetch, name=f"authz-refresh-fetch-{n}", daemon=True)
            for n in range(fetching)
        ]

    # --- life

    def start(self) -> None:
        """Start the threads. Without sources there are none, and the refresh is complete at once."""
        if not self._fetchers:
            self._complete()
            return
        self._planner.start()
        for thread in self._fetchers:
            thread.start()

    def close(self) -> None:
        """End the threads. A fetch that is under way changes nothing any more."""
        if self._stop.is_set():
            return
        self._stop.set()
        for _ in self._fetchers:
            self._work.put(None)
        deadline = time.monotonic() + _CLOSING
        self._planner.close(_CLOSING)
        for thread in self._fetchers:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        # A thread that still fetches takes this lock before it changes anything, and then sees the end.
        with self._applying:
            pass

    def _plan(self) -> None:
        for key in self.due():
            self._work.put(key)

    def _log_plan_failure(self, error: BaseException) -> None:
        self._log_event("error", "planning the refresh failed", error=repr(error))

    def _fetch(self) -> None:
        while (key := self._work.get()) is not None and not self._stop.is_set():
            try:
                self.refresh(key)
            except BaseException as error:  # noqa: BLE001 - the thread fetches other sources, too
                self._log_event("error", "a refresh failed inside the server", error=repr(error))

    def replace(self, sources: Sequence[RemoteSource]) -> None:
        """Fetch these sources from now on. A source that stays keeps its state."""
        now = self._clock()
        with self._lock:
            before = self._states
            self._states = {
                source.key: before.get(source.key) or _State(source, due=now) for source in sources
            }

    # --- steps

    def due(self) -> list[SourceKey]:
        """Drop documents that are too old, and return the sources that must be fetched now.

        Each must be handed to `refresh` before it is returned again.
        """
        unknown = list(self._unknown())
        now = self._clock()
        with self._lock:
            for key in unknown:
                state = self._states.get(key)
                if state is None or state.flying:
                    continue
                if state.asked is None or now - state.asked >= _ASKED_AGAIN:
                    state.planned = state.due
                    state.asked, state.due = now, now
            due = [
                key for key, state in self._states.items() if not state.flying and state.due <= now
            ]
            for key in due:
                self._states[key].flying = True
            old = [key for key, state in self._states.items() if self._too_old(state, now)]
        for key in old:
            self._drop(key)
        return due

    def refresh(self, key: SourceKey) -> RefreshOutcome:
        """Fetch a source, and replace its document; return the result."""
        state = self._states.get(key)
        if state is None:
            return RefreshOutcome.FAILED
        began = self._clock()
        outcome, error, fresh_for = RefreshOutcome.FAILED, "", None
        try:
            document = state.source.fetch(self._holds.current)
            fresh_for = document.fresh_for
            with self._applying:
                if self._stop.is_set():
                    return RefreshOutcome.FAILED
                changed = self._holds.renew(key, document.text)
                outcome = RefreshOutcome.UPDATED if changed else RefreshOutcome.UNCHANGED
                state.good, state.dropped = began, False
        except FetchError as failed:
            error = str(failed)
        except (TrustError, BundleError) as refusal:
            outcome, error = RefreshOutcome.REFUSED, str(refusal)
        except BaseException as failed:  # noqa: BLE001 - a panic of the engine is not an Exception
            error = f"it failed inside the server: {failed!r}"
        self._settle(state, outcome, error[:_MAX_ERROR], fresh_for)
        return outcome

    def _settle(
        self, state: _State, outcome: RefreshOutcome, error: str, fresh_for: float | None
    ) -> None:
        now, bounds = self._clock(), state.source.refresh
        with self._lock:
            state.counts[outcome] += 1
            state.error = error
            if error:
                state.failures += 1
                longest = min(_LONGEST_PAUSE, bounds.max)
                pause = min(longest, _FIRST_PAUSE * 2.0 ** min(state.failures - 1, 16))
                state.due = now + pause * self._spread(0.5, 1.0)
                # Made-up tokens must not cause more attempts at a source that fails.
                if state.planned is not None:
                    state.due = max(state.due, state.planned)
            else:
                state.failures = 0
                wanted = fresh_for if fresh_for is not None else _DEFAULT_INTERVAL
                pause = min(max(wanted, bounds.min), bounds.max)
                state.due = now + pause * self._spread(0.9, 1.0)
            state.flying, state.planned = False, None
            complete = self._complete
            if not error and all(other.good is not None for other in self._states.values()):
                self._complete = lambda: None
            else:
                complete = lambda: None  # noqa: E731 - as above
        complete()
        source = {
            "source": f"{state.source.key.kind} {state.source.key.name}",
            "place": state.source.place,
        }
        if error:
            self._log_event(
                "warning", self._words.failed, **source, outcome=str(outcome), error=error
            )
        elif outcome is RefreshOutcome.UPDATED:
            self._log_event("info", self._words.updated, **source)

    def _too_old(self, state: _State, now: float) -> bool:
        return (
            state.good is not None
            and not state.dropped
            and now - state.good > state.source.refresh.max_staleness
        )

    def _drop(self, key: SourceKey) -> None:
        state = self._states.get(key)
        with self._applying:
            if state is None or self._stop.is_set() or not self._too_old(state, self._clock()):
                return
            try:
                self._holds.drop(key)
            except BaseException as error:  # noqa: BLE001 - a panic of the engine is not an Exception
                # The caller has planned fetches, which would be lost with it. The next round drops the document again.
                event, cause = self._words.not_dropped, repr(error)[:_MAX_ERROR]
                is_logged, state.drop_failed = state.drop_failed, True
            else:
                event, cause, is_logged = self._words.dropped, state.error, False
                state.dropped, state.drop_failed = True, False
        if not is_logged:
            source = f"{key.kind} {key.name}"
            self._log_event("error", event, source=source, place=state.source.place, error=cause)

    def _log_event(self, level: str, event: str, **values: str) -> None:
        # A log that cannot be written must not stop the refresh.
        with suppress(Exception):
            getattr(self._log, level)(event, **values)

    # --- status

    def statuses(self) -> tuple[SourceStatus, ...]:
        """Return the status of each source, in the order of the configuration."""
        now = self._clock()
        with self._lock:
            return tuple(
                SourceStatus(
                    key=key,
                    place=state.source.place,
                    age=max(0.0, now - state.good) if state.good is not None else None,
                    stale=state.dropped,
                    error=state.error,
                    counts={outcome: state.counts[outcome] for outcome in RefreshOutcome},
                )
                for key, state in self._states.items()
            )
