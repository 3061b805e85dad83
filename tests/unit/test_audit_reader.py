"""The audit reader: damaged lines are told and passed over."""

from __future__ import annotations

import gzip
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from authz.audit import read, rotated
from authz.errors import UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from authz.model import Diagnostic


def test_records_come_in_order_and_damage_is_told(tmp_path: Path) -> None:
    """A half-written last line is what a crash leaves."""
    file = tmp_path / "audit.jsonl"
    file.write_bytes(
        b'{"decision_id": "1"}\nnot json\n[1]\n{"decision_id": "2"}\n{"decision_id": "3"'
    )
    damaged: list[Diagnostic] = []

    records = list(read(file, damaged.append))

    assert [(one.line, one.decision_id) for one in records] == [(1, "1"), (4, "2")]
    assert [one.line for one in damaged] == [2, 3, 5]


def test_an_endless_line_is_passed_over(tmp_path: Path) -> None:
    """Without holding it."""
    file = tmp_path / "audit.jsonl"
    file.write_bytes(b'{"x": "' + b"a" * 3_000_000 + b'"}\n{"decision_id": "2"}\n')
    damaged: list[Diagnostic] = []

    assert [one.decision_id for one in read(file, damaged.append)] == ["2"]
    assert [one.what for one in damaged] == ["longer than 1 MiB."]


def test_what_unfolds_is_read_within_bounds(tmp_path: Path) -> None:
    """A small packed file of one endless line, and records that nest without end, take no memory to speak of."""
    file = tmp_path / "audit.jsonl.gz"
    with gzip.open(file, "wb") as stream:
        for _ in range(64):
            stream.write(b"a" * 1_048_576)
        stream.write(b"\n" + b'{"x": ' + b"[" * 500_000 + b"\n" + b'{"decision_id": "2"}\n')
    assert file.stat().st_size < 200_000
    damaged: list[Diagnostic] = []
    tracemalloc.start()
    try:
        assert [one.decision_id for one in read(file, damaged.append)] == ["2"]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [one.line for one in damaged] == [1, 2]
    assert peak < 16 * 1_048_576


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """Not an empty audit."""
    with pytest.raises(UnavailableError):
        list(read(tmp_path / "none", lambda _: None))


def test_every_rotated_file_is_listed_where_all_are_asked_for(tmp_path: Path) -> None:
    """`authz why` reads the newest thousand; a report leaves none out."""
    log = tmp_path / "audit.jsonl"
    for number in range(1_002):
        (tmp_path / f"audit.jsonl.{number}").touch()
    assert len(rotated(log, "")) == 1_001
    assert len(rotated(log, "", 0)) == 1_003
