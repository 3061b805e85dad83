"""Plays a scenario: asks before each step, executes what is permitted, and looks at the end state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bench.detection import goals, references
from bench.detection.scenario import Scenario
from bench.detection.world import Backend, RefusedError, Result

Decision = Literal["permit", "deny", "step_up"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A step as it is asked about: all references are filled in.

    Attributes:
        number: of the step, from 1.
        task: which of the scenario's tasks it belongs to: 0 is the first.
        operation: `<system>.<tool>`.
        arguments: of the tool.
        at: seconds since the first step.
    """

    number: int
    task: int
    operation: str
    arguments: Mapping[str, Any]
    at: int


@dataclass(frozen=True, slots=True)
class Played:
    """How a scenario went.

    Attributes:
        reached: whether the end state is the goal.
        denied_steps: numbers of the steps that were denied.
        stepups: numbers of the steps that were held for somebody to agree. Nobody did.
        skipped: numbers of the steps that lacked the result of an earlier one. Nobody was asked.
        failed: numbers of the steps that were permitted, and refused by the back end itself.
        honest: whether it is an honest scenario.
        results: of the steps that were executed.
    """

    reached: bool
    denied_steps: tuple[int, ...]
    stepups: tuple[int, ...]
    skipped: tuple[int, ...]
    failed: tuple[int, ...]
    honest: bool
    results: Mapping[int, Result]


def play(
    scenario: Scenario,
    decide: Callable[[Asked], Decision],
    report: Callable[[Asked, Result | None], None] | None = None,
) -> Played:
    """Plays a scenario on a fresh back end.

    A step that is denied or held is not executed, and the play goes on with the next: an agent that follows an
    attacker tries what else it was told.

    Args:
        scenario: the scenario.
        decide: says of each step whether it may be.
        report: told of each step that was executed: its result, or None where the back end refused.

    Returns:
        How it went.

    Raises:
        CorpusError: a call has a form that its tool does not take.
        ValueError: `decide` said something else.
    """
    backend = scenario.backend()
    results: dict[int, Result] = {}
    sorted_: dict[str, list[int]] = {"deny": [], "step_up": [], "skipped": [], "failed": []}
    at = 0
    for number, step in enumerate(scenario.steps, 1):
        at += step.seconds if number > 1 else 0
        try:
            arguments = {key: references.fill(one, results) for key, one in step.with_.items()}
        except references.MissingError:
            sorted_["skipped"].append(number)
            continue
        asked = Asked(number, scenario.task(number), step.call, arguments, at)
        said = decide(asked)
        if said in ("deny", "step_up"):
            sorted_[said].append(number)
            continue
        if said != "permit":
            raise ValueError(f"no decision: {said}")
        result = _execute(backend, asked)
        if result is None:
            sorted_["failed"].append(number)
        else:
            results[number] = result
        if report is not None:
            report(asked, result)
    return Played(
        reached=goals.reached(scenario.goal, backend.world),
        denied_steps=tuple(sorted_["deny"]),
        stepups=tuple(sorted_["step_up"]),
        skipped=tuple(sorted_["skipped"]),
        failed=tuple(sorted_["failed"]),
        honest=scenario.honest,
        results=results,
    )


def _execute(backend: Backend, asked: Asked) -> Result | None:
    try:
        return backend.call(asked.operation, asked.arguments)
    except RefusedError:
        return None
