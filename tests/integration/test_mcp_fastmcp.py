"""The middleware for FastMCP: each tool is guarded, also one that nobody named."""

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

from authz_client.v1 import authorizer_pb2
from tests.support import tools
from tests.support.minting import Authority
from tests.support.node import Node, decision
from tests.support.people import BOT
from tests.support.server import Server, command, layout
from tests.support.waiting import eventually, free_port

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "tests/support/fastmcp_server.py"
CLIENT = ROOT / "tests/support/mcp_client.py"
FACTS = """
agents: {bot: ["spiffe://${trust_domain}/ns/support/sa/*"]}
destinations: {external: {match: "*", clearance: []}}
resources: {pages: {}}
"""
RULES = """catalog: {crm: {kind: mcp, reports: sdk}}
classify:
  - {match: crm.read, effects: [read], tier: standard}
  - {match: crm.broken, effects: [read], tier: standard}
  - {match: crm.see_also, effects: [read], tier: standard}
  - {match: crm.delete, effects: [delete], tier: standard, objects: [{from: [/page], role: target, collection: pages}]}
  - {match: crm.create, effects: [write], tier: standard, creates: {id: /page, collection: pages}}
  - {match: crm.resources.read, effects: [read], tier: standard}
"""
POLICY = """
@id("bot") permit(principal in Role::"bot",
  action in [Action::"crm.read", Action::"crm.broken", Action::"crm.see_also", Action::"crm.create", Action::"crm.delete"], resource);
@id("strange") forbid(principal, action == Action::"crm.delete", resource)
  unless { [Origin::"named", Origin::"known", Origin::"made"].containsAll(context.origins.target) };
@id("no-42") forbid(principal, action == Action::"crm.read", resource)
  when { context.input has page && context.input.page == "42" };
"""


@dataclass(frozen=True)
class Site:
    """A node, a FastMCP server that asks it, and its output."""

    node: Server
    port: int
    token: str
    output: Path

    def client(self, calls: list[Any], **headers: str) -> dict[str, Any]:
        """Runs a client of the newest SDK."""
        return call_tools(self.port, calls, **headers)

    def ran(self) -> str:
        """Tools that ran."""
        return self.output.read_text()


