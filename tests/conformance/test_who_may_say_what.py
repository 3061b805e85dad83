"""The table of `who_may_say_what.yaml`, row by row, on both lanes."""

import json
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2
from authz.thirdparty.envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from authz_client.v1 import decision_pb2
from tests.support.fixtures import Servers
from tests.support.minting import Authority
from tests.support.mutual import CRM_SERVER, NO_RELAY, RELAY, Pki, call, mutual_layout
from tests.support.people import BOT, IDLE
from tests.support.server import Server
from tests.support.surfaces import CHECK, ENVOY, LANES, decision_of, envoy_reason, outcome

TABLE: Final = Path(__file__).with_name("who_may_say_what.yaml")
#: Askers that show a certificate; a stranger's is of another trust domain's authority.
CERTIFIED: Final = {
    "relay": RELAY,
    "edge": NO_RELAY,
    "tool": CRM_SERVER,
    "bot": BOT,
    "idle": IDLE,
    "stranger": BOT,
}
#: The others, by their listener.
LISTENERS: Final = {"socket": "relay", "nobody": "none", "dev": "main"}
PRINCIPALS: Final = {
    "bot": BOT,
    "idle": IDLE,
    "invalid": "CN=bot",
    "unknown": "spiffe://x.example/ns/support/sa/bot",
    "empty": "",
}
#: Values of headers; all others have the same one.
HEADERS: Final = {
    "baggage": "authz.task=t-2",
    "x-forwarded-client-cert": f"URI={BOT}",
    "x-authz-agent": BOT,
    "x-authz-subject": "corp/alice",
    "dpop": "a.b.c",
}
NAMES: Final = {BOT: "bot", IDLE: "idle", "corp/alice": "alice"}

