"""Sets the mesh up, lets the agent work, and tells what was, or would have been, held."""

import asyncio
import datetime as dt
import json
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Any, Final

from authz.bundle import read_folder
from authz.errors import UnavailableError
from authz.tools.catalog.edited import EditedBundle
from authz.tools.catalog.fetch import ListingSource, fetch_listing
from authz.tools.catalog.review import Catalog, import_listing
from authz.tools.demo.envoy import (
    Envoy,
    ask_authz,
    authz_cluster,
    bootstrap,
    cluster,
    find_envoy,
    loopback,
    remember_mcp_id,
    survivable_mcp_answers,
    transport,
)
from authz.tools.demo.mesh.agent import Agent, ToolResult
from authz.tools.demo.mesh.first_line import first_line_agent
from authz.tools.demo.mesh.servers import HIJACKER, SYSTEMS, ToolServers, mcp_is_here
from authz.tools.demo.node import NodeProcess
from authz.tools.demo.stage import Stage
from authz.tools.keys import Authority

__all__ = ["AgentCall", "JudgedCall", "Mesh", "Step"]

_DOMAIN: Final = "mesh.example"
_AGENT: Final = "/ns/office/sa/assistant"
_GATEWAY: Final = "/ns/mesh/sa/gateway"
_POLICY: Final = "mail-stays-inside"
_HARMLESS: Final = ("files.read_file", {"path": "orders/7.txt"})
_OBSERVED_DAYS: Final = 30
_PATIENCE: Final = 30.0
_CALL: Final = """\
import asyncio, json, sys
from mcp import Client

async def main(tool, arguments):
    system, _, name = tool.partition(".")
    async with Client("{base}/" + system + "/mcp") as client:
        result = await client.call_tool(name, json.loads(arguments))
    print("error:" if result.is_error else "answer:", *(part.text for part in result.content))

asyncio.run(main(*sys.argv[1:]))
"""
_RECORDED: Final = 2.0


@dataclass(frozen=True, slots=True)
class JudgedCall:
    """Audit record of one call."""

    decision_id: str
    """Its id."""
    agent: str
    """Caller, by the certificate of its sidecar."""
    operation: str
    """Operation id."""
    outcome: str
    """Outcome: PERMIT, STEP_UP or DENY."""
    reason: str
    """Why."""
    policies: str
    """By which policies."""
    destination: str
    """Class of where the data would go."""
    enforced: bool
    """False: only noted, and let through."""


@dataclass(frozen=True, slots=True)
class AgentCall:
    """A call of a tool, with its answer and its audit record."""

    done: ToolResult
    """Result that the agent got."""
    judged: JudgedCall | None
    """Audit record of the call, or None if no decision was recorded."""


@dataclass(frozen=True, slots=True)
class Step:
    """One claim of the demo, and the observation."""

    what: str
    """Description of the step."""
    expected: str
    """Expected result."""
    got: str
    """Actual result."""
    milliseconds: float = 0.0
    """Duration; 0 where it means nothing."""

    @property
    def well(self) -> bool:
        """Whether the result is the expected one."""
        return self.expected == self.got


