"""Leases login roles of a PostgreSQL server: one role for each lease, with the grants of the permitted operation and a random password.

No text of a caller is part of a statement: names come from the configuration, the role's name from the lease's id, and the
server itself quotes them. The password reaches the server as a SCRAM verifier, so that no log of statements holds it.
"""

import asyncio
import base64
import hashlib
import hmac
import importlib.util
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from threading import Event
from typing import Any, Final, TypeVar

from authz.config import Broker, Grant, Privilege
from authz.errors import ConfigError
from authz.files import PrivateFileError, read_secret
from authz.leases.postgresql.connections import (
    BrokerLoop,
    ServerConnections,
    error_text,
    run_statement,
)
from authz.leases.postgresql.role_grants import COMMENTS, IS_LEASED, MARK, PREFIX, RoleGrants
from authz.leases.postgresql.role_removal import RoleRemoval, roll_back_prepared
from authz.leases.postgresql.server_address import ServerAddress
from authz.leases.postgresql.server_inspection import (
    MINIMUM_VERSION,
    ServerInspection,
    creation_rights,
)
from authz.leases.protocol import (
    BrokerError,
    LeaseOrder,
    NothingMadeError,
    NotRemovedError,
    UnreachableError,
)
from authz.model import Diagnostic

__all__ = ["PostgresqlBroker", "scram_verifier"]

_T = TypeVar("_T")

_NAME_DIGITS: Final = 40
_HOLDER_DIGITS: Final = 16
_PASSWORD_BYTES: Final = 32
_SCRAM_ITERATIONS: Final = 4096
_PAGE: Final = 1000
_ROLES_AT_ONCE: Final = 50
_FEWEST_TOGETHER: Final = 2
_MAX_SHOWN: Final = 300
_TRIES: Final = 20
_SET_OPTION_SINCE: Final = 16
_PAUSE: Final = 0.01
# A backend that had passed the log-in check when the log-in ended is seen a moment later.
_QUIET_LOOKS: Final = 3
_FIND_ROLE: Final = """
SELECT r.oid, pg_catalog.shobj_description(r.oid, 'pg_authid') AS mark,
       r.rolcanlogin OR r.rolconnlimit <> 0 AS is_open, pg_catalog.pg_has_role(r.oid, 'USAGE') AS is_ours
FROM pg_catalog.pg_roles r WHERE r.rolname = $1
"""
_FIND_MARKED: Final = f"""
SELECT r.rolname AS name, d.description AS mark FROM pg_catalog.pg_roles r JOIN {COMMENTS}
WHERE {IS_LEASED} AND r.rolname > $1 ORDER BY r.rolname LIMIT $2
"""  # noqa: S608 - constants
# What depends on a role, in whichever database: objects of its own, privileges that it was granted, prepared transactions.
_FIND_DATABASES: Final = """
SELECT d.datname AS name
FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_database d ON d.oid = s.dbid
WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid = ANY ($1::pg_catalog.oid[])
UNION
SELECT p.database FROM pg_catalog.pg_prepared_xacts p JOIN pg_catalog.pg_roles r ON r.rolname = p.owner
WHERE r.oid = ANY ($1::pg_catalog.oid[])
"""
_FIND_ROLES: Final = """
SELECT r.rolname AS name, r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = ANY ($1::pg_catalog.name[])
"""
_FIND_OWNERS: Final = """
SELECT DISTINCT s.refobjid AS oid FROM pg_catalog.pg_shdepend s
WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid = ANY ($1::pg_catalog.oid[])
"""
_FIND_PREPARED: Final = (
    "SELECT DISTINCT p.database AS name FROM pg_catalog.pg_prepared_xacts p WHERE p.owner = $1"
)
_END_SESSIONS: Final = """
SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(a.pid)) FROM pg_catalog.pg_stat_activity a WHERE a.usesysid = $1
"""
_ROOM: Final = f"""
SELECT pg_catalog.current_setting('max_connections')::pg_catalog.int4
     - pg_catalog.current_setting('superuser_reserved_connections')::pg_catalog.int4
     - COALESCE(pg_catalog.current_setting('reserved_connections', true), '0')::pg_catalog.int4 AS usable,
  (SELECT COALESCE(pg_catalog.sum(r.rolconnlimit), 0)::pg_catalog.int8
   FROM pg_catalog.pg_roles r JOIN {COMMENTS} WHERE {IS_LEASED} AND r.rolconnlimit > 0) AS leased,
  (SELECT COALESCE(pg_catalog.sum(r.rolconnlimit), 0)::pg_catalog.int8
   FROM pg_catalog.pg_roles r JOIN {COMMENTS} WHERE {IS_LEASED} AND r.rolconnlimit > 0
     AND pg_catalog.strpos(d.description, $1) > 0) AS held
"""  # noqa: S608 - constants


