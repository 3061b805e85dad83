"""Calls that wait for a person, from the agent's first call to the run of its tool, on a real node.

The person answers by the command `authz approval`, as the user that the configuration maps to a person.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support import tools
from tests.support.envoy import MCP_TEMPLATE, Envoy
from tests.support.minting import Authority
from tests.support.people import BOT
from tests.support.server import Server, command, layout
from tests.support.waiting import eventually, free_port

pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests/support"
FACTS = """
agents: {bot: ["spiffe://${trust_domain}/ns/support/sa/*"]}
destinations: {external: {match: "*", clearance: []}}
resources: {pages: {}, mailboxes: {}}
"""
ROUTES = """
routes: [{path: /sums/mcp, mcp: sums}]
"""
RULES = """
subjects: {manager: [{issuer: corp, claim: groups, contains: managers}]}
catalog:
  mail:
    kind: http
    origin: https://mail.example
    operations:
      send: {input: {type: object, properties: {to: {type: string}, body: {type: string}}}}
classify:
  - {match: sums.add, effects: [write], tier: standard}
  - {match: crm.delete, effects: [delete], tier: standard, objects: [{from: /page, role: target, collection: pages}]}
  - {match: mail.send, effects: [write], tier: standard, objects: [{from: /to, role: recipient, collection: mailboxes}]}
"""
POLICY = """
@id("bot") permit(principal in Role::"bot", action in
  [Action::"crm.mcp", Action::"crm.delete", Action::"mail.send", Action::"sums.mcp", Action::"sums.add"], resource);
