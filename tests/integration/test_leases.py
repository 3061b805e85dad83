"""Leases of a real PostgreSQL by real servers: a role lives exactly as long as its task."""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz_client.v1 import tasks_pb2
from tests.support.leaks import files_under, leaks
from tests.support.leasing import (
    BROKER,
    PASSWORD,
    code_of,
    credentials,
    lease,
    opens,
    prepare,
    roles,
    write_dsn,
)
from tests.support.minting import Authority
from tests.support.postgres import Postgres, programs
from tests.support.server import Server, layout
from tests.support.waiting import eventually
from tests.support.working import BUNDLE, PLANNER, WORKERS, Crew

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        programs() is None, reason="PostgreSQL is not installed (Debian: postgresql)"
    ),
]


@dataclass
class Site:
    """A server, the database whose roles it leases, and who asks."""

    server: Server
    database: Postgres
    crew: Crew
    folder: Path

    def lease(self, task: str, holder: str = PLANNER, **more: Any) -> Mapping[str, str]:
        """Leases a role."""
        return dict(lease(self.server, self.crew, task, holder, **more).lease.parts)

    def roles(self) -> dict[str, str]:
        """The leased roles that there are."""
        return roles(self.database)

    def due(self) -> float:
        """Leases that wait for their secret to be taken back."""
        return self.server.metric("authz_leases_due", broker=BROKER)


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    """One server for all: whoever stops it starts it again."""
    with Postgres() as running:
        prepare(running)
        yield running


@pytest.fixture
def site(authority: Authority, database: Postgres, tmp_path: Path) -> Iterator[Site]:
    """A server of its own for each test."""
    dsn = write_dsn(tmp_path, database)
    place = layout(
        tmp_path / "node", authority, BUNDLE, {"credentials": credentials(tmp_path, dsn)}
    )
    with Server(place) as server:
        yield Site(server, database, Crew.of(authority), tmp_path)
    for role in roles(database):
        database.execute(f"DROP OWNED BY {role}", database="ledger")
        database.execute(f"DROP ROLE {role}")


def test_a_lease_opens_what_was_permitted_until_its_task_ends(site: Site) -> None:
    """Before the end is answered, the role is gone."""
    task = site.crew.start(site.server)
    parts = site.lease(task)
    assert opens(parts)
    assert set(site.roles()) == {parts["username"]}
    assert site.crew.end(site.server, task) == 1
    assert site.roles() == {}
    assert not opens(parts)
    assert site.server.metric("authz_leases_made_total", broker=BROKER, result="success") == 1
    assert site.server.metric("authz_lease_ends_total", broker=BROKER, result="success") == 1


def test_the_end_of_a_tree_ends_all_its_leases_and_no_others(site: Site) -> None:
    """A child's lease goes with its parent; its neighbour's stays."""
    crew, server = site.crew, site.server
    root, other = crew.start(server), crew.start(server)
    child = crew.delegate(server, root, PLANNER, WORKERS[0])
    below, above, beside = site.lease(child, WORKERS[0]), site.lease(root), site.lease(other)
    assert crew.end(server, child, WORKERS[0]) == 1
    assert not opens(below)
    assert opens(above)
    again = site.lease(crew.delegate(server, root, PLANNER, WORKERS[1]), WORKERS[1])
    crew.end(server, root)
    assert not opens(above)
    assert not opens(again)
    assert opens(beside)
    # What the end of a task does not wait for, the worker does.
    eventually(lambda: set(site.roles()) == {beside["username"]}, what="only one role is left")


@pytest.mark.parametrize("target", ["agent", "session", "task", "operation", "system", "issuer"])
def test_whatever_is_revoked_takes_its_leases_with_it(site: Site, target: str) -> None:
    """Before the revocation is answered."""
    task = site.crew.start(site.server)
    parts = site.lease(task)
    (name,) = site.roles().values()
    values = {
        "agent": PLANNER,
        "session": name.partition("/")[0],
        "task": task,
        "operation": "ledger.read",
        "system": "ledger",
        "issuer": "corp",
    }
    site.crew.revoke(site.server, **{target: values[target]})
    assert site.roles() == {}
    assert not opens(parts)


