"""Texts of a record that can be erased: they stand before the part of the line that the chain covers.

`{"texts":{"<pointer>":{"salt":"…","text":"…"}},"decision_id":…`: at the pointer the record has `salted:` and SHA-256 over salt and text, in
hex. Without the texts the line has the same place in the chain, and nobody can guess a text from its digest.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["covered", "restored", "texts_defect"]

_START: Final = b'{"texts":{'
# No string holds these bytes, since JSON escapes quotation marks.
_END: Final = b'}},"decision_id":'
_SALTED: Final = "salted:"


def covered(line: bytes) -> bytes:
    """Return the part of a line that the chain covers: the record without the texts that can be erased.

    Args:
        line: The line, without its line feed.
    """
    end = _end(line)
    return line if end < 0 else b"{" + line[end + 1 :]


def _end(line: bytes) -> int:
    """Return the place of the comma after the texts; -1 without texts."""
    if not line.startswith(_START):
        return -1
    end = line.find(_END)
    return end if end < 0 else end + 2


def restored(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with each text in its place. A text that does not fit is left out."""
    record = dict(fields)
    texts = record.pop("texts", None)
    for pointer, entry in texts.items() if isinstance(texts, dict) else ():
        if _fits(record, pointer, entry):
            _set(record, pointer, entry["text"])
    return record


def texts_defect(line: bytes) -> str:
    """Return what is wrong with the texts of a line; empty if nothing is, or if it has none.

    Args:
        line: The line, without its line feed.
    """
    end = _end(line)
    if end < 0:
        return ""
    written = line[len(b'{"texts":') : end]
    try:
        texts, record = json.loads(written), json.loads(covered(line))
    except (ValueError, RecursionError):
        return "the texts of the record cannot be read"
    if json.dumps(texts, separators=(",", ":"), ensure_ascii=False).encode() != written:
        return "the texts of the record are not in the form in which they are written"
    for pointer, entry in texts.items():
        if not _fits(record, pointer, entry):
            return f"the text at {pointer!r} is not the one that was recorded"
    return ""


def _fits(record: Mapping[str, Any], pointer: str, entry: object) -> bool:
    if not isinstance(entry, dict) or list(entry) != ["salt", "text"]:
        return False
    if not all(isinstance(value, str) for value in entry.values()):
        return False
    digest = hashlib.sha256((entry["salt"] + entry["text"]).encode(errors="replace")).hexdigest()
    return _get(record, pointer) == _SALTED + digest


def _steps(pointer: str) -> list[str]:
    """Return the tokens of a JSON pointer (RFC 6901 §4)."""
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def _get(value: Any, pointer: str) -> Any:
    for step in _steps(pointer):
        value = _child(value, step)
    return value


def _child(value: Any, step: str) -> Any:
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
        return value[int(step)]
    return None


def _set(record: dict[str, Any], pointer: str, text: str) -> None:
    *steps, last = _steps(pointer)
    value: Any = record
    for step in steps:
        value = _child(value, step)
    if isinstance(value, list):
        value[int(last)] = text
    else:
        value[last] = text
