"""The solver process, and the search for the analyzer."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz import __version__
from authz.analysis import executable, solver
from authz.analysis.executable import (
    AnalysisOptions,
    AnalyzerBundle,
    check_analyzer_version,
    find_analyzer,
    run_analyzer,
)
from authz.errors import BundleError, UsageError
from authz.model import BundleFiles
from tests.support.analysis import write_analyzer

ROOT = Path(__file__).parents[2]
ANSWER = {"version": 1, "verdict": "proved"}


def solve(text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the solver process over a text."""
    command = [sys.executable, "-m", "authz.analysis.solver", *options]
    return subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, cwd=ROOT, timeout=100
    )


def split(*lines: str) -> list[str]:
    """Commands of some lines."""
    return list(solver.commands(iter(lines)))


# --- the solver


def test_a_command_ends_where_its_brackets_close() -> None:
    """A command may span lines, and a line may have several."""
    assert split("(assert\n", "  (= a b))\n", "(check-sat)\n") == [
        "(assert\n  (= a b))\n",
        "(check-sat)\n",
    ]
    assert split("(push) (pop)\n") == ["(push) (pop)\n"]
    assert split("\n", "; a comment (\n") == ["; a comment (\n"]


@pytest.mark.parametrize(
    "command",
    [
        '(assert (= a "(("))\n',
        "(assert |a ) b|)\n",
        "(assert a) ; ((\n",
        '(assert (= a "a ""(quoted"" b"))\n',
    ],
)
def test_brackets_in_quotes_and_comments_do_not_count(command: str) -> None:
    """Texts of policies may have any bracket."""
    assert split(command, "(check-sat)\n") == [command, "(check-sat)\n"]


def test_a_quote_may_span_lines() -> None:
    """A string with a line feed."""
    assert split('(assert "a (\n', 'b)")\n', "(exit)\n") == ['(assert "a (\nb)")\n', "(exit)\n"]


def test_commands_are_joined_up_to_a_question() -> None:
    """A reset stands alone, since it makes a new parser."""
    given = [
        "(assert a)\n",
        "(check-sat)\n",
        "(get-model)\n",
        "(assert b)\n",
        "(reset)\n",
        "(pop)\n",
    ]
    assert list(solver.batches(iter(given))) == [
        "(assert a)\n(check-sat)\n",
        "(get-model)\n",
        "(assert b)\n",
        "(reset)",
        "(pop)\n",
    ]


def test_a_question_that_never_comes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process does not keep commands without a bound."""
    monkeypatch.setattr(solver, "MAX_COMMAND_BYTES", 100)
    with pytest.raises(solver.CommandTooLongError):
        list(solver.batches(iter(["(assert a)\n"] * 50)))


def test_a_command_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process does not keep text without a bound."""
    monkeypatch.setattr(solver, "MAX_COMMAND_BYTES", 100)

    def endless() -> Iterator[str]:
        while True:
            yield "(assert\n"

    with pytest.raises(solver.CommandTooLongError):
        list(solver.commands(endless()))


def test_the_process_answers_question_after_question() -> None:
    """Each question begins with a reset, and declares anew."""
    question = "(reset)\n(set-logic ALL)\n(declare-const x Int)\n(assert (> x {}))\n(assert (< x 3))\n(check-sat)\n"
    answer = solve(question.format(1) + question.format(3) + question.format(1))
    assert answer.stdout.split() == ["sat", "unsat", "sat"]
    assert answer.returncode == 0


def test_the_process_ends_after_an_error() -> None:
    """An answer after it would be one to another question than the reader expects."""
    answer = solve("(set-logic ALL)\n(assert tomato)\n(check-sat)\n")
    assert answer.stdout.startswith('(error "')
    assert "sat" not in answer.stdout.replace("tomato", "").split()
    assert answer.returncode == 1


def test_a_hard_question_is_given_up() -> None:
    """The factors of a product of two primes, as integers without bounds."""
    hard = (
        "(set-logic ALL)\n(declare-const x Int)\n(declare-const y Int)\n(declare-const z Int)\n"
        "(assert (> x 1))\n(assert (> y 1))\n(assert (> z 1))\n"
        "(assert (= (+ (* x x x) (* y y y)) (* z z z)))\n(check-sat)\n"
    )
    answer = solve(hard, "--limit-ms", "50")
    assert answer.stdout.split() == ["unknown"]


def test_the_process_tells_its_version() -> None:
    """The digest of a kept answer has it."""
    answer = solve("", "--version")
    name, version = answer.stdout.split()
    assert (name, version.split(".")[0]) == ("cvc5", "1")


