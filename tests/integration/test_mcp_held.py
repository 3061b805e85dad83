"""Calls that wait for a person: stock MCP clients of both SDK lines open the page, and the tool runs once."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from authz_client.v1 import approvals_pb2, authorizer_pb2, decision_pb2
from tests.support import tools
from tests.support.node import Node, decision
from tests.support.server import command
from tests.support.waiting import eventually, free_port

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests/support"
SDKS = ("1.x", "2.x", "2.x, stateless")
URL = "https://authz.corp.example/a/a1-1"


@dataclass
class Desk:
    """A node that lets a person decide; the person answers when the file appears."""

    folder: Path
    allows: bool = True
    used: int = 0

    @property
    def page_file(self) -> Path:
        """The client's user makes it by opening the page."""
        return self.folder / "opened"

    def check(self, asked: decision_pb2.CheckRequest) -> decision_pb2.CheckResponse:
        """Decides about one call."""
        if asked.operation == "crm.mcp":
            return decision("PERMITTED")
        if not self.page_file.exists() or self.used:
            challenge = {"approval_id": "a1-1", "url": URL}
            return decision("APPROVAL_REQUIRED", challenge=challenge, step_up_kinds=["approve"])
        if not self.allows:
            return decision("APPROVAL_REJECTED")
        assert asked.approval_id in {"", "a1-1"}
        self.used += 1
        return decision("PERMITTED")

    def status(self, _: approvals_pb2.ApprovalsGetRequest) -> approvals_pb2.ApprovalsGetResponse:
        """Tells whether the person has answered."""
        status = approvals_pb2.APPROVAL_STATUS_PENDING
        if self.page_file.exists():
            status = approvals_pb2.APPROVAL_STATUS_APPROVED
        return approvals_pb2.ApprovalsGetResponse(
            approval=approvals_pb2.Approval(id="a1-1", status=status)
        )

    def node(self) -> Node:
        """The node."""
        tool = authorizer_pb2.Tool(system="crm", name="delete", operation="crm.delete")
        return (
            Node()
            .says("Check", self.check)
            .says("Get", self.status)
            .says("List", authorizer_pb2.ListResponse(tools=[tool]))
        )


def _client(sdk: str, plan: dict[str, Any]) -> dict[str, Any]:
    python = tools.mcp_peers() / "python/bin/python" if sdk == "1.x" else Path(sys.executable)
    plan = {**plan, "modern": sdk.endswith("stateless")}
    done = subprocess.run(
        [str(python), str(SUPPORT / "mcp_client.py")],
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert "failed" not in found, (found, done.stderr)
    return found


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Ends what a test started."""
    with ExitStack() as made:
        yield made


@pytest.fixture(params=["authz mcp", "FastMCP"])
def run(request: pytest.FixtureRequest, stack: ExitStack, tmp_path: Path) -> Any:
    """Runs a client of a guarded FastMCP server: the guard is a command, or the middleware."""
    python = tools.fastmcp_python()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "client/src")}
    output = tmp_path / "output"
    (tmp_path / "svid.jwt").write_text("a.b.c")

    def go(
        desk: Desk, sdk: str, calls: list[Any], pages: dict[str, Any] | None, wait: float
    ) -> tuple[dict[str, Any], str]:
        address = stack.enter_context(desk.node().served(f"unix:{tmp_path}/a.sock"))
        address = address.replace("unix:", "unix://")
        plan: dict[str, Any] = {"calls": calls, **({"pages": pages} if pages else {})}
        server = [str(python), str(SUPPORT / "fastmcp_server.py")]
        if request.param == "authz mcp":
            own = ["--system", "crm", "--server", address, "--wait", str(wait)]
            token = ["--enforcer", "--agent-token", str(tmp_path / "svid.jwt")]
            bare = ["env", f"PYTHONPATH={ROOT / 'client/src'}", *server, "bare", str(output)]
            plan["command"] = [*command(), "mcp", *own, *token, "--", *bare]
        else:
            port = free_port()
            with output.open("w") as stream:
                process = subprocess.Popen(
                    [*server, str(port), address, str(wait)],
                    env=environment,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                )
            stack.callback(process.wait, 10)
            stack.callback(process.kill)
            eventually(partial(_listens, port), what="the server listens")
            plan["url"] = f"http://127.0.0.1:{port}/mcp"
            plan["headers"] = {"authorization": "Bearer a.b.c"}
        return _client(sdk, plan), output.read_text() if output.exists() else ""

    return go


def _listens(port: int) -> bool:
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
    return True


CALL = ("delete", {"page": "7"})


@pytest.mark.parametrize("sdk", SDKS)
def test_a_client_that_opens_pages_gets_its_answer_in_one_call(
    run: Any, tmp_path: Path, sdk: str
) -> None:
    """The user opens the page once, and the tool runs once; the next call is asked anew."""
    desk = Desk(tmp_path)
    pages = {"action": "accept", "touch": str(desk.page_file)}
    done, ran = run(desk, sdk, [CALL], pages, 20)
    (page,) = done["pages"]
    assert (page["mode"], page["url"]) == ("url", URL)
    assert "page" in page["message"]
    assert "7" not in page["message"].rpartition(":")[0]
    (call,) = done["calls"]
    assert (call["is_error"], call["text"]) == (False, "deleted")
    assert ran.count("ran delete 7") == 1
    assert desk.used == 1


@pytest.mark.parametrize("sdk", [SDKS[0], SDKS[2]])
def test_a_person_who_rejects_is_heard(run: Any, tmp_path: Path, sdk: str) -> None:
    """The model reads that the operation may not be performed; the tool does not run."""
    desk = Desk(tmp_path, allows=False)
    pages = {"action": "accept", "touch": str(desk.page_file)}
    done, ran = run(desk, sdk, [CALL], pages, 20)
    (call,) = done["calls"]
    assert call["is_error"] is True
    assert call["text"].startswith("The operation may not be performed.")
    assert "ran delete" not in ran


@pytest.mark.parametrize("sdk", [SDKS[0], SDKS[2]])
def test_a_user_who_declines_ends_the_call(run: Any, tmp_path: Path, sdk: str) -> None:
    """The session goes on."""
    desk = Desk(tmp_path)
    done, ran = run(desk, sdk, [CALL, CALL], {"action": "decline"}, 20)
    for call in done["calls"]:
        assert call["is_error"] is True
        assert "did not open the page" in call["text"]
    assert "ran delete" not in ran


@pytest.mark.parametrize("sdk", SDKS)
def test_a_client_without_pages_reads_the_address_and_calls_again(
    run: Any, tmp_path: Path, sdk: str
) -> None:
    """The second call, after the answer, runs the tool."""
    desk = Desk(tmp_path)
    touch = {"ready": str(desk.page_file), "until": str(desk.page_file)}
    done, ran = run(desk, sdk, [CALL, ("wait", touch), CALL], None, 20)
    first, _, second = done["calls"]
    assert first["is_error"] is True
    assert URL in first["text"]
    assert (second["is_error"], second["text"]) == (False, "deleted")
    assert ran.count("ran delete 7") == 1


@pytest.mark.parametrize("sdk", [SDKS[0], SDKS[2]])
def test_nobody_who_answers_ends_the_wait(run: Any, tmp_path: Path, sdk: str) -> None:
    """Within the time of the guard, or after some rounds, the model reads the page's address."""
    done, ran = run(Desk(tmp_path), sdk, [CALL], {"action": "accept"}, 0.3)
    (call,) = done["calls"]
    assert call["is_error"] is True
    assert URL in call["text"]
    assert len(done["pages"]) == 1
    assert "ran delete" not in ran
