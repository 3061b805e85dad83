"""`credentials.brokers` and `credentials.static_secrets`: secrets of systems that accept no tokens."""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from authz.config.document import Path
from authz.config.findings import Finding
from authz.config.types import (
    ENTRY_NAME,
    SYSTEM_ID,
    Duration,
    FilePath,
    HeaderName,
    Identifier,
    QualifiedName,
    Strict,
    SystemId,
)
from authz.model import system_of

__all__ = [
    "Broker",
    "BrokerKind",
    "BrokeredSystem",
    "Grant",
    "Privilege",
    "StaticSecret",
    "broker_findings",
]


class Privilege(StrEnum):
    """A privilege of PostgreSQL."""

    SELECT = "SELECT"
    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    TRUNCATE = "TRUNCATE"
    REFERENCES = "REFERENCES"
    TRIGGER = "TRIGGER"
    USAGE = "USAGE"
    CREATE = "CREATE"


class Grant(Strict):
    """Privileges of a leased role on one of `tables`, `sequences`, `schemas`.

    A grant includes the use of the schemas of its tables and sequences, and the connection to the database.
    """

    privileges: tuple[Privilege, ...] = Field(min_length=1, max_length=9)
    """On tables SELECT, INSERT, UPDATE, DELETE, TRUNCATE; on sequences USAGE, SELECT, UPDATE; on schemas USAGE, CREATE."""
    tables: tuple[QualifiedName, ...] = Field(default=(), max_length=1000)
    """Tables and views, `schema.table`; `schema.*`: all that the schema holds at the time."""
    columns: tuple[Identifier, ...] = Field(default=(), max_length=1000)
    """Only these columns of each table, for SELECT, INSERT and UPDATE."""
    sequences: tuple[QualifiedName, ...] = Field(default=(), max_length=1000)
    """Sequences, `schema.sequence`."""
    schemas: tuple[Identifier, ...] = Field(default=(), max_length=1000)
    """Schemas."""
    database: Identifier | None = None
    """The database of the objects. Default: that of `dsn_file`."""


class BrokeredSystem(Strict):
    """A system that accepts no tokens, and is reached with a leased secret."""

    operations: dict[str, Annotated[tuple[Grant, ...], Field(min_length=1, max_length=100)]] = (
        Field(min_length=1, max_length=1000)
    )
    """Grants of a lease, by operation. An operation that is missing here gets no lease."""


class BrokerKind(StrEnum):
    """Kind of a broker."""

    POSTGRESQL = "postgresql"


class Broker(Strict):
    """Makes a secret for each lease, and removes it when the task ends: a login role of PostgreSQL."""

    kind: BrokerKind
    """`postgresql`; needs the extra `postgresql`."""
    dsn_file: FilePath
    """File that holds the connection string of a role that may create roles: `postgresql://user:password@host/name?sslmode=…`.
    Only its owner may read it, or root's group; it is read anew for each connection."""
    systems: dict[str, BrokeredSystem] = Field(min_length=1, max_length=1000)
    """Systems whose secrets it makes."""
    connections: int = Field(default=4, ge=1, le=1000)
    """Most connections of the role of one lease."""
    max_connections: int | None = Field(default=None, ge=1, le=262_143)
    """Most connections of the roles of all leases of the server together. A lease that could exceed it is not made. Of the connections that
    others leave, the leases of one agent may hold half. Default: half of those that the server gives to ordinary roles.
    """
    temporary_tables: bool = False
    """Leased roles may create temporary tables."""
    reassign_to: Identifier | None = None
    """Not valid any more: objects that a leased role created are dropped with it, since they would run with the rights of a new owner."""
    timeout: Annotated[Duration, Field(ge=0.1, le=60)] = 5.0
    """Longest time to make or remove one secret. A removal that is not finished by then is tried again."""


