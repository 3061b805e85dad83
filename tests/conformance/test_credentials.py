"""Every way to forge a credential that this suite knows, over both lanes, in both roles."""

import time

import pytest

from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2
from authz_client.v1 import options_pb2
from tests.support.fixtures import Servers
from tests.support.minting import ACCESS_TOKEN_DEFECTS, AGENT_DEFECTS, SUBJECT_DEFECTS, Authority
from tests.support.people import BOT, envoy_search, search
from tests.support.surfaces import CHECK, ENVOY, LANES, decision_of, outcome, reason_name
from tests.support.waiting import eventually

#: Reason codes that say more than "bad"; everything else is BAD_CREDENTIAL.
CODES = {
    "wrong-aud": {"WRONG_AUDIENCE"},
    "aud-prefix": {"WRONG_AUDIENCE"},
    "missing-aud": {"WRONG_AUDIENCE"},
    "empty-aud": {"WRONG_AUDIENCE"},
    "expired": {"EXPIRED_CREDENTIAL"},
    "not-yet-valid": {"EXPIRED_CREDENTIAL"},
    "issued-in-future": {"EXPIRED_CREDENTIAL", "BAD_CREDENTIAL"},
    "cnf": {"UNBOUND_CREDENTIAL"},
    "unknown-kid": {"UNTRUSTED_ISSUER"},
    "foreign-key": {"UNTRUSTED_ISSUER"},
    "empty-domain": {"UNTRUSTED_ISSUER"},
    "unknown-domain": {"UNTRUSTED_ISSUER"},
    "upper-case-domain": {"BAD_CREDENTIAL"},
    "domain-prefix": {"UNTRUSTED_ISSUER"},
    "unknown-issuer": {"UNTRUSTED_ISSUER"},
    "issuer-with-slash": {"UNTRUSTED_ISSUER"},
    "other-issuers-key": {"UNTRUSTED_ISSUER", "BAD_CREDENTIAL"},
    "is-svid": {"UNTRUSTED_ISSUER", "BAD_CREDENTIAL"},
    "is-subject-token": {"UNTRUSTED_ISSUER", "BAD_CREDENTIAL"},
}


@pytest.mark.parametrize("defect", AGENT_DEFECTS)
def test_agent(defect: str, authority: Authority, servers: Servers) -> None:
    """No forged SVID proves anything, beside a good subject token or alone."""
    server = servers.of("desk")
    token, subject = (
        authority.bad_agent(defect, BOT),
        authority.subject("alice", groups=["employees"]),
    )
    for lane in LANES:
        for request in (search(token), search(token, subject)):
            decision = decision_of(server.call("main" + lane, CHECK, request))
            assert outcome(decision) == "DENY"
            assert decision.public_code == options_pb2.PUBLIC_CODE_UNAUTHENTICATED
            assert reason_name(decision) in CODES.get(defect, {"BAD_CREDENTIAL"})


@pytest.mark.parametrize(
    ("alias", "defect"),
    [
        (alias, defect)
        for alias in ("corp", "machines", "oauth")
        for defect in SUBJECT_DEFECTS
        if (alias, defect) != ("machines", "other-issuers-key")  # that one is its own
    ]
    + [("oauth", defect) for defect in ACCESS_TOKEN_DEFECTS],
)
def test_subject(defect: str, alias: str, authority: Authority, servers: Servers) -> None:
    """No forged subject token proves anything, beside a good SVID or alone."""
    server = servers.of("desk")
    token = authority.bad_subject(defect, "alice", alias, groups=["employees"], team="reports")
    for lane in LANES:
        for request in (search(authority.agent(BOT), token), search(None, token)):
            decision = decision_of(server.call("main" + lane, CHECK, request))
            assert outcome(decision) == "DENY"
            assert decision.public_code == options_pb2.PUBLIC_CODE_UNAUTHENTICATED
            assert reason_name(decision) in CODES.get(defect, {"BAD_CREDENTIAL"})


