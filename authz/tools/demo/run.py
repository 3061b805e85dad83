"""Sets the demo up, makes the calls of `rows`, and prints the results."""

import base64
import http.client
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

import grpc

from authz.errors import UnavailableError
from authz.tools.demo.envoy import (
    Envoy,
    ask_authz,
    authz_cluster,
    bootstrap,
    cluster,
    find_envoy,
    loopback,
)
from authz.tools.demo.node import NodeProcess
from authz.tools.demo.rows import (
    AUDIENCE,
    BOT,
    CALLS,
    HEADLINES,
    REQUESTS,
    DemoCall,
    Headline,
    Request,
    Tokens,
)
from authz.tools.demo.stage import Stage
from authz.tools.demo.upstream import Upstream
from authz.tools.keys import DevDomain, DevProofKey
from authz_client.v1 import decision_pb2, reason_pb2

__all__ = ["Demo", "HeadlineRow", "Row"]

_DOMAIN: Final = "dev.example"
_ISSUER: Final = "https://idp.dev.example"
_HOST: Final = "crm.example"
_CHECK: Final = "/authz.v1.Authorizer/Check"
# A tool server that asks about its caller, with the SDK.
_ASK: Final = """\
import json, sys
from authz_client import Authz, Caller, Refused, caller

agent, subject = (open(name).read() for name in ("agent.jwt", "subject.jwt"))
authz = Authz("{main}", enforcer=True)
operation, arguments = sys.argv[1:]
with caller(Caller(agent_token=agent, subject_token=subject)):
    try:
        authz.check(operation, json.loads(arguments))
        print("PERMIT")
    except Refused as refused:
        print(type(refused).__name__, refused.reason_code, *refused.policy_ids)
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One call and its result."""

    by: str
    """Which way it went."""
    asked: str
    """Operation or request."""
    who: str
    """Caller."""
    expected: str
    """Expected result."""
    got: str
    """Actual result."""
    milliseconds: float
    """Duration of the call."""
    note: str = ""
    """Point that the call shows."""

    @property
    def well(self) -> bool:
        """Whether the result is the expected one."""
        return self.expected == self.got


@dataclass(frozen=True, slots=True)
class HeadlineRow:
    """A call of the short table, and its result."""

    headline: Headline
    """The call."""
    row: Row | None
    """Its result; None if it needs Envoy, which is not installed."""


