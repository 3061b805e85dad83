"""Plays the corpus against the domains' bundles, judges days of honest work, and writes `bench/results/detection.json`.

    python -m bench.detection.measure                     all domains
    python -m bench.detection.measure --domain mail       prints a domain's figures, and writes nothing

A domain that has no bundle yet is named and left out. Exit status 1: no domain has a bundle, one is refused, or does not fit what
it is played with.
"""

import argparse
import json
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from authz.bundle import compile_bundle, read_folder
from authz.engine import Plan, build_profile
from authz.errors import BundleError, BundleTestError
from authz.model import BundleFiles
from bench import machine
from bench.detection import figures, memory
from bench.detection.judge import NOW_MS, Answer, Judge, JudgeError
from bench.detection.reports import Reports
from bench.detection.scenario import DOMAINS, FOLDER, Scenario, digest, domain, scenarios
from bench.detection.simulate import Played, play
from bench.detection.static import static_part
from bench.detection.text_alone import authority
from bench.detection.world import CorpusError

ROOT: Final = FOLDER.parent.parent
RESULTS: Final = ROOT / "bench" / "results" / "detection.json"


Question = tuple[int, str, tuple[str, ...], str]
"""A task, an operation, what held it, and its authority arguments."""


@dataclass(frozen=True, slots=True)
class Run:
    """A scenario, played against a bundle.

    Attributes:
        scenario: the scenario.
        played: how it went.
        answers: what came of each step that was asked about.
        given_again: whether the user gave a task again that had ended by itself.
    """

    scenario: Scenario
    played: Played
    answers: tuple[Answer, ...]
    given_again: bool = False

    def refused(self, outcome: str) -> Iterator[Answer]:
        """Yields the steps of one outcome.

        Args:
            outcome: `DENY` or `STEP_UP`.
        """
        return (one for one in self.answers if one.outcome == outcome)

    def questions(self) -> set[Question]:
        """Returns what a person would be asked.

        Held steps of one task that have the same operation, policies and authority arguments are one question.
        """
        held = (one.held for one in self.answers)
        return {self._question(one) for one in held if one is not None}

    def _question(self, held: Answer) -> Question:
        asked = held.asked
        arguments = authority(self.scenario.domain, asked.operation, dict(asked.arguments))
        said = json.dumps(arguments, ensure_ascii=False)
        return asked.task, asked.operation, held.policies or (held.code,), said


def run(
    plan: Plan,
    scenario: Scenario,
    *,
    remember: bool = True,
    again: bool = True,
    careless: bool = False,
    reports: Reports | None = None,
) -> Run:
    """Plays a scenario against a bundle.

    Args:
        plan: the compiled bundle.
        scenario: the scenario.
        remember: if not, each step is judged as the first that anybody ever asked for.
        again: whether the user gives a task again that has ended by itself.
        careless: whether somebody agrees to every step that is held.
        reports: what the enforcer reports of executed steps; nothing, if it is left out.

    Returns:
        How it went.

    Raises:
        JudgeError: the bundle does not fit what it is played with.
    """
    judge = Judge(
        plan,
        domain(scenario.domain),
        scenario,
        remember=remember,
        again=again,
        careless=careless,
        reports=reports,
    )
    played = play(scenario, judge.decide, judge.report)
    return Run(scenario, played, tuple(judge.answers), judge.given_again)


def measure(name: str, bundle: BundleFiles, *, reported: bool = True) -> dict[str, Any]:
    """Plays all scenarios of a domain: with the bundle, with its static part, and each step alone.

    Args:
        name: of the domain.
        bundle: its bundle.
        reported: whether the enforcer reports values of results, as far as the bundle asks for them.

    Returns:
        Result of the step.

    Raises:
        BundleError: the bundle is refused, or a test of its own fails.
        CorpusError: a permit of it reads what was done before.
        JudgeError: it does not fit what it is played with.
    """
    whole = compile_bundle(bundle, {}, NOW_MS).plan
    static = Plan.compile(static_part(bundle), {}, now_ms=NOW_MS)
    hijacked, honest = scenarios(name, "hijacked"), scenarios(name, "honest")
    reports = (Reports.of(bundle) if reported else None) or None
    attacks = [run(whole, one, reports=reports) for one in hijacked]
    tasks = [run(whole, one, reports=reports) for one in honest]
    every = [*attacks, *tasks]
    # A play in another mode is the same one where nothing of that mode comes up in it.
    untold = [run(whole, one.scenario) for one in every] if reports else every
    reached = _ids(attacks)
    without = [one.id for one in hijacked if run(static, one, reports=reports).played.reached]
    alone = [one.id for one in hijacked if run(whole, one, remember=False).played.reached]
    approved = [
        run(whole, one.scenario, careless=True, reports=reports) if one.questions() else one
        for one in every
    ]
    ended = [
        run(whole, one.scenario, again=False, reports=reports) if one.given_again else one
        for one in every
    ]
    denied = [_step(one, answer) for one in tasks for answer in one.refused("DENY")]
    held = [_step(one, answer) for one in tasks for answer in one.refused("STEP_UP")]
    return {
        "domain": name,
        "bundle": whole.digest,
        "policies": whole.policy_count,
        "policies_without_history": static.policy_count,
        "attacks": len(attacks),
        "attacks_decidable": sum(one.scenario.text_alone is None for one in attacks),
        "attacks_undecidable": [one.id for one in hijacked if one.text_alone is not None],
        **_reached(attacks),
        "attacks_reached_without_history": len(without),
        "attacks_reached_each_step_alone": len(alone),
        "honest_tasks": len(tasks),
        "honest_steps": sum(len(one.scenario.steps) for one in tasks),
        "honest_steps_skipped": sum(len(one.played.skipped) for one in tasks),
        "step_ups": len(held),
        **_asked(tasks),
        "careless": {**_reached(approved), **_asked(approved), "reached": _ids(approved)},
        **({"without_reports": {**_reached(untold), **_asked(untold)}} if reported else {}),
        "tasks_end_for_good": {
            "attacks_reached": sum(not one.played.honest and one.played.reached for one in ended),
            "honest_steps_denied": sum(
                len(one.played.denied_steps) for one in ended if one.played.honest
            ),
        },
        "reached": reached,
        "classes": _classes(attacks),
        "stopped_without_history": [one.id for one in hijacked if one.id not in without],
        "honest_denied": denied,
        "honest_held": held,
        "refusals_of_attacks": _refusals(attacks),
    }


