"""Every way to forge a proof of possession that this suite knows, over both lanes, and good ones by PyJWT."""

import pytest

from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2
from authz_client.v1 import decision_pb2, options_pb2
from tests.support.fixtures import Servers
from tests.support.minting import Authority, Key
from tests.support.people import BOT, check, envoy_search
from tests.support.proofs import METHOD, PROOF_DEFECTS, URI, Proof, thumbprint
from tests.support.server import Server
from tests.support.surfaces import CHECK, ENVOY, LANES, decision_of, outcome, reason_name

#: Reason codes of forged proofs; the others are BAD_PROOF. What is too long is not looked at.
CODES = {"oversized": "BAD_CREDENTIAL"}


def bound(authority: Authority, key: Key) -> str:
    """An SVID that is bound to a key."""
    return authority.agent(BOT, cnf={"jkt": thumbprint(key)})


def search(
    token: str, proof: str | None, *, uri: str = URI, scheme: str = "DPOP"
) -> decision_pb2.CheckRequest:
    """A search for customers, as an enforcer asks it that was sent the request."""
    request = check("crm.search", b'{"query": "x"}')
    request.http_method, request.http_uri = METHOD, uri
    request.evidence.add(
        role=decision_pb2.EVIDENCE_ROLE_AGENT,
        scheme=decision_pb2.EvidenceScheme.Value(f"EVIDENCE_SCHEME_{scheme}"),
        token=token,
        proof=proof or "",
    )
    return request


def ask(server: Server, lane: str, request: decision_pb2.CheckRequest) -> decision_pb2.Decision:
    """What comes of it."""
    return decision_of(server.call("main" + lane, CHECK, request.SerializeToString()))


@pytest.mark.parametrize("defect", PROOF_DEFECTS)
def test_a_forged_proof(defect: str, authority: Authority, servers: Servers) -> None:
    """It proves nothing, and a good one of the same key still does."""
    server = servers.of("desk")
    key = Key.make("holder")
    token = bound(authority, key)
    for lane in LANES:
        forged = PROOF_DEFECTS[defect](Proof(key, token))
        decision = ask(server, lane, search(token, forged))
        assert (outcome(decision), reason_name(decision)) == (
            "DENY",
            CODES.get(defect, "BAD_PROOF"),
        )
        assert decision.public_code == options_pb2.PUBLIC_CODE_UNAUTHENTICATED
        good = ask(server, lane, search(token, Proof(key, token).good))
        assert outcome(good) == "PERMIT"


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "EdDSA", "RS256", "PS256"])
def test_a_good_proof(algorithm: str, lane: str, authority: Authority, servers: Servers) -> None:
    """Of any algorithm, it is good once, and in any spelling of its URI."""
    server = servers.of("desk")
    key = Key.make("holder", algorithm)
    token = bound(authority, key)
    for uri in (URI, "HTTPS://CRM.Example:443/./%63ustomers?q=x#f"):
        proof = Proof(key, token, uri=uri).good
        assert outcome(ask(server, lane, search(token, proof))) == "PERMIT"
        again = ask(server, lane, search(token, proof))
        assert (outcome(again), reason_name(again)) == ("DENY", "REPLAYED")


@pytest.mark.parametrize("lane", LANES)
def test_a_bound_token_is_no_bearer_token(
    lane: str, authority: Authority, servers: Servers
) -> None:
    """Nor is a bearer token one that a proof belongs to."""
    server = servers.of("desk")
    key = Key.make("holder")
    token = bound(authority, key)
    proof = Proof(key, token).good
    bearer = ask(server, lane, search(token, None, scheme="BEARER"))
    assert reason_name(bearer) == "UNBOUND_CREDENTIAL"
    assert reason_name(ask(server, lane, search(token, proof, scheme="BEARER"))) == "BAD_PROOF"
    assert reason_name(ask(server, lane, search(token, None))) == "BAD_PROOF"
    plain = authority.agent(BOT)
    assert reason_name(ask(server, lane, search(plain, Proof(key, plain).good))) == "BAD_PROOF"


@pytest.mark.parametrize("defect", PROOF_DEFECTS)
def test_a_forged_proof_over_envoy(defect: str, authority: Authority, servers: Servers) -> None:
    """It is refused there with how to authenticate: `DPoP`."""
    server = servers.of("desk")
    key = Key.make("holder")
    token = bound(authority, key)
    for lane in LANES:
        request = external_auth_pb2.CheckRequest.FromString(envoy_search(None))
        headers = request.attributes.request.http.headers
        headers["authorization"] = f"DPoP {token}"
        headers["dpop"] = PROOF_DEFECTS[defect](Proof(key, token))
        data = server.call("main" + lane, ENVOY, request.SerializeToString())
        answer = external_auth_pb2.CheckResponse.FromString(data)
        assert (answer.status.code, answer.denied_response.status.code) == (16, 401)
        names = [option.header.key for option in answer.denied_response.headers]
        assert "www-authenticate" in names
