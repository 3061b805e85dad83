"""Audit records in a PostgreSQL table: what the sink's role may do, which errors it tells, and the way back into files."""

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from authz.audit.delivery import Batch, BatchKind, DeliveryError, DeliveryErrorKind
from authz.audit.delivery.batch import place_name
from authz.audit.delivery.postgresql import PostgresqlPlace, PostgresqlTarget, fetch_batches
from tests.support.audit_log import write_head_key
from tests.support.doc_blocks import ROOT, blocks
from tests.support.minting import Authority
from tests.support.people import People, search
from tests.support.postgres import Postgres
from tests.support.server import Server, layout, run_authz
from tests.support.surfaces import CHECK
from tests.support.waiting import eventually, free_port

TABLE = "authz_audit.batches"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server that lets nobody in without a password, with the table of the documentation."""
    with Postgres() as server:
        page = blocks(ROOT / "docs/reference/audit-sinks.md")
        (sql,) = [block.text for block in page if block.language == "sql"]
        server.execute(sql.replace("…", "secret"))
        server.require_passwords()
        yield server


@pytest.fixture(autouse=True)
def _empty(postgres: Postgres) -> None:
    postgres.execute(f"TRUNCATE {TABLE}")


def dsn_file(folder: Path, postgres: Postgres, role: str, password: str = "secret") -> Path:
    """Write the connection string of a role."""
    folder.chmod(0o700)
    file = folder / f"{role}.dsn"
    file.write_text(f"postgresql://{role}:{password}@127.0.0.1:{postgres.port}/authz\n")
    file.chmod(0o600)
    return file


def target(
    folder: Path, postgres: Postgres, role: str = "authz_audit_writer", **changes: Any
) -> PostgresqlTarget:
    """Return a sink of a role."""
    values: dict[str, Any] = {
        "dsn_file": str(dsn_file(folder, postgres, role)),
        "table": TABLE,
        "timeout": 5.0,
    }
    return PostgresqlTarget(PostgresqlPlace(**(values | changes)), "n1")


def batch(content: bytes = b'{"n": 1}\n', place: tuple[int, int] = (1, 0)) -> Batch:
    """Return a batch of records."""
    unnamed = Batch(BatchKind.RECORDS, "", content, content.count(b"\n"))
    name = place_name(BatchKind.RECORDS, place, unnamed.digest)
    return Batch(BatchKind.RECORDS, name, content, unnamed.count)


def rows(postgres: Postgres) -> list[str]:
    """Return the rows without their times."""
    sql = f"SELECT node, name, kind, records, convert_from(content, 'UTF8') FROM {TABLE} ORDER BY name"
    return postgres.execute(sql).splitlines()


def failed_delivery(sink: PostgresqlTarget) -> DeliveryError:
    """Return the error of a delivery."""
    with pytest.raises(DeliveryError) as caught:
        sink.send(batch())
    return caught.value


def test_a_batch_is_one_row_however_often_it_is_sent(tmp_path: Path, postgres: Postgres) -> None:
    """Its lines stand in it byte for byte."""
    sink = target(tmp_path, postgres)
    content = b'{"text": "\xc3\xa4 \\u0000"}\n{"n": 2}\n'
    one = batch(content)
    sink.send(one)
    sink.send(one)
    sink.send(batch(place=(1, 2)))
    assert postgres.execute(f"SELECT count(*) FROM {TABLE}") == "2"
    stored = postgres.execute(
        f"SELECT node, kind, records, encode(content, 'hex') FROM {TABLE} WHERE name = '{one.name}'"
    )
    assert stored == f"n1|records|2|{content.hex()}"


def test_the_role_of_the_documentation_can_neither_read_nor_remove(
    tmp_path: Path, postgres: Postgres
) -> None:
    """So that an intruder on the node cannot change what was delivered."""
    address = dsn_file(tmp_path, postgres, "authz_audit_writer").read_text().strip()
    target(tmp_path, postgres).send(batch())

    async def attempt(sql: str) -> None:
        connection = await asyncpg.connect(address)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    for sql in (
        f"SELECT * FROM {TABLE}",
        f"DELETE FROM {TABLE}",
        f"UPDATE {TABLE} SET content = ''",
        f"TRUNCATE {TABLE}",
        f"DROP TABLE {TABLE}",
        f"INSERT INTO {TABLE} SELECT * FROM {TABLE} ON CONFLICT (node, name) DO UPDATE SET content = ''",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            asyncio.run(attempt(sql))


@pytest.mark.parametrize(
    "rights",
    [
        f"GRANT DELETE ON {TABLE} TO %s",
        f"GRANT UPDATE ON {TABLE} TO %s",
        f"GRANT UPDATE (content) ON {TABLE} TO %s",
        f"GRANT TRUNCATE ON {TABLE} TO %s",
        f"GRANT TRIGGER ON {TABLE} TO %s",
        f"CREATE ROLE table_owner; ALTER TABLE {TABLE} OWNER TO table_owner; GRANT table_owner TO %s",
        "ALTER ROLE %s SUPERUSER",
    ],
)
def test_a_role_that_may_remove_rows_delivers_nothing(
    tmp_path: Path, postgres: Postgres, rights: str
) -> None:
    """The evidence would be worth nothing."""
    postgres.execute(
        "CREATE ROLE strong LOGIN PASSWORD 'secret'; GRANT USAGE ON SCHEMA authz_audit TO strong;"
        f"GRANT INSERT ON {TABLE} TO strong"
    )
    try:
        sink = target(tmp_path, postgres, "strong")
        sink.send(batch())
        postgres.execute(rights % "strong")
        error = failed_delivery(sink)
        assert error.kind is DeliveryErrorKind.REFUSED
        assert "grant it INSERT alone" in str(error)
    finally:
        postgres.execute(
            f"ALTER TABLE {TABLE} OWNER TO postgres; DROP OWNED BY strong; DROP ROLE strong; DROP ROLE IF EXISTS table_owner"
        )


def test_errors_of_the_server_have_kinds(tmp_path: Path, postgres: Postgres) -> None:
    """And name no password."""
    wrong = dsn_file(tmp_path, postgres, "authz_audit_writer", "hunter2")
    error = failed_delivery(target(tmp_path, postgres, "nobody"))
    assert error.kind is DeliveryErrorKind.REFUSED
    error = failed_delivery(PostgresqlTarget(PostgresqlPlace(str(wrong), TABLE), "n1"))
    assert error.kind is DeliveryErrorKind.REFUSED
    assert "hunter2" not in str(error)
    error = failed_delivery(target(tmp_path, postgres, table="authz_audit.missing"))
    assert (error.kind, "does not exist" in str(error)) == (DeliveryErrorKind.REFUSED, True)
    error = failed_delivery(target(tmp_path, postgres, "authz_audit_reader"))
    assert (error.kind, "permission denied" in str(error)) == (DeliveryErrorKind.REFUSED, True)
    gone = tmp_path / "gone.dsn"
    gone.write_text(f"postgresql://a:hunter2@127.0.0.1:{free_port()}/authz")
    gone.chmod(0o600)
    error = failed_delivery(PostgresqlTarget(PostgresqlPlace(str(gone), TABLE), "n1"))
    assert (error.kind, "hunter2" in str(error)) == (DeliveryErrorKind.UNREACHABLE, False)
    gone.chmod(0o644)
    error = failed_delivery(PostgresqlTarget(PostgresqlPlace(str(gone), TABLE), "n1"))
    assert error.kind is DeliveryErrorKind.CREDENTIAL
    gone.chmod(0o600)
    gone.write_text("postgresql://a:hunter2@127.0.0.1,127.0.0.2/authz")
    error = failed_delivery(PostgresqlTarget(PostgresqlPlace(str(gone), TABLE), "n1"))
    assert (error.kind, "several hosts" in str(error)) == (DeliveryErrorKind.CREDENTIAL, True)


def test_a_server_that_hangs_or_is_full_is_tried_again(tmp_path: Path, postgres: Postgres) -> None:
    """Records wait in the files meanwhile."""
    sink = target(tmp_path, postgres, timeout=0.5)
    with postgres.held_up():
        assert failed_delivery(sink).kind is DeliveryErrorKind.UNREACHABLE
    sink = target(tmp_path, postgres)
    postgres.execute("ALTER ROLE authz_audit_writer CONNECTION LIMIT 0")
    try:
        assert failed_delivery(sink).kind is DeliveryErrorKind.SERVER
    finally:
        postgres.execute("ALTER ROLE authz_audit_writer CONNECTION LIMIT -1")
    sink.send(batch())


def fetched(folder: Path, postgres: Postgres, node: str = "n1") -> Any:
    """Fetch the batches of a node into `folder/node`, as the reader of the documentation."""
    file = dsn_file(folder, postgres, "authz_audit_reader")
    return fetch_batches(PostgresqlPlace(str(file), TABLE), node, folder / node)


def test_fetched_batches_are_files_under_their_names(tmp_path: Path, postgres: Postgres) -> None:
    """Another fetch gets only what is new, and other nodes' batches stay where they are."""
    sink = target(tmp_path, postgres)
    sink.send(batch())
    result = fetched(tmp_path, postgres)
    assert (result.written, result.kept, result.changed, result.unknown) == (1, 0, [], [])
    assert (tmp_path / "n1" / batch().name).read_bytes() == batch().content
    sink.send(batch(place=(1, 1)))
    result = fetched(tmp_path, postgres)
    assert (result.written, result.kept) == (1, 1)
    assert fetched(tmp_path, postgres, "n2").written == 0


