"""Leases login roles of a PostgreSQL server: one role for each lease, with the grants of the permitted operation and a random password.

No text of a caller is part of a statement: names come from the configuration, the role's name from the lease's id, and the
server itself quotes them. The password reaches the server as a SCRAM verifier, so that no log of statements holds it.
"""

import importlib.util
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from threading import Event
from typing import Any, TypeVar

from authz.config import Broker
from authz.errors import ConfigError
from authz.files import PrivateFileError, read_secret
from authz.leases.postgresql.connections import BrokerLoop, ServerConnections
from authz.leases.postgresql.retries import server_errors
from authz.leases.postgresql.role_creation import RoleCreation
from authz.leases.postgresql.role_end import RoleEnd
from authz.leases.postgresql.role_grants import MARK, PREFIX
from authz.leases.postgresql.role_marks import RoleMarks
from authz.leases.postgresql.server_address import ServerAddress, broker_address
from authz.leases.postgresql.server_inspection import ServerInspection
from authz.leases.postgresql.stopped_roles import StoppedRoles
from authz.leases.protocol import (
    BrokerError,
    LeaseOrder,
    NothingMadeError,
    NotRemovedError,
    UnreachableError,
)
from authz.model import Diagnostic

__all__ = ["PostgresqlBroker"]

_T = TypeVar("_T")


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
            raise ConfigError((Diagnostic(what, fix="pip install 'authz-runtime[postgresql]'."),))
        self.name = name
        self._settings = settings
        self._marks = RoleMarks(owner, name)
        self._grants = {
            operation: grants
            for system in settings.systems.values()
            for operation, grants in system.operations.items()
        }
        self._loop = BrokerLoop(f"authz-broker-{name}")
        self._connections = ServerConnections(settings.timeout, PREFIX, MARK)
        self._creation = RoleCreation(settings, self._marks, self._connections)
        self._role_end = RoleEnd(self._marks, self._connections)
        self._stopped = StoppedRoles(self._marks, self._connections, self._role_end)

    def serves(self, operation: str) -> bool:
        """Return whether an operation has grants."""
        return operation in self._grants

    def name_of(self, lease: str) -> str:
        """Return the name of a lease's role."""
        return self._marks.name_of(lease)

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
            return self._run(
                within, lambda address: self._creation.make(address, order, grants, begun)
            )
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
        self._run(within, lambda address: self._role_end.stop(address, lease))

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
            return self._run(within, lambda address: self._stopped.remove(address, lease))
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
        marked = self._run(within, self._stopped.list_marked)
        if not marked:
            return 0
        # Read after the roles were listed: the record of a lease is committed before its role is made.
        leases = known()
        orphans = {lease: role for role, lease in marked.items() if lease not in leases}
        ended = 0
        failure: BrokerError | None = None
        # Roles that were left before come last: they may take all of the time, and give no access.
        for lease, role in sorted(orphans.items(), key=lambda pair: self._stopped.is_left(pair[1])):
            if (left := until - time.monotonic()) <= 0:
                break
            was_left = self._stopped.is_left(role)
            try:
                is_gone = self._end(lease, left)
                ended += is_gone or not was_left
            except UnreachableError:
                raise
            except BrokerError as error:
                failure = error
        self._run(within, self._stopped.drop_together)
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
            most = await self._creation.room(main)
        if most < self._settings.connections:
            problems.append(f"leases may hold {most} connections in all: too few for one of them")
        if kept := self._stopped.problem():
            problems.append(kept)
        return tuple(f"broker `{self.name}`: {problem}" for problem in problems)

    # --- calls

    def _run(self, within: float, work: Callable[[ServerAddress], Awaitable[_T]]) -> _T:
        limit = min(within, self._settings.timeout)
        try:
            address = broker_address(read_secret(self._settings.dsn_file))
        except (BrokerError, PrivateFileError) as error:
            raise UnreachableError(f"broker `{self.name}`: {error}") from error
        try:
            return self._loop.run(partial(work, address), limit)
        except TimeoutError as error:
            raise BrokerError(f"broker `{self.name}` took longer than {limit:.3g} s") from error
        except BrokerError as error:
            raise type(error)(f"broker `{self.name}`: {error}") from error
        except server_errors() as error:
            message = f"broker `{self.name}`: {address.error_text(error)}"
            raise BrokerError(message) from error
