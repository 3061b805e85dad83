"""Leases login roles of a PostgreSQL server: one a lease, with the grants of the permitted operation and a random password.

What a caller says is no part of any statement: names come from the configuration, the role's from the lease's id, and the
server itself quotes them. The password reaches the server as a SCRAM verifier, so that no log of statements holds it.
"""

import asyncio
import base64
import hashlib
import hmac
import importlib.util
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import chain
from threading import Event
from typing import Any, Final, TypeVar

from authz.config import Broker, Grant
from authz.credentials.broker.address import ServerAddress
from authz.credentials.broker.protocol import BrokerError, NothingMadeError, Order
from authz.credentials.broker.secret_file import SecretFileError, read_secret
from authz.errors import ConfigError
from authz.model import Diagnostic

__all__ = ["PostgresqlBroker", "scram_verifier"]

_T = TypeVar("_T")

_PREFIX: Final = "authz_"
_NAME_DIGITS: Final = 40
_PASSWORD_BYTES: Final = 32
_SCRAM_ITERATIONS: Final = 4096
_MAX_ORPHANS: Final = 1000
_MAX_SAID: Final = 300
_SET_OPTION_SINCE: Final = 16
_PAUSE: Final = 0.02
_NOT_ALL_GRANTED: Final = "01007"

_FIND_ROLE: Final = """
SELECT r.oid, pg_catalog.shobj_description(r.oid, 'pg_authid') AS mark FROM pg_catalog.pg_roles r WHERE r.rolname = $1
"""
_FIND_MARKED: Final = """
SELECT r.rolname AS name, d.description AS mark
FROM pg_catalog.pg_roles r
JOIN pg_catalog.pg_shdescription d ON d.objoid = r.oid AND d.classoid = 'pg_catalog.pg_authid'::pg_catalog.regclass
WHERE pg_catalog.starts_with(r.rolname, $1) ORDER BY r.rolname LIMIT $2
"""
# What depends on a role, in whichever database: objects of its own, and privileges that it was granted.
_FIND_DATABASES: Final = """
SELECT DISTINCT d.datname AS name
FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_database d ON d.oid = s.dbid
WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid = $1 ORDER BY 1
"""
_END_SESSIONS: Final = """
SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(a.pid)) FROM pg_catalog.pg_stat_activity a WHERE a.usesysid = $1
"""
_FIND_PREPARED: Final = """
SELECT p.gid FROM pg_catalog.pg_prepared_xacts p
WHERE p.owner = $1 AND p.database = pg_catalog.current_database() ORDER BY 1
"""
_LOCK: Final = "SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended($1, 0))"
_FORMAT: Final = "SELECT pg_catalog.format($1::pg_catalog.text, VARIADIC $2::pg_catalog.text[])"