@id("managers") permit(principal in Role::"manager", action == Action::"authz.approve", resource);
@id("held") @stepup("approve") @reason("a person must agree")
forbid(principal, action in [Action::"crm.delete", Action::"mail.send", Action::"sums.add"], resource)
unless { context.satisfied.contains(Kind::"approve") };
"""


@dataclass
class Site:
    """A node whose person is the user of the tests."""

    node: Server
    token: Path
    envoy: Envoy

    def authz(self, *words: str, fails: bool = False) -> Any:
        """Runs `authz approval`; its JSON."""
        admin = self.node.address("admin")
        done = subprocess.run(
            [*command(), "approval", *words, "--admin", admin, "--format", "json"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode != 0) is fails, (words, done.stdout, done.stderr)
        return json.loads(done.stdout) if done.stdout else None

    def answer(self, verb: str, *more: str) -> str:
        """Waits for an approval and answers it; its id."""
        found: list[dict[str, Any]] = []

        def asked() -> bool:
            found[:] = self.authz("list")["approvals"]
            return bool(found)

        eventually(asked, what="an approval is open", every=0.3)
        (approval,) = found
        shown = self.authz("show", approval["id"])
        digest = ("--digest", shown["card_digest"]) if verb == "approve" else ()
        self.authz(verb, approval["id"], "--yes", *digest, *more)
        return str(approval["id"])

    @contextmanager
    def person(self, verb: str, *more: str) -> Iterator[list[str]]:
        """Answers meanwhile, on another thread."""
        answered: list[str] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                answered.append(self.answer(verb, *more))
            except BaseException as error:  # noqa: BLE001 - the test tells it
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield answered
        finally:
            thread.join(90)
        assert not errors, errors


def _authz(*words: str) -> None:
    done = subprocess.run(
        [*command(), *words], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)


def _routed(port: int) -> Any:
    """Returns the change that leads `/sums/mcp` to the server."""

    def change(config: dict[str, Any]) -> None:
        (upstream,) = [
            cluster
            for cluster in config["static_resources"]["clusters"]
            if cluster["name"] == "upstream"
        ]
        (endpoint,) = upstream["load_assignment"]["endpoints"][0]["lb_endpoints"]
        endpoint["endpoint"]["address"]["socket_address"]["port_value"] = port
        chain = config["static_resources"]["listeners"][0]["filter_chains"][0]
        host = chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]
        (route,) = host["routes"]
        route["match"] = {"path": "/sums/mcp"}
        route["route"] |= {"prefix_rewrite": "/mcp"}

    return change


def _listens(port: int) -> bool:
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
    return True


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    """Ends what the module started."""
    with ExitStack() as made:
        yield made


@pytest.fixture(scope="module")
def site(authority: Authority, tmp_path_factory: pytest.TempPathFactory, stack: ExitStack) -> Site:
    """Imports the tools of two servers, and starts a node, and an Envoy before the second server."""
    folder = tmp_path_factory.mktemp("held")
    bundle = folder / "bundle"
    (bundle / "policies").mkdir(parents=True)
    (bundle / "bundle.yaml").write_text("{name: held, tasks: optional}\n")
    (bundle / "facts.yaml").write_text(FACTS)
    server = f"{tools.fastmcp_python()} {SUPPORT / 'fastmcp_server.py'} bare"
    path = f"PYTHONPATH={ROOT / 'client/src'}"
    where = ("--bundle", str(bundle))
    _authz("catalog", "import-mcp", "crm", "--stdio", server, "--env", path, *where)
    port = free_port()
    process = subprocess.Popen([sys.executable, str(SUPPORT / "mcp_modern.py"), str(port)])
    stack.callback(process.wait, 10)
    stack.callback(process.kill)
    eventually(partial(_listens, port), what="the server of sums listens")
    url = f"http://127.0.0.1:{port}/mcp"
    _authz("catalog", "import-mcp", "sums", "--url", url, *where)
    (bundle / "facts.yaml").write_text(FACTS + RULES)
    _authz("catalog", "accept", "crm", "--all", *where)
    _authz("catalog", "accept", "sums", "--all", *where)
    (bundle / "facts.yaml").write_text((bundle / "facts.yaml").read_text() + ROUTES)
    (bundle / "policies/all.cedar").write_text(POLICY)
    person = {
        "uid": os.geteuid(),
        "issuer": "corp",
        "sub": "alice",
        "claims": {"groups": ["managers"]},
    }
    changes = {"approvals": {"url": "https://authz.corp.example", "people": [person]}}
    token = folder / "svid.jwt"
    token.write_text(authority.agent(BOT))
    place = layout(folder / "node", authority, bundle, changes)
    # The user who answers runs no enforcer.
    place.config["enforcers"] = [one for one in place.config["enforcers"] if "uids" not in one]
    place.config["listeners"].pop("portal")
    place.write()
    node = stack.enter_context(Server(place))
    envoy = Envoy(folder / "envoy", node.port("main"), 1, _routed(port), template=MCP_TEMPLATE)
    return Site(node, token, stack.enter_context(envoy))


def delete(site: Site, sdk: str, page: str, output: Path) -> dict[str, Any]:
    """Calls the tool once by a stock client that opens pages, through `authz mcp`."""
    python = tools.mcp_peers() / "python/bin/python" if sdk == "1.x" else Path(sys.executable)
    guard = [*command(), "mcp", "--system", "crm", "--server", site.node.address("main")]
    bare = [str(tools.fastmcp_python()), str(SUPPORT / "fastmcp_server.py"), "bare", str(output)]
    plan: dict[str, Any] = {
        "command": [
            *(*guard, "--agent-token", str(site.token), "--timeout", "10", "--"),
            *("env", f"PYTHONPATH={ROOT / 'client/src'}", *bare),
        ],
        "modern": sdk.endswith("stateless"),
        "calls": [("delete", {"page": page})],
        "pages": {"action": "accept"},
    }
    done = subprocess.run(
        [str(python), str(SUPPORT / "mcp_client.py")],
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    assert "failed" not in found, (found, done.stderr)
    return found


@pytest.mark.parametrize("sdk", ["1.x", "2.x, stateless"])
def test_a_client_of_mcp_gets_its_answer_in_one_call(site: Site, tmp_path: Path, sdk: str) -> None:
    """The page's address is shown once, the person answers, and the tool runs once."""
    output = tmp_path / "output"
    # A rejection is remembered for the page, so each client has its own.
    number = str(len(sdk))
    with site.person("approve") as answered:
        done = delete(site, sdk, number, output)
    (page,) = done["pages"]
    assert page["url"] == f"https://authz.corp.example/a/{answered[0]}"
    assert (done["calls"][0]["is_error"], done["calls"][0]["text"]) == (False, "deleted")
    assert output.read_text().count(f"ran delete {number}") == 1
    # The answer is used up: the next call is asked anew.
    with site.person("reject", "--reason", "not_needed") as again:
        done = delete(site, sdk, number, output)
    assert again != answered
    assert done["calls"][0]["is_error"] is True
    assert output.read_text().count(f"ran delete {number}") == 1


