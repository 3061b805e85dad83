"""Heads of one node's audit log in the logs of other nodes."""

import json
from pathlib import Path
from typing import Any

import pytest

from authz.audit import Jwks, verify, witnessed_heads
from authz.cli import main
from tests.support.audit_log import LogWriter

RECORDS = [{"decision_id": f"d{number}", "labels": {"id": "n1"}} for number in range(6)]


def _witness(folder: Path, *heads: Any) -> Path:
    file = folder / "n2.jsonl"
    records = [
        {"decision_id": "x1", "labels": {"id": "n2"}, "result": {"outcome": "PERMIT"}},
        {"decision_id": "x2", "labels": {"id": "n2"}, "heads": list(heads)},
    ]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def test_heads_of_the_node_are_found_once(tmp_path: Path) -> None:
    """Heads of other nodes, damaged heads and repetitions are left out."""
    log = LogWriter(tmp_path)
    log.write(RECORDS)
    own = json.loads(log.newest)
    other = json.loads(log.head([], sealed=False, node="n3"))
    file = _witness(tmp_path, own, other, {"payload": "e30"}, "text", None, own)
    assert list(witnessed_heads([file, file], "n1")) == [log.newest]


def test_a_log_written_anew_with_its_own_key_fails_at_a_witnessed_head(tmp_path: Path) -> None:
    """Somebody with the key of the node writes a shorter log, with heads that fit."""
    log = LogWriter(tmp_path)
    log.write(RECORDS)
    file = _witness(tmp_path, json.loads(log.newest))
    forged = LogWriter(tmp_path, key=log.key)
    forged.kid = log.kid
    forged.write(RECORDS[:4])
    keys = Jwks.parse(log.jwks())
    assert verify([forged.path], None, [forged.newest], keys).findings == []
    heads = [forged.newest, *witnessed_heads([file], "n1")]
    found = verify([forged.path], None, heads, keys).findings
    assert [str(finding) for finding in found] == ["the last 2 lines of segment 1 are missing"]


def test_the_command_finds_heads_beside_each_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The order of the files does not matter: heads stand beside the file that the node writes."""
    log = LogWriter(tmp_path)
    first = log.write(RECORDS, sealed=True)
    log.write(RECORDS)
    log.path.with_name(f"{log.path.name}.head").write_text(log.newest)
    for files in ((first, log.path), (log.path, first)):
        with pytest.raises(SystemExit) as ended:
            main(["audit", "verify", *(word for file in files for word in ("--log", str(file)))])
        assert ended.value.code in {0, None}
        shown = capsys.readouterr().out
        assert f"{2 * len(RECORDS)} of them proved by heads" in shown
        assert "tail not proved" not in shown


@pytest.mark.parametrize(("heads", "code"), [(True, 0), (False, 1)])
def test_the_command_takes_logs_of_other_nodes(
    tmp_path: Path, *, heads: bool, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log without a head of the node proves nothing, and the command says so."""
    log = LogWriter(tmp_path)
    log.write(RECORDS)
    file = _witness(tmp_path, *([json.loads(log.newest)] if heads else []))
    command = ["audit", "verify", "--log", str(log.path), "--witness", str(file)]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == code
    shown = capsys.readouterr()
    if heads:
        assert "6 of them proved by heads" in shown.out
    else:
        assert "no head of node 'n1'" in shown.err
