"""`authz check --fix`: misspelt names are corrected, and nothing else changes."""

import shutil
from pathlib import Path
from typing import Final

import pytest

from authz.bundle.corrections import corrected
from authz.cli import main
from authz.model import Diagnostic

QUICKSTART: Final = Path(__file__).parents[2] / "examples" / "quickstart" / "bundle"
MISSPELT: Final = (
    ("people.yaml", "contains:", "contain:"),
    ("tasks.yaml", "tier_cap: high", "tier_cap: hihg"),
    ("meaning.yaml", "yields: [untrusted]", "yields: [untrustd]"),
    ("history.yaml", "of: crm.get", "of: crm.gett"),
    ("policies/support.cedar", 'Role::"staff"', 'Role::"stafff"'),
    ("policies/guard.cedar", "context.input.amount", "context.input.amout"),
)


def run(*words: str) -> int:
    """Run the command, and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["check", *words, "--var", "trust_domain=dev.example"])
    return int(ended.value.code or 0)


def test_misspelt_names_are_corrected_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several files, errors that hide others, comments kept: the bundle is byte for byte the one before."""
    folder = tmp_path / "bundle"
    shutil.copytree(QUICKSTART, folder)
    for file, right, wrong in MISSPELT:
        path = folder / file
        text = path.read_text()
        assert right in text
        path.write_text(text.replace(right, wrong, 1))
    assert run(str(folder)) == 3
    capsys.readouterr()
    assert run(str(folder), "--fix") == 0
    out = capsys.readouterr().out
    for path in QUICKSTART.rglob("*"):
        if path.is_file():
            assert (folder / path.relative_to(QUICKSTART)).read_bytes() == path.read_bytes(), path
    for file, _right, _wrong in MISSPELT:
        assert f"--- a/{file}" in out
    assert "-  staff: {issuer: corp, claim: groups, contain: employees}" in out
    assert "+  staff: {issuer: corp, claim: groups, contains: employees}" in out


def test_an_error_without_a_guess_is_left_alone(tmp_path: Path) -> None:
    """A name that resembles none stays, and the check still fails."""
    folder = tmp_path / "bundle"
    shutil.copytree(QUICKSTART, folder)
    path = folder / "tasks.yaml"
    path.write_text(path.read_text().replace("{system: gmail}", "{system: warehouse}"))
    before = path.read_bytes()
    assert run(str(folder), "--fix") == 3
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "column", "expected"),
    [
        (b"a: [pi, pii]", 5, b"a: [pii, pii]"),
        (b"a: [pipi, pi] # pi", 5, b"a: [pipi, pii] # pi"),
        (b"pi-x: pi", 1, b"pi-x: pii"),
        (b"a: x", 4, None),
        ("ä: pi # ü".encode(), 4, "ä: pii # ü".encode()),
    ],
)
def test_only_the_whole_word_at_the_place_changes(
    line: bytes, column: int, expected: bytes | None
) -> None:
    """Neither a part of a word nor a word before the place."""
    found = Diagnostic("x", "f.yaml", 1, column, replacement=("pi", "pii"))
    changed = corrected({"f.yaml": line}, [found])
    assert changed.get("f.yaml") == expected


def test_two_words_of_one_line_are_both_corrected() -> None:
    """The correction of one does not move the place of the other."""
    line = b"a: [pi, secrt]"
    found = [
        Diagnostic("x", "f.yaml", 1, 5, replacement=("pi", "personal")),
        Diagnostic("y", "f.yaml", 1, 9, replacement=("secrt", "secret")),
    ]
    assert corrected({"f.yaml": line}, found) == {"f.yaml": b"a: [personal, secret]"}


def test_two_diagnostics_about_one_word_correct_it_once() -> None:
    """A second correction would reach the next word like it, which may be meant."""
    one = Diagnostic("unknown", "a.yaml", 1, 1, replacement=("stafff", "staff"))
    other = Diagnostic("no such role", "a.yaml", 1, 1, replacement=("stafff", "staff"))
    changed = corrected({"a.yaml": b"stafff stafff"}, [one, other])
    assert changed == {"a.yaml": b"staff stafff"}
