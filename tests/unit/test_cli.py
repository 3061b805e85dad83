"""The command: exit codes, and what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer.main

from authz.cli import VERBS, application, main
from authz.cli.options import output_path
from authz.cli.reference import cli_reference, config_pages, control_page
from authz.cli.render import Terminal
from authz.tools.keys import DevDomain

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
AGENT = "spiffe://a.example/ns/support/sa/bot"


def run(*arguments: str | Path) -> int:
    """Run the command and give its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The bundle that `authz init --full` writes."""
    folder = tmp_path / "bundle"
    assert run("init", "--full", folder) == 0
    return folder


def test_the_reference_is_what_the_code_says() -> None:
    """Generate it with `python -m authz.cli.reference docs/reference`."""
    controls = REFERENCE / "coverage.md"
    pages = {
        REFERENCE / "cli.md": cli_reference(),
        controls: control_page(controls),
        **config_pages(REFERENCE / "configuration"),
    }
    assert len(pages) > 10
    assert [page.name for page, text in pages.items() if page.read_text() != text] == []


def test_a_section_of_the_configuration_has_a_page(tmp_path: Path) -> None:
    """A section without one would be described nowhere."""
    for page in (REFERENCE / "configuration").glob("*.md"):
        (tmp_path / page.name).write_text(page.read_text())
    (tmp_path / "audit.md").unlink()
    with pytest.raises(ValueError, match=r"audit\.md is missing"):
        config_pages(tmp_path)
    (tmp_path / "audit.md").write_text("# `audit`\n")
    with pytest.raises(ValueError, match="put the keys between"):
        config_pages(tmp_path)


def test_each_verb_has_a_module_of_its_name() -> None:
    """A module with `register` that is not listed would be a verb that nobody can run."""
    folder = ROOT / "authz" / "cli"
    modules = {file.stem for file in folder.glob("*.py") if "\ndef register(" in file.read_text()}
    assert modules == set(VERBS)
    for verb in VERBS:
        command: Any = typer.main.get_command(application([verb]))
        assert list(command.commands) == [verb]


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("check",),
        ("serve", "--frobnicate"),
        ("schema", "nothing"),
        ("fmt", "/nowhere.cedar"),
        ("eval", "crm.search"),
        ("healthcheck", "ftp://x"),
    ],
)
def test_wrong_use_is_1(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """With a message on standard error, never a traceback."""
    assert run(*arguments) == 1

    said = capsys.readouterr().err
    assert said
    assert "Traceback" not in said


def test_a_refused_configuration_is_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each defect on a line with its place."""
    file = tmp_path / "config.yaml"
    file.write_text("bundle: {path: x}\n\nlistners: {}\n")

    assert run("config", "validate", "--config", file) == 3
    assert "config.yaml:3: unknown key `listners`. Did you mean `listeners`?" in (
        capsys.readouterr().err
    )


def test_a_missing_bundle_is_3(tmp_path: Path) -> None:
    """There is nothing that could serve."""
    assert run("check", tmp_path / "none") == 3


