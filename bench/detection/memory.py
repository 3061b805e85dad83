"""What memory costs honest work: days of one user, and a fleet of users behind one agent.

A `Day` is a list of honest tasks, one after the other, of one agent for one or several subjects. It is judged as one trace, so that
what an earlier task read counts in a later one as far as the bundle remembers it. A *question* is an honest step that is denied
or held. Each day is judged once for each kind of isolation that a bundle may say of its agent.
"""

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from authz.bundle import read_results
from authz.engine import Plan
from authz.model import BundleFiles
from bench.detection import references
from bench.detection.judge import ENFORCER, ISSUER, NOT_AWAITED, NOW_MS, JudgeError, agent
from bench.detection.reports import Reports
from bench.detection.scenario import Domain, Scenario, domain, scenarios
from bench.detection.simulate import Asked, Decision, play
from bench.detection.static import facts_of
from bench.detection.world import Result

KINDS: Final = ("none", "per_subject", "per_task")
"""Kinds of isolation of an agent, the least isolated first."""
TASKS_A_DAY: Final = 8
SEEDS: Final = 20
FLEET_DOMAIN: Final = "mail"
FLEET_USERS: Final = 1_000
READERS_SHARE: Final = 0.01
PERSONAL: Final = ("/hr/", "/personal/")
"""Folders of the fleet's domain that hold personal data."""
RESTRICTED: Final = (*PERSONAL, "/finance/", "/legal/", "/it/")
"""Folders of the fleet's domain that hold what only few may see."""
_BREAK_SECONDS: Final = 45 * 60
_WORKING_DAY_SECONDS: Final = 8 * 3600
_LONGEST_SECONDS: Final = 3600
_SHORT_SECONDS: Final = 60
_OPEN_SECONDS: Final = 600
_MOST_RUNS: Final = 100
_FILE: Final = "tests/day.yaml"
_ACTUAL: Final = re.compile(r"outcome: (\w+), code: (\w+)")


@dataclass(frozen=True, slots=True)
class Work:
    """A task of a day.

    Attributes:
        subject: on whose behalf.
        scenario: its steps.
        at: seconds from the beginning of the day.
        ends_at: when it is ended.
    """

    subject: str
    scenario: Scenario
    at: int
    ends_at: int


@dataclass(frozen=True, slots=True)
class Day:
    """Tasks in the order of their times, of one domain.

    Attributes:
        domain: of the scenarios.
        users: the domain's user that each subject is like, by subject.
        works: the tasks.
    """

    domain: str
    users: Mapping[str, str]
    works: tuple[Work, ...]


