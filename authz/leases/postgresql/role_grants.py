"""Grants a leased role exactly the configured grants of its operation, in one database."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from authz.config import Grant
from authz.leases.postgresql.connections import run_statement
from authz.leases.protocol import BrokerError

__all__ = ["COMMENTS", "IS_LEASED", "MARK", "PREFIX", "RoleGrants"]

PREFIX: Final = "authz_"
"""Prefix of the names of leased roles."""
MARK: Final = '{"authz": '
"""Prefix of their comments."""
IS_LEASED: Final = f"""
pg_catalog.starts_with(r.rolname, '{PREFIX}') AND pg_catalog.starts_with(d.description, '{MARK}')
"""
"""Condition on a role `r` with its comment `d`: it is a leased role, of any deployment."""
COMMENTS: Final = """
pg_catalog.pg_shdescription d ON d.objoid = r.oid AND d.classoid = 'pg_catalog.pg_authid'::pg_catalog.regclass
"""
"""Join of the comment of a role `r`."""

_MAX_TABLES: Final = 10_000
_TABLES_AT_ONCE: Final = 100
_NOT_ALL_GRANTED: Final = "01007"

_FIND_TABLES: Final = f"""
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT EXISTS (
  SELECT FROM pg_catalog.pg_roles r JOIN {COMMENTS} WHERE r.oid = c.relowner AND {IS_LEASED})
ORDER BY c.oid LIMIT $2
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class RoleGrants:
    """The grants of one role in one database."""

    there: Any
    """A connection to the database, in a transaction."""
    role: str
    """The leased role."""
    database: str
    """The database."""
    has_temporary: bool
    """The role may create temporary tables."""

    async def run(self, grants: Sequence[Grant]) -> None:
        """Grant. A server that grants less than ordered reports it only by a warning.

        Args:
            grants: The configured grants. Empty: none.

        Raises:
            BrokerError: The broker's own role may not grant all of them.
            PostgresError: A configured object does not exist.
        """
        warnings: list[str] = []

        def listen(_connection: object, message: Any) -> None:
            if message.sqlstate == _NOT_ALL_GRANTED:
                warnings.append(str(message))

        if not grants:
            return
        self.there.add_log_listener(listen)
        await self._grant_access(grants)
        for grant in grants:
            for statement, values in _statements(grant):
                await run_statement(self.there, statement, *values, self.role)
            for schema in _whole_schemas(grant):
                await self._grant_all_tables(schema, grant)
        # Warnings come with the answers, and are heard before the next one.
        await self.there.fetchval("SELECT 1")
        await asyncio.sleep(0)
        self.there.remove_log_listener(listen)
        if warnings:
            raise BrokerError("its own role may not grant all that is configured")

    async def _grant_access(self, grants: Sequence[Grant]) -> None:
        """Grant the access that every grant needs, where `PUBLIC` lacks it."""
        for privilege in ("CONNECT", "TEMPORARY") if self.has_temporary else ("CONNECT",):
            has_privilege = "SELECT pg_catalog.has_database_privilege($1, $2, $3)"
            if not await self.there.fetchval(has_privilege, self.role, self.database, privilege):
                statement = f"GRANT {privilege} ON DATABASE %I TO %I"
                await run_statement(self.there, statement, self.database, self.role)
        for schema in _schemas(grants):
            may_use = "SELECT pg_catalog.has_schema_privilege($1, $2, 'USAGE')"
            if not await self.there.fetchval(may_use, self.role, schema):
                await run_statement(self.there, "GRANT USAGE ON SCHEMA %I TO %I", schema, self.role)

    async def _grant_all_tables(self, schema: str, grant: Grant) -> None:
        """Grant on each table of a schema, but on no table of a lease: those come and go, and only their owners can grant."""
        rows = await self.there.fetch(_FIND_TABLES, schema, _MAX_TABLES + 1)
        if len(rows) > _MAX_TABLES:
            raise BrokerError(f"schema `{schema}` holds more than {_MAX_TABLES} tables")
        privileges = ", ".join(privilege.value for privilege in grant.privileges)
        grantee = await self.there.fetchval("SELECT pg_catalog.quote_ident($1)", self.role)
        names = [row["name"] for row in rows]
        for first in range(0, len(names), _TABLES_AT_ONCE):
            tables = ", ".join(names[first : first + _TABLES_AT_ONCE])
            await self.there.fetch(f"GRANT {privileges} ON TABLE {tables} TO {grantee}")


def _schemas(grants: Iterable[Grant]) -> list[str]:
    names = chain.from_iterable((*grant.tables, *grant.sequences) for grant in grants)
    return sorted({name.partition(".")[0] for name in names})


def _whole_schemas(grant: Grant) -> list[str]:
    return [table.removesuffix(".*") for table in grant.tables if table.endswith(".*")]


def _statements(grant: Grant) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Yield the statements of one entry; `%I` at the end is the role."""
    # A closed set: no text of a configuration stands in a statement unquoted.
    for privilege in (granted.value for granted in grant.privileges):
        for table in grant.tables:
            schema, _, name = table.partition(".")
            if name == "*":
                continue
            if grant.columns:
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