class PostgresqlBroker:
    """The roles of one server.

    Args:
        name: Its name in the configuration.
        settings: Its configuration.
        owner: Who we are, among others that lease roles of the same server; stands in the comment of each role.

    Raises:
        ConfigError: The extra `postgresql` is not installed.
    """

    def __init__(self, name: str, settings: Broker, owner: str) -> None:
        if importlib.util.find_spec("asyncpg") is None:
            what = f"`credentials.brokers.{name}` needs the extra `postgresql`."
            raise ConfigError((Diagnostic(what, mend="pip install 'authz-runtime[postgresql]'."),))
        self.name = name
        self._settings = settings
        self._owner = owner
        self._grants = {
            operation: grants
            for system in settings.systems.values()
            for operation, grants in system.operations.items()
        }

    def serves(self, operation: str) -> bool:
        """Tell whether something is granted for an operation.

        Args:
            operation: The operation's id.

        Returns:
            Whether a lease for it can be had.
        """
        return operation in self._grants

    def name_of(self, lease: str) -> str:
        """Name the role of a lease.

        Args:
            lease: The lease's id.

        Returns:
            The role's name.
        """
        digest = hashlib.sha256(f"{self._owner}\0{self.name}\0{lease}".encode()).hexdigest()
        return _PREFIX + digest[:_NAME_DIGITS]

    def make(self, order: Order, within: float) -> Mapping[str, str]:
        """Make the role of a lease.

        Args:
            order: What is needed.
            within: Seconds that it may take.

        Returns:
            `username`, `password`, `host`, `port`, `database`.

        Raises:
            BrokerError: It was not made, or nobody can tell.
        """
        grants = self._grants.get(order.operation)
        if grants is None:
            raise NothingMadeError(f"broker `{self.name}` grants nothing for this operation")
        begun = Event()
        try:
            return self._run(within, lambda address: self._make(address, order, grants, begun))
        except BrokerError as error:
            if begun.is_set():
                raise
            raise NothingMadeError(str(error)) from error

    def end(self, lease: str, within: float) -> None:
        """Take back the role of a lease: its log-in, its sessions, what it owns, the role.

        Args:
            lease: The lease's id.
            within: Seconds that it may take.

        Raises:
            BrokerError: It may still be there.
        """
        self._run(within, lambda address: self._end(address, lease))

    def end_orphans(self, known: Callable[[], frozenset[str]], within: float) -> int:
        """Take back the roles of ours whose leases nobody knows.

        Args:
            known: Gives the ids of the leases that there are.
            within: Seconds that it may take.

        Returns:
            How many were taken back.

        Raises:
            BrokerError: It cannot be told, or one of them may still be there.
        """
        return self._run(within, lambda address: self._end_orphans(address, known))

    # --- making

    async def _make(
        self, address: ServerAddress, order: Order, grants: Sequence[Grant], begun: Event
    ) -> Mapping[str, str]:
        role, password = self.name_of(order.lease), secrets.token_urlsafe(_PASSWORD_BYTES)
        elsewhere: dict[str, list[Grant]] = {}
        here: list[Grant] = []
        for grant in grants:
            if grant.database in {None, address.database}:
                here.append(grant)
            else:
                elsewhere.setdefault(str(grant.database), []).append(grant)
        async with self._connected(address, address.database) as main:
            await main.execute(_LOCK, role)
            begun.set()
            async with main.transaction():
                await self._create(main, role, scram_verifier(password), order)
                if not elsewhere:
                    await _grant(main, role, address.database, here)
                    await _say(main, "ALTER ROLE %I LOGIN", role)
            if elsewhere:
                for database, theirs in elsewhere.items():
                    async with self._connected(address, database) as other, other.transaction():
                        await _grant(other, role, database, theirs)
                async with main.transaction():
                    await _grant(main, role, address.database, here)
                    await _say(main, "ALTER ROLE %I LOGIN", role)
        return {
            "username": role,
            "password": password,
            "host": address.host,
            "port": str(address.port),
            "database": address.database,
        }

    async def _create(self, main: Any, role: str, verifier: str, order: Order) -> None:
        until = datetime.fromtimestamp(order.expires_at, UTC).isoformat()
        await _say(
            main,
            "CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS"
            " CONNECTION LIMIT %s PASSWORD %L VALID UNTIL %L",
            role,
            str(self._settings.connections),
            verifier,
            until,
        )
        await _say(main, "COMMENT ON ROLE %I IS %L", role, self._mark(order.lease))

    def _mark(self, lease: str) -> str:
        return json.dumps({"authz": self._owner, "broker": self.name, "lease": lease})

    # --- taking back

    async def _end(self, address: ServerAddress, lease: str) -> None:
        async with self._connected(address, address.database) as main:
            await self._end_by(main, address, lease)

    async def _end_by(self, main: Any, address: ServerAddress, lease: str) -> None:
        role = self.name_of(lease)
        # Whoever makes it has the lock until it is there.
        await main.execute(_LOCK, role)
        found = await main.fetchrow(_FIND_ROLE, role)
        if found is None:
            return
        if found["mark"] != self._mark(lease):
            raise BrokerError(f"role `{role}` does not bear our mark, and is left alone")
        await _say(main, "ALTER ROLE %I NOLOGIN PASSWORD NULL", role)
        option = (
            " WITH INHERIT TRUE, SET TRUE"
            if main.get_server_version().major >= _SET_OPTION_SINCE
            else ""
        )
        # To end its sessions and to drop what it owns, one must be a member.
        await _say(main, f"GRANT %I TO CURRENT_USER{option}", role)
        await _end_sessions(main, found["oid"])
        for row in await main.fetch(_FIND_DATABASES, found["oid"]):
            if row["name"] != address.database:
                async with self._connected(address, row["name"]) as other:
                    await self._drop_owned(other, role)
        await self._drop_owned(main, role)
        # Who was half signed on when the log-in ended is seen by now.
        await _end_sessions(main, found["oid"])
        await _say(main, "DROP ROLE %I", role)

    async def _drop_owned(self, there: Any, role: str) -> None:
        from asyncpg.exceptions import DependentObjectsStillExistError  # noqa: PLC0415 - an extra

        for row in await there.fetch(_FIND_PREPARED, role):
            await _say(there, "SET ROLE %I", role)
            await _say(there, "ROLLBACK PREPARED %L", row["gid"])
            await there.execute("RESET ROLE")
        if self._settings.reassign_to is not None:
            await _say(there, "REASSIGN OWNED BY %I TO %I", role, self._settings.reassign_to)
        try:
            await _say(there, "DROP OWNED BY %I", role)
        except DependentObjectsStillExistError:
            # Others built upon it: it stays, as the broker's, so that the role can go and theirs need not.
            async with there.transaction():
                await _say(there, "REASSIGN OWNED BY %I TO CURRENT_USER", role)
                await _say(there, "DROP OWNED BY %I", role)

    async def _end_orphans(
        self, address: ServerAddress, known: Callable[[], frozenset[str]]
    ) -> int:
        async with self._connected(address, address.database) as main:
            rows = await main.fetch(_FIND_MARKED, _PREFIX, _MAX_ORPHANS)
            marked = [lease for row in rows if (lease := self._lease_of(row["name"], row["mark"]))]
            if not marked:
                return 0
            # Asked after they were seen: the record of a lease is there before its role.
            leases = await asyncio.to_thread(known)
            orphans = [lease for lease in marked if lease not in leases]
            for lease in orphans:
                await self._end_by(main, address, lease)
            return len(orphans)

    def _lease_of(self, role: str, mark: str) -> str | None:
        """Read the comment of a role; none where the role is not ours."""
        try:
            said = json.loads(mark)
            lease = str(said["lease"])
        except (ValueError, LookupError, TypeError, RecursionError):
            return None
        ours = mark == self._mark(lease) and role == self.name_of(lease)
        return lease if ours else None

    # --- connections

    def _run(self, within: float, work: Callable[[ServerAddress], Awaitable[_T]]) -> _T:
        from asyncpg import InterfaceError, PostgresError  # noqa: PLC0415 - an extra

        limit = min(within, self._settings.timeout)

        async def bounded() -> _T:
            async with asyncio.timeout(limit):
                return await work(address)

        try:
            address = ServerAddress.parse(read_secret(self._settings.dsn_file))
        except (BrokerError, SecretFileError) as error:
            raise BrokerError(f"broker `{self.name}`: {error}") from error
        try:
            return asyncio.run(bounded())
        except TimeoutError as error:
            raise BrokerError(f"broker `{self.name}` took longer than {limit:.3g} s") from error
        except BrokerError as error:
            raise BrokerError(f"broker `{self.name}`: {error}") from error
        except (PostgresError, InterfaceError, OSError) as error:
            raise BrokerError(self._said(error, address)) from error

    def _said(self, error: BaseException, address: ServerAddress) -> str:
        said = " ".join(str(error).split())[:_MAX_SAID] or type(error).__name__
        if address.password:
            said = said.replace(address.password, "(redacted)")
        return f"broker `{self.name}`: {said}"

    @asynccontextmanager
    async def _connected(self, address: ServerAddress, database: str) -> AsyncIterator[Any]:
        import asyncpg  # noqa: PLC0415 - an extra

        limit = self._settings.timeout
        milliseconds = str(round(limit * 1000))
        connection = await asyncpg.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            # Nothing that is left open here would be looked up in the environment.
            password=address.password,
            database=database,
            ssl=address.context() or False,
            direct_tls=False,
            target_session_attrs="read-write",
            timeout=limit,
            statement_cache_size=0,
            server_settings={
                "application_name": "authz",
                # No function or operator of anyone else stands in for the server's own.
                "search_path": "pg_catalog",
                "statement_timeout": milliseconds,
                "lock_timeout": milliseconds,
                "idle_in_transaction_session_timeout": milliseconds,
            },
        )
        try:
            yield connection
        finally:
            # Gone at once: a server that does not answer holds nobody up, and locks end with the session.
            connection.terminate()


