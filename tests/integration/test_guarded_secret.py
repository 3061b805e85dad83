"""A standing secret goes to the tool server that asked, and never to the agent: with the SDK, on a real server."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from authz_client import Authz, Caller, Denied, Leased, Unavailable, caller
from tests.support.leaks import files_under, leaks
from tests.support.leasing import code_of, lease
from tests.support.minting import Authority
from tests.support.server import Server, layout
from tests.support.waiting import eventually
from tests.support.working import BUNDLE, PLANNER, Crew

KEY = 'sk-l1ve/9f+Q"==%41:x&a b~'


@dataclass
class Site:
    """A server, its secret, the tool server that is an enforcer, and the crew."""

    server: Server
    secret: Path
    tool: Authz
    crew: Crew


@pytest.fixture
def site(authority: Authority, tmp_path: Path) -> Iterator[Site]:
    """Starts them."""
    secret = tmp_path / "key"
    secret.touch(0o600)
    secret.write_text(KEY)
    changes = {
        "credentials": {
            "issuer": "https://authz.example",
            "keys": {"folder": str(tmp_path / "keys")},
            "static_secrets": {
                "legacy": {"systems": ["desk"], "header": "x-key", "secret_file": str(secret)}
            },
        },
        "enforcers": [{"name": "desk-server", "listener": "crm-only", "asks": ["system:desk"]}],
    }
    with Server(layout(tmp_path / "node", authority, BUNDLE, changes)) as server:
        socket = server.place.config["listeners"]["crm-only"]["address"]
        with Authz(socket, enforcer=True, timeout=10) as tool:
            yield Site(server, secret, tool, Crew.of(authority))


def test_the_tool_server_that_asked_gets_the_secret(site: Site) -> None:
    """Once for each permit, and it stands in no file of the node."""
    seen: list[dict[str, str]] = []

    @site.tool.guard("desk.note", secret="key")
    def note(id: str, *, key: Leased) -> str:  # noqa: A002 - the operation's argument
        seen.append(dict(key.parts))
        return id

    task = site.crew.start(site.server)
    token = site.crew.tokens[PLANNER]
    for _ in range(2):
        with caller(Caller(agent_token=token, task=task)):
            assert note("n-1") == "n-1"
    assert seen == [{"header": "x-key", "value": KEY}] * 2
    site.crew.end(site.server, task)
    with caller(Caller(agent_token=token, task=task)), pytest.raises(Denied):
        note("n-1")
    assert len(seen) == 2
    site.server.close()
    files = list(files_under(site.server.place.folder))
    assert any("audit" in name and data for name, data in files)
    assert leaks(KEY, files) == []


def test_the_agent_does_not_get_it(site: Site) -> None:
    """Its own permit is for a token or a lease; this secret is not for it."""
    task = site.crew.start(site.server)
    with pytest.raises(grpc.RpcError) as refused:
        lease(site.server, site.crew, task, operation="desk.note", listener="none")
    assert code_of(refused.value) == "PERMISSION_DENIED"
    assert KEY not in str(refused.value)


def test_without_the_secret_nothing_runs(site: Site) -> None:
    """The file is gone: the function does not run without its key."""
    ran: list[str] = []

    @site.tool.guard("desk.note", secret="key")
    def note(id: str, *, key: Leased) -> None:  # noqa: A002 - the operation's argument
        ran.append(id + key.id)

    site.secret.unlink()
    os.kill(site.server.pid, signal.SIGHUP)
    eventually(
        lambda: site.server.metric("authz_static_secret_readable", static_secret="legacy") == 0
    )
    task = site.crew.start(site.server)
    who = Caller(agent_token=site.crew.tokens[PLANNER], task=task)
    with caller(who), pytest.raises(Unavailable):
        note("n-1")
    assert ran == []