def test_without_cvc5_the_process_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is optional."""
    monkeypatch.setitem(sys.modules, "cvc5", None)
    assert solver.main(["--version"]) == 3


# --- the analyzer


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
    (tmp_path / "answer").write_text(json.dumps(ANSWER))
    monkeypatch.setenv("AUTHZ_ANALYZER", str(program))
    return tmp_path


def test_the_analyzer_is_named_by_the_environment(analyzer: Path) -> None:
    """First of all places."""
    assert find_analyzer() == analyzer / "authz-analyze"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Folders in which the analyzer is looked for, in the order of the search. They are empty."""
    folders = {name: tmp_path / name / "bin" for name in ("package", "scripts", "user", "path")}
    for folder in folders.values():
        folder.mkdir(parents=True)

    def script_folder(name: str, scheme: str = "venv") -> str:
        assert name == "scripts"
        return str(folders["user" if scheme.endswith("_user") else "scripts"])

    monkeypatch.delenv("AUTHZ_ANALYZER", raising=False)
    monkeypatch.setattr(executable, "__file__", str(tmp_path / "package/analysis/executable.py"))
    monkeypatch.setattr("sysconfig.get_path", script_folder)
    monkeypatch.setattr("site.ENABLE_USER_SITE", True)
    monkeypatch.setenv("PATH", str(folders["path"]))
    return folders


def test_the_analyzer_is_looked_for_in_four_places(places: dict[str, Path]) -> None:
    """Built in the clone, of this Python, of the user's packages, on PATH."""
    programs = [write_analyzer(folder, "") for folder in places.values()]
    for program in programs:
        assert find_analyzer() == program
        program.unlink()
    with pytest.raises(UsageError, match="not installed"):
        find_analyzer()


def test_an_interpreter_without_packages_of_the_user_runs_no_program_of_theirs(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a virtual environment."""
    write_analyzer(places["user"], "")
    monkeypatch.setattr("site.ENABLE_USER_SITE", False)
    with pytest.raises(UsageError, match="not installed"):
        find_analyzer()


def test_a_path_in_the_environment_is_not_replaced(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A named analyzer that is missing is an error, though another one is installed."""
    write_analyzer(places["scripts"], "")
    monkeypatch.setenv("AUTHZ_ANALYZER", "/nonexistent/authz-analyze")
    with pytest.raises(UsageError, match="AUTHZ_ANALYZER=/nonexistent") as raised:
        find_analyzer()
    assert "make analyzer" in str(raised.value)
    assert f"pip install 'authz-runtime[analyze]=={__version__}'" in str(raised.value)


def test_an_analyzer_of_another_version_is_not_run(analyzer: Path, tmp_path: Path) -> None:
    """Both versions and the fix are in the error, and the analyzer gets no request."""
    check_analyzer_version(analyzer / "authz-analyze")
    write_analyzer(tmp_path, f"cat > {tmp_path}/request", version="0.0.9")
    with pytest.raises(UsageError, match=r"version 0\.0\.9") as raised:
        run_analyzer("analyze", {}, AnalysisOptions(now_ms=7))
    assert f"authz has version {__version__}" in str(raised.value)
    assert "pip install 'authz-runtime[analyze]==" in str(raised.value)
    assert not (tmp_path / "request").exists()


@pytest.mark.parametrize(
    "script",
    ["#!/bin/sh\nexit 2\n", "#!/bin/sh\n", "#!/bin/sh\necho other 1.0\n", "#!/nonexistent\n"],
)
def test_a_program_that_does_not_print_its_version_is_not_run(analyzer: Path, script: str) -> None:
    """Another program, or one of another processor."""
    (analyzer / "authz-analyze").write_text(script)
    with pytest.raises(UsageError, match=r"does not print its version|does not run"):
        run_analyzer("analyze", {}, AnalysisOptions(now_ms=7))


def test_the_request_has_the_files_and_the_options(analyzer: Path) -> None:
    """Files are Base64, since a file need not be text."""
    files = AnalyzerBundle(BundleFiles("b", {"a.yaml": b"\xff"}), {"x": "y"})
    options = AnalysisOptions(now_ms=7, question_limit_ms=5, jobs=3, extra={"deep": True})
    assert json.loads(run_analyzer("diff", {"old": files, "new": files}, options)) == ANSWER
    request = json.loads((analyzer / "request").read_text())
    assert request["old"] == {"files": {"a.yaml": "/w=="}, "vars": {"x": "y"}}
    assert request["options"] == {
        "now_ms": 7,
        "solver": [sys.executable, "-m", "authz.analysis.solver"],
        "question_limit_ms": 5,
        "cache": None,
        "jobs": 3,
        "deep": True,
    }
    assert (analyzer / "subcommand").read_text() == "diff\n"


def test_a_bundle_that_does_not_compile_is_refused(analyzer: Path) -> None:
    """With the diagnostics of the bundle."""
    row = {"what": "no", "file": "a.yaml", "line": 3, "column": 1, "fix": "Do."}
    (analyzer / "code").write_text("3")
    (analyzer / "errors").write_text(json.dumps(row) + "\n")
    files = AnalyzerBundle(BundleFiles("b", {}))
    with pytest.raises(BundleError, match=r"a\.yaml:3:1: no\. Do\."):
        run_analyzer("diff", {"old": files, "new": files}, AnalysisOptions(now_ms=0))


def test_an_analyzer_that_fails_is_an_error(analyzer: Path) -> None:
    """Its last words are in the message."""
    (analyzer / "code").write_text("1")
    (analyzer / "errors").write_text("the working thread ended early\n")
    files = AnalyzerBundle(BundleFiles("b", {}))
    with pytest.raises(UsageError, match="the working thread ended early"):
        run_analyzer("diff", {"old": files, "new": files}, AnalysisOptions(now_ms=0))
