"""The ways to ask, each given the same case and the same tokens."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2
from authz_client.v1 import decision_pb2, options_pb2, reason_pb2
from tests.support.cases import EvidenceItem, Flat, SubjectFixture
from tests.support.minting import ALONE_AUDIENCE, Authority
from tests.support.server import Server

CHECK: Final = "authz.v1.Authorizer/Check"
BATCH: Final = "authz.v1.Authorizer/BatchCheck"
EXPLAIN: Final = "authz.v1.Authorizer/Explain"
ENVOY: Final = "envoy.service.auth.v3.Authorization/Check"

LANES: Final = ("", "-fast")
ENCODINGS: Final = ("map", "raw")
#: JSON-RPC errors of a refusal, and the HTTP status that each comes with.
MCP_ERRORS: Final = {
    -32600: 400,
    -32601: 200,
    -32602: 200,
    -32003: 200,
    -32020: 400,
    -32022: 400,
}


@dataclass(frozen=True)
class Token:
    """A minted credential."""

    item: EvidenceItem
    value: str


def mint(authority: Authority, case: Flat) -> list[Token]:
    """Mints the credentials of a case: those of `evidence`, else one for each principal of `as`."""
    items = case.step.evidence
    if items is None:
        items = []
        if case.who.agent:
            items.append(EvidenceItem(role="agent"))
        if case.who.subject:
            # Without an agent, only a token that no agent gets says that the subject itself calls.
            claims = {} if case.who.agent else {"aud": ALONE_AUDIENCE}
            items.append(EvidenceItem(role="subject", claims=claims))
    return [Token(item, _mint_one(authority, case, item)) for item in items]


def _mint_one(authority: Authority, case: Flat, item: EvidenceItem) -> str:
    claims = {name: _moment(name, value) for name, value in item.claims.items()}
    if item.role == "subject":
        found = case.subject(item.of)
        assert found is not None
        sub, fixture = found
        claims = {**_subject_claims(fixture), **claims}
        if item.defect:
            return authority.bad_subject(item.defect, sub, fixture.issuer, **claims)
        return authority.subject(sub, fixture.issuer, **claims)
    agent = case.agent(item.of)
    assert agent is not None
    if item.defect:
        return authority.bad_agent(item.defect, agent)
    return authority.agent(agent, **claims)


def _subject_claims(fixture: SubjectFixture) -> dict[str, Any]:
    return {**fixture.claims, **({"acr": fixture.acr} if fixture.acr else {})}


def _moment(name: str, value: Any) -> Any:
    """Reads a time claim of a case, which counts seconds from now."""
    if name in {"iat", "exp", "nbf"} and isinstance(value, int):
        return int(time.time()) + value
    return value


def check_request(case: Flat, tokens: list[Token]) -> bytes:
    """Encodes the case as a CheckRequest."""
    step = case.step
    request = decision_pb2.CheckRequest(
        task=step.request.task,
        operation=step.call or "",
        arguments_json=case.arguments,
        resource=step.request.resource,
        destinations=step.request.destinations,
        labels=step.request.labels,
        session_context=step.request.session_context,
        confidence_jws=step.request.confidence_jws,
        idempotency_key=step.request.idempotency_key,
        supported_obligations=step.request.supported_obligations,
        approval_id=step.request.approval_id,
    )
    if step.request.mode:
        modes = {"ENFORCE": 1, "PROBE": 2, "UNKNOWN": 77}
        request.mode = modes[step.request.mode]  # type: ignore[assignment]
    roles = {"unspecified": 0, "agent": 1, "subject": 2, "unknown": 77}
    schemes = {"unspecified": 0, "bearer": 1, "dpop": 2, "wpt": 3, "unknown": 77}
    for token in tokens:
        item = request.evidence.add()
        item.role = roles[token.item.role]  # type: ignore[assignment]
        item.scheme = schemes[token.item.scheme]  # type: ignore[assignment]
        item.token = token.value
        item.proof = token.item.proof
    return request.SerializeToString()


def http_headers(case: Flat, tokens: list[Token]) -> list[tuple[str, str]] | None:
    """Returns the request's headers with its credentials; None where HTTP cannot say them."""
    http = case.step.http
    assert http is not None
    headers = [(name.lower(), value) for name, value in http.headers]
    for token in tokens if http.credentials else []:
        if not token.value.isprintable():
            return None
        match token.item.role, token.item.scheme:
            case "agent", ("bearer" | "dpop") as scheme:
                word = {"bearer": "Bearer", "dpop": "DPoP"}[scheme]
                headers.append(("authorization", f"{word} {token.value}"))
                if token.item.proof:
                    headers.append(("dpop", token.item.proof))
            case "subject", "bearer":
                headers.append(("authz-subject", token.value))
            case _:
                return None
    return headers


def envoy_request(case: Flat, tokens: list[Token], encoding: str) -> bytes | None:
    """Encodes the case as Envoy would send it; None where HTTP cannot say it."""
    step = case.step.http
    headers = http_headers(case, tokens)
    if step is None or headers is None:
        return None
    request = external_auth_pb2.CheckRequest()
    attributes = request.attributes
    attributes.source.principal = step.principal
    attributes.context_extensions.update(step.extensions)
    if case.step.request.labels:
        told = {"labels": case.step.request.labels}
        attributes.metadata_context.filter_metadata["authz"].update(told)
    if case.step.request.session_context:
        context = {"session_context": case.step.request.session_context}
        attributes.metadata_context.filter_metadata["authz"].update(context)
    http = attributes.request.http
    http.method, http.host, http.path = step.method, step.host, step.path
    http.scheme, http.protocol, http.id = "https", "HTTP/1.1", "0"
    if step.body is not None:
        http.body, http.size = step.body, len(step.body.encode())
        headers.append(("content-length", str(http.size)))
    if step.body is not None or step.partial is not None:
        headers.append(("x-envoy-auth-partial-body", "true" if step.partial else "false"))
    if encoding == "raw":
        for name, value in headers:
            http.header_map.headers.add(key=name, raw_value=value.encode())
    else:
        for name, value in headers:
            seen = http.headers.get(name)
            http.headers[name] = value if seen is None else f"{seen},{value}"
    return request.SerializeToString()


