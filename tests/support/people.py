"""The principals of the `desk` bundle, and requests that they make."""

from dataclasses import dataclass

from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2
from authz_client.v1 import decision_pb2
from tests.support.minting import Authority

BOT = "spiffe://a.example/ns/support/sa/bot"
IDLE = "spiffe://a.example/ns/idle/sa/bot"
ROOT = "spiffe://a.example/ns/ops/sa/root"


@dataclass(frozen=True)
class People:
    """Good credentials: an agent with rights and one without, an operator, a user and a boss."""

    bot: str
    idle: str
    root: str
    alice: str
    boss: str
    alice_herself: str
    """Alice's token that no agent gets."""

    @classmethod
    def of(cls, authority: Authority) -> "People":
        """Mints them."""
        return cls(
            authority.agent(BOT),
            authority.agent(IDLE),
            authority.agent(ROOT),
            authority.subject("alice", groups=["employees"]),
            authority.subject("boss", groups=["employees", "managers"]),
            authority.alone("alice", groups=["employees"]),
        )


def check(
    operation: str,
    arguments: bytes = b"",
    *,
    agent: str | None = None,
    subject: str | None = None,
    mode: decision_pb2.Mode.ValueType | None = None,
) -> decision_pb2.CheckRequest:
    """Builds a CheckRequest."""
    request = decision_pb2.CheckRequest(operation=operation, arguments_json=arguments)
    if mode is not None:
        request.mode = mode
    pairs = (
        (decision_pb2.EVIDENCE_ROLE_AGENT, agent),
        (decision_pb2.EVIDENCE_ROLE_SUBJECT, subject),
    )
    for role, token in pairs:
        if token is not None:
            request.evidence.add(role=role, scheme=decision_pb2.EVIDENCE_SCHEME_BEARER, token=token)
    return request


def search(agent: str | None, subject: str | None = None) -> bytes:
    """Encodes a search for customers."""
    request = check("crm.search", b'{"query": "x"}', agent=agent, subject=subject)
    return request.SerializeToString()


def delete(agent: str, subject: str | None = None) -> bytes:
    """Encodes a deletion: tier high, so its record is durable before the answer."""
    request = check("crm.delete", b'{"id": "7"}', agent=agent, subject=subject)
    return request.SerializeToString()


def envoy_search(agent: str | None, path: str = "/customers?q=x") -> bytes:
    """Encodes the same search as Envoy sends it."""
    request = external_auth_pb2.CheckRequest()
    http = request.attributes.request.http
    http.method, http.host, http.path = "GET", "crm.example", path
    if agent is not None:
        http.headers["authorization"] = f"Bearer {agent}"
    return request.SerializeToString()
