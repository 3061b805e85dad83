"""Real MCP clients and servers, with a real Envoy on the shipped configuration between them, and Authz deciding."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support import tools
from tests.support.envoy import MCP_TEMPLATE, Answer, Envoy
from tests.support.mcp_servers import Bridge
from tests.support.minting import Authority
from tests.support.people import BOT
from tests.support.server import Server, command, layout
from tests.support.waiting import eventually, free_port

pytestmark = [pytest.mark.envoy, pytest.mark.peers, pytest.mark.timeout(120)]

SUPPORT = Path(__file__).parents[1] / "support"
LANES = ("main", "main-fast")
SYSTEMS = ("everything", "filesystem", "memory", "sums", "time")
PERMITTED = ("everything.echo", "filesystem.list_directory", "memory.read_graph", "sums.add")
FACTS = """
agents: {bot: ["spiffe://${trust_domain}/ns/support/sa/*"]}
destinations: {external: {match: "*", clearance: []}}
tiers: {high: {bound: false}, critical: {bound: false, approval: none}}
"""


@dataclass(frozen=True)
class Site:
    """Everything that runs: one Envoy a lane, and the servers behind it."""

    envoys: dict[str, Envoy]
    bridges: dict[str, Bridge]
    token: str
    folder: Path
    peers: Path
    server: Server

    def run(self, sdk: str, lane: str, system: str, calls: list[tuple[str, Any]]) -> dict[str, Any]:
        """Runs a client against a system."""
        return self.client(sdk, lane, system, calls, {"authorization": f"Bearer {self.token}"})

    def client(
        self, sdk: str, lane: str, system: str, calls: list[Any], headers: dict[str, str]
    ) -> dict[str, Any]:
        """Runs a client with these headers."""
        plan = {
            "url": f"http://127.0.0.1:{self.envoys[lane].port}/{system}/mcp",
            "headers": headers,
            "modern": sdk == "newest, stateless",
            "calls": calls,
        }
        python = self.peers / "python/bin/python" if sdk == "1.x" else Path(sys.executable)
        done = subprocess.run(
            [str(python), str(SUPPORT / "mcp_client.py")],
            input=json.dumps(plan),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def post(self, lane: str, body: str, **headers: str) -> Answer:
        """Posts bytes to the server of times, as no SDK would."""
        all_headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2025-11-25",
            "authorization": f"Bearer {self.token}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return self.envoys[lane].request(
            "POST", "/time/mcp", list(all_headers.items()), body.encode()
        )


def authz(*arguments: str) -> None:
    """Runs the command."""
    done = subprocess.run(
        [*command(), *arguments], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def site(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Starts the servers, imports and reviews their tools as an operator would, and starts the rest."""
    peers = tools.mcp_peers()
    folder = tmp_path_factory.mktemp("mcp")
    files = folder / "files"
    files.mkdir()
    (files / "note.txt").write_text("hello")
    npm = peers / "npm/node_modules/@modelcontextprotocol"
    stdio = {
        "filesystem": ["node", str(npm / "server-filesystem/dist/index.js"), str(files)],
        "memory": [
            *("env", f"MEMORY_FILE_PATH={folder / 'memory.jsonl'}"),
            *("node", str(npm / "server-memory/dist/index.js")),
        ],
        "time": [str(peers / "python/bin/python"), "-m", "mcp_server_time"],
    }
    everything, sums = free_port(), free_port()
    with ExitStack() as stack:
        bridges = {name: stack.enter_context(Bridge(run)) for name, run in stdio.items()}
        ports = {name: bridge.port for name, bridge in bridges.items()}
        ports |= {"everything": everything, "sums": sums}
        for run, port in (
            (["node", str(npm / "server-everything/dist/index.js"), "streamableHttp"], everything),
            ([sys.executable, str(SUPPORT / "mcp_modern.py"), str(sums)], sums),
        ):
            process = subprocess.Popen(
                run,
                env={**os.environ, "PORT": str(port)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait, 10)
            stack.callback(process.kill)
        bundle = folder / "bundle"
        write_bundle(bundle, [])
        for name, port in ports.items():
            url = f"http://127.0.0.1:{port}/mcp"
            eventually(partial(_listens, port), what=f"{name} listens")
            authz("catalog", "import-mcp", name, "--url", url, "--bundle", str(bundle))
            authz("catalog", "classify", name, "--bundle", str(bundle))
            authz("catalog", "accept", name, "--all", "--bundle", str(bundle))
        write_bundle(bundle, SYSTEMS)
        server = stack.enter_context(Server(layout(folder / "server", authority, bundle)))
        for bridge in bridges.values():
            bridge.seen.clear()
        envoys = {
            lane: stack.enter_context(
                Envoy(folder / lane, server.port(lane), 1, routed(ports), template=MCP_TEMPLATE)
            )
            for lane in LANES
        }
        yield Site(envoys, bridges, authority.agent(BOT), files, peers, server)


def _listens(port: int) -> bool:
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
    return True


def write_bundle(folder: Path, systems: Any) -> None:
    """Writes a bundle with endpoints of these systems, and a permit for a few tools of theirs."""
    (folder / "policies").mkdir(parents=True, exist_ok=True)
    (folder / "bundle.yaml").write_text("{name: mcp, tasks: optional}\n")
    routes = [f"  - {{path: /{name}/mcp, mcp: {name}}}" for name in systems]
    text = FACTS + ("routes:\n" + "\n".join(routes) + "\n" if routes else "")
    (folder / "facts.yaml").write_text(text)
    actions = [*PERMITTED, "time.get_current_time", *(f"{name}.mcp" for name in systems)]
    listed = ", ".join(f'Action::"{action}"' for action in actions) if systems else ""
    policy = f'@id("bot") permit(principal in Role::"bot", action in [{listed}], resource);\n'
    (folder / "policies/all.cedar").write_text(policy if systems else "")


def routed(ports: dict[str, int]) -> Any:
    """Returns the change that leads `/<system>/mcp` to each server."""

    def change(config: dict[str, Any]) -> None:
        clusters = config["static_resources"]["clusters"]
        (upstream,) = [cluster for cluster in clusters if cluster["name"] == "upstream"]
        chain = config["static_resources"]["listeners"][0]["filter_chains"][0]
        manager = chain["filters"][0]["typed_config"]
        host = manager["route_config"]["virtual_hosts"][0]
        (shipped,) = host["routes"]
        host["routes"] = []
        for name, port in ports.items():
            cluster = json.loads(json.dumps(upstream))
            cluster["name"] = name
            cluster["load_assignment"]["cluster_name"] = name
            (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
            endpoint["endpoint"]["address"]["socket_address"]["port_value"] = port
            clusters.append(cluster)
            route = json.loads(json.dumps(shipped))
            route["match"] = {"path": f"/{name}/mcp"}
            route["route"] |= {"cluster": name, "prefix_rewrite": "/mcp"}
            host["routes"].append(route)

    return change


def calls_of(site: Site, system: str) -> tuple[tuple[str, Any], tuple[str, Any], str]:
    """Returns a call that policy permits with what it says, and one that policy refuses."""
    return {
        "everything": (("echo", {"message": "canary"}), ("get-env", {}), "canary"),
        "filesystem": (
            ("list_directory", {"path": str(site.folder)}),
            ("write_file", {"path": str(site.folder / "new.txt"), "content": "x"}),
            "note.txt",
        ),
        "memory": (("read_graph", {}), ("delete_entities", {"entityNames": ["a"]}), "entities"),
        "time": (
            ("get_current_time", {"timezone": "Europe/Berlin"}),
            (
                "convert_time",
                {"source_timezone": "UTC", "time": "10:00", "target_timezone": "Asia/Tokyo"},
            ),
            "Berlin",
        ),
        "sums": (("add", {"a": 40, "b": 2}), ("drop", {"table": "t"}), "42"),
    }[system]


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("sdk", ["1.x", "newest", "newest, stateless"])
def test_a_session_survives_a_refused_call(site: Site, sdk: str, system: str, lane: str) -> None:
    """A permitted call works, a refused one is a result that says so, and the next permitted one works."""
    good, bad, text = calls_of(site, system)
    done = site.run(sdk, lane, system, [good, bad, ("no_such_tool", {}), good])
    assert "failed" not in done, done
    assert {good[0], bad[0]} <= set(done["tools"])
    first, refused, unknown, last = done["calls"]
    assert [(call.get("is_error"), text in call.get("text", "")) for call in (first, last)] == [
        (False, True)
    ] * 2, done
    assert (refused["is_error"], unknown["is_error"]) == (True, True)
    decision = refused["meta"]["dev.authz/decision"]
    assert decision["public_code"] == "DENIED"
    assert refused["text"].startswith("The operation may not be performed.")
    if system in site.bridges:
        assert f"tools/call {bad[0]}" not in site.bridges[system].seen
        assert f"tools/call {good[0]}" in site.bridges[system].seen
    if sdk == "newest, stateless" and system == "sums":
        assert done["version"] == "2026-07-28"
    assert not (site.folder / "new.txt").exists()


@pytest.mark.parametrize("sdk", ["1.x", "newest"])
def test_a_refused_credential_is_401(site: Site, sdk: str) -> None:
    """Only the credential of the request ends a session."""
    for headers in ({}, {"authorization": "Bearer a.b.c"}):
        done = site.client(sdk, "main", "time", [], headers)
        assert "failed" in done, done
    before = len(site.bridges["time"].seen)
    answer = site.post("main", '{"jsonrpc":"2.0","id":1,"method":"ping"}', authorization="Bearer x")
    assert answer.status == 401
    assert answer.header("www-authenticate")
    assert len(site.bridges["time"].seen) == before


FETCH = '{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":"1"}}'
CALL = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"convert_time"}}'


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(
    ("body", "headers", "refusal"),
    [
        (f"[{CALL}]", {}, (400, -32600)),
        (CALL.replace('"id":1', '"id":1,"method":"ping"'), {}, (400, -32600)),
        (CALL, {"mcp_name": "get_current_time"}, (400, -32020)),
        (CALL, {"mcp_method": "tools/list"}, (400, -32020)),
        (CALL.replace("tools/call", "tools/run"), {}, (200, -32601)),
        (FETCH, {}, (200, -32003)),
        (CALL, {"mcp_protocol_version": "2024-11-05"}, (400, -32022)),
        (CALL[:-5], {}, (400, -32600)),
        ("", {}, (400, -32600)),
    ],
)
def test_what_has_two_meanings_or_none_reaches_no_server(
    site: Site, lane: str, body: str, headers: dict[str, str], refusal: tuple[int, int]
) -> None:
    """No server sees a message that it could read in another way than the one that was judged."""
    before = len(site.bridges["time"].seen)
    answer = site.post(lane, body, **headers)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == refusal
    assert len(site.bridges["time"].seen) == before


