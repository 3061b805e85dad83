"""The guide's Python runs as printed."""

import asyncio
import re
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz.v1 import tasks_pb2
from tests.support.node import NoAnswer, Node, decision

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/guides/sdk.md"
PEER = "spiffe://dev.example/ns/support/sa/peer"


def test_the_guide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every block in order, in one namespace, with sockets and files of this test."""
    monkeypatch.chdir(ROOT)
    token = tmp_path / "svid.jwt"
    token.write_text("svid")
    blocks = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 8
    guide: dict[str, Any] = {}
    node = Node()
    with node.served(f"unix:{tmp_path}/a.sock"):
        for block in blocks:
            code = block.replace("/run/authz/authz.sock", f"{tmp_path}/a.sock")
            code = code.replace("/run/authz/crm.sock", f"{tmp_path}/a.sock")
            code = code.replace("/run/spiffe/svid.jwt", str(token))
            exec(compile(code, GUIDE.name, "exec"), guide)
        _agent(guide, node)
        _server(guide, node)
        guide["authz"].close()
        guide["server"].close()
    printed = capsys.readouterr().out
    assert "working on task-1" in printed
    assert f"ask {PEER} with {{'authz-task': 'task-3'}} for task-3" in printed


def _agent(guide: dict[str, Any], node: Node) -> None:
    authz = guide["authz"]
    authz.timeout = 10

    async def main() -> None:
        await guide["answer_ticket"]("alice", "Answer T-1 from bob@acme.example")
        async with authz.task("answer-ticket") as task:
            await guide["hand_on"](task, PEER)
        assert await guide["try_to_search"]() == "ticket T-1"
        node.says("Check", decision("APPROVAL_REQUIRED", step_up_kinds=["approve"]))
        assert await guide["try_to_search"]() == "needs approve: "
        node.says("Check", decision("FORBIDDEN"))
        assert "may not be performed" in await guide["try_to_search"]()
        node.says("Check", NoAnswer(grpc.StatusCode.INTERNAL))
        assert (await guide["try_to_search"]()).startswith("LATER: ")
        node.says("Check")
        await guide["http"].aclose()
        await authz.aclose()

    asyncio.run(main())
    assert {node.status(task) for task in node.started} == {"COMPLETED"}
    assert {request.task for request in node.requests("Check")[:2]} == {"task-1"}
    (delegated,) = node.requests("Delegate")
    assert delegated.scope[1] == tasks_pb2.ScopeEntry(
        operation="gmail.send_email",
        uses=1,
        arguments={
            "/to": tasks_pb2.ArgumentLimit(
                one_of=tasks_pb2.StringValues(values=["bob@acme.example"])
            )
        },
    )


def _server(guide: dict[str, Any], node: Node) -> None:
    guide["server"].timeout = 10
    headers = {"authorization": "Bearer caller", "authz-task": "task-9"}
    assert guide["handle"](headers, "42") == "customer 42"
    asked = node.requests("Check")[-1]
    assert (asked.task, asked.evidence[0].token) == ("task-9", "caller")
    assert list(asked.supported_obligations) == ["redact:pii"]
    node.says("Check", decision("PERMITTED", obligations=["redact:pii"]))
    assert guide["handle"](headers, "42") == "customer **"
    assert guide["shown"]([{"name": "get"}], headers) == []
