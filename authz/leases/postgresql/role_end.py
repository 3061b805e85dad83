"""Ends the access of a leased role: its log-in, its sessions and its prepared transactions."""

import asyncio
from typing import Any, Final

from authz.leases.postgresql.connections import ServerConnections, run_statement
from authz.leases.postgresql.retries import PAUSE
from authz.leases.postgresql.role_marks import RoleMarks
from authz.leases.postgresql.role_removal import roll_back_prepared
from authz.leases.postgresql.server_address import ServerAddress
from authz.leases.protocol import BrokerError

__all__ = ["RoleEnd", "end_sessions", "join_role"]

_SET_OPTION_SINCE: Final = 16
# A backend that had passed the log-in check when the log-in ended is seen a moment later.
_QUIET_LOOKS: Final = 3
_FIND_ROLE: Final = """
SELECT r.oid, pg_catalog.shobj_description(r.oid, 'pg_authid') AS mark,
       r.rolcanlogin OR r.rolconnlimit <> 0 AS is_open, pg_catalog.pg_has_role(r.oid, 'USAGE') AS is_ours
FROM pg_catalog.pg_roles r WHERE r.rolname = $1
"""
_FIND_PREPARED: Final = (
    "SELECT DISTINCT p.database AS name FROM pg_catalog.pg_prepared_xacts p WHERE p.owner = $1"
)
_END_SESSIONS: Final = """
SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(a.pid)) FROM pg_catalog.pg_stat_activity a WHERE a.usesysid = $1
"""


class RoleEnd:
    """Ends the access of the roles of one server.

    Args:
        marks: Names and comments of the roles.
        connections: Connections to the server.
    """

    def __init__(self, marks: RoleMarks, connections: ServerConnections) -> None:
        self._marks = marks
        self._connections = connections

    async def find(self, main: Any, lease: str) -> Any:
        """Return the row of a lease's role, or None where there is no such role.

        Raises:
            BrokerError: The role has another comment than ours.
        """
        role = self._marks.name_of(lease)
        row = await main.fetchrow(_FIND_ROLE, role)
        if row is not None and self._marks.lease_of(role, row["mark"] or "") != lease:
            raise BrokerError(f"role `{role}` does not bear our mark, and is left alone")
        return row

    async def stop(self, address: ServerAddress, lease: str) -> None:
        """End the access of a lease's role, which may be missing."""
        role = self._marks.name_of(lease)
        row = await self._find_made(address, lease)
        if row is None:
            return
        is_open, quiet = row["is_open"], 0
        while is_open or quiet < _QUIET_LOOKS:
            async with self._connections.kept(address) as kept:
                # Sessions first, which waits for nothing: one of them may hold the lock that the next statement needs.
                sessions = await end_sessions(kept, row["oid"])
                if is_open:
                    is_open = not await _end_log_in(kept, role)
                prepared = await kept.fetch(_FIND_PREPARED, role) if is_open else ()
            for transaction in prepared:
                async with self._connections.opened(address, transaction["name"]) as there:
                    await roll_back_prepared(there, role)
            quiet = 0 if sessions or is_open else quiet + 1
            if is_open or quiet < _QUIET_LOOKS:
                await asyncio.sleep(PAUSE)

    async def _find_made(self, address: ServerAddress, lease: str) -> Any:
        """Return the row of a lease's role as soon as nobody is making it any more."""
        role = self._marks.name_of(lease)
        while True:
            async with self._connections.kept(address) as kept:
                row = await self.find(kept, lease)
                if row is None and await _is_free(kept, role):
                    return None
                if row is not None:
                    if not row["is_ours"]:
                        await join_role(kept, role)
                    return row
            await asyncio.sleep(PAUSE)


async def end_sessions(connection: Any, role_oid: int) -> int:
    """End the sessions of a role; return their number."""
    ended: int = await connection.fetchval(_END_SESSIONS, role_oid)
    return ended


async def join_role(connection: Any, role: str) -> None:
    """Make the broker's own role a member of a leased one."""
    has_options = connection.get_server_version().major >= _SET_OPTION_SINCE
    options = " WITH INHERIT TRUE, SET TRUE" if has_options else ""
    await run_statement(connection, f"GRANT %I TO CURRENT_USER{options}", role)


async def _is_free(connection: Any, role: str) -> bool:
    """Return whether a role neither exists nor is being made in a transaction that is still open: its name can be taken."""
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


async def _end_log_in(connection: Any, role: str) -> bool:
    """Try to end the log-in of a role; return whether it has ended."""
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
