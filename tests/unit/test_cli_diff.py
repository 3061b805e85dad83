"""`authz diff`: exit codes, and what it prints."""

import json
from pathlib import Path
from typing import Any

import pytest

from authz.cli import main
from tests.support.analysis import write_analyzer

REQUEST = {
    "principal": 'Agent::"bot"',
    "action": 'Action::"billing.pay"',
    "resource": 'System::"billing"',
    "context": {
        "input": {"amount": 100},
        "tier": 0,
        "session": {"labels": [{"__entity": {"type": "Label", "id": "pii\u001b[31m"}}]},
    },
    "any": ["tier"],
    "entities": [],
}
DIFFERENCE: dict[str, Any] = {
    "version": 1,
    "old": {"name": "desk", "digest": "a" * 64},
    "new": {"name": "desk", "digest": "b" * 64},
    "solver": {"name": "cvc5", "version": "1.4.2"},
    "verdict": "proved",
    "assumptions": ["The solver answers correctly."],
    "counts": {
        "operations": 4,
        "changed": 1,
        "questions": 3,
        "questions_cached": 0,
        "not_decided": 0,
    },
    "policies": {"added": [], "removed": [], "changed": ["pay"]},
    "operations": [
        {
            "operation": "billing.pay",
            "principal_type": "Agent",
            "verdict": "proved",
            "is_new": False,
            "reason": "",
            "permits": [],
            "denied_by": [],
            "request": None,
        }
    ],
    "facts": [],
}


def run(*arguments: str | Path) -> int:
    """Run the command and give its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle folder; a stand-in for the analyzer does not read it."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "bundle.yaml").write_text("name: desk\n")
    return folder


@pytest.fixture
def analyzer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a stand-in: `answer` is its output, `code` its exit code, `request` what it was asked."""
    program = write_analyzer(
        tmp_path,
        f"cd {tmp_path}\ncat > request\necho $1 > subcommand\n"
        "cat errors >&2 2>/dev/null\ncat answer\nexit $(cat code)\n",
    )
    (tmp_path / "code").write_text("0")
    (tmp_path / "errors").write_text("")
    (tmp_path / "answer").write_text(json.dumps(DIFFERENCE))
    monkeypatch.setenv("AUTHZ_ANALYZER", str(program))
    return tmp_path


