"""The kill switch on nodes that share a database: pushed, confirmed by polls, and closed where neither arrives."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from authz_client.v1 import admin_pb2
from tests.support.minting import Authority
from tests.support.people import BOT, People, search
from tests.support.postgres import Postgres, programs
from tests.support.relay import Relay
from tests.support.server import Server, layout
from tests.support.surfaces import CHECK, LANES, decision_of, reason_name
from tests.support.waiting import eventually
from tests.support.working import BUNDLE, PLANNER, WORKERS, Crew

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        programs() is None, reason="PostgreSQL is not installed (Debian: postgresql)"
    ),
]

#: A node that hears of nothing by asking while a test runs.
RARE: dict[str, Any] = {"poll_interval": "60s", "revocation_staleness": "150s"}
#: Far more than a notice takes, far less than `RARE`.
SOON = 20.0
REVOKE = "authz.v1.Admin/Revoke"


@pytest.fixture(scope="module")
def people(authority: Authority) -> People:
    """Good credentials."""
    return People.of(authority)


@pytest.fixture
def database() -> Iterator[Postgres]:
    """A database of the test's own."""
    with Postgres() as one:
        yield one


def state(port: int, **more: Any) -> dict[str, Any]:
    """Returns the changes of a configuration for a node on a database."""
    dsn = f"postgresql://postgres@127.0.0.1:{port}/authz"
    return {"state": {"engine": "postgresql", "dsn": dsn, **more}}


def revoke(server: Server, *, undo: bool = False, **target: str) -> None:
    """Revokes, or lifts a revocation."""
    request = admin_pb2.AdminRevokeRequest(reason="test", by="carol", undo=undo, **target)
    server.call("admin", REVOKE, request.SerializeToString())


def reasons(server: Server, request: bytes) -> set[str]:
    """What both lanes answer."""
    return {reason_name(decision_of(server.call(f"main{lane}", CHECK, request))) for lane in LANES}


def soon(server: Server, request: bytes, reason: str) -> None:
    """Waits until both lanes answer so."""
    eventually(lambda: reasons(server, request) == {reason}, within=SOON, what=reason)


def test_nodes_hear_at_once(
    authority: Authority, people: People, database: Postgres, tmp_path: Path
) -> None:
    """Of revocations and of their lifting, on whichever node, also while nobody asks for a minute."""
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                Server(layout(tmp_path / name, authority, "desk", state(database.port, **RARE)))
            )
            for name in ("one", "two", "three")
        ]
        for_alice, for_boss = search(people.bot, people.alice), search(people.bot, people.boss)
        for node in nodes:
            assert reasons(node, for_alice) == reasons(node, for_boss) == {"PERMITTED"}
        for revoking in nodes:
            revoke(revoking, subject="corp/alice")
            for node in nodes:
                soon(node, for_alice, "REVOKED")
                assert reasons(node, for_boss) == {"PERMITTED"}
            revoke(revoking, subject="corp/alice", undo=True)
            for node in nodes:
                soon(node, for_alice, "PERMITTED")
        revoke(nodes[2], agent=BOT)
        for node in nodes:
            soon(node, for_boss, "REVOKED")
            assert not any("notice" in one for one in node.readiness()["engine"]["warnings"])


def test_the_end_of_a_task_is_heard_at_once(
    authority: Authority, database: Postgres, tmp_path: Path
) -> None:
    """Calls that change nothing in a task are refused on another node, also while nobody asks for a minute."""
    crew = Crew.of(authority)
    with ExitStack() as stack:
        one, other = (
            stack.enter_context(
                Server(layout(tmp_path / name, authority, BUNDLE, state(database.port, **RARE)))
            )
            for name in ("one", "other")
        )
        root = crew.start(one)
        child = crew.delegate(one, root, PLANNER, WORKERS[0])
        assert crew.status(other, child) == "ACTIVE"
        revoke(one, task=child)
        eventually(lambda: crew.status(other, child) == "REVOKED", within=SOON)
        assert crew.status(other, root) == "ACTIVE"
        crew.end(one, root)
        eventually(lambda: crew.status(other, root) == "COMPLETED", within=SOON)


def test_a_node_that_hears_nothing_denies(
    authority: Authority, people: People, database: Postgres, tmp_path: Path
) -> None:
    """If neither notices nor answers of the database arrive, the node denies every call after the staleness."""
    request = search(people.bot, people.alice)
    with Relay(database.port) as relay, ExitStack() as stack:
        one = stack.enter_context(
            Server(layout(tmp_path / "one", authority, "desk", state(database.port)))
        )
        cut = stack.enter_context(
            Server(layout(tmp_path / "cut", authority, "desk", state(relay.port)))
        )
        assert reasons(cut, request) == {"PERMITTED"}
        relay.hold()
        soon(cut, request, "STATE_UNAVAILABLE")
        assert cut.http("/readyz")[0] == 503
        revoke(one, subject="corp/alice")
        assert reasons(cut, request) == {"STATE_UNAVAILABLE"}
        assert reasons(one, request) == {"REVOKED"}
        relay.release()
        # Nothing is permitted between the two answers: whoever follows again knows all revocations.
        eventually(lambda: reasons(cut, request) != {"STATE_UNAVAILABLE"}, what="it follows again")
        assert reasons(cut, request) <= {"REVOKED", "STATE_UNAVAILABLE"}
        eventually(lambda: reasons(cut, request) == {"REVOKED"})


def test_a_node_without_notices_asks(
    authority: Authority, people: People, database: Postgres, tmp_path: Path
) -> None:
    """A node that no notice reaches hears of revocations by asking, and warns."""
    request = search(people.bot, people.alice)
    with Relay(database.port, keeps_notices=True) as relay, ExitStack() as stack:
        one = stack.enter_context(
            Server(layout(tmp_path / "one", authority, "desk", state(database.port)))
        )
        deaf = stack.enter_context(
            Server(layout(tmp_path / "deaf", authority, "desk", state(relay.port)))
        )
        assert reasons(deaf, request) == {"PERMITTED"}
        revoke(one, subject="corp/alice")
        soon(deaf, request, "REVOKED")
        eventually(
            lambda: "no notice" in str(deaf.readiness()["engine"]["warnings"]), what="the warning"
        )
        assert "no notice" not in str(one.readiness()["engine"]["warnings"])