def test_a_lease_ends_when_its_time_is_over(site: Site) -> None:
    """Its task lives on. The server holds the role to it as well."""
    task = site.crew.start(site.server)
    parts = site.lease(task)
    until = site.database.execute(
        f"SELECT rolvaliduntil > now() + '4 minutes' FROM pg_roles WHERE rolname = '{parts['username']}'"
    )
    assert until == "t"
    assert site.crew.status(site.server, task) == "ACTIVE"


def test_a_database_where_every_role_may_create_is_a_problem_of_the_node(site: Site) -> None:
    """It has no leases, and readiness and log say what to run."""
    site.database.execute("GRANT TEMPORARY ON DATABASE ledger TO PUBLIC")
    remedy = "REVOKE TEMPORARY ON DATABASE ledger FROM PUBLIC"
    try:
        with pytest.raises(grpc.RpcError) as refused:
            site.lease(site.crew.start(site.server))
        assert code_of(refused.value) == "UNAVAILABLE"
        assert remedy not in str(refused.value)
        assert site.roles() == {}
        site.server.close()
        site.server.start()
        eventually(lambda: remedy in str(site.server.readiness()["problems"]), what="it is told")
        assert site.server.log.read_text().count(remedy) >= 2
    finally:
        site.database.execute(remedy)
    assert opens(site.lease(site.crew.start(site.server)))


def test_an_operation_without_grants_has_no_lease(site: Site) -> None:
    """A permit is no grant in another system; what it counted is given back, and no role is made."""
    task = site.crew.start(site.server)
    with pytest.raises(grpc.RpcError) as refused:
        site.lease(task, operation="ledger.audit")
    assert code_of(refused.value) == "PERMISSION_DENIED"
    assert site.roles() == {}


def test_while_the_broker_is_down_nothing_is_issued_and_nothing_is_left_behind(site: Site) -> None:
    """UNAVAILABLE; once it is back, leases are had again, and no use was counted meanwhile."""
    task = site.crew.start(site.server)
    write_dsn(site.folder, site.database, port=1)
    for _ in range(45):
        with pytest.raises(grpc.RpcError) as refused:
            site.lease(task)
        assert code_of(refused.value) == "UNAVAILABLE"
    assert site.roles() == {}
    assert site.due() == 0
    write_dsn(site.folder, site.database)
    # The operation may be used forty times.
    assert opens(site.lease(task))


def test_a_lease_that_cannot_be_taken_back_is_tried_until_it_can(site: Site) -> None:
    """The end of the task is answered all the same; metrics, readiness and log tell of it."""
    task = site.crew.start(site.server)
    parts = site.lease(task)
    write_dsn(site.folder, site.database, password="wrong-p4ss-w0rd")
    assert site.crew.end(site.server, task) == 1
    eventually(lambda: site.due() == 1, what="it is due")
    failures = ("authz_lease_ends_total", {"broker": BROKER, "result": "failure"})
    eventually(lambda: site.server.metric(failures[0], **failures[1]) >= 2, what="it is retried")
    (broker,) = site.server.readiness()["leases"]
    assert "password authentication failed" in broker["error"]
    assert set(site.roles()) == {parts["username"]}
    write_dsn(site.folder, site.database)
    eventually(lambda: not site.roles(), what="the role is gone")
    eventually(lambda: site.due() == 0, what="nothing is due")
    log = site.server.log.read_text()
    assert log.count("a leased secret cannot be removed") == 1
    assert "leased secrets can be removed again" in log
    assert "wrong-p4ss-w0rd" not in log


def test_a_database_that_hangs_does_not_hold_up_the_end_of_a_task(site: Site) -> None:
    """Beyond the deadline of whoever ends it."""
    task = site.crew.start(site.server)
    parts = site.lease(task)
    with site.database.held_up():
        started = time.monotonic()
        request = tasks_pb2.EndRequest(task=task, status=tasks_pb2.TASK_STATUS_REVOKED)
        method = "authz.v1.Tasks/End"
        site.server.call("admin", method, request.SerializeToString(), timeout=4)
        assert time.monotonic() - started < 4
    eventually(lambda: not site.roles(), what="the role is gone")
    assert not opens(parts)


