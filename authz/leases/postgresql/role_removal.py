"""Removes from one database the objects and privileges of an ended leased role.

The role is the last owner of its objects: none is given to another role. An object runs with its owner's rights
(a `SECURITY DEFINER` function, a view, an index expression), so a new owner would lend its own rights to an agent's code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from authz.leases.postgresql.connections import run_statement
from authz.leases.protocol import NotRemovedError

__all__ = ["RoleRemoval", "roll_back_prepared"]

# `DROP OWNED` locks each object until it is done; the server's lock table has about 6400 places by default.
_MOST_AT_ONCE: Final = 500
_MOST_KEPT: Final = 20

# Names of types in `pg_identify_object`, and in SQL.
_DROPS: Final[Mapping[str, str]] = {
    "aggregate": "ROUTINE",
    "collation": "COLLATION",
    "composite type": "TYPE",
    "conversion": "CONVERSION",
    "domain": "DOMAIN",
    "event trigger": "EVENT TRIGGER",
    "extension": "EXTENSION",
    "foreign table": "FOREIGN TABLE",
    "foreign-data wrapper": "FOREIGN DATA WRAPPER",
    "function": "ROUTINE",
    "language": "LANGUAGE",
    "materialized view": "MATERIALIZED VIEW",
    "operator": "OPERATOR",
    "operator class": "OPERATOR CLASS",
    "operator family": "OPERATOR FAMILY",
    "procedure": "ROUTINE",
    "publication": "PUBLICATION",
    "schema": "SCHEMA",
    "sequence": "SEQUENCE",
    "server": "SERVER",
    "statistics object": "STATISTICS",
    "table": "TABLE",
    "text search configuration": "TEXT SEARCH CONFIGURATION",
    "text search dictionary": "TEXT SEARCH DICTIONARY",
    "type": "TYPE",
    "view": "VIEW",
}
_TRIGGERS: Final[Mapping[str, str]] = {"rule": "RULE", "trigger": "TRIGGER"}
_REVOKES: Final[Mapping[str, str]] = {
    "aggregate": "ROUTINE",
    "composite type": "TYPE",
    "database": "DATABASE",
    "domain": "TYPE",
    "foreign table": "TABLE",
    "foreign-data wrapper": "FOREIGN DATA WRAPPER",
    "function": "ROUTINE",
    "language": "LANGUAGE",
    "large object": "LARGE OBJECT",
    "materialized view": "TABLE",
    "procedure": "ROUTINE",
    "schema": "SCHEMA",
    "sequence": "SEQUENCE",
    "server": "FOREIGN SERVER",
    "table": "TABLE",
    "type": "TYPE",
    "view": "TABLE",
}

_FIND_PREPARED: Final = """
SELECT p.gid FROM pg_catalog.pg_prepared_xacts p
WHERE p.owner = $1 AND p.database = pg_catalog.current_database() ORDER BY 1
"""
_OF_ROLE: Final = """
s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid = $1
  AND s.dbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
"""
_COUNT_OWNED: Final = f"""
SELECT pg_catalog.count(*) FROM (
  SELECT FROM pg_catalog.pg_shdepend s WHERE {_OF_ROLE} AND s.deptype = 'o' LIMIT $2) AS owned
"""  # noqa: S608 - constants
# Newest first: a later object may depend on an earlier object.
_FIND_OWNED: Final = f"""
SELECT s.objid AS id, s.classid AS class, i.type, i.identity
FROM pg_catalog.pg_shdepend s, LATERAL pg_catalog.pg_identify_object(s.classid, s.objid, s.objsubid) AS i
WHERE {_OF_ROLE} AND s.deptype = 'o' AND (s.objid, s.classid) < ($2, $3)
ORDER BY s.objid DESC, s.classid DESC LIMIT $4
"""  # noqa: S608 - constants
_FIND_GRANTED: Final = f"""
SELECT DISTINCT i.type, i.identity
FROM pg_catalog.pg_shdepend s, LATERAL pg_catalog.pg_identify_object(s.classid, s.objid, 0) AS i
WHERE s.deptype = 'a' AND ({_OF_ROLE} OR (s.dbid = 0 AND s.refobjid = $1
  AND s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
  AND s.classid = 'pg_catalog.pg_database'::pg_catalog.regclass
  AND i.identity = pg_catalog.quote_ident(pg_catalog.current_database())))
