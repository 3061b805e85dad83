"""`authz analyze` with the real analyzer: its report is the one that the command reads, also without a solver."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from authz.analysis.executable import find_analyzer
from authz.bundle import read_folder
from authz.cli import main
from authz.engine import Plan
from authz.errors import UsageError

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "examples/quickstart/bundle"
SCHEMA = json.loads((ROOT / "tests/data/sarif/sarif-schema-2.1.0.json").read_text())
VARIABLES = {"trust_domain": "dev.example"}


def _is_built() -> bool:
    try:
        find_analyzer()
    except UsageError:
        return False
    return True


pytestmark = pytest.mark.skipif(not _is_built(), reason="needs `make analyzer`")


def run(*arguments: str | Path) -> int:
    """Run the command and give its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Report of the bundle of the quickstart."""
    file = tmp_path_factory.mktemp("analyze") / "report.json"
    options = ("--var", "trust_domain=dev.example", "--format", "json", "--output", file)
    assert run("analyze", BUNDLE, *options) in {0, 2}
    document: dict[str, Any] = json.loads(file.read_text())
    return {**document, "file": file}


def test_the_report_is_about_the_bundle_that_a_server_loads(report: dict[str, Any]) -> None:
    """With the same name and digest."""
    plan = Plan.compile(read_folder(BUNDLE), VARIABLES)

    assert report["bundle"] == {"name": plan.name, "digest": plan.digest}
    assert report["counts"]["policies"] == plan.policy_count


def test_nothing_that_needs_a_solver_is_proved_without_one(report: dict[str, Any]) -> None:
    """With one, few questions stay open."""
    if importlib.util.find_spec("cvc5") is None:
        assert report["solver"] is None
        assert report["counts"]["not_decided"] == report["counts"]["questions"]
    else:
        assert report["solver"]["name"] == "cvc5"
        assert report["counts"]["not_decided"] <= report["counts"]["questions"] * 0.02
        assert report["proved"]


@pytest.mark.parametrize("style", ["text", "sarif", "markdown", "github"])
def test_the_report_is_rendered_in_every_format(
    report: dict[str, Any], style: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With each finding in SARIF."""
    options = ("--report", report["file"], "--format", style)
    assert run("analyze", BUNDLE, *options) in {0, 2}
    said = capsys.readouterr().out
    if style == "sarif":
        log = json.loads(said)
        jsonschema.Draft7Validator(SCHEMA).validate(log)
        prints = {
            one["partialFingerprints"]["authzFinding/v1"] for one in log["runs"][0]["results"]
        }
        assert prints == {one["id"] for one in report["findings"]}


def test_a_suppression_of_the_bundle_is_in_force_until_its_end(tmp_path: Path) -> None:
    """Findings of its rule about its subject fail nothing, and say who answers for them."""
    folder = tmp_path / "bundle"
    shutil.copytree(BUNDLE, folder)
    (folder / "policies/dead.cedar").write_text(
        '@id("dead") permit (principal, action == Action::"crm.refund", resource)\n'
        "when { context.input.amount > 100 && context.input.amount < 50 };\n"
    )
    states = {}
    for until in ("2026-01-31", "2999-01-31"):
        (folder / "analysis.yaml").write_text(
            "analysis:\n  suppressions:\n"
            "    - {rule: policy-never-matches, subject: dead, owner: crm-team, reason: it is rewritten,"
            f" until: {until}}}\n"
        )
        file = tmp_path / "report.json"
        options = ("--var", "trust_domain=dev.example", "--format", "json", "--output", file)
        assert run("analyze", folder, *options) in {0, 2}
        report = json.loads(file.read_text())
        assert [one["owner"] for one in report["suppressions"]] == ["crm-team"]
        (states[until],) = {
            one["state"]
            for one in report["findings"]
            if one["rule"] == "policy-never-matches" and one["policies"] == ["dead"]
        }
    assert states == {"2026-01-31": "new", "2999-01-31": "suppressed"}


def test_a_bundle_that_is_not_valid_is_3_with_its_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At their lines, as `authz check` tells them."""
    assert run("init", "--enforce", tmp_path / "bundle") == 0
    (tmp_path / "bundle/broken.yaml").write_text("\nlables: {}\n")
    capsys.readouterr()

    assert run("analyze", tmp_path / "bundle") == 3
    assert "broken.yaml:2" in capsys.readouterr().err


FACTS = """\
agents: {bot: ['spiffe://dev.example/bot']}
catalog:
  dwh:
    kind: http
    operations:
      read_orders: {input: {type: object, properties: {}}}
      read_salaries: {input: {type: object, properties: {}}}
classify:
  - {match: dwh.read_orders, effects: [read], tier: low}
  - {match: dwh.read_salaries, effects: [read], tier: high}
"""
POLICY = """\
@id("orders") permit (principal, action == Action::"dwh.read_orders", resource);
@id("salaries") permit (principal, action == Action::"dwh.read_salaries", resource)
when { context.exception.contains(Exception::"breakglass") };
"""
CONFIG = """\
bundle: {path: bundle}
audit: {path: audit.log}
identity: {audiences: [authz]}
trust:
  domains: {dev.example: {bundle: {file: keys.json}}}
listeners:
  main: {address: "127.0.0.1:0", insecure_dev: true}
  http: {address: "127.0.0.1:8181", tls: {cert_file: cert.pem, key_file: key.pem}}
credentials:
  issuer: https://authz.example
  brokers:
    warehouse:
      kind: postgresql
      dsn_file: dsn
      systems:
        dwh:
          operations:
            dwh.read_orders: [{privileges: [SELECT, INSERT], tables: [sales.*]}]
            dwh.read_salaries: [{privileges: [SELECT], tables: [sales.salaries]}]
"""


def test_leases_and_break_glass_are_looked_at(tmp_path: Path) -> None:
    """A configuration's leases permit more than their operations, and a policy accepts break-glass."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    assertion = "{id: no-salaries, never: {operation: dwh.read_salaries}}"
    files = {
        "bundle.yaml": "name: dwh\ntasks: optional\n",
        "facts.yaml": f"{FACTS}analysis: {{assertions: [{assertion}]}}\n",
        "policy.cedar": POLICY,
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    (tmp_path / "authz.yaml").write_text(CONFIG)
    file, cases = tmp_path / "report.json", tmp_path / "cases"
    options = ("--no-solver", "--format", "json", "--output", file, "--cases", cases)

    assert run("analyze", folder, "--config", tmp_path / "authz.yaml", *options) in {0, 2}
    findings = json.loads(file.read_text())["findings"]
    leases = [one for one in findings if one["rule"] == "credential-too-wide"]
    assert {one["verdict"] for one in leases} == {"path_found"}
    reached, effect = sorted(one["message"] for one in leases)
    assert reached.startswith(
        "the lease of `dwh.read_orders` lets its holder do `dwh.read_salaries`"
    )
    assert "(SELECT on `sales.salaries`): its tier is `high`" in reached
    assert effect.startswith("the lease of `dwh.read_orders` permits INSERT on `sales.*`")
    (by_breakglass,) = [one for one in findings if one["rule"] == "exception-on-path"]
    assert [step["operation"] for step in by_breakglass["path"]] == [
        "authz.breakglass",
        "dwh.read_salaries",
    ]
    # Its test fails while the policy accepts break-glass.
    case = cases / f"{by_breakglass['id']}.yaml"
    (folder / "tests").mkdir()
    shutil.copy(case, folder / "tests")
    assert run("test", folder) != 0
    (folder / "policy.cedar").write_text(POLICY.splitlines()[0] + "\n")
    assert run("test", folder) == 0
