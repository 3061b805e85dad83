"""Sinks of the audit: configuration, requests, retries, and what a sink got, verified."""

import gzip
import json
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
    HttpTarget,
    LogTail,
    SinkSettings,
    SinkWorker,
    WebPlace,
)
from authz.config import Audit, Config
from authz.config.root import findings
from authz.server.audit_sinks import AuditSinks
from authz.trust import Fetcher
from authz.trust.addresses import Reach
from tests.support.audit_receiver import AuditReceiver
from tests.support.live_log import LiveLog, Sink

NOW = 1_796_083_200.0


class Log:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        """Keep it."""
        self.events.append((event, fields))

    warning = error = info


class FakeTarget:
    """Takes batches, or fails as told."""

    def __init__(self) -> None:
        self.sink = Sink()
        self.sizes: list[int] = []
        self.errors: list[DeliveryErrorKind | None] = []
        self.largest: int | None = None

    def send(self, batch: Batch) -> None:
        """Take a batch."""
        self.sizes.append(len(batch.content))
        kind = self.errors.pop(0) if self.errors else None
        if self.largest is not None and len(batch.content) > self.largest and batch.count > 1:
            kind = DeliveryErrorKind.TOO_LARGE
        if kind is not None:
            raise DeliveryError(kind, "it fails")
        self.sink.take(batch.kind, batch.name, batch.content)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


def worker(log: LiveLog, target: Any, events: Log, clock: Clock, size: int = 4096) -> SinkWorker:
    """Return a worker whose rounds the test runs."""
    settings = SinkSettings("siem", log.path, size, batch_age=5.0)
    return SinkWorker(settings, target, events, clock=clock, monotonic=clock)


@pytest.fixture
def log(tmp_path: Path) -> LiveLog:
    """A chained log."""
    return LiveLog(tmp_path, chained=True)


def _web(url: str) -> WebPlace:
    return WebPlace(url, Reach(private=True, loopback_only=True))


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[AuditReceiver]:
    """A receiver on loopback."""
    with AuditReceiver(tmp_path / "got") as receiver:
        yield receiver


def _errors(sinks: dict[str, Any]) -> list[str]:
    config = Config.model_validate(
        {"bundle": {"path": "/b"}, "audit": {"path": "/a", "sinks": sinks}}
    )
    return [
        f"{finding.path}: {finding.what}"
        for finding in findings(config)
        if finding.path[0] == "audit"
    ]


def test_a_sink_has_one_kind_and_a_url_that_may_be_asked() -> None:
    """Everything else is refused before the node starts."""
    good = {"http": {"url": "https://siem.corp.example/audit"}}
    assert _errors({"siem": good, "local": {"http": {"url": "http://127.0.0.1:9/x"}}}) == []
    assert "has no kind" in _errors({"siem": {}})[0]
    assert "is not a name" in _errors({"../x": good})[0]
    (plain,) = _errors({"siem": {"http": {"url": "http://siem.corp.example/audit"}}})
    assert "its host is not loopback" in plain
    (secret,) = _errors({"siem": {"http": {"url": "https://user:pw@siem.corp.example/"}}})
    assert "carries a user or password" in secret
    (network,) = _errors({"siem": {"http": {**good["http"], "allow_networks": ("10.1.2.3/8",)}}})
    assert "is not a network" in network


def test_a_small_batch_waits_for_its_age(log: LiveLog) -> None:
    """A full one, and one whose segment ended, does not."""
    target, clock = FakeTarget(), Clock()
    one = worker(log, target, Log(), clock)
    log.append(2)
    one.round()
    assert target.sink.records == []
    assert one.status.tail.undelivered_records == 2
    assert one.status.tail.oldest_at == json.loads(log.lines[0])["timestamp"]
    clock.now += 4
    log.append(1)
    one.round()
    assert target.sink.records == []
    clock.now += 1
    one.round()
    assert target.sink.records == log.lines
    log.append(1)
    log.rotate()
    log.append(1)
    one.round()
    assert target.sink.records == log.lines[:-1]
    log.append(30, padding=400)
    one.round()
    assert len(target.sink.records) > len(log.lines) - 15
    assert max(target.sizes) <= 4096