def test_changed_and_added_rows_are_told_and_not_written(
    tmp_path: Path, postgres: Postgres
) -> None:
    """A name leads to no file outside of the folder."""
    target(tmp_path, postgres).send(batch())
    postgres.execute(f"UPDATE {TABLE} SET content = 'x'")
    added = ["../../escaped", "records/../../x/1-0123456789abcdef.ndjson", "/etc/x", "records/a"]
    for name in added:
        postgres.execute(f"INSERT INTO {TABLE} VALUES ('n1', '{name}', 'records', 1, 'x')")
    result = fetched(tmp_path, postgres)
    assert (result.written, result.changed) == (0, [batch().name])
    assert sorted(result.unknown) == sorted(added)
    assert not list(tmp_path.rglob("*.ndjson"))
    assert not (tmp_path.parent / "escaped").exists()


def test_a_node_delivers_to_a_table_and_the_table_proves_its_log(
    tmp_path: Path, authority: Authority, postgres: Postgres
) -> None:
    """A row that is removed, or changed, is found; the command tells it by its exit code."""
    people = People.of(authority)
    key = write_head_key(tmp_path / "head.pem")
    sink = {
        "postgresql": {"dsn_file": str(dsn_file(tmp_path, postgres, "authz_audit_writer"))},
        "batch_age": "100ms",
    }
    audit = {
        "sinks": {"database": sink},
        "chain": True,
        "head_key": str(key),
        "head_interval": "100ms",
    }
    place = layout(tmp_path / "node", authority, "desk", {"audit": audit, "node": "n1"})
    with Server(place) as server:
        for count in range(1, 4):
            server.call("main", CHECK, search(people.bot, people.alice))
            eventually(partial(has_batches, postgres, count), what="the record is delivered")
        assert (
            server.metric("authz_audit_delivery_errors_total", sink="database", kind="refused") == 0
        )
    keys = tmp_path / "keys.json"
    keys.write_text(run_authz("audit", "keys", str(key)).stdout)
    reader = dsn_file(tmp_path, postgres, "authz_audit_reader")
    words = ("audit", "fetch", "--node", "n1", "--dsn-file", str(reader), "--format", "json")
    got = tmp_path / "got"
    done = run_authz(*words, str(got))
    assert (done.returncode, json.loads(done.stdout)["changed"]) == (0, []), done.stderr
    verified = run_authz("audit", "verify", "--delivered", str(got), "--keys", str(keys))
    assert verified.returncode == 0, verified.stdout
    written_lines = place.audit.read_bytes()
    files = sorted((got / "records").rglob("*.ndjson"))
    assert b"".join(file.read_bytes() for file in files) == written_lines

    middle = files[1].relative_to(got)
    postgres.execute(f"UPDATE {TABLE} SET content = content || '{{}}' WHERE name = '{middle}'")
    done = run_authz(*words, str(tmp_path / "changed"))
    assert (done.returncode, json.loads(done.stdout)["changed"]) == (2, [str(middle)])
    postgres.execute(f"DELETE FROM {TABLE} WHERE name = '{middle}'")
    assert run_authz(*words, str(tmp_path / "removed")).returncode == 0
    verified = run_authz(
        "audit", "verify", "--delivered", str(tmp_path / "removed"), "--keys", str(keys)
    )
    assert verified.returncode == 2, verified.stdout


def has_batches(postgres: Postgres, count: int) -> bool:
    """Tell whether the table has a number of batches of records."""
    return int(postgres.execute(f"SELECT count(*) FROM {TABLE} WHERE kind = 'records'")) >= count
