"""Workflow commands of GitHub Actions: one line each, and inert."""

import json
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

from authz.cli import main
from authz.cli.render.github import (
    Annotation,
    AnnotationLevel,
    annotation_lines,
    diagnostic_annotations,
    repository_path,
)
from authz.model import Diagnostic, Severity

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "tests/data/sarif/sarif-schema-2.1.0.json").read_text())


def run(*arguments: str | Path) -> int:
    """Run the command and give its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


def test_an_annotation_is_one_line() -> None:
    """With the escapes of the runner."""
    one = Annotation(AnnotationLevel.ERROR, "50% of\nthis", "a: b, c", "x,y.yaml", 3, 7)

    assert list(annotation_lines([one])) == [
        "::error file=x%2Cy.yaml,line=3,col=7,title=a%3A b%2C c::50%25 of%0Athis"
    ]


def test_an_annotation_without_a_place_is_of_the_run() -> None:
    """A column needs a line."""
    lines = annotation_lines([Annotation(AnnotationLevel.NOTICE, "x", column=3)])

    assert list(lines) == ["::notice::x"]


def test_no_text_begins_a_command_of_its_own() -> None:
    """Nor changes the colours of the log."""
    text = "a\r\n::add-mask::b\x1b[31m\u202e"
    (line,) = annotation_lines([Annotation(AnnotationLevel.WARNING, text, title=text, file=text)])

    assert line.startswith("::warning file=")
    assert line.isprintable()
    assert "\n" not in line


def test_paths_are_those_of_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the folder is spelt as."""
    bundle = tmp_path / "repo" / "authz" / "bundle"
    bundle.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "repo")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "repo"))

    for folder in (bundle, Path("authz/bundle"), Path("./authz/../authz/bundle")):
        assert repository_path(folder, "tests/a.yaml") == "authz/bundle/tests/a.yaml"
    assert repository_path(Path("authz/bundle"), "authz/bundle/a.yaml") == "authz/bundle/a.yaml"
    monkeypatch.chdir(bundle)
    assert repository_path(Path(), "tests/a.yaml") == "authz/bundle/tests/a.yaml"
    assert repository_path(Path("/elsewhere"), "a.yaml") == "/elsewhere/a.yaml"


def test_diagnostics_are_annotations() -> None:
    """Errors and warnings, with the fix."""
    found = [
        Diagnostic("unknown role", "people.yaml", 3, 7, "Declare it."),
        Diagnostic("nobody", severity=Severity.WARNING, code="no-rule"),
    ]

    assert list(
        annotation_lines(diagnostic_annotations(found, Path("b"), title="authz check"))
    ) == [
        "::error file=b/people.yaml,line=3,col=7,title=authz check::unknown role Declare it.",
        "::warning title=authz check%3A no-rule::nobody",
    ]


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle with a warning, in a repository."""
    folder = tmp_path / "bundle"
    assert run("init", "--full", "--enforce", folder) == 0
    (folder / "spare.yaml").write_text("labels: {spare: {kind: confidentiality}}\n")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    return folder


def test_check_annotates_warnings(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At their lines, and prints nothing else that the runner could read."""
    capsys.readouterr()
    assert run("check", bundle, "--format", "github") == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(line.startswith("::warning file=bundle/") for line in lines)
    assert any("unyielded-label" in line and "spare.yaml,line=1" in line for line in lines)
    assert run("check", bundle, "--format", "github", "--strict") == 3


def test_check_annotates_errors(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And ends with 3, as without annotations."""
    (bundle / "broken.yaml").write_text("\nlables: {}\n")
    capsys.readouterr()

    assert run("check", bundle, "--format", "github") == 3
    said = capsys.readouterr()
    assert "::error file=bundle/broken.yaml,line=2" in said.out
    assert "bundle refused" in said.err


@pytest.mark.parametrize(("content", "code"), [("", 0), ("lables: {}\n", 3)])
def test_check_writes_sarif(
    bundle: Path, capsys: pytest.CaptureFixture[str], content: str, code: int
) -> None:
    """Also of a bundle that is not valid."""
    (bundle / "more.yaml").write_text(content or "labels: {more: {kind: trust}}\n")
    capsys.readouterr()

    assert run("check", bundle, "--format", "sarif") == code
    log = json.loads(capsys.readouterr().out)
    jsonschema.Draft7Validator(SCHEMA).validate(log)
    levels = {one["level"] for one in log["runs"][0]["results"]}
    assert levels == ({"error"} if code else {"warning"})


def test_check_does_not_know_another_format(bundle: Path) -> None:
    """Wrong use."""
    assert run("check", bundle, "--format", "xml") == 1