def test_nothing_is_dropped_however_often_a_sink_fails(log: LiveLog) -> None:
    """The same batch is sent again; the pauses grow to a minute, and a refusal waits as long at once."""
    target, events, clock = FakeTarget(), Log(), Clock()
    one = worker(log, target, events, clock)
    target.errors += [DeliveryErrorKind.SERVER] * 8
    target.errors.append(DeliveryErrorKind.REFUSED)
    log.append(1)
    one.round()
    clock.now += 10
    for _ in range(9):
        one.round()
        # Before the next attempt is due, only the files are looked at.
        one.round()
        clock.now += 60
    pauses = [fields["retry_in"] for _, fields in events.events]
    bounds = [(0.5, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 32), *[(30, 60)] * 3]
    assert len(pauses) == len(bounds)
    assert all(low <= pause <= high for pause, (low, high) in zip(pauses, bounds, strict=True))
    status = one.status
    assert status.is_failing
    assert (status.errors[DeliveryErrorKind.SERVER], status.errors[DeliveryErrorKind.REFUSED]) == (
        8,
        1,
    )
    assert len(set(target.sizes)) == 1
    one.round()
    assert target.sink.records == log.lines
    assert not one.status.is_failing
    assert one.status.last_error == "it fails"
    assert events.events[-1][0] == "audit records are delivered again"


def test_an_unexpected_error_is_counted_and_tried_again(log: LiveLog) -> None:
    """The thread outlives it."""
    clock = Clock()
    one = worker(log, None, Log(), clock)
    log.append(1)
    one.round()
    clock.now += 10
    one.round()
    assert one.status.errors[DeliveryErrorKind.INTERNAL] == 1
    assert one.status.tail.undelivered_records == 1


def test_a_batch_that_is_too_large_is_sent_in_halves(log: LiveLog) -> None:
    """Down to single records; later batches grow again."""
    target, clock = FakeTarget(), Clock()
    one = worker(log, target, Log(), clock)
    log.append(20, padding=200)
    target.largest = 1200
    for _ in range(20):
        one.round()
        clock.now += 5
    assert target.sink.records == log.lines
    assert one.status.errors[DeliveryErrorKind.TOO_LARGE] >= 2
    target.largest = None
    log.append(20, padding=200)
    for _ in range(20):
        one.round()
        clock.now += 5
    assert target.sink.records == log.lines
    assert max(target.sizes[-3:]) > 1200


