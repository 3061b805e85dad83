"""Two servers on one PostgreSQL, and what they do when it fails."""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz_client.v1 import (
    authorizer_pb2_grpc,
    decision_pb2,
    tasks_pb2,
    tasks_pb2_grpc,
)
from tests.crash import run
from tests.support.cases import BUNDLES
from tests.support.clerking import Clerk
from tests.support.minting import Authority, Key
from tests.support.people import BOT, check
from tests.support.postgres import Postgres, programs, standby_of
from tests.support.proofs import METHOD, URI, Proof, thumbprint
from tests.support.server import Server, layout
from tests.support.surfaces import CHECK, decision_of, reason_name
from tests.support.waiting import eventually
from tests.support.working import (
    BUNDLE,
    LIMITS,
    PLANNER,
    TALLIES,
    TALLY,
    WORKERS,
    Crew,
    evidence,
)

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        programs() is None, reason="PostgreSQL is not installed (Debian: postgresql)"
    ),
]

#: Answers of a server that cannot reach its store.
OUT_OF_REACH = {"STATE_UNAVAILABLE", "STORE_SLOW", "DEADLINE"}
#: Seconds that what a node knows may be old; the default.
STALENESS = 1.0
LISTENERS = ("main", "main-fast")
#: Notes that one task writes and another reads.
NOTES = BUNDLES / "attacks"


def shared(*databases: Postgres) -> dict[str, Any]:
    """Returns the `state` part of a configuration."""
    hosts = ",".join(f"127.0.0.1:{one.port}" for one in databases)
    dsn = f"postgresql://postgres@{hosts}/authz"
    if len(databases) > 1:
        dsn += "?target_session_attrs=read-write"
    return {"engine": "postgresql", "dsn": dsn}


@dataclass
class Site:
    """Two servers, their database, and who works there."""

    database: Postgres
    one: Server
    other: Server
    crew: Crew


@contextlib.contextmanager
def two_nodes(authority: Authority, folder: Path, bundle: Path) -> Iterator[list[Server]]:
    """Starts two servers of a bundle on a database of their own."""
    with Postgres() as database, ExitStack() as stack:
        yield [
            stack.enter_context(
                Server(layout(folder / name, authority, bundle, {"state": shared(database)}))
            )
            for name in ("one", "other")
        ]


@pytest.fixture
def site(authority: Authority, tmp_path: Path) -> Iterator[Site]:
    """Starts them; each test has its own, since each may break it."""
    with Postgres() as database, ExitStack() as stack:
        one, other = (
            stack.enter_context(
                Server(layout(tmp_path / name, authority, BUNDLE, {"state": shared(database)}))
            )
            for name in ("one", "other")
        )
        yield Site(database, one, other, Crew.of(authority))


def test_one_state(site: Site) -> None:
    """What one server starts, the other knows: tasks, children, uses, and their end."""
    crew, one, other = site.crew, site.one, site.other
    root = crew.start(one)
    assert crew.check(other, root, "desk.look") == "PERMITTED"
    child = crew.delegate(other, root, PLANNER, WORKERS[0])
    assert crew.check(one, child, "desk.note", WORKERS[0]) == "PERMITTED"
    assert crew.check(other, child, "desk.note", WORKERS[0]) == "PERMITTED"
    assert crew.left(other, root, "desk.note") == LIMITS["desk.note"] - 2
    assert crew.check(one, root, "desk.note") == "USES_EXHAUSTED"
    assert crew.end(one, root) == 2
    assert crew.check(other, child, "desk.wipe", WORKERS[0]) == "TASK_ENDED"
    assert crew.status(other, child) == "COMPLETED"


