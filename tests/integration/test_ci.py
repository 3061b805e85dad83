"""The GitHub Action and the pre-commit hooks, run without network on a repository with a bundle.

The scripts of the action are those of `action.yml`, with the variables that GitHub's runner sets. The verbs are real; the analyzer prints a recorded
report.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from tests.support.analysis import finding, report_bytes, write_analyzer

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "deploy/github-action"
SCHEMA = json.loads((ROOT / "tests/data/sarif/sarif-schema-2.1.0.json").read_text())
BIN = Path(sys.executable).parent
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")

pytestmark = pytest.mark.skipif(
    not all(shutil.which(name) for name in ("bash", "git", "tar")), reason="needs bash, git and tar"
)


def _action() -> dict[str, Any]:
    action: dict[str, Any] = yaml.safe_load((ACTION / "action.yml").read_text())
    return action


def _git(folder: Path, *words: str) -> str:
    identity = [
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@corp.example",
        "-c",
        "commit.gpgsign=false",
    ]
    command = ["git", *identity, "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@dataclass
class Repository:
    """A repository with a bundle in `policy/bundle`, an origin with a branch `main`, and an analyzer that prints a recorded report."""

    folder: Path
    analyzer: Path
    environment: dict[str, str]

    @property
    def bundle(self) -> Path:
        """Folder of the bundle."""
        return self.folder / "policy/bundle"

    def record(self, *findings: dict[str, Any], **members: Any) -> None:
        """Let the analyzer report these findings."""
        (self.analyzer / "report.json").write_bytes(report_bytes(*findings, **members))

    def run(self, command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command at the root of the repository."""
        environment = {**self.environment, **more}
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository of a user, with a copy of the bundle of the quickstart."""
    folder, analyzer = tmp_path / "repository", tmp_path / "analyzer"
    shutil.copytree(ROOT / "examples/quickstart/bundle", folder / "policy/bundle")
    analyzer.mkdir()
    program = write_analyzer(analyzer, f"cat >/dev/null\ncat '{analyzer / 'report.json'}'\n")
    _git(tmp_path, "init", "--quiet", "--initial-branch=main", str(folder))
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message=bundle")
    _git(tmp_path, "clone", "--quiet", "--bare", str(folder), str(tmp_path / "origin.git"))
    _git(folder, "remote", "add", "origin", str(tmp_path / "origin.git"))
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "AUTHZ_ANALYZER": str(program),
        "GITHUB_ACTION_PATH": str(ACTION),
        "GITHUB_ACTIONS": "true",
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "GITHUB_WORKSPACE": str(folder),
        "RUNNER_TEMP": str(tmp_path / "temp"),
    }
    (tmp_path / "temp").mkdir()
    made = Repository(folder, analyzer, environment)
    made.record()
    return made


@dataclass
class ActionRun:
    """What a run of the action left behind."""

    codes: dict[str, int]
    log: str
    summary: str
    sarif: dict[str, Any]
    """Logs by file name."""


def _evaluated(text: str, inputs: Mapping[str, str]) -> str:
    def value(expression: re.Match[str]) -> str:
        name = expression[1].removeprefix("inputs.")
        assert expression[1].startswith("inputs."), expression[1]
        return inputs[name]

    return EXPRESSION.sub(value, text)


def _run_action(repository: Repository, **given: str) -> ActionRun:
    """Run each script of the action in its order, as the runner does: a step that fails ends the run."""
    action = _action()
    inputs = {name: entry.get("default", "") for name, entry in action["inputs"].items()}
    inputs |= {
        "bundle": "policy/bundle",
        **{name.replace("_", "-"): value for name, value in given.items()},
    }
    summary, output = (
        Path(repository.environment[f"GITHUB_{name}"]) for name in ("STEP_SUMMARY", "OUTPUT")
    )
    for file in (summary, output):
        file.write_text("")
    codes: dict[str, int] = {}
    log = ""
    for step in action["runs"]["steps"]:
        if "run" not in step:
            continue
        variables = {name: _evaluated(str(text), inputs) for name, text in step["env"].items()}
        done = repository.run(["bash", "-eo", "pipefail", "-c", step["run"]], **variables)
        codes[step["id"]] = done.returncode
        log += done.stdout + done.stderr
        if done.returncode:
            break
    folder = Path(repository.environment["RUNNER_TEMP"]) / "authz/sarif"
    logs = [file for file in folder.glob("*.sarif") if file.stat().st_size]
    sarif = {file.name: json.loads(file.read_text()) for file in logs}
    for document in sarif.values():
        jsonschema.Draft7Validator(SCHEMA).validate(document)
    return ActionRun(codes, log, summary.read_text(), sarif)


def test_no_expression_stands_in_a_script() -> None:
    """An input could end the command that it stands in. Each input reaches the scripts as a variable."""
    action = _action()
    scripts = [step["run"] for step in action["runs"]["steps"] if "run" in step]
    assert len(scripts) == 6
    for script in [*scripts, *(file.read_text() for file in ACTION.glob("*.sh"))]:
        assert "${{" not in script
    used = {
        name
        for step in action["runs"]["steps"]
        for text in step.get("env", {}).values()
        for name in EXPRESSION.findall(str(text))
    }
    assert used == {f"inputs.{name}" for name in action["inputs"] if name != "upload-sarif"}


def test_every_script_is_well_formed() -> None:
    """Bash reads each of them."""
    for file in ACTION.glob("*.sh"):
        assert os.access(file, os.X_OK)
        subprocess.run(["bash", "-n", str(file)], check=True)


def test_a_good_bundle_passes(repository: Repository) -> None:
    """With a summary, and SARIF for code scanning."""
    done = _run_action(
        repository, commands="check test analyze", vars="trust_domain=corp.example\n\n"
    )

    assert set(done.codes.values()) == {0}, done.log
    for verb in ("check", "test", "analyze"):
        assert f"- **{verb}**: passed" in done.summary
    assert "# Analysis of the bundle" in done.summary
    assert set(done.sarif) == {"check.sarif", "analyze.sarif"}
    assert "has no value" not in done.log, "the variable was given"


def test_a_new_finding_fails_the_job_after_all_verbs_ran(repository: Repository) -> None:
    """With an annotation at its line, and a result of code scanning. A known finding fails nothing."""
    known = {
        "version": 1,
        "findings": [
            {name: finding(1)[name] for name in ("id", "rule", "severity", "verdict", "message")}
        ],
    }
    (repository.folder / "known.json").write_text(json.dumps(known))
    repository.record(finding(1), finding(2, severity="note"))
    done = _run_action(repository, commands="analyze", fail_on="new", baseline="known.json")

    assert done.codes == dict.fromkeys(("prepare", "check", "test", "analyze", "diff"), 0) | {
        "result": 1
    }
    assert "::notice file=policy/bundle/policies/mail.cedar,line=3" in done.log
    assert "::error file" not in done.log
    assert "::error title=authz analyze::ended with exit code 2" in done.log
    assert "- **analyze**: failed" in done.summary
    assert "```mermaid" in done.summary
    results = done.sarif["analyze.sarif"]["runs"][0]["results"]
    assert [one["baselineState"] for one in results] == ["new", "unchanged"]
    place = results[0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert place["uri"] == "policy/bundle/policies/mail.cedar"


def test_a_bundle_that_is_not_valid_fails_with_annotations(repository: Repository) -> None:
    """Also in the summary, and for code scanning."""
    (repository.bundle / "broken.yaml").write_text("\nlables: {}\n")
    done = _run_action(repository, commands="check")

    assert done.codes["result"] == 1
    assert "::error file=policy/bundle/broken.yaml,line=2" in done.log
    assert "- **check**: the bundle is not valid" in done.summary
    assert done.sarif["check.sarif"]["runs"][0]["results"][0]["level"] == "error"


def test_a_test_that_fails_is_an_annotation(repository: Repository) -> None:
    """At the line of its expectation."""
    tests = repository.bundle / "tests/support.yaml"
    tests.write_text(tests.read_text().replace("expect: PERMIT", "expect: DENY", 1))
    done = _run_action(repository, commands="test")

    assert done.codes["result"] == 1
    assert "::error file=policy/bundle/tests/support.yaml,line=" in done.log
    assert "- **test**: failed" in done.summary


def test_warnings_fail_a_strict_job(repository: Repository) -> None:
    """They are annotations in any case; `test_a_good_bundle_passes` has none."""
    (repository.bundle / "spare.yaml").write_text("labels: {spare: {kind: confidentiality}}\n")

    done = _run_action(repository, commands="check", strict="true")
    assert done.codes["result"] == 1
    assert "::warning file=policy/bundle/spare.yaml,line=1" in done.log
    assert "- **check**: failed" in done.summary or "not valid" in done.summary


def test_an_analyzer_that_is_missing_fails_the_job(repository: Repository) -> None:
    """Nothing was looked at, so nothing passed."""
    repository.environment["AUTHZ_ANALYZER"] = "/none"
    done = _run_action(repository, commands="analyze")

    assert done.codes["result"] == 1
    assert "- **analyze**: could not run (exit code 1)" in done.summary


@pytest.fixture
def words(repository: Repository, tmp_path: Path) -> Path:
    """File to which a program in the place of `authz` writes its arguments and the files of the first folder of `diff`."""
    file, programs = tmp_path / "words", tmp_path / "programs"
    programs.mkdir()
    (programs / "authz").write_text(
        "#!/bin/sh\n"
        f"printf '<%s>\\n' \"$@\" >>'{file}'\n"
        f'if [ "$1" = diff ]; then (cd "$2" && cat people.yaml >>\'{file}\'); exit 2; fi\n'
    )
    (programs / "authz").chmod(0o700)
    repository.environment["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    file.write_text("")
    return file


def test_diff_compares_with_the_target_branch(repository: Repository, words: Path) -> None:
    """With the bundle as it is there, whatever the branch and the working folder have."""
    old = (repository.bundle / "people.yaml").read_text()
    (repository.bundle / "people.yaml").write_text("changed: true\n")
    repository.environment["GITHUB_BASE_REF"] = "main"
    done = _run_action(repository, commands="diff", vars="trust_domain=corp.example")

    assert done.codes["result"] == 1
    assert "- **diff**: failed" in done.summary
    said = words.read_text()
    assert old in said
    assert "changed: true" not in said
    for word in (
        "policy/bundle",
        "--var",
        "trust_domain=corp.example",
        "--fail-on",
        "newly-permitted",
    ):
        assert f"<{word}>" in said
    words.write_text("")
    _run_action(repository, commands="diff", diff_fail_on="none", base="HEAD")
    assert "<diff>" in words.read_text()
    assert "--fail-on" not in words.read_text()


def test_diff_without_something_to_compare_with(repository: Repository, words: Path) -> None:
    """A build that is no pull request, and a revision without the bundle, pass and say why. A revision that is missing fails."""
    done = _run_action(repository, commands="diff")
    assert done.codes["result"] == 0
    assert "not a pull request" in done.log
    moved = repository.folder / "moved"
    shutil.copytree(repository.bundle, moved)
    done = _run_action(repository, commands="diff", base="HEAD", bundle="moved")
    assert done.codes["result"] == 0, done.log
    assert "has no bundle moved/" in done.log
    done = _run_action(repository, commands="diff", base="no-such-branch")
    assert done.codes["result"] == 1
    assert "Git has no revision no-such-branch" in done.log
    assert "<diff>" not in words.read_text()


def test_inputs_are_never_commands(repository: Repository, words: Path, tmp_path: Path) -> None:
    """Each is one argument of a verb, here of one that writes its arguments down."""
    mark = tmp_path / "mark"
    bad = f"$(touch {mark}); `touch {mark}`; touch {mark}"
    for given, argument in (
        ({"bundle": bad}, bad),
        ({"vars": f"x={bad}"}, f"x={bad}"),
        ({"fail_on": bad}, bad),
        ({"baseline": bad}, bad),
        ({"solver_cache": bad}, bad),
        ({"strict": bad}, ""),
        ({"install": f"x' ; touch {mark}"}, ""),
        ({"diff_fail_on": bad, "commands": "diff", "base": "HEAD"}, bad),
        ({"commands": bad}, ""),
        ({"base": bad, "commands": "diff"}, ""),
        ({"base": f"--output={mark}", "commands": "diff"}, ""),
    ):
        words.write_text("")
        _run_action(repository, **{"commands": "check analyze", **given})
        assert not mark.exists(), given
        assert not argument or f"<{argument}>" in words.read_text()


def test_an_unknown_command_is_an_error(repository: Repository) -> None:
    """A misspelt verb would never run."""
    done = _run_action(repository, commands="check tets")

    assert done.codes == {"prepare": 1}
    assert "unknown command" in done.log


def _hooks() -> dict[str, dict[str, Any]]:
    hooks: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    return {hook["id"]: hook for hook in hooks}


def _run_hook(
    repository: Repository, name: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run the entry of a hook as pre-commit does: a script stands in the repository of the hooks."""
    hook = _hooks()[name]
    words = hook["entry"].split()
    if hook["language"] == "script":
        words[0] = str(ROOT / words[0])
    return repository.run([*words, *arguments])


