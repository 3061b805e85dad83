"""Connections of a broker to its PostgreSQL server, on an event loop of the broker's own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final, TypeVar

from authz.leases.postgresql.server_address import ServerAddress, tls_context
from authz.leases.protocol import BrokerError, UnreachableError

__all__ = ["BrokerLoop", "ServerConnections", "run_statement"]

_T = TypeVar("_T")

_PROBE_SECONDS: Final = 1.0
_CLOSE_SECONDS: Final = 5.0
# The kept connection serves every lease in turn: no statement on it waits for long.
_KEPT_LOCK_MS: Final = 100
_KEPT_STATEMENT_MS: Final = 1000
_MAX_LOCK_MS: Final = 1000
# How long a leased session may hold up the broker.
_GRACE_SECONDS: Final = 0.25

_FORMAT: Final = "SELECT pg_catalog.format($1::pg_catalog.text, VARIADIC $2::pg_catalog.text[])"
_END_BLOCKERS: Final = """
SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(a.pid))
FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids($1)) AS b (pid)
JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid
JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid
JOIN pg_catalog.pg_shdescription d ON d.objoid = r.oid AND d.classoid = 'pg_catalog.pg_authid'::pg_catalog.regclass
WHERE pg_catalog.starts_with(r.rolname, $2) AND pg_catalog.starts_with(d.description, $3)
  AND pg_catalog.pg_has_role(r.oid, 'USAGE')
"""


class BrokerLoop:
    """A thread with an event loop, so that a connection can be kept from one call to the next.

    Args:
        name: Name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def run(self, work: Callable[[], Awaitable[_T]], within: float) -> _T:
        """Run a coroutine on the loop, and wait for its result.

        Args:
            work: Makes the coroutine.
            within: Seconds that it may take.

        Returns:
            Its result.

        Raises:
            TimeoutError: It took longer.
            BrokerError: The loop was closed.
        """

        async def bounded() -> _T:
            async with asyncio.timeout(within):
                return await work()

        return asyncio.run_coroutine_threadsafe(bounded(), self._started()).result()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._is_closed:
                raise BrokerError("the node stops")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name=self._name, daemon=True
                )
                self._thread.start()
            return self._loop

    def close(self, last: Callable[[], Awaitable[None]]) -> None:
        """Stop the loop.

        Args:
            last: What runs before.
        """
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            self._is_closed = True
        if loop is None or thread is None:
            return

        async def finish() -> None:
            await last()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(finish(), loop).result(_CLOSE_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_CLOSE_SECONDS)
        if not thread.is_alive():
            loop.close()


class ServerConnections:
    """Opens connections to the server, and keeps one for ending access.

    Leases, or anybody else, can use up the connections that the server takes. The kept connection is open before that
    happens, so that the broker can always end sessions, which makes room for the others.

    Args:
        timeout: Seconds that opening a connection, or a statement, may take.
        prefix: How the names of leased roles begin.
        mark: How their comments begin.
    """

    def __init__(self, timeout: float, prefix: str, mark: str) -> None:
        self._timeout = timeout
        self._prefix = prefix
        self._mark = mark
        self._turn = asyncio.Lock()
        self._kept: Any = None
        self._kept_address: ServerAddress | None = None

    async def close(self) -> None:
        """Close the kept connection."""
        self._drop()

    @asynccontextmanager
    async def kept(self, address: ServerAddress) -> AsyncIterator[Any]:
        """Use the kept connection, in turn with others: for statements that wait for nothing.

        Args:
            address: The server.

        Yields:
            The connection, outside of a transaction.

        Raises:
            UnreachableError: No connection is free, and none can be opened.
        """
        async with self._turn:
            connection = await self._usable(address)
            is_answered = False
            try:
                yield connection
                is_answered = True
            except Exception as error:
                is_answered = _is_answer(error)
                raise
            finally:
                # After a time-out the server may still run the statement on this connection.
                if not is_answered:
                    self._drop()

    async def keep(self, address: ServerAddress) -> None:
        """Open the kept connection where it is not open.

        Args:
            address: The server.

        Raises:
            UnreachableError: It cannot be opened.
        """
        async with self.kept(address):
            pass

    async def _usable(self, address: ServerAddress) -> Any:
        kept = self._kept
        if kept is not None and self._kept_address == address and not kept.is_closed():
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    await kept.fetchval("SELECT 1")
            except Exception:  # noqa: BLE001 - a lasting error comes back with the next connection
                self._drop()
            else:
                return kept
        self._drop()
        self._kept = await self._connect(
            address, address.database, _KEPT_LOCK_MS, _KEPT_STATEMENT_MS
        )
        self._kept_address = address
        return self._kept

    def _drop(self) -> None:
        if self._kept is not None:
            self._kept.terminate()
            self._kept = None

    @asynccontextmanager
    async def opened(self, address: ServerAddress, database: str) -> AsyncIterator[Any]:
        """Open a connection for one piece of work, which leased sessions cannot hold up.

        A leased session that holds a lock which the connection waits for is ended.

        Args:
            address: The server.
            database: The database.

        Yields:
            The connection.

        Raises:
            UnreachableError: It cannot be opened.
        """
        milliseconds = round(self._timeout * 1000)
        connection = await self._connect(
            address, database, min(_MAX_LOCK_MS, milliseconds), milliseconds
        )
        done = asyncio.Event()
        guard = asyncio.create_task(self._end_blockers(address, connection, done))
        try:
            yield connection
        finally:
            done.set()
            # Gone at once: a server that does not answer holds nobody up, and locks end with the session.
            connection.terminate()
            await asyncio.wait({guard}, timeout=_GRACE_SECONDS)
            if not guard.cancel():
                # The work itself raises the error.
                guard.exception()

    async def _end_blockers(
        self, address: ServerAddress, connection: Any, done: asyncio.Event
    ) -> None:
        process = connection.get_server_pid()
        while True:
            try:
                async with asyncio.timeout(_GRACE_SECONDS):
                    await done.wait()
            except TimeoutError:
                async with self.kept(address) as kept:
                    await kept.fetchval(_END_BLOCKERS, process, self._prefix, self._mark)
            else:
                return

    async def _connect(
        self, address: ServerAddress, database: str, lock_ms: int, statement_ms: int
    ) -> Any:
        import asyncpg  # noqa: PLC0415 - an extra

        try:
            return await asyncpg.connect(
                **replace(address, database=database).arguments(tls_context(address)),
                timeout=self._timeout,
                statement_cache_size=0,
                server_settings={
                    "application_name": "authz",
                    # No function or operator of anyone else stands in for the server's own.
                    "search_path": "pg_catalog",
                    "statement_timeout": str(statement_ms),
                    "lock_timeout": str(lock_ms),
                    "idle_in_transaction_session_timeout": str(round(self._timeout * 1000)),
                },
            )
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise UnreachableError(address.error_text(error)) from error


def _is_answer(error: Exception) -> bool:
    from asyncpg import PostgresError  # noqa: PLC0415 - an extra

    return isinstance(error, PostgresError | BrokerError)


async def run_statement(connection: Any, statement: str, *values: str) -> None:
    """Run a statement whose names and literals the server quotes.

    Args:
        connection: To the server.
        statement: The statement, with `%I` for names and `%L` for literals.
        values: Values of the places, in order.
    """
    await connection.execute(await connection.fetchval(_FORMAT, statement, list(values)))
