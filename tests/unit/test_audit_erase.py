"""Erasure of recorded texts from the ended segments of a log."""

import fcntl
import gzip
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from authz.audit import Jwks, Verification, rotated, verify, verify_delivered
from authz.audit.delivery import LogTail
from authz.audit.erasable import covered
from authz.audit.erasure import Erasure, TextSelection, erase_files, plan_erasure
from authz.cli import main
from authz.errors import UnavailableError
from tests.support.audit_log import LogWriter, erasable

BOT = "spiffe://a.example/bot"


def record(
    number: int, *, agent: str = BOT, subject: str = "corp/alice", session: str = "s1", day: int = 1
) -> dict[str, Any]:
    """Return the record of a call with two texts."""
    texts, digests = {}, {}
    for name in ("body", "to"):
        entry, digest = erasable(f"{name} of {number}", f"{number:031x}{len(name):x}")
        texts[f"/input/arguments/{name}"] = entry
        digests[name] = digest
    chain = [{"kind": "User", "id": subject}, {"kind": "Agent", "id": agent}]
    return {
        "texts": texts,
        "decision_id": f"d{number}",
        "timestamp": f"2026-11-{day:02}T00:00:00.000Z",
        "labels": {"id": "n1"},
        "input": {"chain": chain, "task": {"session": session}, "arguments": digests},
        "result": {"outcome": "PERMIT"},
    }


def log_of(folder: Path) -> LogWriter:
    """Write two ended segments and an open one, of three records each."""
    log = LogWriter(folder)
    for segment in range(3):
        numbers = range(3 * segment, 3 * segment + 3)
        records = [record(one, session=f"s{one % 2}", day=1 + one) for one in numbers]
        log.write(records, sealed=segment < 2)
    return log


def verified(log: LogWriter) -> Verification:
    """Verify a log with its heads."""
    files = [file for file in rotated(log.path, "", 0) if file.exists()]
    return verify(files, log.heads, [log.newest], Jwks.parse(log.jwks()))


def plan(log: LogWriter, sinks: Sequence[str] = (), **conditions: Any) -> Erasure:
    """Find texts; each sink lacks every file."""
    return plan_erasure(log.path, TextSelection(**conditions), lambda _: sinks)


def texts_of(log: LogWriter) -> dict[str, list[str]]:
    """Return the pointers of the texts that are there, by the number of their record."""
    found = {}
    for file in rotated(log.path, "", 0):
        for line in file.read_text().splitlines():
            fields = json.loads(line)
            found[fields["decision_id"]] = [
                name.rsplit("/", 1)[1]
                for name, entry in fields.get("texts", {}).items()
                if "text" in entry
            ]
    return found


@pytest.mark.parametrize(
    ("conditions", "erased"),
    [
        ({"decisions": frozenset({"d1", "d4"})}, {"d1", "d4"}),
        ({"sessions": frozenset({"s1"})}, {"d1", "d3", "d5"}),
        ({"agents": frozenset({BOT})}, {"d0", "d1", "d2", "d3", "d4", "d5"}),
        ({"agents": frozenset({"corp/alice"})}, set()),
        ({"subjects": frozenset({BOT})}, set()),
        (
            {"subjects": frozenset({"corp/alice"}), "sessions": frozenset({"s0"})},
            {"d0", "d2", "d4"},
        ),
        ({"before": "2026-11-03T00:00:00.000Z"}, {"d0", "d1"}),
    ],
)
def test_each_condition_selects_its_records(
    tmp_path: Path, conditions: dict[str, Any], erased: set[str]
) -> None:
    """The conditions combine, and nothing else is erased: the log verifies, and tells how many texts it lost."""
    log = log_of(tmp_path)
    lines = [
        covered(line)
        for file in rotated(log.path, "", 0)
        for line in file.read_bytes().splitlines()
    ]
    erase_files(plan(log, **conditions))
    texts = texts_of(log)
    assert {name for name, left in texts.items() if not left} == erased
    assert {name for name, left in texts.items() if left} == texts.keys() - erased
    result = verified(log)
    assert (result.findings, result.erased, result.proved) == ([], 2 * len(erased), 9)
    assert lines == [
        covered(line)
        for file in rotated(log.path, "", 0)
        for line in file.read_bytes().splitlines()
    ]