class PostgresqlBroker:
    """The roles of one server.

    Args:
        name: Name of the broker in the configuration.
        settings: Its configuration.
        owner: Name of this deployment among others that lease roles of the same server; it is in the comment of each role.

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
        self._loop = BrokerLoop(f"authz-broker-{name}")
        self._connections = ServerConnections(settings.timeout, PREFIX, MARK)
        # Holders of leases whose roles are being made. Only the loop's thread uses it.
        self._making: dict[str, str] = {}
        # Roles of ended leases that own objects on which others depend, and the objects. Only the loop's thread uses it.
        self._leftovers: dict[str, Sequence[str]] = {}

    def serves(self, operation: str) -> bool:
        """Return whether an operation has grants."""
        return operation in self._grants

    def name_of(self, lease: str) -> str:
        """Return the name of a lease's role."""
        digest = hashlib.sha256(f"{self._owner}\0{self.name}\0{lease}".encode()).hexdigest()
        return PREFIX + digest[:_NAME_DIGITS]

    def make(self, order: LeaseOrder, within: float) -> Mapping[str, str]:
        """Make the role of a lease.

        Args:
            order: The order.
            within: Seconds that it may take.

        Returns:
            `username`, `password`, `host`, `port`, `database`.

        Raises:
            NothingMadeError: No role was made.
            BrokerError: A role may have been made.
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

    def stop(self, lease: str, within: float) -> None:
        """End the log-in of a lease's role, and its sessions.

        Args:
            lease: The lease's id.
            within: Seconds that it may take.

        Raises:
            UnreachableError: The server does not let the broker in.
            BrokerError: The role may still be in use.
        """
        self._run(within, lambda address: self._stop(address, lease))

    def end(self, lease: str, within: float) -> None:
        """Remove the role of a lease: its log-in, its sessions, the objects that it owns, and the role itself.

        A role that owns an object on which objects of others depend stays as the owner of that object, without log-in and
        without privileges, until nothing depends on it any more.

        Args:
            lease: Id of the lease.
            within: Seconds that it may take.

        Raises:
            NotRemovedError: The role gives no access, but still exists.
            UnreachableError: The server does not let the broker in.
            BrokerError: The role may still be in use.
        """
        self._end(lease, within)

    def _end(self, lease: str, within: float) -> bool:
        """Remove a role; return whether it is gone. A role on whose objects others depend is not."""
        self.stop(lease, within)
        try:
            return self._run(within, lambda address: self._remove(address, lease))
        except BrokerError as error:
            # Also if no connection is left for the removal: the kept connection has just ended the access.
            raise NotRemovedError(f"{error}; its access has ended") from error

    def end_orphans(self, known: Callable[[], frozenset[str]], within: float) -> int:
        """Remove the roles of this deployment that have no lease.

        Args:
            known: Returns the ids of all leases.
            within: Seconds that it may take.

        Returns:
            The number of removed roles.

        Raises:
            BrokerError: The roles cannot be listed, or one of them may still exist.
        """
        until = time.monotonic() + within
        marked = self._run(within, self._marked)
        if not marked:
            return 0
        # Read after the roles were listed: the record of a lease is committed before its role is made.
        leases = known()
        orphans = {lease: role for role, lease in marked.items() if lease not in leases}
        ended = 0
        failure: BrokerError | None = None
        # Roles that were left before come last: they may take all of the time, and give no access.
        for lease, role in sorted(orphans.items(), key=lambda pair: pair[1] in self._leftovers):
            if (left := until - time.monotonic()) <= 0:
                break
            was_left = role in self._leftovers
            try:
                is_gone = self._end(lease, left)
                ended += is_gone or not was_left
            except UnreachableError:
                raise
            except BrokerError as error:
                failure = error
        self._run(within, self._drop_together)
        if failure is not None:
            raise failure
        return ended

    def inspect(self, within: float) -> tuple[str, ...]:
        """Return settings of the server by which every role can create objects, and objects that ended leases left.

        Args:
            within: Seconds that it may take.

        Returns:
            One line for each problem, with the statement that fixes it.

        Raises:
            BrokerError: The settings cannot be read.
        """
        return self._run(within, self._inspect)

    def close(self) -> None:
        """Close the kept connection; roles stay as they are."""
        self._loop.close(self._connections.close)

    # --- making

    async def _make(
        self, address: ServerAddress, order: LeaseOrder, grants: Sequence[Grant], begun: Event
    ) -> Mapping[str, str]:
        role, password = self.name_of(order.lease), secrets.token_urlsafe(_PASSWORD_BYTES)
        verifier = scram_verifier(password)
        there = _by_database(grants, address.database)
        elsewhere = there.keys() - {address.database}
        with self._being_made(order):
            # What cannot be ended is not made.
            await self._connections.keep(address)
            async with self._connections.opened(address, address.database) as main:
                await self._check_server(main, order)
                begun.set()
                await _repeat(partial(self._create, main, address, order, verifier, there))
                for name in elsewhere:
                    async with self._connections.opened(address, name) as other:
                        await _repeat(
                            partial(self._grant_elsewhere, other, role, name, there[name])
                        )
                if elsewhere:
                    # Not before it has all its grants. Where it was stopped meanwhile, its password is gone for good.
                    await run_statement(main, "ALTER ROLE %I LOGIN", role)
        return {
            "username": role,
            "password": password,
            "host": address.host,
            "port": str(address.port),
            "database": address.database,
        }

    @contextmanager
    def _being_made(self, order: LeaseOrder) -> Iterator[None]:
        self._making[order.lease] = order.holder
        try:
            yield
        finally:
            del self._making[order.lease]

    async def _check_server(self, main: Any, order: LeaseOrder) -> None:
        version = main.get_server_version().major
        if version < MINIMUM_VERSION:
            raise NothingMadeError(
                f"PostgreSQL {version} is too old: leases need {MINIMUM_VERSION} or newer"
            )
        row = await main.fetchrow(_ROOM, f'"holder": "{_digest_of(order.holder)}"')
        most, each = self._most_connections(row["usable"]), self._settings.connections
        others = [holder for lease, holder in self._making.items() if lease != order.lease]
        free = most - row["leased"] - each * len(others)
        if each > free:
            raise NothingMadeError(
                f"leases may hold {most} connections in all, and too few of them are left; see `max_connections`"
            )
        held = row["held"] + each * others.count(order.holder)
        # What the others leave is shared: an agent has at most as much of it as stays free.
        if held and held + each > free - each:
            raise NothingMadeError(
                f"leases may hold {most} connections in all, and the agent's have their share; see `max_connections`"
            )

    def _most_connections(self, usable: int) -> int:
        most = self._settings.max_connections
        return most if most is not None else usable // 2

    async def _create(
        self,
        main: Any,
        address: ServerAddress,
        order: LeaseOrder,
        verifier: str,
        grants: Mapping[str, Sequence[Grant]],
    ) -> None:
        role = self.name_of(order.lease)
        until = datetime.fromtimestamp(order.expires_at, UTC).isoformat()
        async with main.transaction():
            await run_statement(
                main,
                "CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS"
                " CONNECTION LIMIT %s PASSWORD %L VALID UNTIL %L",
                role,
                str(self._settings.connections),
                verifier,
                until,
            )
            mark = self._mark(order.lease, order.holder)
            await run_statement(main, "COMMENT ON ROLE %I IS %L", role, mark)
            # A member may end its sessions and drop what it owns: from the start, so that stopping it needs no lock.
            await _join(main, role)
            await self._grant(main, role, address.database, grants.get(address.database, ()))
            if not grants.keys() - {address.database}:
                await run_statement(main, "ALTER ROLE %I LOGIN", role)

    async def _grant_elsewhere(
        self, there: Any, role: str, database: str, grants: Sequence[Grant]
    ) -> None:
        async with there.transaction():
            await self._grant(there, role, database, grants)

    async def _grant(self, there: Any, role: str, database: str, grants: Sequence[Grant]) -> None:
        has_temporary = self._settings.temporary_tables
        await RoleGrants(there, role, database, has_temporary).run(grants)
        schemas = [
            schema
            for grant in grants
            if Privilege.CREATE in grant.privileges
            for schema in grant.schemas
        ]
        rights = await creation_rights(there, role, has_temporary=has_temporary, schemas=schemas)
        for right, remedy in rights:
            raise NothingMadeError(f"its roles could {right}, as PUBLIC may: {remedy}")

    def _mark(self, lease: str, holder: str = "") -> str:
        mark = {"authz": self._owner, "broker": self.name, "lease": lease}
        return json.dumps({**mark, "holder": _digest_of(holder)} if holder else mark)

    # --- taking back

    async def _find(self, main: Any, lease: str) -> Any:
        """Return the row of a lease's role, or None where there is no such role."""
        role = self.name_of(lease)
        found = await main.fetchrow(_FIND_ROLE, role)
        if found is not None and self._lease_of(role, found["mark"] or "") != lease:
            raise BrokerError(f"role `{role}` does not bear our mark, and is left alone")
        return found

    async def _find_made(self, address: ServerAddress, lease: str) -> Any:
        """Return the row of a lease's role as soon as nobody is making it any more."""
        role = self.name_of(lease)
        while True:
            async with self._connections.kept(address) as kept:
                found = await self._find(kept, lease)
                if found is None and await _is_free(kept, role):
                    return None
                if found is not None:
                    if not found["is_ours"]:
                        await _join(kept, role)
                    return found
            await asyncio.sleep(_PAUSE)

    async def _stop(self, address: ServerAddress, lease: str) -> Any:
        """End access. Returns the row of the role, or None where there is no such role."""
        role = self.name_of(lease)
        found = await self._find_made(address, lease)
        if found is None:
            return None
        is_open, quiet = found["is_open"], 0
        while is_open or quiet < _QUIET_LOOKS:
            async with self._connections.kept(address) as kept:
                # Sessions first, which waits for nothing: one of them may hold the lock that the next statement needs.
                sessions = await kept.fetchval(_END_SESSIONS, found["oid"])
                if is_open:
                    is_open = not await _close(kept, role)
                prepared = await kept.fetch(_FIND_PREPARED, role) if is_open else ()
            for row in prepared:
                async with self._connections.opened(address, row["name"]) as there:
                    await roll_back_prepared(there, role)
            quiet = 0 if sessions or is_open else quiet + 1
            if is_open or quiet < _QUIET_LOOKS:
                await asyncio.sleep(_PAUSE)
        return found

    async def _remove(self, address: ServerAddress, lease: str) -> bool:
        """Remove a stopped role; returns whether it is gone, which a role that others depend on is not."""
        from asyncpg.exceptions import UndefinedObjectError  # noqa: PLC0415 - an extra

        async with self._connections.opened(address, address.database) as main:
            try:
                return await _repeat(partial(self._remove_by, main, address, lease))
            except UndefinedObjectError:
                # Another node removes it, too.
                if await self._find(main, lease) is None:
                    return True
                raise

    async def _remove_by(self, main: Any, address: ServerAddress, lease: str) -> bool:
        role = self.name_of(lease)
        found = await self._find(main, lease)
        if found is None:
            self._leftovers.pop(role, None)
            return True
        if await main.fetchval(_END_SESSIONS, found["oid"]):
            await self._stop(address, lease)
        errors: tuple[type[Exception], ...] = (BrokerError, *_server_errors())
        kept: list[str] = []
        failure: Exception | None = None
        for database in await self._databases_of(main, address, [found["oid"]]):
            try:
                names = await self._remove_from(main, address, database, role, found["oid"])
            except errors as error:
                # The rights that it has in the other databases end all the same.
                failure = failure or error
            else:
                kept += [f"{name} in database `{database}`" for name in names]
        if failure is not None:
            raise failure
        if kept:
            self._leftovers[role] = kept
            return False
        await run_statement(main, "DROP ROLE %I", role)
        self._leftovers.pop(role, None)
        return True

    async def _databases_of(
        self, main: Any, address: ServerAddress, roles: Sequence[int]
    ) -> list[str]:
        """List the databases that hold something of roles, after the broker's own."""
        rows = await main.fetch(_FIND_DATABASES, roles)
        return [address.database, *sorted({row["name"] for row in rows} - {address.database})]

    async def _remove_from(
        self, main: Any, address: ServerAddress, database: str, role: str, oid: int
    ) -> Sequence[str]:
        if database == address.database:
            return await RoleRemoval(main, role, oid).run()
        async with self._connections.opened(address, database) as there:
            return await RoleRemoval(there, role, oid).run()

    async def _drop_together(self, address: ServerAddress) -> None:
        """Drop roles that are kept only because of each other."""
        roles = sorted(self._leftovers)[:_ROLES_AT_ONCE]
        if len(roles) < _FEWEST_TOGETHER:
            return
        async with self._connections.opened(address, address.database) as main:
            rows = await main.fetch(_FIND_ROLES, roles)
            oids = {row["name"]: row["oid"] for row in rows}
            for database in await self._databases_of(main, address, list(oids.values())):
                async with self._connections.opened(address, database) as there:
                    places = ", ".join("%I" for _ in oids)
                    with suppress(*_server_errors()):
                        await run_statement(there, f"DROP OWNED BY {places}", *oids)
            left = {row["oid"] for row in await main.fetch(_FIND_OWNERS, list(oids.values()))}
            dropped = [name for name, oid in oids.items() if oid not in left]
            for name in dropped:
                with suppress(*_server_errors()):
                    await run_statement(main, "DROP ROLE %I", name)
                    del self._leftovers[name]

    async def _marked(self, address: ServerAddress) -> dict[str, str]:
        """Find all roles of ours; returns their leases by their names."""
        leases: dict[str, str] = {}
        last = ""
        await self._connections.keep(address)
        async with self._connections.opened(address, address.database) as main:
            while rows := await main.fetch(_FIND_MARKED, last, _PAGE):
                for row in rows:
                    lease = self._lease_of(row["name"], row["mark"])
                    if lease is not None:
                        leases[row["name"]] = lease
                last = rows[-1]["name"]
        self._leftovers = {role: kept for role, kept in self._leftovers.items() if role in leases}
        return leases

    def _lease_of(self, role: str, mark: str) -> str | None:
        """Return the lease in the comment of a role; `None` for a role of another deployment."""
        try:
            fields = json.loads(mark)
            lease = str(fields["lease"])
            is_ours = (fields["authz"], fields["broker"]) == (self._owner, self.name)
        except (ValueError, LookupError, TypeError, RecursionError):
            return None
        # A user who can write a comment cannot have another role dropped: the name follows from the lease.
        return lease if is_ours and role == self.name_of(lease) else None

    # --- how the server stands

    async def _inspect(self, address: ServerAddress) -> tuple[str, ...]:
        def opened(database: str) -> AbstractAsyncContextManager[Any]:
            return self._connections.opened(address, database)

        async with opened(address.database) as main:
            databases = {
                grant.database or address.database
                for grants in self._grants.values()
                for grant in grants
            }
            inspection = ServerInspection(
                main, opened, databases | {address.database}, self._settings.temporary_tables
            )
            problems = await inspection.run()
            most = self._most_connections((await main.fetchrow(_ROOM, ""))["usable"])
        if most < self._settings.connections:
            problems.append(f"leases may hold {most} connections in all: too few for one of them")
        if self._leftovers:
            names = ", ".join(name for kept in self._leftovers.values() for name in kept[:1])
            problems.append(
                f"{len(self._leftovers)} roles of ended leases own objects that others depend on; they go with"
                f" DROP … CASCADE of these objects: {names[:_MAX_SHOWN]}"
            )
        return tuple(f"broker `{self.name}`: {problem}" for problem in problems)

    # --- calls

    def _run(self, within: float, work: Callable[[ServerAddress], Awaitable[_T]]) -> _T:
        limit = min(within, self._settings.timeout)
        try:
            address = ServerAddress.parse(read_secret(self._settings.dsn_file))
        except (BrokerError, PrivateFileError) as error:
            raise UnreachableError(f"broker `{self.name}`: {error}") from error
        try:
            return self._loop.run(partial(work, address), limit)
        except TimeoutError as error:
            raise BrokerError(f"broker `{self.name}` took longer than {limit:.3g} s") from error
        except BrokerError as error:
            raise type(error)(f"broker `{self.name}`: {error}") from error
        except _server_errors() as error:
            message = f"broker `{self.name}`: {error_text(error, address)}"
            raise BrokerError(message) from error