def test_after_kill_9_no_role_of_a_dead_task_lives(site: Site) -> None:
    """Whatever the moment: a role that nobody knows of, one that is due, one that nobody answered for."""
    crew, server = site.crew, site.server
    dead, alive = crew.start(server), crew.start(server)
    gone, kept = site.lease(dead), site.lease(alive)
    write_dsn(site.folder, site.database, port=1)
    crew.end(server, dead)
    assert set(site.roles()) == {gone["username"], kept["username"]}
    os.kill(server.pid, signal.SIGKILL)
    assert server.process is not None
    server.process.wait(30)
    server.disconnect()
    write_dsn(site.folder, site.database)
    server.start()
    eventually(lambda: set(site.roles()) == {kept["username"]}, what="one role is left")
    assert not opens(gone)
    assert opens(kept)
    crew.end(server, alive)
    assert site.roles() == {}


def test_a_store_that_was_lost_leaves_no_role(site: Site) -> None:
    """Nobody knows its leases any more: at the start they are looked for."""
    task = site.crew.start(site.server)
    parts = site.lease(task)
    site.server.process.kill()  # type: ignore[union-attr]
    site.server.process.wait(30)  # type: ignore[union-attr]
    site.server.disconnect()
    for file in sorted((site.server.place.folder / "state").rglob("*")):
        if file.is_file():
            file.unlink()
    site.server.start()
    eventually(lambda: not site.roles(), what="no role is left")
    assert not opens(parts)
    orphans = ("authz_lease_orphans_total", {"broker": BROKER})
    eventually(lambda: site.server.metric(orphans[0], **orphans[1]) == 1)


def test_another_node_takes_back_what_a_dead_one_left(
    authority: Authority, database: Postgres, tmp_path: Path
) -> None:
    """Within the staleness of revocations: both share a store, one is killed as its task ends."""
    crew = Crew.of(authority)
    changes = {
        "credentials": credentials(tmp_path, write_dsn(tmp_path, database)),
        "state": {"engine": "postgresql", "dsn": database.dsn},
    }
    with ExitStack() as stack:
        one, other = (
            stack.enter_context(
                Server(
                    layout(
                        tmp_path / name,
                        authority,
                        BUNDLE,
                        {
                            **changes,
                            "credentials": {
                                **changes["credentials"],
                                "keys": {
                                    "folder": str(tmp_path / name / "keys"),
                                    # The second node is not ready before its key signs.
                                    "jwks_max_age": "1s",
                                },
                            },
                        },
                    )
                )
            )
            for name in ("one", "other")
        )
        site = Site(one, database, crew, tmp_path)
        task, second = crew.start(one), crew.start(one)
        parts, kept = site.lease(task), site.lease(second)
        assert opens(parts)
        # The other node is asked to end it.
        began = time.monotonic()
        crew.end(other, task)
        eventually(lambda: parts["username"] not in site.roles(), what="it is gone")
        # A lease lives for minutes: it was not its time that ended it.
        assert time.monotonic() - began < 30
        os.kill(one.pid, signal.SIGKILL)
        crew.end(other, second)
        eventually(lambda: not site.roles(), what="none is left")
        assert not opens(kept)


def test_leased_passwords_are_nowhere(site: Site) -> None:
    """Not in a log, the audit, the store, metrics or status; nor is the broker's own."""
    task = site.crew.start(site.server)
    parts = site.lease(task)
    assert opens(parts)
    site.crew.end(site.server, task)
    places = [(page, site.server.http(page)[1].encode()) for page in ("/metrics", "/readyz")]
    site.server.close()
    places += files_under(site.server.place.folder)
    assert any(parts["username"].encode() in data for _, data in places)
    assert leaks(parts["password"], places) == []
    assert leaks(PASSWORD, places) == []