def test_texts_below_a_pointer_alone_are_erased(tmp_path: Path) -> None:
    """A pointer names a whole token."""
    log = log_of(tmp_path)
    assert plan(log, pointers=frozenset({"/input/arg"})).files == []
    erase_files(plan(log, pointers=frozenset({"/input/arguments/to"})))
    assert texts_of(log)["d0"] == ["body"]
    erase_files(plan(log, pointers=frozenset({"/input"})))
    assert texts_of(log)["d0"] == []
    assert verified(log).findings == []


def test_the_open_segment_is_left(tmp_path: Path) -> None:
    """Neither the file that the node writes, nor a moved file whose segment no head ends, nor one that is locked."""
    log = log_of(tmp_path)
    before = log.path.read_bytes()
    moved = log.path.with_name("audit.jsonl.1")
    log.path.rename(moved)
    left = plan(log, decisions=frozenset({"d7"})).left
    assert [(one.path, one.left) for one in left] == [(moved, "segment 3 is open: no head ends it")]
    moved.rename(log.path)
    (one,) = plan(log, decisions=frozenset({"d7"})).left
    assert one.left == "the node writes to it; its segment is open"
    first = log.path.with_name("audit.jsonl.00000001")
    with first.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        erasure = plan(log, agents=frozenset({BOT}))
        assert next(one.left for one in erasure.left) == "a process writes to it"
        erase_files(erasure)
    assert log.path.read_bytes() == before
    assert {name for name, left in texts_of(log).items() if not left} == {"d3", "d4", "d5"}


def test_damaged_texts_are_left(tmp_path: Path) -> None:
    """A text that somebody changed is evidence."""
    log = log_of(tmp_path)
    first = log.path.with_name("audit.jsonl.00000001")
    first.write_text(first.read_text().replace("body of 1", "body of X"))
    erasure = plan(log, agents=frozenset({BOT}))
    assert erasure.left[0].left == "texts of 1 records are damaged: see `authz audit verify`"
    erase_files(erasure)
    assert "body of X" in first.read_text()
    assert "d3" in {name for name, left in texts_of(log).items() if not left}


