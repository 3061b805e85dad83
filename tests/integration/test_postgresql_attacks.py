"""What a leased role does to keep its access, to reach the rights of others, or to stop the leases of others."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import asyncpg
import pytest

from authz.leases import NothingMadeError, NotRemovedError, PostgresqlBroker
from tests.support.brokering import (
    LEASE,
    OTHER,
    OWNER,
    PASSWORD,
    Session,
    Site,
    fetch,
    order,
    run,
)
from tests.support.killed_broker import killed_broker
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180)

# Both of what a role may change of itself without a privilege.
OWN_PASSWORD = "ALTER ROLE CURRENT_USER PASSWORD 'mine'"
# What may stop a leased session: its end, in the words of the driver.
CUT = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


def lease_of(number: int) -> str:
    """Gives the id of one of many leases."""
    return f"{LEASE[:-4]}{number:04d}"


def end_all(broker: PostgresqlBroker, *leases: str) -> None:
    """Ends leases, one after the other."""
    for lease in leases:
        broker.end(lease, 10)


# --- reaching the rights of others


def test_functions_that_outlive_a_lease_run_without_rights(site: Site) -> None:
    """A `SECURITY DEFINER` function that another lease builds upon: it is nobody's with rights, and nobody can call it."""
    broker = site.broker()
    first, second = broker.make(order("dwh.dig"), 10), broker.make(order("dwh.dig", OTHER), 10)
    role = first["username"]
    run(
        first,
        "CREATE FUNCTION scratch.g(q text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER"
        " AS $$ BEGIN EXECUTE q; RETURN current_user; END $$;"
        " GRANT EXECUTE ON FUNCTION scratch.g(text) TO PUBLIC",
    )
    run(second, "CREATE VIEW scratch.v AS SELECT scratch.g('SELECT 1')")
    assert fetch(second, "SELECT scratch.g('SELECT * FROM sales.orders')") == role
    broker.end(LEASE, 10)
    for statement in ("CREATE ROLE backdoor LOGIN", "SELECT * FROM sales.orders", "SELECT 1"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            fetch(second, f"SELECT scratch.g('{statement}')")
    owner = "SELECT pg_get_userbyid(proowner), prosecdef, proacl FROM pg_proc WHERE proname = 'g'"
    assert site.execute(owner) == f"{role}|f|{{{role}=X/{role}}}"
    assert site.rights_of(role) == "f||0"
    assert site.execute("SELECT count(*) FROM pg_roles WHERE rolname = 'backdoor'") == "0"
    broker.end(OTHER, 10)
    assert broker.end_orphans(frozenset, 10) == 1
    assert site.roles() == set()
    assert site.owners("scratch") == set()


def test_a_view_that_outlives_a_lease_shows_nothing_of_what_the_lease_could_read(
    site: Site,
) -> None:
    """A view reads with the rights of its owner."""
    broker = site.broker()
    first, second = broker.make(order("dwh.dig"), 10), broker.make(order("dwh.build", OTHER), 10)
    run(
        first,
        "CREATE VIEW scratch.o AS SELECT * FROM sales.orders; GRANT SELECT ON scratch.o TO PUBLIC",
    )
    run(second, "CREATE VIEW scratch.v AS SELECT * FROM scratch.o")
    assert fetch(second, "SELECT customer FROM scratch.v") == "alice"
    broker.end(LEASE, 10)
    for view in ("scratch.v", "scratch.o"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            fetch(second, f"SELECT customer FROM {view}")
    end_all(broker, OTHER)
    broker.end_orphans(frozenset, 10)
    assert site.owners("scratch") == set()


def test_all_kinds_of_objects_go_with_their_lease(site: Site) -> None:
    """Also where a view of somebody else, upon one of them, keeps that one."""
    broker = site.broker()
    parts = broker.make(order("dwh.wide"), 10)
    role = parts["username"]
    before = site.execute("SELECT count(*) FROM pg_class")
    objects = """
    CREATE TABLE scratch.base (id int PRIMARY KEY, "odd ""name%s" text);
    CREATE TABLE scratch."t;""%I" (id serial REFERENCES scratch.base);
    CREATE VIEW scratch.view AS SELECT * FROM scratch.base;
    CREATE MATERIALIZED VIEW scratch.stored AS SELECT * FROM scratch.base;
    CREATE SEQUENCE scratch.numbers;
    CREATE TYPE scratch.pair AS (a int, b int);
    CREATE TYPE scratch.mood AS ENUM ('well', 'ill');
    CREATE DOMAIN scratch.positive AS int CHECK (VALUE > 0);
    CREATE FUNCTION scratch.f(a scratch.pair) RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
    CREATE FUNCTION scratch.tick() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER tick BEFORE INSERT ON scratch.base FOR EACH ROW EXECUTE FUNCTION scratch.tick();
    CREATE RULE tell AS ON DELETE TO scratch.base DO ALSO SELECT scratch.f(NULL);
    CREATE PROCEDURE scratch.p() LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION scratch.add(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2';
    CREATE AGGREGATE scratch.total (int) (SFUNC = scratch.add, STYPE = int);
    CREATE OPERATOR scratch.<@@> (LEFTARG = int, RIGHTARG = int, FUNCTION = scratch.add);
    CREATE STATISTICS scratch.stats (ndistinct) ON id, "odd ""name%s" FROM scratch.base;
    CREATE COLLATION scratch.bytes FROM "C";
    CREATE TEXT SEARCH CONFIGURATION scratch.words (COPY = pg_catalog.simple);
    CREATE POLICY mine ON scratch.base TO CURRENT_USER USING (true);
    ALTER DEFAULT PRIVILEGES IN SCHEMA scratch GRANT SELECT ON TABLES TO PUBLIC;
    GRANT SELECT ON scratch.base TO broker WITH GRANT OPTION;
    SELECT lo_create(0);
    """
    for database in ("warehouse", "archive"):
        run(parts, objects, database)
    site.execute("CREATE VIEW public.upon AS SELECT id FROM scratch.base")
    broker.end(LEASE, 10)
    assert site.owners("scratch") == {f"base {role}"}
    assert site.rights_of(role) == site.rights_of(role, "archive") == "f||0"
    left = f"SELECT count(*) FROM pg_shdepend WHERE refobjid = '{role}'::regrole AND dbid <> 0"
    assert int(site.execute(left)) <= 3
    site.execute("DROP VIEW public.upon")
    broker.end_orphans(frozenset, 10)
    assert site.roles() == set()
    assert site.execute("SELECT count(*) FROM pg_largeobject_metadata") == "0"
    assert site.execute("SELECT count(*) FROM pg_class") == before


@pytest.mark.parametrize(
    ("right", "remedy"),
    [
        ("CREATE ON SCHEMA public", "create objects in schema `public` of database `warehouse`"),
        ("TEMPORARY ON DATABASE warehouse", "create temporary tables in database `warehouse`"),
        ("CREATE ON DATABASE warehouse", "create schemas in database `warehouse`"),
    ],
)
def test_where_every_role_may_create_there_is_no_lease(site: Site, right: str, remedy: str) -> None:
    """As in schema `public` of a database that is older than PostgreSQL 15; both say what to run."""
    broker = site.broker()
    site.execute(f"GRANT {right} TO PUBLIC")
    revoke = f"REVOKE {right} FROM PUBLIC"
    try:
        with pytest.raises(NothingMadeError) as refused:
            broker.make(order(), 10)
        problems = broker.inspect(10)
    finally:
        site.execute(revoke)
    assert remedy in str(refused.value)
    assert revoke in str(refused.value)
    assert f"broker `warehouse`: leased roles may {remedy}: {revoke}" in problems
    assert not [
        line for line in broker.inspect(10) if "`warehouse` " in line[20:] and remedy in line
    ]
    broker.make(order(), 10)


def test_other_databases_that_every_role_may_enter_are_told(site: Site) -> None:
    """There a lease has what `PUBLIC` has."""
    problems = site.broker().inspect(10)
    expected = (
        "broker `warehouse`: leased roles may create temporary tables in database `bystander`:"
        " REVOKE TEMPORARY ON DATABASE bystander FROM PUBLIC, or REVOKE CONNECT ON DATABASE bystander FROM PUBLIC"
    )
    assert expected in problems
    site.execute("REVOKE CONNECT ON DATABASE bystander FROM PUBLIC")
    try:
        assert not [line for line in site.broker().inspect(10) if "bystander" in line]
    finally:
        site.execute("GRANT CONNECT ON DATABASE bystander TO PUBLIC")


def test_a_superuser_is_no_broker(site: Site) -> None:
    """Nor is a role that could not end what it makes."""
    site.write_dsn("postgres", "")
    assert any("is a superuser" in line for line in site.broker().inspect(10))
    site.execute("ALTER ROLE broker NOCREATEROLE")
    site.write_dsn()
    try:
        assert any("needs CREATEROLE" in line for line in site.broker().inspect(10))
    finally:
        site.execute("ALTER ROLE broker CREATEROLE")
    assert not [line for line in site.broker().inspect(10) if "its own role" in line]


def test_a_function_that_runs_as_the_broker_is_told(site: Site) -> None:
    """An earlier version left some behind."""
    site.execute(
        "SET ROLE broker; CREATE FUNCTION scratch.old(q text) RETURNS void LANGUAGE plpgsql"
        " SECURITY DEFINER AS $$ BEGIN EXECUTE q; END $$"
    )
    try:
        (problem,) = [line for line in site.broker().inspect(10) if "rights of the broker" in line]
    finally:
        site.execute("DROP FUNCTION scratch.old(text)")
    assert "function scratch.old(pg_catalog.text) in database `warehouse`" in problem
    assert not [line for line in site.broker().inspect(10) if "rights of the broker" in line]


def test_temporary_tables_are_had_only_where_the_configuration_says_so(site: Site) -> None:
    """The broker then grants it, and it is no problem."""
    broker = site.broker(temporary_tables=True)
    parts = broker.make(order(), 10)
    run(parts, "CREATE TEMP TABLE t (id int)")
    site.execute("GRANT TEMPORARY ON DATABASE warehouse TO PUBLIC")
    try:
        broker.make(order(lease=OTHER), 10)
        assert not [line for line in broker.inspect(10) if "tables in database `warehouse`" in line]
    finally:
        site.execute("REVOKE TEMPORARY ON DATABASE warehouse FROM PUBLIC")
    end_all(broker, LEASE, OTHER)
    assert site.roles() == set()


# --- keeping access


def test_no_advisory_lock_keeps_a_lease(site: Site) -> None:
    """Its own name, and those of others, as the broker once locked them."""
    broker = site.broker()
    parts = broker.make(order(), 10)
    victim = site.session(broker.make(order(lease=OTHER), 10))
    session = site.session(parts)
    session.fetch("SELECT count(pg_advisory_lock(hashtextextended(rolname, 0))) FROM pg_roles")
    started = time.monotonic()
    broker.stop(OTHER, 10)
    assert victim.is_cut()
    end_all(broker, OTHER, LEASE)
    assert time.monotonic() - started < 4
    assert session.is_cut()
    assert site.roles() == set()


@pytest.mark.parametrize(
    "hold",
    [
        f"BEGIN; {OWN_PASSWORD}",
        f"BEGIN; {OWN_PASSWORD}; PREPARE TRANSACTION 'held'",
        "BEGIN; SELECT * FROM sales.orders; SELECT * FROM pg_roles, pg_database, pg_shdescription LIMIT 1",
        "BEGIN; ALTER ROLE CURRENT_USER SET work_mem = '64kB'",
    ],
)
def test_no_open_transaction_keeps_a_lease(site: Site, hold: str) -> None:
    """A role may change its own password: whoever ends its log-in changes the same row."""
    broker = site.broker(timeout="10s")
    parts = broker.make(order(), 10)
    sessions = [site.session(parts) for _ in range(2)]
    sessions[0].run(hold)
    broker.stop(LEASE, 10)
    assert all(session.is_cut() for session in sessions)
    for password in (parts["password"], "mine"):
        with pytest.raises(CUT):
            fetch({**parts, "password": password}, "SELECT 1")
    broker.end(LEASE, 10)
    assert site.roles() == set()
    assert site.execute("SELECT count(*) FROM pg_prepared_xacts") == "0"


@pytest.mark.parametrize("hold", [OWN_PASSWORD, "SELECT * FROM pg_class"])
def test_a_transaction_that_was_prepared_in_another_database_keeps_nothing(
    site: Site, hold: str
) -> None:
    """It has no session, and nothing of it can be seen from here but its locks."""
    broker = site.broker(timeout="10s")
    parts = broker.make(order(), 10)
    run(parts, f"BEGIN; {hold}; PREPARE TRANSACTION 'far'", "bystander")
    broker.end(LEASE, 10)
    assert site.execute("SELECT count(*) FROM pg_prepared_xacts") == "0"
    assert site.roles() == set()


def test_a_role_that_changes_its_password_again_and_again_is_ended(site: Site) -> None:
    """In as many sessions as it may have, which come back as soon as they are cut."""
    broker = site.broker(timeout="30s")
    parts = dict(broker.make(order(), 10))
    run(parts, OWN_PASSWORD)
    parts["password"] = "mine"
    stop, begun = threading.Event(), threading.Event()

    def change() -> None:
        while not stop.is_set():
            with suppress(Exception):
                for _ in range(50):
                    run(
                        parts,
                        f"BEGIN; {OWN_PASSWORD}; SELECT pg_sleep(0.01); COMMIT; {OWN_PASSWORD}",
                    )
                    begun.set()

    threads = [threading.Thread(target=change) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert begun.wait(60)
        broker.end(LEASE, 60)
        assert site.roles() == set()
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'authz%'"
        assert site.execute(sessions) == "0"
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=20)


def test_thousands_of_objects_keep_no_role(site: Site) -> None:
    """More than the server has locks for: they are dropped a few at a time, over several tries if need be."""
    broker = site.broker(timeout="10s")
    parts = broker.make(order("dwh.build"), 10)
    # Every role may make large objects, whatever it is granted.
    fetch(parts, "SELECT count(lo_create(0)) FROM generate_series(1, 12000)")
    run(
        parts,
        "DO $$ BEGIN FOR i IN 1..600 LOOP EXECUTE format('CREATE TABLE scratch.t%s (i int)', i); END LOOP; END $$",
    )
    broker.stop(LEASE, 10)
    for _ in range(10):
        try:
            broker.end(LEASE, 30)
        except NotRemovedError:
            continue
        break
    assert site.roles() == set()
    assert site.execute("SELECT count(*) FROM pg_largeobject_metadata") == "0"


def test_a_database_that_the_broker_cannot_enter_keeps_no_rights_in_others(site: Site) -> None:
    """What the lease made there stays until it can, and the lease is told as not removed."""
    broker = site.broker()
    parts = broker.make(order("dwh.wide"), 10)
    role = parts["username"]
    site.execute(f"GRANT CREATE ON SCHEMA public TO {role}", "bystander")
    run(parts, "CREATE TABLE public.mine (id int)", "bystander")
    site.execute(f"REVOKE CREATE ON SCHEMA public FROM {role}", "bystander")
    site.execute("REVOKE CONNECT ON DATABASE bystander FROM PUBLIC")
    try:
        with pytest.raises(NotRemovedError, match="bystander"):
            broker.end(LEASE, 10)
        assert site.rights_of(role) == site.rights_of(role, "archive") == "f||0"
    finally:
        site.execute("GRANT CONNECT ON DATABASE bystander TO PUBLIC")
    broker.end(LEASE, 10)
    assert site.roles() == set()


def test_ended_leases_that_depend_on_each_other_go_together(site: Site) -> None:
    """Each has a foreign key to the other's table."""
    broker = site.broker()
    one, two = broker.make(order("dwh.build"), 10), broker.make(order("dwh.build", OTHER), 10)
    for parts, table in ((one, "a"), (two, "b")):
        run(parts, f"CREATE TABLE scratch.{table} (id int PRIMARY KEY, other int)")
        run(parts, f"GRANT ALL ON scratch.{table} TO PUBLIC")
    run(one, "ALTER TABLE scratch.a ADD FOREIGN KEY (other) REFERENCES scratch.b")
    run(two, "ALTER TABLE scratch.b ADD FOREIGN KEY (other) REFERENCES scratch.a")
    end_all(broker, LEASE, OTHER)
    broker.end_orphans(frozenset, 10)
    assert site.roles() == set()
    assert site.owners("scratch") == set()


# --- stopping the leases of others


def test_the_table_of_one_lease_stops_no_other(site: Site) -> None:
    """`schema.*` is all that the schema holds but what leases made, which the broker cannot grant."""
    site.execute("SET ROLE broker; CREATE TABLE scratch.given AS SELECT 7 AS id")
    try:
        broker = site.broker()
        run(broker.make(order("dwh.build"), 10), "CREATE TABLE scratch.mine (id int)")
        victim = broker.make(order("dwh.scan", OTHER), 10)
        assert fetch(victim, "SELECT id FROM scratch.given") == 7
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            fetch(victim, "SELECT * FROM scratch.mine")
        end_all(broker, LEASE, OTHER)
    finally:
        site.execute("DROP TABLE scratch.given")


@pytest.mark.parametrize("hold", ["TRUNCATE sales.orders", "LOCK TABLE sales.orders"])
def test_a_lock_of_one_lease_holds_up_neither_making_nor_ending_others(
    site: Site, hold: str
) -> None:
    """The session that holds it is ended."""
    broker = site.broker()
    session = site.session(broker.make(order("dwh.clear"), 10))
    broker.make(order(lease=OTHER), 10)
    session.run(f"BEGIN; {hold}")
    started = time.monotonic()
    made = broker.make(order(lease=lease_of(3)), 10)
    end_all(broker, OTHER)
    assert time.monotonic() - started < 4
    run(made, "SELECT 1")
    end_all(broker, LEASE, lease_of(3))
    assert site.roles() == set()
    assert site.execute("SELECT count(*) FROM sales.orders") == "1"


def test_a_lease_that_uses_the_table_of_an_ended_one_does_not_keep_it(site: Site) -> None:
    """Nor one that keeps granting to it."""
    broker = site.broker()
    first, second = broker.make(order("dwh.build"), 10), broker.make(order("dwh.build", OTHER), 10)
    role = first["username"]
    run(first, "CREATE TABLE scratch.mine (id int); GRANT SELECT ON scratch.mine TO PUBLIC")
    reader, granter = site.session(second), site.session(second)
    reader.run("BEGIN; SELECT * FROM scratch.mine")
    granter.run(
        f"CREATE TABLE scratch.theirs (id int); BEGIN; GRANT SELECT ON scratch.theirs TO {role}"
    )
    broker.end(LEASE, 10)
    assert site.roles() == {second["username"]}
    end_all(broker, OTHER)


def test_many_leases_of_one_table_are_made_and_ended_at_once(site: Site) -> None:
    """Each changes the row of the table in a catalog, where PostgreSQL lets nobody wait."""
    broker = site.broker(connections=1, timeout="20s")
    leases = [lease_of(number) for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        made = list(pool.map(lambda lease: broker.make(order(lease=lease), 20), leases))
        assert all(fetch(parts, "SELECT customer FROM sales.orders") == "alice" for parts in made)
        list(pool.map(lambda lease: broker.end(lease, 20), leases))
    assert site.roles() == set()


def test_leases_leave_connections_to_others_and_to_the_broker(site: Site) -> None:
    """One agent gets at most as many as stay free, all together at most half of the server's."""
    broker = site.broker()
    # 60, of which 3 are the superuser's.
    most = 57 // 2

    def take(holder: str) -> list[str]:
        taken: list[str] = []
        for number in range(100):
            try:
                wanted = order(lease=lease_of(1000 * len(holder) + number), holder=holder)
                broker.make(wanted, 10)
            except NothingMadeError as error:
                assert "connections" in str(error)  # noqa: PT017
                return taken
            taken.append(wanted.lease)
        raise AssertionError("no bound")

    first = take("greedy")
    assert 2 <= len(first) <= most // 2 // 4
    second = take("modest one")
    assert second, "the first agent took all"
    rest = [lease for number in range(20) for lease in take("x" * (20 + number))]
    assert 4 * len([*first, *second, *rest]) <= most
    end_all(broker, *first, *second, *rest)
    broker.make(order(holder="greedy"), 10)


def test_max_connections_bounds_the_leases_of_a_server(site: Site) -> None:
    """As many as the configuration says, of every deployment."""
    site.broker("https://other.example", connections=3).make(order(), 10)
    broker = site.broker(connections=3, max_connections=6)
    broker.make(order(), 10)
    with pytest.raises(NothingMadeError, match="leases may hold 6 connections in all"):
        broker.make(order(lease=OTHER), 10)


def test_a_server_without_free_connections_loses_no_lease(site: Site) -> None:
    """The broker has kept one, so that it ends access, and more with what that sets free."""
    broker = site.broker()
    parts = broker.make(order(), 10)
    site.session(parts)
    site.execute("CREATE ROLE crowd LOGIN PASSWORD 'x'")
    crowd = {**parts, "username": "crowd", "password": "x"}
    others: list[Session] = []
    try:
        with suppress(asyncpg.TooManyConnectionsError):
            while len(others) < 100:
                others.append(Session(crowd, "bystander"))
        assert len(others) < 60
        with pytest.raises(NothingMadeError):
            broker.make(order(lease=OTHER), 10)
        broker.stop(LEASE, 10)
        with pytest.raises(CUT):
            fetch(parts, "SELECT 1")
        eventually(lambda: _is_ended(broker), what="the role is gone")
    finally:
        for session in others:
            session.close()
        eventually(lambda: site.execute("DROP ROLE IF EXISTS crowd") or True)
    assert site.roles() == set()


def _is_ended(broker: PostgresqlBroker) -> bool:
    try:
        broker.end(LEASE, 10)
    except NotRemovedError:
        return False
    return True


def test_one_orphan_that_cannot_be_removed_leaves_no_other(site: Site) -> None:
    """Its table is in use by somebody who is no lease."""
    broker = site.broker(timeout="2s")
    stuck = broker.make(order("dwh.build"), 10)
    run(stuck, "CREATE TABLE scratch.mine (id int)")
    for number in range(4):
        broker.make(order(lease=lease_of(number)), 10)
    admin = {**stuck, "username": "postgres", "password": ""}
    session = site.session(admin)
    session.run("BEGIN; SELECT * FROM scratch.mine")
    with pytest.raises(NotRemovedError):
        broker.end_orphans(frozenset, 30)
    assert site.roles() == {stuck["username"]}
    session.run("COMMIT")
    assert broker.end_orphans(frozenset, 30) == 1
    assert site.roles() == set()


# --- crashes


@pytest.mark.parametrize("action", ["make", "end"])
def test_a_broker_that_is_killed_before_any_of_its_statements_leaves_nothing(
    site: Site, action: str
) -> None:
    """Its next start finds the role by its comment, and finishes."""
    broker = site.broker()
    admin = {**broker.make(order(), 10), "username": "postgres", "password": ""}
    broker.end(LEASE, 10)
    left = (
        "SELECT (SELECT count(*) FROM pg_roles WHERE rolname LIKE 'authz\\_%')"
        " + (SELECT count(*) FROM pg_class WHERE relname = 'mine')"
    )
    looks = [site.session(admin, database) for database in ("warehouse", "archive")]
    statement = 0
    is_killed = True
    with killed_broker(site.settings(timeout="20s"), OWNER, LEASE) as killed:
        while is_killed:
            statement += 1
            if action == "end":
                parts = broker.make(order("dwh.wide"), 10)
                for database in ("warehouse", "archive"):
                    run(parts, "CREATE TABLE scratch.mine (id int)", database)
            is_killed = killed.run(action, "dwh.wide", statement)
            if action == "end":
                broker.end_orphans(frozenset, 10)
            else:
                # The server may not have seen yet that the client of an open transaction is gone.
                broker.end(LEASE, 10)
            assert [look.fetch(left) for look in looks] == [0, 0], statement
    # Fewer would mean that it dies nowhere.
    assert statement > 15


def test_the_broker_signs_on_with_a_password_that_was_changed(site: Site) -> None:
    """Also where it keeps a connection that was opened with the old one."""
    broker = site.broker()
    broker.make(order(), 10)
    site.execute("ALTER ROLE broker PASSWORD 'n3xt'")
    try:
        site.write_dsn(password="n3xt")
        broker.end(LEASE, 10)
        assert site.roles() == set()
    finally:
        site.execute(f"ALTER ROLE broker PASSWORD '{PASSWORD}'")


def test_a_role_that_owns_nothing_and_may_pass_on_what_it_has_is_enough(site: Site) -> None:
    """As `docs/reference/brokers.md` sets it up: no superuser, no owner."""
    site.execute("CREATE DATABASE shop")
    setup = f"""
    CREATE ROLE clerk LOGIN CREATEROLE PASSWORD '{PASSWORD}';
    REVOKE CONNECT, TEMPORARY, CREATE ON DATABASE shop FROM PUBLIC;
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    CREATE SCHEMA sales;
    CREATE TABLE sales.orders AS SELECT 7 AS id;
    GRANT CONNECT ON DATABASE shop TO clerk WITH GRANT OPTION;
    GRANT USAGE ON SCHEMA sales TO clerk WITH GRANT OPTION;
    GRANT SELECT, INSERT ON sales.orders TO clerk WITH GRANT OPTION;
    """
    site.execute(setup, "shop")
    address = f"clerk:{PASSWORD}@127.0.0.1:{site.server.port}/shop"
    (site.folder / "dsn").write_text(f"postgresql://{address}\n")
    broker = site.broker()
    try:
        assert not [line for line in broker.inspect(10) if "shop" in line or "own role" in line]
        parts = broker.make(order(), 10)
        session = site.session(parts)
        assert session.fetch("SELECT id FROM sales.orders") == 7
        broker.end(LEASE, 10)
        assert session.is_cut()
        assert site.roles() == set()
    finally:
        broker.close()
        site.execute("DROP DATABASE shop WITH (FORCE)")
        site.execute("DROP ROLE clerk")
