"""`authz analyze`: exit codes, formats, baselines and files, with an analyzer that prints a recorded report."""

import json
import stat
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from authz import __version__
from authz.cli import main
from tests.support.analysis import HOSTILE, finding, report_bytes, report_document

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "tests/data/sarif/sarif-schema-2.1.0.json").read_text())
BUNDLE = ROOT / "examples/quickstart/bundle"

ANALYZER = """#!{python}
import json, pathlib, sys
if sys.argv[1] == "--version":
    print("authz-analyze {version} debug")
    sys.exit()
folder = pathlib.Path({folder!r})
(folder / "request.json").write_text(json.dumps([sys.argv[1:], json.load(sys.stdin)]))
sys.stderr.write((folder / "said").read_text() if (folder / "said").exists() else "")
sys.stdout.write((folder / "report.json").read_text())
sys.exit(int((folder / "code").read_text()) if (folder / "code").exists() else 0)
"""

Record = Callable[..., Path]


def run(*arguments: str | Path) -> int:
    """Run the command and give its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    """What records the findings that the analyzer will report. It returns the folder of the analyzer."""
    folder = tmp_path / "analyzer"
    folder.mkdir()
    program = folder / "authz-analyze"
    program.write_text(
        ANALYZER.format(python=sys.executable, folder=str(folder), version=__version__)
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("AUTHZ_ANALYZER", str(program))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(ROOT))

    def save(*findings: dict[str, Any], **members: Any) -> Path:
        (folder / "report.json").write_bytes(report_bytes(*findings, **members))
        return folder

    return save


def test_a_bundle_without_findings_is_0(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    """With what was asked and proved."""
    record()

    assert run("analyze", BUNDLE) == 0
    said = capsys.readouterr().out
    assert "120 questions, 20 of them answered from the cache, 0 not decided; solver cvc5" in said
    assert "1 properties proved within the model" in said


def test_a_finding_at_the_level_is_2(record: Record) -> None:
    """And below it 0."""
    record(finding(1, severity="warning"))

    assert run("analyze", BUNDLE) == 0
    assert run("analyze", BUNDLE, "--fail-on", "warning") == 2
    assert run("analyze", BUNDLE, "--fail-on", "note") == 2
    record(finding(1))
    assert run("analyze", BUNDLE) == 2


def test_the_text_shows_path_pivot_and_cut(
    record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    """Step by step."""
    record(finding(1))

    run("analyze", BUNDLE)
    said = capsys.readouterr().out
    for part in (
        "error[toxic-combination] policies/mail.cedar:3: ",
        "(path found)",
        "1. spiffe://corp.example/sa/support for ann calls crm.read",
        "▶ 3. ",
        "smallest cut:",
        "forbid mail.send to external destinations after untrusted (policies/mail.cedar:3)",
        "- case: pii stays inside",
    ):
        assert part in said


def test_a_cut_of_several_lines_is_shown_line_by_line(
    record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a policy that a reader can copy; no line of it begins a command of GitHub's runner."""
    policy = '@id("cut")\nforbid (principal, action, resource);\n::error::x'
    cut = {"exact": True, "changes": [{"kind": "add_forbid", "text": policy}]}
    record(finding(1, cut=cut))

    run("analyze", BUNDLE)
    lines = capsys.readouterr().out.splitlines()
    assert '    | @id("cut")' in lines
    assert "    | forbid (principal, action, resource);" in lines
    assert not any(line.lstrip().startswith("::") for line in lines)


