"""Delivery of an audit log from its files: at least once, in order, and no hole that is not told."""

import contextlib
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz.audit.delivery import Batch, LogTail, cursor_path
from authz.audit.delivery.cursor import Cursor
from authz.audit.delivery.files import LogFiles
from tests.support.effort import effort
from tests.support.live_log import LiveLog, Sink, SinkDownError

NOW = 1_796_083_200.0


def tail_of(log: LiveLog, max_bytes: int = 4096) -> LogTail:
    """Return the tail of a node that has just started."""
    return LogTail(log.path, "s", max_bytes, lambda: NOW)


def deliver(tail: LogTail, sink: Sink, fails: Callable[[str], None] = lambda _: None) -> None:
    """Deliver what is there. `fails` is called before each step, and may raise."""
    tail.look()
    fails("looked")
    while True:
        fails("look")
        batch = tail.next_batch()
        if batch is None:
            return
        fails("pin")
        tail.pin(batch)
        fails("send")
        sink.take(batch.kind, batch.name, batch.content)
        fails("commit")
        tail.commit(batch)
        sink.acknowledge(batch.content)


def settle(log: LiveLog, sink: Sink) -> LogTail:
    """Start anew, and deliver everything."""
    tail = tail_of(log)
    for _ in range(3):
        deliver(tail, sink)
    return tail


