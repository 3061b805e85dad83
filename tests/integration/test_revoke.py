"""The kill switch: from the command to both lanes, at once, and after a restart."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2
from tests.support.minting import Authority
from tests.support.people import BOT, People, envoy_search, search
from tests.support.server import Server, command, layout
from tests.support.surfaces import (
    CHECK,
    ENVOY,
    LANES,
    decision_of,
    envoy_reason,
    outcome,
    reason_name,
)


@pytest.fixture(scope="module")
def people(authority: Authority) -> People:
    """Good credentials."""
    return People.of(authority)


@pytest.fixture
def server(authority: Authority, tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own."""
    with Server(layout(tmp_path, authority, "desk")) as running:
        yield running


def revoke(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `authz revoke`."""
    admin = ["--admin", server.address("admin")]
    line = [*command(), "revoke", *arguments, *admin]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def refused_everywhere(server: Server, people: People) -> None:
    """Asserts that both lanes refuse the agent as revoked, over gRPC and as Envoy asks."""
    for listener in (f"main{lane}" for lane in LANES):
        decision = decision_of(server.call(listener, CHECK, search(people.bot)))
        assert reason_name(decision) == "REVOKED"
        assert "stolen" in decision.message
        answer = server.call(listener, ENVOY, envoy_search(people.bot))
        assert envoy_reason(external_auth_pb2.CheckResponse.FromString(answer)) == "REVOKED"


@pytest.mark.parametrize(
    "target",
    [("agent", BOT), ("issuer", "a.example"), ("system", "crm"), ("operation", "crm.search")],
    ids=lambda target: target[0],
)
def test_both_lanes_refuse_at_once_and_after_a_restart(
    server: Server, people: People, target: tuple[str, str]
) -> None:
    """No call that begins after the command has answered is permitted."""
    for listener in (f"main{lane}" for lane in LANES):
        assert outcome(decision_of(server.call(listener, CHECK, search(people.bot)))) == "PERMIT"
    done = revoke(server, *target, "--reason", "stolen", "-o", "json")
    assert json.loads(done.stdout) == {"target": target[0], "value": target[1], "tasks_ended": 0}

    refused_everywhere(server, people)
    server.close()
    server.start()
    refused_everywhere(server, people)


def test_wrong_use_is_told(server: Server) -> None:
    """What has not the form of the target is refused, and nothing is revoked."""
    done = revoke(server, "agent", "bot")
    assert done.returncode == 1
    assert "no SPIFFE id" in done.stderr
    assert "unknown target" not in done.stderr
    assert revoke(server, "planet", "mars").returncode == 1
