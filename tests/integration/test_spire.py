"""Trust from a real SPIRE server and agent: the Workload API, and the server's bundle endpoint."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import spiffe.errors

from tests.support.minting import AUDIENCE, DOMAIN, Authority
from tests.support.people import search
from tests.support.server import Server, layout
from tests.support.spire import Spire, built
from tests.support.surfaces import CHECK, LANES, decision_of, reason_name
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.spire,
    pytest.mark.peers,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not built(), reason="SPIRE is not built: `make test-spire` does it"),
]

BOT = "/ns/support/sa/bot"
REFRESH = {"min": "1s", "max": "1s", "timeout": "5s", "max_staleness": "24h"}


@pytest.fixture(scope="module")
def spire() -> Iterator[Spire]:
    """A SPIRE with one registered workload: this user's processes."""
    # A socket's path has at most 107 bytes, which a test's own folder may exceed.
    with (
        tempfile.TemporaryDirectory(prefix="spire-") as folder,
        Spire(Path(folder), DOMAIN) as running,
    ):
        running.register(BOT)
        eventually(lambda: _token(running), within=60, every=0.5, what="the agent knows the entry")
        yield running


def _token(spire: Spire, *more: str) -> str:
    try:
        return spire.token(AUDIENCE, *more)
    except spiffe.errors.PySpiffeError:
        return ""


def node(folder: Path, authority: Authority, bundle: dict[str, Any]) -> Server:
    """Lays out a node whose agents are SPIRE's."""
    place = layout(folder, authority, "desk")
    place.config["trust"]["domains"][DOMAIN]["bundle"] = bundle
    place.config["trust"]["refresh"] = REFRESH
    place.write()
    return Server(place)


def asks(server: Server, lane: str, token: str) -> str:
    """Asks with a token; returns the reason."""
    return reason_name(decision_of(server.call(f"main{lane}", CHECK, search(token))))


def rotate(spire: Spire, server: Server, mark: str) -> None:
    """Lets SPIRE change its key, and holds that no token of either is refused; then revokes the old one."""
    before = spire.token(AUDIENCE, f"before-{mark}")
    known = _keys(server)
    new = spire.prepare()
    # As SPIRE does by itself: half of a key's life lies between publication and use.
    eventually(lambda: _keys(server) > known, what="the new key is known")
    old = spire.activate(new)

    def signed() -> str:
        token = spire.token(AUDIENCE, f"after-{mark}")
        return token if jwt.get_unverified_header(token)["kid"] == new else ""

    # SPIRE's agent keeps tokens: another audience is another token.
    after = eventually(signed)
    for lane in LANES:
        assert asks(server, lane, before) == "PERMITTED"
        assert asks(server, lane, after) == "PERMITTED"

    spire.revoke(old)

    for lane in LANES:
        eventually(lambda: asks(server, lane, before) == "UNTRUSTED_ISSUER")  # noqa: B023
        assert asks(server, lane, after) == "PERMITTED"
    # Else the next test would meet an agent that knows the old key only.
    eventually(lambda: spire.known() == {new}, what="the agent knows the keys of now")


def _keys(server: Server) -> int:
    sources = server.readiness()["trust"]["sources"]
    return int(next(one["keys"] for one in sources if one["name"] == DOMAIN))


def test_the_workload_api_gives_the_trust(
    spire: Spire, authority: Authority, tmp_path: Path
) -> None:
    """Bundle, tokens, rotation and revocation."""
    with node(tmp_path, authority, {"workload_api": spire.workload_api}) as server:
        for lane in LANES:
            assert asks(server, lane, spire.token(AUDIENCE, "workload")) == "PERMITTED"
            assert asks(server, lane, spire.token("other")) == "WRONG_AUDIENCE"
            assert (
                asks(server, lane, authority.agent(f"spiffe://{DOMAIN}{BOT}")) == "UNTRUSTED_ISSUER"
            )
        (source,) = (one for one in server.readiness()["trust"]["sources"] if one["name"] == DOMAIN)
        assert (source["from"], source["error"]) == (spire.workload_api, "")
        rotate(spire, server, "workload")


def test_the_bundle_endpoint_gives_the_trust(
    spire: Spire, authority: Authority, tmp_path: Path
) -> None:
    """First verified by a copy that came another way, then by what it gave itself."""
    bootstrap = tmp_path / "bootstrap.json"
    bootstrap.write_text(spire.bundle)
    bundle = {
        "url": f"https://localhost:{spire.endpoint}/",
        "profile": "https_spiffe",
        "endpoint_spiffe_id": f"spiffe://{DOMAIN}/spire/server",
        "bootstrap_file": str(bootstrap),
        "allow_private": True,
    }
    with node(tmp_path / "node", authority, bundle) as server:
        bootstrap.unlink()
        for lane in LANES:
            # The agent gives the same token for the same audiences, also one whose key was revoked.
            assert asks(server, lane, spire.token(AUDIENCE, "endpoint")) == "PERMITTED"
        rotate(spire, server, "endpoint")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"endpoint_spiffe_id": f"spiffe://{DOMAIN}/spire/other"}, "it is spiffe://"),
        (
            {"profile": "https_web", "endpoint_spiffe_id": None, "bootstrap_file": None},
            "certificate",
        ),
    ],
)
def test_an_endpoint_that_is_another_gives_nothing(
    spire: Spire, authority: Authority, tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    """Also where only the web's way of proving it was chosen."""
    bootstrap = tmp_path / "bootstrap.json"
    bootstrap.write_text(spire.bundle)
    bundle = {
        "url": f"https://localhost:{spire.endpoint}/",
        "profile": "https_spiffe",
        "endpoint_spiffe_id": f"spiffe://{DOMAIN}/spire/server",
        "bootstrap_file": str(bootstrap),
        "allow_private": True,
        **change,
    }
    server = node(
        tmp_path / "node", authority, {key: value for key, value in bundle.items() if value}
    )
    try:
        server.spawn()

        def error() -> str:
            sources = server.readiness()["trust"]["sources"]
            return str(next(one["error"] for one in sources if one["name"] == DOMAIN))

        assert why in eventually(error)
        assert asks(server, "", spire.token(AUDIENCE, why)) == "UNTRUSTED_ISSUER"
        assert server.http("/readyz")[0] == 503
    finally:
        server.close()
