"""Texts of a record that can be erased: they stand before the part of the line that the chain covers.

`{"texts":{"<pointer>":{"salt":"…","text":"…","pad":"…"}},"decision_id":…`: at the pointer the record has `salted:` and SHA-256 over
salt and text, in hex. Without the texts the line has the same place in the chain, and nobody can guess a text from its digest.

`{"erased":"---"}` stands for a text that was erased. It is as long as the text was with its salt and padding, so that the line keeps
its length and sinks find their place in the file.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "ErasedLine",
    "covered",
    "erase_texts",
    "erased_texts",
    "restored",
    "texts_defect",
]

_START: Final = b'{"texts":{'
# No string holds these bytes, since JSON escapes quotation marks.
_END: Final = b'}},"decision_id":'
_DIGEST: Final = re.compile(r"salted:[0-9a-f]{64}")
_SALT: Final = re.compile(r"[0-9a-f]{32}")
_FILL: Final = "-"
_PADDED_TO: Final = 64
_TEXT: Final = ["salt", "text", "pad"]
_ERASED: Final = ["erased"]


@dataclass(frozen=True, slots=True)
class ErasedLine:
    """A line of which texts were erased."""

    line: bytes
    """The line, without its line feed; as long as it was."""
    pointers: tuple[str, ...]
    """JSON pointers of the texts that were erased."""


def covered(line: bytes) -> bytes:
    """Return the part of a line that the chain covers: the record without the texts that can be erased.

    Args:
        line: The line, with or without its line feed.
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
    """Return a record with each text in its place.

    A text that does not fit is left out. A record that lacks a text cannot be replayed.
    """
    record = dict(fields)
    texts = record.pop("texts", None)
    for pointer, entry in texts.items() if isinstance(texts, dict) else ():
        if _defect(record, pointer, entry) == "" and "text" in entry:
            _set(record, pointer, entry["text"])
    given = record.get("input")
    if isinstance(given, dict) and "replayable" in given and any(_digests(record)):
        given["replayable"] = False
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
    # The members of an object that stand twice are lost here.
    if list(texts) != sorted(texts) or _compact(texts) != written:
        return "the texts of the record are not in the form in which they are written"
    return next(
        (found for name, entry in texts.items() if (found := _defect(record, name, entry))), ""
    )


def erased_texts(line: bytes) -> int:
    """Return the number of recorded texts that a line no longer has.

    Args:
        line: The line, without its line feed.
    """
    if b'"salted:' not in line:
        return 0
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return 0
    if not isinstance(record, dict):
        return 0
    texts = record.pop("texts", {})
    present = (entry for entry in texts.values() if isinstance(entry, dict) and "text" in entry)
    return sum(1 for _ in _digests(record)) - sum(1 for _ in present)


def erase_texts(line: bytes, is_selected: Callable[[str], bool]) -> ErasedLine:
    """Erase texts of a line. Nothing else of it changes, and it keeps its length.

    Args:
        line: The line, without its line feed.
        is_selected: Returns whether to erase the text at a JSON pointer.

    Raises:
        ValueError: The texts of the line are damaged.
    """
    if (end := _end(line)) < 0:
        return ErasedLine(line, ())
    if defect := texts_defect(line):
        raise ValueError(defect)
    texts = json.loads(line[len(b'{"texts":') : end])
    chosen = [name for name, entry in texts.items() if "text" in entry and is_selected(name)]
    for name in chosen:
        length = len(_compact(texts[name])) - len(_compact({"erased": ""}))
        texts[name] = {"erased": _FILL * length}
    return ErasedLine(b'{"texts":' + _compact(texts) + line[end:], tuple(chosen))


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _defect(record: Mapping[str, Any], pointer: str, entry: object) -> str:
    """Return what is wrong with a text, or with the mark of an erased one."""
    digest = _get(record, pointer)
    name = f"the text at {pointer!r}"
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        return f"{name} is of a member that has no salted digest"
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        return f"{name} is not an object of strings"
    if list(entry) == _ERASED:
        return f"{name} has a mark of erasure with a text" if entry["erased"].strip(_FILL) else ""
    if list(entry) != _TEXT:
        return f"{name} has other members than a text"
    salt, text, pad = entry.values()
    return "" if _fits(salt, text, pad, digest) else f"{name} is not the one that was recorded"


def _fits(salt: str, text: str, pad: str, digest: str) -> bool:
    # A salt of fixed length: no character of it can be said to be one of the text.
    if not _SALT.fullmatch(salt) or pad != _FILL * (_PADDED_TO - _length(text) % _PADDED_TO):
        return False
    return digest == "salted:" + hashlib.sha256((salt + text).encode(errors="replace")).hexdigest()


def _length(text: str) -> int:
    """Return the bytes of a text as it is written between quotation marks."""
    return len(json.dumps(text, ensure_ascii=False).encode(errors="replace")) - 2


def _digests(value: object) -> Iterator[str]:
    """Yield the salted digests that stand for texts."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _digests(item)
    elif isinstance(value, str) and _DIGEST.fullmatch(value):
        yield value


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