def test_hooks_pass_and_fail(repository: Repository) -> None:
    """Each with the exit code of its verb."""
    cedar = "policy/bundle/policies/guard.cedar"
    assert set(_hooks()) == {
        f"authz-{name}" for name in ("check", "fmt", "test", "analyze", "diff")
    }
    for name in ("check", "test"):
        done = _run_hook(repository, f"authz-{name}", "policy/bundle")
        assert done.returncode == 0, done.stderr
    repository.record(finding(1))
    assert _run_hook(repository, "authz-analyze", "policy/bundle").returncode == 2
    (repository.folder / cedar).write_text("permit ( principal,action,resource ) ;\n")
    assert _run_hook(repository, "authz-fmt", "--check", cedar).returncode == 2
    assert _run_hook(repository, "authz-check", "policy/bundle").returncode == 3


@pytest.mark.skipif(shutil.which("pre-commit") is None, reason="pre-commit is not installed")
def test_pre_commit_runs_the_hooks(repository: Repository, tmp_path: Path) -> None:
    """With its own configuration, for changed files of the bundle alone."""
    hooks = tmp_path / "hooks"
    shutil.copytree(ACTION, hooks / "deploy/github-action")
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", hooks)
    _git(tmp_path, "init", "--quiet", str(hooks))
    _git(hooks, "add", "--all")
    _git(hooks, "commit", "--quiet", "--message=hooks")
    chosen = [
        {"id": f"authz-{name}", "args": ["policy/bundle"], "files": "^policy/bundle/"}
        for name in ("check", "test", "analyze")
    ]
    config = {
        "repos": [
            {
                "repo": str(hooks),
                "rev": _git(hooks, "rev-parse", "HEAD"),
                "hooks": [*chosen, {"id": "authz-fmt"}],
            }
        ]
    }
    (repository.folder / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    _git(repository.folder, "add", "--all")

    done = repository.run(["pre-commit", "run", "--all-files"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Passed") == 4
    repository.record(finding(1))
    done = repository.run(["pre-commit", "run", "--all-files"])
    assert done.returncode == 1
    assert "toxic-combination" in done.stdout
