"""The snapshot: bundle, keys and recipient lists that serve, as one immutable value."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from authz.engine import Plan, RecipientListEntries, Trust
from authz.model import BundleFiles, Diagnostic, RecipientList, RuleChanges
from authz.trust import SourceKey

__all__ = ["FetchedRecipientList", "Snapshot"]


@dataclass(frozen=True, slots=True)
class FetchedRecipientList:
    """The last fetched version of a recipient list."""

    url: str
    """URL that it was fetched from."""
    column: str | None
    """Column of a CSV file that was read."""
    alias: str | None
    """Column of the aliases that were read."""
    digest: bytes
    """SHA-256 of the fetched document."""
    entries: RecipientListEntries
    """Its entries."""
    at: float
    """Unix time of the fetch."""

    def is_of(self, recipient_list: RecipientList) -> bool:
        """Return whether this was fetched for the same URL and columns as a bundle names."""
        return (self.url, self.column, self.alias) == (
            recipient_list.url,
            recipient_list.column,
            recipient_list.alias,
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Immutable snapshot of the loaded bundle, keys and recipient lists. It is replaced whole."""

    plan: Plan | None = None
    """The bundle that serves. `None`: no bundle was loaded yet."""
    trust: Trust | None = None
    """The keys that serve."""
    loaded_at: float = 0.0
    """Unix time of the load."""
    rules: RuleChanges = field(default_factory=RuleChanges)
    """Changes of sequences and budgets that the load brought."""
    refused: tuple[Diagnostic, ...] = ()
    """Errors of the last load, if it was refused."""
    bundle_files: BundleFiles | None = field(default=None, repr=False)
    """Files of the bundle that serves."""
    trust_spec: bytes = field(default=b"", repr=False)
    """Trust sources that serve, as JSON."""
    read_spec: bytes = field(default=b"", repr=False)
    """Trust sources as they were read last, bundles that were refused as older included."""
    older: frozenset[SourceKey] = frozenset()
    """Trust domains whose bundle was refused because it is older than an earlier one in use."""
    documents: Mapping[SourceKey, str] = field(default_factory=dict, repr=False)
    """Keys that serve, by source."""
    files_read_at: float = 0.0
    """Unix time at which trust sources that are files were last read."""
    recipient_lists: Mapping[str, float] = field(default_factory=dict, repr=False)
    """Unix time at which the file of each recipient list changed, or it was fetched, as the engine has it."""
    fetched: Mapping[str, FetchedRecipientList] = field(default_factory=dict, repr=False)
    """Recipient lists that were fetched, by name."""
    own_keys: str | None = field(default=None, repr=False)
    """JWKS of this node's task credentials. `None`: none are issued."""
