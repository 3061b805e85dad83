"""`authz mcp` as a process: messages, ends, signals, bounds and reports."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest
from mcp import ClientSession, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.support.minting import Authority
from tests.support.people import BOT
from tests.support.server import Server, command, layout
from tests.support.waiting import eventually

SMALL = Path(__file__).parents[1] / "support" / "mcp_small.py"
FACTS = """
agents: {bot: ["spiffe://${trust_domain}/ns/support/sa/*"]}
destinations: {external: {match: "*", clearance: []}}
sequences: {look-first: {require: small.read, before: small.secret}}
labels: {pii: {kind: confidentiality, description: personal data}}
resources: {notes: {}}
"""
VALUES = """
  - {match: small.make, effects: [write], creates: {id: /note/id, collection: notes}}
  - {match: small.change, effects: [write], objects: [{from: [/id], role: target, collection: notes}]}
  - {match: small.resources.read, effects: [read], tier: standard}
"""
RESOURCES = """
@id("resources") @obligation("redact:/holder,redact:card")
permit(principal in Role::"bot", action == Action::"small.resources.read", resource)
unless { context.input.uri == "small://stamped" };
@id("stamped") @obligation("custom:stamp")
permit(principal in Role::"bot", action == Action::"small.resources.read", resource)
when { context.input.uri == "small://stamped" };
"""
STRANGE = """
@id("strange") forbid(principal, action == Action::"small.change", resource)
unless { [Origin::"named", Origin::"known", Origin::"made"].containsAll(context.origins.target) };
"""
TOOLS = ("read", "big", "exit", "slow", "ask", "fail")


@dataclass(frozen=True)
class Site:
    """Authz, and the address of an enforcer's listener."""

    server: Server
    token: Path

    def command(self, *extra: str, listener: str = "main") -> list[str]:
        """Gives the command up to the server's."""
        own = ["--system", "small", "--server", self.server.address(listener)]
        return [*command(), "mcp", *own, "--agent-token", str(self.token), *extra]