@pytest.mark.parametrize("framework", ["langgraph", "openai"])
def test_an_agent_of_a_framework_goes_on_after_the_answer(site: Site, framework: str) -> None:
    """Approved: the tool runs once. Rejected: it does not, and the model reads it."""
    for number, verb in enumerate(("approve", "reject")):
        mails = [[f"{framework}{number}@other.example", "hello"]]
        path = os.pathsep.join(str(ROOT / part) for part in ("client/src", "examples/agents"))
        reason = ("--reason", "not_needed") if verb == "reject" else ()
        with site.person(verb, *reason):
            done = subprocess.run(
                [
                    *(str(tools.agents_python()), str(SUPPORT / "agents_run.py"), framework),
                    *(site.node.address("main"), json.dumps(mails)),
                ],
                env={
                    **os.environ,
                    "PYTHONPATH": path,
                    "AGENT_TOKEN": str(site.token),
                    "OPENAI_API_KEY": "none",
                },
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        assert done.returncode == 0, done.stderr
        assert "https://authz.corp.example/a/" in done.stdout
        assert done.stdout.count("sent to") == (2 if verb == "approve" else 0)


@pytest.mark.envoy
def test_a_client_behind_a_proxy_opens_the_page_once(site: Site, tmp_path: Path) -> None:
    """The call that comes back too early reads what to do, and the call after the answer runs."""
    answered = tmp_path / "answered"
    add = ("add", {"a": 2, "b": 40})
    plan: dict[str, Any] = {
        "url": f"http://127.0.0.1:{site.envoy.port}/sums/mcp",
        "headers": {"authorization": f"Bearer {site.token.read_text()}"},
        "modern": True,
        "calls": [add, ("wait", {"ready": str(tmp_path / "ready"), "until": str(answered)}), add],
        "pages": {"action": "accept"},
    }

    def work() -> None:
        site.answer("approve")
        answered.touch()

    person = threading.Thread(target=work)
    person.start()
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "mcp_client.py")],
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    person.join(60)
    found: dict[str, Any] = json.loads(done.stdout)
    assert "failed" not in found, (found, done.stderr)
    (page,) = found["pages"]
    early, _, last = found["calls"]
    assert page["url"].startswith("https://authz.corp.example/a/")
    assert early["is_error"] is True
    assert "make the same call again" in early["text"]
    assert page["url"] in early["text"]
    assert (last["is_error"], last["text"]) == (False, "42")


def test_a_guarded_fastmcp_server_waits_for_the_answer(
    site: Site, tmp_path: Path, stack: ExitStack
) -> None:
    """The middleware asks as an enforcer, and the tool runs once in the call that comes back."""
    port, output = free_port(), tmp_path / "output"
    server = [str(tools.fastmcp_python()), str(SUPPORT / "fastmcp_server.py")]
    with output.open("w") as stream:
        process = subprocess.Popen(
            [*server, str(port), site.node.address("crm-only")],
            env={**os.environ, "PYTHONPATH": str(ROOT / "client/src")},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    stack.callback(process.wait, 10)
    stack.callback(process.kill)
    eventually(partial(_listens, port), what="the server listens")
    plan = {
        "url": f"http://127.0.0.1:{port}/mcp",
        "headers": {"authorization": f"Bearer {site.token.read_text()}"},
        "modern": True,
        "calls": [("delete", {"page": "fastmcp"})],
        "pages": {"action": "accept"},
    }
    with site.person("approve") as answered:
        done = subprocess.run(
            [sys.executable, str(SUPPORT / "mcp_client.py")],
            input=json.dumps(plan),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    assert "failed" not in found, (found, done.stderr, output.read_text())
    (page,) = found["pages"]
    assert page["url"] == f"https://authz.corp.example/a/{answered[0]}"
    assert (found["calls"][0]["is_error"], found["calls"][0]["text"]) == (False, "deleted")
    assert output.read_text().count("ran delete fastmcp") == 1