@pytest.mark.parametrize("lane", LANES)
def test_no_kind_of_token_passes_for_another(
    lane: str, authority: Authority, servers: Servers
) -> None:
    """An ID token proves nothing where access tokens are expected, nor the reverse."""
    server = servers.of("desk")

    def proves(token: str) -> bool:
        request = search(authority.agent(BOT), token)
        decision = decision_of(server.call("main" + lane, CHECK, request))
        return decision.public_code != options_pb2.PUBLIC_CODE_UNAUTHENTICATED

    for alias, good, bad in (("corp", "JWT", "at+jwt"), ("oauth", "at+jwt", "JWT")):
        # Everything that either kind asks for, so that only `typ` differs.
        claims = authority.subject_claims("alice", alias, client_id="assistant", nonce="n")
        key = authority.issuers[alias].key
        assert proves(key.sign(claims, {"typ": good}))
        assert not proves(key.sign(claims, {"typ": bad}))


@pytest.mark.parametrize("defect", [name for name in AGENT_DEFECTS if name != "scheme-word"])
def test_agent_over_envoy(defect: str, authority: Authority, servers: Servers) -> None:
    """Nor does it in a header: 401, and how to authenticate."""
    server = servers.of("desk")
    request = envoy_search(authority.bad_agent(defect, BOT))
    for lane in LANES:
        data = server.call("main" + lane, ENVOY, request)
        answer = external_auth_pb2.CheckResponse.FromString(data)
        if defect == "leading-space":
            # RFC 9110 allows more than one space after the scheme.
            assert answer.status.code == 0
            continue
        assert (answer.status.code, answer.denied_response.status.code) == (16, 401)
        names = [option.header.key for option in answer.denied_response.headers]
        assert "www-authenticate" in names


@pytest.mark.parametrize("lane", LANES)
def test_a_good_token_opens_nothing_for_its_forgery(
    lane: str, authority: Authority, servers: Servers
) -> None:
    """A verified token is remembered whole: the same signature under another payload is not it."""
    server = servers.of("desk")
    good = authority.agent(BOT)
    header, payload, signature = good.split(".")
    root = authority.agent("spiffe://a.example/ns/ops/sa/root").split(".")[1]
    for _ in range(3):
        assert outcome(decision_of(server.call("main" + lane, CHECK, search(good)))) == "PERMIT"
        for forged in (f"{header}.{root}.{signature}", f"{header}.{payload}.{signature[:-2]}AA"):
            decision = decision_of(server.call("main" + lane, CHECK, search(forged)))
            assert reason_name(decision) == "BAD_CREDENTIAL"


@pytest.mark.parametrize("lane", LANES)
def test_a_token_is_remembered_in_its_role_only(
    lane: str, authority: Authority, servers: Servers
) -> None:
    """A subject token that was good as subject is none of an agent."""
    server = servers.of("desk")
    token = authority.alone("alice", groups=["employees"])
    assert outcome(decision_of(server.call("main" + lane, CHECK, search(None, token)))) == "PERMIT"
    assert outcome(decision_of(server.call("main" + lane, CHECK, search(token)))) == "DENY"
    svid = authority.agent(BOT)
    assert outcome(decision_of(server.call("main" + lane, CHECK, search(svid)))) == "PERMIT"
    assert outcome(decision_of(server.call("main" + lane, CHECK, search(None, svid)))) == "DENY"


@pytest.mark.parametrize("lane", LANES)
def test_a_remembered_token_ends_at_its_end(
    lane: str, authority: Authority, servers: Servers
) -> None:
    """Being remembered makes no token live longer."""
    server = servers.of("desk")
    # The leeway of five seconds is nearly used up.
    token = authority.agent(BOT, iat=int(time.time()) - 60, exp=int(time.time()) - 2)
    request = search(token)

    def reason() -> str:
        return reason_name(decision_of(server.call("main" + lane, CHECK, request)))

    assert reason() == "PERMITTED"
    eventually(lambda: reason() == "EXPIRED_CREDENTIAL", every=0.1)
