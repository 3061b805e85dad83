"""Texts of records that can be erased without a change of the chain."""

import hashlib
import json
from pathlib import Path
from typing import Any

from authz.audit import Jwks, read, verify
from authz.audit.erasable import covered
from tests.support.audit_log import LogWriter

TEXT = 'tell "}},\\"decision_id\\":" to Zoë\n'


def _record(**texts: str) -> dict[str, Any]:
    """Returns a record with the texts below its arguments."""
    salts = {name: hashlib.sha256(name.encode()).hexdigest()[:32] for name in texts}
    digests = {
        name: "salted:" + hashlib.sha256((salts[name] + text).encode()).hexdigest()
        for name, text in texts.items()
    }
    return {
        "texts": {
            f"/input/arguments/{name}": {"salt": salts[name], "text": text}
            for name, text in texts.items()
        },
        "decision_id": "d1",
        "labels": {"id": "n1"},
        "input": {"arguments": digests, "texts": {"a": {}}},
    }


def _log(folder: Path) -> LogWriter:
    log = LogWriter(folder)
    log.write([{"decision_id": "d0"}, _record(query=TEXT, other=""), {"decision_id": "d2"}])
    return log


def _findings(log: LogWriter) -> list[str]:
    found = verify([log.path], None, [log.newest], Jwks.parse(log.jwks())).findings
    return [str(finding) for finding in found]


def test_texts_stand_in_their_places_for_readers(tmp_path: Path) -> None:
    """A reader of records needs not know that texts stand apart."""
    log = _log(tmp_path)
    assert _findings(log) == []
    fields = [record.fields for record in read(log.path, lambda _: None)][1]
    assert "texts" not in fields
    assert fields["input"]["arguments"] == {"query": TEXT, "other": ""}


def test_erased_texts_break_nothing(tmp_path: Path) -> None:
    """The record stays provable with one text, and without any."""
    log = _log(tmp_path)
    lines = log.path.read_bytes().splitlines(keepends=True)
    whole = json.loads(lines[1])
    del whole["texts"]["/input/arguments/other"]
    one = json.dumps(whole["texts"], separators=(",", ":"), ensure_ascii=False).encode()
    for line in (
        b'{"texts":' + one + b"," + covered(lines[1])[1:],
        covered(lines[1]),
    ):
        log.path.write_bytes(lines[0] + line + lines[2])
        assert _findings(log) == []
    fields = [record.fields for record in read(log.path, lambda _: None)][1]
    assert fields["input"]["arguments"]["query"].startswith("salted:")


def test_every_flipped_bit_of_texts_is_found(tmp_path: Path) -> None:
    """Also one that only changes how a text is written."""
    log = _log(tmp_path)
    lines = log.path.read_bytes().splitlines(keepends=True)
    texts = len(lines[1]) - len(covered(lines[1]))
    for bit in range(8 * texts):
        changed = bytearray(lines[1])
        changed[bit // 8] ^= 1 << bit % 8
        log.path.write_bytes(lines[0] + bytes(changed) + lines[2])
        assert _findings(log) != [], bit


def test_texts_of_another_record_do_not_fit(tmp_path: Path) -> None:
    """A text cannot be exchanged, added or said of another member."""
    log = _log(tmp_path)
    lines = log.path.read_bytes().splitlines(keepends=True)
    entry = json.loads(lines[1])["texts"]["/input/arguments/query"]
    for texts in (
        {"/input/arguments/query": {**entry, "text": "other"}},
        {"/input/arguments/other": entry},
        {"/decision_id": {"salt": "", "text": "d1"}},
        {"/input/arguments/query": {"text": entry["text"], "salt": entry["salt"]}},
        {"/input/arguments/query": entry | {"more": ""}},
        {"": entry},
    ):
        written = json.dumps(texts, separators=(",", ":"), ensure_ascii=False).encode()
        line = b'{"texts":' + written + b"," + covered(lines[1])[1:]
        log.path.write_bytes(lines[0] + line + lines[2])
        assert len(_findings(log)) == 1, texts
