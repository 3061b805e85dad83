"""Bundles by SPIFFE's own ways: an endpoint with an X.509-SVID, and the Workload API."""

from __future__ import annotations

import base64
import datetime as dt
import json
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from spiffe._proto import workload_pb2, workload_pb2_grpc

from authz.config import load
from authz.engine import Trust
from authz.errors import ConfigError
from authz.trust.addresses import Reach
from authz.trust.fetch import Document, Fetcher, FetchError, FetchRequest
from authz.trust.remote import remote_sources
from authz.trust.sources import SourceKey
from authz.trust.spiffe import SpiffeVerifier, authorities_of, workload_bundle
from tests.support.keyserver import Answer, KeyServer, WebAuthority
from tests.support.minting import Key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from authz.config import Config

ENDPOINT = "spiffe://a.example/spire/server"
BUNDLE = json.dumps({"keys": [], "spiffe_refresh_hint": 9})


@pytest.fixture(scope="module")
def ca() -> WebAuthority:
    """The authority of `a.example`."""
    return WebAuthority(spiffe_id="spiffe://a.example")


def serving(authority: WebAuthority, folder: Path, *names: str, ca: bool = False) -> KeyServer:
    """A server whose certificate has these names."""
    server = KeyServer(authority.leaf(folder, names=names, ca=ca))
    server.answers["/"] = Answer(BUNDLE)
    return server


def fetch(server: KeyServer, *authorities: bytes) -> str:
    """Fetches a bundle from what must be the endpoint."""
    tls = SpiffeVerifier(ENDPOINT, authorities)
    return Fetcher().get(FetchRequest(server.url("/"), Reach(private=True), tls)).text


def test_an_endpoint_is_known_by_its_spiffe_id(ca: WebAuthority, tmp_path: Path) -> None:
    """The name of its host does not matter, nor other names beside the one URI."""
    for names in ((ENDPOINT,), (ENDPOINT, "elsewhere.example")):
        with serving(ca, tmp_path, *names) as server:
            assert fetch(server, ca.der) == BUNDLE
            assert fetch(server, WebAuthority("old").der, b"no certificate", ca.der) == BUNDLE


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("spiffe://a.example/spire/other",), "it is spiffe://a.example/spire/other, not"),
        (("spiffe://b.example/spire/server",), "it is spiffe://b.example/spire/server, not"),
        ((ENDPOINT + "/more",), "not"),
        ((ENDPOINT.upper(),), "not"),
        ((ENDPOINT, "spiffe://a.example/two"), "it is .*, spiffe://a.example/two, not"),
        (("localhost",), "it is nobody, not"),
        ((), "not an X.509-SVID"),
    ],
)
def test_another_workload_of_the_same_domain_is_refused(
    ca: WebAuthority, tmp_path: Path, names: tuple[str, ...], why: str
) -> None:
    """Before anything is asked."""
    with serving(ca, tmp_path, *names) as server:
        with pytest.raises(FetchError, match=why):
            fetch(server, ca.der)
        assert server.asked == []


def test_the_authority_of_another_domain_vouches_for_nobody(
    ca: WebAuthority, tmp_path: Path
) -> None:
    """Though it signed the right name."""
    other = WebAuthority("other", spiffe_id="spiffe://b.example")
    with serving(other, tmp_path, ENDPOINT) as server:
        with pytest.raises(FetchError, match="its certificate is refused"):
            fetch(server, ca.der)
        assert fetch(server, other.der) == BUNDLE, "the naive way takes it"


def test_an_authority_is_no_endpoint(ca: WebAuthority, tmp_path: Path) -> None:
    """A signing certificate never authenticates (X509-SVID section 5.2)."""
    with (
        serving(ca, tmp_path, ENDPOINT, ca=True) as server,
        pytest.raises(FetchError, match=r"signing certificate|its certificate is refused"),
    ):
        fetch(server, ca.der)


def test_without_an_authority_nothing_is_asked(tmp_path: Path, ca: WebAuthority) -> None:
    """Nothing would verify it."""
    with serving(ca, tmp_path, ENDPOINT) as server:
        for none in ((), (b"no certificate",)):
            with pytest.raises(FetchError, match="no authority"):
                fetch(server, *none)
        assert server.asked == []


