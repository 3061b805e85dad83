"""`authz mcp` between real MCP clients of both SDK lines and real servers."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support import tools
from tests.support.minting import Authority
from tests.support.node import Node, decision
from tests.support.people import BOT
from tests.support.server import Server, command, layout
from tests.support.waiting import eventually, free_port

pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]

SUPPORT = Path(__file__).parents[1] / "support"
SDKS = ("1.x", "2.x", "2.x, stateless")
FACTS = """
agents: {bot: ["spiffe://${trust_domain}/ns/support/sa/*"]}
destinations: {external: {match: "*", clearance: []}}
tiers: {high: {bound: false}, critical: {bound: false, approval: none}}
"""
PERMITTED = {
    "time": "time.get_current_time",
    "git": "git.git_log",
    "filesystem": "filesystem.list_directory",
    "memory": "memory.read_graph",
    "everything": "everything.echo",
}


@dataclass(frozen=True)
class Site:
    """Authz with a bundle for all servers."""

    server: Server
    token: Path
    runs: dict[str, list[str]]
    calls: dict[str, list[tuple[str, dict[str, Any]]]]
    peers: Path

    def guarded(self, system: str, *extra: str) -> list[str]:
        """Gives the command of a guarded server."""
        address = self.server.address("main")
        own = ["--system", system, "--server", address, "--agent-token", str(self.token)]
        return [*command(), "mcp", *own, *extra, "--", *self.runs[system]]

    def client(self, sdk: str, run: list[str], calls: list[Any]) -> dict[str, Any]:
        """Runs a client of an SDK."""
        python = self.peers / "python/bin/python" if sdk == "1.x" else Path(sys.executable)
        plan = {"command": run, "modern": sdk.endswith("stateless"), "calls": calls}
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


def authz(*arguments: str) -> None:
    """Runs the command."""
    done = subprocess.run(
        [*command(), *arguments], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def site(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Imports and reviews the tools of each server as an operator would, and starts Authz."""
    peers = tools.mcp_peers()
    folder = tmp_path_factory.mktemp("mcp")
    files = folder / "files"
    files.mkdir()
    (files / "note.txt").write_text("hello")
    for words in (
        ["init", "-q"],
        [
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@a.example",
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "first",
        ],
    ):
        subprocess.run(["git", "-C", str(files), *words], check=True)
    npm = peers / "npm/node_modules/@modelcontextprotocol"
    python = str(peers / "python/bin/python")
    runs = {
        "time": [python, "-m", "mcp_server_time"],
        "git": [python, "-m", "mcp_server_git"],
        "filesystem": ["node", str(npm / "server-filesystem/dist/index.js"), str(files)],
        "memory": [
            *("env", f"MEMORY_FILE_PATH={folder / 'memory.jsonl'}"),
            *("node", str(npm / "server-memory/dist/index.js")),
        ],
        "everything": ["node", str(npm / "server-everything/dist/index.js"), "stdio"],
    }
    calls: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "time": [
            ("get_current_time", {"timezone": "UTC"}),
            ("convert_time", {"source_timezone": "UTC", "time": "10:00", "target_timezone": "UTC"}),
        ],
        "git": [
            ("git_log", {"repo_path": str(files)}),
            ("git_commit", {"repo_path": str(files), "message": "no"}),
        ],
        "filesystem": [
            ("list_directory", {"path": str(files)}),
            ("write_file", {"path": str(files / "new.txt"), "content": "no"}),
        ],
        "memory": [
            ("read_graph", {}),
            ("delete_entities", {"entityNames": ["a"]}),
        ],
        "everything": [("echo", {"message": "canary"}), ("get-env", {})],
    }
    bundle = folder / "bundle"
    (bundle / "policies").mkdir(parents=True)
    (bundle / "bundle.yaml").write_text("{name: mcp, tasks: optional}\n")
    (bundle / "facts.yaml").write_text(FACTS)
    policy = bundle / "policies/all.cedar"
    policy.write_text("")
    for name, run in runs.items():
        where = ["--bundle", str(bundle)]
        authz("catalog", "import-mcp", name, "--stdio", " ".join(run), *where)
        authz("catalog", "classify", name, *where)
        authz("catalog", "accept", name, "--all", *where)
    # `git_log` is a noun, so nothing is proposed for it.
    with (bundle / "facts.yaml").open("a") as facts:
        facts.write("classify: [{match: git.git_log, effects: [read], tier: standard}]\n")
    authz("catalog", "accept", "git", "git.git_log", "--bundle", str(bundle))
    actions = [*PERMITTED.values(), *(f"{name}.mcp" for name in runs)]
    listed = ", ".join(f'Action::"{action}"' for action in actions)
    policy.write_text(
        f'@id("bot") permit(principal in Role::"bot", action in [{listed}], resource);'
    )
    token = folder / "svid.jwt"
    token.write_text(authority.agent(BOT))
    with Server(layout(folder / "server", authority, bundle)) as server:
        yield Site(server, token, runs, calls, peers)


