"""SARIF 2.1.0 (https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html), which code scanning reads.

`sarif_log` writes a log of any results; `analysis_log` makes one of an analysis. The parts that GitHub reads are those of
https://docs.github.com/en/code-security/reference/code-scanning/sarif-files/sarif-support.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from authz.analysis.report import Finding, Step, Verdict
from authz.analysis.rules import rule_text
from authz.analysis.selection import NO_REASON, NO_SOLVER, FindingState, SelectedFinding, Selection
from authz.analysis.texts import compact_json, inert
from authz.model import Diagnostic, Severity

__all__ = [
    "SarifPlace",
    "SarifResult",
    "SarifRule",
    "SarifRun",
    "SarifStep",
    "analysis_log",
    "diagnostics_log",
    "sarif_log",
    "step_text",
]

_SCHEMA: Final = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_ROOT: Final = "%SRCROOT%"
_MOST_MESSAGE: Final = 2_000
_NOT_VALID: Final = "not-valid"
_WARNING: Final = "warning"
_FINGERPRINT: Final = "authzFinding/v1"
# GitHub compares this one alone. The id of a finding does not change when lines move, and so neither does this.
_GITHUB_FINGERPRINT: Final = "primaryLocationLineHash"


@dataclass(frozen=True, slots=True)
class SarifPlace:
    """A place in a file of the repository."""

    file: str
    """Path from the root of the repository, with `/`."""
    line: int = 0
    """From 1; 0 where unknown."""
    column: int = 0
    """From 1; 0 where unknown."""


@dataclass(frozen=True, slots=True)
class SarifRule:
    """A rule that results name."""

    id: str
    title: str
    help: str
    level: str = "warning"


@dataclass(frozen=True, slots=True)
class SarifStep:
    """One step of a path."""

    message: str
    place: SarifPlace
    is_important: bool = False
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SarifResult:
    """One result."""

    rule: str
    level: str
    """`error`, `warning` or `note`."""
    message: str
    place: SarifPlace | None
    fingerprint: str = ""
    """Stable identity; may be empty."""
    is_open: bool = False
    """True: the question is not decided."""
    baseline_state: str = ""
    """`new` or `unchanged`; empty without a baseline."""
    suppression: str = ""
    """Justification; empty: the result is not suppressed."""
    steps: Sequence[SarifStep] = ()
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SarifRun:
    """One run of a command."""

    command: str
    """Name of the verb, for example `analyze`."""
    version: str
    subject: str
    """Object that was looked at. Runs of one command over other objects replace each other's results only if this is equal."""
    rules: Sequence[SarifRule]
    results: Sequence[SarifResult]
    notifications: Sequence[str] = ()
    """Warnings about the run itself."""
    properties: dict[str, Any] = field(default_factory=dict)


def sarif_log(run: SarifRun) -> dict[str, Any]:
    """Make the log of a run.

    Args:
        run: The run. Each rule of a result is in its rules.
    """
    places = {rule.id: index for index, rule in enumerate(run.rules)}
    invocation: dict[str, Any] = {"executionSuccessful": True}
    if run.notifications:
        invocation["toolExecutionNotifications"] = [
            {"level": "warning", "message": _message(text)} for text in run.notifications
        ]
    written: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": f"authz {run.command}",
                "version": run.version,
                "rules": [_rule(rule) for rule in run.rules],
            }
        },
        "automationDetails": {"id": f"authz-{run.command}/{inert(run.subject, 200)}/"},
        "columnKind": "unicodeCodePoints",
        "invocations": [invocation],
        "results": [_result(result, places[result.rule]) for result in run.results],
    }
    if run.properties:
        written["properties"] = run.properties
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [written]}


def _rule(rule: SarifRule) -> dict[str, Any]:
    return {
        "id": inert(rule.id, 200),
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.title},
        "help": {"text": rule.help},
        "defaultConfiguration": {"level": rule.level},
        "properties": {"tags": ["security", "authorization"]},
    }


def _result(result: SarifResult, index: int) -> dict[str, Any]:
    written: dict[str, Any] = {
        "ruleId": inert(result.rule, 200),
        "ruleIndex": index,
        # Only results of the kind `fail` have a level (SARIF §3.27.10).
        "kind": "open" if result.is_open else "fail",
        "level": "none" if result.is_open else result.level,
        "message": _message(result.message),
    }
    if result.place is not None:
        written["locations"] = [{"physicalLocation": _physical(result.place)}]
    if result.fingerprint:
        written["partialFingerprints"] = {
            _FINGERPRINT: result.fingerprint,
            _GITHUB_FINGERPRINT: f"{result.fingerprint}:1",
        }
    if result.baseline_state:
        written["baselineState"] = result.baseline_state
    if result.suppression:
        written["suppressions"] = [
            {
                "kind": "inSource",
                "status": "accepted",
                "justification": inert(result.suppression, _MOST_MESSAGE),
            }
        ]
    if result.steps:
        locations = [_step(step, order) for order, step in enumerate(result.steps, 1)]
        written["codeFlows"] = [{"threadFlows": [{"locations": locations}]}]
    if result.properties:
        written["properties"] = result.properties
    return written


def _step(step: SarifStep, order: int) -> dict[str, Any]:
    return {
        "executionOrder": order,
        "importance": "essential" if step.is_important else "important",
        "location": {
            "physicalLocation": _physical(step.place),
            "message": _message(step.message),
        },
        **({"properties": step.properties} if step.properties else {}),
    }


def _physical(place: SarifPlace) -> dict[str, Any]:
    # A region begins at line 1 where the line is not known: GitHub shows no result without a line.
    region: dict[str, Any] = {"startLine": place.line or 1}
    if place.line and place.column:
        region["startColumn"] = place.column
    uri = quote(place.file)
    is_absolute = uri.startswith("/")
    artifact = {"uri": f"file://{uri}"} if is_absolute else {"uri": uri, "uriBaseId": _ROOT}
    return {"artifactLocation": artifact, "region": region}


