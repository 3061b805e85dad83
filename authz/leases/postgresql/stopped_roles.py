"""Removes stopped roles with everything that they own, in every database.

A role that owns an object on which others depend stays, without log-in and without privileges, until nothing depends on it.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from authz.leases.postgresql.connections import ServerConnections, run_statement
from authz.leases.postgresql.retries import repeat, server_errors
from authz.leases.postgresql.role_end import RoleEnd, end_sessions
from authz.leases.postgresql.role_grants import COMMENTS, IS_LEASED
from authz.leases.postgresql.role_marks import RoleMarks
from authz.leases.postgresql.role_removal import RoleRemoval
from authz.leases.postgresql.server_address import ServerAddress
from authz.leases.protocol import BrokerError

__all__ = ["StoppedRoles"]

_PAGE: Final = 1000
_ROLES_AT_ONCE: Final = 50
_FEWEST_TOGETHER: Final = 2
_MAX_SHOWN: Final = 300
_FIND_MARKED: Final = f"""
SELECT r.rolname AS name, d.description AS mark FROM pg_catalog.pg_roles r JOIN {COMMENTS}
WHERE {IS_LEASED} AND r.rolname > $1 ORDER BY r.rolname LIMIT $2
"""  # noqa: S608 - constants
# Everything that depends on a role, in each database: objects of its own, privileges that it was granted, prepared transactions.
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


class StoppedRoles:
    """Removes the roles of one server whose access has ended. Only the broker's event loop uses it.

    Args:
        marks: Names and comments of the roles.
        connections: Connections to the server.
        role_end: Ends sessions that a role opened meanwhile.
    """

    def __init__(self, marks: RoleMarks, connections: ServerConnections, role_end: RoleEnd) -> None:
        self._marks = marks
        self._connections = connections
        self._role_end = role_end
        # Roles that own objects on which others depend, and the objects.
        self._leftovers: dict[str, Sequence[str]] = {}

    def is_left(self, role: str) -> bool:
        """Return whether a role was kept because others depend on its objects."""
        return role in self._leftovers

    def problem(self) -> str | None:
        """Return the problem that roles were kept; `None` without such roles."""
        if not self._leftovers:
            return None
        names = ", ".join(name for kept in self._leftovers.values() for name in kept[:1])
        return (
            f"{len(self._leftovers)} roles of ended leases own objects that others depend on; they go with"
            f" DROP … CASCADE of these objects: {names[:_MAX_SHOWN]}"
        )

    async def list_marked(self, address: ServerAddress) -> dict[str, str]:
        """Return the leases of all roles of this broker, by name of the role."""
        leases: dict[str, str] = {}
        last = ""
        await self._connections.keep(address)
        async with self._connections.opened(address, address.database) as main:
            while rows := await main.fetch(_FIND_MARKED, last, _PAGE):
                for row in rows:
                    lease = self._marks.lease_of(row["name"], row["mark"])
                    if lease is not None:
                        leases[row["name"]] = lease
                last = rows[-1]["name"]
        self._leftovers = {role: kept for role, kept in self._leftovers.items() if role in leases}
        return leases

    async def remove(self, address: ServerAddress, lease: str) -> bool:
        """Remove a stopped role; return whether it is gone: a role that others depend on stays."""
        from asyncpg.exceptions import UndefinedObjectError  # noqa: PLC0415 - an extra

        async with self._connections.opened(address, address.database) as main:
            try:
                return await repeat(partial(self._remove_by, main, address, lease))
            except UndefinedObjectError:
                # Another node removes it, too.
                if await self._role_end.find(main, lease) is None:
                    return True
                raise

    async def _remove_by(self, main: Any, address: ServerAddress, lease: str) -> bool:
        role = self._marks.name_of(lease)
        row = await self._role_end.find(main, lease)
        if row is None:
            self._leftovers.pop(role, None)
            return True
        if await end_sessions(main, row["oid"]):
            await self._role_end.stop(address, lease)
        kept = await self._remove_objects(main, address, role, row["oid"])
        if kept:
            self._leftovers[role] = kept
            return False
        await run_statement(main, "DROP ROLE %I", role)
        self._leftovers.pop(role, None)
        return True

    async def _remove_objects(
        self, main: Any, address: ServerAddress, role: str, oid: int
    ) -> list[str]:
        """Remove the objects and privileges of a role in each database; return the objects that others depend on."""
        errors: tuple[type[Exception], ...] = (BrokerError, *server_errors())
        kept: list[str] = []
        failure: Exception | None = None
        for database in await self._databases_of(main, address, [oid]):
            try:
                names = await self._remove_from(main, address, database, role, oid)
            except errors as error:
                # The rights that it has in the other databases end all the same.
                failure = failure or error
            else:
                kept += [f"{name} in database `{database}`" for name in names]
        if failure is not None:
            raise failure
        return kept

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

    async def drop_together(self, address: ServerAddress) -> None:
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
                    with suppress(*server_errors()):
                        await run_statement(there, f"DROP OWNED BY {places}", *oids)
            owners = {row["oid"] for row in await main.fetch(_FIND_OWNERS, list(oids.values()))}
            for name in [name for name, oid in oids.items() if oid not in owners]:
                with suppress(*server_errors()):
                    await run_statement(main, "DROP ROLE %I", name)
                    del self._leftovers[name]