def test_nothing_is_sent_while_the_cursor_cannot_be_written(
    log: LiveLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a crash would repeat without end, under other names."""
    target, clock = FakeTarget(), Clock()
    one = worker(log, target, Log(), clock)
    log.append(1)
    one.round()
    clock.now += 10

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("authz.audit.delivery.cursor.replace_file", full)
        one.round()
    assert target.sizes == []
    assert one.status.errors[DeliveryErrorKind.CURSOR] == 1
    clock.now += 10
    one.round()
    assert target.sink.records == log.lines


def test_the_last_records_leave_when_the_node_stops(log: LiveLog) -> None:
    """Though the batch is young, and also if the thread was never started."""
    target = FakeTarget()
    one = SinkWorker(SinkSettings("siem", log.path, 4096, batch_age=3600), target, Log())
    one.start()
    log.append(2)
    one.stop()
    one.close()
    assert target.sink.records == log.lines
    worker(log, target, Log(), Clock()).close()


def test_a_damaged_cursor_stops_the_sink_and_is_told(log: LiveLog) -> None:
    """It is not replaced."""
    cursor = log.path.with_name(log.path.name + ".sink-siem")
    cursor.write_text("{}x")
    log.append(1)
    one = worker(log, FakeTarget(), Log(), Clock())
    one.round()
    assert "is not a cursor" in one.status.last_error
    assert cursor.read_text() == "{}x"


def test_requests_hold_place_digest_and_authorization(
    log: LiveLog, receiver: AuditReceiver, tmp_path: Path
) -> None:
    """The authorization is read for each request, so that it can be renewed."""
    tmp_path.chmod(0o700)
    token = tmp_path / "token"
    token.write_text("Bearer one\n")
    token.chmod(0o600)
    target = HttpTarget(_web(receiver.url), "n1", str(token), Fetcher().get)
    log.append(3)
    log.write_head()
    tail = LogTail(log.path, "siem", 4096, lambda: NOW)
    tail.look()
    while (batch := tail.next_batch()) is not None:
        target.send(batch)
        tail.commit(batch)
        token.write_text("Bearer two\n")
    first, head = receiver.requests
    assert receiver.defects == []
    assert receiver.records == log.lines
    assert first["content-type"] == "application/x-ndjson"
    assert first["content-encoding"] == "gzip"
    assert (first["authorization"], head["authorization"]) == ("Bearer one", "Bearer two")
    names = ("node", "kind", "records", "segment", "first", "last")
    assert [first[f"authz-audit-{name}"] for name in names] == ["n1", "records", "3", "1", "0", "2"]
    assert [head[f"authz-audit-{name}"] for name in names] == ["n1", "heads", "1", "1", "3", "3"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (500, DeliveryErrorKind.SERVER),
        (503, DeliveryErrorKind.SERVER),
        (429, DeliveryErrorKind.SERVER),
        (400, DeliveryErrorKind.REFUSED),
        (401, DeliveryErrorKind.REFUSED),
        (301, DeliveryErrorKind.REFUSED),
        (413, DeliveryErrorKind.TOO_LARGE),
    ],
)
def test_statuses_of_the_receiver(
    receiver: AuditReceiver, status: int, kind: DeliveryErrorKind
) -> None:
    """Only 2xx is an acknowledgement."""
    receiver.statuses = [status]
    target = HttpTarget(_web(receiver.url), "n1", None, Fetcher().get)
    with pytest.raises(DeliveryError) as raised:
        target.send(Batch(BatchKind.RECORDS, "records/x.ndjson", b"{}\n", 1))
    assert raised.value.kind is kind
    assert str(status) in str(raised.value)


@pytest.mark.parametrize(
    ("header", "pauses"),
    [("120", (120, 120)), ("86400", (600, 600)), ("soon", (0.5, 1)), ("0", (0.5, 1))],
)
def test_a_receiver_says_when_it_wants_to_be_asked_again(
    log: LiveLog, receiver: AuditReceiver, header: str, pauses: tuple[float, float]
) -> None:
    """But for at most ten minutes."""
    receiver.statuses, receiver.retry_after = [503], header
    events, clock = Log(), Clock()
    target = HttpTarget(_web(receiver.url), "n1", None, Fetcher().get)
    one = worker(log, target, events, clock)
    log.append(1)
    one.round()
    clock.now += 10
    one.round()
    ((_, fields),) = events.events
    assert pauses[0] <= fields["retry_in"] <= pauses[1]


def test_a_receiver_that_is_gone_and_a_token_that_others_can_read(tmp_path: Path) -> None:
    """Both are told without a byte of the records."""
    batch = Batch(BatchKind.RECORDS, "records/x.ndjson", b'{"secret":1}\n', 1)
    target = HttpTarget(_web("http://127.0.0.1:1/"), "n1", None, Fetcher().get)
    with pytest.raises(DeliveryError, match="cannot be reached") as raised:
        target.send(batch)
    assert raised.value.kind is DeliveryErrorKind.UNREACHABLE
    tmp_path.chmod(0o700)
    token = tmp_path / "token"
    token.write_text("Bearer x")
    token.chmod(0o644)
    target = HttpTarget(_web("http://127.0.0.1:1/"), "n1", str(token), Fetcher().get)
    with pytest.raises(DeliveryError, match="others may read") as raised:
        target.send(batch)
    assert raised.value.kind is DeliveryErrorKind.CREDENTIAL


def _sinks(log: LiveLog, clock: Clock, events: Any, **sink: Any) -> AuditSinks:
    web = {"http": {"url": "http://127.0.0.1:1/"}, "max_age": "60s", **sink}
    audit = Audit.model_validate(
        {"path": str(log.path), "chain": True, "keep_segments": 2, "sinks": {"siem": web}}
    )
    return AuditSinks(audit, "n1", Fetcher().get, events, clock)


@pytest.mark.parametrize("required", [False, True])
def test_a_sink_that_is_behind_is_a_problem_and_unready_only_if_it_is_required(
    log: LiveLog, *, required: bool
) -> None:
    """So is a segment that may be removed before it is delivered."""
    events: Any = Log()
    clock = Clock()
    log.append(1)
    sinks = _sinks(log, clock, events, required=required)
    ((_, one),) = sinks._sinks
    one.round()
    assert list(sinks.problems()) == []
    clock.now += 86_400 * 365
    (line,) = [*sinks.problems(), *sinks.late()]
    assert "the oldest record that it lacks" in line
    assert bool(sinks.late()) is required
    clock.now = NOW
    log.rotate()
    log.append(1)
    log.rotate()
    log.append(1)
    one.round()
    (kept,) = sinks.problems()
    assert "2 ended segments wait for it, and are kept beyond `audit.keep_segments: 2`" in kept
    samples = {
        (name, tuple(labels.values())): value
        for family in sinks.families()
        for name, labels, value in family.samples
    }
    assert samples["authz_audit_undelivered_records", ("siem",)] == 3
    assert samples["authz_audit_delivery_errors_total", ("siem", "unreachable")] >= 0
    assert list(AuditSinks(Audit(), "n1", Fetcher().get, events).families()) == []


def _deliver(log: LiveLog, folder: Path, *, packed: bool = False) -> None:
    tail = LogTail(log.path, "siem", 700, lambda: NOW)
    tail.look()
    while (batch := tail.next_batch()) is not None:
        file = folder / batch.name
        file.parent.mkdir(parents=True, exist_ok=True)
        if packed:
            file.with_name(file.name + ".gz").write_bytes(gzip.compress(batch.content))
        else:
            file.write_bytes(batch.content)
        tail.commit(batch)
    tail.close()


@pytest.mark.parametrize("packed", [False, True])
def test_what_a_sink_got_is_verified_by_itself(
    log: LiveLog, tmp_path: Path, *, packed: bool
) -> None:
    """Records and heads, also where batches were delivered again in other sizes."""
    got = tmp_path / "got"
    for _ in range(3):
        log.append(7)
        log.rotate()
    log.append(4)
    log.write_head()
    _deliver(log, got, packed=packed)
    # The cursor was lost: everything is delivered again.
    log.path.with_name(log.path.name + ".sink-siem").unlink()
    log.append(1)
    _deliver(log, got, packed=packed)
    keys = Jwks.parse(log.writer.jwks())
    found = verify_delivered(got, (), keys)
    assert found.findings == []
    assert (found.lines, found.proved, found.segments) == (26, 25, 4)
    assert found.signatures == found.heads == 4
    files = sorted((got / "records").rglob("*.ndjson*"))
    changed = files[len(files) // 2]
    content = changed.read_bytes()
    if packed:
        content = gzip.decompress(content)
        changed.write_bytes(gzip.compress(content.replace(b"d00001", b"d99991", 1)))
    else:
        changed.write_bytes(content.replace(b"d00001", b"d99991", 1))
    assert verify_delivered(got, (), keys).findings


def _segments(log: LiveLog) -> list[int]:
    return [int(file.name.rpartition(".")[2]) for file in log.rotated()]


@pytest.mark.parametrize("most", [None, 5])
def test_segments_are_removed_once_every_sink_has_them(log: LiveLog, *, most: int | None) -> None:
    """Unless the configuration says how many may wait; then the removal is told."""
    targets = {"a": FakeTarget(), "b": FakeTarget()}
    audit = Audit.model_validate(
        {
            "path": str(log.path),
            "chain": True,
            "keep_segments": 2,
            "keep_undelivered_segments": most,
            "sinks": {name: {"http": {"url": "http://127.0.0.1:1/"}} for name in targets},
        }
    )
    events: Any = Log()
    clock = Clock()
    sinks = AuditSinks(audit, "n1", Fetcher().get, events, clock)
    workers = {worker.settings.name: worker for _, worker in sinks._sinks}
    for name, one in workers.items():
        one._target = targets[name]
        one._monotonic = clock
    for _ in range(7):
        log.append(1)
        log.rotate()
    log.append(1)
    sinks._remove_old()
    assert _segments(log) == [1, 2, 3, 4, 5, 6, 7]
    workers["a"].round()
    sinks._remove_old()
    assert _segments(log) == [1, 2, 3, 4, 5, 6, 7], "a sink has not looked yet"
    targets["b"].errors = [DeliveryErrorKind.SERVER]
    workers["b"].round()
    workers["a"].round()
    sinks._remove_old()
    assert _segments(log) == ([1, 2, 3, 4, 5, 6, 7] if most is None else [3, 4, 5, 6, 7])
    assert len(events.events) == (1 if most is None else 2)
    clock.now += 10
    for _ in range(2):
        workers["b"].round()
    sinks._remove_old()
    assert _segments(log) == [6, 7]
    lost = workers["b"].status.tail
    assert (lost.gap_count, lost.lost_records) == ((0, 0) if most is None else (2, 2))
    assert targets["a"].sink.records == log.lines[:-1]


def test_the_number_of_undelivered_segments_is_not_smaller_than_that_of_kept_ones() -> None:
    """It would have no effect."""
    base = {"bundle": {"path": "/b"}}
    for audit, text in (
        ({"keep_undelivered_segments": 3}, "so all segments are kept"),
        ({"keep_undelivered_segments": 3, "keep_segments": 4}, "is smaller than"),
    ):
        config = Config.model_validate({**base, "audit": {"path": "/a", **audit}})
        (finding,) = [one for one in findings(config) if one.path[0] == "audit"]
        assert text in finding.what