Statement = Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """One row."""

    fact: str
    over: str
    by: str
    say: Statement
    then: str
    before: tuple[Statement, ...] = ()
    code: str = "PERMITTED"
    chain: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Tells the row apart."""
        before = " ".join(f"{name}:{value}" for one in self.before for name, value in one.items())
        say = " ".join(f"{name}:{value}" for name, value in self.say.items())
        return f"{self.over} by {self.by} {before}+{say}"


def rows() -> Iterator[Row]:
    """Reads the table."""
    for group in yaml.safe_load(TABLE.read_text()):
        for row in group["rows"]:
            before, chain = tuple(row.pop("with", ())), tuple(row.pop("chain", ()))
            yield Row(fact=group["fact"], before=before, chain=chain, **row)


ROWS: Final = list(rows())


@dataclass(frozen=True)
class Stage:
    """The servers, and what can be said."""

    server: Server
    tracker: Server
    authority: Authority
    pki: Pki

    @cached_property
    def tokens(self) -> dict[str, str]:
        """Credentials by the names of the table."""
        agent, subject = self.authority.agent, self.authority.subject
        stranger = self.authority.bad_subject("unknown-issuer", "alice", "corp")
        audience = self.authority.bad_subject("wrong-aud", "alice", "corp")
        return {
            "bot": agent(BOT),
            "idle": agent(IDLE),
            "bound": self.authority.bad_agent("cnf", BOT),
            "alice": subject("alice", groups=["employees"]),
            "opaque": "the-upstreams-own",
            "other_issuer": stranger,
            "other_audience": audience,
        }

    @cached_property
    def certificates(self) -> dict[str, str]:
        """Certificates as Envoy sends them."""
        made = {
            "bot": self.pki.a.svid(BOT),
            "idle": self.pki.a.svid(IDLE),
            "stranger": self.pki.b.svid(BOT),
        }
        return {name: urllib.parse.quote(svid.pem.decode()) for name, svid in made.items()}

    def ask(self, row: Row, lane: str, statements: tuple[Statement, ...]) -> dict[str, Any]:
        """Asks with these statements; returns the record of the decision."""
        metadata: list[tuple[str, str]] = []
        if row.over == "own":
            method, request = CHECK, self._own(statements, metadata)
        else:
            method, request = ENVOY, self._envoy(row.over, statements, metadata)
        server = self.tracker if row.over == "mcp" else self.server
        if row.by in CERTIFIED:
            signer = self.pki.b if row.by == "stranger" else self.pki.a
            shown = self.pki.credentials(signer.svid(CERTIFIED[row.by]))
            answer = call(server, "mutual" + lane, shown, method, request, *metadata)
        else:
            listener = LISTENERS[row.by] + lane
            answer = server.call(listener, method, request, metadata=tuple(metadata))
        if method == CHECK:
            decision = decision_of(answer)
            identifier, permits = decision.decision_id, outcome(decision) == "PERMIT"
        else:
            response = external_auth_pb2.CheckResponse.FromString(answer)
            identifier = str(response.dynamic_metadata["decision_id"])
            permits = envoy_reason(response) == "PERMITTED"
        record = server.record(identifier)
        assert permits is (record["result"]["reason_code"] == "PERMITTED")
        return record

    def _own(self, statements: tuple[Statement, ...], metadata: list[tuple[str, str]]) -> bytes:
        request = decision_pb2.CheckRequest(
            operation="crm.get", arguments_json=json.dumps({"id": "42"}).encode()
        )
        for name, value in _each(statements):
            match name:
                case "evidence":
                    is_dpop = value == "dpop"
                    request.evidence.add(
                        role=2 if value == "alice" else 1,
                        scheme=2 if is_dpop else 1,
                        token=self.tokens["bot" if is_dpop else value],
                        proof="a.b.c" if is_dpop else "",
                    )
                case "field" if value in {"labels", "destinations"}:
                    getattr(request, value).append("pii")
                case "field":
                    setattr(request, value, "x")
                case _:
                    metadata.append(self._of_call(name, value))
        return request.SerializeToString()

    def _envoy(
        self, over: str, statements: tuple[Statement, ...], metadata: list[tuple[str, str]]
    ) -> bytes:
        request = external_auth_pb2.CheckRequest()
        attributes = request.attributes
        http = attributes.request.http
        http.method, http.host, http.path = "GET", "crm.example", "/customers/42"
        meta = {value: "t-1" for name, value in _each(statements) if name == "meta"}
        for name, value in _each(statements):
            if name in {"principal", "certificate", "service", "metadata_context"}:
                self._of_proxy(attributes, name, value)
            elif name == "authorization":
                token = self.tokens.get(value)
                http.headers[name] = f"Bearer {token}" if token else "Basic eDp5"
            elif name == "authz_subject":
                http.headers["authz-subject"] = self.tokens[value]
            elif name == "header":
                http.headers[value] = HEADERS.get(value, "t-1")
            elif name != "meta":
                metadata.append(self._of_call(name, value))
        if over == "mcp":
            _call_a_tool(http, meta)
        return request.SerializeToString()

    def _of_proxy(self, attributes: AttributeContext, name: str, value: str) -> None:
        match name:
            case "principal":
                attributes.source.principal = PRINCIPALS[value]
            case "certificate":
                attributes.source.certificate = self.certificates[value]
            case "service":
                attributes.source.service = BOT
            case _:
                attributes.metadata_context.filter_metadata[value].update(
                    {"payload": {"sub": BOT}, "labels": ["pii"], "confidence": 100}
                )

    def _of_call(self, name: str, value: str) -> tuple[str, str]:
        match name:
            case "call_authorization":
                return ("authorization", f"Bearer {self.tokens[value]}")
            case "metadata":
                return (value, BOT)
            case _:
                raise AssertionError(f"the table says `{name}`, which nothing sends")


def _call_a_tool(http: AttributeContext.HttpRequest, meta: Mapping[str, str]) -> None:
    http.method, http.host, http.path = "POST", "mcp.tracker.example", "/mcp"
    http.headers["content-type"] = "application/json"
    http.headers["mcp-protocol-version"] = "2025-11-25"
    params = {"name": "list_issues", "arguments": {}, **({"_meta": dict(meta)} if meta else {})}
    http.body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    http.size = len(http.body)


def _each(statements: tuple[Statement, ...]) -> Iterator[tuple[str, str]]:
    for statement in statements:
        yield from statement.items()


def came_of(record: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Reads the reason code, and who acted and how that was proved."""
    links = record["input"]["chain"]
    chain = tuple(
        f"{NAMES[link['id']]}/{link['proof']}"
        + ("+certificate" if "certificate_sha256" in link else "")
        for link in links
    )
    return record["result"]["reason_code"], chain


@pytest.fixture(scope="module")
def stage(
    authority: Authority, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """A server with every way in."""
    folder = tmp_path_factory.mktemp("table")
    pki = Pki(folder / "pki")
    with Server(mutual_layout(folder / "server", authority, pki)) as server:
        yield Stage(server, servers.of("tracker"), authority, pki)


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_becomes_of_a_statement(stage: Stage, row: Row, lane: str) -> None:
    """Believed, ignored or denied, as the row says, and so because of the statement."""
    before = came_of(stage.ask(row, lane, row.before))
    after = came_of(stage.ask(row, lane, (*row.before, row.say)))
    match row.then:
        case "believed":
            assert after == (row.code, row.chain)
            assert before != after
        case "ignored":
            assert after == before
        case "denied":
            assert after[0] == row.code
            assert before[0] != row.code
        case _:
            pytest.fail(f"`{row.then}` is no outcome")


def test_the_table_is_whole() -> None:
    """Every asker meets both protocols, and every outcome is there; no row stands twice."""
    assert {(row.by, row.over) for row in ROWS} >= {
        (by, over) for by in (*CERTIFIED, *LISTENERS) for over in ("own", "ext_authz")
    } - {("relay", "own"), ("idle", "ext_authz")}
    assert {row.then for row in ROWS} == {"believed", "ignored", "denied"}
    assert len({str(row) for row in ROWS}) == len(ROWS)