@pytest.mark.parametrize("size", [(), ("--full",)], ids=["small", "full"])
def test_the_template_is_well(
    tmp_path: Path, size: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """It compiles without a warning, its tests pass, it is formatted."""
    folder = tmp_path / "bundle"
    assert run("init", *size, folder) == 0
    assert run("check", "--strict", folder) == 0
    assert run("test", folder) == 0
    assert run("fmt", "--check", folder) == 0
    assert " 0 failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("size", "place"), [((), "people.yaml"), (("--full",), "mode.yaml")], ids=["small", "full"]
)
def test_init_observes_for_30_days_and_says_so(
    tmp_path: Path, size: tuple[str, ...], place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The owner is to be edited; `--enforce` leaves it out."""
    until = datetime.now(UTC).date() + timedelta(days=30)

    assert run("init", *size, tmp_path / "observed") == 0
    shown = capsys.readouterr().err
    assert f"observes until {until}" in shown
    assert f"into {tmp_path / 'observed' / place}." in shown
    assert f"until: {until}" in (tmp_path / "observed" / place).read_text()
    assert run("check", tmp_path / "observed") == 0
    said = capsys.readouterr().out
    assert "observe: everything else, until " in said
    assert "stops early" not in said, "no tier is enforced while it observes"
    assert run("init", *size, "--enforce", tmp_path / "enforced") == 0
    assert not any("mode:" in file.read_text() for file in (tmp_path / "enforced").glob("*.yaml"))
    assert run("check", tmp_path / "enforced") == 0
    assert "observe:" not in capsys.readouterr().out


def test_check_tells_which_requests_are_enforced_where_they_stop_early(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By system, with the operations and the tiers that they could have had; and the agents that they could be of."""
    folder = tmp_path / "observed"
    assert run("init", "--full", folder) == 0
    mode = folder / "mode.yaml"
    rest = (
        "  tiers: {critical: enforce}\n"
        '  agents: {"spiffe://corp.example/ns/support/sa/desk": enforce}\n'
    )
    mode.write_text(mode.read_text() + rest)
    for facts in folder.glob("*.yaml"):
        text = facts.read_text()
        facts.write_text(text.replace("clearance: []}", "clearance: [], tier: critical}"))
    capsys.readouterr()
    assert run("check", folder) == 0
    said = capsys.readouterr().out
    assert "enforced where a request stops early: " in said
    assert "no route or operation, " in said
    assert " (tier critical)" in said
    assert "enforced where the agent or its task is not known, since it may be: spiffe://" in said


def test_eval_says_that_a_denial_is_only_observed(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The judged outcome stays what it is."""
    command = ("eval", "crm.search", "--bundle", bundle, "--agent", "spiffe://a.example/no")
    query = ("--input", '{"query": "x"}')

    assert run(*command, *query, "--format", "json") == 2
    decision = json.loads(capsys.readouterr().out)
    assert (decision["outcome"], decision["enforced"]) == ("DENY", False)
    assert run(*command, *query) == 2
    assert "observed only: the call passes" in capsys.readouterr().out


def test_init_leaves_a_folder_with_something_in_it_alone(tmp_path: Path) -> None:
    """It never overwrites."""
    (tmp_path / "mine").write_text("precious")

    assert run("init", tmp_path) == 1
    assert (tmp_path / "mine").read_text() == "precious"


def test_hints_are_for_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program that reads the output gets none."""
    Terminal().hint("Next: authz test")
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    Terminal().hint("Next: authz test")
    assert "Next: authz test" in capsys.readouterr().err


def test_serve_without_a_configuration_says_where_one_comes_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variable is a part of one, so that the message then is about the rest."""
    for name in [name for name in os.environ if name.startswith("AUTHZ_")]:
        monkeypatch.delenv(name)
    assert run("serve") == 1
    assert "`authz keys make dev --bundle BUNDLE` writes" in capsys.readouterr().err
    monkeypatch.setenv("AUTHZ_LOG__LEVEL", "info")
    assert run("serve") == 3
    assert "`bundle` is missing" in capsys.readouterr().err


def test_a_refused_bundle_is_3_with_file_and_line(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A typo in a role is found when the bundle is loaded."""
    (bundle / "policies" / "typo.cedar").write_text(
        '@id("typo") permit(\n  principal in Role::"stuff",\n  action, resource);\n'
    )

    assert run("check", bundle) == 3
    assert "policies/typo.cedar:" in capsys.readouterr().err


def test_a_failing_test_is_2(bundle: Path, tmp_path: Path) -> None:
    """And the JUnit report says which."""
    (bundle / "tests" / "wrong.yaml").write_text(
        f"tests:\n  - {{case: wrong, as: {{agent: '{AGENT}'}}, call: no.such, expect: PERMIT}}\n"
    )
    report = tmp_path / "junit.xml"

    assert run("test", bundle, "--junit", report) == 2
    suite = ET.parse(report).getroot()
    assert suite.get("failures") == "1"
    assert "wrong" in (suite.find("testcase[failure]") or ET.Element("")).get("name", "")


def test_fmt_check_is_2_and_writes_nothing(bundle: Path) -> None:
    """Without `--check` it writes, and then there is nothing to do."""
    file = bundle / "policies" / "ugly.cedar"
    ugly = '@id("ugly")   permit(principal,action,resource)when{false};'
    file.write_text(ugly)

    assert run("fmt", "--check", file) == 2
    assert file.read_text() == ugly
    assert run("fmt", file) == 0
    assert run("fmt", "--check", file) == 0


def test_eval_is_2_unless_permitted(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An agent that nobody registered may do nothing."""
    code = run("eval", "no.such", "--bundle", bundle, "--agent", AGENT, "--format", "json")

    assert code == 2
    assert json.loads(capsys.readouterr().out)["outcome"] == "DENY"


@pytest.mark.parametrize("what", ["bundle", "case", "config"])
def test_schemas_are_json(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """For editors."""
    assert run("schema", what) == 0
    assert "$schema" in json.loads(capsys.readouterr().out)


def test_a_node_that_cannot_be_reached_is_1(tmp_path: Path) -> None:
    """Not "ready"."""
    assert run("status", "--admin", f"unix://{tmp_path}/none.sock") == 1
    assert run("healthcheck", f"unix://{tmp_path}/none.sock") == 1
    assert run("healthcheck", "http://127.0.0.1:1/readyz") == 1


def test_development_keys_are_private(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Made once; the private ones can be read by their owner only."""
    folder = tmp_path / "keys"

    assert run("keys", "make", folder) == 0
    assert run("keys", "token", folder, "--agent", "/ns/x/sa/y") == 0
    token = capsys.readouterr().out.splitlines()[-1]
    first = (folder / "bundle.json").read_text()
    assert run("keys", "make", folder) == 0

    assert token.count(".") == 2
    assert (folder / "bundle.json").read_text() == first
    assert (folder / "private-keys.json").stat().st_mode & 0o077 == 0
    assert folder.stat().st_mode & 0o077 == 0


def test_private_keys_are_never_shown() -> None:
    """Not even in a traceback."""
    domain = DevDomain.make("a.example", "https://idp")

    assert "PRIVATE" not in repr(domain)
    assert str(domain.agents.private.private_numbers().private_value) not in repr(domain)


def _options(command: Any, name: str) -> dict[tuple[str, str], Any]:
    if hasattr(command, "commands"):
        return {
            found: option
            for word, one in command.commands.items()
            for found, option in _options(one, f"{name} {word}").items()
        }
    return {(name, spelling): one for one in command.params for spelling in one.opts}


def test_a_word_has_one_meaning_in_all_verbs() -> None:
    """`--format` is a format, and `--output` a file or folder; no other option has one of these meanings."""
    found = _options(typer.main.get_command(application()), "authz")
    paths = {name for (name, word), one in found.items() if word in {"--output", "-o"}}
    formats = {name for (name, word), _ in found.items() if word == "--format"}
    assert {"authz analyze", "authz propose", "authz audit receipt"} <= paths
    assert {"authz status", "authz task get", "authz analyze", "authz config print"} <= formats
    for name in paths:
        assert found[name, "--output"] is found[name, "-o"]
        assert found[name, "--output"].callback.__name__ == output_path.__name__
    assert [key for key in found if key[1] in {"--json", "--html", "--yaml", "--out"}] == []


@pytest.mark.parametrize(
    "words",
    [
        ("analyze", "x"),
        ("diff", "x", "y"),
        ("propose",),
        ("catalog", "templates", "crm"),
        ("audit", "show"),
        ("audit", "receipt"),
        ("audit", "report", "--from", "2026-11-01", "--to", "2026-11-30"),
    ],
)
def test_a_format_is_not_the_name_of_a_file(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--output json` writes nothing, and names the option for formats."""
    folders = [tmp_path / one for one in words if one in {"x", "y"}]
    for folder in folders:
        folder.mkdir()
    given = [str(tmp_path / one) if one in {"x", "y"} else one for one in words]
    assert run(*given, "--output", "json") == 1
    assert "--output takes a file; use --format json" in capsys.readouterr().err
    assert not Path("json").exists()


def test_version_says_how_the_engine_was_built(capsys: pytest.CaptureFixture[str]) -> None:
    """A figure of a debug build means nothing."""
    assert run("version", "--format", "json") == 0
    assert set(json.loads(capsys.readouterr().out)) == {"version", "build_profile"}


def test_a_signing_key_is_put_into_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For its owner only; what is printed is its name."""
    assert run("keys", "generate", str(tmp_path / "keys"), "--algorithm", "EdDSA") == 0

    kid = capsys.readouterr().out.strip()
    (file,) = (tmp_path / "keys").iterdir()
    assert file.name == f"{kid}.pem"
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("given", [("--issuer", "https://a.example"), ("--proof-key", "k.pem")])
def test_a_proof_key_needs_the_issuer_and_the_other_way_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: tuple[str, str]
) -> None:
    """Before anything is asked."""
    (tmp_path / "svid").write_text("a.b.c")
    told = ["--agent-token", str(tmp_path / "svid"), "--server", "unix:///nowhere", "--task", "t"]

    assert run("credential", "issue", "crm.get", *told, *given) == 1
    assert "--proof-key and --issuer belong together" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "position", "expected"), [("authz ca", "1", "can"), ("authz task ge", "2", "get")]
)
def test_a_shell_completes_verbs(words: str, position: str, expected: str) -> None:
    """As the script asks that `authz --show-completion bash` prints."""
    command = [sys.executable, "-c", "from authz.cli import main; main()"]
    asked = {"_AUTHZ_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": position}
    done = subprocess.run(
        command, env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert expected in done.stdout.split()
    shown = subprocess.run(
        [*command, "--show-completion", "bash"], capture_output=True, text=True, check=False
    )
    assert "_AUTHZ_COMPLETE=complete_bash" in shown.stdout
