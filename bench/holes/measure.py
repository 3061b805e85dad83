"""Opens bundles with small changes, asks `authz analyze` about each, and writes `bench/results/holes.json`.

    python -m bench.holes.measure --write                 every operator in every bundle
    python -m bench.holes.measure --operator drop-forbid  one operator; prints, and writes nothing
    python -m bench.holes.measure --misses                also prints each change that no finding shows

Exit status 1: a bundle cannot be read or analysed as it is, or an operator or bundle is not known.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any, Final

from ruamel.yaml import YAML

from authz.bundle import read_folder, read_results
from authz.cli.options import offline_variables
from authz.engine import Plan, build_profile
from authz.errors import BundleError
from authz.model import BundleFiles
from bench import machine
from bench.holes.analyzer import Analyzer, AnalyzerError, Comparison, Finding, new_findings
from bench.holes.draft import Draft, DraftError
from bench.holes.operators import OPERATORS, Operator

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = ROOT / "bench" / "results" / "holes.json"
ASSERTIONS: Final = Path(__file__).with_name("assertions.yaml")
_ASSERTIONS_FILE: Final = "bench-assertions.yaml"


class HolesError(RuntimeError):
    """Nothing can be measured."""


class Answer(StrEnum):
    """How the analyzer answered about one change."""

    FOUND = "found"
    """A new finding has a rule that the operator expects; of a harmless change, any."""
    OTHERWISE = "found by another rule"
    """There is a new finding, of other rules only."""
    NOT_DECIDED = "not decided"
    """All new findings are questions that are open."""
    NOTHING = "opens nothing"
    """There is no new finding, and `authz diff` proves that nothing is newly permitted."""
    MISSED = "missed"
    """There is no new finding."""
    FAILED = "failed"
    """The analyzer gave no report."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one bundle that `authz check` accepts.

    Attributes:
        operator: name of the operator.
        bundle: name of the bundle.
        file: changed file.
        subject: changed thing.
        note: the change.
        answer: answer of the analyzer.
        rules: rules of the new findings that are decided.
        difference: answer of `authz diff`.
        found_by_tests: whether a test of the bundle itself fails.
        seconds: time of the analysis.
        message: message of the first new finding, or of the failure.
    """

    operator: str
    bundle: str
    file: str
    subject: str
    note: str
    answer: Answer
    rules: tuple[str, ...]
    difference: Comparison
    found_by_tests: bool
    seconds: float
    message: str = ""

    @property
    def is_listed(self) -> bool:
        """Whether `authz diff` shows a request that is newly permitted, or lists a changed fact."""
        return self.difference.has_request or self.difference.changed_facts > 0


@dataclass(frozen=True, slots=True)
class Target:
    """A realistic bundle, and the analyzer's findings about it as it is.

    Attributes:
        draft: facts and policies.
        bundle: files, with the assertions.
        variables: values of `${…}`.
        findings: findings of the bundle as it is, by id.
        seconds: time of the analysis.
    """

    draft: Draft
    bundle: BundleFiles
    variables: Mapping[str, str]
    findings: Mapping[str, Finding]
    seconds: float


@dataclass(slots=True)
class Tally:
    """The changes of one operator.

    Attributes:
        operator: the operator.
        mutants: changes that were analysed.
        refused: changes that `authz check` refuses, and so nobody can deploy.
    """

    operator: Operator
    mutants: list[Mutant] = field(default_factory=list)
    refused: int = 0

    def count(self, answer: Answer) -> int:
        """Return the number of changes with an answer."""
        return sum(one.answer is answer for one in self.mutants)

    def document(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "operator": self.operator.name,
            "thought": self.operator.thought,
            "rules": list(self.operator.rules),
            "is_hole": self.operator.is_hole,
            "changes": len(self.mutants),
            "refused": self.refused,
            "found_by_tests": sum(one.found_by_tests for one in self.mutants),
            "found_by_diff": sum(one.difference.has_request for one in self.mutants),
            "listed_by_diff": sum(one.is_listed for one in self.mutants),
            **{answer.name.lower(): self.count(answer) for answer in Answer},
            "mutants": [asdict(one) for one in self.mutants],
        }


def folders() -> dict[str, Path]:
    """Return the folder of each realistic bundle by its name."""
    found = {
        "quickstart": ROOT / "examples" / "quickstart" / "bundle",
        "company": ROOT / "examples" / "company",
    }
    for recipe in sorted((ROOT / "examples" / "cookbook").iterdir()):
        if recipe.is_dir():
            found[f"cookbook/{recipe.name}"] = recipe
    for corpus in sorted((ROOT / "bench" / "detection").glob("*/bundle")):
        found[f"detection/{corpus.parent.name}"] = corpus
    return found


def assertions(name: str) -> bytes | None:
    """Return the file of assertions of a bundle; `None` if the bundle has no assertions."""
    listed = YAML(typ="safe").load(ASSERTIONS.read_bytes()).get(name)
    if listed is None:
        return None
    return json.dumps({"analysis": {"assertions": listed}}).encode()


def read_target(name: str, folder: Path, analyzer: Analyzer, *, asserted: bool = True) -> Target:
    """Read a bundle and analyse it as it is.

    Args:
        name: name of the bundle.
        folder: folder of the bundle.
        analyzer: the analyzer.
        asserted: whether the bundle gets its assertions.

    Raises:
        HolesError: The bundle is not valid, its tests fail, or it cannot be analysed.
    """
    try:
        bundle = read_folder(folder)
        added = assertions(name) if asserted else None
        if added is not None:
            bundle = replace(bundle, files={**bundle.files, _ASSERTIONS_FILE: added})
        variables = offline_variables(bundle, None, lambda _: None)
        plan = Plan.compile(bundle, variables)
        draft = Draft.of(name, bundle.files)
        failed = read_results(plan.test(bundle, _now_ms())).failed
    except (BundleError, DraftError) as error:
        raise HolesError(f"{name}: {error}") from error
    if failed:
        raise HolesError(f"{name}: {failed} of its tests fail as it is")
    began = time.monotonic()
    try:
        findings = _analysed(analyzer, bundle.files, variables)
    except AnalyzerError as error:
        raise HolesError(f"{name}: {error}") from error
    return Target(draft, bundle, variables, findings, round(time.monotonic() - began, 2))


def places(
    operator: Operator, targets: list[Target], seed: int, first: str | None = None
) -> Iterator[tuple[Target, int]]:
    """Yield bundles and indexes of sites in random order, one site of each bundle after the other.

    The order depends on nothing but the arguments.

    Args:
        operator: the operator.
        targets: the bundles.
        seed: seed of the order.
        first: bundle whose sites stand before those of the others in each turn.
    """
    shuffled: list[tuple[Target, list[int]]] = []
    for target in targets:
        indexes = list(range(sum(1 for _ in operator.sites(target.draft.copy()))))
        Random(f"{seed}/{operator.name}/{target.draft.name}").shuffle(indexes)
        if indexes:
            shuffled.append((target, indexes))
    Random(f"{seed}/{operator.name}").shuffle(shuffled)
    shuffled.sort(key=lambda one: one[0].draft.name != first)
    for turn in range(max((len(indexes) for _, indexes in shuffled), default=0)):
        for target, indexes in shuffled:
            if turn < len(indexes):
                yield target, indexes[turn]


def measure(
    operator: Operator,
    targets: list[Target],
    analyzer: Analyzer,
    *,
    seed: int,
    most: int,
    first: str | None = None,
) -> Tally:
    """Make changes of one operator, and ask the analyzer about each.

    Args:
        operator: the operator.
        targets: the bundles.
        analyzer: the analyzer.
        seed: seed of the choice of places.
        most: largest number of changes.
        first: bundle that is changed before the others.
    """
    tally = Tally(operator)
    for target, index in places(operator, targets, seed, first):
        if len(tally.mutants) == most:
            break
        mutant = _mutant(operator, target, index, analyzer)
        if mutant is None:
            tally.refused += 1
        else:
            tally.mutants.append(mutant)
    return tally


def answer_of(operator: Operator, new: list[Finding], difference: Comparison) -> Answer:
    """Tell how new findings and the comparison answer a change of an operator."""
    decided = [one for one in new if one.is_decided]
    if any(one.family in operator.rules or not operator.is_hole for one in decided):
        return Answer.FOUND
    if decided:
        return Answer.OTHERWISE
    if new:
        return Answer.NOT_DECIDED
    return Answer.NOTHING if difference.verdict == "proved" else Answer.MISSED


def _mutant(operator: Operator, target: Target, index: int, analyzer: Analyzer) -> Mutant | None:
    """Return one change with the answer about it; None if `authz check` refuses the changed bundle."""
    draft = target.draft.copy()
    site = list(operator.sites(draft))[index]
    site.change()
    bundle = replace(target.bundle, files=draft.rendered(target.draft))
    try:
        plan = Plan.compile(bundle, target.variables)
    except BundleError:
        return None
    by_tests = read_results(plan.test(bundle, _now_ms())).failed > 0
    began = time.monotonic()
    new: list[Finding] = []
    difference = Comparison()
    try:
        after = _analysed(analyzer, bundle.files, target.variables)
        new = new_findings(target.findings, after)
        with _written(target.bundle.files) as before, _written(bundle.files) as changed:
            difference = analyzer.compare(before, changed, target.variables)
        answer = answer_of(operator, new, difference)
        message = new[0].message if new else ""
    except AnalyzerError as error:
        answer, message = Answer.FAILED, str(error)
    return Mutant(
        operator.name,
        target.draft.name,
        site.file,
        site.subject,
        site.note,
        answer,
        tuple(sorted({one.rule for one in new if one.is_decided})),
        difference,
        by_tests,
        round(time.monotonic() - began, 2),
        message,
    )


def _analysed(
    analyzer: Analyzer, files: Mapping[str, bytes], variables: Mapping[str, str]
) -> dict[str, Finding]:
    with _written(files) as folder:
        return analyzer.findings(folder, variables)


@contextmanager
def _written(files: Mapping[str, bytes]) -> Iterator[Path]:
    """Yields a folder with these files."""
    with tempfile.TemporaryDirectory(prefix="authz-holes-") as folder:
        for path, content in files.items():
            file = Path(folder) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        yield Path(folder)


def _now_ms() -> int:
    return int(time.time() * 1000)


def document(tallies: list[Tally], targets: list[Target], seed: int) -> dict[str, Any]:
    """Return the results, without the machine."""
    mutants = [one for tally in tallies if tally.operator.is_hole for one in tally.mutants]
    harmless = [one for tally in tallies if not tally.operator.is_hole for one in tally.mutants]
    return {
        "seed": seed,
        "bundles": [
            {
                "bundle": one.draft.name,
                "findings": sum(finding.is_decided for finding in one.findings.values()),
                "not_decided": sum(not finding.is_decided for finding in one.findings.values()),
                "seconds": one.seconds,
            }
            for one in targets
        ],
        "changes": len(mutants),
        **{answer.name.lower(): sum(one.answer is answer for one in mutants) for answer in Answer},
        "found_by_tests": sum(one.found_by_tests for one in mutants),
        "found_by_diff": sum(one.difference.has_request for one in mutants),
        "listed_by_diff": sum(one.is_listed for one in mutants),
        "harmless": len(harmless),
        "false_alarms": sum(one.answer is Answer.FOUND for one in harmless),
        "false_alarms_of_diff": sum(one.difference.has_request for one in harmless),
        "operators": [one.document() for one in tallies],
    }


def main() -> int:
    """Measures, and writes or prints the results.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.holes.measure", description=__doc__)
    parser.add_argument("--operator", action="append", help="one operator; repeatable")
    parser.add_argument("--bundle", action="append", help="one bundle; repeatable")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most", type=int, default=5, help="changes of each operator")
    parser.add_argument("--first", help="bundle that each operator changes before the others")
    parser.add_argument("--processes", type=int, default=1, help="analyses that run at once")
    parser.add_argument("--misses", action="store_true", help="print each change without finding")
    parser.add_argument("--without-assertions", action="store_true")
    parser.add_argument("--write", action="store_true", help="write bench/results/holes.json")
    parser.add_argument("--analyzer", help="another command than `authz analyze --format json`")
    with tempfile.TemporaryDirectory(prefix="authz-answers-") as cache:
        return _run(parser.parse_args(), cache)


