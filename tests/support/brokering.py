"""A PostgreSQL whose roles a broker leases, in each version that tests run with, and what is done with a lease."""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest

from authz.config import Broker
from authz.leases import LeaseOrder, PostgresqlBroker
from tests.support.postgres import Postgres, programs, programs_18
from tests.support.waiting import eventually

T = TypeVar("T")

OWNER = "https://authz.example"
LEASE = "01900000-0000-7000-8000-000000000001/01900000-0000-7000-8000-0000000000aa"
OTHER = "01900000-0000-7000-8000-000000000001/01900000-0000-7000-8000-0000000000bb"
PASSWORD = "br0ker-p4ss"

SETUP = f"""
CREATE ROLE keeper NOLOGIN;
CREATE ROLE broker LOGIN CREATEROLE PASSWORD '{PASSWORD}';
GRANT keeper TO broker;
CREATE DATABASE warehouse OWNER broker;
CREATE DATABASE archive OWNER broker;
CREATE DATABASE bystander;
REVOKE TEMPORARY ON DATABASE warehouse, archive FROM PUBLIC;
"""
TABLES = """
SET ROLE broker;
CREATE SCHEMA sales;
CREATE SCHEMA scratch;
CREATE SCHEMA "Odd; DROP";
CREATE TABLE sales.orders (id int, customer text, "total %I" int);
CREATE TABLE sales.salaries (id int);
CREATE TABLE "Odd; DROP"."it's %s" (id int);
CREATE SEQUENCE sales.ids;
INSERT INTO sales.orders VALUES (1, 'alice', 10);
"""

SYSTEMS: dict[str, Any] = {
    "dwh": {
        "operations": {
            "dwh.read": [{"privileges": ["SELECT"], "tables": ["sales.orders"]}],
            "dwh.names": [
                {
                    "privileges": ["SELECT"],
                    "tables": ["sales.orders"],
                    "columns": ["id", "total %I"],
                }
            ],
            "dwh.write": [
                {"privileges": ["SELECT", "INSERT"], "tables": ["sales.orders"]},
                {"privileges": ["USAGE"], "sequences": ["sales.ids"]},
            ],
            "dwh.build": [{"privileges": ["USAGE", "CREATE"], "schemas": ["scratch"]}],
            "dwh.dig": [
                {"privileges": ["SELECT"], "tables": ["sales.orders"]},
                {"privileges": ["USAGE", "CREATE"], "schemas": ["scratch"]},
            ],
            "dwh.scan": [{"privileges": ["SELECT"], "tables": ["scratch.*"]}],
            "dwh.clear": [{"privileges": ["SELECT", "TRUNCATE"], "tables": ["sales.orders"]}],
            "dwh.wide": [
                {"privileges": ["SELECT"], "tables": ["sales.orders"]},
                {"privileges": ["USAGE", "CREATE"], "schemas": ["scratch"]},
                {"privileges": ["USAGE", "CREATE"], "schemas": ["scratch"], "database": "archive"},
            ],
            "dwh.odd": [{"privileges": ["SELECT"], "tables": ["Odd; DROP.it's %s"]}],
            "dwh.all": [{"privileges": ["SELECT"], "tables": ["sales.*"]}],
            "dwh.far": [
                {"privileges": ["SELECT"], "tables": ["sales.orders"]},
                {"privileges": ["CREATE"], "schemas": ["scratch"], "database": "archive"},
            ],
            "dwh.theirs": [{"privileges": ["SELECT"], "tables": ["public.foreign"]}],
            "dwh.half": [{"privileges": ["SELECT", "UPDATE"], "tables": ["public.lent"]}],
            "dwh.nowhere": [{"privileges": ["SELECT"], "tables": ["sales.none"]}],
        }
    }
}


