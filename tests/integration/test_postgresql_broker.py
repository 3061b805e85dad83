"""The broker of login roles, on a real PostgreSQL that asks for passwords, as a role that is no superuser."""

import asyncio
import json
import threading
import time

import asyncpg
import pytest

from authz.leases import BrokerError, NothingMadeError, NotRemovedError
from tests.support.brokering import (
    LEASE,
    OTHER,
    OWNER,
    PASSWORD,
    Site,
    fetch,
    order,
    run,
)
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(120)


# --- what a lease may do


def test_a_lease_reads_what_its_operation_is_granted_and_nothing_else(site: Site) -> None:
    """Its neighbour in the same schema is out of reach, and so is writing."""
    parts = site.broker().make(order(), 10)
    assert fetch(parts, "SELECT customer FROM sales.orders") == "alice"
    for refused in (
        "SELECT * FROM sales.salaries",
        "INSERT INTO sales.orders VALUES (2)",
        "SELECT nextval('sales.ids')",
        "CREATE TABLE scratch.mine (id int)",
        "CREATE ROLE another",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            fetch(parts, refused)


def test_the_role_is_no_more_than_a_login(site: Site) -> None:
    """Each attribute that PostgreSQL has, and how long it is valid."""
    wanted = order()
    role = site.broker().make(wanted, 10)["username"]
    flags = site.execute(
        "SELECT rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolinherit, rolreplication, rolbypassrls, rolconnlimit,"
        f" extract(epoch FROM rolvaliduntil) FROM pg_roles WHERE rolname = '{role}'"
    ).split("|")
    assert flags[:-1] == ["t", "f", "f", "f", "f", "f", "f", "4"]
    assert float(flags[-1]) == pytest.approx(wanted.expires_at, abs=0.001)


def test_a_lease_is_no_use_after_its_time_even_if_nobody_takes_it_back(site: Site) -> None:
    """The server itself holds it to that."""
    parts = site.broker().make(order(seconds=-1), 10)
    with pytest.raises(asyncpg.InvalidPasswordError):
        fetch(parts, "SELECT 1")


def test_no_other_password_opens_a_role(site: Site) -> None:
    """The server asks for it, so that the other tests mean something."""
    parts = dict(site.broker().make(order(), 10))
    with pytest.raises(asyncpg.InvalidPasswordError):
        fetch({**parts, "password": parts["password"][:-1]}, "SELECT 1")


def test_grants_may_be_of_columns_sequences_schemas_and_whole_schemas(site: Site) -> None:
    """Each kind of entry, and what lies just beside it."""
    broker = site.broker()
    names = broker.make(order("dwh.names"), 10)
    assert fetch(names, 'SELECT "total %I" FROM sales.orders') == 10
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        fetch(names, "SELECT customer FROM sales.orders")
    broker.end(LEASE, 10)
    write = broker.make(order("dwh.write"), 10)
    run(write, "INSERT INTO sales.orders VALUES (nextval('sales.ids'), 'bob', 1)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        run(write, "DELETE FROM sales.orders")
    broker.end(LEASE, 10)
    every = broker.make(order("dwh.all"), 10)
    assert fetch(every, "SELECT count(*) FROM sales.salaries") == 0
    broker.end(LEASE, 10)
    far = broker.make(order("dwh.far"), 10)
    run(far, "CREATE TABLE scratch.mine (id int)", "archive")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        run(far, "CREATE TABLE scratch.mine (id int)", "warehouse")


def test_names_are_quoted_by_the_server(site: Site) -> None:
    """A schema, a table and a lease that look like statements are names."""
    broker = site.broker(owner="https://x'; DROP ROLE keeper; --")
    hostile = "'; DROP TABLE sales.orders; --/\"%I%L"
    parts = broker.make(order("dwh.odd", hostile), 10)
    assert fetch(parts, 'SELECT count(*) FROM "Odd; DROP"."it\'s %s"') == 0
    broker.end(hostile, 10)
    assert site.roles() == set()
    assert site.execute("SELECT count(*) FROM sales.orders") != ""
    assert site.execute("SELECT count(*) FROM pg_roles WHERE rolname = 'keeper'") == "1"


def test_the_password_is_in_no_statement_that_the_server_sees(site: Site) -> None:
    """With every statement logged, as many do with DDL, its log holds only a verifier."""
    site.execute("ALTER ROLE broker SET log_statement = 'all'")
    log = site.server.folder / "server.log"
    before = len(log.read_bytes())
    parts = site.broker().make(order(), 10)
    fetch(parts, "SELECT 1")
    said = log.read_bytes()[before:]
    site.execute("ALTER ROLE broker RESET log_statement")
    assert b"CREATE ROLE" in said
    assert parts["username"].encode() in said
    assert parts["password"].encode() not in said


def test_functions_that_others_define_are_not_called(site: Site) -> None:
    """A `format` in `public` that fits better would see what is granted (CVE-2018-1058)."""
    site.execute(
        "CREATE FUNCTION public.format(text, VARIADIC text[]) RETURNS text LANGUAGE sql"
        " AS $$ SELECT 'GRANT keeper TO broker' $$"
    )
    try:
        parts = site.broker().make(order(), 10)
        assert fetch(parts, "SELECT customer FROM sales.orders LIMIT 1") == "alice"
    finally:
        site.execute("DROP FUNCTION public.format(text, text[])")


# --- what makes nothing


@pytest.mark.parametrize("operation", ["dwh.theirs", "dwh.half", "dwh.nowhere"])
def test_what_cannot_be_granted_whole_makes_no_role(site: Site, operation: str) -> None:
    """PostgreSQL only warns where a grantor may grant a part: a lease that is less than configured is none."""
    with pytest.raises(BrokerError):
        site.broker().make(order(operation), 10)
    assert site.roles() == set()


def test_an_operation_without_grants_makes_no_role(site: Site) -> None:
    """And can be told before."""
    broker = site.broker()
    assert broker.serves("dwh.read")
    assert not broker.serves("dwh.drop")
    with pytest.raises(BrokerError, match="grants nothing"):
        broker.make(order("dwh.drop"), 10)
    assert site.roles() == set()


def test_a_lease_is_made_once(site: Site) -> None:
    """The second time its role is there, and its password stays."""
    parts = site.broker().make(order(), 10)
    with pytest.raises(BrokerError, match="already exists"):
        site.broker().make(order(), 10)
    assert fetch(parts, "SELECT 1") == 1


def test_a_server_that_does_not_answer_makes_nothing_and_holds_nobody_up(site: Site) -> None:
    """Within the time that the caller has, whatever the broker may take."""
    with site.server.held_up():
        started = time.monotonic()
        with pytest.raises(NothingMadeError, match="took longer"):
            site.broker(timeout="30s").make(order(), 0.5)
        assert time.monotonic() - started < 15
    site.broker().end(LEASE, 10)
    assert site.roles() == set()


def test_nobody_there_is_told_without_the_password(site: Site) -> None:
    """And so is a wrong password."""
    (site.folder / "dsn").write_text(f"postgresql://broker:{PASSWORD}@127.0.0.1:1/warehouse")
    with pytest.raises(NothingMadeError, match="broker `warehouse`") as refused:
        site.broker().make(order(), 10)
    assert PASSWORD not in str(refused.value)
    site.write_dsn(password="wrong-p4ss")
    with pytest.raises(BrokerError, match="password authentication failed") as ended:
        site.broker().end(LEASE, 10)
    assert "wrong-p4ss" not in str(ended.value)


def test_the_connection_string_is_read_anew_and_only_if_nobody_else_can_read_it(site: Site) -> None:
    """Its password may be changed while the node runs."""
    broker = site.broker()
    site.write_dsn(password="wrong")
    with pytest.raises(BrokerError):
        broker.make(order(), 10)
    site.write_dsn()
    broker.make(order(), 10)
    (site.folder / "dsn").chmod(0o644)
    with pytest.raises(BrokerError, match="others may read or write it"):
        broker.end(LEASE, 10)
    (site.folder / "dsn").chmod(0o600)
    broker.end(LEASE, 10)


# --- taking back


def test_the_end_of_a_lease_ends_its_sessions_and_drops_its_role(site: Site) -> None:
    """A session that works is cut, and nobody signs on again."""
    broker = site.broker()
    parts = broker.make(order(), 10)
    cut: list[BaseException] = []

    def sleep() -> None:
        try:
            fetch(parts, "SELECT pg_sleep(60)")
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            cut.append(error)

    sessions = [threading.Thread(target=sleep) for _ in range(3)]
    for one in sessions:
        one.start()
    count = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{parts['username']}'"
    eventually(lambda: site.execute(count) == "3", what="three sessions")
    broker.end(LEASE, 10)
    for one in sessions:
        one.join(timeout=10)
    assert len(cut) == 3
    assert site.roles() == set()
    with pytest.raises(asyncpg.InvalidPasswordError):
        fetch(parts, "SELECT 1")


def test_a_role_that_signs_on_again_and_again_is_ended_nonetheless(site: Site) -> None:
    """No log-in comes first."""
    broker = site.broker()
    parts = broker.make(order(), 10)
    stop, is_in = threading.Event(), threading.Event()

    def knock() -> None:
        while not stop.is_set():
            try:
                fetch(parts, "SELECT pg_sleep(0.01)")
            except Exception:  # noqa: BLE001 - asyncpg tells a cut connection in many ways
                continue
            is_in.set()

    knocking = [threading.Thread(target=knock) for _ in range(3)]
    for one in knocking:
        one.start()
    try:
        assert is_in.wait(60)
        broker.end(LEASE, 60)
        assert site.roles() == set()
        left = "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'authz%'"
        assert site.execute(left) == "0"
    finally:
        stop.set()
        for one in knocking:
            one.join(timeout=10)


def test_what_a_lease_made_goes_with_it_in_every_database(site: Site) -> None:
    """Tables, and privileges too."""
    broker = site.broker()
    parts = broker.make(order("dwh.far"), 10)
    run(parts, "CREATE TABLE scratch.mine (id int); SELECT lo_create(0)", "archive")
    # Whoever is not stopped signs on there too.
    run(parts, "CREATE TEMP TABLE t (id int)", "bystander")
    broker.end(LEASE, 10)
    assert site.execute("SELECT count(*) FROM pg_class WHERE relname = 'mine'", "archive") == "0"
    assert site.execute("SELECT count(*) FROM pg_largeobject_metadata", "archive") == "0"
    assert site.roles() == set()


def test_a_transaction_that_a_lease_prepared_is_rolled_back(site: Site) -> None:
    """It would hold its locks, and could be committed, long after the task."""
    broker = site.broker()
    parts = broker.make(order("dwh.build"), 10)
    run(parts, "BEGIN; CREATE TABLE scratch.later (id int); PREPARE TRANSACTION 'it''s later'")
    broker.end(LEASE, 10)
    assert site.execute("SELECT count(*) FROM pg_prepared_xacts") == "0"
    assert site.roles() == set()


def test_what_others_built_upon_stays_without_rights_until_nothing_depends_on_it(
    site: Site,
) -> None:
    """Nobody's view is dropped because a task ended; its base has no owner with rights, log-in or privileges."""
    broker = site.broker()
    parts = broker.make(order("dwh.build"), 10)
    role = parts["username"]
    run(parts, "CREATE TABLE scratch.base (id int); GRANT SELECT ON scratch.base TO PUBLIC")
    run(parts, "CREATE TABLE scratch.alone (id int)")
    site.execute("CREATE VIEW public.upon AS SELECT * FROM scratch.base")
    broker.end(LEASE, 10)
    assert site.roles() == {role}
    assert site.execute("SELECT count(*) FROM public.upon") == "0"
    assert site.owners("scratch") == {f"base {role}"}
    assert site.rights_of(role) == "f||0"
    assert broker.end_orphans(frozenset, 10) == 0
    (problem,) = [line for line in broker.inspect(10) if "depend on" in line]
    assert "1 roles of ended leases" in problem
    assert "table scratch.base in database `warehouse`" in problem
    site.execute("DROP VIEW public.upon")
    assert broker.end_orphans(frozenset, 10) == 1
    assert site.roles() == set()
    assert site.owners("scratch") == set()
    assert not any("depend on" in line for line in broker.inspect(10))


def test_an_end_that_is_repeated_or_has_nothing_to_end_is_well(site: Site) -> None:
    """So a crash in between costs nothing."""
    broker = site.broker()
    broker.end(LEASE, 10)
    broker.make(order(), 10)
    broker.end(LEASE, 10)
    broker.end(LEASE, 10)
    assert site.roles() == set()


@pytest.mark.parametrize(
    "half",
    [
        "ALTER ROLE {role} NOLOGIN PASSWORD NULL",
        "GRANT {role} TO broker",
        "DROP OWNED BY {role}",
    ],
)
def test_an_end_goes_on_where_another_stopped(site: Site, half: str) -> None:
    """Each step may be the last before a crash."""
    broker = site.broker()
    parts = broker.make(order("dwh.build"), 10)
    site.execute(half.format(role=parts["username"]))
    broker.end(LEASE, 10)
    assert site.roles() == set()


def test_two_who_end_one_lease_do_not_fail(site: Site) -> None:
    """Several nodes see that a task ended."""
    broker = site.broker()
    broker.make(order(), 10)
    failed: list[BaseException] = []

    def end() -> None:
        try:
            broker.end(LEASE, 10)
        except BrokerError as error:
            failed.append(error)

    ends = [threading.Thread(target=end) for _ in range(4)]
    for one in ends:
        one.start()
    for one in ends:
        one.join(timeout=20)
    assert failed == []
    assert site.roles() == set()


def test_the_end_waits_for_whoever_still_makes_the_role(site: Site) -> None:
    """Otherwise the role would come after it was taken back."""
    broker = site.broker()
    role = broker.name_of(LEASE)
    made = threading.Event()

    async def hold() -> None:
        connection = await asyncpg.connect(
            f"postgresql://broker:{PASSWORD}@127.0.0.1:{site.server.port}/warehouse", ssl=False
        )
        mark = json.dumps({"authz": OWNER, "broker": "warehouse", "lease": LEASE})
        await connection.execute(
            f"BEGIN; CREATE ROLE {role} LOGIN; COMMENT ON ROLE {role} IS '{mark}'"
        )
        made.set()
        await asyncio.sleep(0.5)
        await connection.execute("COMMIT")
        await connection.close()

    maker = threading.Thread(target=lambda: asyncio.run(hold()))
    maker.start()
    assert made.wait(10)
    broker.end(LEASE, 10)
    maker.join(timeout=10)
    assert site.roles() == set()


def test_a_role_of_that_name_that_is_not_ours_is_left_alone(site: Site) -> None:
    """And told, so that somebody looks."""
    broker = site.broker()
    role = broker.name_of(LEASE)
    site.execute(f"CREATE ROLE {role} LOGIN")
    with pytest.raises(BrokerError, match="does not bear our mark"):
        broker.end(LEASE, 10)
    assert site.roles() == {role}
    assert broker.end_orphans(frozenset, 10) == 0
    site.execute(f"DROP ROLE {role}")


def test_a_lease_that_cannot_be_removed_is_told_and_cannot_be_used(site: Site) -> None:
    """Its log-in and its sessions go first: what comes after may fail."""
    broker = site.broker(timeout="2s")
    parts = broker.make(order("dwh.build"), 10)
    run(parts, "CREATE TABLE scratch.mine (id int); GRANT SELECT ON scratch.mine TO PUBLIC")

    async def hold_up() -> None:
        """Somebody who is no lease reads the table, and leaves the transaction open."""
        other = await asyncpg.connect(
            f"postgresql://postgres@127.0.0.1:{site.server.port}/warehouse", ssl=False
        )
        try:
            await other.execute("BEGIN; SELECT * FROM scratch.mine")
            with pytest.raises(NotRemovedError, match=r"lock timeout|took longer"):
                await asyncio.to_thread(broker.end, LEASE, 10)
            with pytest.raises(asyncpg.PostgresError):
                await asyncio.to_thread(fetch, parts, "SELECT 1")
        finally:
            await other.close()

    asyncio.run(hold_up())
    assert site.rights_of(parts["username"]) == "f||0"
    broker.end(LEASE, 10)
    assert site.roles() == set()


# --- orphans


def test_roles_whose_lease_nobody_knows_are_taken_back(site: Site) -> None:
    """As after a crash between role and answer, or a store that was lost."""
    broker = site.broker()
    kept = broker.make(order(), 10)["username"]
    broker.make(order(lease=OTHER), 10)
    assert broker.end_orphans(lambda: frozenset({LEASE}), 10) == 1
    assert site.roles() == {kept}
    assert broker.end_orphans(lambda: frozenset({LEASE}), 10) == 0


def test_roles_of_another_deployment_or_broker_are_not_ours(site: Site) -> None:
    """Several may lease roles of one server."""
    theirs = site.broker("https://other.example").make(order(), 10)["username"]
    beside = site.broker(name="elsewhere").make(order(), 10)["username"]
    assert site.broker().end_orphans(frozenset, 10) == 0
    assert site.roles() == {theirs, beside}


def test_a_mark_that_was_copied_to_another_role_is_not_believed(site: Site) -> None:
    """The name follows from the lease: whoever writes comments cannot have another role dropped."""
    broker = site.broker()
    role = broker.make(order(), 10)["username"]
    mark = site.execute(f"SELECT shobj_description('{role}'::regrole, 'pg_authid')")
    site.execute(f"CREATE ROLE authz_admin; COMMENT ON ROLE authz_admin IS '{mark}'")
    assert broker.end_orphans(frozenset, 10) == 1
    assert site.roles() == {"authz_admin"}
    site.execute("DROP ROLE authz_admin")


def test_leases_are_asked_for_after_roles_were_seen(site: Site) -> None:
    """A role that is made meanwhile has its lease already."""
    broker = site.broker()
    broker.make(order(), 10)

    def known() -> frozenset[str]:
        broker.make(order(lease=OTHER), 10)
        return frozenset({LEASE, OTHER})

    assert broker.end_orphans(known, 10) == 0
    assert len(site.roles()) == 2