"""  # noqa: S608 - constants
# Triggers and rules of the role's tables run in the sessions of all users of the tables.
_FIND_TRIGGERS: Final = """
SELECT i.type, i.identity
FROM pg_catalog.pg_class c
JOIN (
  SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass AS class, t.oid, t.tgrelid AS relation FROM pg_catalog.pg_trigger t
  WHERE NOT t.tgisinternal AND t.tgparentid = 0
  UNION ALL
  SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, r.oid, r.ev_class FROM pg_catalog.pg_rewrite r
  WHERE r.rulename <> '_RETURN') AS x ON x.relation = c.oid,
LATERAL pg_catalog.pg_identify_object(x.class, x.oid, 0) AS i
WHERE c.relowner = $1
"""
_UNLINK: Final = """
SELECT pg_catalog.count(pg_catalog.lo_unlink(l.oid)) FROM (
  SELECT m.oid FROM pg_catalog.pg_largeobject_metadata m WHERE m.lomowner = $1 LIMIT $2) AS l
"""
_FIND_ROUTINES: Final = """
SELECT i.identity, p.prokind = 'a' AS is_aggregate, (
  SELECT pg_catalog.array_agg(DISTINCT pg_catalog.quote_ident(g.rolname)) FROM pg_catalog.aclexplode(p.proacl) AS a
  JOIN pg_catalog.pg_roles g ON g.oid = a.grantee WHERE a.grantee <> p.proowner) AS grantees