@pytest.fixture(params=[True, False], ids=["chained", "plain"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> LiveLog:
    """An empty log."""
    return LiveLog(tmp_path, chained=request.param)


def test_records_are_delivered_as_they_stand_in_the_files(log: LiveLog) -> None:
    """Byte for byte, in order, over rotations, each once."""
    sink, tail = Sink(), tail_of(log)
    for _ in range(4):
        log.append(3)
        deliver(tail, sink)
        log.append(2)
        log.rotate()
    log.append(1)
    deliver(tail, sink)
    assert sink.records == log.lines
    status = tail.status()
    assert (status.undelivered_bytes, status.undelivered_records, status.gap_count) == (0, 0, 0)
    assert status.delivered_records == len(log.lines)
    assert status.oldest_at == ""
    assert status.delivered_at == json.loads(log.lines[-1])["timestamp"]


def test_names_sort_in_the_order_of_the_records(log: LiveLog) -> None:
    """A listing of the sink gives the log."""
    sink, tail = Sink(), tail_of(log, max_bytes=300)
    for _ in range(12):
        log.append(5)
        deliver(tail, sink)
        log.rotate()
    content = b"".join(
        sink.stored[name] for name in sorted(sink.stored) if name.startswith("records/")
    )
    assert content.splitlines(keepends=True) == log.lines


def test_an_unfinished_line_is_delivered_once_it_is_whole(log: LiveLog) -> None:
    """Only whole lines leave."""
    sink, tail = Sink(), tail_of(log)
    log.append(2)
    whole = log.path.read_bytes()
    log.append(1)
    content = log.path.read_bytes()
    for size in range(len(whole), len(content)):
        log.path.write_bytes(content[:size])
        deliver(tail, sink)
        assert sink.records == log.lines[:2]
    log.path.write_bytes(content)
    deliver(tail, sink)
    assert sink.records == log.lines


def test_a_torn_first_line_does_not_end_the_delivery(tmp_path: Path) -> None:
    """The file is known once its first line is whole."""
    log, sink = LiveLog(tmp_path, chained=False), Sink()
    tail = tail_of(log)
    log.tear()
    deliver(tail, sink)
    assert sink.records == []


@pytest.mark.parametrize("step", ["look", "pin", "send", "commit"])
@pytest.mark.parametrize("nth", range(4))
def test_a_crash_between_two_steps_repeats_and_leaves_no_hole(
    log: LiveLog, step: str, nth: int
) -> None:
    """Also while more records were written meanwhile: a repeated batch has its old bytes under its old name."""
    sink, left = Sink(), nth
    log.append(40, padding=500)

    def crash(at: str) -> None:
        nonlocal left
        if at == step:
            left -= 1
            if left < 0:
                raise SinkDownError

    with contextlib.suppress(SinkDownError):
        deliver(tail_of(log), sink, crash)
    log.append(5, padding=100)
    settle(log, sink)
    assert sink.unique() == log.lines
    repeated = len(sink.records) - len(log.lines)
    assert (repeated > 0) == (step == "commit")
    assert sink.stored_records() == len(log.lines)


def test_a_failed_delivery_repeats_the_same_batch(log: LiveLog) -> None:
    """Though more records came: the sink may have got it before the connection broke."""
    tail, names = tail_of(log), []
    for _ in range(3):
        log.append(1)
        tail.look()
        batch = tail.next_batch()
        assert batch is not None
        tail.pin(batch)
        names.append((batch.name, batch.content))
    assert len(set(names)) == 1
    tail.unpin()
    larger = tail.next_batch()
    assert larger is not None
    assert larger.count == 3


def test_a_file_that_is_removed_while_it_is_read_is_delivered(log: LiveLog) -> None:
    """The file is open: what was written before the removal is not lost."""
    sink, tail = Sink(), tail_of(log)
    log.append(3)
    deliver(tail, sink)
    log.append(3)
    moved = log.rotate()
    assert moved is not None
    moved.unlink()
    log.append(2)
    deliver(tail, sink)
    assert sink.records == log.lines
    assert tail.status().gap_count == 0


def test_a_record_that_is_written_while_the_file_is_moved_keeps_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node notices the move after a write to the moved file. Nothing later may be seen without that write."""
    log, sink = LiveLog(tmp_path, chained=True), Sink()
    tail = tail_of(log)
    log.append(3)
    deliver(tail, sink)
    moved = log.path.with_name("audit.jsonl.1")
    log.path.rename(moved)
    paths = LogFiles._paths

    def move_on(files: LogFiles) -> Iterator[Path]:
        for path in paths(files):
            yield path
            if log.writer.segment == 1:
                log.path.touch()
                log.path.rename(log.path.with_name("new"))
                moved.rename(log.path)
                log._inode = log.path.stat().st_ino
                log.append(2)
                log.path.rename(moved)
                log.path.with_name("new").rename(log.path)
                log.append(1)

    monkeypatch.setattr(LogFiles, "_paths", move_on)
    deliver(tail, sink)
    deliver(tail, sink)
    assert sink.records == log.lines
    assert tail.status().gap_count == 0


def test_a_sink_that_is_down_holds_few_files_open(log: LiveLog) -> None:
    """However long it is down; what is kept open outlives a removal."""
    sink, tail = Sink(), tail_of(log)
    for _ in range(30):
        log.append(1)
        tail.look()
        log.rotate()
    log.append(1)
    tail.look()
    before = _open_files()
    tail.close()
    held = before - _open_files()
    assert 1 < held <= 12
    settle(log, sink)
    assert sink.records == log.lines


def test_records_that_are_removed_before_delivery_are_told(log: LiveLog) -> None:
    """With their number, once, and still after a restart."""
    sink, tail = Sink(), tail_of(log)
    log.append(3)
    deliver(tail, sink)
    lost: list[bytes] = []
    for _ in range(2):
        log.append(4)
        tail.look()
        log.rotate()
    log.append(1)
    tail.look()
    tail.close()
    first, second = log.rotated()
    first.unlink()
    second.unlink()
    lost = log.lines[3:11]
    tail = settle(log, sink)
    assert sink.records == [line for line in log.lines if line not in lost]
    assert (tail.status().gap_count, tail.status().lost_records) == (2, 8)
    again = settle(log, sink).status()
    assert (again.gap_count, again.lost_records, len(again.gaps)) == (2, 8, 2)
    assert "were not delivered" in again.gaps[0].text


def test_a_chain_tells_records_that_nobody_saw(tmp_path: Path) -> None:
    """Written and removed between two looks: the places of the next records tell how many are missing."""
    log, sink = LiveLog(tmp_path, chained=True), Sink()
    log.append(3)
    settle(log, sink).close()
    log.append(2)
    for _ in range(3):
        moved = log.rotate()
        log.append(4)
        assert moved is not None
        moved.unlink()
    status = settle(log, sink).status()
    assert sink.records == [*log.lines[:3], *log.lines[-4:]]
    assert (status.gap_count, status.lost_records) == (1, 10)
    assert "between record 2 of segment 1 and record 0 of segment 4" in status.gaps[0].text


def test_a_plain_file_that_moved_while_nobody_read_is_told_as_a_possible_gap(
    tmp_path: Path,
) -> None:
    """Without a chain nobody can tell whether records were written to it."""
    log, sink = LiveLog(tmp_path, chained=False), Sink()
    log.append(3)
    settle(log, sink).close()
    log.path.unlink()
    log.append(1)
    status = settle(log, sink).status()
    assert sink.records == log.lines
    assert (status.gap_count, status.lost_records) == (1, 0)
    assert status.gaps[0].records is None


def test_delivered_files_may_be_removed(log: LiveLog) -> None:
    """Nothing is told, and their positions are forgotten."""
    sink, tail = Sink(), tail_of(log)
    for _ in range(5):
        log.append(3)
        log.rotate()
    log.append(1)
    deliver(tail, sink)
    deliver(tail, sink)
    for file in log.rotated():
        file.unlink()
    deliver(tail, sink)
    settle(log, sink)
    cursor = Cursor.read(cursor_path(log.path, "s"))
    assert cursor is not None
    assert len(cursor.positions) == 1
    assert (sink.records, cursor.gap_count) == (log.lines, 0)


def test_a_file_that_is_cut_back_goes_on_from_its_last_common_line(tmp_path: Path) -> None:
    """After a failed write the node cuts lines off that may have been delivered; others then stand in their place."""
    log, sink = LiveLog(tmp_path, chained=False), Sink()
    tail = tail_of(log)
    for _ in range(4):
        log.append(2)
        deliver(tail, sink)
    gone = log.lines[-3:]
    log.cut(3)
    log.append(4)
    deliver(tail, sink)
    assert [line for line in sink.unique() if line not in gone] == log.lines
    assert tail.status().gap_count == 0
    # Of the lines before the cut, only those of the last common batch are repeated.
    assert len(sink.records) <= len(log.lines) + len(gone) + 2


def test_copies_are_not_delivered_twice(tmp_path: Path) -> None:
    """A file is known by its first line, whatever its name and its inode."""
    log, sink = LiveLog(tmp_path, chained=False), Sink()
    tail = tail_of(log)
    log.append(3)
    deliver(tail, sink)
    log.append(2)
    log.copy_and_truncate()
    log.append(2)
    deliver(tail, sink)
    (tmp_path / "audit.jsonl-backup").write_bytes(log.path.read_bytes())
    log.append(1)
    deliver(tail, sink)
    for file in log.rotated():
        log.compress(file)
    settle(log, sink)
    assert sink.records == log.lines


def test_compressed_files_are_delivered(tmp_path: Path) -> None:
    """A sink that is added later gets the whole log; one that is in the middle of a file goes on there."""
    log, sink, late = LiveLog(tmp_path, chained=False), Sink(), Sink()
    log.append(8, padding=1000)
    tail = tail_of(log, max_bytes=3000)
    tail.look()
    batch = tail.next_batch()
    assert batch is not None
    tail.pin(batch)
    sink.take(batch.kind, batch.name, batch.content)
    tail.commit(batch)
    tail.close()
    moved = log.rotate()
    assert moved is not None
    log.compress(moved)
    log.append(2)
    settle(log, sink)
    assert sink.records == log.lines
    cursor_path(log.path, "s").unlink()
    settle(log, late)
    assert late.records == log.lines


def test_a_batch_has_lines_of_one_segment(tmp_path: Path) -> None:
    """Also where a file has records from before the chain, and two segments."""
    log = LiveLog(tmp_path, chained=False)
    plain = log.append(2)
    log.chained = True
    log.append(2)
    log.end_segment()
    log.append(3)
    tail, batches = tail_of(log), list[Batch]()
    tail.look()
    while (batch := tail.next_batch()) is not None:
        tail.commit(batch)
        batches.append(batch)
    records = [batch for batch in batches if batch.kind == "records"]
    assert [(batch.first, batch.last) for batch in records] == [
        (None, None),
        ((1, 0), (1, 1)),
        ((2, 0), (2, 2)),
    ]
    assert records[0].content == b"".join(plain)


def test_a_line_that_is_longer_than_a_batch_is_delivered(log: LiveLog) -> None:
    """It is a batch of its own."""
    sink = Sink()
    log.append(1)
    log.append(1, padding=20_000)
    log.append(1)
    settle(log, sink)
    assert sink.records == log.lines


def test_heads_are_delivered_after_their_lines(tmp_path: Path) -> None:
    """Heads of ended segments all, and the newest head where its lines are delivered."""
    log, sink = LiveLog(tmp_path, chained=True), Sink()
    order: list[tuple[str, tuple[int, int]]] = []
    tail = tail_of(log, max_bytes=700)

    def run() -> None:
        tail.look()
        while (batch := tail.next_batch()) is not None:
            tail.pin(batch)
            assert batch.last is not None
            order.append((str(batch.kind), batch.last))
            sink.take(batch.kind, batch.name, batch.content)
            tail.commit(batch)

    for _ in range(3):
        log.append(4)
        log.write_head()
        run()
        log.append(6)
        log.write_head()
        log.append(1)
        log.rotate()
    log.append(2)
    run()
    log.write_head()
    run()
    reached = (0, 0)
    for kind, last in order:
        if kind == "records":
            reached = last
        else:
            assert last[0] < reached[0] or last[1] - 1 <= reached[1], order
    sealed = log.writer.heads.read_text().splitlines()
    texts = [head.decode().strip() for head in sink.heads]
    assert [text for text in texts if text in sealed] == sealed
    assert texts[-1] == log.path.with_name("audit.jsonl.head").read_text()
    assert len(texts) == len(set(texts))


def test_a_log_that_is_begun_anew_is_delivered_and_told(tmp_path: Path) -> None:
    """Its places and heads do not count as those of the old one, and nothing of the old one is replaced at the sink."""
    sink, place = Sink(), cursor_path(tmp_path / "audit.jsonl", "s")
    for lines in (5, 3):
        log = LiveLog(tmp_path, chained=True)
        for _ in range(2):
            log.append(lines)
            log.rotate()
        log.append(lines)
        log.write_head()
        settle(log, sink).close()
        kept = place.read_bytes()
        assert sink.records[-len(log.lines) :] == log.lines
        assert [head.decode().strip() for head in sink.heads[-3:-1]] == (
            log.writer.heads.read_text().splitlines()
        )
        for file in tmp_path.iterdir():
            file.unlink()
        place.write_bytes(kept)
    cursor = Cursor.read(place)
    assert cursor is not None
    assert [("begun anew" in gap.text, gap.records) for gap in cursor.gaps] == [(True, None)]
    assert len(sink.heads) == 6


def test_a_newest_head_leaves_though_records_never_stop(tmp_path: Path) -> None:
    """Each look finds a newer head, whose lines are not delivered yet: the older one is not forgotten for it."""
    log, sink = LiveLog(tmp_path, chained=True), Sink()
    tail = tail_of(log)
    for _ in range(4):
        log.append(2)
        log.write_head()
        tail.look()
        log.append(1)
        while (batch := tail.next_batch()) is not None:
            sink.take(batch.kind, batch.name, batch.content)
            tail.commit(batch)
    assert len(sink.heads) >= 2


def test_a_crash_while_the_cursor_is_written_leaves_one_file(log: LiveLog) -> None:
    """However often the node crashes; the next write replaces it."""
    aside = log.path.with_name("audit.jsonl.sink-s.new")
    aside.write_text('{"version')
    sink = Sink()
    log.append(2)
    settle(log, sink)
    assert sink.records == log.lines
    assert not aside.exists()
    assert cursor_path(log.path, "s").stat().st_mode & 0o777 == 0o600


def test_a_damaged_cursor_is_not_replaced(log: LiveLog) -> None:
    """Somebody has to look at it: beginning anew would repeat the whole log."""
    cursor_path(log.path, "s").write_text("{")
    with pytest.raises(ValueError, match="not a cursor"):
        tail_of(log)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 6)),
        st.tuples(
            st.sampled_from(["rotate", "remove", "compress", "copy", "tear", "head", "cut"]),
            st.integers(0, 3),
        ),
        st.tuples(st.just("deliver"), st.integers(0, 12)),
        st.tuples(st.just("crash"), st.integers(0, 12)),
    ),
    max_size=effort(25, 60),
)


@settings(
    max_examples=effort(150, 3000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(operations=OPERATIONS, chained=st.booleans(), max_bytes=st.sampled_from([100, 400, 4096]))
def test_no_interleaving_leaves_a_hole(
    tmp_path_factory: pytest.TempPathFactory,
    operations: list[tuple[str, int]],
    *,
    chained: bool,
    max_bytes: int,
) -> None:
    """Every record that was not removed from the disk before is delivered, in order; every removal is told."""
    log = LiveLog(tmp_path_factory.mktemp("log"), chained=chained)
    sink = Sink()
    tail = tail_of(log, max_bytes)
    seen: set[bytes] = set()
    removed: set[bytes] = set()
    cut: set[bytes] = set()
    for name, number in operations:
        if name == "append":
            _untear(log)
            log.append(number)
        elif name in ("deliver", "crash"):
            with contextlib.suppress(SinkDownError):
                deliver(tail, sink, _failing(number))
            seen |= _on_disk(log)
            if name == "crash":
                tail.close()
                tail = tail_of(log, max_bytes)
        else:
            _disturb(log, name, number, removed, cut)
    tail.close()
    tail = settle(log, sink)
    unique = sink.unique()
    missing = [line for line in log.lines if line not in set(unique)]
    assert set(missing) <= removed
    expected = [line for line in log.lines if line not in set(missing)]
    assert [line for line in unique if line not in cut] == expected
    if chained:
        assert sink.stored_records() == len(unique), "batches overlap"
    status = tail.status()
    told = set(missing) & seen
    if chained and expected:
        # The places of a chain also tell records that nobody saw, if others were delivered before and after them.
        first, last = log.lines.index(expected[0]), log.lines.index(expected[-1])
        told |= {line for line in missing if first < log.lines.index(line) < last}
    if told:
        assert status.gap_count > 0, "records are missing and nobody was told"
    if chained and all(gap.records is not None for gap in status.gaps):
        # Records that were sent before a crash and removed after it count as missing: nobody knows that the sink has them.
        unsure = sink.unacknowledged & removed
        assert len(told) <= status.lost_records <= len(told | unsure)
    assert status.undelivered_records == 0
    tail.close()


def _on_disk(log: LiveLog) -> set[bytes]:
    files = [*log.rotated(), *([log.path] if log.path.exists() else [])]
    return {
        line
        for file in files
        if file.suffix != ".gz"
        for line in _content(file).splitlines(keepends=True)
        if line.endswith(b"\n")
    }


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _failing(steps: int) -> Callable[[str], None]:
    """Fail at a step; 12: never."""
    left = steps

    def step(_: str) -> None:
        nonlocal left
        left -= 1
        if left < 0 and steps < 12:
            raise SinkDownError

    return step


def _untear(log: LiveLog) -> None:
    """Cut an unfinished line off, as the node does at its start."""
    if log.path.exists():
        content = log.path.read_bytes()
        log.path.write_bytes(content) if content.endswith(b"\n") or not content else _cut(
            log.path, content
        )


def _cut(path: Path, content: bytes) -> None:
    with path.open("r+b") as stream:
        stream.truncate(content.rfind(b"\n") + 1)


def _disturb(log: LiveLog, name: str, number: int, removed: set[bytes], cut: set[bytes]) -> None:
    moved: list[Any] = [file for file in log.rotated() if file.suffix != ".gz"]
    _untear(log)
    if name == "rotate":
        log.rotate()
    elif name == "copy" and not log.chained:
        log.copy_and_truncate()
    elif name == "tear":
        log.tear()
    elif name == "head" and log.chained:
        log.write_head()
    elif name == "cut" and not log.chained and log.path.exists() and log.path.stat().st_size:
        before = set(log.lines)
        log.cut(number)
        cut |= before - set(log.lines)
    elif name == "compress" and moved:
        log.compress(moved[number % len(moved)])
    elif name == "remove" and log.rotated():
        file = log.rotated()[number % len(log.rotated())]
        removed |= set(_content(file).splitlines(keepends=True))
        file.unlink()


def _content(file: Path) -> bytes:
    return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
