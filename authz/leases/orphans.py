"""Removal of secrets without a lease, such as those of a node that died between its broker and its store."""

import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Final

from authz.leases.counts import CountsOfBrokers
from authz.leases.lease import LeaseStore, error_text
from authz.leases.pauses import backoff, jittered
from authz.leases.pools import BrokerPools
from authz.leases.protocol import BrokerError, SecretBroker
from authz.leases.removal import LONGEST

__all__ = ["OrphanRemoval"]

_INTERVAL: Final = 60.0
_MOST_LEASES: Final = 10_000


class OrphanRemoval:
    """Looks for secrets without a lease once a minute, and for problems of the system's settings.

    Args:
        brokers: Brokers by name.
        store: Has the records.
        counts: Counts the removed secrets of each broker.
        pools: Threads of the brokers.
    """

    def __init__(
        self,
        brokers: Mapping[str, SecretBroker],
        store: LeaseStore,
        counts: CountsOfBrokers,
        pools: BrokerPools,
    ) -> None:
        self._brokers = brokers
        self._store = store
        self._counts = counts
        self._pools = pools
        self._lock = threading.Lock()
        self._next_search = dict.fromkeys(brokers, 0.0)

    def begin(self) -> None:
        """Begin the searches that are due."""
        clock = time.monotonic()
        for broker in self._brokers:
            with self._lock:
                is_due = self._next_search[broker] <= clock and not self._pools.is_closing
                if is_due:
                    # The end of the search sets the time of the next one.
                    self._next_search[broker] = clock + LONGEST + _INTERVAL
            if is_due:
                self._pools.remove(broker, partial(self._search, broker))

    def _search(self, broker: str) -> None:
        removed, failure = 0, ""
        try:
            removed = self._brokers[broker].end_orphans(self._recorded, LONGEST)
            self._counts.inspected(broker, self._brokers[broker].inspect(LONGEST))
        except BaseException as error:  # noqa: BLE001 - a panic of the engine is not an Exception
            failure = error_text(error)
        self._counts.orphans_removed(broker, removed)
        failures = self._counts.orphan_search_ended(broker, failure)
        pause = backoff(failures) if failures else jittered(_INTERVAL)
        with self._lock:
            self._next_search[broker] = time.monotonic() + pause

    def _recorded(self) -> frozenset[str]:
        """Return the ids of all leases."""
        ids = frozenset(lease.id for lease in self._store.leases())
        if len(ids) >= _MOST_LEASES:
            # A lease that is not listed would count as removed.
            raise BrokerError("there are more leases than can be listed at once")
        return ids