async def _say(connection: Any, statement: str, *values: str) -> None:
    """Run a statement whose names and literals the server quotes."""
    await connection.execute(await connection.fetchval(_FORMAT, statement, list(values)))


async def _end_sessions(main: Any, oid: int) -> None:
    while await main.fetchval(_END_SESSIONS, oid):  # noqa: ASYNC110 - nothing tells when one is gone
        await asyncio.sleep(_PAUSE)


async def _grant(there: Any, role: str, database: str, grants: Sequence[Grant]) -> None:
    """Grant exactly what is configured; a server that grants less says so in a warning alone."""
    warned: list[str] = []

    def listen(_connection: object, message: Any) -> None:
        if message.sqlstate == _NOT_ALL_GRANTED:
            warned.append(str(message))

    if not grants:
        return
    there.add_log_listener(listen)
    may_connect = "SELECT pg_catalog.has_database_privilege($1, $2, 'CONNECT')"
    if not await there.fetchval(may_connect, role, database):
        await _say(there, "GRANT CONNECT ON DATABASE %I TO %I", database, role)
    for schema in _schemas(grants):
        may_use = "SELECT pg_catalog.has_schema_privilege($1, $2, 'USAGE')"
        if not await there.fetchval(may_use, role, schema):
            await _say(there, "GRANT USAGE ON SCHEMA %I TO %I", schema, role)
    for grant in grants:
        for statement, values in _statements(grant):
            await _say(there, statement, *values, role)
    # Warnings come with the answers, and are heard before the next one.
    await there.fetchval("SELECT 1")
    await asyncio.sleep(0)
    there.remove_log_listener(listen)
    if warned:
        raise BrokerError("its own role may not grant all that is configured")


