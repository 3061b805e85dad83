"""The one class of periodic threads."""

import threading
import time
from collections.abc import Iterator

import pytest

from authz.periodic import PeriodicThread
from tests.support.waiting import eventually

_NEVER = 60.0


class Work:
    """Counts its rounds."""

    def __init__(self) -> None:
        self.rounds: list[float] = []
        self.failures: list[str] = []
        self.pause: float | None = None
        self.raises: BaseException | None = None

    def __call__(self) -> float | None:
        """Do one round."""
        self.rounds.append(time.monotonic())
        if self.raises is not None:
            raise self.raises
        return self.pause

    def failed(self, error: BaseException) -> None:
        """Keep an error."""
        self.failures.append(repr(error))


@pytest.fixture
def work() -> Work:
    """Work that counts."""
    return Work()


@pytest.fixture
def threads() -> Iterator[list[PeriodicThread]]:
    """Threads that are closed after the test."""
    started: list[PeriodicThread] = []
    yield started
    assert all(thread.close() for thread in started)


def test_the_first_round_waits_for_the_interval(work: Work, threads: list[PeriodicThread]) -> None:
    """Unless it starts at once."""
    slow = PeriodicThread("slow", work, _NEVER, work.failed)
    prompt = Work()
    quick = PeriodicThread("quick", prompt, _NEVER, prompt.failed, starts_at_once=True)
    for thread in (slow, quick):
        thread.start()
        threads.append(thread)
    eventually(lambda: len(prompt.rounds) == 1)
    assert work.rounds == []


def test_a_round_names_the_next_pause(work: Work, threads: list[PeriodicThread]) -> None:
    """The interval counts only where the round names none."""
    work.pause = 0.0
    thread = PeriodicThread("work", work, _NEVER, work.failed, starts_at_once=True)
    thread.start()
    threads.append(thread)
    eventually(lambda: len(work.rounds) >= 3)
    work.pause = None
    eventually(lambda: _is_quiet(work))


def _is_quiet(work: Work) -> bool:
    before = len(work.rounds)
    time.sleep(0.05)
    return len(work.rounds) == before


def test_a_round_that_raises_is_reported_and_does_not_end_the_thread(
    work: Work, threads: list[PeriodicThread]
) -> None:
    """A panic of the extension is a BaseException and no Exception."""
    work.raises = BaseException("panic")
    thread = PeriodicThread("work", work, 0.01, work.failed, starts_at_once=True)
    thread.start()
    threads.append(thread)
    eventually(lambda: len(work.failures) >= 3)
    assert set(work.failures) == {"BaseException('panic')"}


def test_wake_begins_a_round_but_not_before_the_least_pause(
    work: Work, threads: list[PeriodicThread]
) -> None:
    """A burst of calls to `wake` makes one round in each least pause."""
    thread = PeriodicThread("work", work, _NEVER, work.failed, least_pause=0.2)
    thread.start()
    threads.append(thread)
    began = time.monotonic()
    for _ in range(100):
        thread.wake()
    eventually(lambda: len(work.rounds) == 1)
    assert work.rounds[0] - began >= 0.15


def test_close_ends_a_pause_and_may_ask_for_a_last_round(work: Work) -> None:
    """For example to send spans that still wait."""
    plain, last = work, Work()
    threads = (
        PeriodicThread("plain", plain, _NEVER, plain.failed),
        PeriodicThread("last", last, _NEVER, last.failed, has_last_round=True),
    )
    for thread in threads:
        thread.start()
        before = thread.is_closing
        assert thread.close()
        assert (before, thread.is_closing) == (False, True)
        assert thread.close()
    assert (len(plain.rounds), len(last.rounds)) == (0, 1)


def test_close_reports_a_round_that_does_not_end(work: Work) -> None:
    """The caller decides what to do about it."""
    release = threading.Event()
    entered = threading.Event()

    def hang() -> None:
        entered.set()
        release.wait(30)

    thread = PeriodicThread("hanging", hang, _NEVER, work.failed, starts_at_once=True)
    thread.start()
    assert entered.wait(30)
    assert not thread.close(0.01)
    release.set()
    assert thread.close(30)


def test_a_thread_that_was_never_started_is_closed(work: Work) -> None:
    """A part whose start failed is closed all the same."""
    assert PeriodicThread("idle", work, _NEVER, work.failed).close()


def test_a_thread_outlives_an_error_that_cannot_be_told(
    work: Work, threads: list[PeriodicThread]
) -> None:
    """For example, the log's disk is full."""
    work.raises = OSError("the work failed")

    def untold(error: BaseException) -> None:
        raise OSError("no space left") from error

    thread = PeriodicThread("untold", work, 0.01, untold, starts_at_once=True)
    thread.start()
    threads.append(thread)
    eventually(lambda: len(work.rounds) >= 3)
