"""A receipt: the record of one decision, its place below a signed head, policies that it names, and answers of its approval.

The stored form is canonical JSON (RFC 8785), and has no member that is not proved.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["MAX_RECEIPT", "VERSION", "ProvedRecord", "Receipt", "ReceiptError", "read_object"]

VERSION: Final = 1
"""Version of the form."""
MAX_RECEIPT: Final = 32 * 1024 * 1024
"""Largest receipt, in bytes."""
_MAX_PATH: Final = 64
_MAX_ANSWERS: Final = 256
_NODE: Final = re.compile(r"[0-9a-f]{64}")
_LARGEST: Final = 2**53 - 1
_PLACE: Final = ("count", "head", "index", "path", "record")


class ReceiptError(ValueError):
    """A receipt is refused.

    Args:
        code: Reason for programs, for example `path`: see docs/reference/receipts.md.
        message: Description of the defect.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class ProvedRecord:
    """A record with the proof that it is below a head."""

    record: str
    """The line, without its line feed."""
    index: int
    """Place in the segment, from 0."""
    count: int
    """Number of records below the head."""
    path: tuple[bytes, ...]
    """Inclusion proof, from the leaf upwards (RFC 9162 §2.1.3)."""
    head: str
    """The head in its stored form."""

    def document(self) -> dict[str, Any]:
        """Return the members of the stored form."""
        return {
            "count": self.count,
            "head": json.loads(self.head),
            "index": self.index,
            "path": [node.hex() for node in self.path],
            "record": self.record,
        }


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt."""

    decision: ProvedRecord
    """Record of the decision."""
    policies: Mapping[str, str] = field(default_factory=dict)
    """Text of each policy that the record names; empty without a bundle."""
    answers: tuple[ProvedRecord, ...] = ()
    """Records of the answers of people that the call relies on, oldest first."""

    def content(self) -> bytes:
        """Return the stored form."""
        answers = [answer.document() for answer in self.answers]
        document = {"answers": answers, "policies": dict(self.policies), "version": VERSION}
        return _canonical({**document, **self.decision.document()})

    @staticmethod
    def read(content: bytes) -> "Receipt":
        """Read a stored receipt.

        Raises:
            ReceiptError: The content is not a receipt in its only form.
        """
        if len(content) > MAX_RECEIPT:
            raise ReceiptError("form", "longer than 32 MiB")
        try:
            document = json.loads(content)
            is_canonical = _canonical(document) == content
        except (ValueError, TypeError, RecursionError) as error:
            raise ReceiptError("form", f"not canonical JSON: {error}") from error
        if not is_canonical:
            raise ReceiptError("form", "not canonical JSON (RFC 8785)")
        members = _members(document, (*_PLACE, "answers", "policies", "version"))
        if type(members["version"]) is not int or members["version"] != VERSION:
            raise ReceiptError("form", "the version of the receipt is not 1")
        policies, answers = members["policies"], members["answers"]
        if not isinstance(policies, dict) or not all(
            isinstance(text, str) for text in policies.values()
        ):
            raise ReceiptError("form", "`policies` is not an object of texts")
        if not isinstance(answers, list) or len(answers) > _MAX_ANSWERS:
            raise ReceiptError("form", "`answers` is not a list of records")
        decision = _proved({name: members[name] for name in _PLACE})
        return Receipt(decision, policies, tuple(_proved(_members(one, _PLACE)) for one in answers))


def read_object(text: str, code: str, name: str) -> dict[str, Any]:
    """Read a JSON object of which no member stands twice.

    Args:
        text: JSON.
        code: Code of the error.
        name: Name of the text in the error.

    Raises:
        ReceiptError: The text is not such an object.
    """

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise ReceiptError(code, f"{name} has a member twice")
        return fields

    def no_number(constant: str) -> None:
        raise ReceiptError(code, f"{name} has the number {constant}")

    try:
        value = json.loads(text, object_pairs_hook=members, parse_constant=no_number)
    except ReceiptError:
        raise
    except (ValueError, RecursionError) as error:
        raise ReceiptError(code, f"{name} is not JSON") from error
    if not isinstance(value, dict):
        raise ReceiptError(code, f"{name} is not an object")
    return value


def _members(value: object, names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(names):
        raise ReceiptError("form", f"the members are not {', '.join(sorted(names))}")
    return value


def _proved(members: Mapping[str, Any]) -> ProvedRecord:
    record, path, head = members["record"], members["path"], members["head"]
    numbers = (members["index"], members["count"])
    if any(type(number) is not int or not 0 <= number <= _LARGEST for number in numbers):
        raise ReceiptError("form", "`index` or `count` is not a number of records")
    if not isinstance(record, str) or "\n" in record:
        raise ReceiptError("form", "`record` is not a line")
    if not isinstance(path, list) or len(path) > _MAX_PATH:
        raise ReceiptError("form", "`path` is not a list of hashes")
    if not all(isinstance(node, str) and _NODE.fullmatch(node) for node in path):
        raise ReceiptError("form", "`path` is not a list of hashes")
    if not isinstance(head, dict) or not all(isinstance(part, str) for part in head.values()):
        raise ReceiptError("form", "`head` is not an object of texts")
    stored = json.dumps(head, separators=(",", ":"), ensure_ascii=False)
    return ProvedRecord(record, *numbers, tuple(bytes.fromhex(node) for node in path), stored)


def _canonical(value: Any) -> bytes:
    """Write JSON by RFC 8785. Numbers other than integers are refused later, since no member is one."""
    text = json.dumps(_sorted(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def _sorted(value: Any) -> Any:
    """Order members by the UTF-16 code units of their names (RFC 8785 §3.2.3)."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return {name: _sorted(value[name]) for name in names}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value