@pytest.mark.parametrize("lane", LANES)
def test_a_message_beyond_the_bound_is_refused_by_the_proxy(site: Site, lane: str) -> None:
    """A body that Envoy would have to cut off is refused as a whole.

    Envoy answers 413. It cuts off a body that a filter before `ext_authz` has buffered, and says so; Authz then answers 400.
    """
    before = len(site.bridges["time"].seen)
    assert site.post(lane, CALL + " " * 300_000).status in {400, 413}
    assert len(site.bridges["time"].seen) == before


@pytest.mark.alone
@pytest.mark.parametrize("sdk", ["1.x", "newest", "newest, stateless"])
def test_a_session_outlives_a_restart_of_authz(site: Site, sdk: str, tmp_path: Path) -> None:
    """While Authz is down a call is an error of its own; then the same session goes on."""
    permitted, _, _ = calls_of(site, "time")

    def pause(name: str) -> tuple[str, dict[str, str]]:
        return ("wait", {"ready": str(tmp_path / name), "until": str(tmp_path / f"{name}.done")})

    def wait_for(name: str) -> None:
        eventually((tmp_path / name).exists, what=f"the client is at {name}")

    with ThreadPoolExecutor(1) as pool:
        calls = [permitted, pause("stop"), permitted, permitted, pause("start"), permitted]
        running = pool.submit(site.run, sdk, "main", "time", calls)
        wait_for("stop")
        process = site.server.process
        assert process is not None
        process.kill()
        process.wait(10)
        (tmp_path / "stop.done").touch()
        wait_for("start")
        site.server.start()
        (tmp_path / "start.done").touch()
        done = running.result(60)
    assert "failed" not in done, done
    first, _, second, third, _, last = done["calls"]
    assert first["is_error"] is False
    assert second["code"] == third["code"] == -32003
    assert "No decision could be made" in second["what"]
    assert last["is_error"] is False