@dataclass(slots=True)
class Cost:
    """How honest steps of days fared.

    Attributes:
        user_days: users times days.
        tasks: tasks.
        steps: steps of the tasks.
        step_ups: steps that were held.
        denied: steps that were denied.
        not_asked: steps that lacked the result of a refused one.
        codes: refused steps by reason code.
    """

    user_days: int = 0
    tasks: int = 0
    steps: int = 0
    step_ups: int = 0
    denied: int = 0
    not_asked: int = 0
    codes: dict[str, int] = field(default_factory=dict)

    def add(self, other: "Cost") -> None:
        """Adds the figures of other days.

        Args:
            other: those days.
        """
        for name in ("user_days", "tasks", "steps", "step_ups", "denied", "not_asked"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for code, times in other.codes.items():
            self.codes[code] = self.codes.get(code, 0) + times

    def told(self) -> dict[str, Any]:
        """Returns the figures, with questions per user and day."""
        questions = self.step_ups + self.denied
        return {
            "user_days": self.user_days,
            "tasks": self.tasks,
            "steps": self.steps,
            "step_ups": self.step_ups,
            "denied": self.denied,
            "not_asked": self.not_asked,
            "questions_per_user_day": round(questions / self.user_days, 3),
            "codes": dict(sorted(self.codes.items())),
        }


# --- days


def day(name: str, seed: int) -> Day:
    """Returns a day of one user: some of its honest tasks, in a random order, with a break after each.

    Args:
        name: of the domain.
        seed: of the choice.

    Returns:
        The day.
    """
    chance = random.Random(f"{name} {seed}")
    own = {user: _single_tasks(name, user) for user in sorted(domain(name).users)}
    user = chance.choice([user for user, tasks in own.items() if len(tasks) >= TASKS_A_DAY])
    works, at = [], 0
    for scenario in chance.sample(own[user], TASKS_A_DAY):
        ends_at = at + _seconds(scenario)
        works.append(Work(user, scenario, at, ends_at))
        at = ends_at + _BREAK_SECONDS
    return Day(name, {user: user}, tuple(works))


def fleet(users: int, seed: int = 0) -> Day:
    """Returns a day on which each of many users has a task of one agent, and a few of them one that reads personal data.

    No other task reads a restricted folder.
    A task is ended ten minutes after its last step, so that tasks of several users are open at any time.

    Args:
        users: how many.
        seed: of the choice.

    Returns:
        The day.
    """
    chance = random.Random(f"fleet {seed}")
    name, like = FLEET_DOMAIN, sorted(domain(FLEET_DOMAIN).users)
    tasks = {user: _single_tasks(name, user, _SHORT_SECONDS) for user in like}
    plain = {user: [one for one in tasks[user] if not reads(one, RESTRICTED)] for user in like}
    reading = [one for user in like for one in tasks[user] if reads(one, PERSONAL)]
    most = max(like, key=lambda user: len(plain[user]))
    people, chosen = {}, []
    for number in range(users):
        subject = f"user-{number + 1}"
        if number < max(1, round(users * READERS_SHARE)):
            first = chance.choice(reading)
            chosen.append((subject, first))
            people[subject] = first.user
        else:
            people[subject] = most
        chosen.append((subject, chance.choice(plain[people[subject]])))
    chance.shuffle(chosen)
    apart = _WORKING_DAY_SECONDS / len(chosen)
    works = []
    for number, (subject, scenario) in enumerate(chosen):
        at = round(number * apart)
        works.append(Work(subject, scenario, at, at + _seconds(scenario) + _OPEN_SECONDS))
    return Day(name, people, tuple(works))


def reads(scenario: Scenario, folders: tuple[str, ...]) -> bool:
    """Returns whether a task reads a file of some folders.

    Args:
        scenario: the task.
        folders: the beginnings of paths.
    """
    return any(
        asked.operation in ("files.read_file", "files.copy_file")
        and str(asked.arguments["path"]).startswith(folders)
        for asked in _asked(scenario)
    )


def with_isolation(bundle: BundleFiles, kind: str) -> BundleFiles:
    """Returns a bundle that says how its agents are isolated, without its own tests.

    Args:
        bundle: the bundle.
        kind: one of `KINDS`.
    """
    files = {}
    for name, content in bundle.files.items():
        if name.startswith("tests/"):
            continue
        files[name] = content
        facts = facts_of(name, content)
        if facts is not None and "agents" in facts:
            agents = {role: _isolated(said, kind) for role, said in facts["agents"].items()}
            files[name] = json.dumps({**facts, "agents": agents}, ensure_ascii=False).encode()
    return BundleFiles(bundle.root, files)


def _isolated(said: Any, kind: str) -> dict[str, Any]:
    members = dict(said) if isinstance(said, dict) else {"match": said}
    return {**members, "isolated": kind}


def _single_tasks(name: str, user: str, longest: int = _LONGEST_SECONDS) -> list[Scenario]:
    return [
        one
        for one in scenarios(name, "honest")
        if one.user == user and not one.later and _seconds(one) <= longest
    ]


def _seconds(scenario: Scenario) -> int:
    return sum(step.seconds for step in scenario.steps[1:])


@cache
def _played(name: str, identifier: str) -> tuple[tuple[Asked, ...], Mapping[int, Result]]:
    (scenario,) = (one for one in scenarios(name, "honest") if one.id == identifier)
    found: list[Asked] = []

    def permit(asked: Asked) -> Decision:
        found.append(asked)
        return "permit"

    results = play(scenario, permit).results
    return tuple(found), results


def _asked(scenario: Scenario) -> tuple[Asked, ...]:
    """The steps of a task that nobody refuses, with their arguments."""
    return _played(scenario.domain, scenario.id)[0]


def _result(scenario: Scenario, number: int) -> Result:
    return _played(scenario.domain, scenario.id)[1][number]


# --- judging


def measure(bundles: Mapping[str, BundleFiles], *, reported: bool = True) -> dict[str, Any]:
    """Judges days of each domain, and the day of a fleet, once for each kind of isolation.

    Args:
        bundles: by domain.
        reported: whether the enforcer reports what came of calls, as far as the bundle asks for it.

    Returns:
        The figures: by domain and kind, those of all domains by kind, and of the fleet by kind.

    Raises:
        BundleError: a bundle is refused.
        JudgeError: a bundle does not fit the days.
    """
    domains: dict[str, dict[str, Any]] = {}
    total = {kind: Cost() for kind in KINDS}
    for name, bundle in bundles.items():
        days = [day(name, seed) for seed in range(SEEDS)]
        costs = {kind: cost(bundle, kind, days, reported=reported) for kind in KINDS}
        domains[name] = {kind: one.told() for kind, one in costs.items()}
        for kind, one in costs.items():
            total[kind].add(one)
    found: dict[str, Any] = {
        "tasks_a_day": TASKS_A_DAY,
        "days_of_each_domain": SEEDS,
        "domains": domains,
        "days": {kind: one.told() for kind, one in total.items()},
    }
    if FLEET_DOMAIN in bundles:
        one_day = fleet(FLEET_USERS)
        bundle = bundles[FLEET_DOMAIN]
        found["fleet_users"] = FLEET_USERS
        found["fleet"] = {
            kind: cost(bundle, kind, [one_day], reported=reported).told() for kind in KINDS
        }
    return found


def cost(bundle: BundleFiles, kind: str, days: Iterable[Day], *, reported: bool = True) -> Cost:
    """Judges days by a bundle whose agents are isolated so.

    Args:
        bundle: the bundle.
        kind: one of `KINDS`.
        days: the days, each of which begins without a history.
        reported: whether the enforcer reports what came of calls, as far as the bundle asks for it.

    Returns:
        The figures of all days.

    Raises:
        BundleError: the bundle is refused.
        JudgeError: the bundle does not fit the days.
    """
    plan = Plan.compile(with_isolation(bundle, kind), {}, now_ms=NOW_MS)
    reports = (Reports.of(bundle) if reported else None) or None
    total = Cost()
    for one in days:
        total.add(_Judged(plan, one, reports).cost())
    return total


@dataclass(frozen=True, slots=True)
class _Call:
    """A step of the trace that asks for an operation, and the steps whose results it needs."""

    work: int
    asked: Asked
    needs: tuple[int, ...]


class _Judged:
    """A day, judged as one trace.

    The engine says of a trace which steps came out otherwise than expected, and lists some of them only. So it runs until all come out
    as expected: at first each step is expected to be permitted, then to be what it was the last time. A step that needs the result
    of a refused one is left out.

    Args:
        plan: the compiled bundle.
        day: the day.
        reports: what the enforcer reports of permitted calls; nothing, if it is left out.
    """

    def __init__(self, plan: Plan, day: Day, reports: Reports | None) -> None:
        self._plan = plan
        self._reports = reports
        self._not_awaited: set[tuple[str, int]] = set()
        self._day = day
        self._domain: Domain = domain(day.domain)
        self._calls = [
            [
                _Call(work, asked, _needs(one.scenario, asked.number))
                for asked in _asked(one.scenario)
            ]
            for work, one in enumerate(day.works)
        ]
        self._answers: dict[tuple[int, int], tuple[str, str]] = {}
        self._ends: dict[int, str] = {}
        self._settle()

    def cost(self) -> Cost:
        """Counts."""
        found = Cost(user_days=len(self._day.users), tasks=len(self._day.works))
        for call in self._every_call():
            found.steps += 1
            if not self._is_asked(call):
                found.not_asked += 1
                continue
            said, code = self._answer(call)
            found.step_ups += said == "STEP_UP"
            found.denied += said == "DENY"
            if said != "PERMIT":
                found.codes[code] = found.codes.get(code, 0) + 1
        return found

    def _every_call(self) -> Iterator[_Call]:
        return (call for calls in self._calls for call in calls)

    def _answer(self, call: _Call) -> tuple[str, str]:
        return self._answers.get((call.work, call.asked.number), ("PERMIT", "PERMITTED"))

    def _is_asked(self, call: _Call) -> bool:
        needed = (one for one in self._calls[call.work] if one.asked.number in call.needs)
        return all(self._is_asked(one) and self._answer(one)[0] == "PERMIT" for one in needed)

    def _settle(self) -> None:
        for _ in range(_MOST_RUNS):
            steps, meaning = self._trace()
            if not self._run(steps, meaning):
                return
        raise JudgeError(
            f"{self._day.domain}: a day came out otherwise in each of {_MOST_RUNS} runs"
        )

    def _trace(self) -> tuple[list[dict[str, Any]], list[tuple[str, Any]]]:
        """The steps of the trace, and what each of them is."""
        events: list[tuple[int, dict[str, Any], tuple[str, Any]]] = []
        for work, one in enumerate(self._day.works):
            name = f"task-{work + 1}"
            start = {
                "name": name,
                "template": one.scenario.template_of(0),
                "subject": one.subject,
                "agent": agent(self._domain),
                "params": one.scenario.params,
                "prompt": one.scenario.prompt,
            }
            events.append((one.at, {"start": start, "expect": "OK"}, ("start", work)))
            for call in filter(self._is_asked, self._calls[work]):
                asking = self._asking(name, call)
                events.append((one.at + call.asked.at, asking, ("call", call)))
                report = self._report(one.scenario, call)
                if report is not None:
                    events.append((one.at + call.asked.at, report, ("report", call)))
            end = {"task": name, "end": {}, "expect": self._ends.get(work, "OK")}
            events.append((one.ends_at, end, ("end", work)))
        events.sort(key=lambda event: event[0])
        places = {
            id(of): place for place, (_, _, (what, of)) in enumerate(events, 1) if what == "call"
        }
        for _, step, (what, of) in events:
            if what == "report":
                step["report"]["of"] = places[id(of)]
        times = [0, *(at for at, _, _ in events)]
        steps = [
            {**_after(at - before), **step}
            for before, (at, step, _) in zip(times, events, strict=False)
        ]
        return steps, [meaning for _, _, meaning in events]

    def _report(self, scenario: Scenario, call: _Call) -> dict[str, Any] | None:
        """The step that reports what came of a call; none where it is refused, or nobody waits for a report."""
        key = (scenario.id, call.asked.number)
        if self._reports is None or key in self._not_awaited or self._answer(call)[0] != "PERMIT":
            return None
        asked = call.asked
        told = self._reports.report(
            asked.operation, asked.arguments, _result(scenario, asked.number)
        )
        return told and {"report": told, "expect": "OK"}

    def _asking(self, task: str, call: _Call) -> dict[str, Any]:
        said, code = self._answer(call)
        return {
            "task": task,
            "as": {"agent": agent(self._domain), "bound": True},
            "call": call.asked.operation,
            "input_text": json.dumps(call.asked.arguments, ensure_ascii=False),
            "expect": {"outcome": said, "code": code},
        }

    def _run(self, steps: list[dict[str, Any]], meaning: Sequence[tuple[str, Any]]) -> bool:
        """Runs the trace; returns whether a step came out otherwise than expected."""
        subjects = {}
        for subject, like in self._day.users.items():
            user = self._domain.users[like]
            claims = {**user.claims, "email": user.address}
            subjects[subject] = {"issuer": ISSUER, "claims": claims}
        trace = {"trace": "day", "enforcer": ENFORCER, "steps": steps}
        document = {"fixtures": {"subjects": subjects}, "tests": [trace]}
        text = json.dumps(document, ensure_ascii=False)
        # A bundle's variables are no matter of the scenarios' texts.
        files = {_FILE: text.replace("${", "$${").encode()}
        done = read_results(self._plan.test(BundleFiles("", files), NOW_MS))
        otherwise: list[_Call] = []
        for one in done.failures:
            what: str = "file"
            of: Any = None
            if one.test and one.step:
                what, of = meaning[one.step - 1]
            found = _ACTUAL.match(one.actual)
            if what == "call" and found:
                self._answers[of.work, of.asked.number] = (found[1], found[2])
                otherwise.append(of)
            elif what == "end":
                self._ends[of] = one.actual
            elif what == "report" and one.actual == NOT_AWAITED:
                # Of a call that is refused there is no report either, and the next run has none.
                if of not in otherwise:
                    self._not_awaited.add((self._day.works[of.work].scenario.id, of.asked.number))
            else:
                raise JudgeError(f"{self._day.domain}: {what} {of}: {one.actual}: {one.message}")
        if done.skipped:
            raise JudgeError(f"{self._day.domain}: a step was left out")
        if done.omitted:
            self._guess(meaning, done.failures[-1].step)
        return bool(done.failures)

    def _guess(self, meaning: Sequence[tuple[str, Any]], last: int) -> None:
        """Expects of steps after the last listed one what the same step of a task of the same kind was before.

        A wrong guess comes out otherwise in the next run. Without guesses a fleet takes a run for every 200 questions.
        """
        latest: dict[tuple[str, int], tuple[str, str]] = {}
        for place, (what, of) in enumerate(meaning, 1):
            if what != "call":
                continue
            kind = (self._day.works[of.work].scenario.id, of.asked.number)
            if place <= last:
                latest[kind] = self._answer(of)
            elif kind in latest:
                self._answers[of.work, of.asked.number] = latest[kind]


def _needs(scenario: Scenario, number: int) -> tuple[int, ...]:
    with_ = scenario.steps[number - 1].with_
    return tuple({to for value in with_.values() for to in references.numbers(value)})


def _after(seconds: int) -> dict[str, str]:
    return {"after": f"{seconds}s"} if seconds > 0 else {}
