"""A PostgreSQL whose roles are leased by a server of the bundle `work`, and who asks for leases."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import asyncpg
import grpc

from authz_client.v1 import (
    authorizer_pb2_grpc,
    credentials_pb2,
    credentials_pb2_grpc,
    decision_pb2,
    reason_pb2,
)
from tests.support.postgres import Postgres
from tests.support.server import Server
from tests.support.working import PLANNER, Crew, evidence

ISSUER: Final = "https://authz.example"
BROKER: Final = "books"
OPERATION: Final = "ledger.read"
PASSWORD: Final = "br0ker-p4ss-w0rd"

_SETUP: Final = (
    f"CREATE ROLE broker LOGIN CREATEROLE PASSWORD '{PASSWORD}'",
    "CREATE DATABASE ledger OWNER broker",
    "REVOKE TEMPORARY ON DATABASE ledger FROM PUBLIC",
)
_TABLES: Final = (
    "SET ROLE broker; CREATE TABLE public.entries (id int); INSERT INTO public.entries VALUES (7)"
)


def prepare(database: Postgres) -> None:
    """Makes the database that is leased, and lets nobody in without a password but the superuser."""
    for statement in _SETUP:
        database.execute(statement)
    database.execute("GRANT CREATE ON SCHEMA public TO broker", database="ledger")
    database.execute(_TABLES, database="ledger")
    database.require_passwords()


def write_dsn(folder: Path, database: Postgres, *, password: str = PASSWORD, port: int = 0) -> Path:
    """Writes the broker's connection string."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "broker.dsn"
    file.touch(0o600)
    file.write_text(f"postgresql://broker:{password}@127.0.0.1:{port or database.port}/ledger\n")
    return file


def credentials(folder: Path, dsn: Path) -> dict[str, Any]:
    """Returns the `credentials` part of a configuration with that broker."""
    grants = [{"privileges": ["SELECT"], "tables": ["public.entries"]}]
    broker = {
        "kind": "postgresql",
        "dsn_file": str(dsn),
        "systems": {"ledger": {"operations": {OPERATION: grants}}},
        "timeout": "3s",
    }
    return {
        "issuer": ISSUER,
        "keys": {"folder": str(folder / "keys")},
        "brokers": {BROKER: broker},
    }


def roles(database: Postgres) -> dict[str, str]:
    """Returns the leased roles that there are, and the lease that each names."""
    listed = database.execute(
        "SELECT json_object_agg(rolname, shobj_description(oid, 'pg_authid')) FROM pg_roles"
        " WHERE starts_with(rolname, 'authz_')"
    )
    found = json.loads(listed) if listed else {}
    return {name: str(json.loads(mark)["lease"]) for name, mark in found.items()}


def code_of(error: grpc.RpcError) -> str:
    """Returns the code of a failed call."""
    failed: Any = error
    name: str = failed.code().name
    return name


def lease(
    server: Server,
    crew: Crew,
    task: str,
    holder: str = PLANNER,
    *,
    operation: str = OPERATION,
    listener: str = "main",
    timeout: float = 5.0,
) -> credentials_pb2.IssueResponse:
    """Asks for a lease: permit, then secret. A refusal of either raises."""
    who = [evidence(crew.tokens[holder])]
    request = decision_pb2.CheckRequest(
        evidence=who,
        task=task,
        operation=operation,
        arguments_json=b'{"id": "n-1"}',
        wants_credential=True,
    )
    authorizer: Any = authorizer_pb2_grpc.AuthorizerStub(server.channel(listener))
    decision = authorizer.Check(request, timeout=timeout, wait_for_ready=True).decision
    code = reason_pb2.ReasonCode.Name(decision.reason_code)
    assert decision.outcome == decision_pb2.OUTCOME_PERMIT, code
    stub: Any = credentials_pb2_grpc.CredentialsStub(server.channel(listener))
    asked = credentials_pb2.IssueRequest(evidence=who, decision_id=decision.decision_id)
    answer: credentials_pb2.IssueResponse = stub.Issue(asked, timeout=timeout)
    return answer


def opens(parts: Mapping[str, str]) -> bool:
    """Tells whether a leased secret lets anybody in, and to what was granted."""

    async def look() -> bool:
        try:
            connection = await asyncpg.connect(
                host=parts["host"],
                port=int(parts["port"]),
                user=parts["username"],
                password=parts["password"],
                database=parts["database"],
                ssl=False,
                timeout=5,
            )
        except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError):
            return False
        try:
            return bool(await connection.fetchval("SELECT id FROM public.entries") == 7)
        finally:
            connection.terminate()

    return asyncio.run(look())