@pytest.mark.parametrize("system", sorted(PERMITTED))
@pytest.mark.parametrize("sdk", SDKS)
def test_a_client_lists_calls_and_survives_a_denial(site: Site, sdk: str, system: str) -> None:
    """Only the permitted tool is listed; a denied call and an unknown tool are results, and the session goes on."""
    permitted, denied = site.calls[system]
    calls = [permitted, denied, ("no_such_tool", {}), permitted]
    done = site.client(sdk, site.guarded(system), calls)
    assert done["tools"] == [permitted[0]]
    first, refused, unknown, last = done["calls"]
    assert first["is_error"] is False
    assert last["is_error"] is False
    assert refused["is_error"] is True
    assert refused["text"].startswith("The operation may not be performed.")
    assert refused["meta"]["dev.authz/decision"]["public_code"] == "DENIED"
    assert unknown["is_error"] is True
    assert unknown["meta"]["dev.authz/decision"]["public_code"] == "INVALID"


@pytest.fixture(scope="module")
def endpoint(site: Site) -> Iterator[str]:
    """A real server over HTTP."""
    port = free_port()
    process = subprocess.Popen(
        [*site.runs["everything"][:-1], "streamableHttp"],
        env={**os.environ, "PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(partial(_listens, port), what="the server listens")
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait(10)


def _listens(port: int) -> bool:
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
    return True


@pytest.mark.parametrize("sdk", SDKS)
def test_an_endpoint_is_guarded_from_the_client_s_side(site: Site, sdk: str, endpoint: str) -> None:
    """As a command is."""
    permitted, denied = site.calls["everything"]
    run = [*site.guarded("everything", "--url", endpoint)]
    run = run[: run.index("--")]
    done = site.client(sdk, run, [permitted, denied, permitted])
    assert done["tools"] == ["echo"]
    first, refused, last = done["calls"]
    assert "canary" in first["text"]
    assert refused["is_error"] is True
    assert refused["meta"]["dev.authz/decision"]["public_code"] == "DENIED"
    assert last["is_error"] is False


def test_an_endpoint_that_is_not_there_is_an_error(site: Site) -> None:
    """Of the request, and not the end of the guard."""
    run = site.guarded("everything", "--url", f"http://127.0.0.1:{free_port()}/mcp")
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
    done = subprocess.run(
        run[: run.index("--")],
        input=json.dumps(message),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    answer = json.loads(done.stdout)
    assert (answer["id"], answer["error"]["code"]) == (1, -32000)
    assert done.returncode == 0


def reported(
    site: Site, folder: Path, sdk: str, end: list[str], call: tuple[str, Any, list[str]]
) -> list[tuple[str, int, Any]]:
    """Calls a tool behind an enforcer whose node permits all and asks for values; the values of the report."""
    tool, arguments, pointers = call
    permit = decision("PERMITTED", reservation_id="r", report_values=pointers)
    # Messages of the protocol are permitted without a report.
    node = Node().says(
        "Check",
        lambda asked: permit if asked.tool else decision("PERMITTED"),
    )
    with node.served(f"unix:{folder}/a.sock") as address:
        own = ["--system", "x", "--server", address.replace("unix:", "unix://"), "--enforcer"]
        run = [*command(), "mcp", *own, "--agent-token", str(site.token), *end]
        (done,) = site.client(sdk, run, [(tool, arguments)])["calls"]
    assert done["is_error"] is False
    (report,) = node.requests("Report")
    return [
        (one.pointer, one.item, getattr(one, str(one.WhichOneof("value")))) for one in report.values
    ]


@pytest.mark.parametrize("sdk", SDKS)
def test_values_of_results_are_reported(
    site: Site, sdk: str, endpoint: str, tmp_path: Path
) -> None:
    """Of structured content and of a text of JSON, of a command and of an endpoint."""
    made = {"name": f"Ann {sdk}", "entityType": "person", "observations": ["likes tea"]}
    found = reported(
        site, tmp_path, sdk, ["--", *site.runs["memory"]],
        ("create_entities", {"entities": [made]}, ["/entities/*/name", "/entities/*/observations/*", "/other"]),
    )  # fmt: skip
    assert found == [
        ("/entities/*/name", 0, f"Ann {sdk}"),
        ("/entities/*/observations/*", 0, "likes tea"),
    ]
    found = reported(
        site, tmp_path, sdk, ["--url", endpoint],
        ("get-structured-content", {"location": "Chicago"}, ["/conditions"]),
    )  # fmt: skip
    assert [(at, item, type(value)) for at, item, value in found] == [("/conditions", 0, str)]
    found = reported(
        site, tmp_path, sdk, ["--", *site.runs["time"]],
        ("get_current_time", {"timezone": "UTC"}, ["/timezone", "/is_dst"]),
    )  # fmt: skip
    assert found == [("/timezone", 0, "UTC"), ("/is_dst", 0, False)]


@pytest.mark.parametrize("sdk", SDKS)
def test_a_client_outlives_authz(
    site: Site, sdk: str, tmp_path: Path, authority: Authority
) -> None:
    """Without Authz nothing is listed or called, and the client learns it without losing its session."""
    place = layout(tmp_path / "other", authority, site.server.place.folder / "bundle")
    with Server(place) as other:
        own = [
            "--system",
            "time",
            "--server",
            other.address("main"),
            "--agent-token",
            str(site.token),
        ]
        run = [*command(), "mcp", *own, "--", *site.runs["time"]]
        # The client's second call reaches a node that was killed by the first: see `mcp_client.py`.
        permitted = site.calls["time"][0]
        done = site.client(sdk, run, [permitted, ["kill", {"pid": other.pid}], permitted])
    first, _, second = done["calls"]
    assert first["is_error"] is False
    assert second["is_error"] is True
    assert second["meta"]["dev.authz/decision"]["public_code"] == "UNAVAILABLE"
