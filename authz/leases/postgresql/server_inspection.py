"""Finds settings of a PostgreSQL server that give leased roles more than their grants, or prevent leases."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

from authz.leases.protocol import UnreachableError

__all__ = ["MINIMUM_VERSION", "ServerInspection", "creation_rights"]

MINIMUM_VERSION: Final = 15
"""Oldest supported version. Before it, a role may grant itself to others."""

_MAX_DATABASES: Final = 100
_MAX_FUNCTIONS: Final = 10

_ROLE: Final = """
SELECT r.rolsuper, r.rolcreaterole, r.rolinherit FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
"""
# Rights of a role to create objects, beyond its grants: one row each, with the statement that revokes it from `PUBLIC`.
_CREATION_RIGHTS: Final = """
SELECT pg_catalog.format('create temporary tables in database `%s`', d.datname) AS right,
       pg_catalog.format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', d.datname) AS remedy
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database() AND NOT $2::pg_catalog.bool
  AND pg_catalog.has_database_privilege($1::pg_catalog.name, d.oid, 'TEMPORARY')
UNION ALL
SELECT pg_catalog.format('create schemas in database `%s`', d.datname),
       pg_catalog.format('REVOKE CREATE ON DATABASE %I FROM PUBLIC', d.datname)
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
  AND pg_catalog.has_database_privilege($1::pg_catalog.name, d.oid, 'CREATE')
UNION ALL
SELECT pg_catalog.format('create objects in schema `%s` of database `%s`', n.nspname, pg_catalog.current_database()),
       pg_catalog.format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', n.nspname)
FROM pg_catalog.pg_namespace n
WHERE pg_catalog.has_schema_privilege($1::pg_catalog.name, n.oid, 'CREATE') AND n.nspname <> ALL ($3::pg_catalog.text[])
"""
# An earlier version gave objects of leases to the broker.
_DEFINERS: Final = """
SELECT i.identity FROM pg_catalog.pg_proc p,
LATERAL pg_catalog.pg_identify_object('pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, 0) AS i
WHERE p.prosecdef AND p.proowner = (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)
ORDER BY p.oid LIMIT $1
"""
# Databases that a role without grants of its own may connect to.
_DATABASES: Final = """
SELECT d.datname AS name, pg_catalog.has_database_privilege(d.oid, 'CONNECT') AS is_open_to_broker,
       pg_catalog.quote_ident(d.datname) AS quoted
FROM pg_catalog.pg_database d
WHERE d.datallowconn AND (d.datname = ANY ($1::pg_catalog.text[])
  OR pg_catalog.has_database_privilege('public', d.oid, 'CONNECT'))
ORDER BY d.datname = ANY ($1::pg_catalog.text[]) DESC, d.datname LIMIT $2
"""


async def creation_rights(
    there: Any, role: str, *, has_temporary: bool = False, schemas: Collection[str] = ()
) -> Sequence[tuple[str, str]]:
    """Return objects that a role may create in a database, beyond its grants.

    Args:
        there: A connection to the database.
        role: The role; `public` for the rights of every role.
        has_temporary: The role is meant to create temporary tables.
        schemas: Schemas in which it is meant to create objects.

    Returns:
        Each right, and the statement that revokes it from `PUBLIC`.
    """
    rows = await there.fetch(_CREATION_RIGHTS, role, has_temporary, list(schemas))
    return [(row["right"], row["remedy"]) for row in rows]


@dataclass(frozen=True, slots=True)
class ServerInspection:
    """One inspection of a server."""

    main: Any
    """A connection to the broker's own database."""
    opened: Callable[[str], AbstractAsyncContextManager[Any]]
    """Opens a connection to another database."""
    databases: Collection[str]
    """Databases that leases have grants in."""
    has_temporary: bool
    """Leases are meant to create temporary tables."""

    async def run(self) -> list[str]:
        """Return one line for each problem, with its fix."""
        problems = await self._problems_of_role()
        version = self.main.get_server_version().major
        if version < MINIMUM_VERSION:
            problems.append(
                f"PostgreSQL {version} is too old: leases need {MINIMUM_VERSION} or newer"
            )
        for row in await self.main.fetch(_DATABASES, list(self.databases), _MAX_DATABASES):
            problems.extend(await self._problems_of_database(row))
        return problems

    async def _problems_of_role(self) -> list[str]:
        role = await self.main.fetchrow(_ROLE)
        if role["rolsuper"]:
            return [
                "its own role is a superuser: use a role that has CREATEROLE and owns the objects that it grants"
            ]
        if not role["rolcreaterole"] or not role["rolinherit"]:
            return ["its own role needs CREATEROLE and INHERIT: ALTER ROLE … CREATEROLE INHERIT"]
        return []

    async def _problems_of_database(self, row: Any) -> list[str]:
        is_configured = row["name"] in self.databases
        close = f"REVOKE CONNECT ON DATABASE {row['quoted']} FROM PUBLIC"
        if not row["is_open_to_broker"]:
            what = f"leased roles may connect to database `{row['name']}`, and the broker may not: {close}"
            return [what]
        try:
            async with self.opened(row["name"]) as there:
                rights = await creation_rights(there, "public", has_temporary=self.has_temporary)
                definers = await there.fetch(_DEFINERS, _MAX_FUNCTIONS)
        except UnreachableError as error:
            return [f"database `{row['name']}` cannot be looked at ({error}); {close}"]
        problems = [
            f"leased roles may {right}: {remedy}" + ("" if is_configured else f", or {close}")
            for right, remedy in rights
        ]
        problems += [
            f"function {definer['identity']} in database `{row['name']}` runs with the rights of the broker's own role:"
            f" ALTER FUNCTION … SECURITY INVOKER, or DROP FUNCTION {definer['identity']}"
            for definer in definers
        ]
        return problems
