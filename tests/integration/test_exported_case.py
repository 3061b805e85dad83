"""A path that the analysis finds is one for a server: the exported case, replayed over gRPC, is permitted until the cut is applied."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from google.protobuf import json_format

from authz.analysis.executable import find_analyzer
from authz.cli import main
from authz.errors import UsageError
from authz_client.v1 import admin_pb2, tasks_pb2, tasks_pb2_grpc
from tests.support.minting import DOMAIN, Authority
from tests.support.people import check
from tests.support.server import Server, layout
from tests.support.surfaces import CHECK, decision_of, outcome
from tests.support.working import evidence

COMPANY: Final = Path(__file__).resolve().parents[2] / "examples" / "company"
RULE: Final = (
    'when { context.uncleared_labels.containsAny([Label::"pii", Label::"customer-record"]) }'
)
HOLE: Final = 'unless { action == Action::"tickets.reply" && context.destination.class == DestinationClass::"customers" }'
ASSERTION: Final = "assertion:no-record-to-a-customer-after-strangers-text"


def _is_built() -> bool:
    try:
        find_analyzer()
    except UsageError:
        return False
    return importlib.util.find_spec("cvc5") is not None


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _is_built(), reason="needs `make analyzer` and the solver"),
]


def run(*arguments: str | Path) -> int:
    """Run a command and give its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def holed(tmp_path: Path) -> Path:
    """The bundle of the company, with a hole, in the trust domain of the tests."""
    folder = tmp_path / "bundle"
    shutil.copytree(COMPANY, folder)
    for file in (folder / "people.yaml", *(folder / "tests").glob("*.yaml")):
        file.write_text(
            file.read_text().replace("spiffe://larkfield.example", f"spiffe://{DOMAIN}")
        )
    policies = folder / "policies" / "data.cedar"
    text = policies.read_text()
    assert text.count(RULE) == 1
    policies.write_text(text.replace(RULE, f"{RULE}\n{HOLE}"))
    return folder


@pytest.fixture
def finding(holed: Path, tmp_path: Path) -> dict[str, Any]:
    """The path that breaks the assertion."""
    file = tmp_path / "report.json"
    assert run("analyze", holed, "--format", "json", "--output", file) == 2
    (found,) = [one for one in json.loads(file.read_text())["findings"] if one["rule"] == ASSERTION]
    assert found["verdict"] == "path_found"
    result: dict[str, Any] = found
    return result


def replay(server: Server, authority: Authority, case: str) -> list[str]:
    """Make the calls of a case to a server, and give the outcomes."""
    document = yaml.safe_load(case)
    fixtures = document["fixtures"]
    (trace,) = document["tests"]
    tasks: dict[str, str] = {}
    outcomes: list[str] = []
    for step in trace["steps"]:
        if start := step.get("start"):
            subject = fixtures["subjects"][start["subject"]]
            token = authority.alone(subject["sub"], subject["issuer"], **subject["claims"])
            request = tasks_pb2.StartRequest(
                evidence=[evidence(token, of_subject=True)],
                template=start["template"],
                assignee=fixtures["agents"][start["agent"]],
            )
            json_format.ParseDict(start["params"], request.params)
            stub: Any = tasks_pb2_grpc.TasksStub(server.channel("main"))
            tasks[start["name"]] = stub.Start(request, timeout=30, wait_for_ready=True).task.id
            continue
        agent = authority.agent(fixtures["agents"][step["as"]["agent"]])
        call = check(step["call"], json.dumps(step["input"]).encode(), agent=agent)
        call.task = tasks[step["task"]]
        answer = decision_of(server.call("main", CHECK, call.SerializeToString()))
        outcomes.append(outcome(answer))
    return outcomes


def test_an_exported_case_is_a_path_for_a_server_until_its_cut(
    holed: Path,
    finding: dict[str, Any],
    authority: Authority,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The case fails and the server permits the last call while the hole is there; with the cut the case passes, and the call is held."""
    assert [step["operation"] for step in finding["path"]][-3:] == [
        "tickets.read",
        "crm.get_customer",
        "tickets.reply",
    ]
    case = holed / "tests" / "path.yaml"
    case.write_text(finding["case"])
    assert run("test", holed, "--format", "github") == 2
    assert "expected outcome: STEP_UP; got outcome: PERMIT" in capsys.readouterr().out
    case.unlink()
    with Server(layout(tmp_path / "node", authority, holed, {"vars": None})) as server:
        assert replay(server, authority, finding["case"]) == ["PERMIT", "PERMIT", "PERMIT"]

        (change,) = finding["cut"]["changes"]
        assert finding["cut"]["exact"]
        for folder in (holed, tmp_path / "node" / "bundle"):
            (folder / "policies" / "cut.cedar").write_text(change["text"])
        reloaded = server.call("admin", "authz.v1.Admin/Reload", b"")
        assert list(admin_pb2.ReloadResponse.FromString(reloaded).diagnostics) == []
        assert replay(server, authority, finding["case"]) == ["PERMIT", "PERMIT", "STEP_UP"]
    case.write_text(finding["case"])
    capsys.readouterr()
    assert run("test", holed) == 0, capsys.readouterr().out
