"""Values that the parts hand to one another: frozen, with no behaviour but their own text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from authz.v1.surfaces import Surface

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
    "Surface",
]


_CLOSING: Final = (".", "!", "?", "…")
_SHOWN_OPERATIONS: Final = 3


class Severity(StrEnum):
    """How bad a defect is."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One defect: what, where, and how to mend it."""

    what: str
    """One sentence."""
    file: str = ""
    """File, relative where that is shorter; empty where there is none."""
    line: int = 0
    """From 1; 0 where unknown."""
    column: int = 0
    """From 1; 0 where unknown."""
    mend: str = ""
    """How to mend it; may be empty."""
    severity: Severity = Severity.ERROR
    """Error or warning."""

    def __str__(self) -> str:
        """`file:line:column: what. mend`; not every part ends its own sentence."""
        where = self.file
        if where and self.line:
            where += f":{self.line}" + (f":{self.column}" if self.column else "")
        what = self.what if not self.what or self.what.endswith(_CLOSING) else self.what + "."
        text = " ".join(part for part in (what, self.mend) if part)
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
    """What the transport knows about one call."""

    listener: str
    """Name of the listener it came by."""
    remaining: float | None = None
    """Seconds until the caller's deadline; none where it set none."""
    traceparent: str | None = None
    """W3C trace context."""
    authorization: str | None = None
    """`authorization` metadata; several are joined by a comma, which no verifier accepts."""
    peer: str | None = None
    """Peer address, for the audit."""
    tracestate: str | None = None
    """W3C trace state; several are joined."""
    certificate: bytes | None = None
    """The TLS peer's own certificate, PEM; none where it showed none."""
    intermediates: bytes | None = None
    """What it sent along, PEM."""


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
class Directory:
    """A named set of destinations that a bundle names and others keep."""

    name: str
    """Its name."""
    file: str
    """Its file in the bundle; empty: it is fetched."""
    url: str
    """Where it is fetched from; empty: it is a file."""
    column: str | None
    """The column of a CSV file; none: each line is an entry."""
    max_age: float | None
    """How many seconds old it may be; none: that makes no difference."""
    entries: int | None
    """How many entries its file has; none: it is fetched."""
    trusted: bool
    """Destinations in it are trusted."""


@dataclass(frozen=True, slots=True)
class Observing:
    """An entry of a bundle's `mode` that says `observe`."""

    scope: str
    """`default`, `system`, `agent` or `tier`."""
    name: str
    """Which one; empty for the default."""
    owner: str
    """Who answers for it."""
    until: float
    """When it becomes `enforce`; Unix time."""

    def __str__(self) -> str:
        return f"{self.scope} {self.name}" if self.name else "everything else"


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """Requests of a system whose calls are observed that are enforced where they stop before they are judged."""

    system: str
    """The system."""
    unplaced: bool
    """Those without a route or an operation are."""
    operations: tuple[str, ...]
    """Operations of which they are: bad arguments, no task, no credential. Sorted."""
    tiers: tuple[str, ...]
    """The enforced tiers that they could have had, from the lowest."""

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
    """Requests that `mode` enforces where they stop before it is known what they are."""

    agents: tuple[str, ...]
    """Agents that are enforced: a request whose agents are not all known may be theirs."""
    systems: tuple[EarlyStop, ...]
    """Observed systems with such requests."""


@dataclass(frozen=True, slots=True)
class RuleChanges:
    """What a bundle makes of the progress of sequences and budgets: `sequences.NAME`, `budgets.NAME`."""

    carried: int = 0
    """How many say what they said before: their progress goes on."""
    changed: tuple[str, ...] = ()
    """Those that say something else: their progress starts anew in live sessions."""
    added: tuple[str, ...] = ()
    """Those that were not there before."""
    removed: tuple[str, ...] = ()
    """Those that are not there any more."""
    omitted: int = 0
    """Names that the lists leave out."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of a reload."""

    changed: bool
    """Something new serves."""
    revision: str
    """Bundle revision that serves now; empty where none does."""
    diagnostics: tuple[Diagnostic, ...] = ()
    """Why it was refused, or warnings."""
    failed: bool = False
    """The new one was refused."""
    rules: RuleChanges = field(default_factory=RuleChanges)
    """What became of the progress of its rules; nothing where it was refused."""
