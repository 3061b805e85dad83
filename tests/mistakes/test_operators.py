"""The rate at which `authz check` finds planted mistakes."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from authz.bundle import CheckFacts, check_bundle
from authz.errors import BundleError
from authz.model import BundleFiles, Diagnostic
from tests.mistakes.operators import OPERATORS, PlantedMistake

ROOT: Final = Path(__file__).parents[2]
BUNDLES: Final[Mapping[str, Path]] = {
    "quickstart": ROOT / "examples" / "quickstart" / "bundle",
    **{
        name: ROOT / "bench" / "detection" / name / "bundle"
        for name in ("mail", "banking", "chat", "code")
    },
}
CONFIGURED: Final = CheckFacts({"trust_domain": "dev.example"}, ("corp",), is_complete=True)
"""Facts of a configuration that fits all the bundles."""
NOT_APPLICABLE: Final = {("nobody_starts", "quickstart")}
"""Agents of the quickstart work without tasks, so nobody starts one."""


@cache
def texts(name: str) -> Mapping[str, str]:
    """Return the files of a bundle."""
    folder = BUNDLES[name]
    files = (
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".yaml", ".cedar", ".csv", ".txt")
    )
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def check(files: Mapping[str, str], variables: Sequence[str] = ()) -> list[Diagnostic]:
    """Return what `authz check` says of a bundle: with a configuration, or with `--var`."""
    bundle = BundleFiles("bundle", {path: text.encode() for path, text in files.items()})
    given = dict(text.split("=", 1) for text in variables)
    facts = CheckFacts(given) if given else CONFIGURED
    try:
        return list(check_bundle(bundle, facts).warnings)
    except BundleError as error:
        return list(error.diagnostics)


def names_mistake(found: Diagnostic, mistake: PlantedMistake) -> bool:
    """Return whether a message has the words of the mistake, and one of its places."""
    text = str(found)
    return f"{found.file}:{found.line}" in mistake.places and all(
        word in text for word in mistake.words
    )


@pytest.mark.parametrize("name", BUNDLES)
def test_bundle_without_mistakes_has_no_warning(name: str) -> None:
    """A warning about a bundle that is right would teach people to ignore warnings."""
    assert check(texts(name)) == []


def test_rate_of_each_operator(capsys: pytest.CaptureFixture[str]) -> None:
    """Each operator plants its mistake in each bundle, and `authz check` names word and place."""
    planted: Counter[str] = Counter()
    found: Counter[str] = Counter()
    missed: list[str] = []
    for name in BUNDLES:
        for operator, plant in OPERATORS.items():
            mistakes = list(plant(texts(name)))
            assert mistakes or (operator, name) in NOT_APPLICABLE, (operator, name)
            for mistake in mistakes:
                assert any(texts(name).get(path) != new for path, new in mistake.files.items())
                planted[operator] += 1
                messages = check({**texts(name), **mistake.files}, mistake.variables)
                if any(names_mistake(message, mistake) for message in messages):
                    found[operator] += 1
                else:
                    said = "; ".join(map(str, messages)) or "nothing"
                    missed.append(f"{operator} in {name}, {mistake.words}: {said[:300]}")
    rows = [f"  {name:28} {found[name]:3} of {count:3}" for name, count in planted.items()]
    head = f"planted mistakes found: {found.total()} of {planted.total()}"
    with capsys.disabled():
        sys.stdout.write("\n".join(["", head, *rows, ""]))
    assert found.total() >= LEAST_FOUND, "\n".join(missed)


LEAST_FOUND: Final = 140
"""Mistakes that `authz check` finds at least."""
