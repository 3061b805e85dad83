"""Audit records as objects of an S3-compatible store: signatures, names, locks and refusals."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from authz.audit import Jwks, verify_delivered
from authz.audit.delivery import (
    Batch,
    BatchKind,
    DeliveryError,
    DeliveryErrorKind,
    LogTail,
    WebPlace,
)
from authz.audit.delivery.s3 import ObjectLock, S3Place, S3Target
from authz.config import Audit
from authz.server.audit_sinks import AuditSinks
from authz.trust import Fetcher
from authz.trust.addresses import Reach
from tests.support.live_log import LiveLog
from tests.support.object_store import ObjectStore, sign

NOW = 1_796_083_200.0
BATCH = Batch(BatchKind.RECORDS, "records/segment-0000000001/000000000000-ab.ndjson", b"{}\n", 1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    """A store on loopback."""
    tmp_path.chmod(0o700)
    with ObjectStore(tmp_path / "bucket") as store:
        yield store


def target(store: ObjectStore, credentials: Path, **changes: Any) -> S3Target:
    """Return a sink that stores objects in the store."""
    server = WebPlace(store.url, Reach(private=True, loopback_only=True))
    values: dict[str, Any] = {
        "server": server,
        "bucket": store.BUCKET,
        "region": store.REGION,
        "prefix": "authz/",
        "credentials_file": str(credentials),
    }
    return S3Target(S3Place(**(values | changes)), "host:/a", Fetcher().get, lambda: NOW)


def test_the_store_of_the_tests_signs_as_amazon_does() -> None:
    """The example `PUT Object` of Amazon's documentation of Signature Version 4."""
    headers = {
        "date": "Fri, 24 May 2013 00:00:00 GMT",
        "host": "examplebucket.s3.amazonaws.com",
        "x-amz-content-sha256": "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
        "x-amz-date": "20130524T000000Z",
        "x-amz-storage-class": "REDUCED_REDUNDANCY",
    }
    signed = "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class"
    scope = "20130524/us-east-1/s3/aws4_request"
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    signature = "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
    assert sign(secret, headers, "/test%24file.text", signed, scope) == signature


def test_objects_are_the_log_and_can_be_verified(store: ObjectStore, tmp_path: Path) -> None:
    """A listing gives the order; a repeated batch replaces its object by the same bytes."""
    (tmp_path / "log").mkdir()
    log = LiveLog(tmp_path / "log", chained=True)
    sink = target(store, store.credentials(tmp_path / "key"))
    tail = LogTail(log.path, "s3", 700, lambda: NOW)
    for _ in range(3):
        log.append(6)
        log.write_head()
        tail.look()
        while (batch := tail.next_batch()) is not None:
            tail.pin(batch)
            sink.send(batch)
            sink.send(batch)
            tail.commit(batch)
        log.rotate()
    assert (store.refused, store.replaced) == ([], [])
    folder = tmp_path / "bucket" / "authz" / "host_a"
    objects = sorted((folder / "records").rglob("*.gz"))
    lines = [
        line
        for file in objects
        for line in gzip.decompress(file.read_bytes()).splitlines(keepends=True)
    ]
    assert lines == log.lines
    result = verify_delivered(folder, (), Jwks.parse(log.writer.jwks()))
    assert (result.findings, result.lines, result.proved) == ([], 18, 18)


def test_objects_are_locked_where_the_configuration_says_so(
    store: ObjectStore, tmp_path: Path
) -> None:
    """The headers of the lock are signed, too."""
    lock = ObjectLock("COMPLIANCE", 86_400)
    target(store, store.credentials(tmp_path / "key"), lock=lock).send(BATCH)
    (headers,) = store.headers
    assert headers["x-amz-object-lock-mode"] == "COMPLIANCE"
    assert headers["x-amz-object-lock-retain-until-date"] == "2026-12-02T00:00:00Z"
    assert store.refused == []


def test_a_session_token_is_sent(store: ObjectStore, tmp_path: Path) -> None:
    """Temporary credentials have three parts."""
    file = store.credentials(tmp_path / "key")
    file.write_text(file.read_text() + "aws_session_token = session\n")
    target(store, file).send(BATCH)
    assert store.headers[0]["x-amz-security-token"] == "session"


def test_a_wrong_key_is_refused_and_a_right_one_is_read_without_a_restart(
    store: ObjectStore, tmp_path: Path
) -> None:
    """The file is read for each request."""
    file = store.credentials(tmp_path / "key", secret="wrong")
    sink = target(store, file)
    with pytest.raises(DeliveryError, match="it answers 403") as raised:
        sink.send(BATCH)
    assert raised.value.kind is DeliveryErrorKind.REFUSED
    assert store.refused == ["another signature"]
    store.credentials(file)
    sink.send(BATCH)


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("[default]\naws_access_key_id = a\n", 0o600, "has no section `default` with"),
        ("[other]\n", 0o600, "has no section"),
        ("secret-of-a-line-without-section\n", 0o600, "has no section"),
        ("[default]\n", 0o644, "others may read"),
    ],
)
def test_a_file_that_is_no_credential_is_told_without_its_content(
    store: ObjectStore, tmp_path: Path, content: str, mode: int, message: str
) -> None:
    """Nothing is sent."""
    file = tmp_path / "key"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(DeliveryError, match=message) as raised:
        target(store, file).send(BATCH)
    assert raised.value.kind is DeliveryErrorKind.CREDENTIAL
    assert "secret-of" not in str(raised.value)
    assert not store.headers
    assert not store.refused


def test_a_store_that_is_busy_is_asked_again(store: ObjectStore, tmp_path: Path) -> None:
    """503 is `SlowDown`."""
    store.statuses = [503]
    sink = target(store, store.credentials(tmp_path / "key"))
    with pytest.raises(DeliveryError) as raised:
        sink.send(BATCH)
    assert raised.value.kind is DeliveryErrorKind.SERVER
    sink.send(BATCH)


def test_a_configured_sink_stores_objects(store: ObjectStore, tmp_path: Path) -> None:
    """From the configuration to the bucket."""
    (tmp_path / "log").mkdir()
    log = LiveLog(tmp_path / "log", chained=False)
    log.append(2)
    s3 = {
        "endpoint": f"{store.url}/",
        "bucket": store.BUCKET,
        "region": store.REGION,
        "prefix": "a/b/",
        "credentials_file": str(store.credentials(tmp_path / "key")),
        "object_lock": {"retention": "30d"},
    }
    audit = Audit.model_validate(
        {"path": str(log.path), "sinks": {"bucket": {"s3": s3, "batch_age": "100ms"}}}, strict=False
    )
    events: Any = None
    sinks = AuditSinks(audit, "n1", Fetcher().get, events)
    sinks.start()
    sinks.close()
    (file,) = (tmp_path / "bucket" / "a" / "b" / "n1" / "records").rglob("*.ndjson.gz")
    assert gzip.decompress(file.read_bytes()) == b"".join(log.lines)
    assert store.headers[0]["x-amz-object-lock-mode"] == "COMPLIANCE"
    assert sinks.detail()["bucket"]["kind"] == "s3"