def _reached(runs: list[Run]) -> dict[str, int]:
    """Counts attacks that reach their goal: all, and those that a rule over calls can tell from an honest task."""
    reached = [one.scenario for one in runs if not one.played.honest and one.played.reached]
    return {
        "attacks_reached": len(reached),
        "attacks_reached_decidable": sum(one.text_alone is None for one in reached),
    }


def _asked(runs: list[Run]) -> dict[str, int]:
    """Counts honest tasks that are done or held, and the questions of their steps."""
    tasks = [one for one in runs if one.played.honest]
    questions = [one.questions() for one in tasks]
    return {
        "honest_reached": sum(one.played.reached for one in tasks),
        "honest_steps_denied": sum(len(list(one.refused("DENY"))) for one in tasks),
        "honest_tasks_held": sum(bool(one) for one in questions),
        "questions": sum(len(one) for one in questions),
    }


def _ids(runs: list[Run]) -> list[str]:
    return [one.scenario.id for one in runs if not one.played.honest and one.played.reached]


def _step(one: Run, answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = {
        "scenario": one.scenario.id,
        "step": answer.asked.number,
        "operation": answer.asked.operation,
        "code": answer.code,
        "policies": list(answer.policies),
    }
    if answer.kinds:
        found["kinds"] = list(answer.kinds)
    if not answer.policies:
        found["message"] = answer.message
    return found


def _classes(attacks: list[Run]) -> dict[str, dict[str, int]]:
    """Counts attacks by class; an attack may be of several."""
    found: dict[str, dict[str, int]] = {}
    for name in sorted({name for one in attacks for name in one.scenario.classes}):
        of = [one for one in attacks if name in one.scenario.classes]
        found[name] = {"attacks": len(of), "reached": sum(one.played.reached for one in of)}
    return found


def _refusals(attacks: list[Run]) -> dict[str, int]:
    """Counts what refused the attackers' steps, the most frequent first."""
    found: Counter[str] = Counter()
    for one in attacks:
        for answer in one.answers:
            if answer.outcome != "PERMIT":
                found.update(answer.policies or [answer.code])
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


class MeasureError(RuntimeError):
    """A bundle is refused, or does not fit what it is played with: a line for each defect."""


def _measured(
    folders: Mapping[str, Path], *, reported: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measures each domain, and days of honest work, on as many processors as there are."""
    # A fork has compiled nothing yet, and knows the folders that a test has set.
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=fork) as pool:
        days = pool.submit(_days, folders, reported=reported)
        plays = [pool.submit(_plays, one, at, reported=reported) for one, at in folders.items()]
        try:
            return [one.result() for one in plays], days.result()
        except MeasureError:
            pool.shutdown(cancel_futures=True)
            raise


def _plays(name: str, folder: Path, *, reported: bool) -> dict[str, Any]:
    with _told_of(name):
        return measure(name, read_folder(folder), reported=reported)


def _days(folders: Mapping[str, Path], *, reported: bool) -> dict[str, Any]:
    with _told_of("days"):
        bundles = {name: read_folder(folder) for name, folder in folders.items()}
        return memory.measure(bundles, reported=reported)


@contextmanager
def _told_of(what: str) -> Iterator[None]:
    """Makes defects of a bundle lines of text, which pass from one process to another."""
    try:
        yield
    except (BundleError, BundleTestError) as error:
        lines = [f"bench.detection: {what}: {one}" for one in error.diagnostics]
        raise MeasureError("\n".join(lines)) from None
    except (CorpusError, JudgeError) as error:
        raise MeasureError(f"bench.detection: {what}: {error}") from None


def main() -> int:
    """Measures, prints and writes.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench.detection.measure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--domain", action="append", choices=DOMAINS, help="only this one")
    parser.add_argument(
        "--without-reports",
        action="store_true",
        help="the enforcer reports nothing of what came of a call",
    )
    parser.add_argument("--results", type=Path, help="file for the results")
    arguments = parser.parse_args()
    names = arguments.domain or DOMAINS
    bundles = {}
    for name in names:
        folder = FOLDER / name / "bundle"
        if folder.is_dir():
            bundles[name] = folder
        else:
            print(f"bench.detection: {name} has no bundle yet ({folder})", file=sys.stderr)
    if not bundles:
        return 1
    try:
        domains, remembered = _measured(bundles, reported=not arguments.without_reports)
    except MeasureError as error:
        print(error, file=sys.stderr)
        return 1
    for found in domains:
        print("\n".join(figures.told(found)), end="\n\n")
    print("\n".join(figures.table(domains)), end="\n\n")
    print("\n".join(figures.questions_table(domains)), end="\n\n")
    print("\n".join(figures.memory_table(remembered)))
    file = arguments.results or (None if arguments.domain else RESULTS)
    if file is not None:
        facts = machine.facts(ROOT, build_profile())
        written = {
            "machine": facts,
            "corpus": digest(),
            **figures.total(domains),
            "memory": remembered,
            "domains": domains,
        }
        file.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")
        print(f"results: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
