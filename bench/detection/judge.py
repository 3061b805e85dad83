"""Judges the steps of a scenario by a bundle: the engine that `authz test` runs traces with.

Its clock is the scenario's, tasks and what a session did live as long as the play. A trace is judged as
a whole, so for each step the trace so far is judged anew, which must come out as before.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from authz.bundle import TestFailure, read_results
from authz.engine import Plan
from authz.model import BundleFiles
from bench.detection.reports import Reports
from bench.detection.scenario import Domain, Scenario
from bench.detection.simulate import Asked, Decision
from bench.detection.world import Result

NOW_MS: Final = 1_795_600_000_000
"""When every scenario begins: 25 November 2026."""
ENFORCER: Final = "tools"
ISSUER: Final = "corp"
_FILE: Final = "tests/play.yaml"
_ENDED: Final = "TASK_ENDED"
NOT_AWAITED: Final = "code: NOT_PERMITTED"
"""What comes of a report of a permit that counts as done at once: nothing depends on what came of it."""
_SAID: Final = re.compile(
    r"outcome: (\w+), code: (\w+), tier: (\w*), destination_class: ([^,]*), "
    r"kinds: \[(.*)\], policies: \[(.*)\]"
)
_BY_PEOPLE: Final = frozenset({"confirm", "approve", "two_person"})
"""Step-up kinds that a person meets by agreeing, besides `approve:ROLE`."""
_DECISIONS: Final[Mapping[str, Decision]] = {
    "PERMIT": "permit",
    "DENY": "deny",
    "STEP_UP": "step_up",
}
# No decision here has these values (the record of a simulated decision is never refused), so the engine prints the real ones.
_ASKED: Final = {
    "outcome": "PERMIT",
    "code": "AUDIT_FULL",
    "tier": "?",
    "destination_class": "?",
    "kinds": ["?"],
    "policies": ["?"],
}


class JudgeError(RuntimeError):
    """The bundle does not fit what it is played with, or the engine contradicts itself."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a step.

    Attributes:
        asked: the step.
        outcome: `PERMIT`, `DENY`, `STEP_UP`.
        code: the reason code.
        tier: the effective tier.
        destination_class: of the worst destination; empty without one.
        kinds: of a step-up, what must be shown.
        policies: those that determined the outcome.
        message: the engine's words for an enforcer.
        approved: the step as it was held before somebody agreed to it.
    """

    asked: Asked
    outcome: str
    code: str
    tier: str
    destination_class: str
    kinds: tuple[str, ...]
    policies: tuple[str, ...]
    message: str
    approved: "Answer | None" = None

    @property
    def held(self) -> "Answer | None":
        """Returns the step as it was held, whether somebody then agreed to it or not."""
        return self if self.outcome == "STEP_UP" else self.approved

    def because(self) -> str:
        """Returns the policies that determined it, or the reason code where none did."""
        return ", ".join(self.policies) or self.code


def agent(domain: Domain) -> str:
    """Returns the SPIFFE id of the agent of a domain.

    Args:
        domain: the domain.
    """
    return f"spiffe://{domain.own}/agents/assistant"


class Judge:
    """Decides about the steps of one scenario, in order.

    Args:
        plan: the compiled bundle.
        domain: whose scenario it is.
        scenario: the scenario.
        remember: if not, each step is judged as the first that anybody ever asked for.
        again: whether the user gives a task again that has ended by itself; if not, it stays ended.
        careless: whether somebody agrees to every step that is held.
        reports: what the enforcer reports of executed steps; nothing, if it is left out.

    Attributes:
        answers: what came of each step that was asked about.
        given_again: whether the user gave a task again that had ended by itself; with `again` left out, whether one had ended.
    """

    def __init__(
        self,
        plan: Plan,
        domain: Domain,
        scenario: Scenario,
        *,
        remember: bool = True,
        again: bool = True,
        careless: bool = False,
        reports: Reports | None = None,
    ) -> None:
        self.answers: list[Answer] = []
        self.given_again = False
        self._remember = remember
        self._again = again
        self._careless = careless
        self._reports = reports
        self._plan = plan
        self._scenario = scenario
        self._agent = agent(domain)
        user = domain.users[scenario.user]
        claims = {**user.claims, "email": user.address}
        self._fixtures = {"subjects": {scenario.user: {"issuer": ISSUER, "claims": claims}}}
        self._steps: list[dict[str, Any]] = []
        self._begun: list[str] = []
        self._task = -1
        self._at = 0

    def decide(self, asked: Asked) -> Decision:
        """Decides about a step.

        Args:
            asked: the step.

        Returns:
            The decision.

        Raises:
            JudgeError: a task cannot be started, or what was decided before is decided otherwise now.
        """
        if not self._remember:
            self._steps, self._begun, self._at = [], [], 0
        if asked.task != self._task or not self._remember:
            if self._begun:
                self._steps.append({"task": self._begun[-1], "end": {}, "expect": "OK"})
            self._task = asked.task
            self._start(asked)
        answer = self._ask(asked)
        if answer.code == _ENDED:
            self.given_again = True
            if self._again:
                # Its time is over: the user gives it again.
                self._start(asked)
                answer = self._ask(asked)
        satisfied: tuple[str, ...] = ()
        while self._careless and _needs_people(answer, satisfied):
            held = answer.approved or answer
            satisfied = (*satisfied, *answer.kinds)
            answer = replace(self._ask(asked, satisfied), approved=held)
        self.answers.append(answer)
        expect = {"outcome": answer.outcome, "code": answer.code}
        self._steps.append(self._call(asked, expect, satisfied))
        self._at = asked.at
        return _DECISIONS[answer.outcome]

    def report(self, asked: Asked, result: Result | None) -> None:
        """Reports what came of the step that was decided last. That the back end refused it is told to nobody.

        Args:
            asked: the step.
            result: its result.
        """
        if self._reports is None or result is None:
            return
        told = self._reports.report(asked.operation, asked.arguments, result)
        if told is None:
            return
        step = {"report": {"of": len(self._steps), **told}, "expect": "OK"}
        failures = self._run([*self._steps, step])
        if not failures:
            self._steps.append(step)
        elif [one.actual for one in failures] != [NOT_AWAITED]:
            said = "; ".join(f"{one.step}: {one.actual}: {one.message}" for one in failures)
            raise JudgeError(f"{self._scenario.id}, step {asked.number}: not reported: {said}")

    def _start(self, asked: Asked) -> None:
        of = self._scenario if asked.task == 0 else self._scenario.later[asked.task - 1]
        name = f"task-{len(self._begun) + 1}"
        start = {
            "name": name,
            "template": self._scenario.template_of(asked.task),
            "subject": self._scenario.user,
            "agent": self._agent,
            "params": of.params,
            "prompt": of.prompt,
        }
        step = {**self._after(asked), "start": start, "expect": "OK"}
        self._begun.append(name)
        self._steps.append(step)
        self._at = asked.at
        failures = self._run(self._steps)
        if failures:
            what = f"{failures[-1].actual}: {failures[-1].message}"
            raise JudgeError(f"{self._scenario.id}: the task cannot be started: {what}")

    def _after(self, asked: Asked) -> dict[str, str]:
        later = asked.at - self._at
        return {"after": f"{later}s"} if later else {}

    def _call(self, asked: Asked, expect: Any, satisfied: tuple[str, ...] = ()) -> dict[str, Any]:
        caller: dict[str, Any] = {"agent": self._agent, "bound": True}
        if satisfied:
            caller["satisfied"] = list(satisfied)
        return {
            **self._after(asked),
            "task": self._begun[-1],
            "as": caller,
            "call": asked.operation,
            "input_text": json.dumps(asked.arguments, ensure_ascii=False),
            "expect": expect,
        }

    def _ask(self, asked: Asked, satisfied: tuple[str, ...] = ()) -> Answer:
        failures = self._run([*self._steps, self._call(asked, _ASKED, satisfied)])
        where = f"{self._scenario.id}, step {asked.number}"
        if [one.step for one in failures] != [len(self._steps) + 1]:
            said = "; ".join(f"{one.step}: {one.actual}: {one.message}" for one in failures)
            raise JudgeError(f"{where}: not judged, or earlier steps otherwise than before: {said}")
        found = _SAID.fullmatch(failures[0].actual)
        if not found or found[1] not in _DECISIONS:
            raise JudgeError(f"{where}: {failures[0].actual}")
        said, code, tier, destination_class, kinds, policies = map(str, found.groups())
        return Answer(
            asked=asked,
            outcome=said,
            code=code,
            tier=tier,
            destination_class=destination_class,
            kinds=_list(kinds),
            policies=_list(policies),
            message=failures[0].message,
        )

    def _run(self, steps: list[dict[str, Any]]) -> tuple[TestFailure, ...]:
        trace = {"trace": self._scenario.id, "enforcer": ENFORCER, "steps": steps}
        text = json.dumps({"fixtures": self._fixtures, "tests": [trace]}, ensure_ascii=False)
        # A bundle's variables are no matter of the scenarios' texts.
        files = {_FILE: text.replace("${", "$${").encode()}
        done = read_results(self._plan.test(BundleFiles("", files), NOW_MS))
        if any(not one.test for one in done.failures) or done.skipped or done.omitted:
            said = [one.message for one in done.failures] or "a step was left out"
            raise JudgeError(f"{self._scenario.id}: {said}")
        return done.failures


def _needs_people(answer: Answer, met: tuple[str, ...]) -> bool:
    """Whether a step is held only for what people can meet, and have not met yet."""
    if answer.outcome != "STEP_UP" or set(answer.kinds) & set(met):
        return False
    return all(kind in _BY_PEOPLE or kind.startswith("approve:") for kind in answer.kinds)


def _list(text: str) -> tuple[str, ...]:
    return tuple(one for one in text.split(", ") if one)