def _run(arguments: argparse.Namespace, cache: str) -> int:
    authz = [sys.executable, "-m", "authz"]
    analyzer = Analyzer(
        [*authz, "analyze", "--format", "json", "--cache", cache],
        [*authz, "diff", "--format", "json", "--cache", cache],
    )
    if arguments.analyzer:
        analyzer = Analyzer(arguments.analyzer.split())
    # The work is done by processes of the command: a thread waits for each of them.
    with ThreadPoolExecutor(arguments.processes) as pool:

        def target(name: str) -> Target:
            return read_target(
                name, known[name], analyzer, asserted=not arguments.without_assertions
            )

        def tally(operator: Operator) -> Tally:
            return measure(
                operator,
                targets,
                analyzer,
                seed=arguments.seed,
                most=arguments.most,
                first=arguments.first,
            )

        try:
            chosen = _chosen(arguments.operator, [one.name for one in OPERATORS], "operator")
            known = folders()
            targets = list(pool.map(target, _chosen(arguments.bundle, list(known), "bundle")))
        except HolesError as error:
            print(f"bench.holes: {error}", file=sys.stderr)
            return 1
        tallies = []
        for one in pool.map(tally, (one for one in OPERATORS if one.name in chosen)):
            tallies.append(one)
            _print(one, misses=arguments.misses)
    if arguments.write:
        facts = machine.facts(ROOT, build_profile())
        written = {
            "machine": facts,
            "most": arguments.most,
            "first": arguments.first,
            **document(tallies, targets, arguments.seed),
        }
        RESULTS.write_text(json.dumps(written, indent=1) + "\n")
    return 0


def _chosen(wanted: list[str] | None, known: list[str], kind: str) -> list[str]:
    if wanted is None:
        return known
    if unknown := sorted(set(wanted) - set(known)):
        raise HolesError(f"no such {kind}: {', '.join(unknown)}")
    return wanted


def _print(tally: Tally, *, misses: bool) -> None:
    counts = ", ".join(f"{tally.count(one)} {one}" for one in Answer if tally.count(one))
    tests = sum(one.found_by_tests for one in tally.mutants)
    print(
        f"{tally.operator.name:32} {len(tally.mutants)} changes: {counts or 'none'}; {tests} by tests",
        flush=True,
    )
    for one in tally.mutants if misses else ():
        if one.answer not in (Answer.FOUND, Answer.OTHERWISE):
            shown = "; shown by diff" if one.difference.has_request else ""
            place = f"{one.bundle} {one.file} {one.subject}"
            print(f"    {one.answer}{shown}: {place}: {one.note} {one.message}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
