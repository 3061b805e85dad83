"""Newest SPIFFE bundle of each trust domain that was used: an older bundle is refused, also after a restart.

The store keeps one `spiffe_sequence` for each trust domain. All nodes of a store therefore refuse a bundle that one of them has
seen replaced.
"""

import threading
from collections.abc import Mapping
from typing import Protocol

from authz.config import Config
from authz.engine import Trust
from authz.errors import AuthzError
from authz.telemetry import Logger

__all__ = ["TrustSequences"]


class SequenceCalls(Protocol):
    """The part of the engine that keeps sequences."""

    def trust_sequences(self) -> Mapping[str, Mapping[str, int]]:
        """Return `epoch` and `sequence` of each trust domain."""

    def note_trust_sequences(self, used: Mapping[str, Mapping[str, int]]) -> None:
        """Write sequences that are newer than those of the store."""


class TrustSequences:
    """Reads at the start which bundles were used before, and writes which are in use.

    Args:
        config: The trust domains, with the `sequence_epoch` of each.
        records: The engine, which has the store.
        log: Receives a line when the store fails, and when it works again.
    """

    def __init__(self, config: Config, records: SequenceCalls, log: Logger) -> None:
        # Bundles of the Workload API have no sequence: the agent of this machine always gives its newest.
        self._epochs = {
            name: domain.bundle.sequence_epoch
            for name, domain in config.trust.domains.items()
            if domain.bundle.workload_api is None
        }
        self._records = records
        self._log = log
        self._lock = threading.Lock()
        self._noted: dict[str, int] = {}
        self._pending: dict[str, int] = {}
        self._problem = ""

    def read(self) -> Mapping[str, int] | None:
        """Return the least `spiffe_sequence` that each trust domain may have; `None` if the store failed."""
        if not self._epochs:
            return {}
        try:
            stored = self._records.trust_sequences()
        except AuthzError as error:
            self._failed(error)
            return None
        self._worked()
        # A sequence of an earlier epoch does not count: the operator accepted that the publisher counts anew.
        return {
            name: stored[name]["sequence"]
            for name, epoch in self._epochs.items()
            if name in stored and stored[name]["epoch"] >= epoch
        }

    def note(self, trust: Trust) -> None:
        """Write the bundles in use. `keep` tries again if the store fails."""
        with self._lock:
            for domain in trust.domains:
                is_used = not domain.rolled_back and domain.keys + domain.authorities > 0
                if domain.sequence is None or not is_used or domain.name not in self._epochs:
                    continue
                if domain.sequence > self._noted.get(domain.name, -1):
                    self._pending[domain.name] = domain.sequence
        self.keep()

    def keep(self) -> None:
        """Write what the store has not taken yet."""
        with self._lock:
            if not self._pending:
                return
            used = {
                name: {"epoch": self._epochs[name], "sequence": sequence}
                for name, sequence in self._pending.items()
            }
            try:
                self._records.note_trust_sequences(used)
            except AuthzError as error:
                self._failed(error)
                return
            self._noted |= self._pending
            self._pending.clear()
            self._worked()

    def problems(self) -> tuple[str, ...]:
        """Return one line if the store failed last, or none."""
        return (self._problem,) if self._problem else ()

    def _failed(self, error: AuthzError) -> None:
        problem = f"the newest bundles of trust domains are not kept: {error}"
        if not self._problem:
            self._log.warning("the newest bundles of trust domains are not kept", error=str(error))
        self._problem = problem

    def _worked(self) -> None:
        if self._problem:
            self._log.info("the newest bundles of trust domains are kept again")
        self._problem = ""
