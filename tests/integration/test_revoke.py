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

#: What a thumbprint may look like.
DASHED = "-Xn3wT4kq1ePVdQ6tF0o9bZrC2hJmL7uY8sGaIvNcEk"


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
    line = [*command(), "revoke", *admin, *arguments]
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
    done = revoke(server, *target, "--reason", "stolen", "--format", "json")
    assert json.loads(done.stdout) == {"target": target[0], "value": target[1], "tasks_ended": 0}

    refused_everywhere(server, people)
    server.close()
    server.start()
    refused_everywhere(server, people)


def reasons(server: Server, request: bytes) -> set[str]:
    """What both lanes answer."""
    return {reason_name(decision_of(server.call(f"main{lane}", CHECK, request))) for lane in LANES}


def test_a_revoked_subject(server: Server, people: People) -> None:
    """Only calls on behalf of the subject are refused, on both lanes, also after a restart, until the revocation is lifted."""
    for_alice, for_boss = search(people.bot, people.alice), search(people.bot, people.boss)
    assert reasons(server, for_alice) == reasons(server, for_boss) == {"PERMITTED"}
    assert revoke(server, "subject", "corp/alice", "--reason", "has left").returncode == 0
    assert reasons(server, for_alice) == {"REVOKED"}
    assert reasons(server, for_boss) == {"PERMITTED"}
    server.close()
    server.start()
    assert reasons(server, for_alice) == {"REVOKED"}
    assert revoke(server, "--undo", "subject", "corp/alice", "--reason", "is back").returncode == 0
    assert reasons(server, for_alice) == {"PERMITTED"}
    server.close()
    server.start()
    assert reasons(server, for_alice) == {"PERMITTED"}


def test_a_lifted_revocation_says_who_and_why(server: Server, people: People) -> None:
    """The command requires a reason, the node refuses what cannot be lifted, and the audit holds name and reason."""
    assert revoke(server, "agent", BOT, "--reason", "drill").returncode == 0
    without = revoke(server, "--undo", "agent", BOT)
    assert without.returncode != 0
    assert "--reason" in without.stderr
    assert reasons(server, search(people.bot)) == {"REVOKED"}
    done = revoke(
        server,
        "--undo",
        "agent",
        BOT,
        "--reason",
        "drill over",
        "--by",
        "carol",
        "--format",
        "json",
    )
    assert json.loads(done.stdout) == {
        "target": "agent",
        "value": BOT,
        "tasks_ended": 0,
        "undone": True,
    }
    assert reasons(server, search(people.bot)) == {"PERMITTED"}
    again = revoke(server, "--undo", "agent", BOT, "--reason", "once more")
    assert again.returncode == 1
    assert "is not revoked" in again.stderr
    final = revoke(server, "--undo", "task", "t-1", "--reason", "why not")
    assert final.returncode == 1
    assert "stays ended" in final.stderr
    server.close()
    lines = [json.loads(line) for line in server.place.audit.read_text().splitlines()]
    notes = [line["input"]["revoked"] for line in lines if line["input"].get("revoked")]
    assert {
        "target": "agent",
        "value": BOT,
        "reason": "drill over",
        "by": "carol",
        "undo": True,
    } in notes


def test_a_value_may_begin_with_a_dash(server: Server) -> None:
    """Ids of keys and tokens are base64url, of which one in 64 begins with one."""
    for line, undone in (
        (("key", DASHED), False),
        (("key", DASHED, "--undo", "--reason", "key"), True),
        (("--format", "json", "key", DASHED), False),
        (("--undo", "--reason", "key", "key", DASHED, "--format", "json"), True),
        (("key", "--", DASHED), False),
        (("--undo", "--reason=x", "--", "key", DASHED), True),
        (("jti", "-o" + DASHED), False),
        (("jti", "-ojson" + DASHED), False),
    ):
        done = revoke(server, *line)
        assert done.returncode == 0, (line, done.stderr)
        assert DASHED in done.stdout
        is_undone = "no longer revoked" in done.stdout or '"undone": true' in done.stdout
        assert is_undone is undone, line
    # An option after the target is none the less one.
    for line in (
        ("key", "--reason", "x"),
        ("key", "--format", "json"),
        ("key", "--"),
    ):
        done = revoke(server, *line)
        assert done.returncode == 1, line
        assert "Missing argument" in done.stderr, line


def test_wrong_use_is_told(server: Server) -> None:
    """What has not the form of the target is refused, and nothing is revoked."""
    done = revoke(server, "agent", "bot")
    assert done.returncode == 1
    assert "no SPIFFE id" in done.stderr
    assert "unknown target" not in done.stderr
    assert revoke(server, "planet", "mars").returncode == 1
