"""Threads that talk to brokers: of each broker some that stop secrets, and some that remove them."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

__all__ = ["BrokerPools"]

_STOP_THREADS: Final = 16
_REMOVAL_THREADS: Final = 4


class BrokerPools:
    """Two pools of threads for each broker.

    Removing a secret may take long, if its holder created much. The end of other secrets does not wait for it.

    Args:
        names: Names of the brokers.
    """

    def __init__(self, names: Iterable[str]) -> None:
        names = tuple(names)
        self._stops = _pools(names, "stop", _STOP_THREADS)
        self._removals = _pools(names, "removal", _REMOVAL_THREADS)
        self._closing = threading.Event()

    @property
    def is_closing(self) -> bool:
        """Whether no more work should be begun."""
        return self._closing.is_set()

    def stop(self, broker: str, work: Callable[[], object]) -> None:
        """Do work that stops a secret; raises RuntimeError once the pools are closed."""
        self._stops[broker].submit(work)

    def remove(self, broker: str, work: Callable[[], object]) -> None:
        """Do work that removes secrets; raises RuntimeError once the pools are closed."""
        self._removals[broker].submit(work)

    def begin_close(self) -> None:
        """Say that no more work should be begun."""
        self._closing.set()

    def close(self) -> None:
        """Drop work that has not begun. Work that has begun is not waited for."""
        self._closing.set()
        for pool in (*self._stops.values(), *self._removals.values()):
            pool.shutdown(wait=False, cancel_futures=True)


def _pools(names: Iterable[str], work: str, threads: int) -> dict[str, ThreadPoolExecutor]:
    return {
        name: ThreadPoolExecutor(threads, thread_name_prefix=f"authz-lease-{work}-{name}")
        for name in names
    }
