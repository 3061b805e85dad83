"""Tasks on a running server: both lanes see what the service changed, at once, and after a restart."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2, status_pb2

from authz.cli import main
from authz_client.v1 import admin_pb2, decision_pb2, tasks_pb2
from tests.support.minting import Authority
from tests.support.server import Server, code_of, command, layout
from tests.support.surfaces import CHECK, LANES, decision_of, outcome, reason_name

AGENTS = "spiffe://a.example/ns/support/sa"
ORCH, PEER, SUB = f"{AGENTS}/orch", f"{AGENTS}/peer", f"{AGENTS}/sub"
Answer = TypeVar("Answer", bound=Message)


class Desk:
    """A server with the bundle `tasks`, and those who call it."""

    def __init__(self, server: Server, authority: Authority) -> None:
        self.server = server
        self.authority = authority
        self.alice = authority.subject("alice", groups=["employees"])
        self.alone = authority.alone("alice", groups=["employees"])

    def evidence(self, *tokens: str) -> list[decision_pb2.Evidence]:
        """Makes evidence of agents (by SPIFFE id) and Alice."""
        made = []
        for token in tokens:
            is_agent = token.startswith("spiffe:")
            role = (
                decision_pb2.EVIDENCE_ROLE_AGENT if is_agent else decision_pb2.EVIDENCE_ROLE_SUBJECT
            )
            made.append(
                decision_pb2.Evidence(
                    role=role,
                    scheme=decision_pb2.EVIDENCE_SCHEME_BEARER,
                    token=self.authority.agent(token) if is_agent else token,
                )
            )
        return made

    def call(self, method: str, request: Message, answer: Answer, listener: str = "main") -> Answer:
        """Calls the service."""
        data = self.server.call(listener, f"authz.v1.Tasks/{method}", request.SerializeToString())
        answer.ParseFromString(data)
        return answer

    def start(self, **more: Any) -> tasks_pb2.Task:
        """Starts Alice's task of the orchestrator."""
        params = Struct()
        params.update({"customer": "acme", "most": 5})
        request = tasks_pb2.StartRequest(
            **{
                "evidence": self.evidence(ORCH, self.alice),
                "template": "answer",
                "params": params,
                **more,
            }
        )
        return self.call("Start", request, tasks_pb2.StartResponse()).task

    def delegate(self, parent: str, by: str, to: str, *operations: str) -> tasks_pb2.Task:
        """Delegates."""
        request = tasks_pb2.DelegateRequest(
            evidence=self.evidence(by),
            parent=parent,
            assignee=to,
            scope=[tasks_pb2.ScopeEntry(operation=operation) for operation in operations],
        )
        return self.call("Delegate", request, tasks_pb2.DelegateResponse()).task

    def end(self, task: str, by: str, status: str = "COMPLETED") -> int:
        """Ends."""
        value = tasks_pb2.TaskStatus.Value(f"TASK_STATUS_{status}")
        request = tasks_pb2.EndRequest(evidence=self.evidence(by), task=task, status=value)
        return int(self.call("End", request, tasks_pb2.EndResponse()).ended)

    def check(
        self, listener: str, task: str, by: str, operation: str, **arguments: Any
    ) -> decision_pb2.Decision:
        """Asks for a decision."""
        request = decision_pb2.CheckRequest(
            evidence=self.evidence(by),
            task=task,
            operation=operation,
            arguments_json=json.dumps(arguments).encode(),
        )
        return decision_of(self.server.call(listener, CHECK, request.SerializeToString()))

    def codes(self, task: str, by: str, operation: str, **arguments: Any) -> set[str]:
        """Asks both lanes."""
        return {
            reason_name(self.check(f"main{lane}", task, by, operation, **arguments))
            for lane in LANES
        }


@pytest.fixture
def desk(authority: Authority, tmp_path: Path) -> Iterator[Desk]:
    """A server of the test's own."""
    with Server(layout(tmp_path, authority, "tasks")) as running:
        yield Desk(running, authority)


