"""The guide's Python runs as printed."""

import asyncio
import re
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz_client import Caller, Denied, acting_for, caller
from authz_client.v1 import tasks_pb2
from tests.support.minting import Authority
from tests.support.node import NoAnswer, Node, decision
from tests.support.server import Server, layout

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/guides/sdk.md"
AGENTS = "spiffe://a.example/ns/support/sa"
BOT = f"{AGENTS}/bot"
PEER = "spiffe://dev.example/ns/support/sa/peer"


def run_guide(agent: str, server: str, token: Path) -> dict[str, Any]:
    """Runs the blocks in order, in one namespace, with sockets and files of a test; returns the namespace.

    A block after a comment `<!-- not run: … -->` is left out.
    """
    text = re.sub(
        r"^<!-- not run: [^\n]* -->\n```python\n.*?^```$",
        "",
        GUIDE.read_text(),
        flags=re.MULTILINE | re.DOTALL,
    )
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 8
    guide: dict[str, Any] = {}
    for block in blocks:
        code = block.replace("unix:///run/authz/authz.sock", agent)
        code = code.replace("unix:///run/authz/crm.sock", server)
        code = code.replace("/run/spiffe/svid.jwt", str(token))
        exec(compile(code, GUIDE.name, "exec"), guide)
    for name in ("authz", "server"):
        guide[name].timeout = 20
    return guide


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide names folders from the root of the tree."""
    monkeypatch.chdir(ROOT)


def test_the_guide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With every kind of answer, from a node that gives it."""
    token = tmp_path / "svid.jwt"
    token.write_text("svid")
    node = Node()
    socket = f"unix://{tmp_path}/a.sock"
    with node.served(f"unix:{tmp_path}/a.sock"):
        guide = run_guide(socket, socket, token)
        _agent(guide, node)
        _server(guide, node)
        guide["authz"].close()
        guide["server"].close()
    printed = capsys.readouterr().out
    assert "working on task-1" in printed
    assert f"ask {PEER} with {{'authz-task': 'task-3'}} for task-3" in printed


def _agent(guide: dict[str, Any], node: Node) -> None:
    authz = guide["authz"]

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
    headers = {"authorization": "Bearer caller", "authz-task": "task-9"}
    assert guide["handle"](headers, "42") == "customer 42"
    asked = node.requests("Check")[-1]
    assert (asked.task, asked.evidence[0].token) == ("task-9", "caller")
    assert list(asked.supported_obligations) == ["redact:pii"]
    node.says("Check", decision("PERMITTED", obligations=["redact:pii"]))
    assert guide["handle"](headers, "42") == "customer **"
    assert guide["shown"]([{"name": "get"}], headers) == []
    node.says("Check", decision("PERMITTED", reservation_id="open", yields=["pii", "vip"]))
    with caller(Caller.from_headers(headers)):
        assert guide["find"]("42") == ["customer 42"]
        assert guide["find"]("7") == ["customer 7"]
    told = [(one.decision_id, list(one.labels)) for one in node.requests("Report")]
    assert told == [("open", ["vip"]), ("open", ["pii"])]
    assert guide["server"].reports.lost == 0


FACTS = """
agents: {support-agent: {match: ["spiffe://${trust_domain}/ns/support/sa/*"], harness: true}}
subjects: {staff: {issuer: corp, claim: groups, contains: employees}}
resources: {customers: {}}
destinations: {all: {match: "*", clearance: []}}
catalog:
  crm:
    kind: http
    origin: https://crm.example
    operations:
      search: {input: {type: object, properties: {query: {type: string}, limit: {type: integer}}, required: [query]}}
      get: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
  gmail:
    kind: http
    origin: https://gmail.example
    operations:
      send_email:
        input:
          type: object
          properties: {to: {type: array, items: {type: string}}, subject: {type: string}, body: {type: string}}
          required: [to]
classify:
  - {match: "crm.*", effects: [read], tier: standard, resource: {collection: customers}}
  - {match: gmail.send_email, effects: [export], tier: standard, destination: {from: [/to], type: email}}
templates:
  answer-ticket:
    purpose: answer one ticket
    params: {ticket: String}
    deadline: 30m
    max_depth: 1
    starters: [support-agent]
    scope: [{system: crm, effects: [read]}, {operation: gmail.send_email, uses: 3}]
"""
POLICIES = """
@id("staff") @reason("staff may") permit(principal in Role::"staff", action, resource);
@id("agents") @reason("agents may") permit(principal in Role::"support-agent", action, resource);
@id("named-only") @reason("the user did not name the recipient")
forbid(principal, action == Action::"gmail.send_email", resource) unless { context.destination.trusted };
"""


def test_the_guide_on_a_server(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the guide's agent and tool server do is permitted there, and what they were not given is not."""
    bundle = tmp_path / "bundle"
    (bundle / "policies").mkdir(parents=True)
    (bundle / "bundle.yaml").write_text("name: guide\n")
    (bundle / "facts.yaml").write_text(FACTS)
    (bundle / "policies/all.cedar").write_text(POLICIES)
    token, bot = tmp_path / "svid.jwt", authority.agent(BOT)
    token.write_text(bot)
    alice = authority.subject("alice", groups=["employees"])
    with Server(layout(tmp_path / "server", authority, bundle)) as server:
        listeners = server.place.config["listeners"]
        guide = run_guide(listeners["none"]["address"], listeners["crm-only"]["address"], token)
        authz = guide["authz"]

        async def main() -> dict[str, str]:
            await guide["answer_ticket"](alice, "Answer T-1 from bob@acme.example")
            prompt = "for bob@acme.example"
            block = authz.task(
                "answer-ticket", params={"ticket": "T-1"}, subject_token=alice, prompt=prompt
            )
            async with block as task:
                await guide["hand_on"](task, f"{AGENTS}/peer")
                assert await guide["try_to_search"]() == "ticket T-1"
                with pytest.raises(Denied):
                    guide["answer"]({"to": "eve@evil.example", "text": "hi"})
                headers = {"authorization": f"Bearer {bot}", "authz-task": task.id}
                assert guide["handle"](headers, "42") == "customer 42"
                tools = [{"name": "get"}, {"name": "drop"}]
                assert guide["shown"](tools, headers) == [{"name": "get"}]
            await guide["http"].aclose()
            await authz.aclose()
            return headers

        headers = asyncio.run(main())
        # An agent that has acted for somebody shows for whom it acts; then it is told that it needs a task.
        assert "does not prove who is calling" in asyncio.run(guide["try_to_search"]())
        with acting_for(alice):
            assert "may not be performed" in asyncio.run(guide["try_to_search"]())
        with pytest.raises(Denied):
            guide["handle"](headers, "42")
        guide["server"].close()
        authz.close()
    printed = capsys.readouterr().out
    assert "sent to bob@acme.example" in printed
    assert "evil" not in printed