def _server_errors() -> tuple[type[Exception], ...]:
    from asyncpg import InterfaceError, PostgresError  # noqa: PLC0415 - an extra

    return PostgresError, InterfaceError, OSError


async def _repeat(work: Callable[[], Awaitable[_T]]) -> _T:
    """Do it again where another transaction changed the same row of a catalog: PostgreSQL does not wait its turn there."""
    from asyncpg.exceptions import (  # noqa: PLC0415 - an extra
        DeadlockDetectedError,
        DependentObjectsStillExistError,
        InternalServerError,
        SerializationError,
    )

    # The last is of a lease that grants something of its own to a role which is being dropped.
    errors = (
        DeadlockDetectedError,
        InternalServerError,
        SerializationError,
        DependentObjectsStillExistError,
    )
    for _ in range(_TRIES - 1):
        try:
            return await work()
        except errors:
            await asyncio.sleep(_PAUSE * (1 + secrets.randbelow(4)))
    return await work()


async def _join(connection: Any, role: str) -> None:
    """Make the broker's own role a member of a leased one."""
    has_options = connection.get_server_version().major >= _SET_OPTION_SINCE
    options = " WITH INHERIT TRUE, SET TRUE" if has_options else ""
    await run_statement(connection, f"GRANT %I TO CURRENT_USER{options}", role)