class StaticSecret(Strict):
    """A static secret that requests get on permit. No agent ever holds it."""

    systems: tuple[SystemId, ...] = Field(min_length=1, max_length=1000)
    """Systems that are reached with it."""
    header: HeaderName
    """Name of the header that carries it, in lower case. The agent's own header of that name never passes."""
    secret_file: FilePath
    """File with the value of the header. Only its owner may read it, or root's group. It is read again when it changes."""


_OPERATION: Final = re.compile(rf"{SYSTEM_ID.pattern}\.[A-Za-z0-9_][A-Za-z0-9._/-]*")
_MAX_OPERATION: Final = 256
_MAX_IDENTIFIER: Final = 63
_MAX_DASHES: Final = 6
_TABLES: Final = frozenset(
    {
        Privilege.SELECT,
        Privilege.INSERT,
        Privilege.UPDATE,
        Privilege.DELETE,
        Privilege.TRUNCATE,
    }
)
# They put code of a lease (a trigger, a foreign key with triggers behind it) into the sessions of other roles that write the table.
_CODE_FOR_OTHERS: Final = frozenset({Privilege.TRIGGER, Privilege.REFERENCES})
# Other roles look up functions and tables there by their bare names.
_SHARED_SCHEMAS: Final = frozenset({"public", "pg_catalog", "information_schema"})
_SEQUENCES: Final = frozenset({Privilege.USAGE, Privilege.SELECT, Privilege.UPDATE})
_SCHEMAS: Final = frozenset({Privilege.USAGE, Privilege.CREATE})
_COLUMNS: Final = frozenset({Privilege.SELECT, Privilege.INSERT, Privilege.UPDATE})
# Headers that frame a message, say where it goes, or are Authz's own: an upstream would not read a key from them.
_RESERVED: Final = frozenset(
    [
        "connection",
        "content-length",
        "dpop",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
    ]
)
_RESERVED_PREFIXES: Final = ("authz-", "x-authz-", "x-envoy-", "x-forwarded-")


def broker_findings(
    path: Path, brokers: Mapping[str, Broker], static_secrets: Mapping[str, StaticSecret]
) -> Iterator[Finding]:
    """Find every defect of brokers and static secrets that the types cannot say.

    Args:
        path: Where they stand: the section that holds both.
        brokers: `brokers`.
        static_secrets: `static_secrets`.

    Yields:
        Each defect.
    """
    served: dict[str, str] = {}
    for name, broker in brokers.items():
        here = (*path, "brokers", name)
        yield from _name(here, name)
        for system, brokered in broker.systems.items():
            place = (*here, "systems", system)
            yield from _system(place, system)
            yield from _twice(place, system, name, served)
            for operation, grants in brokered.operations.items():
                inner = (*place, "operations", operation)
                yield from _operation(inner, system, operation)
                for index, grant in enumerate(grants):
                    yield from _grant((*inner, index), grant)
        if broker.reassign_to is not None:
            what = "`reassign_to` is not valid any more: the objects of a lease would run with the rights of their new owner."
            remedy = "Remove it. To keep results, grant `INSERT` on a table that exists."
            yield Finding((*here, "reassign_to"), what, remedy)
        yield from _connections(here, broker)
    for name, static_secret in static_secrets.items():
        here = (*path, "static_secrets", name)
        yield from _name(here, name)
        for index, system in enumerate(static_secret.systems):
            yield from _twice((*here, "systems", index), system, name, served)
        yield from _header((*here, "header"), static_secret.header)


def _connections(path: Path, broker: Broker) -> Iterator[Finding]:
    most = broker.max_connections
    if most is not None and most < broker.connections:
        what = f"`max_connections` is less than the {broker.connections} `connections` of one lease, so that none can be made."
        yield Finding((*path, "max_connections"), what, "Raise it, or lower `connections`.")


def _name(path: Path, name: str) -> Iterator[Finding]:
    if not ENTRY_NAME.fullmatch(name):
        what = f"`{name}` is not a valid name of a broker or static secret."
        yield Finding(path, what, "Lower-case letters, digits, `_` and `-`, a letter first.")