@dataclass(frozen=True)
class Row:
    """What follows from a reason code."""

    name: str
    number: int
    public_code: str
    next_action: str
    retry: str
    grpc_code: int
    http_status: int


def reason_rows() -> dict[str, Row]:
    """Reads the reason table from the proto's options."""
    rows = {}
    for value in reason_pb2.ReasonCode.DESCRIPTOR.values:
        if value.number == 0:
            continue
        row = value.GetOptions().Extensions[options_pb2.reason]
        name = value.name.removeprefix("REASON_CODE_")
        rows[name] = Row(
            name,
            value.number,
            options_pb2.PublicCode.Name(row.public_code).removeprefix("PUBLIC_CODE_"),
            options_pb2.NextAction.Name(row.next_action).removeprefix("NEXT_ACTION_"),
            options_pb2.Retry.Name(row.retry).removeprefix("RETRY_"),
            row.grpc_code,
            row.http_status,
        )
    return rows


def reason_name(decision: decision_pb2.Decision) -> str:
    """Returns the short name of a decision's reason code, with which its outcome must go.

    Who compares the code alone would otherwise take a permit that names a refusal for a refusal. An agent that asks for itself is
    told no code: `UNSPECIFIED`.
    """
    name = reason_pb2.ReasonCode.Name(decision.reason_code).removeprefix("REASON_CODE_")
    if name != "UNSPECIFIED":
        assert (outcome(decision) == "PERMIT") is (name == "PERMITTED"), decision
    return name


def envoy_reason(answer: external_auth_pb2.CheckResponse) -> str:
    """Returns the reason code in the metadata, with which what Envoy does must go: it obeys the status alone."""
    name = str(answer.dynamic_metadata["reason_code"])
    passes = answer.status.code == 0
    assert passes is (name == "PERMITTED"), answer
    assert passes is not answer.HasField("denied_response"), answer
    return name


APPROVAL_ID: Final = re.compile(r"[0-9a-f]{32}-[1-9][0-9]*")
"""Id of an approval."""
APPROVAL: Final = re.compile(rf'"approval":{{[^{{}}]*"id":"{APPROVAL_ID.pattern}"[^{{}}]*}}')
"""An approval in the body of an answer."""


def decision_of(response: bytes) -> decision_pb2.Decision:
    """Reads a CheckResponse."""
    return decision_pb2.CheckResponse.FromString(response).decision


def outcome(decision: decision_pb2.Decision) -> str:
    """Returns PERMIT, STEP_UP or DENY."""
    return decision_pb2.Outcome.Name(decision.outcome).removeprefix("OUTCOME_")


def normal_check(response: bytes) -> bytes:
    """Returns a CheckResponse without ids and times."""
    message = decision_pb2.CheckResponse.FromString(response)
    assert message.decision.decision_id
    assert message.decision.HasField("decided_at")
    message.decision.decision_id = ""
    message.decision.ClearField("decided_at")
    if message.decision.HasField("challenge"):
        # Each store has approvals of its own.
        assert APPROVAL_ID.fullmatch(message.decision.challenge.approval_id)
        message.decision.challenge.approval_id = ""
        message.decision.challenge.ClearField("expires_at")
    return message.SerializeToString(deterministic=True)


def normal_envoy(response: bytes) -> bytes:
    """Returns Envoy's CheckResponse without ids and times."""
    message = external_auth_pb2.CheckResponse.FromString(response)
    identifier = message.dynamic_metadata["decision_id"]
    assert isinstance(identifier, str)
    assert len(identifier) == 36
    body = message.denied_response.body
    if '"approval":{' in body:
        # Each store has approvals of its own.
        body, count = APPROVAL.subn('"approval":{}', body)
        assert count == 1
        message.denied_response.body = body
    text = message.SerializeToString(deterministic=True)
    return text.replace(identifier.encode(), b"@" * 36)


@dataclass(frozen=True)
class Surface:
    """One way to ask."""

    name: str
    """For messages."""
    kind: str
    """`check` or `envoy`."""
    ask: Callable[[str, bytes], bytes]
    """Takes a listener and a request, returns a response."""


def lanes(server: Server) -> list[Surface]:
    """Returns both lanes of a server, for both protocols."""
    found = []
    for suffix in LANES:
        for kind, method in (("check", CHECK), ("envoy", ENVOY)):

            def ask(
                listener: str, request: bytes, method: str = method, suffix: str = suffix
            ) -> bytes:
                return server.call(listener + suffix, method, request)

            found.append(Surface(f"{'fast' if suffix else 'python'} lane, {kind}", kind, ask))
    return found


def body_of(response: external_auth_pb2.CheckResponse) -> dict[str, Any]:
    """Reads the body of a denial."""
    body: dict[str, Any] = json.loads(response.denied_response.body)
    return body
