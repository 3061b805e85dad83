"""`authz diff` with the real analyzer and the real solver: `make analyzer` builds it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from authz.cli import main

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "examples" / "quickstart" / "bundle"
LIMIT = ["--question-time-limit", "60"]


def run(*arguments: str | Path) -> int:
    """Run the command and give its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A copy of the quickstart bundle."""
    return Path(shutil.copytree(QUICKSTART, tmp_path / "bundle"))


def replace(folder: Path, old: str, new: str) -> None:
    """Change the one policy file that has a text."""
    [file] = [one for one in (folder / "policies").glob("*.cedar") if old in one.read_text()]
    file.write_text(file.read_text().replace(old, new))


def proof(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """Exit code and document of a comparison with the quickstart bundle."""
    code = run("diff", QUICKSTART, *arguments, "--format", "json", *LIMIT)
    document: dict[str, Any] = json.loads(capfd.readouterr().out)["proof"]
    return code, document


def test_a_stricter_bundle_is_proved(changed: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """For all requests, and nothing else changed."""
    replace(changed, "context.input.amount > 100", "context.input.amount > 50")
    code, document = proof(capfd, changed, "--fail-on", "not-proved")
    assert code == 0
    assert document["verdict"] == "proved"
    assert document["policies"]["changed"] == ["small-refunds-only"]
    assert {one["operation"] for one in document["operations"]} == {"crm.refund"}


def test_a_weaker_bundle_is_shown_by_a_request(
    changed: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The request is between both limits, and the old bundle names the forbid."""
    replace(changed, "context.input.amount > 100", "context.input.amount > 101")
    code, document = proof(capfd, changed, "--fail-on", "newly-permitted")
    assert code == 2
    assert document["verdict"] == "path_found"
    found = [one for one in document["operations"] if one["verdict"] == "path_found"]
    assert found
    for one in found:
        assert one["request"]["context"]["input"]["amount"] == 101
        assert one["denied_by"] == ["small-refunds-only"]


def test_a_wider_role_is_not_proved(changed: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The members of a role are no part of a policy."""
    file = next(one for one in changed.rglob("*.yaml") if "spiffe://" in one.read_text())
    file.write_text(file.read_text().replace("/ns/support/sa/*", "/ns/*/sa/*"))
    code, document = proof(capfd, changed, "--fail-on", "not-proved")
    assert code == 2
    assert document["verdict"] == "not_decided"
    assert [(one["section"], one["name"]) for one in document["facts"]] == [
        ("roles", "support-agent")
    ]
    assert document["operations"] == []


def test_the_second_run_asks_nothing_again(
    changed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Definite answers are kept."""
    replace(changed, "context.input.amount > 100", "context.input.amount > 50")
    _, first = proof(capfd, changed, "--cache", tmp_path / "cache")
    _, second = proof(capfd, changed, "--cache", tmp_path / "cache")
    assert first["counts"]["questions_cached"] == 0
    assert second["counts"]["questions_cached"] == second["counts"]["questions"] > 0
    assert {**first, "counts": None} == {**second, "counts": None}


def test_a_bundle_that_is_refused_is_no_difference(
    changed: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3, with the place of the error."""
    replace(changed, "context.input.amount > 100", "context.input.amuont > 100")
    assert run("diff", QUICKSTART, changed, *LIMIT) == 3
    assert "amuont" in capfd.readouterr().err