def _schemas(grants: Iterable[Grant]) -> list[str]:
    named = chain.from_iterable((*grant.tables, *grant.sequences) for grant in grants)
    return sorted({name.partition(".")[0] for name in named})


def _statements(grant: Grant) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Say what grants one entry; `%I` at the end is the role."""
    # A closed set: no text of a configuration stands in a statement unquoted.
    for privilege in (one.value for one in grant.privileges):
        for table in grant.tables:
            schema, _, name = table.partition(".")
            if name == "*":
                yield f"GRANT {privilege} ON ALL TABLES IN SCHEMA %I TO %I", (schema,)
            elif grant.columns:
                places = ", ".join("%I" for _ in grant.columns)
                values = (*grant.columns, schema, name)
                yield f"GRANT {privilege} ({places}) ON TABLE %I.%I TO %I", values
            else:
                yield f"GRANT {privilege} ON TABLE %I.%I TO %I", (schema, name)
        for sequence in grant.sequences:
            schema, _, name = sequence.partition(".")
            yield f"GRANT {privilege} ON SEQUENCE %I.%I TO %I", (schema, name)
        for schema in grant.schemas:
            yield f"GRANT {privilege} ON SCHEMA %I TO %I", (schema,)


def scram_verifier(password: str, salt: bytes | None = None) -> str:
    """Write what PostgreSQL keeps of a password (RFC 5803).

    Args:
        password: ASCII.
        salt: Salt; none: random.

    Returns:
        `SCRAM-SHA-256$…`, by which nobody can sign on.
    """
    salt = salt if salt is not None else secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _SCRAM_ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    words = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{words[0]}${words[1]}:{words[2]}"