class Mesh(Stage):
    """The node, a gateway, three MCP servers, an agent's sidecar; a context manager.

    Args:
        say: Told what is being done.

    Raises:
        UnavailableError: A part is missing or does not start.
        UsageError: An extra is missing.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(say)
        self._authority = Authority(_DOMAIN)
        self._read = 0
        self._node: NodeProcess | None = None
        self._sidecar: Envoy | None = None
        self.why = ""
        """Output of `authz why` for the last call that was refused."""
        self._held: list[JudgedCall] = []

    def _start(self, undo: ExitStack) -> None:
        mcp_is_here()
        program = find_envoy()
        if program is None:
            raise UnavailableError('Envoy is missing: pip install "authz-runtime[demo]"')
        self._make_folder(undo, "mesh")
        self._say(f"a throw-away trust domain {_DOMAIN} in {self.folder}")
        keys = {"keys": [self._authority.jwk()], "spiffe_sequence": 1}
        (self.folder / "trust.json").write_text(json.dumps(keys))
        self._say(f"three MCP servers: {', '.join(SYSTEMS)}")
        self.servers = ToolServers()
        undo.callback(self.servers.close)
        self._import(self._variables())
        self._say("the node: authz serve")
        (self.folder / "config.json").write_text(json.dumps(self._config(), indent=2))
        self._serve()
        undo.callback(self._stop)
        self._say("a gateway (Envoy) before the servers, a sidecar (Envoy) beside the agent")
        gateway = Envoy(program, self.folder, self._gateway(), "gateway")
        undo.callback(gateway.close)
        self._sidecar = Envoy(program, self.folder, self._beside(gateway.port), "sidecar")
        undo.callback(self._sidecar.close)

    def _variables(self) -> dict[str, str]:
        ends = dt.datetime.now(dt.UTC) + dt.timedelta(days=_OBSERVED_DAYS)
        return {"trust_domain": _DOMAIN, "until": ends.date().isoformat()}

    def _import(self, variables: dict[str, str]) -> None:
        """Import and accept the tools, as `authz catalog import-mcp` and `authz catalog accept --all` do."""
        bundle = self.folder / "bundle"
        with as_file(files("authz.tools") / "templates" / "mesh") as template:
            # Meaning and policies speak of tools, so these come first.
            later = shutil.ignore_patterns("meaning.yaml", "routes.yaml", "policies")
            shutil.copytree(template, bundle, ignore=later)
            edited = EditedBundle(bundle, read_folder(bundle), variables)
            for system in SYSTEMS:
                listing = fetch_listing(ListingSource(url=self.servers.url(system)))
                import_listing(edited, system, listing)
            shutil.copytree(template, bundle, dirs_exist_ok=True)
        edited = EditedBundle(bundle, read_folder(bundle), variables)
        for system in SYSTEMS:
            catalog = Catalog(edited, system)
            catalog.accept({item.operation: None for item in catalog.items()})
        self._say("their tools: imported by `tools/list`, pinned")

    def _config(self) -> dict[str, Any]:
        run = self.folder / "run"
        return {
            "bundle": {"path": "bundle"},
            "vars": self._variables(),
            "identity": {"audiences": ["authz"]},
            "trust": {"domains": {_DOMAIN: {"bundle": {"file": "trust.json"}}}},
            "enforcers": [
                {
                    "name": "gateway",
                    "listener": "gateway",
                    "asks": ["system:*"],
                    "relays": ["principal"],
                }
            ],
            "listeners": {
                "gateway": {"address": f"unix://{run}/gateway.sock"},
                "admin": {"address": f"unix://{run}/admin.sock"},
                "metrics": {"address": "127.0.0.1:0"},
            },
            "audit": {"path": "audit.jsonl"},
        }

    def _gateway(self) -> dict[str, Any]:
        certificate, key = self._authority.svid(_GATEWAY)
        return bootstrap(
            "gateway",
            [remember_mcp_id(), ask_authz()],
            {f"/{system}/": system for system in SYSTEMS},
            [
                authz_cluster(self.folder / "run" / "gateway.sock"),
                *(cluster(name, loopback(port)) for name, port in self.servers.ports.items()),
            ],
            survivable_mcp_answers(),
            transport_socket=transport("Downstream", certificate, key, self._authority.pem),
        )

    def _beside(self, gateway: int) -> dict[str, Any]:
        certificate, key = self._authority.svid(_AGENT)
        mutual = transport("Upstream", certificate, key, self._authority.pem)
        return bootstrap(
            "sidecar",
            [],
            {"/": "gateway"},
            [cluster("gateway", loopback(gateway), transport_socket=mutual)],
        )

    def paste(self) -> str:
        """Write lines to try while everything runs.

        Returns:
            Commands, with comments.

        Raises:
            UnavailableError: The mesh does not run.
        """
        if self._sidecar is None:
            raise UnavailableError("the mesh does not run")
        base = f"http://127.0.0.1:{self._sidecar.port}"
        (self.folder / "call.py").write_text(_CALL.format(base=base))
        call = f"{sys.executable} call.py"
        stranger = '{"to": "eve@evil.example", "subject": "hi", "body": "hi"}'
        endpoints = "\n".join(f"#   {base}/{system}/mcp" for system in SYSTEMS)
        return "\n".join(
            (
                f"# The MCP servers, through the agent's sidecar; any MCP client may call them:\n{endpoints}",
                f"cd {self.folder}",
                f"{call} files.read_file '{json.dumps(_HARMLESS[1])}'",
                f"{call} mail.send_message '{stranger}'",
                "authz why --log audit.jsonl      # the calls that were held, and the policy that held them",
                "tail -n 1 audit.jsonl            # the last decision, in full",
                f"authz status --admin unix://{self.folder}/run/admin.sock",
                "# Change bundle/policies/office.cedar or bundle/mode.yaml: the node loads the bundle at once.",
            )
        )

    # --- the node

    def _serve(self) -> None:
        self._node = NodeProcess(self.folder / "config.json", self.folder / "node.log")

    def _stop(self) -> None:
        if self._node is not None:
            self._node.close()

    def _kill(self) -> None:
        if self._node is not None:
            self._node.kill()

    def _enforce(self) -> None:
        """Change the one line, and wait until it is served."""
        file = self.folder / "bundle" / "mode.yaml"
        file.write_text(file.read_text().replace("default: observe", "default: enforce"))
        deadline = time.monotonic() + _PATIENCE
        log = self.folder / "node.log"
        while log.read_text().count('"event": "loaded"') < 2:
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"the node does not load the bundle: {log.read_text()[-2000:]}"
                )
            time.sleep(0.05)

    # --- what is seen

    def _recorded(self) -> list[JudgedCall]:
        """Read what the audit has since the last time, of calls of tools."""
        with (self.folder / "audit.jsonl").open("rb") as stream:
            stream.seek(self._read)
            whole, newline, _ = stream.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        return [one for line in whole.splitlines() if (one := _judged(json.loads(line)))]

    async def _told(self, done: ToolResult, watch: Callable[[AgentCall], None]) -> AgentCall:
        """Join a call with its record, which is written a moment after the answer."""
        deadline = time.monotonic() + _RECORDED
        found: list[JudgedCall] = []
        while not found and time.monotonic() < deadline:
            found = [one for one in self._recorded() if one.operation == done.tool]
            await asyncio.sleep(0.005)
        call = AgentCall(done, found[-1] if found else None)
        self._held += [one for one in found if one.outcome != "PERMIT"]
        watch(call)
        return call

    async def steps(self, watch: Callable[[AgentCall], None]) -> AsyncIterator[Step]:
        """Let the agent work: observed, enforced, with the node killed and back.

        Args:
            watch: Told every call that the agent makes.

        Yields:
            What was claimed and seen.
        """
        sidecar = self._sidecar
        if sidecar is None:
            raise UnavailableError("the mesh does not run")
        async with Agent(f"http://127.0.0.1:{sidecar.port}", SYSTEMS) as agent:
            async for step in self._observed(agent, watch):
                yield step
            async for step in self._enforced(agent, watch):
                yield step
        async for step in self._killed(f"http://127.0.0.1:{sidecar.port}", watch):
            yield step
        yield await asyncio.to_thread(self._ask_why)

    async def _observed(
        self, agent: Agent, watch: Callable[[AgentCall], None]
    ) -> AsyncIterator[Step]:
        calls = [await self._told(done, watch) async for done in agent.work()]
        let = sum(not call.done.held for call in calls)
        would = ", ".join(f"{one.operation} to {one.destination}" for one in self._held)
        yield Step(
            "observe: the agent does what its inbox asks",
            "5 of 5 calls let through; would be held: mail.send_message to external",
            f"{let} of {len(calls)} calls let through; would be held: {would}",
        )
        yield Step(
            "the agent was known by",
            f"spiffe://{_DOMAIN}{_AGENT}",
            ", ".join({call.judged.agent for call in calls if call.judged is not None}),
        )
        yield Step("the hijacked message has left", HIJACKER, ", ".join(self.servers.sent[1:]))

    async def _enforced(
        self, agent: Agent, watch: Callable[[AgentCall], None]
    ) -> AsyncIterator[Step]:
        started = time.perf_counter()
        await asyncio.to_thread(self._enforce)
        took = (time.perf_counter() - started) * 1000
        yield Step("one line of mode.yaml: `default: enforce`", "loaded", "loaded", took)
        sent = len(self.servers.sent)
        calls = [await self._told(done, watch) async for done in agent.work()]
        held = [call.done for call in calls if call.done.held]
        yield Step(
            "enforce: the agent does the same again",
            f"held: mail.send_message to {HIJACKER}",
            "held: " + ", ".join(f"{one.tool} to {one.arguments.get('to')}" for one in held),
        )
        left = ", ".join(self.servers.sent[sent:])
        yield Step("what has left since", "bob@corp.example", left)
        after = await self._told(await agent.call(*_HARMLESS), watch)
        yield Step("the agent's session lives: its next call", "permitted", _word(after.done))

    async def _killed(self, base: str, watch: Callable[[AgentCall], None]) -> AsyncIterator[Step]:
        """Kill the node and start it again, while agents of both lines of the SDK keep their sessions."""
        async with Agent(base, ("files",)) as agent, first_line_agent(base) as older:
            await asyncio.to_thread(self._kill)
            calls = self.servers.calls["files.read_file"]
            refused = await agent.call(*_HARMLESS)
            watch(AgentCall(refused, None))
            older_refused = await older.call() if older is not None else ""
            reached = self.servers.calls["files.read_file"] - calls
            yield Step(
                "kill -9 of the node: the next call",
                "held, the server was not reached",
                f"{_word(refused)}, the server was {'reached' if reached else 'not reached'}",
            )
            started = time.perf_counter()
            await asyncio.to_thread(self._serve)
            back = await self._again(agent)
            took = (time.perf_counter() - started) * 1000
            yield Step(
                "the node is started again: the next call of the same session",
                "permitted",
                _word((await self._told(back, watch)).done),
                took,
            )
            if older is not None:
                yield Step(
                    "a session of version 1 of the MCP SDK, over the same restart",
                    "held, then permitted",
                    f"{older_refused}, then {await older.call()}",
                )

    async def _again(self, agent: Agent) -> ToolResult:
        """Call until it is permitted, in the same session."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            done = await agent.call(*_HARMLESS)
            if not done.held or time.monotonic() > deadline:
                return done
            await asyncio.sleep(0.02)

    def _ask_why(self) -> Step:
        last = self._held[-1].decision_id if self._held else "nothing was held"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "authz", "why", last),
                *("--log", str(self.folder / "audit.jsonl")),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.why = done.stdout + done.stderr
        named = _POLICY in self.why
        return Step(
            f"authz why {last}",
            f"names {_POLICY}",
            f"names {_POLICY}" if named else f"exit {done.returncode}: {self.why}",
        )


def _word(done: ToolResult) -> str:
    return "held" if done.held else "permitted"


def _judged(record: dict[str, Any]) -> JudgedCall | None:
    result, asked = record["result"], record["input"]
    operation = str(asked.get("operation", ""))
    if operation.endswith(".mcp"):
        return None
    chain = asked.get("chain") or [{}]
    policies = result.get("policies") or ()
    return JudgedCall(
        decision_id=str(record["decision_id"]),
        agent=str(chain[-1].get("id", "")),
        operation=operation,
        outcome=str(result["outcome"]),
        reason=str(result["reason_code"]),
        policies=", ".join(
            str(one.get("id", one)) if isinstance(one, dict) else str(one) for one in policies
        ),
        destination=str(asked.get("destination_class", "")),
        enforced=result.get("enforced") is not False,
    )
