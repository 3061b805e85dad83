"""Options and the run of a replay, as `authz replay` and `authz diff` take them."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import typer

from authz.audit import ReadCounts, RecordedDecision, Span, span
from authz.cli.decision_log import Damage, LogSource, read_bundle, record_history
from authz.cli.render import Terminal
from authz.cli.render.progress import reading_progress, size_of
from authz.engine import Plan
from authz.tools.replay import ReplayReport, judge_record

__all__ = [
    "AgentFilter",
    "OperationFilter",
    "ReplayFailure",
    "ReplayFormat",
    "ReplayRun",
    "Selection",
    "compile_folder",
    "print_json",
    "replay_log",
]


class ReplayFormat(StrEnum):
    """Format of the report."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


class ReplayFailure(StrEnum):
    """Categories of decisions for which a replay fails."""

    NEWLY_PERMITTED = "newly-permitted"
    NEWLY_HELD = "newly-held"
    NEWLY_DENIED = "newly-denied"
    NOT_REPLAYED = "not-replayed"


AgentFilter = Annotated[
    str,
    typer.Option(
        "--agent",
        help="Only decisions of this caller: a SPIFFE id, in which `*` matches any characters.",
    ),
]
OperationFilter = Annotated[
    str,
    typer.Option(
        "--operation",
        help="Only decisions about this operation, for example `crm.delete` or `crm.*`.",
    ),
]


@dataclass(frozen=True, slots=True)
class Selection:
    """Decisions of a log that are replayed."""

    within: Span
    """Span of time."""
    agent: str = ""
    """Glob of callers; empty: all."""
    operation: str = ""
    """Glob of operations; empty: all."""

    @staticmethod
    def read(since: str, until: str, agent: str, operation: str) -> "Selection":
        """Read the options.

        Raises:
            UsageError: A time has no valid form.
        """
        return Selection(span(since, until, time.time()), agent, operation)

    def takes(self, decision: RecordedDecision) -> bool:
        """Return whether a decision is of the wanted caller and operation."""
        return (not self.agent or fnmatchcase(decision.agent, self.agent)) and (
            not self.operation or fnmatchcase(decision.requested, self.operation)
        )

    def document(self) -> dict[str, str]:
        """Return the selection for JSON."""
        return {
            "since": self.within.since,
            "until": self.within.until,
            "agent": self.agent,
            "operation": self.operation,
        }


@dataclass(frozen=True, slots=True)
class ReplayRun:
    """Result of a replay, with its inputs."""

    plan: Plan
    """Bundle that judged again."""
    against: Plan | None
    """Bundle of the answers before; `None` if they are the recorded answers."""
    log: str
    """Name of the log."""
    selection: Selection
    """Decisions that were replayed."""
    report: ReplayReport
    """Differences."""

    def document(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return {
            "version": 1,
            "bundle": self.plan.identity,
            "against": self.against.identity if self.against else None,
            "log": self.log,
            "selection": self.selection.document(),
            **self.report.document(),
        }


def compile_folder(
    terminal: Terminal, folder: Path, source: LogSource, var: Sequence[str] | None
) -> Plan:
    """Compile the bundle of a folder, with the variables of the log's node.

    Raises:
        BundleError: The bundle is not valid.
    """
    files, values = read_bundle(terminal, folder, source, var)
    return Plan.compile(files, values)


def replay_log(
    terminal: Terminal,
    source: LogSource,
    selection: Selection,
    plan: Plan,
    against: Plan | None,
) -> ReplayRun:
    """Judge the decisions of a log again. One record at a time is in memory.

    Raises:
        UnavailableError: A file cannot be read.
    """
    report, read, damage = ReplayReport(), ReadCounts(), Damage()
    counts = report.counts
    total = None if source.stdin else size_of(source.files(selection.within.since))
    with reading_progress(terminal, total, "replay") as show:
        for record, decision in record_history(terminal, source, selection.within, read, damage):
            show(read.bytes)
            if decision.is_sum:
                counts.sums += 1
            elif not selection.takes(decision):
                counts.left_out += 1
            elif decision.probe:
                counts.probes += 1
            else:
                report.add(decision, judge_record(record, plan, against))
    counts.records = read.records
    counts.node_records = read.node_records
    counts.repeated = read.repeated
    counts.left_out += read.outside
    counts.damaged_lines = damage.lines
    return ReplayRun(plan, against, source.name, selection, report)


def print_json(value: object) -> None:
    """Print JSON in ASCII: a text of a record can have control sequences of a terminal."""
    print(json.dumps(value, indent=2))