def _listens(port: int) -> bool:
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
    return True


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the server's program to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "client/src")}
    return subprocess.run(
        [str(python), str(SERVER), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def guarded(stack: ExitStack, python: Path, authz: str, output: Path) -> int:
    """Starts a FastMCP server that asks a node; its port."""
    port = free_port()
    with output.open("w") as stream:
        process = subprocess.Popen(
            [str(python), str(SERVER), str(port), authz],
            env={**os.environ, "PYTHONPATH": str(ROOT / "client/src")},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    stack.callback(process.wait, 10)
    stack.callback(process.kill)
    eventually(partial(_listens, port), what="the server listens")
    return port


def call_tools(port: int, calls: list[Any], **headers: str) -> dict[str, Any]:
    """Runs a client of the newest SDK."""
    plan = {"url": f"http://127.0.0.1:{port}/mcp", "headers": headers, "calls": calls}
    done = subprocess.run(
        [sys.executable, str(CLIENT)],
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter that has FastMCP."""
    return tools.fastmcp_python()


@pytest.fixture(scope="module")
def site(
    python: Path, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Imports the tools from the bare server, and starts node and guarded server."""
    folder = tmp_path_factory.mktemp("fastmcp")
    bundle = folder / "bundle"
    (bundle / "policies").mkdir(parents=True)
    (bundle / "bundle.yaml").write_text("{name: crm, tasks: optional}\n")
    (bundle / "facts.yaml").write_text(FACTS)
    path = f"PYTHONPATH={ROOT / 'client/src'}"
    importing = ["--stdio", f"{python} {SERVER} bare", "--env", path, "--bundle", str(bundle)]
    accepting = ["accept", "crm", "--all", "--bundle", str(bundle)]
    for words in (["import-mcp", "crm", *importing], accepting):
        done = subprocess.run(
            [*command(), "catalog", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        (bundle / "facts.yaml").write_text(FACTS + RULES)
        (bundle / "policies/all.cedar").write_text(POLICY)
    output = folder / "output"
    with ExitStack() as stack:
        place = layout(folder / "node", authority, bundle)
        (entry,) = [one for one in place.config["enforcers"] if one["name"] == "crm-server"]
        entry["reports"] = "sdk"
        place.write()
        node = stack.enter_context(Server(place))
        port = guarded(stack, python, node.address("crm-only"), output)
        yield Site(node, port, authority.agent(BOT), output)


def test_every_tool_is_guarded(site: Site) -> None:
    """Listed and run is what is permitted; the others are results that the model reads, and nothing of them ran."""
    calls = [
        ("read", {"page": "a", "most": None}),
        ("read", {"page": "42"}),
        ("delete", {"page": "a"}),
        ("later", {"page": "a"}),
        ("broken", {"page": "a"}),
        ("read", {"page": "b"}),
        ("see_also", {"page": "c"}),
        ("see also", {"page": "d"}),
    ]
    done = site.client(calls, authorization=f"Bearer {site.token}")
    assert done["tools"] == ["broken", "create", "delete", "read", "see_also"]
    answers = [(one["is_error"], one["text"].split(".")[0]) for one in done["calls"]]
    assert answers[0] == (False, "page a")
    assert answers[1] == (True, "The operation may not be performed")
    assert answers[2] == (True, "The operation may not be performed")
    assert answers[3] == (True, "The request cannot be judged as it stands")
    assert answers[4][0] is True
    assert "performed" not in answers[4][1]
    assert answers[5] == (False, "page b")
    assert answers[6] == (False, "more than c")
    assert answers[7] == (True, "The request cannot be judged as it stands")
    decision = done["calls"][2]["meta"]["dev.authz/decision"]
    assert decision["public_code"] == "DENIED"
    assert decision["decision_id"]
    ran = site.ran()
    assert "ran read a None" in ran
    assert "ran read b None" in ran
    for name in ("read 42", "delete a", "later", "alike"):
        assert f"ran {name}" not in ran


@pytest.mark.parametrize("authorization", [{}, {"authorization": "Bearer x.y.z"}])
def test_a_caller_that_nothing_proves_gets_nothing(
    site: Site, authorization: dict[str, str]
) -> None:
    """No list, no call."""
    done = site.client([("read", {"page": "c"})], **authorization)
    assert "failed" in done
    assert "ran read c" not in site.ran()


def test_what_a_tool_made_may_be_deleted(site: Site) -> None:
    """By the id of its result; another page is held."""
    calls = [
        ("delete", {"page": "p-7"}),
        ("create", {"title": "a"}),
        ("delete", {"page": "p-7"}),
        ("delete", {"page": "p-8"}),
    ]
    done = site.client(calls, authorization=f"Bearer {site.token}")
    assert [one["is_error"] for one in done["calls"]] == [True, False, False, True]
    assert "ran delete p-7" in site.ran()
    assert "ran delete p-8" not in site.ran()


def test_values_of_results_are_reported(python: Path, tmp_path: Path) -> None:
    """Those that the permit asks for, of structured content, of a tool that did not fail."""
    permit = decision("PERMITTED", reservation_id="r", report_values=["/page", "/result"])
    node = Node().says("Check", permit)
    with ExitStack() as stack:
        address = stack.enter_context(node.served(f"unix:{tmp_path}/a.sock"))
        port = guarded(stack, python, address.replace("unix:", "unix://"), tmp_path / "output")
        calls = [
            ("create", {"title": "a"}),
            ("read", {"page": "b"}),
            ("broken", {"page": "c"}),
        ]
        call_tools(port, calls, authorization="Bearer svid")
    reports = [
        (report.result, [(one.pointer, one.item, one.text) for one in report.values])
        for report in node.requests("Report")
    ]
    assert reports == [
        (authorizer_pb2.REPORT_RESULT_OK, [("/page", 0, "p-7")]),
        (authorizer_pb2.REPORT_RESULT_OK, [("/result", 0, "page b")]),
        (authorizer_pb2.REPORT_RESULT_FAILED, []),
    ]


def test_a_guard_around_a_tool_is_an_error(python: Path) -> None:
    """FastMCP would run the function that it registered, without the guard."""
    done = run(python, "wrong-order")
    assert "read is a tool already, and the tool would run without a check" in done.stdout, (
        done.stderr
    )
