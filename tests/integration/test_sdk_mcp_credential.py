"""A task credential shown by real MCP clients of both SDK lines to a real MCP server that checks it."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from authz_client import Authz
from tests.support import tools
from tests.support.issuing import CRM, ORCH, Shop, issuing_layout
from tests.support.mcp_guarded import GuardedServer
from tests.support.mutual import Pki
from tests.support.server import Server
from tests.support.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.minting import Authority

pytestmark = pytest.mark.peers

ROOT = Path(__file__).parents[2]
GOOD, BAD = ["read", {"id": "acme"}], ["read", {"id": "other"}]
#: Each SDK line, and the HTTP library of the other one, which its process cannot import.
LINES = {"1.x": ("httpx", "httpx2"), "2.x": ("httpx2", "httpx")}


@dataclass(frozen=True)
class Site:
    """A node that issues, an MCP server that checks, and another origin."""

    shop: Shop
    server: GuardedServer
    other: Upstream

    def run(self, line: str, **more: Any) -> dict[str, Any]:
        """Runs an agent on an SDK line, with a credential for reading one customer.

        Args:
            line: Of `LINES`.
            more: What the plan says otherwise.
        """
        self.server.seen.clear()
        python = sys.executable
        if line == "1.x":
            python = str(tools.mcp_peers() / "python/bin/python")
        plan = {
            "hidden": LINES[line][1],
            "node": self.shop.server.place.config["listeners"]["main"]["address"],
            "issuer": self.shop.issuer,
            "svid": self.shop.authority.agent(ORCH),
            "task": self.shop.start(),
            "operation": "crm.read",
            "arguments": {"id": "acme"},
            "bound": True,
            "header": "authorization",
            "url": f"{self.server.origin}/mcp",
            "calls": [GOOD],
            "fetch": [],
            "revoke": False,
            **more,
        }
        done = subprocess.run(
            [
                python,
                ROOT / "tests/support/mcp_credential.py",
                ROOT / "client/src",
                sysconfig.get_path("purelib"),
            ],
            input=json.dumps(plan),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def verdicts(self) -> list[str]:
        """What came of each request's credential, in order."""
        return [one.verdict for one in self.server.seen]


@pytest.fixture(scope="module")
def site(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Starts them."""
    folder = tmp_path_factory.mktemp("mcp-credential")
    pki = Pki(tmp_path_factory.mktemp("pki"))
    with ExitStack() as stack:
        changes = {"credentials": {"dpop": {"require_nonce": True}}}
        node = stack.enter_context(Server(issuing_layout(folder / "node", authority, pki, changes)))
        shop = Shop(node, authority, pki)
        socket = node.place.config["listeners"]["crm-only"]["address"]
        asks = stack.enter_context(Authz(socket, enforcer=True, timeout=10))
        other = stack.enter_context(Upstream())
        jwks = shop.get("/jwks").json()
        server = GuardedServer(asks, shop.issuer, CRM, jwks, f"http://127.0.0.1:{other.port}/")
        yield Site(shop, stack.enter_context(server), other)


@pytest.mark.parametrize("line", LINES)
def test_a_session_shows_the_credential_with_each_request(site: Site, line: str) -> None:
    """Each with a proof of its own, after the server has asked for a nonce once; the credential is for one call."""
    done = site.run(line, calls=[BAD, GOOD, GOOD])

    assert done["library"] == LINES[line][0]
    other, good, again = done["calls"]
    assert good == {"is_error": False, "text": "customer acme"}, done
    assert (other["is_error"], again["is_error"]) == (True, True)
    assert "OUT_OF_SCOPE" in other["text"]
    assert "USES_EXHAUSTED" in again["text"]
    verdicts = site.verdicts()
    assert verdicts[0] == "nonce"
    assert set(verdicts[1:]) == {"good"}
    assert {one.method for one in site.server.seen} >= {"POST", "DELETE"}
    proofs = [one.jti for one in site.server.seen]
    assert "" not in proofs
    assert len(set(proofs)) == len(proofs)


@pytest.mark.parametrize("line", LINES)
def test_an_unbound_credential_is_shown_in_a_header_of_its_own(site: Site, line: str) -> None:
    """MCP keeps `authorization` for the server's own token."""
    done = site.run(line, bound=False, header="authz-credential")

    assert done["calls"] == [{"is_error": False, "text": "customer acme"}], done
    assert set(site.verdicts()) == {"good"}
    assert all(one.credential.keys() == {"authz-credential"} for one in site.server.seen)


@pytest.mark.parametrize("line", LINES)
def test_a_credential_that_was_given_back_opens_nothing(site: Site, line: str) -> None:
    """The server asks Authz for each call."""
    done = site.run(line, revoke=True)

    before, after = done["calls"]
    assert before == {"is_error": False, "text": "customer acme"}
    assert after["is_error"], after
    assert "REVOKED" in after["text"]


@pytest.mark.parametrize("line", LINES)
def test_a_redirect_within_the_origin_gets_a_proof_of_its_own(site: Site, line: str) -> None:
    """As from `/mcp` to `/mcp/`, which both SDK lines follow."""
    done = site.run(line, url=f"{site.server.origin}/moved", fetch=[])

    assert done["calls"] == [{"is_error": False, "text": "customer acme"}], done
    assert set(site.verdicts()) == {"redirected", "nonce", "good"}


@pytest.mark.parametrize("header", ["authorization", "authz-credential"])
@pytest.mark.parametrize("line", LINES)
def test_a_redirect_to_another_origin_has_no_credential(site: Site, line: str, header: str) -> None:
    """Neither token nor proof arrives there, although the client follows."""
    site.other.seen.clear()
    done = site.run(line, header=header, fetch=[f"{site.server.origin}/away"])

    assert done["fetched"] == [200], done
    (arrived,) = site.other.seen
    names = {name.lower() for name, _ in arrived.headers}
    assert not names & {"authorization", "authz-credential", "dpop"}
    (left,) = [one for one in site.server.seen if one.path == "/away"]
    assert left.credential.keys() == {header, "dpop"}


@pytest.mark.parametrize("line", LINES)
def test_another_server_is_not_shown_the_credential(site: Site, line: str) -> None:
    """The client says for whom the credential is, and sends nothing."""
    site.other.seen.clear()
    done = site.run(line, fetch=[f"http://127.0.0.1:{site.other.port}/"])

    assert f"is for {site.server.origin}; it is not shown to" in done["failed"]
    assert done["failed"].startswith("UsageError")
    assert site.other.seen == []