def _message(text: str) -> dict[str, str]:
    """Return a message without placeholders (SARIF §3.11.5) and embedded links (§3.11.6)."""
    shown = inert(text, _MOST_MESSAGE).replace("\\", "\\\\")
    shown = shown.replace("[", "\\[").replace("]", "\\]")
    return {"text": shown.replace("{", "{{").replace("}", "}}")}


def diagnostics_log(
    found: Iterable[Diagnostic],
    version: str,
    subject: str,
    repository_file: Callable[[str], str],
) -> dict[str, Any]:
    """Make the log of errors and warnings, for example of `authz check`.

    Args:
        found: Errors and warnings of a bundle.
        version: Version of Authz.
        subject: Name of the bundle.
        repository_file: Returns the path of a bundle's file from the root of the repository.
    """
    results = [_diagnostic_result(one, repository_file) for one in found]
    names = sorted({result.rule for result in results})
    rules = [_diagnostic_rule(name) for name in names]
    return sarif_log(SarifRun("check", version, subject, rules, results))


def _diagnostic_rule(name: str) -> SarifRule:
    title = (
        "The bundle is not valid." if name == _NOT_VALID else f"Warning `{name}` of authz check."
    )
    return SarifRule(
        name, title, "docs/reference/checks.md explains each warning, and how to answer it."
    )


def _diagnostic_result(one: Diagnostic, repository_file: Callable[[str], str]) -> SarifResult:
    is_error = one.severity is Severity.ERROR
    file = repository_file(one.file or "bundle.yaml")
    return SarifResult(
        rule=one.code or (_NOT_VALID if is_error else _WARNING),
        level="error" if is_error else "warning",
        message=" ".join(part for part in (one.what, one.fix) if part),
        place=SarifPlace(file, one.line, one.column),
    )


def analysis_log(
    selection: Selection, version: str, repository_file: Callable[[str], str]
) -> dict[str, Any]:
    """Make the log of an analysis.

    Args:
        selection: Findings with their states.
        version: Version of Authz.
        repository_file: Returns the path of a bundle's file from the root of the repository.
    """
    report = selection.report
    names = sorted({one.finding.rule for one in selection.findings})
    levels = {one.finding.rule: one.finding.severity.value for one in reversed(selection.findings)}
    return sarif_log(
        SarifRun(
            command="analyze",
            version=version,
            subject=report.bundle.name,
            rules=[_analysis_rule(name, levels[name]) for name in names],
            results=[
                _analysis_result(one, selection, repository_file) for one in selection.findings
            ],
            notifications=list(_notifications(selection)),
            properties={
                "bundle": report.bundle.model_dump(),
                "solver": report.solver.model_dump() if report.solver else None,
                "counts": report.counts.model_dump(),
                "proved": len(report.proved),
                "notDecided": len(selection.not_decided),
            },
        )
    )


def _analysis_rule(name: str, level: str) -> SarifRule:
    text = rule_text(name)
    return SarifRule(name, text.title, text.help, level)


def _analysis_result(
    one: SelectedFinding, selection: Selection, repository_file: Callable[[str], str]
) -> SarifResult:
    finding = one.finding
    place = _place_of(finding, repository_file)
    states = {FindingState.NEW: "new", FindingState.KNOWN: "unchanged"}
    is_open = finding.verdict is Verdict.NOT_DECIDED
    reason = f" Not decided: {finding.reason or NO_REASON}." if is_open else ""
    return SarifResult(
        rule=finding.rule,
        level=finding.severity.value,
        message=f"{finding.message}{reason}",
        place=place,
        fingerprint=finding.id,
        is_open=is_open,
        baseline_state=states.get(one.state, "") if selection.has_baseline else "",
        suppression=one.suppression.justification if one.suppression else "",
        steps=[
            SarifStep(step_text(step), place, step.is_pivot, _facts(step)) for step in finding.path
        ],
        properties={
            "verdict": finding.verdict.value,
            "severity": finding.severity.value,
            "assumptions": [inert(text) for text in finding.assumptions],
            "policies": [inert(text) for text in finding.policies],
            "cut": [inert(change.text) for change in finding.cut.changes] if finding.cut else [],
        },
    )


def _place_of(finding: Finding, repository_file: Callable[[str], str]) -> SarifPlace:
    where = finding.location
    if where is None:
        # GitHub shows no result without a place, and every bundle has this file.
        return SarifPlace(repository_file("bundle.yaml"))
    return SarifPlace(repository_file(where.file), where.line, where.column)


def step_text(step: Step) -> str:
    """Return a step in one line: caller, operation, arguments and answer."""
    target = f" to {step.destination}" if step.destination else ""
    arguments = f" {compact_json(step.input)}" if step.input else ""
    labels = f", session gets {', '.join(step.new_labels)}" if step.new_labels else ""
    note = f" ({step.note})" if step.note else ""
    return f"{step.step}. {step.caller} calls {step.operation}{arguments}{target}: {step.answer}{labels}{note}"


def _facts(step: Step) -> dict[str, Any]:
    return {
        "operation": inert(step.operation),
        "outcome": inert(step.answer),
        "rules": [inert(rule) for rule in step.rules],
        "labels": [inert(label) for label in step.labels_after],
    }


def _notifications(selection: Selection) -> Iterable[str]:
    if selection.report.solver is None:
        yield NO_SOLVER
    if selection.not_decided:
        yield f"{len(selection.not_decided)} findings are not decided. They may be defects."
    yield from (entry.expired_text for entry in selection.expired)
