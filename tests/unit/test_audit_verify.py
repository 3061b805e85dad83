"""Verification of an audit log: every change of a small log is found, and what no head proves is said."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.audit import Verification, verify
from authz.audit.chain import MerkleTree, inclusion_path, leaf_hash, read_link, root_of_path
from authz.audit.heads import HeadError, Jwks, read_head
from tests.support.audit_log import LogWriter, reference_root


def _records(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"decision_id": f"d{number}", "timestamp": f"2026-12-01T00:00:{number:02}.000Z"}
        for number in range(start, start + count)
    ]


def _log(folder: Path) -> LogWriter:
    """Write two segments that ended, and lines after them."""
    log = LogWriter(folder)
    log.write(_records(3), sealed=True)
    log.write(_records(2, 3), sealed=True)
    log.write(_records(4, 5))
    return log


def _verify(log: LogWriter, *, newest: str | None = None) -> Verification:
    files = [
        file for file in log.path.parent.iterdir() if file.is_file() and file.name != log.heads.name
    ]
    newest = log.newest if newest is None else newest
    return verify(files, log.heads, [newest] if newest else [], Jwks.parse(log.jwks()))


def test_a_whole_log_has_no_findings(tmp_path: Path) -> None:
    """A whole log has no findings."""
    found = _verify(_log(tmp_path))
    assert found.findings == []
    assert (found.lines, found.proved, found.segments, found.heads, found.signatures) == (
        9,
        9,
        3,
        3,
        3,
    )
    assert found.keys == ("k1",)


def test_lines_after_the_newest_head_are_not_proved(tmp_path: Path) -> None:
    """Lines after the newest head are not proved."""
    found = _verify(_log(tmp_path), newest="")
    assert (found.findings, found.unproved) == ([], 4)


def test_every_flipped_bit_of_lines_and_heads_is_found(tmp_path: Path) -> None:
    """The signature is verified for bits of the heads alone: lines are found by their hashes."""
    log = LogWriter(tmp_path)
    log.write(_records(2), sealed=True)
    log.write(_records(2, 2))
    keys = Jwks.parse(log.jwks())
    files = [tmp_path / "audit.jsonl.00000001", log.path]
    missed = []
    for file in (*files, log.heads):
        whole = file.read_bytes()
        for bit in range(len(whole) * 8):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << (bit % 8)
            file.write_bytes(changed)
            trusted = keys if file == log.heads else None
            if not verify(files, log.heads, [log.newest], trusted).findings:
                missed.append((file.name, bit))
        file.write_bytes(whole)
    assert missed == []
    assert verify(files, log.heads, [log.newest], keys).findings == []


def test_every_dropped_swapped_cut_or_doubled_line_is_found(tmp_path: Path) -> None:
    """Every dropped swapped cut or doubled line is found."""
    log = _log(tmp_path)
    for file in (log.path, tmp_path / "audit.jsonl.00000001", log.heads):
        whole = file.read_text().splitlines(keepends=True)
        changes = []
        for at in range(len(whole)):
            changes += [
                whole[:at] + whole[at + 1 :],
                whole[:at],
                [*whole[: at + 1], *whole[at:]],
                [*whole[:at], whole[at][:-9], *whole[at + 1 :]],
            ]
            if at:
                changes.append([*whole[: at - 1], whole[at], whole[at - 1], *whole[at + 1 :]])
        for changed in changes:
            file.write_text("".join(changed))
            found = _verify(log)
            # The lines of the oldest segment can be dropped as a whole; its head stays.
            assert found.findings or found.dropped, changed
        file.write_text("".join(whole))
    assert not _verify(log).findings


def test_segments_that_were_dropped_leave_heads(tmp_path: Path) -> None:
    """Segments that were dropped leave heads."""
    log = _log(tmp_path)
    (tmp_path / "audit.jsonl.00000001").unlink()
    found = _verify(log)
    assert (found.findings, found.dropped, found.lines) == ([], 1, 6)
    (tmp_path / "audit.jsonl.00000002").rename(tmp_path / "elsewhere")
    found = _verify(log)
    assert found.findings == []
    (tmp_path / "elsewhere").unlink()
    log.path.unlink()
    assert "4 lines of segment 3 are missing" in str(_verify(log).findings[-1])


def test_a_missing_segment_between_others_is_found(tmp_path: Path) -> None:
    """A missing segment between others is found."""
    log = _log(tmp_path)
    (tmp_path / "audit.jsonl.00000002").unlink()
    texts = [str(finding) for finding in _verify(log).findings]
    assert any("the lines of segments 2 to 2 are missing" in text for text in texts)


def test_compressed_segments_are_read(tmp_path: Path) -> None:
    """Compressed segments are read."""
    log = _log(tmp_path)
    first = tmp_path / "audit.jsonl.00000001"
    (tmp_path / "audit.jsonl.00000001.gz").write_bytes(gzip.compress(first.read_bytes()))
    first.unlink()
    assert _verify(log).findings == []


def test_a_log_of_another_key_is_refused(tmp_path: Path) -> None:
    """A log of another key is refused."""
    log = _log(tmp_path)
    (tmp_path / "other").mkdir()
    keys = Jwks.parse(LogWriter(tmp_path / "other").jwks())
    found = verify([log.path], log.heads, [log.newest], keys)
    assert len([one for one in found.findings if "signature" in one.message]) == 3
    unsigned = LogWriter(tmp_path / "other", signed=False)
    unsigned.write(_records(1), sealed=True)
    found = verify([], unsigned.heads, [], Jwks.parse(log.jwks()))
    assert any("not signed" in one.message for one in found.findings)


def test_a_whole_log_written_anew_with_other_content_fails_at_a_known_head(tmp_path: Path) -> None:
    """A whole log written anew with other content fails at a known head."""
    log = _log(tmp_path)
    known = log.newest
    log.segment, log.previous = 1, "0" * 64
    log.heads.unlink()
    log.write(_records(3, 20), sealed=True)
    log.write(_records(2, 23), sealed=True)
    log.write(_records(4, 25))
    assert _verify(log, newest="").findings == []
    assert _verify(log, newest=known).findings != []


def test_a_clock_that_was_set_back_is_noted(tmp_path: Path) -> None:
    """A clock that was set back is noted."""
    log = LogWriter(tmp_path)
    log.write([*_records(2, 30), *_records(1)])
    found = _verify(log)
    assert found.findings == []
    assert "the clock was set back" in found.notes[0]


def test_lines_from_before_the_chain_are_counted(tmp_path: Path) -> None:
    """Lines from before the chain are counted."""
    log = LogWriter(tmp_path)
    log.write(_records(2))
    log.path.write_text('{"decision_id":"old"}\n' + log.path.read_text())
    found = _verify(log)
    assert (found.findings, found.before) == ([], 1)
    log.path.write_text(log.path.read_text() + '{"decision_id":"new"}\n')
    assert "not in the chain" in _verify(log).findings[0].message


@pytest.mark.parametrize(
    "change",
    [
        lambda head: head.replace('"payload"', '"payload" '),
        lambda head: json.dumps(json.loads(head)),
        lambda head: head + " ",
        lambda head: json.dumps({**json.loads(head), "x": "y"}, separators=(",", ":")),
        lambda _: "[]",
        lambda _: '{"payload":1}',
        lambda _: "x" * 9_000,
    ],
)
def test_another_form_of_a_head_is_refused(tmp_path: Path, change: Any) -> None:
    """Another form of a head is refused."""
    log = _log(tmp_path)
    read_head(log.newest)
    with pytest.raises(HeadError):
        read_head(change(log.newest))


def test_a_head_with_other_members_is_refused(tmp_path: Path) -> None:
    """A head with other members is refused."""
    log = _log(tmp_path)
    changes: list[dict[str, Any]] = [{"count": "4"}, {"sealed": 1}, {"extra": 1}, {"count": True}]
    for change in changes:
        with pytest.raises(HeadError):
            read_head(log.head([], **{"sealed": False, **change}))


@pytest.mark.parametrize(
    "text", ["", "{}", '{"keys":[]}', '{"keys":[{"kty":"oct","k":"AA","kid":"a"}]}']
)
def test_keys_that_cannot_sign_heads_are_refused(text: str) -> None:
    """Keys that cannot sign heads are refused."""
    with pytest.raises(HeadError):
        Jwks.parse(text)


@given(st.integers(0, 70), st.data())
def test_roots_and_proofs_are_those_of_the_definition(count: int, data: st.DataObject) -> None:
    """Roots and proofs are those of the definition."""
    leaves = [leaf_hash(str(number).encode()) for number in range(count)]
    tree = MerkleTree()
    for leaf in leaves:
        tree.push(leaf)
    assert tree.root() == reference_root(leaves)
    if not count:
        return
    index = data.draw(st.integers(0, count - 1))
    path = inclusion_path(leaves, index)
    assert root_of_path(leaves[index], index, count, path) == tree.root()
    other = data.draw(st.integers(0, count - 1))
    if other != index:
        assert root_of_path(leaves[index], other, count, path) != tree.root()
    if path:
        assert root_of_path(leaves[index], index, count, path[:-1]) is None
    assert root_of_path(leaves[index], index, count, [*path, leaves[0]]) is None
    with pytest.raises(IndexError):
        inclusion_path(leaves, count)


@pytest.mark.parametrize(
    "suffix", ['"segment":01', '"segment":1 ', '"segment":-1', '"segment":1,"index":00']
)
def test_another_spelling_of_a_place_is_no_place(suffix: str) -> None:
    """Another spelling of a place is no place."""
    line = '{"a":1,"chain":{"segment":1,"index":0,"previous":"' + "0" * 64 + '"}}'
    assert read_link(line.encode()) is not None
    key = '"segment":1,"index":0' if "index" in suffix else '"segment":1'
    assert read_link(line.replace(key, suffix).encode()) is None
