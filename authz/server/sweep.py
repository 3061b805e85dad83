"""Does what is due in the store: tasks expire, permits that nobody reported count as done, ended trees are forgotten.

What counts by time counts without it; it only keeps the store small. So a failure is told once, and tried again.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from authz.telemetry import Logger

__all__ = ["Sweep"]

_SECONDS: Final = 1.0


class Sweep:
    """A thread that asks the engine again and again.

    Args:
        sweep: Does a bounded part of what is due, and tells what it did.
        log: Told when the store fails, and when it works again.
    """

    def __init__(self, sweep: Callable[[], Mapping[str, Any]], log: Logger) -> None:
        self._sweep = sweep
        self._log = log
        self._failing = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="authz-sweep", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, and wait for the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def _run(self) -> None:
        more = False
        while not self._stop.wait(0.0 if more else _SECONDS):
            try:
                swept = self._sweep()
            except BaseException as error:  # noqa: BLE001 - a panic of the engine is no Exception
                self._tell(str(error))
                more = False
                continue
            self._tell(str(swept["error"]))
            more = bool(swept["more"])

    def _tell(self, error: str) -> None:
        if error and not self._failing:
            self._log.warning("what is due in the store is not done; trying again", error=error)
        if self._failing and not error:
            self._log.info("what is due in the store is done again")
        self._failing = bool(error)
