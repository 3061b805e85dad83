"""Callers that show a certificate: each is the workload that it names, or nobody."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
import pytest

from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2
from authz_client.v1 import decision_pb2
from tests.support.minting import Authority
from tests.support.mutual import (
    CRM_SERVER,
    MUTUAL,
    RELAY,
    Pki,
    call,
    mutual_layout,
)
from tests.support.people import BOT, IDLE, People, check, envoy_search, search
from tests.support.rawcall import TlsCall
from tests.support.server import Server, code_of
from tests.support.surfaces import CHECK, ENVOY, decision_of, envoy_reason, outcome
from tests.support.svid import Signer, Svid, usage

TOOLS: Final = "spiffe://a.example/ns/tools/sa/other"


@pytest.fixture(scope="module")
def people(authority: Authority) -> People:
    """Good credentials."""
    return People.of(authority)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Authorities that the server's TLS library knows."""
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def server(
    authority: Authority, pki: Pki, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that knows its callers by certificate."""
    place = mutual_layout(tmp_path_factory.mktemp("mutual") / "server", authority, pki)
    with Server(place) as running:
        yield running


def judged(
    server: Server,
    listener: str,
    credentials: grpc.ChannelCredentials,
    request: bytes,
    *metadata: tuple[str, str],
) -> tuple[str, dict[str, Any]]:
    """Asks, and returns the reason code and the record of the decision."""
    answer = decision_of(call(server, listener, credentials, CHECK, request, *metadata))
    record = server.record(answer.decision_id)
    code: str = record["result"]["reason_code"]
    assert (outcome(answer) == "PERMIT") is (code == "PERMITTED")
    return code, record


def connects(server: Server, listener: str, credentials: grpc.ChannelCredentials) -> bool:
    """Tells whether a handshake succeeds."""
    with grpc.secure_channel(server.address(listener), credentials) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=2)
        except grpc.FutureTimeoutError:
            return False
    return True


def own(token: str) -> tuple[str, str]:
    """Returns the credential of a call itself."""
    return ("authorization", f"Bearer {token}")


@pytest.mark.parametrize("listener", MUTUAL)
def test_an_agent_is_its_certificate(
    server: Server, pki: Pki, people: People, listener: str
) -> None:
    """It needs no evidence; it is told no more than an agent may know, and the record says how it was known."""
    shown = pki.credentials(pki.a.svid(BOT))
    answer = decision_of(call(server, listener, shown, CHECK, search(None)))
    assert outcome(answer) == "PERMIT"
    assert answer.reason_code == 0
    assert not answer.policy_ids
    record = server.record(answer.decision_id)
    (link,) = record["input"]["chain"]
    assert (link["id"], link["proof"]) == (BOT, "x509-svid")
    assert "token_sha256" not in link
    assert record["input"]["peer"]["id"] == BOT
    assert record["input"]["peer"]["certificate_sha256"] == link["certificate_sha256"]
    assert (record["input"]["enforcer"], record["input"]["enforcer_by"]) == ("", "none")
    for request, metadata in (
        (search(people.bot), ()),
        (search(None), (own(people.bot),)),
        (search(people.bot), (own(people.bot),)),
    ):
        assert judged(server, listener, shown, request, *metadata)[0] == "PERMITTED"
    idle = pki.credentials(pki.a.svid(IDLE))
    assert judged(server, listener, idle, search(None))[0] == "NOT_PERMITTED"


@pytest.mark.parametrize("listener", MUTUAL)
def test_an_intermediate_is_sent_along(server: Server, pki: Pki, listener: str) -> None:
    """The whole chain is verified, not the first certificate alone."""
    signer = pki.a.intermediate("a.example")
    shown = pki.credentials(signer.svid(BOT), signer)
    assert judged(server, listener, shown, search(None))[0] == "PERMITTED"


@pytest.mark.parametrize("listener", MUTUAL)
def test_an_agent_acts_for_a_subject(
    server: Server, pki: Pki, people: People, authority: Authority, listener: str
) -> None:
    """The subject's token is evidence, or the call's own credential, since the certificate says who the agent is."""
    shown = pki.credentials(pki.a.svid(BOT))
    for request, metadata in (
        (search(None, people.alice), ()),
        (search(None), (own(people.alice),)),
        (search(None, people.alice), (own(people.alice),)),
        (search(None, people.alice), (own(people.bot),)),
    ):
        code, record = judged(server, listener, shown, request, *metadata)
        assert code == "PERMITTED"
        assert [link["kind"] for link in record["input"]["chain"]] == ["User", "Agent"]
    mine = authority.subject("alice", groups=["employees"], may_act={"sub": BOT})
    assert judged(server, listener, shown, search(None, mine))[0] == "PERMITTED"
    others = authority.subject("alice", groups=["employees"], may_act={"sub": IDLE})
    assert judged(server, listener, shown, search(None, others))[0] == "BAD_CREDENTIAL"


@pytest.mark.parametrize("listener", MUTUAL)
def test_an_agent_asks_about_no_other(
    server: Server, pki: Pki, people: People, listener: str
) -> None:
    """Another agent's evidence is good, and refused: whoever asks is no enforcer."""
    idle = pki.credentials(pki.a.svid(IDLE))
    for request, metadata in (
        (search(people.bot), ()),
        (search(people.bot, people.alice), ()),
        (search(None), (own(people.bot),)),
        (search(people.bot), (own(people.bot),)),
        (search(people.idle), (own(people.bot),)),
        (search(None, people.alice), (own(people.boss),)),
    ):
        assert judged(server, listener, idle, request, *metadata)[0] == "ENFORCER_REFUSED"
    answer = external_auth_pb2.CheckResponse.FromString(
        call(server, listener, idle, ENVOY, envoy_search(people.bot))
    )
    assert answer.status.code == 7
    assert envoy_reason(answer) == "ENFORCER_REFUSED"


@pytest.mark.parametrize("listener", MUTUAL)
def test_a_tool_server_speaks_of_its_own_system_only(
    server: Server, pki: Pki, people: People, listener: str
) -> None:
    """It asks about others, of its system; the most specific `match` says which that is."""
    wiki = check("wiki.read", b'{"page": "home"}', agent=people.bot).SerializeToString()
    for spiffe_id, name, about_crm, about_wiki in (
        (CRM_SERVER, "crm-tool", "PERMITTED", "ENFORCER_REFUSED"),
        (TOOLS, "tools", "ENFORCER_REFUSED", "PERMITTED"),
    ):
        shown = pki.credentials(pki.a.svid(spiffe_id))
        code, record = judged(server, listener, shown, search(people.bot))
        assert code == about_crm
        assert judged(server, listener, shown, wiki)[0] == about_wiki
        assert (record["input"]["enforcer"], record["input"]["enforcer_by"]) == (
            name,
            "certificate",
        )
        assert record["input"]["peer"]["id"] == spiffe_id
    # Its certificate says that it asks, not that it acts.
    shown = pki.credentials(pki.a.svid(CRM_SERVER))
    assert judged(server, listener, shown, search(None))[0] == "NO_CREDENTIAL"
    assert judged(server, listener, shown, search(None), own(people.bot))[0] == "NO_CREDENTIAL"


#: Chains that a TLS library accepts, or may, and why they prove nothing.
STRANGERS: Final[dict[str, tuple[Callable[[Pki], tuple[Svid, tuple[Signer, ...]]], str]]] = {
    "another domain's authority": (
        lambda pki: (pki.b.svid(BOT), ()),
        "UNTRUSTED_ISSUER",
    ),
    "another domain's authority sent along": (
        lambda pki: (pki.b.svid(BOT), (pki.b,)),
        "BAD_CREDENTIAL",
    ),
    "another domain's intermediate": (
        lambda pki: _by(pki.b.intermediate("b.example"), BOT),
        "BAD_CREDENTIAL",
    ),
    "another domain's intermediate of our name": (
        lambda pki: _by(pki.b.intermediate("a.example"), BOT),
        "UNTRUSTED_ISSUER",
    ),
    "an enforcer of another domain's authority": (
        lambda pki: (pki.b.svid(RELAY), ()),
        "UNTRUSTED_ISSUER",
    ),
    "two URIs": (
        lambda pki: (pki.a.svid(uris=(BOT, "spiffe://a.example/x")), ()),
        "BAD_CREDENTIAL",
    ),
    "no URI": (
        lambda pki: (pki.a.svid(uris=(), dns=("localhost",)), ()),
        "BAD_CREDENTIAL",
    ),
    "a trust domain that nobody trusts": (
        lambda pki: (pki.a.svid("spiffe://x.example/ns/support/sa/bot"), ()),
        "UNTRUSTED_ISSUER",
    ),
    "a signing leaf": (lambda pki: (pki.a.svid(BOT, ca=True), ()), "BAD_CREDENTIAL"),
    "an authority": (
        lambda pki: (Svid(pki.a.certificate, pki.a.key), ()),
        "BAD_CREDENTIAL",
    ),
    "a leaf that may sign": (
        lambda pki: (pki.a.svid(BOT, usage=usage("digital_signature", "key_cert_sign")), ()),
        "BAD_CREDENTIAL",
    ),
}
#: Those that some TLS library refuses by itself, so that no answer comes at all.
REFUSED_BY_TLS: Final = {"a signing leaf", "an authority", "a leaf that may sign"}


def _by(signer: Signer, spiffe_id: str) -> tuple[Svid, tuple[Signer, ...]]:
    return signer.svid(spiffe_id), (signer,)


@pytest.mark.parametrize("listener", MUTUAL)
@pytest.mark.parametrize("name", STRANGERS)
def test_a_bad_certificate_is_nobody(
    server: Server, pki: Pki, people: People, listener: str, name: str
) -> None:
    """The handshake succeeds, and yet whoever shows it is refused, also with evidence that is good on its own."""
    make, reason = STRANGERS[name]
    svid, rest = make(pki)
    shown = pki.credentials(svid, *rest)
    for request, metadata in (
        (search(None), ()),
        (search(people.bot, people.alice), ()),
        (search(None), (own(people.bot),)),
    ):
        if name in REFUSED_BY_TLS and not connects(server, listener, shown):
            continue
        code, record = judged(server, listener, shown, request, *metadata)
        assert code == reason
        assert record["input"]["chain"] == []
        assert record["input"]["enforcer"] == ""
        assert "peer" not in record["input"]
    if name not in REFUSED_BY_TLS:
        proxied = external_auth_pb2.CheckResponse.FromString(
            call(server, listener, shown, ENVOY, envoy_search(people.bot))
        )
        assert envoy_reason(proxied) == reason


@pytest.mark.parametrize("listener", MUTUAL)
def test_without_a_certificate_there_is_no_connection(
    server: Server, pki: Pki, people: People, listener: str
) -> None:
    """As with any server that asks for one."""
    root = (pki.folder / "root.pem").read_bytes()
    with pytest.raises(grpc.RpcError) as raised:
        call(server, listener, grpc.ssl_channel_credentials(root), CHECK, search(people.bot))
    assert code_of(raised.value) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("listener", MUTUAL)
def test_a_connection_outlives_its_certificate(server: Server, pki: Pki, listener: str) -> None:
    """No more than the handshake was the certificate's: each later call needs it to be valid still."""
    for spiffe_id in (BOT, CRM_SERVER):
        ends = int(time.time()) + 7
        shown = pki.credentials(pki.a.svid(spiffe_id, ends_at=ends))
        with grpc.secure_channel(server.address(listener), shown) as channel:
            send: Any = channel.unary_unary(f"/{CHECK}")

            def ask(send: Any = send) -> str:
                answer: bytes = send(search(None), timeout=30)
                record = server.record(decision_of(answer).decision_id)
                return str(record["result"]["reason_code"])

            before = "PERMITTED" if spiffe_id == BOT else "NO_CREDENTIAL"
            assert ask() == before
            time.sleep(max(0.0, ends + 1 - time.time()))
            assert ask() == "EXPIRED_CREDENTIAL"


@pytest.mark.parametrize("listener", MUTUAL)
@pytest.mark.parametrize("who", ["agent", "stranger"])
def test_a_resumed_session(server: Server, pki: Pki, listener: str, who: str) -> None:
    """A session that is taken up again has no handshake that could verify anything: the chain is verified as ever."""
    signer = pki.a if who == "agent" else pki.b
    expected = "PERMITTED" if who == "agent" else "UNTRUSTED_ISSUER"
    context = pki.context(f"{listener}-{who}", signer.svid(BOT))
    port = server.port(listener)

    def ask(connection: TlsCall) -> str:
        decision = decision_pb2.CheckResponse.FromString(
            connection.call(CHECK, search(None))
        ).decision
        return str(server.record(decision.decision_id)["result"]["reason_code"])

    first = TlsCall(port, context)
    assert ask(first) == expected
    assert not first.is_resumed
    second = TlsCall(port, context, first.session)
    assert second.is_resumed
    assert ask(second) == expected
    first.close()
    second.close()


def test_what_is_counted(server: Server, pki: Pki) -> None:
    """How the enforcer and the agent were known, in words of closed sets; a verified certificate is remembered."""
    shown = pki.credentials(pki.a.svid(BOT))

    def counts() -> tuple[float, float, float]:
        return (
            server.metric("authz_identified_total", enforcer="none", agent="x509-svid"),
            server.metric("authz_cache_requests_total", cache="certificate", result="hit"),
            server.metric("authz_cache_requests_total", cache="certificate", result="miss"),
        )

    before = counts()
    for listener in MUTUAL:
        for _ in range(2):
            assert judged(server, listener, shown, search(None))[0] == "PERMITTED"
    after = counts()
    assert [int(b - a) for a, b in zip(before, after, strict=True)] == [4, 2, 2]