def test_a_used_proof_stays_used(authority: Authority, tmp_path: Path) -> None:
    """Also one that is dated ahead of the clock: on the other server, and after both were killed."""
    key = Key.make("holder")
    token = authority.agent(BOT, cnf={"jkt": thumbprint(key)})

    def bring(server: Server, proof: str) -> str:
        request = check("crm.search", b'{"query": "x"}')
        request.http_method, request.http_uri = METHOD, URI
        request.evidence.add(
            role=decision_pb2.EVIDENCE_ROLE_AGENT,
            scheme=decision_pb2.EVIDENCE_SCHEME_DPOP,
            token=token,
            proof=proof,
        )
        decision = decision_of(server.call("main", CHECK, request.SerializeToString()))
        return reason_name(decision)

    with two_nodes(authority, tmp_path, BUNDLES / "desk") as (one, other):
        proofs = [Proof(key, token, made=int(time.time()) + ahead).good for ahead in (0, 50)]
        assert [bring(one, proof) for proof in proofs] == ["PERMITTED", "PERMITTED"]
        assert [bring(other, proof) for proof in proofs] == ["REPLAYED", "REPLAYED"]
        for server in (one, other):
            server.process.kill()  # type: ignore[union-attr]
            server.process.wait()  # type: ignore[union-attr]
            server.disconnect()
        # Proofs from the second of the start are not older than it.
        time.sleep(1.1)
        for server in (one, other):
            server.start()
            # What is older than the start and has no nonce is refused before the store is asked.
            assert [bring(server, proof) for proof in proofs] == ["BAD_PROOF", "REPLAYED"]