def _system(path: Path, system: str) -> Iterator[Finding]:
    if not SYSTEM_ID.fullmatch(system):
        what = f"`{system}` is not the id of a system."
        yield Finding(path, what, "Write the system's id, as in the bundle.")


def _twice(path: Path, system: str, name: str, served: dict[str, str]) -> Iterator[Finding]:
    before = served.setdefault(system, name)
    if before != name:
        what = f"the secrets of `{system}` come from `{before}` and from `{name}`."
        yield Finding(path, what, "Keep one of them.")


def _operation(path: Path, system: str, operation: str) -> Iterator[Finding]:
    if not _OPERATION.fullmatch(operation) or len(operation) > _MAX_OPERATION:
        yield Finding(
            path, f"`{operation}` is not the id of an operation.", f"Write `{system}.<name>`."
        )
    elif system_of(operation) != system:
        what = f"`{operation}` is not an operation of `{system}`, so no lease would ever have these grants."
        yield Finding(path, what, f"Move it to its own system, or write `{system}.<name>`.")


def _grant(path: Path, grant: Grant) -> Iterator[Finding]:
    kinds = {
        "tables": (grant.tables, _TABLES),
        "sequences": (grant.sequences, _SEQUENCES),
        "schemas": (grant.schemas, _SCHEMAS),
    }
    given = [kind for kind, (objects, _) in kinds.items() if objects]
    if len(given) != 1:
        what = "a grant is of one of `tables`, `sequences`, `schemas`."
        yield Finding(path, what, "Write one entry for each.")
        return
    kind = given[0]
    objects, allowed = kinds[kind]
    if grant.columns:
        allowed = _COLUMNS
        if kind != "tables" or any(name.endswith(".*") for name in objects):
            what = "`columns` are those of tables that are named one by one."
            yield Finding((*path, "columns"), what, "Name the tables, or remove `columns`.")
    for privilege in grant.privileges:
        if privilege in _CODE_FOR_OTHERS:
            what = f"`{privilege}` would let a lease put code behind tables that others write."
            yield Finding((*path, "privileges"), what, f"Remove `{privilege}`.")
        elif privilege not in allowed:
            of = "columns" if grant.columns else kind
            what = f"`{privilege}` is not a privilege on {of}."
            yield Finding((*path, "privileges"), what, f"One of {', '.join(sorted(allowed))}.")
    if Privilege.CREATE in grant.privileges:
        for schema in _SHARED_SCHEMAS.intersection(grant.schemas):
            what = f"`CREATE` on schema `{schema}` would let a lease replace objects that other roles look up there."
            yield Finding((*path, "schemas"), what, "Name a schema that holds nothing else.")
    words = [word for name in objects for word in (name.split(".") if "." in name else [name])]
    database = (grant.database,) if grant.database is not None else ()
    yield from _identifiers(path, (*words, *grant.columns, *database))


def _identifiers(path: Path, names: Sequence[str]) -> Iterator[Finding]:
    for name in names:
        # PostgreSQL would cut it off, and take another object's name for it.
        if len(name.encode()) > _MAX_IDENTIFIER:
            what = f"`{name}` is longer than the {_MAX_IDENTIFIER} bytes that PostgreSQL keeps of a name."
            yield Finding(path, what, "Write the name as PostgreSQL stores it.")


def _header(path: Path, header: str) -> Iterator[Finding]:
    # Servers take `_` for `-`.
    name = header.replace("_", "-")
    if name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
        what = f"the header `{header}` cannot carry a secret: it has another meaning on the way."
        yield Finding(path, what, "Name the header that the system reads its key from.")
    elif sum(header.count(sign) for sign in "-_") > _MAX_DASHES:
        what = f"the header `{header}` has more than {_MAX_DASHES} `-`: servers that take `_` for it have too many names for it."
        yield Finding(path, what, "Let the system read its key from a shorter one.")
