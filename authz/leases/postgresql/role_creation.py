"""Makes the role of a lease: within the connections that leases may hold, and with its grants in each database."""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from threading import Event
from typing import Any, Final

from authz.config import Broker, Grant, Privilege
from authz.leases.postgresql.connections import ServerConnections, run_statement
from authz.leases.postgresql.retries import repeat
from authz.leases.postgresql.role_end import join_role
from authz.leases.postgresql.role_grants import COMMENTS, IS_LEASED, RoleGrants
from authz.leases.postgresql.role_marks import RoleMarks, holder_mark
from authz.leases.postgresql.scram import scram_verifier
from authz.leases.postgresql.server_address import ServerAddress
from authz.leases.postgresql.server_inspection import MINIMUM_VERSION, creation_rights
from authz.leases.protocol import LeaseOrder, NothingMadeError

__all__ = ["RoleCreation"]

_PASSWORD_BYTES: Final = 32
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


class RoleCreation:
    """Makes roles on one server. Only the broker's event loop uses it.

    Args:
        settings: The broker's configuration.
        marks: Names and comments of the roles.
        connections: Connections to the server.
    """

    def __init__(self, settings: Broker, marks: RoleMarks, connections: ServerConnections) -> None:
        self._settings = settings
        self._marks = marks
        self._connections = connections
        # Holders of leases whose roles are being made.
        self._making: dict[str, str] = {}

    async def make(
        self, address: ServerAddress, order: LeaseOrder, grants: Sequence[Grant], begun: Event
    ) -> Mapping[str, str]:
        """Make the role of a lease; return the secret in named parts.

        Args:
            address: The server.
            order: The order.
            grants: Grants of the operation.
            begun: Set before the first statement that may leave something behind.

        Raises:
            NothingMadeError: The server is too old, or too few connections are left.
        """
        role, password = self._marks.name_of(order.lease), secrets.token_urlsafe(_PASSWORD_BYTES)
        by_database = _by_database(grants, address.database)
        elsewhere = by_database.keys() - {address.database}
        with self._being_made(order):
            # A role that could not be ended must not be made: that needs the kept connection.
            await self._connections.keep(address)
            async with self._connections.opened(address, address.database) as main:
                await self._check_server(main, order)
                begun.set()
                create = partial(
                    self._create, main, order, scram_verifier(password), can_log_in=not elsewhere
                )
                own = by_database.get(address.database, ())
                await repeat(partial(create, address.database, own))
                for name in elsewhere:
                    await self._grant_elsewhere(address, role, name, by_database[name])
                if elsewhere:
                    # Not before it has all its grants. If it was stopped meanwhile, its password is gone for good.
                    await run_statement(main, "ALTER ROLE %I LOGIN", role)
        return {
            "username": role,
            "password": password,
            "host": address.host,
            "port": str(address.port),
            "database": address.database,
        }

    async def room(self, main: Any) -> int:
        """Return the connections that leases may hold in all."""
        return self._most_connections((await main.fetchrow(_ROOM, ""))["usable"])

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
        row = await main.fetchrow(_ROOM, holder_mark(order.holder))
        most, each = self._most_connections(row["usable"]), self._settings.connections
        others = [holder for lease, holder in self._making.items() if lease != order.lease]
        free = most - row["leased"] - each * len(others)
        if each > free:
            raise NothingMadeError(
                f"leases may hold {most} connections in all, and too few of them are left; see `max_connections`"
            )
        held = row["held"] + each * others.count(order.holder)
        # Agents share the connections that are left: each may hold at most as many as stay free.
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
        order: LeaseOrder,
        verifier: str,
        database: str,
        grants: Sequence[Grant],
        *,
        can_log_in: bool,
    ) -> None:
        role = self._marks.name_of(order.lease)
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
            comment = self._marks.comment_of(order.lease, order.holder)
            await run_statement(main, "COMMENT ON ROLE %I IS %L", role, comment)
            # A member may end its sessions and drop its objects: from the start, so that stopping it needs no lock.
            await join_role(main, role)
            await self._grant(main, role, database, grants)
            if can_log_in:
                await run_statement(main, "ALTER ROLE %I LOGIN", role)

    async def _grant_elsewhere(
        self, address: ServerAddress, role: str, database: str, grants: Sequence[Grant]
    ) -> None:
        async def grant() -> None:
            async with there.transaction():
                await self._grant(there, role, database, grants)

        async with self._connections.opened(address, database) as there:
            await repeat(grant)

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


def _by_database(grants: Iterable[Grant], main: str) -> dict[str, list[Grant]]:
    sorted_grants: dict[str, list[Grant]] = {}
    for grant in grants:
        sorted_grants.setdefault(grant.database or main, []).append(grant)
    return sorted_grants
