"""Tools of LangGraph and of the OpenAI Agents SDK that wait for a person, with a scripted model: each runs once, or not at all."""

import json
import os
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from authz_client.v1 import approvals_pb2, decision_pb2
from tests.support import tools
from tests.support.node import Node, decision

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
FRAMEWORKS = ["langgraph", "openai"]
STRANGER, FRIEND = "eve@other.example", "bob@corp.example"
PAGE = "https://authz.corp.example/a/"


@dataclass
class Desk:
    """A node that permits mails to friends, and asks a person about others; the person answers once the agent waits."""

    allows: bool = True
    is_staffed: bool = True
    answered: threading.Event = field(default_factory=threading.Event)
    used: list[str] = field(default_factory=list)

    def node(self) -> Node:
        """The node."""
        return Node().says("Check", self._check).says("Get", self._get)

    def _check(self, asked: decision_pb2.CheckRequest) -> decision_pb2.CheckResponse:
        to = json.loads(asked.arguments_json)["to"]
        if to == FRIEND:
            self.used.append(to)
            return decision("PERMITTED")
        if not self.is_staffed:
            return decision("APPROVAL_REQUIRED", step_up_kinds=["approve:desk"])
        if not self.answered.is_set() or to in self.used:
            challenge = {"approval_id": "a1-1", "url": f"{PAGE}a1-1"}
            return decision("APPROVAL_REQUIRED", challenge=challenge, step_up_kinds=["approve"])
        if not self.allows:
            return decision("APPROVAL_REJECTED")
        self.used.append(to)
        return decision("PERMITTED")

    def _get(self, asked: approvals_pb2.ApprovalsGetRequest) -> approvals_pb2.ApprovalsGetResponse:
        # The first question of the agent that waits is before the answer.
        status = approvals_pb2.APPROVAL_STATUS_PENDING
        if self.answered.is_set():
            status = approvals_pb2.APPROVAL_STATUS_REJECTED
            if self.allows:
                status = approvals_pb2.APPROVAL_STATUS_APPROVED
        self.answered.set()
        reason = "wrong_recipient" if status == approvals_pb2.APPROVAL_STATUS_REJECTED else ""
        approval = approvals_pb2.Approval(id=asked.approval_id, status=status, reject_reason=reason)
        return approvals_pb2.ApprovalsGetResponse(approval=approval)


def run(framework: str, desk: Desk, folder: Path, *mails: tuple[str, str]) -> tuple[str, str]:
    """Runs an agent; its last words, and its output."""
    python = tools.agents_python()
    path = os.pathsep.join(str(ROOT / part) for part in ("client/src", "examples/agents"))
    with desk.node().served(f"unix:{folder}/a.sock") as address:
        done = subprocess.run(
            [
                *(str(python), str(ROOT / "tests/support/agents_run.py"), framework),
                *(address.replace("unix:", "unix://"), json.dumps(mails)),
            ],
            env={**os.environ, "PYTHONPATH": path, "OPENAI_API_KEY": "none"},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    *output, last = done.stdout.splitlines()
    answer: dict[str, Any] = json.loads(last)
    return str(answer["answer"]), "\n".join(output)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_held_tool_runs_once_after_the_answer(framework: str, tmp_path: Path) -> None:
    """The run is interrupted, names the page, goes on after the answer, and the model gets the tool's result."""
    desk = Desk()
    answer, output = run(framework, desk, tmp_path, (STRANGER, "hello"))
    assert answer == f"sent to {STRANGER}"
    assert output.count(f"{PAGE}a1-1") == 1
    assert output.count("sent to") == 1
    assert desk.used == [STRANGER]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_rejected_tool_does_not_run(framework: str, tmp_path: Path) -> None:
    """The model reads that a person rejected it, or that it may not be performed."""
    desk = Desk(allows=False)
    answer, output = run(framework, desk, tmp_path, (STRANGER, "hello"))
    assert "sent to" not in output
    expected = {
        "langgraph": "The operation may not be performed.",
        "openai": "A person rejected it: wrong_recipient.",
    }
    assert expected[framework] in answer
    assert desk.used == []


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_permitted_tool_beside_a_held_one_runs_once(framework: str, tmp_path: Path) -> None:
    """Although the framework goes through the step of both again."""
    desk = Desk()
    mails = ((FRIEND, "first"), (STRANGER, "second"))
    answer, output = run(framework, desk, tmp_path, *mails)
    assert answer == f"sent to {FRIEND} | sent to {STRANGER}"
    assert output.count(f"sent to {FRIEND}: first") == 1
    assert output.count(f"sent to {STRANGER}: second") == 1
    assert sorted(desk.used) == sorted([FRIEND, STRANGER])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_call_that_nobody_can_allow_is_refused_at_once(framework: str, tmp_path: Path) -> None:
    """The model reads it, and the run is not interrupted."""
    answer, output = run(framework, Desk(is_staffed=False), tmp_path, (STRANGER, "hello"))
    assert "sent to" not in output
    assert "a person with the role desk, and nobody can be asked here" in answer


def test_a_graph_that_is_resumed_too_early_waits_again(tmp_path: Path) -> None:
    """Another agent on the same thread then goes on, with tools that are coroutines."""
    desk = Desk()
    answer, output = run("langgraph-early", desk, tmp_path, (STRANGER, "hello"))
    assert answer == f"sent to {STRANGER}"
    assert f"still held: {PAGE}a1-1" in output
    assert output.count("sent to") == 1


def test_an_approval_of_the_sdk_permits_nothing(tmp_path: Path) -> None:
    """The node is asked before the tool runs, and the model reads that a person must answer."""
    desk = Desk()
    answer, output = run("openai-early", desk, tmp_path, (STRANGER, "hello"))
    assert "sent to" not in output
    assert f"{PAGE}a1-1" in answer
    assert desk.used == []


def test_a_stored_state_goes_on_elsewhere(tmp_path: Path) -> None:
    """With guarded tools that did not make the call."""
    desk = Desk()
    answer, output = run("openai-stored", desk, tmp_path, (STRANGER, "hello"))
    assert answer == f"sent to {STRANGER}"
    assert "answered: True" in output
    assert output.count("sent to") == 1