def bundle_of(authority: WebAuthority) -> str:
    """A bundle with an authority."""
    entry = {"use": "x509-svid", "x5c": [base64.b64encode(authority.der).decode()]}
    return json.dumps({"keys": [entry, {"use": "jwt-svid"}]})


@pytest.mark.parametrize(
    "bundle", ["", "{", "[]", "{}", '{"keys":[7]}', '{"keys":[{"use":"x509-svid","x5c":["*"]}]}']
)
def test_what_is_no_bundle_has_no_authorities(bundle: str) -> None:
    """So that nothing is verified by half of one."""
    assert authorities_of(bundle) == ()


@pytest.mark.parametrize("sound", [True, False])
def test_an_authority_for_which_anybody_can_sign_is_none(*, sound: bool) -> None:
    """RFC 8725 section 3.4: an Ed25519 key of small order."""
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    if not sound:
        key = ed25519.Ed25519PublicKey.from_public_bytes(bytes([1, *([0] * 31)]))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key, 1, now, now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    entry = {"use": "x509-svid", "x5c": [base64.b64encode(der).decode()]}

    assert authorities_of(json.dumps({"keys": [entry]})) == ((der,) if sound else ())


# --- which authorities


def configured(folder: Path, domains: str) -> Config:
    """Loads a configuration with these domains."""
    (folder / "config.yaml").write_text(
        f"bundle: {{path: bundle}}\ntrust: {{domains: {domains}}}\nidentity: {{audiences: [a]}}\n"
        'listeners: {main: {address: "127.0.0.1:9191", insecure_dev: true}}\n'
    )
    return load(folder / "config.yaml", {}, working_folder=folder)


OWN = (
    "{a.example: {bundle: {url: 'https://a.example/b', profile: https_spiffe, "
    "endpoint_spiffe_id: 'spiffe://a.example/spire/server', bootstrap_file: bootstrap.json}}}"
)
FOREIGN = (
    "{b.example: {bundle: {file: b.json}}, a.example: {bundle: {url: 'https://b.example/a', "
    "profile: https_spiffe, endpoint_spiffe_id: 'spiffe://b.example/spire/server'}}}"
)


def test_an_endpoint_of_the_domain_itself_is_verified_by_what_it_gave_before(
    tmp_path: Path,
) -> None:
    """Before the first time, and once its keys were dropped, by the copy."""
    asked: list[FetchRequest] = []

    def get(request: FetchRequest) -> Document:
        asked.append(request)
        return Document(BUNDLE)

    (source,) = remote_sources(configured(tmp_path, OWN), get)
    first, later = WebAuthority("first"), WebAuthority("later")
    with pytest.raises(FetchError, match=r"`bootstrap_file` .* cannot be read: No such file"):
        source.fetch(lambda _: None)
    (tmp_path / "bootstrap.json").write_text(bundle_of(first))
    assert source.fetch(lambda _: None).fresh_for == 9
    source.fetch({SourceKey("domain", "a.example"): bundle_of(later)}.get)
    source.fetch({SourceKey("domain", "a.example"): '{"keys":[]}'}.get)

    assert [request.tls for request in asked] == [
        SpiffeVerifier(ENDPOINT, (first.der,)),
        SpiffeVerifier(ENDPOINT, (later.der,)),
        SpiffeVerifier(ENDPOINT, (first.der,)),
    ]


def test_an_endpoint_of_another_domain_is_verified_by_the_bundle_of_that_one(
    tmp_path: Path,
) -> None:
    """And by no other."""
    asked: list[FetchRequest] = []

    def get(request: FetchRequest) -> Document:
        asked.append(request)
        return Document(BUNDLE)

    (source,) = remote_sources(configured(tmp_path, FOREIGN), get)
    own, other = WebAuthority("own"), WebAuthority("other")
    known = {
        SourceKey("domain", "a.example"): bundle_of(own),
        SourceKey("domain", "b.example"): bundle_of(other),
    }
    source.fetch(known.get)
    del known[SourceKey("domain", "b.example")]
    source.fetch(known.get)

    name = "spiffe://b.example/spire/server"
    assert [request.tls for request in asked] == [
        SpiffeVerifier(name, (other.der,)),
        SpiffeVerifier(name, ()),
    ]


