"""Values that the parts hand to one another: frozen, with no behaviour but their own text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from authz.surfaces import Surface

__all__ = [
    "BundleFiles",
    "CallFacts",
    "Diagnostic",
    "EarlyStop",
    "EarlyStops",
    "MetricFamily",
    "MetricKind",
    "Observing",
    "Reloaded",
    "RuleChanges",
    "Severity",
    "StandingException",
    "Surface",
    "system_of",
]


_CLOSING: Final = (".", "!", "?", "…")
_SHOWN_OPERATIONS: Final = 3


class Severity(StrEnum):
    """Severity of a diagnostic."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One error or warning: cause, place and fix."""

    what: str
    """One sentence."""
    file: str = ""
    """File, relative if that is shorter; empty without a file."""
    line: int = 0
    """From 1; 0 where unknown."""
    column: int = 0
    """From 1; 0 where unknown."""
    fix: str = ""
    """Fix; may be empty."""
    severity: Severity = Severity.ERROR
    """Error or warning."""
    code: str = ""
    """Name of the check that found it, for example `no-rule`; may be empty."""
    replacement: tuple[str, str] | None = None
    """A word at the place, and the word that was probably meant."""
    source: str = field(default="", compare=False)
    """The line of the file, for a code frame; empty where it is not known. A file with secrets has none."""

    def __str__(self) -> str:
        """`file:line:column: what. fix`; not every part ends its own sentence."""
        where = self.file
        if where and self.line:
            where += f":{self.line}" + (f":{self.column}" if self.column else "")
        what = self.what if not self.what or self.what.endswith(_CLOSING) else self.what + "."
        text = " ".join(part for part in (what, self.fix) if part)
        return f"{where}: {text}" if where else text


@dataclass(frozen=True, slots=True)
class BundleFiles:
    """A bundle folder, read whole."""

    root: str
    """The folder, for messages."""
    files: Mapping[str, bytes]
    """Contents by relative path with `/`."""


# A tuple: one is made for each call, and a frozen dataclass takes five times as long.
class CallFacts(NamedTuple):
    """The transport's facts about one call."""

    listener: str
    """Name of the listener."""
    remaining: float | None = None
    """Seconds until the caller's deadline. `None`: no deadline."""
    traceparent: str | None = None
    """W3C trace context."""
    authorization: str | None = None
    """`authorization` metadata. Several values are joined by a comma, which no verifier accepts."""
    peer: str | None = None
    """Peer address, for the audit."""
    tracestate: str | None = None
    """W3C trace state; several are joined."""
    certificate: bytes | None = None
    """The TLS peer's own certificate, PEM. `None`: the peer showed none."""
    intermediates: bytes | None = None
    """Further certificates of the peer, PEM."""


class MetricKind(StrEnum):
    """Kinds of metric that the engine counts."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """One metric with its samples."""

    name: str
    """Name; a counter's without `_total`."""
    help: str
    """One sentence."""
    kind: MetricKind
    """Kind."""
    samples: tuple[tuple[str, Mapping[str, str], float], ...] = field(default=())
    """Sample name, labels, value."""


@dataclass(frozen=True, slots=True)
class RecipientList:
    """A named set of destinations that a bundle refers to and others maintain."""

    name: str
    """Name of the recipient list."""
    file: str
    """File in the bundle; empty if the recipient list is fetched."""
    url: str
    """URL; empty if the recipient list is a file."""
    column: str | None
    """Column of a CSV file. `None`: each line is an entry."""
    alias: str | None
    """Column of the aliases. `None`: the entries have none."""
    max_age: float | None
    """Seconds after which the recipient list is stale. `None`: it never is."""
    entries: int | None
    """Number of entries of the file. `None`: the recipient list is fetched."""
    trusted: bool
    """Its destinations are trusted."""


@dataclass(frozen=True, slots=True)
class Observing:
    """An entry of a bundle's `mode` that says `observe`, or a policy with `@mode("observe")`."""

    scope: str
    """`default`, `system`, `agent`, `tier` or `policy`."""
    name: str
    """Name of the system, agent, tier or policy; empty for the default."""
    owner: str
    """Person or team that answers for the entry."""
    until: float
    """Unix time at which the entry is no longer only observed."""

    def __str__(self) -> str:
        return f"{self.scope} {self.name}" if self.name else "everything else"


@dataclass(frozen=True, slots=True)
class StandingException:
    """A standing exception of a bundle: a fact that policies may accept until it expires."""

    name: str
    """Name in the bundle."""
    who: str
    """Role or SPIFFE id of the caller."""
    operations: tuple[str, ...]
    """Ids and globs of the operations that it covers."""
    tier_cap: str
    """Highest effective tier of a call that it covers."""
    owner: str
    """Team or person who answers for it."""
    reason: str
    """Reason for which it exists."""
    ticket: str
    """Ticket in which it was granted."""
    obligations: tuple[str, ...]
    """Obligations of a permit that depends on it."""
    expires_ms: int
    """Time from which it no longer applies, in milliseconds since 1970."""
    at: str
    """Place in the bundle, `file:line`."""


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """Requests of an observed system that are enforced, since they stop before they are judged."""

    system: str
    """The system."""
    unplaced: bool
    """Requests without a route or an operation are enforced."""
    operations: tuple[str, ...]
    """Operations whose requests are enforced: bad arguments, no task, no credential. Sorted."""
    tiers: tuple[str, ...]
    """Enforced tiers that the requests could have had, from the lowest."""

    def __str__(self) -> str:
        shown = self.operations[:_SHOWN_OPERATIONS]
        more = len(self.operations) - len(shown)
        parts = (
            *(["no route or operation"] if self.unplaced else []),
            *shown,
            *([f"and {more} more"] if more else []),
        )
        because = f" (tier {', '.join(self.tiers)})" if self.tiers else ""
        return f"{self.system}: {', '.join(parts)}{because}"


@dataclass(frozen=True, slots=True)
class EarlyStops:
    """Requests that `mode` enforces because they stop before they are judged."""

    agents: tuple[str, ...]
    """Agents that are enforced: a request with unknown agents may be theirs."""
    systems: tuple[EarlyStop, ...]
    """Observed systems with such requests."""


@dataclass(frozen=True, slots=True)
class RuleChanges:
    """Changes of sequences and budgets between two bundles, as `sequences.NAME` and `budgets.NAME`."""

    carried: int = 0
    """Number of unchanged rules; they keep their progress."""
    changed: tuple[str, ...] = ()
    """Changed rules; their progress starts anew in live sessions."""
    added: tuple[str, ...] = ()
    """New rules."""
    removed: tuple[str, ...] = ()
    """Removed rules."""
    omitted: int = 0
    """Number of names that the lists leave out."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """Result of a reload."""

    changed: bool
    """A new bundle or new keys serve."""
    revision: str
    """Revision of the bundle that serves; empty if none does."""
    diagnostics: tuple[Diagnostic, ...] = ()
    """Errors of the refused bundle, or warnings."""
    failed: bool = False
    """The new bundle or keys were refused."""
    rules: RuleChanges = field(default_factory=RuleChanges)
    """Changes of its rules; empty if it was refused."""


def system_of(operation: str) -> str:
    """Return the system of an operation: its id is `<system>.<name>`, and the first dot splits it."""
    return operation.partition(".")[0]
