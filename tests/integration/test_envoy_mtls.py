"""A real Envoy whose clients show certificates: the client is the agent, on the word of an Envoy that may relay it."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.envoy import Answer, Envoy, ext_authz
from tests.support.minting import Authority
from tests.support.mutual import NO_RELAY, RELAY, Pki, mutual_layout
from tests.support.people import BOT, IDLE, ROOT, People
from tests.support.server import Server
from tests.support.upstream import Upstream

pytestmark = pytest.mark.envoy

TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
SEARCH: Final = "/customers?q=x"


@pytest.fixture(scope="module")
def people(authority: Authority) -> People:
    """Good credentials."""
    return People.of(authority)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Authorities that Envoy and the server know."""
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def server(
    authority: Authority, pki: Pki, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that knows its callers by certificate, and by socket."""
    place = mutual_layout(tmp_path_factory.mktemp("mutual") / "server", authority, pki)
    with Server(place) as running:
        yield running


def downstream(pki: Pki) -> Callable[[dict[str, Any]], None]:
    """Asks clients for a certificate, and tells the authorizer."""

    def change(config: dict[str, Any]) -> None:
        (chain,) = config["static_resources"]["listeners"][0]["filter_chains"]
        chain["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": TLS + "DownstreamTlsContext",
                "require_client_certificate": True,
                "common_tls_context": {
                    "tls_certificates": [
                        _files(pki.folder / "server.pem", pki.folder / "server.key")
                    ],
                    "validation_context": {"trusted_ca": {"filename": str(pki.clients)}},
                },
            },
        }
        ext_authz(config)["include_peer_certificate"] = True

    return change


def shows(pki: Pki, spiffe_id: str) -> Callable[[dict[str, Any]], None]:
    """Lets Envoy show a certificate of its own to the authorizer."""
    svid = pki.a.svid(spiffe_id)
    name = spiffe_id.rsplit("/ns/", 1)[1].replace("/", "-")
    (pki.folder / f"{name}.crt").write_bytes(svid.pem)
    (pki.folder / f"{name}.key").write_bytes(svid.key_pem)

    def change(config: dict[str, Any]) -> None:
        clusters = {cluster["name"]: cluster for cluster in config["static_resources"]["clusters"]}
        clusters["authz"]["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": TLS + "UpstreamTlsContext",
                "sni": "localhost",
                "common_tls_context": {
                    "tls_certificates": [
                        _files(pki.folder / f"{name}.crt", pki.folder / f"{name}.key")
                    ],
                    "validation_context": {
                        "trusted_ca": {"filename": str(pki.folder / "root.pem")},
                        "match_typed_subject_alt_names": [
                            {"san_type": "DNS", "matcher": {"exact": "localhost"}}
                        ],
                    },
                },
            },
        }

    return change


def _files(certificate: Path, key: Path) -> dict[str, Any]:
    return {
        "certificate_chain": {"filename": str(certificate)},
        "private_key": {"filename": str(key)},
    }


@pytest.fixture(scope="module")
def envoys(
    server: Server, pki: Pki, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Envoy]]:
    """Envoys that may relay, by certificate and by socket, and one that may not; each on both lanes."""
    folder = tmp_path_factory.mktemp("envoy")
    with ExitStack() as stack:
        made = {}
        for lane in ("", "-fast"):
            port, socket = server.port(f"mutual{lane}"), f"relay{lane}"
            path = Path(server.address(socket).removeprefix("unix:"))
            ways: dict[str, tuple[int | Path, tuple[Any, ...]]] = {
                "certificate": (port, (shows(pki, RELAY),)),
                "socket": (path, ()),
                "no relay": (port, (shows(pki, NO_RELAY),)),
            }
            for name, (authz, changes) in ways.items():
                place = folder / (name.replace(" ", "-") + lane)
                envoy = Envoy(place, authz, upstream.port, downstream(pki), *changes)
                made[name + lane] = stack.enter_context(envoy)
        yield made


WAYS: Final = [name + lane for name in ("certificate", "socket") for lane in ("", "-fast")]


def client(pki: Pki, spiffe_id: str | None = BOT, **changes: Any) -> ssl.SSLContext:
    """Returns a client with a certificate of its own."""
    signer = changes.pop("signer", pki.a)
    return pki.context("client", signer.svid(spiffe_id, **changes), "http/1.1")


def ask(envoy: Envoy, tls: ssl.SSLContext, *headers: tuple[str, str]) -> Answer:
    """Sends a search."""
    return envoy.request("GET", SEARCH, list(headers), tls=tls)


@pytest.mark.parametrize("way", WAYS)
def test_the_client_of_an_envoy_is_the_agent(
    envoys: dict[str, Envoy], server: Server, pki: Pki, people: People, way: str
) -> None:
    """It knows nothing of us: its certificate, which Envoy verified, says who it is."""
    answer = ask(envoys[way], client(pki))
    assert answer.status == 200
    assert answer.echo["x-authz-agent"] == [BOT]
    record = server.record(answer.echo["x-authz-decision-id"][0])
    (link,) = record["input"]["chain"]
    assert (link["id"], link["proof"]) == (BOT, "relayed")
    assert len(link["certificate_sha256"]) == 64
    by = {"certificate": ("mesh", "certificate"), "socket": ("relay", "listener")}
    name, known = by[way.removesuffix("-fast")]
    assert record["input"]["enforcer"].removesuffix("-fast") == name
    assert record["input"]["enforcer_by"] == known
    assert ask(envoys[way], client(pki, IDLE)).status == 403
    answer = ask(envoys[way], client(pki), ("authorization", f"Bearer {people.alice}"))
    assert answer.echo["x-authz-subject"] == ["corp/alice"]
    answer = ask(envoys[way], client(pki), ("authorization", "Bearer the-upstreams-own"))
    assert (answer.status, answer.echo["authorization"]) == (200, ["Bearer the-upstreams-own"])
    assert ask(envoys[way], client(pki), ("authorization", f"Bearer {people.idle}")).status == 401


@pytest.mark.parametrize("way", WAYS)
def test_what_envoy_takes_for_a_peer_is_verified_again(
    envoys: dict[str, Envoy], pki: Pki, people: People, upstream: Upstream, way: str
) -> None:
    """Envoy knows the authorities of several trust domains, each of which could sign for the other to its mind."""
    before = len(upstream.seen)
    for tls in (
        client(pki, BOT, signer=pki.b),
        client(pki, ROOT, signer=pki.b),
        client(pki, None, uris=(), dns=("bot.a.example",)),
        client(pki, None, uris=(BOT, "spiffe://a.example/x")),
        client(pki, "spiffe://x.example/bot"),
    ):
        for headers in ((), (("authorization", f"Bearer {people.bot}"),)):
            assert ask(envoys[way], tls, *headers).status == 401
    assert len(upstream.seen) == before


@pytest.mark.parametrize("lane", ["", "-fast"])
def test_an_envoy_that_may_not_relay_is_not_believed(
    envoys: dict[str, Envoy], pki: Pki, people: People, lane: str
) -> None:
    """Its client needs a credential of its own, and then is whoever that says."""
    envoy = envoys["no relay" + lane]
    assert ask(envoy, client(pki)).status == 401
    answer = ask(envoy, client(pki, IDLE), ("authorization", f"Bearer {people.bot}"))
    assert answer.echo["x-authz-agent"] == [BOT]