# --- the Workload API


class Agent(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """An agent that gives what the test says."""

    def __init__(self) -> None:
        self.authorities: dict[str, bytes] = {}
        self.keys: dict[str, bytes] = {}
        self.denies = False

    def FetchX509Bundles(self, _request: object, context: Any) -> Iterator[Any]:  # noqa: N802
        """Gives authorities."""
        if self.denies:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        yield workload_pb2.X509BundlesResponse(bundles=self.authorities)

    def FetchJWTBundles(self, _request: object, _context: object) -> Iterator[Any]:  # noqa: N802
        """Gives keys."""
        yield workload_pb2.JWTBundlesResponse(bundles=self.keys)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[Agent, str]]:
    """An agent, and its address."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    made, address = Agent(), f"unix://{tmp_path}/a.sock"
    untyped: Any = workload_pb2_grpc
    untyped.add_SpiffeWorkloadAPIServicer_to_server(made, server)
    server.add_insecure_port(address)
    server.start()
    yield made, address
    server.stop(None).wait(5)


def test_the_workload_api_gives_a_bundle(agent: tuple[Agent, str], ca: WebAuthority) -> None:
    """With what SPIFFE bundles say and key sets of the Workload API do not: what each key is for."""
    made, address = agent
    other = WebAuthority("second")
    keys = [Key.make("one").jwk("sig"), Key.make("two", "RS256").jwk("sig")]
    made.authorities = {"spiffe://a.example": ca.der + other.der, "spiffe://b.example": other.der}
    made.keys = {"spiffe://a.example": json.dumps({"keys": keys}).encode()}

    bundle = workload_bundle(address, "a.example", 5)

    trust = Trust.compile(spec(bundle))
    (domain,) = trust.domains
    assert (domain.keys, domain.authorities, trust.warnings) == (2, 2, ())
    made.keys = {"spiffe://a.example": json.dumps({"keys": keys[::-1]}).encode()}
    made.authorities = {"spiffe://a.example": other.der + ca.der}
    assert workload_bundle(address, "a.example", 5) == bundle, "what means the same is the same"


def spec(bundle: str) -> bytes:
    """Trusts a bundle."""
    domains = {"a.example": {"bundle": bundle, "from": "test"}}
    return json.dumps({"audiences": ["a"], "domains": domains}).encode()


def test_a_bundle_of_one_kind_is_a_bundle(agent: tuple[Agent, str], ca: WebAuthority) -> None:
    """A domain need not have both."""
    made, address = agent
    made.authorities = {"spiffe://a.example": ca.der}
    made.keys = {"spiffe://b.example": b'{"keys":[]}'}

    (domain,) = Trust.compile(spec(workload_bundle(address, "a.example", 5))).domains

    assert (domain.keys, domain.authorities) == (0, 1)


def test_an_agent_that_gives_nothing_is_told(
    agent: tuple[Agent, str], ca: WebAuthority, tmp_path: Path
) -> None:
    """No socket, no identity, no such domain, nonsense."""
    made, address = agent
    made.authorities = {"spiffe://b.example": ca.der}
    made.keys = {"spiffe://b.example": b'{"keys":[]}'}
    with pytest.raises(FetchError, match=r"has no bundle of `a\.example`"):
        workload_bundle(address, "a.example", 5)
    made.authorities = {"spiffe://a.example": b"no certificate"}
    with pytest.raises(FetchError, match="gives no bundle"):
        workload_bundle(address, "a.example", 5)
    made.denies = True
    with pytest.raises(FetchError, match="no identity issued"):
        workload_bundle(address, "a.example", 5)
    with pytest.raises(FetchError, match="does not exist"):
        workload_bundle(f"unix://{tmp_path}/none.sock", "a.example", 5)


def test_without_the_extra_a_node_refuses_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to install."""
    config = configured(tmp_path, "{a.example: {bundle: {workload_api: 'unix:///run/a.sock'}}}")
    monkeypatch.setattr("authz.trust.remote.has_workload_api", lambda: False)

    with pytest.raises(ConfigError, match=r"authz-runtime\[workload\]"):
        remote_sources(config, Fetcher().get)
