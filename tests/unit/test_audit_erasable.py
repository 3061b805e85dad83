"""Texts of records that can be erased without a change of the chain."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from authz.audit import Jwks, Verification, read, verify
from authz.audit.erasable import covered, erase_texts
from tests.support.audit_log import LogWriter, erasable

TEXT = 'tell "}},\\"decision_id\\":" to Zoë\n'
QUERY, OTHER = "/input/arguments/query", "/input/arguments/other"


def _record(**texts: str) -> dict[str, Any]:
    """Returns a record with the texts below its arguments."""
    made = {
        name: erasable(text, hashlib.sha256(name.encode()).hexdigest()[:32])
        for name, text in sorted(texts.items())
    }
    return {
        "texts": {f"/input/arguments/{name}": entry for name, (entry, _) in made.items()},
        "decision_id": "d1",
        "labels": {"id": "n1"},
        "input": {
            "arguments": {name: digest for name, (_, digest) in made.items()},
            "replayable": True,
            "texts": {"a": {}},
        },
    }


def _log(folder: Path) -> LogWriter:
    log = LogWriter(folder)
    log.write([{"decision_id": "d0"}, _record(query=TEXT, other=""), {"decision_id": "d2"}])
    return log


def _verified(log: LogWriter) -> Verification:
    return verify([log.path], None, [log.newest], Jwks.parse(log.jwks()))


def _findings(log: LogWriter) -> list[str]:
    return [str(finding) for finding in _verified(log).findings]


def _read(log: LogWriter) -> dict[str, Any]:
    return dict([record.fields for record in read(log.path, lambda _: None)][1])


def _with_texts(line: bytes, texts: object) -> bytes:
    written = json.dumps(texts, separators=(",", ":"), ensure_ascii=False).encode()
    return b'{"texts":' + written + b"," + covered(line)[1:]


def test_texts_stand_in_their_places_for_readers(tmp_path: Path) -> None:
    """A reader of records needs not know that texts stand apart."""
    log = _log(tmp_path)
    assert (_findings(log), _verified(log).erased) == ([], 0)
    fields = _read(log)
    assert "texts" not in fields
    assert fields["input"]["arguments"] == {"query": TEXT, "other": ""}
    assert fields["input"]["replayable"] is True


def test_erased_texts_break_nothing(tmp_path: Path) -> None:
    """The record stays provable with one text, and without any; only the erased one is gone."""
    log = _log(tmp_path)
    lines = log.path.read_bytes().splitlines(keepends=True)
    one = erase_texts(lines[1][:-1], lambda pointer: pointer == QUERY)
    both = erase_texts(one.line, lambda _: True)
    assert (one.pointers, both.pointers) == ((QUERY,), (OTHER,))
    assert erase_texts(both.line, lambda _: True).pointers == ()
    cut = covered(lines[1][:-1])
    for line, erased, size in (
        (one.line, 1, len(lines[1])),
        (both.line, 2, len(lines[1])),
        (cut, 2, 0),
    ):
        assert size in (len(line) + 1, 0)
        assert "Zoë".encode() not in line
        log.path.write_bytes(lines[0] + line + b"\n" + lines[2])
        assert (_findings(log), _verified(log).erased) == ([], erased)
        fields = _read(log)
        assert fields["input"]["arguments"]["query"].startswith("salted:")
        assert fields["input"]["replayable"] is False, "a replay would judge the digest as a text"


def test_the_bytes_of_an_erased_text_tell_its_length_only_in_steps(tmp_path: Path) -> None:
    """A yes cannot be told from a no."""
    lengths = set()
    for text in ("", "no", "yes", "x" * 63):
        log = LogWriter(tmp_path)
        line = log.write([_record(query=text)]).read_bytes()[:-1]
        lengths.add(len(erase_texts(line, lambda _: True).line))
    assert len(lengths) == 1


def test_every_flipped_bit_of_texts_is_found(tmp_path: Path) -> None:
    """Also one that only changes how a text is written, and one in the mark of an erased text."""
    log = _log(tmp_path)
    lines = log.path.read_bytes().splitlines(keepends=True)
    line = erase_texts(lines[1][:-1], lambda pointer: pointer == OTHER).line + b"\n"
    texts = len(line) - len(covered(line))
    for bit in range(8 * texts):
        changed = bytearray(line)
        changed[bit // 8] ^= 1 << bit % 8
        log.path.write_bytes(lines[0] + bytes(changed) + lines[2])
        assert _findings(log) != [], bit


def test_texts_of_another_record_do_not_fit(tmp_path: Path) -> None:
    """A text cannot be exchanged, added, reordered or said of another member."""
    log = _log(tmp_path)
    lines = log.path.read_bytes().splitlines(keepends=True)
    texts = json.loads(lines[1])["texts"]
    entry, other = texts[QUERY], texts[OTHER]
    salt = entry["salt"]
    moved = {
        **entry,
        "salt": salt[:-1],
        "text": salt[-1] + entry["text"],
        "pad": entry["pad"][:-1],
    }
    for wrong in (
        {OTHER: other, QUERY: {**entry, "text": "other"}},
        {OTHER: entry},
        {OTHER: other, QUERY: other},
        {QUERY: entry, OTHER: other},
        {"/decision_id": {"salt": "", "text": "d1", "pad": "-" * 62}},
        {"/input/arguments/none": entry},
        {QUERY: {name: entry[name] for name in ("text", "salt", "pad")}},
        {QUERY: entry | {"more": ""}},
        {QUERY: {"salt": salt, "text": entry["text"]}},
        {QUERY: entry | {"pad": ""}},
        {QUERY: entry | {"pad": entry["pad"] + "-" * 64}},
        {QUERY: entry | {"pad": "x" * len(entry["pad"])}},
        {QUERY: moved},
        {QUERY: {"erased": entry["text"]}},
        {QUERY: {"erased": "-", "text": ""}},
        {QUERY: {"erased": None}},
        {"/decision_id": {"erased": "---"}},
        {"": entry},
    ):
        line = _with_texts(lines[1], wrong)
        log.path.write_bytes(lines[0] + line + lines[2])
        assert len(_findings(log)) == 1, wrong
        with pytest.raises(ValueError, match="text"):
            erase_texts(line[:-1], lambda _: True)
    log.path.write_bytes(lines[0] + _with_texts(lines[1], {QUERY: entry, OTHER: other}) + lines[2])
    assert "not in the form in which they are written" in _findings(log)[0]