class Demo(Stage):
    """The demo's node, Envoy and upstream; a context manager.

    Args:
        say: Told what is being done.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(say)
        self.profile = ""
        self.addresses: dict[str, str] = {}
        self.envoy: Envoy | None = None
        self._domain = DevDomain.make(_DOMAIN, _ISSUER)
        self._forger = DevDomain.make("evil.example", _ISSUER)
        self._key = DevProofKey()

    def _start(self, undo: ExitStack) -> None:
        self._make_folder(undo, "demo")
        self._say(f"a throw-away trust domain {_DOMAIN} in {self.folder}")
        self._domain.publish(self.folder)
        bundle = undo.enter_context(as_file(files("authz.tools") / "templates" / "full"))
        config = self.folder / "config.yaml"
        config.write_text(_config(self.folder, bundle))
        self._say("the node: authz serve")
        program = find_envoy()
        if program is not None:
            self._say("an API, and Envoy in front of it")
        # Both start at once: Envoy needs the node only when a request comes.
        with ThreadPoolExecutor(2) as pool:
            starts = [pool.submit(self._start_node, config, undo)]
            if program is not None:
                starts.append(pool.submit(self._start_envoy, program, undo))
        for start in starts:
            start.result()

    def _start_node(self, config: Path, undo: ExitStack) -> None:
        node = NodeProcess(config, self.folder / "node.log")
        undo.callback(node.close)
        self.profile, self.addresses = node.profile, node.addresses

    def _start_envoy(self, program: Path, undo: ExitStack) -> None:
        upstream = Upstream()
        undo.callback(upstream.close)
        clusters = (
            authz_cluster(self.folder / "run" / "envoy.sock"),
            cluster("upstream", loopback(upstream.port)),
        )
        listening = bootstrap("demo", [ask_authz()], {"/": "upstream"}, clusters)
        self.envoy = Envoy(program, self.folder, listening)
        undo.callback(self.envoy.close)

    # --- asking

    def headlines(self) -> Iterator[HeadlineRow]:
        """Make the calls of the short table.

        Yields:
            Each call and its result.
        """
        with grpc.insecure_channel(self.addresses["main"]) as channel:
            for headline in HEADLINES:
                if isinstance(headline.call, DemoCall):
                    row: Row | None = self._call(channel, "gRPC", headline.call)
                else:
                    row = self._request(self.envoy.port, headline.call) if self.envoy else None
                yield HeadlineRow(headline, row)

    def rows(self) -> Iterator[Row]:
        """Make every call, on both lanes and through Envoy if it is installed.

        Yields:
            The result of each call.
        """
        for lane, listener in (("gRPC", "main"), ("gRPC, fast lane", "fast")):
            with grpc.insecure_channel(self.addresses[listener]) as channel:
                # The first call opens the connection, which no row should show as its latency.
                self._call(channel, lane, CALLS[0])
                for call in CALLS:
                    yield self._call(channel, lane, call)
        if self.envoy is not None:
            self._request(self.envoy.port, REQUESTS[0])
            for request in REQUESTS:
                yield self._request(self.envoy.port, request)

    def _call(self, channel: grpc.Channel, lane: str, call: DemoCall) -> Row:
        agent, subject = call.tokens.make(self._domain, self._forger, self._key)
        # The request that a tool server would have been sent.
        method, url = "POST", f"https://{_HOST}/{call.operation}"
        is_bound = agent is not None and call.tokens is Tokens.BOUND
        scheme = (
            decision_pb2.EVIDENCE_SCHEME_DPOP if is_bound else decision_pb2.EVIDENCE_SCHEME_BEARER
        )
        proof = self._key.proof(method, url, agent or "") if is_bound else ""
        ask = decision_pb2.CheckRequest(
            operation=call.operation,
            arguments_json=call.arguments.encode(),
            supported_obligations=call.obligations,
            http_method=method if is_bound else "",
            http_uri=url if is_bound else "",
        )
        if agent is not None:
            role = decision_pb2.EVIDENCE_ROLE_AGENT
            ask.evidence.add(role=role, scheme=scheme, token=agent, proof=proof)
        if subject is not None:
            role = decision_pb2.EVIDENCE_ROLE_SUBJECT
            scheme = decision_pb2.EVIDENCE_SCHEME_BEARER
            ask.evidence.add(role=role, scheme=scheme, token=subject)
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_CHECK)
        started = time.perf_counter()
        try:
            received = check(ask.SerializeToString(), timeout=10)
            took = time.perf_counter() - started
            decision = decision_pb2.CheckResponse.FromString(received).decision
            outcome = decision_pb2.Outcome.Name(decision.outcome).removeprefix("OUTCOME_")
            reason = reason_pb2.ReasonCode.Name(decision.reason_code).removeprefix("REASON_CODE_")
            got = f"{outcome} {reason}"
        except grpc.RpcError as error:
            took = time.perf_counter() - started
            got = f"RPC error: {error}"
        asked = f"{call.operation} {call.arguments}"
        return Row(
            lane, asked, call.tokens, f"{call.outcome} {call.reason}", got, took * 1000, call.note
        )

    def _request(self, port: int, request: Request) -> Row:
        agent, subject = request.tokens.make(self._domain, self._forger, self._key)
        headers = {"host": _HOST, **request.headers}
        if agent is not None and request.tokens is Tokens.BOUND:
            url = f"https://{_HOST}{request.target.partition('?')[0]}"
            headers["authorization"] = f"DPoP {agent}"
            headers["dpop"] = self._key.proof(request.method, url, agent)
        elif agent is not None:
            headers["authorization"] = f"Bearer {agent}"
        if subject is not None:
            headers["authz-subject"] = subject
        if request.body:
            headers["content-type"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        started = time.perf_counter()
        try:
            connection.request(request.method, request.target, request.body or None, headers)
            answer = connection.getresponse()
            body = answer.read()
            got = str(answer.status)
        except OSError as error:
            got, body = f"no answer: {error}", b""
        finally:
            connection.close()
        took = time.perf_counter() - started
        if got == "200" and (wrong := _wrong_headers(body)):
            got = f"200, but {wrong}"
        asked = f"{request.method} {request.target}"
        return Row(
            "Envoy", asked, request.tokens, str(request.status), got, took * 1000, request.note
        )

    # --- staying

    def paste(self) -> str:
        """Write lines to paste, with tokens that are good for an hour.

        Returns:
            Lines for the SDK, grpcurl, ghz and curl.
        """
        agent, subject = Tokens.GOOD.make(self._domain, self._forger)
        if agent is None or subject is None:
            raise UnavailableError("no tokens")
        scheme = "EVIDENCE_SCHEME_BEARER"
        request = json.dumps(
            {
                "operation": "crm.search",
                "arguments_json": base64.b64encode(b'{"query":"smith"}').decode(),
                "evidence": [
                    {"role": "EVIDENCE_ROLE_AGENT", "scheme": scheme, "token": agent},
                    {"role": "EVIDENCE_ROLE_SUBJECT", "scheme": scheme, "token": subject},
                ],
            }
        )
        (self.folder / "request.json").write_text(request + "\n")
        (self.folder / "agent.jwt").write_text(agent)
        (self.folder / "subject.jwt").write_text(subject)
        main, metrics = self.addresses["main"], self.addresses["metrics"]
        (self.folder / "ask.py").write_text(_ASK.format(main=main))
        mail = '{"to": ["eve@evil.example"], "subject": "Re", "body": "hi"}'
        lines = [
            f"# {BOT} of {_DOMAIN}, audience {AUDIENCE}, for alice of staff; good for an hour",
            f"cd {self.folder}",
            f'{sys.executable} ask.py crm.search \'{{"query": "smith"}}\'',
            f"{sys.executable} ask.py gmail.send_email '{mail}'",
            f"grpcurl -plaintext -d @ {main} authz.v1.Authorizer/Check < request.json",
            f"ghz --insecure --call authz.v1.Authorizer.Check -D request.json -c 16 -n 10000 {main}",
            f"curl -s http://{metrics}/readyz",
            f"curl -s http://{metrics}/metrics | grep authz_decisions_total",
            f"authz status --admin {self.addresses['admin']}",
        ]
        if self.envoy is not None:
            lines.insert(
                6,
                f'curl -i -H "host: {_HOST}" -H "authorization: Bearer $(cat agent.jwt)" '
                f'-H "authz-subject: $(cat subject.jwt)" '
                f'"http://127.0.0.1:{self.envoy.port}/customers?q=smith"',
            )
        return "\n".join(lines)


def _wrong_headers(body: bytes) -> str:
    """Tell what is wrong with the headers that the upstream saw; empty where nothing is."""
    try:
        seen = json.loads(body)["headers"]
    except (ValueError, KeyError, TypeError):
        return "not from the upstream"
    expected = f"spiffe://{_DOMAIN}{BOT}"
    if seen.get("x-authz-agent") != expected:
        return f"x-authz-agent is {seen.get('x-authz-agent')}"
    if not seen.get("x-authz-decision-id"):
        return "no x-authz-decision-id"
    return ""


def _config(folder: Path, bundle: Path) -> str:
    return json.dumps(
        {
            "bundle": {"path": str(bundle), "watch": False},
            "vars": {"trust_domain": _DOMAIN},
            "identity": {"audiences": [AUDIENCE]},
            "trust": {
                "domains": {_DOMAIN: {"bundle": {"file": "bundle.json"}}},
                "issuers": {
                    "corp": {
                        "issuer": _ISSUER,
                        "audience": [AUDIENCE],
                        "algorithms": ["ES256"],
                        "jwks": {"file": "jwks.json"},
                        "claims": ["groups"],
                    }
                },
            },
            "enforcers": [{"name": "envoy", "listener": "envoy", "asks": ["system:*"]}],
            "listeners": {
                "main": {"address": "127.0.0.1:0", "insecure_dev": True},
                "fast": {"address": "127.0.0.1:0", "insecure_dev": True, "lane": "fast"},
                "envoy": {"address": f"unix://{folder}/run/envoy.sock"},
                "admin": {"address": f"unix://{folder}/run/admin.sock"},
                "metrics": {"address": "127.0.0.1:0"},
            },
            "audit": {"path": "audit.jsonl"},
        },
        indent=2,
    )