def refused(error: grpc.RpcError) -> str:
    """Returns the reason of an RPC error."""
    call: Any = error
    trailing = dict(call.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return str(info.reason)


def names_of_task(
    desk: Desk, capsys: pytest.CaptureFixture[str], task: str, *more: str
) -> tuple[int, str]:
    """Runs `authz task names --task`. Returns its exit code and its output."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        main(["task", "names", "--task", task, "--admin", desk.server.address("admin"), *more])
    code = done.value.code or 0
    assert isinstance(code, int)
    return code, capsys.readouterr().out


def test_the_command_says_what_a_live_task_names(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who said how many words, which parameters name, and what a value has or lacks; never the prompt."""
    task = desk.start(
        evidence=desk.evidence(desk.alone),
        assignee=ORCH,
        prompt="Ask carol@corp.example about parcels. Never write to eve@evil.example.",
    ).id
    values = ("--value", "email:carol@corp.example", "--value", "email:eve@evil.example")

    code, shown = names_of_task(desk, capsys, task, *values, "--format", "json")

    assert code == 1
    answer = json.loads(shown)
    assert [(one["value"], one["origin"]) for one in answer["values"]] == [
        ("email:carol@corp.example", "named"),
        ("email:eve@evil.example", "unknown"),
    ]
    assert "the user's prompt" in answer["values"][0]["why"]
    assert "negated" in answer["values"][1]["missing"]
    assert "customer" in answer["parameters"]
    assert [one["by"] for one in answer["spoken"]] == ["user", "harness", "agent"]
    assert answer["spoken"][0]["words"] > 5
    code, shown = names_of_task(desk, capsys, task, *values[:2])
    assert code == 0
    assert "cannot show their words" in shown
    assert "parcels" not in shown
    claimed = desk.start(prompt="Ask carol@corp.example about parcels").id
    code, shown = names_of_task(desk, capsys, claimed, *values[:2], "--format", "json")
    assert (code, json.loads(shown)["values"][0]["origin"]) == (1, "claimed")


def test_the_command_asks_about_a_prompt_or_about_a_task(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each wrong question has an error that says what to write; and only the administration socket answers."""
    task = desk.start().id
    for arguments, what in [
        (["--task", task, "--value", "bob"], "`<collection>/<id>`"),
        (["--task", task, "--value", "1", "--collection", "nothing"], "no operation has a value"),
        (["--task", "0" * 36], "no such task"),
        (["--task", task, "A prompt"], "not both"),
        (["--system", "crm", "A prompt"], "need --task"),
        ([], "give a prompt"),
    ]:
        with pytest.raises(SystemExit) as refused:
            main(["task", "names", *arguments, "--admin", desk.server.address("admin")])
        assert refused.value.code not in {0, None}, arguments
        assert what in capsys.readouterr().err.replace("\n", " "), arguments
    request = admin_pb2.TaskNamesRequest(task=task).SerializeToString()
    with pytest.raises(grpc.RpcError) as elsewhere:
        desk.server.call("main", "authz.v1.Admin/TaskNames", request)
    assert code_of(elsewhere.value) == grpc.StatusCode.UNIMPLEMENTED


def test_a_task_bounds_what_is_done_in_it(desk: Desk) -> None:
    """In scope, out of scope, without a task, by another agent, and uses across both lanes."""
    task = desk.start()
    assert (task.assignee, task.subject, task.depth) == (ORCH, "corp/alice", 0)
    assert desk.codes(task.id, ORCH, "crm.read", id="acme/1") == {"PERMITTED"}
    assert desk.codes(task.id, ORCH, "crm.read", id="other/1") == {"OUT_OF_SCOPE"}
    assert desk.codes(task.id, ORCH, "crm.delete", id="acme") == {"OUT_OF_SCOPE"}
    assert desk.codes("", ORCH, "crm.read", id="acme/1") == {"NO_TASK"}
    assert desk.codes(task.id, PEER, "crm.read", id="acme/1") == {"NOT_ASSIGNEE"}
    assert desk.codes("0" * 36, ORCH, "crm.read", id="acme/1") == {"UNKNOWN_TASK"}
    refund = {"id": "acme", "amount": 5, "reason": "late"}
    # Two uses, one by each lane.
    assert desk.codes(task.id, ORCH, "crm.refund", **refund) == {"PERMITTED"}
    assert desk.codes(task.id, ORCH, "crm.refund", **refund) == {"USES_EXHAUSTED"}


def test_both_lanes_answer_the_same_bytes(desk: Desk) -> None:
    """But for ids and times."""
    task = desk.start()

    def told(listener: str) -> decision_pb2.Decision:
        decision = desk.check(listener, task.id, ORCH, "crm.read", id="acme/1")
        decision.ClearField("decision_id")
        decision.ClearField("decided_at")
        return decision

    assert told("main") == told("main-fast")


def test_what_is_delegated_is_less(desk: Desk) -> None:
    """A child does no more than its parent, and no deeper; a peer that is asked to do it has the whole chain."""
    root = desk.start(
        evidence=desk.evidence(desk.alone), assignee=ORCH, prompt="Answer bob@customer.example"
    )
    child = desk.delegate(root.id, ORCH, SUB, "mail.send")
    assert (child.parent, child.session, child.depth) == (root.id, root.session, 1)
    with pytest.raises(grpc.RpcError) as wider:
        desk.delegate(child.id, SUB, PEER, "crm.refund")
    assert refused(wider.value) == "OUT_OF_SCOPE"
    assert "operation" in str(wider.value.details())
    with pytest.raises(grpc.RpcError) as others:
        desk.delegate(root.id, PEER, SUB)
    assert refused(others.value) == "NOT_ASSIGNEE"
    below = desk.delegate(child.id, SUB, PEER)
    with pytest.raises(grpc.RpcError) as deep:
        desk.delegate(below.id, PEER, SUB)
    assert refused(deep.value) == "TOO_DEEP"
    mail = {"to": ["bob@customer.example"]}
    # The peer may send by itself, but not for one that may not.
    assert desk.codes(below.id, PEER, "mail.send", **mail) == {"CHAIN_NOT_PERMITTED"}
    direct = desk.delegate(root.id, ORCH, PEER, "mail.send")
    assert desk.codes(direct.id, PEER, "mail.send", **mail) == {"PERMITTED"}
    assert desk.codes(root.id, PEER, "mail.send", **mail) == {"NOT_ASSIGNEE"}


def test_the_end_of_a_task_is_the_end_of_all_below_it(desk: Desk) -> None:
    """Both lanes refuse at once."""
    root = desk.start()
    child = desk.delegate(root.id, ORCH, SUB)
    assert desk.codes(child.id, SUB, "crm.read", id="acme/1") == {"PERMITTED"}
    assert desk.end(root.id, ORCH) == 2
    assert desk.codes(child.id, SUB, "crm.read", id="acme/1") == {"TASK_ENDED"}
    assert desk.codes(root.id, ORCH, "crm.read", id="acme/1") == {"TASK_ENDED"}


def test_tasks_outlive_the_server(desk: Desk) -> None:
    """Live ones live, ended ones stay ended, and what was used stays used."""
    task, done = desk.start(), desk.start()
    refund = {"id": "acme", "amount": 5, "reason": "late"}
    assert desk.codes(task.id, ORCH, "crm.refund", **refund) == {"PERMITTED"}
    assert desk.end(done.id, ORCH) == 1
    desk.server.close()
    desk.server.start()
    assert desk.codes(task.id, ORCH, "crm.read", id="acme/1") == {"PERMITTED"}
    assert desk.codes(task.id, ORCH, "crm.refund", **refund) == {"USES_EXHAUSTED"}
    assert desk.codes(done.id, ORCH, "crm.read", id="acme/1") == {"TASK_ENDED"}


def test_one_key_starts_one_task(desk: Desk) -> None:
    """A caller that did not hear the answer asks again."""
    assert desk.start(idempotency_key="k").id == desk.start(idempotency_key="k").id
    with pytest.raises(grpc.RpcError) as other:
        desk.start(idempotency_key="k", prompt="other")
    assert refused(other.value) == "IDEMPOTENCY_CONFLICT"


def test_time_ends_a_task(desk: Desk) -> None:
    """An earlier end than the template's counts to the moment."""
    deadline = tasks_pb2.StartRequest().deadline
    ends = time.time() + 5
    deadline.FromMilliseconds(int(ends * 1000))
    task = desk.start(deadline=deadline)
    assert desk.codes(task.id, ORCH, "crm.read", id="acme/1") == {"PERMITTED"}
    time.sleep(max(0.0, ends - time.time()) + 0.1)
    assert desk.codes(task.id, ORCH, "crm.read", id="acme/1") == {"TASK_ENDED"}


def test_the_fast_lane_has_no_service(desk: Desk) -> None:
    """It answers decisions only."""
    with pytest.raises(grpc.RpcError) as raised:
        desk.call("Start", tasks_pb2.StartRequest(), tasks_pb2.StartResponse(), "main-fast")
    assert refused(raised.value) == "UNIMPLEMENTED"


def test_the_record_says_in_which_task(desk: Desk) -> None:
    """Of decisions, and of what became of tasks."""
    task = desk.start()
    decision = desk.check("main-fast", task.id, ORCH, "crm.read", id="acme/1")
    assert outcome(decision) == "PERMIT"
    record = desk.server.record(decision.decision_id)
    assert record["input"]["task"] == {
        "id": task.id,
        "session": task.session,
        "template": "answer",
        "kind": "root",
        "depth": 0,
        "subject_proof": "verified",
        "assignee": ORCH,
    }
    assert [link["proof"] for link in record["input"]["chain"]] == ["task", "jwt-svid"]


def test_templates_are_proposed_from_a_tree_of_tasks(desk: Desk) -> None:
    """All calls of a tree are one session; one that the scope denied makes the session count for nothing."""
    for is_denied in (False, True):
        task = desk.start()
        assert desk.codes(task.id, ORCH, "crm.read", id="acme/1") == {"PERMITTED"}
        child = desk.delegate(task.id, ORCH, SUB)
        assert desk.codes(child.id, SUB, "crm.read", id="acme/2") == {"PERMITTED"}
        if is_denied:
            assert desk.codes(task.id, ORCH, "crm.read", id="globex/1") == {"OUT_OF_SCOPE"}
    few = ("--min-sessions", "1", "--min-subjects", "1", "--format", "json")
    line = [*command(), "propose", "--templates", *few, "-c", str(desk.server.place.file)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["sessions"]["observed"] == 2
    assert document["sessions"]["with_denials"] == {"OUT_OF_SCOPE": 1}
    (proposed,) = document["templates"]
    assert proposed["template"]["max_depth"] == 1
    scope = [{"operation": "crm.read", "resources": {"path_prefix": "acme"}}]
    assert proposed["template"]["scope"] == scope
    (example,) = proposed["examples"]
    assert example["operations"] == ["crm.read"] * 4


def test_the_command(desk: Desk, tmp_path: Path) -> None:
    """Start and delegate with tokens; list, get, end as the owner of the administration socket."""
    server = desk.server
    tokens = {}
    for name, token in (
        ("orch", desk.authority.agent(ORCH)),
        ("alice", desk.alice),
        ("alone", desk.alone),
    ):
        tokens[name] = tmp_path / f"{name}.jwt"
        tokens[name].write_text(token)

    def run(*arguments: str, admin: bool = False) -> Any:
        address = server.address("admin" if admin else "main")
        line = [*command(), "task", *arguments, "--server", address, "--format", "json"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    orch, alice = str(tokens["orch"]), str(tokens["alice"])
    by = ("--agent-token", orch)
    start = ("start", "answer", "--param", "customer=acme", "--param", "most=5")
    root = run(*start, *by, "--subject-token", alice)["tasks"][0]
    child = run("delegate", root["id"], SUB, "--operation", "mail.send", *by)["tasks"][0]
    assert child["parent"] == root["id"]
    own = ("--subject-token", str(tokens["alone"]))
    claimed = run("extend", root["id"], "also eve@corp.example", "--subject-token", alice)
    named = run("extend", root["id"], "also eve@corp.example", *own)
    counts = [(task.get("named"), task["claimed"]) for task in (claimed["tasks"] + named["tasks"])]
    assert counts == [(None, 1), (1, 1)]
    listed = run("list", "--session", root["session"], admin=True)["tasks"]
    assert {task["id"] for task in listed} == {root["id"], child["id"]}
    assert run("get", child["id"], admin=True)["tasks"][0]["assignee"] == SUB
    assert run("end", root["id"], "--status", "aborted", admin=True)["ended"] == 2
    assert run("list", "--status", "active", admin=True)["tasks"] == []