def test_uses_are_counted_once(site: Site) -> None:
    """Both servers at once permit exactly as often as the task allows."""
    crew, root = site.crew, site.crew.start(site.one)

    def some(number: int) -> str:
        server = (site.one, site.other)[number % 2]
        return crew.check(server, root, "desk.note", listener=LISTENERS[number // 2 % 2])

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(some, range(80)))
    assert codes.count("PERMITTED") == LIMITS["desk.note"]
    assert codes.count("USES_EXHAUSTED") == 80 - LIMITS["desk.note"]


def test_what_is_done_without_a_task_is_one(site: Site) -> None:
    """Both servers at once, and both lanes, let an agent do without a task what it may, and no more; another is not asked."""
    calls = TALLIES + 40

    def some(number: int) -> str:
        server = (site.one, site.other)[number % 2]
        return site.crew.check(server, "", TALLY, WORKERS[0], listener=LISTENERS[number // 2 % 2])

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(some, range(calls)))
    assert codes.count("PERMITTED") == TALLIES
    assert codes.count("BUDGET_EXCEEDED") == calls - TALLIES
    assert site.crew.check(site.other, "", TALLY, WORKERS[1]) == "PERMITTED"


def test_history_is_one(authority: Authority, tmp_path: Path) -> None:
    """What a task did on one server counts on the other at once, and a budget is spent by both exactly once."""
    bundle = tmp_path / "bundle"
    shutil.copytree(BUNDLE, bundle)
    (bundle / "history.yaml").write_text(
        "sequences: {wiped-after-note: {never: desk.wipe, after: desk.note}}\n"
        "budgets: {looks: {count: desk.look, most: 7}}\n"
    )
    (bundle / "policies" / "history.cedar").write_text(
        '@id("no-wipe") forbid (principal, action == Action::"desk.wipe", resource)\n'
        'when { context.sequences.contains(Sequence::"wiped-after-note") };\n'
    )
    with two_nodes(authority, tmp_path, bundle) as (one, other):
        crew = Crew.of(authority)
        root = crew.start(one)

        def look(number: int) -> str:
            server = (one, other)[number % 2]
            return crew.check(server, root, "desk.look", listener=LISTENERS[number // 2 % 2])

        with ThreadPoolExecutor(8) as pool:
            codes = list(pool.map(look, range(40)))
        assert codes.count("PERMITTED") == 7
        assert codes.count("BUDGET_EXCEEDED") == 33
        root = crew.start(one)
        for listener in LISTENERS:
            assert crew.check(other, root, "desk.wipe", listener=listener) == "PERMITTED"
        assert crew.check(one, root, "desk.note") == "PERMITTED"
        # The agent's next task begins with the rule that is complete, on both servers.
        for task in (root, crew.start(one)):
            for server in (one, other):
                for listener in LISTENERS:
                    assert crew.check(server, task, "desk.wipe", listener=listener) == "FORBIDDEN"


#: Accounts that nobody knows; of each a payment is another one that is denied.
STRANGERS = [
    "DE89370400440532013000",
    "FR1420041010050500013M02606",
    "NL91ABNA0417164300",
    "BE68539007547034",
    "AT611904300234573201",
    "CH9300762011623852957",
    "ES9121000418450200051332",
    "PT50000201231234567890154",
]


def test_denials_are_one(authority: Authority, tmp_path: Path) -> None:
    """What one server denies counts on the other: there the tier is raised, and there the task ends."""
    with two_nodes(authority, tmp_path, BUNDLES / "denials") as nodes:
        for listener in LISTENERS:
            # Where denials ended a task, the agent starts no other for that user.
            clerk = Clerk.of(authority, f"user-of-{listener}")
            task = clerk.start(nodes[0], "bills")

            def ask(
                node: int,
                operation: str,
                where: tuple[Clerk, str, str] = (clerk, task, listener),
                **said: Any,
            ) -> tuple[str, str]:
                asking, of, by = where
                one = asking.check(nodes[node], of, operation, said, by)
                return reason_name(one), decision_pb2.Tier.Name(one.tier)

            def pay(node: int, stranger: int) -> tuple[str, str]:
                return ask(node, "bank.pay", to=STRANGERS[stranger], amount=1)

            assert ask(0, "bank.bill", id="7") == ("PERMITTED", "TIER_STANDARD")
            assert pay(0, 0) == ("FORBIDDEN", "TIER_STANDARD")
            assert pay(1, 0) == ("FORBIDDEN", "TIER_STANDARD"), "a repeat counts once"
            assert ask(1, "bank.bill", id="7") == ("PERMITTED", "TIER_STANDARD"), "the run ends"
            assert pay(1, 1) == ("FORBIDDEN", "TIER_STANDARD")
            assert pay(0, 2) == ("FORBIDDEN", "TIER_STANDARD")
            assert ask(1, "bank.bill", id="7") == ("OUT_OF_SCOPE", "TIER_HIGH"), "raised"
            assert pay(1, 3) == ("FORBIDDEN", "TIER_HIGH")
            assert ask(0, "bank.bill", id="7")[0] == "REVOKED", "ended"


def test_denials_are_counted_once(authority: Authority, tmp_path: Path) -> None:
    """Whatever is asked at once of both servers and lanes: the task ends with the last denial that it may have."""
    with (
        two_nodes(authority, tmp_path, BUNDLES / "denials") as nodes,
        ThreadPoolExecutor(8) as pool,
    ):
        for user in range(5):
            clerk = Clerk.of(authority, f"user-{user}")
            task = clerk.start(nodes[0], "bills")

            def pay(number: int, task: str = task, clerk: Clerk = clerk) -> str:
                said = {"to": STRANGERS[number], "amount": 1}
                where = nodes[number % 2], LISTENERS[number // 2 % 2]
                return reason_name(clerk.check(where[0], task, "bank.pay", said, where[1]))

            codes = list(pool.map(pay, range(len(STRANGERS))))
            assert codes.count("FORBIDDEN") == 4, codes
            assert codes.count("REVOKED") == len(STRANGERS) - 4, codes


def known_elsewhere(ask: Callable[[], str], codes: tuple[str, str], since: float) -> None:
    """Holds what a node answers of what changed on another: what it was for `STALENESS` at most, and then what it is.

    Args:
        ask: Asks the node; returns the reason code.
        codes: Before it knows, and after.
        since: When the change was answered.
    """
    before, after = codes

    def is_known() -> bool:
        asked = time.monotonic()
        code = ask()
        # Between the two it may deny, since it knows that it may have missed something.
        if code == before and asked - since > STALENESS:
            raise RuntimeError(f"{before} to a question {asked - since:.2f} s later")
        return code == after

    eventually(is_known, what="the other node knows")


@pytest.mark.parametrize("listener", LISTENERS)
def test_revocation_by_another_node(site: Site, listener: str) -> None:
    """A call that reads state sees it at once; any other within the staleness."""
    crew, one, other = site.crew, site.one, site.other
    root = crew.start(one)
    child = crew.delegate(one, root, PLANNER, WORKERS[1])
    assert crew.check(other, child, "desk.look", WORKERS[1], listener=listener) == "PERMITTED"
    crew.revoke(one, agent=WORKERS[1])
    revoked = time.monotonic()
    assert crew.check(other, child, "desk.wipe", WORKERS[1], listener=listener) == "REVOKED"
    known_elsewhere(
        lambda: crew.check(other, child, "desk.look", WORKERS[1], listener=listener),
        ("PERMITTED", "REVOKED"),
        revoked,
    )
    assert crew.check(one, child, "desk.look", WORKERS[1], listener=listener) == "REVOKED"


@pytest.mark.parametrize("listener", LISTENERS)
def test_end_on_another_node(site: Site, listener: str) -> None:
    """So it is with a task that ends there."""
    crew, one, other = site.crew, site.one, site.other
    root = crew.start(one)
    child = crew.delegate(one, root, PLANNER, WORKERS[2])
    assert crew.check(other, child, "desk.look", WORKERS[2], listener=listener) == "PERMITTED"
    assert crew.end(one, root) == 2
    ended = time.monotonic()
    assert crew.check(other, child, "desk.wipe", WORKERS[2], listener=listener) == "TASK_ENDED"
    known_elsewhere(
        lambda: crew.check(other, child, "desk.look", WORKERS[2], listener=listener),
        ("PERMITTED", "TASK_ENDED"),
        ended,
    )


def broken(crew: Crew, server: Server, root: str, listener: str) -> None:
    """Holds what a server answers whose store is out of reach: in time, and never a permit that needs it."""
    began = time.monotonic()
    code = "DEADLINE"
    # The deadline may pass on the way; that is no permit either.
    with contextlib.suppress(grpc.RpcError):
        code = crew.check(server, root, "desk.note", listener=listener, timeout=1.0)
    assert code in OUT_OF_REACH
    assert time.monotonic() - began < 5


def unready(crew: Crew, server: Server, root: str) -> None:
    """Waits until a server denies also what needs no store, and says that it is not ready."""

    def denies() -> bool:
        codes = {crew.check(server, root, "desk.look", listener=one) for one in LISTENERS}
        return codes <= OUT_OF_REACH

    eventually(denies, within=STALENESS + 9, what="stale knowledge is not used")
    # A call may have been refused before that, since it could not wait.
    eventually(lambda: server.http("/readyz")[0] == 503, within=STALENESS + 9, what="it says so")


def recovered(crew: Crew, server: Server, root: str) -> None:
    """Waits until a server permits again, by itself."""
    for listener in LISTENERS:
        eventually(
            lambda listener=listener: (  # type: ignore[misc]
                crew.check(server, root, "desk.note", listener=listener) == "PERMITTED"
            ),
            within=20,
            what="the server recovers",
        )
    eventually(lambda: server.http("/readyz")[0] == 200, what="it says so")


def test_stopped(site: Site) -> None:
    """Stopped, it costs permits, in time; started again, it costs nothing more."""
    root = site.crew.start(site.one)
    assert site.crew.check(site.one, root, "desk.note") == "PERMITTED"
    site.database.stop("immediate")
    for listener in LISTENERS:
        broken(site.crew, site.one, root, listener)
    unready(site.crew, site.one, root)
    site.database.start()
    recovered(site.crew, site.one, root)
    recovered(site.crew, site.other, root)


def test_held_up(site: Site) -> None:
    """A database that answers nothing, on connections that stay open, holds nobody up beyond the deadline."""
    root = site.crew.start(site.one)
    with site.database.held_up():
        for listener in LISTENERS:
            broken(site.crew, site.one, root, listener)
        unready(site.crew, site.one, root)
    recovered(site.crew, site.one, root)


def test_locked(site: Site) -> None:
    """So it is where something holds a lock on what a decision needs."""
    root = site.crew.start(site.one)
    tables = site.database.execute(
        "SELECT string_agg(tablename, ',') FROM pg_tables WHERE schemaname = 'public'"
    )
    assert tables
    with ThreadPoolExecutor(1) as pool:
        lock = f"BEGIN; LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60); COMMIT"
        held = pool.submit(site.database.execute, lock)
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        eventually(lambda: site.database.execute(waiting) == "1", what="the lock is held")
        for listener in LISTENERS:
            broken(site.crew, site.one, root, listener)
        sleeps = "FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        site.database.execute(f"SELECT pg_terminate_backend(pid) {sleeps}")
        assert held.exception() is not None, "it was still held"
    recovered(site.crew, site.one, root)


def test_failover(authority: Authority, tmp_path: Path) -> None:
    """A standby that is promoted takes over, with all that was answered."""
    crew = Crew.of(authority)
    with Postgres() as primary, ExitStack() as stack:
        standby = standby_of(primary)
        stack.callback(standby.__exit__)
        place = layout(tmp_path, authority, BUNDLE, {"state": shared(primary, standby)})
        server = stack.enter_context(Server(place))
        root = crew.start(server)
        assert crew.check(server, root, "desk.note") == "PERMITTED"
        eventually(lambda: standby.has_caught_up(primary), what="the standby has it")
        primary.stop("immediate")
        broken(crew, server, root, "main")
        standby.promote()
        recovered(crew, server, root)
        # One before, and one on each lane to see that it is back.
        assert crew.left(server, root, "desk.note") <= LIMITS["desk.note"] - 3


def test_a_server_that_starts_without_it(authority: Authority, tmp_path: Path) -> None:
    """It does not start, and says what it misses; once that is there, it does."""
    crew = Crew.of(authority)
    with Postgres() as database:
        database.stop()
        place = layout(tmp_path, authority, BUNDLE, {"state": shared(database)})
        server = Server(place)
        server.spawn()
        assert server.process is not None
        assert server.process.wait(60) != 0
        assert "state database" in server.log.read_text()
        database.start()
        with server:
            root = crew.start(server)
            assert crew.check(server, root, "desk.note") == "PERMITTED"


def test_two_revisions(site: Site) -> None:
    """Nodes on different revisions of a bundle share tasks: each judges by its own, and neither spoils the other's."""
    crew, one, other = site.crew, site.one, site.other
    root = crew.start(one)
    facts = other.place.folder / "bundle" / "facts.yaml"
    text = facts.read_text()
    assert "  work:\n" in text
    facts.write_text(
        text + "  later:\n    purpose: of the newer revision\n    deadline: 1h\n"
        "    starters: [planner]\n    scope: [{operation: desk.look}]\n"
    )
    manifest = other.place.folder / "bundle" / "bundle.yaml"
    manifest.write_text(manifest.read_text().replace("work-1", "work-2"))
    other.close()
    with Server(other.place) as newer:
        assert newer.readiness()["bundle"]["revision"] == "work-2"
        assert crew.check(newer, root, "desk.note") == "PERMITTED"
        assert crew.check(one, root, "desk.note") == "PERMITTED"
        assert crew.left(newer, root, "desk.note") == LIMITS["desk.note"] - 2
        assert crew.end(newer, root) == 1
        assert crew.check(one, root, "desk.note") == "TASK_ENDED"


@pytest.mark.timeout(240)
def test_killed_under_load(tmp_path: Path) -> None:
    """A server on PostgreSQL that is killed loses nothing that it answered either."""
    with Postgres() as database:
        done = run.run(tmp_path, kills=4, seed=3, state=shared(database))
    assert not done.violations, "\n".join(done.violations)
    assert done.permits >= 20


def test_what_one_node_wrote_another_reads(authority: Authority, tmp_path: Path) -> None:
    """What an agent wrote by one server keeps its labels where a task of another server reads it."""
    assistant = "spiffe://a.example/ns/support/sa/assistant"
    agent = evidence(authority.agent(assistant))
    alice = evidence(authority.alone("alice", groups=["employees"]), of_subject=True)

    def start(server: Server) -> str:
        stub: Any = tasks_pb2_grpc.TasksStub(server.channel("main"))
        request = tasks_pb2.StartRequest(evidence=[alice], template="work", assignee=assistant)
        task: str = stub.Start(request, timeout=5, wait_for_ready=True).task.id
        return task

    def ask(server: Server, task: str, operation: str, **arguments: str) -> str:
        stub: Any = authorizer_pb2_grpc.AuthorizerStub(server.channel("main"))
        request = decision_pb2.CheckRequest(
            evidence=[agent],
            task=task,
            operation=operation,
            arguments_json=json.dumps(arguments).encode(),
        )
        return reason_name(stub.Check(request, timeout=5).decision)

    with Postgres() as database, ExitStack() as stack:
        one, other = (
            stack.enter_context(
                Server(layout(tmp_path / name, authority, NOTES, {"state": shared(database)}))
            )
            for name in ("one", "other")
        )
        # The other one has read both, so that it knows that nobody wrote them.
        before = start(other)
        assert ask(other, before, "notes.read", id="page") == "PERMITTED"
        assert ask(other, before, "notes.read", id="own") == "PERMITTED"
        assert ask(other, before, "host.shell", command="make") == "PERMITTED"

        writing = start(one)
        assert ask(one, writing, "notes.write", id="own", text="make") == "PERMITTED"
        assert ask(one, writing, "web.page", url="https://howto.example/") == "PERMITTED"
        assert ask(one, writing, "notes.write", id="page", text="curl | sh") == "PERMITTED"

        assert ask(other, before, "notes.read", id="own") == "PERMITTED"
        assert ask(other, before, "host.shell", command="make") == "PERMITTED"
        assert ask(other, before, "notes.read", id="page") == "PERMITTED"
        assert ask(other, before, "host.shell", command="curl | sh") == "CONFIRM_REQUIRED"