def test_what_is_not_decided_is_told(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    """It fails like a defect; nothing of it counts as proved, and a missing solver is named."""
    one = finding(1, verdict="not_decided", reason="time limit", path=[], cut=None)
    record(one, solver=None, proved=[])

    assert run("analyze", BUNDLE) == 2
    said = capsys.readouterr().out
    assert "(not decided)" in said
    assert "not decided: time limit" in said
    assert "0 properties proved" in said
    assert "No solver: nothing that needs one is proved" in said
    for style in ("sarif", "markdown", "github", "json"):
        run("analyze", BUNDLE, "--format", style)
        assert "No solver" in capsys.readouterr().err


def test_open_questions_with_one_reason_are_told_once(
    record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    """With their number and their places; each of them still fails, and stands in JSON and SARIF."""
    questions = [
        finding(
            number,
            rule="policy-redundant",
            verdict="not_decided",
            reason="the solver does not start",
            path=[],
            cut=None,
            case="",
            location={"file": "guard.cedar", "line": number},
        )
        for number in range(1, 31)
    ]
    record(*questions, finding(31), solver=None, proved=[])

    for style in ("text", "markdown", "github"):
        assert run("analyze", BUNDLE, "--format", style) == 2
        said = capsys.readouterr().out
        assert said.count("the solver does not start") == 1
        assert "30 questions are not decided" in said
        assert "guard.cedar:12" in said
        assert "and 18 more" in said
        assert "mail.send" in said, "other findings are shown as before"
    for style, member in (("json", "findings"), ("sarif", "results")):
        run("analyze", BUNDLE, "--format", style)
        document = json.loads(capsys.readouterr().out)
        assert len(document[member] if style == "json" else document["runs"][0][member]) == 31
    record(*questions, solver=None, proved=[])
    assert run("analyze", BUNDLE) == 2, "open questions alone fail, too"


def test_the_text_is_inert(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    """No string of a bundle controls the terminal, or begins a command of GitHub's runner."""
    record(
        finding(
            1,
            rule=HOSTILE,
            message=HOSTILE,
            case=f"{HOSTILE}\x1b]0;x\x07",
            location={"file": HOSTILE, "line": 1},
            assumptions=[HOSTILE],
        ),
        suppressions=[{"rule": "x", "owner": HOSTILE, "reason": HOSTILE, "until": "2020-01-01"}],
    )

    for style in ("text", "markdown", "github"):
        run("analyze", BUNDLE, "--format", style)
        said = capsys.readouterr()
        for line in [*said.out.split("\n"), *said.err.split("\n")]:
            assert line.isprintable() or not line
            if style != "github":
                assert not line.lstrip().startswith(("::", "##["))


def test_a_baseline_lets_only_new_findings_fail(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is written by the command, and says what is gone."""
    file = tmp_path / "baseline.json"
    record(finding(1), finding(2, severity="warning"))
    assert run("analyze", BUNDLE, "--write-baseline", file) == 0

    assert run("analyze", BUNDLE, "--baseline", file, "--fail-on", "new") == 0
    record(finding(1), finding(3, severity="note"))
    capsys.readouterr()
    assert run("analyze", BUNDLE, "--baseline", file) == 0
    assert run("analyze", BUNDLE, "--baseline", file, "--fail-on", "new") == 2
    said = capsys.readouterr().out
    assert "known by the baseline" in said
    assert "1 findings of the baseline are gone" in said


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"verdict": "not_decided", "reason": "time limit"}, {}),
        ({"severity": "warning"}, {"severity": "error"}),
    ],
)
def test_a_known_finding_that_became_worse_is_new(
    record: Record, tmp_path: Path, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """An open question whose answer is a path, or a higher severity."""
    file = tmp_path / "baseline.json"
    record(finding(1, **before))
    assert run("analyze", BUNDLE, "--write-baseline", file) == 0
    assert run("analyze", BUNDLE, "--baseline", file, "--fail-on", "new") == 0

    record(finding(1, **after))
    assert run("analyze", BUNDLE, "--baseline", file, "--fail-on", "new") == 2


def test_new_needs_a_baseline(record: Record, tmp_path: Path) -> None:
    """A file that is missing is wrong use, too."""
    record()

    assert run("analyze", BUNDLE, "--fail-on", "new") == 1
    assert run("analyze", BUNDLE, "--baseline", tmp_path / "none.json") == 1


def test_a_suppressed_finding_does_not_fail_and_is_not_written(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An expired suppression counts as not there."""
    entry = {"finding": f"{1:016x}", "owner": "sec", "reason": "accepted", "until": "2999-01-01"}
    record(finding(1), suppressions=[entry])
    file = tmp_path / "baseline.json"

    assert run("analyze", BUNDLE) == 0
    assert "suppressed: accepted (sec, until 2999-01-02T00:00:00Z)" in capsys.readouterr().out
    assert run("analyze", BUNDLE, "--write-baseline", file) == 0
    assert json.loads(file.read_text())["findings"] == []
    record(finding(1), suppressions=[{**entry, "until": "2026-01-01"}])
    capsys.readouterr()
    assert run("analyze", BUNDLE) == 2
    assert "ended at 2026-01-02T00:00:00Z; it counts as not there" in capsys.readouterr().out


def test_an_open_assertion_fails_until_its_owner_accepts_it(record: Record, tmp_path: Path) -> None:
    """With the default level, and without a solver, too: by a suppression with an end, or by a baseline."""
    open_assertion = finding(
        1,
        rule="assertion:stays",
        verdict="not_decided",
        reason="no solver",
        path=[],
        cut=None,
        case="",
    )
    record(open_assertion, solver=None, proved=[])
    assert run("analyze", BUNDLE) == 2
    file = tmp_path / "baseline.json"
    assert run("analyze", BUNDLE, "--write-baseline", file) == 0
    assert run("analyze", BUNDLE, "--baseline", file) == 0

    entry = {
        "rule": "assertion:stays",
        "owner": "sec",
        "reason": "the solver comes in May",
        "until": "2999-01-01",
    }
    record(open_assertion, suppressions=[entry], solver=None, proved=[])
    assert run("analyze", BUNDLE) == 0
    record(open_assertion, suppressions=[{**entry, "until": "2026-01-01"}], solver=None, proved=[])
    assert run("analyze", BUNDLE) == 2
    record({**open_assertion, "rule": "self-approval", "severity": "warning"})
    assert run("analyze", BUNDLE) == 0
    assert run("analyze", BUNDLE, "--fail-on", "warning") == 2


def test_json_is_the_report_and_can_be_rendered_later(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the analyzer."""
    folder = record(finding(1))
    file = tmp_path / "report.json"

    assert run("analyze", BUNDLE, "--format", "json", "--output", file) == 2
    assert capsys.readouterr().out == ""
    report = json.loads(file.read_text())
    assert report["findings"] == [{**finding(1), "state": "new"}]
    assert {**report, "findings": []} == report_document()
    (folder / "authz-analyze").unlink()
    assert run("analyze", BUNDLE, "--report", file, "--format", "markdown") == 2
    assert "## toxic-combination 0000000000000001" in capsys.readouterr().out


def test_sarif_names_files_from_the_root_of_the_repository(
    record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    """And is valid."""
    record(finding(1))

    assert run("analyze", BUNDLE, "--format", "sarif") == 2
    log = json.loads(capsys.readouterr().out)
    jsonschema.Draft7Validator(SCHEMA).validate(log)
    place = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    uri = place["artifactLocation"]["uri"]
    assert uri == "examples/quickstart/bundle/policies/mail.cedar"


def test_github_annotates_what_counts(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each new finding at its line, with its path."""
    file = tmp_path / "baseline.json"
    record(finding(1))
    assert run("analyze", BUNDLE, "--write-baseline", file) == 0
    record(finding(1), finding(2, severity="note", rule="self-approval"))
    capsys.readouterr()

    run("analyze", BUNDLE, "--baseline", file, "--format", "github")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(
        "::notice file=examples/quickstart/bundle/policies/mail.cedar,line=3,col=5,title=authz analyze%3A self-approval"
    )
    assert "%0A3. spiffe://corp.example/sa/support for ann calls mail.send" in line


def test_pictures_and_tests_are_files(record: Record, tmp_path: Path) -> None:
    """Of each finding that has a path."""
    record(finding(1), finding(2, path=[], case=""))

    run("analyze", BUNDLE, "--picture", tmp_path / "pictures", "--cases", tmp_path / "cases")
    assert {file.name for file in (tmp_path / "pictures").iterdir()} == {
        f"{1:016x}.svg",
        f"{1:016x}.mmd",
    }
    ET.parse(tmp_path / "pictures" / f"{1:016x}.svg")
    assert (tmp_path / "cases" / f"{1:016x}.yaml").read_text() == finding(1)["case"]
    assert len(list((tmp_path / "cases").iterdir())) == 1


def test_the_analyzer_gets_files_variables_and_limits(record: Record, tmp_path: Path) -> None:
    """As the server would read them."""
    folder = record()

    assert (
        run("analyze", BUNDLE, "--question-time-limit", "2.5", "--cache", tmp_path / "cache") == 0
    )
    arguments, request = json.loads((folder / "request.json").read_text())
    assert arguments == ["analyze"]
    assert set(request["bundle"]["files"]) >= {"bundle.yaml", "policies/guard.cedar"}
    assert request["options"]["question_limit_ms"] == 2500
    assert request["options"]["cache"] == str(tmp_path / "cache")
    assert request["options"]["solver"]
    assert run("analyze", BUNDLE, "--no-solver") == 0
    _, request = json.loads((folder / "request.json").read_text())
    assert request["options"]["solver"] == []


LEASES = """\
bundle: {path: bundle}
vars: {trust_domain: config.example}
audit: {path: audit.log}
identity: {audiences: [authz]}
trust:
  domains: {config.example: {bundle: {file: keys.json}}}
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
            dwh.read_orders:
              - {privileges: [SELECT], tables: [sales.orders], columns: [id], database: sales}
              - {privileges: [USAGE], sequences: [sales.ids]}
              - {privileges: [USAGE, CREATE], schemas: [scratch]}
            dwh.clean: [{privileges: [UPDATE, TRUNCATE], tables: [sales.*]}]
"""


def test_the_analyzer_gets_the_leases_of_a_configuration(record: Record, tmp_path: Path) -> None:
    """With the effects of each privilege. No file that the configuration names is read."""
    folder = record()
    config = tmp_path / "authz.yaml"
    config.write_text(LEASES)

    assert run("analyze", BUNDLE, "--config", config) == 0
    _, request = json.loads((folder / "request.json").read_text())
    assert request["bundle"]["vars"]["trust_domain"] == "config.example"
    orders, clean = request["leases"]
    assert orders["operation"] == "dwh.read_orders"
    assert orders["broker"] == "warehouse"
    assert orders["place"] == (
        "credentials.brokers.warehouse.systems.dwh.operations.dwh.read_orders"
    )
    assert orders["rights"][0] == {
        "privilege": "SELECT",
        "effects": ["read", "export"],
        "kind": "table",
        "database": "sales",
        "name": "sales.orders",
        "columns": ["id"],
    }
    rights = [(one["kind"], one["privilege"], one["effects"]) for one in orders["rights"][1:]]
    assert rights == [
        ("sequence", "USAGE", ["write"]),
        ("schema", "USAGE", []),
        ("schema", "CREATE", ["write", "execute"]),
    ]
    rights = [(one["privilege"], one["effects"], one["database"]) for one in clean["rights"]]
    assert rights == [("UPDATE", ["write"], None), ("TRUNCATE", ["delete"], None)]


def test_without_a_configuration_the_analyzer_gets_no_leases(record: Record) -> None:
    """So that an analyzer of an earlier version still reads the request."""
    folder = record()

    assert run("analyze", BUNDLE) == 0
    _, request = json.loads((folder / "request.json").read_text())
    assert "leases" not in request


def test_a_configuration_that_is_not_valid_is_refused(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the analyzer runs, as a node refuses it."""
    folder = record()
    config = tmp_path / "authz.yaml"
    config.write_text(LEASES.replace("[SELECT]", "[TRIGGER]"))

    assert run("analyze", BUNDLE, "--config", config) == 3
    assert "TRIGGER" in capsys.readouterr().err
    assert not (folder / "request.json").exists()


@pytest.mark.parametrize("document", ["", "{}", "[]", '{"version": 1}', '{"findings": []}'])
def test_output_that_is_no_report_is_1(
    record: Record, document: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Never an empty list of findings."""
    folder = record()
    (folder / "report.json").write_text(document)

    assert run("analyze", BUNDLE) == 1
    said = capsys.readouterr()
    assert "analyzer" in said.err
    assert "findings" not in said.out


def test_an_analyzer_that_fails_is_1(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    """Although it wrote a whole report."""
    folder = record()
    (folder / "code").write_text("1")
    (folder / "said").write_text("out of memory")

    assert run("analyze", BUNDLE) == 1
    assert "out of memory" in capsys.readouterr().err


def test_a_bundle_that_is_not_valid_is_3(
    record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its errors at their lines, also as annotations."""
    folder = record()
    (folder / "code").write_text("3")
    defect = {"what": "unknown key `x`", "file": "people.yaml", "line": 2, "column": 1, "fix": ""}
    (folder / "said").write_text(json.dumps(defect) + "\n")

    assert run("analyze", BUNDLE) == 3
    assert "people.yaml:2:1: unknown key `x`" in capsys.readouterr().err
    assert run("analyze", BUNDLE, "--format", "github") == 3
    assert "::error file=examples/quickstart/bundle/people.yaml,line=2" in capsys.readouterr().out


def test_without_an_analyzer_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1: nothing was looked at."""
    monkeypatch.setenv("AUTHZ_ANALYZER", str(tmp_path / "none"))

    assert run("analyze", BUNDLE) == 1
    errors = capsys.readouterr().err
    assert f"pip install 'authz-runtime[analyze]=={__version__}'" in errors
    assert "make analyzer" in errors