def test_without_the_analyzer_the_command_says_what_to_build(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, and no answer."""
    monkeypatch.setenv("AUTHZ_ANALYZER", "/nonexistent/authz-analyze")
    assert run("diff", bundle, bundle) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "make analyzer" in err


@pytest.mark.parametrize("answer", ["", "{", "[]", "\udcff"])
def test_an_answer_that_is_not_a_json_object_is_an_error(
    analyzer: Path, bundle: Path, capfd: pytest.CaptureFixture[str], answer: str
) -> None:
    """Exit code 1, and nothing is called proved."""
    (analyzer / "answer").write_bytes(answer.encode(errors="surrogateescape"))
    assert run("diff", bundle, bundle) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "the output of the analyzer is not" in err


def newly_permitted() -> dict[str, Any]:
    """A document with a request."""
    row = {
        **DIFFERENCE["operations"][0],
        "verdict": "path_found",
        "permits": ["pay"],
        "denied_by": ["limit"],
        "request": REQUEST,
    }
    return {**DIFFERENCE, "verdict": "path_found", "operations": [row]}


def not_decided() -> dict[str, Any]:
    """A document with a changed fact."""
    fact = {"section": "roles", "name": "bots", "change": "changed", "effect": "its members"}
    return {**DIFFERENCE, "verdict": "not_decided", "facts": [fact]}


@pytest.mark.parametrize(
    ("document", "option", "code"),
    [
        (DIFFERENCE, [], 0),
        (DIFFERENCE, ["--fail-on", "not-proved"], 0),
        (newly_permitted(), [], 0),
        (newly_permitted(), ["--fail-on", "newly-permitted"], 2),
        (newly_permitted(), ["--fail-on", "not-proved"], 2),
        (not_decided(), ["--fail-on", "newly-permitted"], 0),
        (not_decided(), ["--fail-on", "not-proved"], 2),
        (DIFFERENCE, ["--fail-on", "tomato"], 1),
    ],
)
def test_the_exit_code_is_what_was_asked_for(
    analyzer: Path, bundle: Path, document: dict[str, Any], option: list[str], code: int
) -> None:
    """0 without `--fail-on`."""
    (analyzer / "answer").write_text(json.dumps(document))
    assert run("diff", bundle, bundle, *option) == code


def test_a_proof_is_printed_with_its_assumptions(
    analyzer: Path, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Never without them."""
    assert analyzer.is_dir()
    assert run("diff", bundle, bundle) == 0
    out = capfd.readouterr().out
    assert "Proved: nothing is newly permitted." in out
    assert "The solver answers correctly." in out
    assert "policies changed: pay" in out


def test_a_request_is_printed_without_control_characters(
    analyzer: Path, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A name in a bundle may try to write to the terminal."""
    (analyzer / "answer").write_text(json.dumps(newly_permitted()))
    assert run("diff", bundle, bundle) == 0
    out = capfd.readouterr().out
    assert "NEWLY PERMITTED: requests for 1 operation." in out
    assert "before: denied by limit" in out
    assert 'context.input: {"amount": 100}' in out
    assert "context.tier: any" in out
    assert "\u001b" not in out


def test_a_changed_fact_is_printed(
    analyzer: Path, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is called proved because of it."""
    (analyzer / "answer").write_text(json.dumps(not_decided()))
    assert run("diff", bundle, bundle) == 0
    out = capfd.readouterr().out
    assert "Not proved" in out
    assert "roles `bots` changed: its members" in out


def test_without_a_solver_nothing_is_printed_as_proved(
    analyzer: Path, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The reason is printed."""
    row = {
        **DIFFERENCE["operations"][0],
        "verdict": "not_decided",
        "reason": "no solver is used",
    }
    document = {**not_decided(), "solver": None, "operations": [row], "assumptions": []}
    (analyzer / "answer").write_text(json.dumps(document))
    assert run("diff", bundle, bundle, "--no-solver") == 0
    out = capfd.readouterr().out
    assert "Not proved: no solver answered." in out
    assert "not decided: billing.pay for Agent: no solver is used" in out
    assert json.loads((analyzer / "request").read_text())["options"]["solver"] == []


def test_json_has_a_member_for_each_section(
    analyzer: Path, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A program reads the document."""
    assert analyzer.is_dir()
    assert run("diff", bundle, bundle, "--format", "json") == 0
    assert json.loads(capfd.readouterr().out)["proof"] == DIFFERENCE


def test_markdown_has_no_markup_of_a_bundle(
    analyzer: Path, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is pasted into pull requests, where a policy id must be neither a link nor a mention."""
    document = newly_permitted()
    document["policies"] = {
        "added": ["@owner", "[x](https://evil.example)"],
        "removed": [],
        "changed": [],
    }
    (analyzer / "answer").write_text(json.dumps(document))
    assert run("diff", bundle, bundle, "--format", "markdown") == 0
    out = capfd.readouterr().out
    assert out.startswith("### Permissions: NEWLY PERMITTED: requests for 1 operation.\n")
    assert "  - context.tier: any" in out
    assert "@owner" not in out
    assert "](" not in out
    assert "https://" not in out


@pytest.mark.parametrize(
    ("style", "part"),
    [("text", "Proved: nothing"), ("json", '"verdict": "proved"'), ("markdown", "### Permissions")],
)
def test_the_report_goes_to_a_file(
    analyzer: Path, bundle: Path, capfd: pytest.CaptureFixture[str], style: str, part: str
) -> None:
    """Nothing of it is printed then."""
    file = analyzer / "report"
    assert run("diff", bundle, bundle, "--format", style, "--output", file) == 0
    assert capfd.readouterr().out == ""
    assert part in file.read_text()


def test_options_of_the_solver_reach_the_analyzer(analyzer: Path, bundle: Path) -> None:
    """Seconds become milliseconds."""
    options: list[str | Path] = ["--question-time-limit", "2.5", "--cache", analyzer / "cache"]
    assert run("diff", bundle, bundle, *options) == 0
    asked = json.loads((analyzer / "request").read_text())["options"]
    assert asked["question_limit_ms"] == 2_500
    assert asked["cache"] == str(analyzer / "cache")


@pytest.mark.parametrize(
    "option", [("--format", "csv"), ("--question-time-limit", "0"), ("--json",)]
)
def test_wrong_use_ends_with_1(analyzer: Path, bundle: Path, option: tuple[str, ...]) -> None:
    """The analyzer is not started."""
    assert run("diff", bundle, bundle, *option) == 1
    assert not (analyzer / "request").exists()
