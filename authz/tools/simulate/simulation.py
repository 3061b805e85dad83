"""A session that went through a bundle."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from authz.engine import Plan
from authz.tools.simulate.session import SessionReading, SessionStep

__all__ = ["Simulation", "simulate"]

# Without a time in the session, the output must not depend on the time of the run.
_DEFAULT_MS: Final = 1_767_225_600_000
_EFFECTS: Final = {"PERMIT": "permitted", "STEP_UP": "held", "DENY": "denied"}


@dataclass(frozen=True, slots=True)
class Simulation:
    """Steps of a session with their results."""

    plan: Plan
    """Bundle."""
    reading: SessionReading
    """Steps, and the parts that were not understood."""
    results: list[dict[str, Any]]
    """Result of each step."""

    def counts(self) -> dict[str, int]:
        """Count steps by their results."""
        counts: Counter[str] = Counter()
        for step, result in zip(self.reading.steps, self.results, strict=True):
            counts["steps"] += 1
            if step.kind != "call":
                counts["other_steps"] += 1
                counts["failed_steps"] += not result["ok"]
                continue
            counts["calls"] += 1
            if not result["ok"]:
                counts["not_simulated"] += 1
                continue
            counts["simulated"] += 1
            counts[_EFFECTS[result["outcome"]]] += 1
            counts["observed"] += not result["enforced"]
            counts["changed"] += _is_changed(step, result)
        names = (
            "steps",
            "calls",
            "simulated",
            "permitted",
            "held",
            "denied",
            "observed",
            "changed",
            "not_simulated",
            "other_steps",
            "failed_steps",
        )
        return {
            "lines": self.reading.lines,
            **{name: counts[name] for name in names},
            "not_understood": self.reading.gap_count,
        }

    @property
    def is_complete(self) -> bool:
        """True if every call of the session was taken through the bundle, so that no label or count is missing."""
        calls = zip(self.reading.steps, self.results, strict=True)
        return not self.reading.misses_call and all(result["ok"] for _, result in calls)

    def document(self) -> dict[str, Any]:
        """Return the simulation for JSON. It follows from the bundle and the session alone."""
        return {
            "version": 1,
            "bundle": self.plan.identity,
            "form": self.reading.form,
            "counts": self.counts(),
            "is_complete": self.is_complete,
            "steps": [
                _row(number, step, result)
                for number, (step, result) in enumerate(
                    zip(self.reading.steps, self.results, strict=True), 1
                )
            ],
            "not_understood": [{"line": line, "what": what} for line, what in self.reading.gaps],
            "other_lines": dict(sorted(self.reading.others.items())),
        }


def simulate(plan: Plan, reading: SessionReading) -> Simulation:
    """Take a session through a bundle.

    Raises:
        BundleError: A step has another form than the engine takes.
    """
    known = (step.at_ms for step in reading.steps if step.at_ms is not None)
    first = next(known, _DEFAULT_MS)
    steps = [
        {"at_ms": step.at_ms if step.at_ms is not None else first, step.kind: step.request}
        for step in reading.steps
    ]
    return Simulation(plan, reading, plan.simulate({"steps": steps}))


def _row(number: int, step: SessionStep, result: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"step": number, "line": step.line, "kind": step.kind}
    if step.at_ms is not None:
        moment = datetime.fromtimestamp(step.at_ms / 1_000, UTC)
        row["at"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if step.kind == "call":
        row["operation"] = step.request["operation"]
        row["task"] = step.request.get("task", "")
    if step.decision_id:
        row["decision_id"] = step.decision_id
    row |= result
    if step.recorded is not None:
        row["recorded"] = dict(step.recorded)
        row["is_changed"] = _is_changed(step, result)
    return row


def _is_changed(step: SessionStep, result: Mapping[str, Any]) -> bool:
    if step.recorded is None or not result["ok"]:
        return False
    return _effect(step.recorded) != _effect(result)


def _effect(answer: Mapping[str, Any]) -> str:
    return str(answer["outcome"]) if answer["enforced"] else "PERMIT"