def test_a_file_keeps_length_mode_and_time(tmp_path: Path) -> None:
    """Readers put files in order by their times, and sinks know places by bytes. A packed file is packed again."""
    log = log_of(tmp_path)
    first, second = (log.path.with_name(f"audit.jsonl.0000000{number}") for number in (1, 2))
    packed = second.with_name(f"{second.name}.gz")
    packed.write_bytes(gzip.compress(second.read_bytes()))
    content = second.read_bytes()
    second.unlink()
    for file in (first, packed):
        file.chmod(0o640)
        os.utime(file, ns=(1, 1_700_000_000_123_456_789))
    size = first.stat().st_size
    done = erase_files(plan(log, agents=frozenset({BOT})))
    assert [(one.path, one.count, one.records) for one in done] == [(first, 6, 3), (packed, 6, 3)]
    for file in (first, packed):
        status = file.stat()
        assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o640, 1_700_000_000_123_456_789)
    assert first.stat().st_size == size
    unpacked = gzip.decompress(packed.read_bytes())
    assert (len(unpacked), b"body of" in unpacked) == (len(content), False)
    assert verified(log).findings == []
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_a_file_that_changes_meanwhile_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rotation that removes a file is not undone, and a second erasure waits its turn."""
    log = log_of(tmp_path)
    erasure = plan(log, agents=frozenset({BOT}))
    first = log.path.with_name("audit.jsonl.00000001")
    flush = os.fsync

    def removed(descriptor: int) -> None:
        first.unlink(missing_ok=True)
        flush(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", removed)
        with pytest.raises(UnavailableError, match="00000001"):
            erase_files(erasure)
    assert not first.exists()
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        with pytest.raises(UnavailableError, match="another erasure"):
            erase_files(erasure)
    finally:
        os.close(folder)


STEPS = (
    "open",
    "fstat",
    "lstat",
    "fsync",
    "replace",
    "rename",
    "unlink",
    "utime",
    "chmod",
    "close",
)


def erase_until(erasure: Erasure, step: int) -> int:
    """Erase in a process of its own, which is killed before a step; return its wait status, 0 if it ended before the step."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    left = [step]

    def killed(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return run

    for name in STEPS:
        setattr(os, name, killed(getattr(os, name)))
    try:
        erase_files(erasure)
    finally:
        os._exit(int(sys.exc_info()[0] is not None))


def test_a_crash_at_any_step_leaves_a_whole_log(tmp_path: Path) -> None:
    """Each file is as it was, or without the texts. The next erasure goes on, and leaves no copy."""
    outcomes, status = set(), -1
    for step in range(200):
        folder = tmp_path / str(step)
        folder.mkdir()
        log = log_of(folder)
        status = erase_until(plan(log, agents=frozenset({BOT})), step)
        result = verified(log)
        assert (result.findings, result.lines, result.erased % 6) == ([], 9, 0), step
        outcomes.add(result.erased)
        erase_files(plan(log, agents=frozenset({BOT})))
        assert (verified(log).findings, verified(log).erased) == ([], 12)
        names = {one.name for one in folder.iterdir()}
        assert not [name for name in names if name.endswith(".erasing")], names
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    assert (outcomes, status) == ({0, 6, 12}, 0)


class Delivery:
    """A sink that keeps batches as files."""

    def __init__(self, log: LogWriter, folder: Path, size: int) -> None:
        self.folder = folder
        self.tail = LogTail(log.path, "s", size, lambda: 1_800_000_000.0)

    def deliver(self, most: int, *, commits: bool = True) -> int:
        """Deliver at most so many batches; the last one is not acknowledged with `commits` False."""
        self.tail.look()
        for number in range(most):
            batch = self.tail.next_batch()
            if batch is None:
                return number
            self.tail.pin(batch)
            file = self.folder / batch.name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(batch.content)
            if commits or number < most - 1:
                assert self.tail.commit(batch) == []
        return most


@pytest.mark.parametrize("restarts", [True, False])
@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("batches", [0, 1, 2, 5, 100])
def test_a_sink_goes_on_after_an_erasure(
    tmp_path: Path, batches: int, *, commits: bool, restarts: bool
) -> None:
    """A sink gets every record, and none twice but for a batch that it did not acknowledge, whether its node runs meanwhile or not."""
    (tmp_path / "log").mkdir()
    log = log_of(tmp_path / "log")
    log.path.with_name("audit.jsonl.head").write_text(log.newest)
    out = tmp_path / "out"
    delivery = Delivery(log, out, 1_500)
    delivery.deliver(batches, commits=commits)
    erase_files(plan(log, agents=frozenset({BOT})))
    if restarts:
        delivery.tail.close()
        delivery = Delivery(log, out, 1_500)
    delivery.deliver(100)
    assert (delivery.tail.next_batch(), delivery.tail.status().gap_count) == (None, 0)
    delivery.tail.close()
    result = verify_delivered(out, [log.newest], Jwks.parse(log.jwks()))
    assert (result.findings, result.lines) == ([], 9)
    assert result.repeated <= (0 if commits else 3)


def test_a_sink_that_holds_a_moved_file_goes_on(tmp_path: Path) -> None:
    """The thread of a node holds the file open that was being written; it sees the file without the texts under the old name."""
    (tmp_path / "log").mkdir()
    log = LogWriter(tmp_path / "log")
    records = [record(number) for number in range(6)]
    log.write(records)
    delivery = Delivery(log, tmp_path / "out", 1_500)
    delivery.deliver(1)
    moved = log.path.with_name("audit.jsonl.00000001")
    log.path.rename(moved)
    inode = moved.stat().st_ino
    log.write(records, sealed=True)
    log.write([record(6)])
    erase_files(plan(log, agents=frozenset({BOT})))
    assert moved.stat().st_ino != inode
    log.path.with_name("audit.jsonl.head").write_text(log.newest)
    delivery.deliver(100)
    delivery.tail.look()
    assert (delivery.tail.next_batch(), delivery.tail.status().gap_count) == (None, 0)
    assert delivery.tail.status().delivered_files == frozenset({moved.name})
    delivery.tail.close()
    result = verify_delivered(tmp_path / "out", [log.newest], Jwks.parse(log.jwks()))
    assert (result.findings, result.lines, result.repeated) == ([], 7, 0)


@dataclass(frozen=True)
class Verb:
    """The verb, as it is called."""

    capture: pytest.CaptureFixture[str]

    def __call__(self, log: LogWriter, *options: str) -> tuple[int, str]:
        """Run the verb; return exit code and output."""
        with pytest.raises(SystemExit) as ended:
            main(["audit", "erase", "--log", str(log.path), *options])
        captured = self.capture.readouterr()
        return int(ended.value.code or 0), captured.out + captured.err


@pytest.fixture
def erase(capsys: pytest.CaptureFixture[str]) -> Verb:
    """Return the verb."""
    return Verb(capsys)


def test_the_verb_shows_before_it_erases(tmp_path: Path, erase: Verb) -> None:
    """Nothing is erased without --yes; texts of the open segment are named, and make the exit code 2."""
    log = log_of(tmp_path)
    code, output = erase(log, "--session", "s1")
    assert (code, "nothing was erased yet: give --yes" in output) == (2, True)
    assert f"would erase: 2 texts of 1 records in {log.path}.00000001" in output
    assert "left: 2 texts of 1 records" in output
    assert "its segment is open" in output
    assert verified(log).erased == 0
    code, output = erase(
        log, "--session", "s1", "--before", "2026-11-06T00:00:00Z", "--yes", "--unrecorded"
    )
    assert (code, verified(log).erased) == (0, 4)
    assert f"erased: 2 texts of 1 records in {log.path}.00000001" in output
    code, output = erase(log, "--decision", "d1", "--format", "json")
    assert (code, json.loads(output)["files"]) == (0, [])


def test_the_verb_leaves_what_a_sink_lacks(tmp_path: Path, erase: Verb) -> None:
    """A sink without a record, or with an unreadable cursor, keeps texts from being erased."""
    log = log_of(tmp_path)
    delivery = Delivery(log, tmp_path / "out", 1_500)
    delivery.deliver(1)
    options = ("--agent", BOT, "--before", "2026-11-07", "--yes", "--unrecorded")
    code, output = erase(log, *options)
    assert (code, verified(log).erased) == (2, 0)
    assert "00000001: not delivered to sink s" in output
    delivery.deliver(100)
    delivery.tail.look()
    delivery.tail.close()
    assert (erase(log, *options)[0], verified(log).erased) == (0, 12)
    log.path.with_name("audit.jsonl.sink-s").write_text("{}x")
    log = log_of(tmp_path)
    assert erase(log, *options)[0] == 1
    assert erase(log, *options, "--undelivered")[0] == 0


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--yes", "--reason", "r"),
        ("--session", "s1", "--yes"),
        ("--session", "s1", "--yes", "--reason", " "),
        ("--pointer", "input"),
        ("--before", "soon"),
        ("--session", "s1", "--format", "xml"),
    ],
)
def test_the_verb_refuses_a_command_that_is_not_clear(
    tmp_path: Path, erase: Verb, options: tuple[str, ...]
) -> None:
    """No texts are named, or no reason."""
    log = log_of(tmp_path)
    assert erase(log, *options)[0] == 1
    assert verified(log).erased == 0


def test_nothing_is_erased_that_no_node_recorded(tmp_path: Path, erase: Verb) -> None:
    """Without --unrecorded a node must run."""
    log = log_of(tmp_path)
    address = f"unix://{tmp_path}/none.sock"
    options = ("--session", "s1", "--yes", "--reason", "asked", "--admin", address)
    code, output = erase(log, *options)
    assert code == 1
    assert "Nothing was erased" in output
    assert verified(log).erased == 0