@pytest.fixture(scope="module")
def site(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A node with a bundle for the small server, all tools but one permitted."""
    folder = tmp_path_factory.mktemp("small")
    bundle = folder / "bundle"
    (bundle / "policies").mkdir(parents=True)
    (bundle / "bundle.yaml").write_text("{name: small, tasks: optional}\n")
    run = f"{sys.executable} {SMALL} {folder / 'import.log'}"
    facts_without_rules = FACTS.replace("sequences:", "# sequences:")
    (bundle / "facts.yaml").write_text(facts_without_rules)
    importing = ["catalog", "import-mcp", "small", "--stdio", run, "--bundle", str(bundle)]
    subprocess.run([*command(), *importing], check=True, capture_output=True)
    rules = "".join(
        f"  - {{match: small.{tool}, effects: [read], tier: standard, yields: {{minimum: [], maximum: [pii]}}}}\n"
        for tool in (*TOOLS, "secret")
    )
    (bundle / "facts.yaml").write_text(
        f"{FACTS}catalog: {{small: {{kind: mcp, reports: sdk}}}}\nclassify:\n{rules}{VALUES}"
    )
    actions = ", ".join(f'Action::"small.{tool}"' for tool in (*TOOLS, "make", "change", "mcp"))
    policy = f'@id("bot") permit(principal in Role::"bot", action in [{actions}], resource);\n'
    policy += '@id("look") forbid(principal, action, resource) when { context.sequences.contains(Sequence::"look-first") };'
    policy += STRANGE + RESOURCES
    (bundle / "policies/all.cedar").write_text(policy)
    accepting = ["catalog", "accept", "small", "--all", "--bundle", str(bundle)]
    subprocess.run([*command(), *accepting], check=True, capture_output=True)
    token = folder / "svid.jwt"
    token.write_text(authority.agent(BOT))
    place = layout(folder / "server", authority, bundle)
    enforcer = {"name": "guard", "listener": "none", "asks": ["system:small"], "reports": "sdk"}
    place.config["enforcers"].append(enforcer)
    place.write()
    with Server(place) as server:
        yield Site(server, token)


class Session:
    """A client of a guarded server, which writes lines and reads lines."""

    def __init__(self, run: list[str], log: Path) -> None:
        self.log = log
        self.process = subprocess.Popen(
            run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    @classmethod
    def guarded(cls, site: Site, folder: Path, *extra: str, listener: str = "main") -> Self:
        """Starts the small server behind the guard, and initializes."""
        log = folder / "small.log"
        run = [*site.command(*extra, listener=listener), "--", sys.executable, str(SMALL), str(log)]
        session = cls(run, log)
        session.send(method="initialize", id=0, params={"protocolVersion": "2025-06-18"})
        assert session.read()["id"] == 0
        session.send(method="notifications/initialized")
        return session

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def send(self, **members: Any) -> None:
        """Sends a message."""
        self.write(json.dumps({"jsonrpc": "2.0", **members}).encode() + b"\n")

    def write(self, data: bytes) -> None:
        """Sends bytes."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        """Reads a message; empty at the end."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found: dict[str, Any] = json.loads(line) if line else {}
        return found

    def call(self, name: str, request_id: int = 1, **arguments: Any) -> None:
        """Calls a tool."""
        params = {"name": name, "arguments": arguments or {"n": 1}}
        self.send(method="tools/call", id=request_id, params=params)

    def ended(self) -> tuple[int, str]:
        """Waits for the end; exit status and standard error."""
        assert self.process.stderr is not None
        errors = self.process.stderr.read().decode()
        return self.process.wait(30), errors

    def hang_up(self) -> tuple[int, str]:
        """Ends the input, as a client does that is done."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.ended()


def test_a_session_from_beginning_to_end(site: Site, tmp_path: Path) -> None:
    """The list is filtered, a refused call does not reach the server, and both ends come to an end."""
    with Session.guarded(site, tmp_path) as session:
        session.send(method="tools/list", id=1)
        names = [tool["name"] for tool in session.read()["result"]["tools"]]
        assert names == [*TOOLS, "make", "change"]
        session.call("read", 2)
        assert session.read()["result"]["content"][0]["text"] == "read"
        session.call("secret", 3)
        assert session.read()["result"]["isError"] is True
        session.call("ask", 4)
        assert session.read()["method"] == "sampling/createMessage"
        assert session.read()["id"] == 4
        session.send(id="s1", result={"role": "assistant"})
        session.call("read", 5)
        assert session.read()["id"] == 5
        status, errors = session.hang_up()
    got = session.log.read_text()
    assert status == 0
    assert "small server started" in errors
    assert "dropped a line of the server" in errors
    assert "tools/call small.secret refused: DENIED" in errors
    assert "secret" not in got
    assert '"id": "s1"' in got
    assert got.endswith("end\n")


def test_a_stock_client_reads_redacted_resources(site: Site, tmp_path: Path) -> None:
    """Of JSON the named values are gone; of a text, an image and an error nothing stays that could hold them."""
    log = tmp_path / "small.log"
    program, *arguments = [*site.command(), "--", sys.executable, str(SMALL), str(log)]

    async def main() -> tuple[list[Any], list[str]]:
        parameters = StdioServerParameters(command=program, args=arguments)
        async with stdio_client(parameters) as streams, ClientSession(*streams) as session:
            await session.initialize()
            contents = [
                (await session.read_resource(f"small://{name}")).contents[0]
                for name in ("card", "note", "photo")
            ]
            errors = []
            for name in ("missing", "stamped"):
                with pytest.raises(MCPError) as refused:
                    await session.read_resource(f"small://{name}")
                errors.append(str(refused.value))
            return contents, errors

    (card, note, photo), (missing, stamped) = asyncio.run(main())
    assert json.loads(card.text) == {"holder": "[redacted]", "number": "[redacted]", "limit": 500}
    assert (str(card.uri), card.mime_type) == ("small://card", "application/json")
    assert (note.text, photo.text) == ("[redacted]", "[redacted]")
    assert "Ann Lee" not in missing
    assert stamped.startswith("The operation may not be performed.")
    assert "small://stamped" not in log.read_text(), "an unsupported obligation means a denial"


def test_the_end_of_the_server_is_the_end_of_the_session(site: Site, tmp_path: Path) -> None:
    """The call that waits gets an answer, and the exit status is the server's."""
    with Session.guarded(site, tmp_path) as session:
        session.call("slow", 1)
        session.call("exit", 2)
        answers = {session.read()["id"], session.read()["id"]}
        assert answers == {1, 2}
        assert session.read() == {}
        assert session.ended()[0] == 7


def test_a_killed_server_is_told_by_its_signal(site: Site, tmp_path: Path) -> None:
    """As a shell tells it."""
    with Session.guarded(site, tmp_path) as session:
        session.call("slow")
        eventually(lambda: "slow" in session.log.read_text(), what="the server has the call")
        (child,) = children(session.process.pid)
        os.kill(child, signal.SIGKILL)
        assert session.read()["error"]["message"] == "The server ended before it answered."
        assert session.ended()[0] == 128 + signal.SIGKILL


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    tasks = Path(f"/proc/{pid}/task")
    lists = [(task / "children").read_text().split() for task in tasks.iterdir()]
    return [int(child) for one in lists for child in one]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_both(site: Site, tmp_path: Path, number: signal.Signals) -> None:
    """The server gets the end of its input, and ends by itself."""
    with Session.guarded(site, tmp_path) as session:
        (child,) = children(session.process.pid)
        session.process.send_signal(number)
        assert session.ended()[0] == 128 + number
    assert session.log.read_text().endswith("end\n")
    assert not Path(f"/proc/{child}").exists()


def test_a_message_that_is_too_large_is_refused(site: Site, tmp_path: Path) -> None:
    """Of the client: an error, and the session goes on. Of the server: the end, for the request is not known."""
    with Session.guarded(site, tmp_path, "--max-message", "2") as session:
        large = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping", "x": "a" * 3_000_000})
        session.write(large.encode() + b"\n")
        assert session.read() == {
            "jsonrpc": "2.0",
            "id": None,
            "error": {"code": -32600, "message": "The message is too large."},
        }
        session.call("read", 2)
        assert session.read()["id"] == 2
        session.call("big", 3)
        assert session.read()["error"]["message"] == "The server ended before it answered."
        status, errors = session.ended()
    assert status == 1
    assert "larger than 2097152 bytes; see --max-message" in errors
    assert len(session.log.read_text()) < 100_000


def test_a_result_is_reported_before_the_client_has_it(site: Site, tmp_path: Path) -> None:
    """By an enforcer, about the agent."""

    def reported() -> float:
        return site.server.metric("authz_reservations_total", result="reported")

    before = reported()
    with Session.guarded(site, tmp_path, "--enforcer", listener="none") as session:
        session.call("read")
        assert session.read()["id"] == 1
        assert reported() == before + 1
        session.hang_up()


@pytest.mark.parametrize("is_enforcer", [True, False])
def test_what_a_tool_made_may_be_changed(
    site: Site, tmp_path: Path, authority: Authority, *, is_enforcer: bool
) -> None:
    """If an enforcer reports the id; an id that the agent itself reports would say nothing, and is not sent."""
    token = tmp_path / "svid.jwt"
    token.write_text(authority.agent(f"{BOT}-values-{is_enforcer}"))
    more, listener = (["--enforcer"], "none") if is_enforcer else ([], "main")
    own = replace(site, token=token)
    with Session.guarded(own, tmp_path, *more, listener=listener) as session:

        def error_of(name: str, **arguments: Any) -> str:
            session.call(name, **arguments)
            result = session.read()["result"]
            return str(result["content"][0]["text"]) if result.get("isError") else ""

        assert "may not be performed" in error_of("change", id="n-1")
        assert error_of("make") == ""
        assert ("may not be performed" in error_of("change", id="n-1")) is not is_enforcer
        assert "may not be performed" in error_of("change", id="n-2")
        session.hang_up()
    assert '"n-2"' not in session.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--system", "s"], "give the server's command"),
        (
            ["--system", "s", "--url", "http://127.0.0.1:1/", "--", "true"],
            "give the server's command",
        ),
        (["--system", "s", "--", "true"], "nothing says which agent calls"),
        (["--system", "s", "--enforcer", "--", "true"], "--enforcer needs"),
        (["--system", "s", "--header", "a=b", "--agent-token", "t", "--", "true"], "--header"),
        (["--system", "s", "--agent-token", "t", "--", "/no/such/program"], "No such file"),
        (["--system", "s", "--agent-token", "t", "--url", "http://a.example/"], "https://"),
    ],
)
def test_wrong_use_is_told(arguments: list[str], reason: str) -> None:
    """Before anything starts."""
    done = subprocess.run(
        [*command(), "mcp", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 1
    assert reason in " ".join(done.stderr.split())