async def _is_free(connection: Any, role: str) -> bool:
    """Tell whether a role is neither there nor in a transaction that is still open: its name can be taken."""
    from asyncpg.exceptions import (  # noqa: PLC0415 - an extra
        DuplicateObjectError,
        LockNotAvailableError,
        UniqueViolationError,
    )

    transaction = connection.transaction()
    await transaction.start()
    try:
        await run_statement(connection, "CREATE ROLE %I NOLOGIN", role)
    except (DuplicateObjectError, LockNotAvailableError, UniqueViolationError):
        return False
    finally:
        await transaction.rollback()
    return True


async def _close(connection: Any, role: str) -> bool:
    """Try to end the log-in of a role; returns whether it has ended."""
    from asyncpg.exceptions import (  # noqa: PLC0415 - an extra
        DeadlockDetectedError,
        InternalServerError,
        LockNotAvailableError,
        UndefinedObjectError,
    )

    try:
        await run_statement(
            connection,
            "ALTER ROLE %I NOLOGIN PASSWORD NULL CONNECTION LIMIT 0 VALID UNTIL '-infinity'",
            role,
        )
    except (DeadlockDetectedError, InternalServerError, LockNotAvailableError):
        # The role may change its own password, in a transaction that it leaves open or does again and again.
        return False
    except UndefinedObjectError:
        return True
    return True


def _digest_of(holder: str) -> str:
    return hashlib.sha256(holder.encode()).hexdigest()[:_HOLDER_DIGITS]


def _by_database(grants: Iterable[Grant], main: str) -> dict[str, list[Grant]]:
    sorted_grants: dict[str, list[Grant]] = {}
    for grant in grants:
        sorted_grants.setdefault(grant.database or main, []).append(grant)
    return sorted_grants


def scram_verifier(password: str, salt: bytes | None = None) -> str:
    """Return the form of a password that PostgreSQL stores (RFC 5803).

    Args:
        password: The password.
        salt: Salt. Default: random.
    """
    salt = salt if salt is not None else secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _SCRAM_ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    words = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{words[0]}${words[1]}:{words[2]}"
