"""Task credentials in the SDK: asked for with a proof, shown with a proof, and read from a caller's request."""

import asyncio
import base64
import hashlib
import json
import time
from typing import Any

import grpc
import jwt
import pytest

from authz_client import (
    Authz,
    Caller,
    Denied,
    IssueOptions,
    Leased,
    ProofKey,
    TaskCredential,
    Unavailable,
    caller,
    within_task,
)
from authz_client.base_errors import UsageError
from authz_client.v1 import credentials_pb2, decision_pb2
from tests.support.node import NoAnswer, Node, decision

ISSUER = "https://authz.example"
BEARER, DPOP = decision_pb2.EVIDENCE_SCHEME_BEARER, decision_pb2.EVIDENCE_SCHEME_DPOP
FAILED = grpc.StatusCode.UNAUTHENTICATED


def client(node: Node, **more: Any) -> Authz:
    """A client of a node in memory."""
    named = {"credentials": "svid", "credential_issuer": ISSUER, "timeout": 20, **more}
    return Authz(transport=node, **named)


def issue(authz: Authz, *args: Any, **issue: Any) -> TaskCredential:
    """Ask for a token, and get one."""
    issued = authz.credentials.issue(*args, **issue)
    assert isinstance(issued, TaskCredential)
    return issued


def read(proof: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Verify a proof by the key in it, as RFC 9449 §4.3 says; header and claims."""
    header = jwt.get_unverified_header(proof)
    claims = jwt.decode(proof, jwt.PyJWK(header["jwk"]), algorithms=["ES256"])
    return header, claims


def digest(token: str) -> str:
    """`ath` of a token."""
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()


# --- proofs


def test_a_proof_is_as_the_rfc_says() -> None:
    """RFC 9449 §4.2; the private half is not in it."""
    key = ProofKey(clock=time.time)

    header, claims = read(key.proof("post", "https://crm.example/a?b=c#d", token="t", nonce="n"))

    assert header["typ"] == "dpop+jwt"
    assert header["alg"] == "ES256"
    assert header["jwk"].keys() == {"kty", "crv", "x", "y"}
    assert claims["htm"] == "POST"
    assert claims["htu"] == "https://crm.example/a"
    assert claims["ath"] == digest("t")
    assert claims["nonce"] == "n"
    assert abs(claims["iat"] - time.time()) < 5
    jwk = {name: header["jwk"][name] for name in ("crv", "kty", "x", "y")}
    canonical = json.dumps(jwk, sort_keys=True, separators=(",", ":"))
    assert key.thumbprint == digest(canonical)
    assert repr(key) == f"ProofKey({key.thumbprint})"


def test_each_proof_is_another() -> None:
    """One is taken once; without token and nonce they are left out."""
    key = ProofKey()
    claims = [read(key.proof("GET", "https://a.example"))[1] for _ in range(100)]

    assert len({one["jti"] for one in claims}) == 100
    assert all(one.keys() == {"htm", "htu", "iat", "jti"} for one in claims)


@pytest.mark.parametrize("url", ["", "crm.example/a", "/a"])
def test_a_proof_is_for_a_url(url: str) -> None:
    """Of anything else it would say nothing."""
    with pytest.raises(UsageError):
        ProofKey().proof("GET", url)


# --- asking for one


@pytest.mark.parametrize("way", ["issue", "aissue"])
def test_a_credential_is_asked_for_with_the_permit_and_a_proof(way: str) -> None:
    """The permit is kept for it, and the proof is of our key for the method of the node."""
    node = Node()
    authz = client(node)
    ask: Any = getattr(authz.credentials, way)

    with within_task("t-1"):
        issued = ask("crm.search", {"query": "x"}, audience="crm", lifetime=60)
        issued = asyncio.run(issued) if way == "aissue" else issued

    (checked,) = node.requests("Check")
    assert checked.wants_credential
    assert (checked.task, checked.operation) == ("t-1", "crm.search")
    (asked,) = node.requests("Issue")
    assert asked.decision_id == issued.decision_id != ""
    assert (asked.audience, asked.lifetime_seconds) == ("crm", 60)
    assert [one.token for one in asked.evidence] == ["svid"]
    header, claims = read(asked.proof)
    assert (claims["htm"], claims["htu"]) == ("POST", f"{ISSUER}/authz.v1.Credentials/Issue")
    assert "ath" not in claims
    assert issued.key is authz.credentials.key
    assert (
        header["jwk"].items()
        <= read(issued.headers("GET", "https://x.example")["dpop"])[0]["jwk"].items()
    )
    assert (issued.token, issued.token_type) == ("a.b.c", "DPoP")
    assert "a.b.c" not in repr(issued)


def test_an_ordinary_check_keeps_no_permit() -> None:
    """Whoever asks performs it."""
    node = Node()
    client(node).check("crm.search")

    (checked,) = node.requests("Check")
    assert not checked.wants_credential


def test_a_credential_without_a_key_is_a_bearers() -> None:
    """Or that of the client's certificate; no proof is made."""
    node = Node()

    for issued in (
        issue(client(node), "crm.search", bound=False),
        issue(client(node, credential_issuer=""), "crm.search"),
    ):
        assert issued.key is None
        assert issued.headers("GET", "https://crm.example/") == {"authorization": "Bearer a.b.c"}
    assert [request.proof for request in node.requests("Issue")] == ["", ""]


def test_a_proof_needs_the_issuer() -> None:
    """The client says so before it asks."""
    node = Node()
    with pytest.raises(UsageError, match="credential_issuer"):
        issue(client(node, credential_issuer=""), "crm.search", bound=True)
    assert node.asked == []


def test_an_enforcer_has_no_credentials() -> None:
    """They are for agents."""
    with pytest.raises(UsageError, match="agent itself"):
        client(Node(), credentials=None, enforcer=True).credentials.issue("crm.search")


@pytest.mark.parametrize("reason", ["FORBIDDEN", "CONFIRM_REQUIRED", "UNAVAILABLE"])
def test_without_a_permit_no_credential_is_asked_for(reason: str) -> None:
    """And what raises is the decision."""
    node = Node().says("Check", decision(reason))

    with pytest.raises(Exception, match="decision"):
        issue(client(node, retries=0), "crm.search")

    assert node.requests("Issue") == []


def test_a_nonce_that_the_node_asks_for_is_used_from_then_on() -> None:
    """Once more with a new proof (RFC 9449 §8); and the next time at once."""
    node = Node()
    good = node._own("authz.v1.Credentials/Issue", credentials_pb2.IssueRequest(proof="p"))
    node.says("Issue", NoAnswer(FAILED, "BAD_PROOF", dpop_nonce="n-1"), good)
    authz = client(node)

    issue(authz, "crm.search")
    issue(authz, "crm.search")

    proofs = [read(request.proof)[1] for request in node.requests("Issue")]
    assert [claims.get("nonce") for claims in proofs] == [None, "n-1", "n-1"]
    assert len({claims["jti"] for claims in proofs}) == 3


def test_a_node_that_asks_for_nonces_without_end_is_left() -> None:
    """One more try, and no more."""
    node = Node().says("Issue", NoAnswer(FAILED, "BAD_PROOF", dpop_nonce="n"))

    with pytest.raises(Denied) as refused:
        issue(client(node), "crm.search")

    assert refused.value.reason_code == "BAD_PROOF"
    assert len(node.requests("Issue")) == 2


def test_what_was_not_decided_is_asked_again_with_a_new_proof() -> None:
    """The node may have noted the one before."""
    node = Node()
    good = node._own("authz.v1.Credentials/Issue", credentials_pb2.IssueRequest(proof="p"))
    node.says("Issue", NoAnswer(grpc.StatusCode.UNAVAILABLE, "STORE_SLOW"), good)

    issue(client(node), "crm.search")

    jtis = [read(request.proof)[1]["jti"] for request in node.requests("Issue")]
    assert len(set(jtis)) == len(jtis) == 2


@pytest.mark.parametrize(
    ("kind", "token", "ends"),
    [("Bearer", "a.b.c", 60), ("DPoP", "", 60), ("DPoP", "a.b.c", -1), ("", "a.b.c", 60)],
)
def test_what_is_not_what_was_asked_for_is_no_credential(kind: str, token: str, ends: int) -> None:
    """An unbound token instead of a bound one least of all."""
    answer = credentials_pb2.IssueResponse(token=token, token_type=kind)
    answer.expires_at.FromSeconds(int(time.time()) + ends)

    with pytest.raises(Unavailable):
        issue(client(Node().says("Issue", answer)), "crm.search")


def test_a_leased_secret_is_not_shown() -> None:
    """Neither by `repr` nor by accident."""
    answer = credentials_pb2.IssueResponse()
    answer.lease.id = "l-1"
    answer.lease.parts["password"] = "secret words"
    answer.expires_at.FromSeconds(int(time.time()) + 60)

    issued = client(Node().says("Issue", answer)).credentials.issue("dwh.read")

    assert isinstance(issued, Leased)
    assert dict(issued.parts) == {"password": "secret words"}
    assert "secret" not in repr(issued)


def test_a_credential_is_given_back() -> None:
    """By its token, as the agent itself."""
    node = Node()
    authz = client(node)
    issued = issue(authz, "crm.search")

    authz.credentials.revoke(issued)
    asyncio.run(authz.credentials.arevoke(issued))

    revoked = node.requests("Revoke")
    assert [request.token for request in revoked] == ["a.b.c", "a.b.c"]
    assert [one.token for one in revoked[0].evidence] == ["svid"]


def test_what_may_be_said_of_a_credential_reaches_the_check() -> None:
    """Each key of `IssueOptions`."""
    said: IssueOptions = {
        "task": "t",
        "resource": "r",
        "destinations": ["d"],
        "subject_token": "s",
        "timeout": 5,
    }
    node = Node()
    issue(client(node), "crm.search", **said)

    (checked,) = node.requests("Check")
    assert (checked.task, checked.resource, list(checked.destinations)) == ("t", "r", ["d"])
    assert [one.token for one in checked.evidence] == ["svid", "s"]


# --- reading one


def evidence_of(headers: dict[str, str], **more: Any) -> decision_pb2.CheckRequest:
    """What an enforcer asks about a caller with these headers."""
    node = Node()
    authz = Authz(transport=node, enforcer=True, timeout=20)
    with caller(Caller.from_headers(headers, **more)):
        authz.check("crm.search")
    request: decision_pb2.CheckRequest = node.requests("Check")[0]
    return request


def test_the_request_goes_with_the_question() -> None:
    """A proof is of a method and a URL."""
    asked = evidence_of(
        {"authorization": "DPoP a.b.c", "dpop": "p"}, method="POST", url="https://crm.example/x"
    )

    assert (asked.http_method, asked.http_uri) == ("POST", "https://crm.example/x")
    (one,) = asked.evidence
    assert (one.token, one.scheme, one.proof) == ("a.b.c", DPOP, "p")
    assert one.role == decision_pb2.EVIDENCE_ROLE_AGENT


@pytest.mark.parametrize(
    ("header", "dpop", "scheme", "proof"),
    [
        ("a.b.c", None, BEARER, ""),
        ("Bearer a.b.c", None, BEARER, ""),
        ("a.b.c", "p", DPOP, "p"),
        ("DPoP a.b.c", "p", DPOP, "p"),
        ("dpop a.b.c", None, DPOP, ""),
    ],
)
def test_a_credential_in_a_header_of_its_own_comes_beside_the_agents_svid(
    header: str, dpop: str | None, scheme: int, proof: str
) -> None:
    """A proof goes with whichever came by DPoP; a bare one with a proof did."""
    headers = {"authorization": "Bearer svid", "authz-credential": header}
    asked = evidence_of({**headers, **({"dpop": dpop} if dpop else {})})

    agent, credential = asked.evidence
    assert (agent.token, agent.scheme, agent.proof) == ("svid", BEARER, "")
    assert (credential.token, credential.scheme, credential.proof) == ("a.b.c", scheme, proof)


def test_a_proof_of_the_agents_token_is_not_the_credentials() -> None:
    """`authorization: DPoP` claims it."""
    asked = evidence_of({"authorization": "DPoP svid", "authz-credential": "a.b.c", "dpop": "p"})

    agent, credential = asked.evidence
    assert (agent.scheme, agent.proof) == (DPOP, "p")
    assert (credential.scheme, credential.proof) == (BEARER, "")


@pytest.mark.parametrize("header", ["", "Basic x", "a b c"])
def test_a_credential_of_another_form_is_a_conflict(header: str) -> None:
    """No question is asked about such a caller."""
    who = Caller.from_headers({"authz-credential": header})
    twice = Caller.from_headers([("authz-credential", "a"), ("authz-credential", "b")])

    assert who.conflict == twice.conflict == "authz-credential"


def test_what_the_node_says_of_the_next_nonce_is_told() -> None:
    """So that a tool server can answer its caller with it."""
    answer = decision("BAD_PROOF")
    answer.dpop_nonce = "n-7"
    authz = Authz(transport=Node().says("Check", answer), timeout=20)

    with pytest.raises(Denied) as refused:
        authz.check("crm.search")

    assert refused.value.dpop_nonce == "n-7"
