"""A target that stores batches as rows of a PostgreSQL table, with a role that may only add rows; and the way back into files."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from authz.audit.delivery.batch import Batch
from authz.audit.delivery.target import DeliveryError, DeliveryErrorKind, Rejection
from authz.engine import ServerAddress
from authz.files import PrivateFileError, read_secret, reason_of

__all__ = ["FetchedBatches", "PostgresqlPlace", "PostgresqlTarget", "fetch_batches"]

_T = TypeVar("_T")

# Classes of SQLSTATE that pass by themselves: no resources, an operator stops the server, a failure of its disk.
_TEMPORARY: Final = frozenset({"08", "40", "53", "55", "57", "58"})

# The name of a batch ends in a part of its digest, so that a row with this name is the same batch.
_INSERT: Final = """
INSERT INTO {table} (node, name, kind, records, content) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING
"""
_NAMES: Final = "SELECT name FROM {table} WHERE node = $1 ORDER BY name"
_CONTENT: Final = "SELECT content FROM {table} WHERE node = $1 AND name = $2"
# Names as `batch` makes them. Other names could lead out of the folder.
_NAME: Final = re.compile(
    r"(?:records|heads)/[0-9A-Za-z][0-9A-Za-z.-]{0,127}/[0-9]{1,20}-(?P<digest>[0-9a-f]{16})\.ndjson"
)
_MAX_CONNECT_SECONDS: Final = 10.0
_RIGHTS: Final = """
SELECT pg_catalog.has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE, TRIGGER')
    OR pg_catalog.has_any_column_privilege(c.oid, 'UPDATE')
    OR pg_catalog.pg_has_role(c.relowner, 'MEMBER')
FROM pg_catalog.pg_class c WHERE c.oid = $1::pg_catalog.text::pg_catalog.regclass
"""


@dataclass(frozen=True, slots=True)
class PostgresqlPlace:
    """A table."""

    dsn_file: str
    """File with the connection string."""
    table: str
    """Name of the table, `schema.table`."""
    timeout: float = 10.0
    """Seconds for one delivery, the connection included."""


class PostgresqlTarget:
    """Adds each batch as a row. A batch that is repeated changes nothing.

    The role of the connection must not be able to change or remove rows. An intruder on the node could otherwise remove the
    evidence.

    Args:
        place: The table.
        node: Name of the node, a column of each row.

    Raises:
        ImportError: The extra `postgresql` is not installed.
    """

    def __init__(self, place: PostgresqlPlace, node: str) -> None:
        import asyncpg  # noqa: F401, PLC0415 - an extra

        self._place = place
        self._node = node

    def send(self, batch: Batch) -> Rejection | None:
        """Store a batch; see `Target`."""
        _with_connection(self._place, lambda connection: self._store(connection, batch))
        return None

    async def _store(self, connection: Any, batch: Batch) -> None:
        table = _quoted(self._place.table)
        if await connection.fetchval(_RIGHTS, table):
            raise DeliveryError(
                DeliveryErrorKind.REFUSED,
                f"the role of the sink may change or remove rows of {self._place.table}, or is a member of its owner: "
                "grant it INSERT alone",
            )
        await connection.execute(
            _INSERT.format(table=table),
            self._node,
            batch.name,
            str(batch.kind),
            batch.count,
            batch.content,
        )


@dataclass(slots=True)
class FetchedBatches:
    """Result of a fetch."""

    written: int = 0
    """Batches that were written into the folder."""
    kept: int = 0
    """Batches whose file was in the folder already."""
    changed: list[str] = field(default_factory=list)
    """Names of rows whose content is not the batch that was delivered under this name. Their files are not written."""
    unknown: list[str] = field(default_factory=list)
    """Names of rows that no node delivers. Their files are not written."""


def fetch_batches(
    place: PostgresqlPlace,
    node: str,
    folder: Path,
    progress: Callable[[int], None] = lambda _: None,
) -> FetchedBatches:
    """Write the batches of a node into a folder, as files under their names, so that they can be verified.

    Batches whose file exists are not fetched again.

    Args:
        place: The table. The role of the connection must be able to read it.
        node: Name of the node.
        folder: The folder; it is made.
        progress: Receives the number of bytes of each batch that was written.

    Raises:
        DeliveryError: The server was not reached, or refused it.
        OSError: A file cannot be written.
    """
    result = FetchedBatches()
    table = _quoted(place.table)

    async def run(connection: Any) -> None:
        for row in await connection.fetch(_NAMES.format(table=table), node):
            name = row["name"]
            shape = _NAME.fullmatch(name)
            if shape is None:
                result.unknown.append(name)
                continue
            file = folder / name
            if file.exists():
                result.kept += 1
                continue
            content = await connection.fetchval(_CONTENT.format(table=table), node, name)
            digest = hashlib.sha256(content or b"").hexdigest()
            if content is None or not digest.startswith(shape["digest"]):
                result.changed.append(name)
                continue
            _write(file, content)
            result.written += 1
            progress(len(content))

    _with_connection(place, run)
    return result


def _write(file: Path, content: bytes) -> None:
    """Write a file whole, or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    part.write_bytes(content)
    part.replace(file)


def _quoted(table: str) -> str:
    """Quote the name of a table: each part of it is an identifier."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in table.split("."))


def _with_connection(place: PostgresqlPlace, work: Callable[[Any], Awaitable[_T]]) -> _T:
    """Open a connection, run a coroutine with it, and return the result.

    Args:
        place: The table, whose timeout bounds all of it.
        work: Makes the coroutine.

    Raises:
        DeliveryError: The server was not reached, or refused it.
    """
    import asyncpg  # noqa: PLC0415 - an extra

    address = _read_address(place.dsn_file)

    async def run() -> _T:
        async with asyncio.timeout(place.timeout):
            connection = await _connect(address, place.timeout)
            try:
                return await work(connection)
            finally:
                connection.terminate()

    try:
        return asyncio.run(run())
    except asyncpg.PostgresError as error:
        kind = (
            DeliveryErrorKind.SERVER
            if str(error.sqlstate)[:2] in _TEMPORARY
            else DeliveryErrorKind.REFUSED
        )
        raise DeliveryError(kind, address.error_text(error)) from error
    except (asyncpg.InterfaceError, OSError) as error:
        # `TimeoutError` is an OSError.
        raise DeliveryError(DeliveryErrorKind.UNREACHABLE, address.error_text(error)) from error


async def _connect(address: ServerAddress, seconds: float) -> Any:
    import asyncpg  # noqa: PLC0415 - an extra

    try:
        context = address.context()
    except (OSError, ValueError, PrivateFileError) as error:
        text = f"a file of the connection's TLS cannot be used: {reason_of(error)}"
        raise DeliveryError(DeliveryErrorKind.CREDENTIAL, text) from error
    return await asyncpg.connect(
        **address.arguments(context),
        timeout=min(seconds, _MAX_CONNECT_SECONDS),
        statement_cache_size=0,
        server_settings={
            "application_name": "authz-audit",
            "search_path": "pg_catalog",
            "statement_timeout": str(round(seconds * 1000)),
            # An acknowledged batch survives a crash of the server.
            "synchronous_commit": "on",
        },
    )


def _read_address(file: str) -> ServerAddress:
    try:
        return ServerAddress.parse(read_secret(file))
    except PrivateFileError as error:
        raise DeliveryError(DeliveryErrorKind.CREDENTIAL, str(error)) from error
    except ValueError as error:
        text = f"{file}: the connection string {error}"
        raise DeliveryError(DeliveryErrorKind.CREDENTIAL, text) from None
