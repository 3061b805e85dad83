"""Which SPIFFE bundle of each trust domain is the newest that was used: an older one is refused, also after a restart.

The store keeps one `spiffe_sequence` for each trust domain, so that all nodes that share it refuse what one of them has
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
    """The engine, as far as sequences need it."""

    def trust_sequences(self) -> Mapping[str, Mapping[str, int]]:
        """Read `epoch` and `sequence` of each trust domain."""

    def note_trust_sequences(self, used: Mapping[str, Mapping[str, int]]) -> None:
        """Write those that are newer."""


class TrustSequences:
    """Reads at the start which bundles were used before, and notes which are used now.

    Args:
        config: The trust domains, with the `sequence_epoch` of each.
        records: Has the store.
        log: Told when the store fails, and when it works again.
    """

    def __init__(self, config: Config, records: SequenceCalls, log: Logger) -> None:
        # The Workload API counts no bundles: the agent of this machine always gives the newest that it has.
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
        """Read which bundles were used before.

        Returns:
            The least `spiffe_sequence` that may follow, by trust domain; none where the store cannot tell now.
        """
        if not self._epochs:
            return {}
        try:
            known = self._records.trust_sequences()
        except AuthzError as error:
            self._failed(error)
            return None
        self._worked()
        # Of an epoch before the configured one nothing is left: the operator accepted that counting began anew.
        return {
            name: known[name]["sequence"]
            for name, epoch in self._epochs.items()
            if name in known and known[name]["epoch"] >= epoch
        }

    def note(self, trust: Trust) -> None:
        """Note which bundles serve. What the store does not take now is tried again by `keep`.

        Args:
            trust: The keys that serve.
        """
        with self._lock:
            for domain in trust.domains:
                is_used = not domain.rolled_back and domain.keys + domain.authorities > 0
                if domain.sequence is None or not is_used or domain.name not in self._epochs:
                    continue
                if domain.sequence > self._noted.get(domain.name, -1):
                    self._pending[domain.name] = domain.sequence
        self.keep()

    def keep(self) -> None:
        """Write what the store has not taken yet; nothing happens where that is nothing."""
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
        """Tell what is wrong.

        Returns:
            One line where the store failed last, else none.
        """
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
