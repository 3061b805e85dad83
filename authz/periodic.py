"""A thread that does the same work again and again until it is closed."""

import threading
from collections.abc import Callable
from contextlib import suppress

__all__ = ["PeriodicThread"]


class PeriodicThread:
    """Runs `work` on a daemon thread, with a pause after each round.

    Args:
        name: Name of the thread, after `authz-`.
        work: Does one round. It returns the seconds until the next round; `None`: `interval`.
        interval: Seconds between two rounds, and after a round that raised.
        failed: Called with each exception of `work`; the thread goes on.
        starts_at_once: The first round comes without a pause.
        least_pause: `wake` never makes a pause shorter than this many seconds.
        has_last_round: `close` lets the thread do one more round.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], float | None],
        interval: float,
        failed: Callable[[BaseException], object],
        *,
        starts_at_once: bool = False,
        least_pause: float = 0.0,
        has_last_round: bool = False,
    ) -> None:
        self._work = work
        self._interval = interval
        self._failed = failed
        self._starts_at_once = starts_at_once
        self._least_pause = least_pause
        self._has_last_round = has_last_round
        self._closing = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"authz-{name}", daemon=True)

    @property
    def is_closing(self) -> bool:
        """Whether `close` was called; a long round should look."""
        return self._closing.is_set()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Begin the next round now, or after `least_pause`."""
        self._woken.set()

    def close(self, timeout: float = 5.0) -> bool:
        """End the thread; return whether it ended within `timeout` seconds, or was never started."""
        self._closing.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        pause = 0.0 if self._starts_at_once else self._interval
        while self._wait(pause) or self._has_last_round:
            is_last = self._closing.is_set()
            pause = self._do_round()
            if is_last:
                return

    def _wait(self, pause: float) -> bool:
        """Wait for the next round; return whether there is one."""
        if self._least_pause and self._closing.wait(min(pause, self._least_pause)):
            return False
        self._woken.wait(max(0.0, pause - self._least_pause))
        if self._closing.is_set():
            return False
        self._woken.clear()
        return True

    def _do_round(self) -> float:
        try:
            pause = self._work()
        except BaseException as error:  # noqa: BLE001 - a panic of the extension is not an Exception
            # A log that cannot be written ends no thread: due secrets are removed, and keys followed, all the same.
            with suppress(Exception):
                self._failed(error)
            pause = None
        return self._interval if pause is None else pause