FROM pg_catalog.pg_proc p,
LATERAL pg_catalog.pg_identify_object('pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, 0) AS i
WHERE p.proowner = $1 ORDER BY p.oid
"""
_TOP: Final = 2**32 - 1


async def roll_back_prepared(there: Any, role: str) -> None:
    """Roll back the transactions that a role prepared in this database; the caller must be a member of the role.

    A prepared transaction keeps its locks without a session that one could end.

    Args:
        there: A connection to the database.
        role: The role.
    """
    for row in await there.fetch(_FIND_PREPARED, role):
        await run_statement(there, "SET ROLE %I", role)
        try:
            await run_statement(there, "ROLLBACK PREPARED %L", row["gid"])
        finally:
            await there.execute("RESET ROLE")


@dataclass(frozen=True, slots=True)
class RoleRemoval:
    """The removal from one database of one role that can no longer log in, and has no session."""

    there: Any
    """A connection to the database; its role is a member of the leased one."""
    role: str
    """The leased role."""
    oid: int
    """Its id."""

    async def run(self) -> Sequence[str]:
        """Drop the objects of the role, and revoke its privileges.

        Returns:
            The first few objects that stay, because objects of others depend on them. The role has no privileges any more, and none of its
            objects runs with any.

        Raises:
            NotRemovedError: Privileges are left.
            PostgresError: A statement failed, for example one that waited for a lock of another session.
        """
        from asyncpg import PostgresError  # noqa: PLC0415 - an extra

        await roll_back_prepared(self.there, self.role)
        if await self.there.fetchval(_COUNT_OWNED, self.oid, _MOST_AT_ONCE) < _MOST_AT_ONCE:
            try:
                await run_statement(self.there, "DROP OWNED BY %I", self.role)
            except PostgresError:
                if self.there.is_closed():
                    raise
            else:
                return ()
        return await self._run_one_by_one()

    async def _run_one_by_one(self) -> Sequence[str]:
        """Remove the role although an object is in the way: privileges first, then each object by itself."""
        from asyncpg import DependentObjectsStillExistError  # noqa: PLC0415 - an extra

        await self._revoke_privileges()
        await self._unlink_large_objects()
        while await self._drop_each():
            pass
        await self._disarm()
        if await self.there.fetchval(_COUNT_OWNED, self.oid, _MOST_AT_ONCE) < _MOST_AT_ONCE:
            try:
                # For objects without a `DROP` of their own, such as default privileges.
                await run_statement(self.there, "DROP OWNED BY %I", self.role)
            except DependentObjectsStillExistError:
                pass
            else:
                return ()
        rows = await self.there.fetch(_FIND_OWNED, self.oid, _TOP, _TOP, _MOST_KEPT)
        return [f"{row['type']} {row['identity']}" for row in rows]

    async def _revoke_privileges(self) -> None:
        role = await self.there.fetchval("SELECT pg_catalog.quote_ident($1)", self.role)
        for kind, row in await self._granted():
            await self._run(
                f"REVOKE ALL PRIVILEGES ON {kind} {row['identity']} FROM {role} CASCADE"
            )
        for _, row in await self._granted():
            what = (
                f"privileges of `{self.role}` on {row['type']} {row['identity']} cannot be revoked"
            )
            raise NotRemovedError(what)

    async def _granted(self) -> list[tuple[str, Any]]:
        rows = await self.there.fetch(_FIND_GRANTED, self.oid)
        return [(_REVOKES[row["type"]], row) for row in rows if row["type"] in _REVOKES]

    async def _disarm(self) -> None:
        """Let no code that stays run with the role's rights, nor in the session of another user."""
        for row in await self.there.fetch(_FIND_TRIGGERS, self.oid):
            # The identity is `name on table`.
            await self._run(f"DROP {_TRIGGERS[row['type']]} {row['identity']}")
        while await self._drop_each():
            pass
        for row in await self.there.fetch(_FIND_ROUTINES, self.oid):
            if not row["is_aggregate"]:
                await self._run(f"ALTER ROUTINE {row['identity']} SECURITY INVOKER")
            for grantee in ("PUBLIC", *(row["grantees"] or ())):
                await self._run(f"REVOKE ALL ON ROUTINE {row['identity']} FROM {grantee} CASCADE")

    async def _unlink_large_objects(self) -> None:
        from asyncpg import InsufficientPrivilegeError  # noqa: PLC0415 - an extra

        try:
            while await self.there.fetchval(_UNLINK, self.oid, _MOST_AT_ONCE):
                pass
        except InsufficientPrivilegeError:
            # Where nobody may call it, nobody could make them either.
            return

    async def _drop_each(self) -> int:
        """Try to drop each object once; return the number of dropped objects if another round may drop more."""
        from asyncpg import DependentObjectsStillExistError  # noqa: PLC0415 - an extra

        dropped = kept = 0
        last = (_TOP, _TOP)
        while rows := await self.there.fetch(_FIND_OWNED, self.oid, *last, _MOST_AT_ONCE):
            for row in rows:
                kind = _DROPS.get(row["type"])
                if kind is None:
                    continue
                try:
                    await self._run(f"DROP {kind} {row['identity']}")
                    dropped += 1
                except DependentObjectsStillExistError:
                    kept += 1
            last = rows[-1]["id"], rows[-1]["class"]
        return dropped if kept else 0

    async def _run(self, statement: str) -> None:
        """Run a statement whose names the server has quoted. The extended protocol takes no second statement in it."""
        from asyncpg.exceptions import (  # noqa: PLC0415 - an extra
            UndefinedFunctionError,
            UndefinedObjectError,
            UndefinedTableError,
        )

        try:
            await self.there.fetch(statement)
        except (UndefinedFunctionError, UndefinedObjectError, UndefinedTableError):
            # It went with another object.
            return