class Session:
    """A session of a role that stays open; statements run on a loop of its own thread."""

    def __init__(self, parts: Mapping[str, str], database: str | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._connection: Any = None
        try:
            self._connection = self._wait(
                asyncpg.connect(
                    host=parts["host"],
                    port=int(parts["port"]),
                    user=parts["username"],
                    password=parts["password"],
                    database=database or parts["database"],
                    ssl=False,
                    timeout=10,
                )
            )
        except BaseException:
            self.close()
            raise

    def _wait(self, work: Awaitable[T]) -> T:
        async def run() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    def run(self, sql: str) -> None:
        """Runs statements."""
        self._wait(self._connection.execute(sql))

    def fetch(self, sql: str) -> Any:
        """Asks for one value."""
        return self._wait(self._connection.fetchval(sql))

    def is_cut(self) -> bool:
        """Tells whether the server has ended it."""
        try:
            self.fetch("SELECT 1")
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            return bool(self._connection.is_closed())
        return False

    def close(self) -> None:
        """Ends it."""

        async def end() -> None:
            if self._connection is not None:
                self._connection.terminate()
            # The transport closes in the loop's next round.
            await asyncio.sleep(0)

        self._wait(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@dataclass
class Site:
    """A server, and who makes roles there."""

    server: Postgres
    folder: Path
    brokers: list[PostgresqlBroker] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)

    def session(self, parts: Mapping[str, str], database: str | None = None) -> Session:
        """Opens a session that stays open until the test is over."""
        made = Session(parts, database)
        self.sessions.append(made)
        return made

    def broker(
        self, owner: str = OWNER, name: str = "warehouse", **changes: Any
    ) -> PostgresqlBroker:
        """Makes a broker."""
        settings = Broker.model_validate_json(json.dumps(self.settings(**changes)))
        made = PostgresqlBroker(name, settings, owner)
        self.brokers.append(made)
        return made

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Returns the settings of a broker."""
        dsn = str(self.folder / "dsn")
        return {"kind": "postgresql", "dsn_file": dsn, "systems": SYSTEMS, **changes}

    def write_dsn(self, user: str = "broker", password: str = PASSWORD) -> None:
        """Writes the broker's own connection string."""
        file = self.folder / "dsn"
        file.write_text(f"postgresql://{user}:{password}@127.0.0.1:{self.server.port}/warehouse\n")
        file.chmod(0o600)

    def roles(self) -> set[str]:
        """Returns the roles that leases made."""
        listed = self.server.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'authz\\_%'")
        return set(listed.split())

    def owners(self, schema: str) -> set[str]:
        """Returns what a schema holds beyond what is there before each test, with its owner."""
        listed = self.execute(
            "SELECT name || ' ' || pg_get_userbyid(owner) FROM ("
            " SELECT relname, relowner, relnamespace FROM pg_class WHERE relkind IN ('r', 'v', 'm')"
            " UNION ALL SELECT proname, proowner, pronamespace FROM pg_proc) AS x (name, owner, schema)"
            f" WHERE schema = '{schema}'::regnamespace"
        )
        return set(listed.splitlines())

    def rights_of(self, role: str, database: str = "warehouse") -> str:
        """Returns whether a role may log in, its password, and how many privileges it has in a database."""
        return self.execute(
            "SELECT a.rolcanlogin, a.rolpassword, (SELECT count(*) FROM pg_shdepend s"
            " WHERE s.refobjid = a.oid AND s.deptype = 'a'"
            " AND s.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())))"
            f" FROM pg_authid a WHERE a.rolname = '{role}'",
            database,
        )

    def execute(self, sql: str, database: str = "warehouse") -> str:
        """Runs a statement as the superuser."""
        return self.server.execute(sql, database=database)


INSTALLED = {
    "Debian's PostgreSQL": (programs, "PostgreSQL is not installed (Debian: postgresql)"),
    "PostgreSQL 18": (programs_18, "PostgreSQL 18 is not there; run: make test-tools"),
}


@contextmanager
def running_server(version: str) -> Iterator[Postgres]:
    """Starts a server with the databases and the broker's role, or leaves the test out."""
    find, missing = INSTALLED[version]
    installed = find()
    if installed is None:
        pytest.skip(missing)
    with Postgres(installed=installed) as server:
        for statement in SETUP.strip().split(";\n"):
            server.execute(statement.rstrip(";"))
        for database in ("warehouse", "archive"):
            server.execute(TABLES, database=database)
        for sql in (
            "CREATE TABLE public.foreign (id int)",
            "CREATE TABLE public.lent (id int)",
            "GRANT SELECT ON public.lent TO broker WITH GRANT OPTION",
            "GRANT UPDATE ON public.lent TO broker",
        ):
            server.execute(sql, database="warehouse")
        server.require_passwords()
        yield server


@contextmanager
def site_of(server: Postgres, folder: Path) -> Iterator[Site]:
    """Gives a server without roles of ours, before and after."""
    made = Site(server, folder)
    made.write_dsn()
    yield made
    for session in made.sessions:
        session.close()
    for broker in made.brokers:
        broker.close()
    roles = sorted(made.roles())
    for role in roles:
        sessions = (
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
        )
        eventually(lambda: not made.execute(sessions), what="its sessions are gone")  # noqa: B023
    for database in ("archive", "bystander", "warehouse") if roles else ():
        prepared = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        for gid in made.execute(prepared, database).splitlines():
            made.execute(f"ROLLBACK PREPARED '{gid}'", database)
        made.execute(f"DROP OWNED BY {', '.join(roles)} CASCADE", database)
    for role in roles:
        made.execute(f"DROP ROLE {role}")


def order(
    operation: str = "dwh.read", lease: str = LEASE, seconds: float = 60, holder: str = ""
) -> LeaseOrder:
    """A lease for one minute."""
    return LeaseOrder(lease, operation, time.time() + seconds, holder)


def as_leased(
    parts: Mapping[str, str], work: Callable[[Any], Awaitable[T]], database: str | None = None
) -> T:
    """Signs on with a lease, and does something."""

    async def run() -> T:
        connection = await asyncpg.connect(
            host=parts["host"],
            port=int(parts["port"]),
            user=parts["username"],
            password=parts["password"],
            database=database or parts["database"],
            ssl=False,
        )
        try:
            return await work(connection)
        finally:
            connection.terminate()

    return asyncio.run(run())


def fetch(parts: Mapping[str, str], sql: str, database: str | None = None) -> Any:
    """Asks for one value."""
    return as_leased(parts, lambda one: one.fetchval(sql), database)


def run(parts: Mapping[str, str], sql: str, database: str | None = None) -> None:
    """Runs statements."""
    as_leased(parts, lambda one: one.execute(sql), database)
