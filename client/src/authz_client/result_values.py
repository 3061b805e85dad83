"""Values of a result that a permit asks for, in the form that a report carries them.

A result is the object that a guarded function returned, a JSON text, or the result of an MCP tool. Only the parts that the permit's
pointers lead to are read, so a result costs no more for being large or deep.
"""

import dataclasses
import enum
import json
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import PurePath
from typing import Any, Final, Self, final

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from authz_client.v1 import authorizer_pb2

__all__ = ["STRICT_JSON", "McpResult", "ResultValues", "WrittenNumber"]

MAX_VALUES: Final = 1_024
"""Values of one report."""
MAX_TOTAL_BYTES: Final = 65_536
"""Bytes of the pointers and texts of one report."""
MAX_VALUE_BYTES: Final = 1_024
"""Bytes of one text or number."""
MAX_JSON_TEXT: Final = 1024 * 1024
"""Characters of a JSON text that is read for values."""
MAX_ELEMENTS: Final = 10_000
"""Elements of arrays that are visited for one pointer."""
_MAX_POINTER_BYTES: Final = 512
_EACH: Final = "*"
_INT64: Final = range(-(2**63), 2**63)
# More bits have more than MAX_VALUE_BYTES digits; the time to write an integer grows with the square of its digits.
_MAX_BITS: Final = 3_402

_MISSING: Final = object()
_JSON_TYPES: Final = frozenset({dict, list, str, int, float, bool, type(None)})
_TOO_MANY_VALUES: Final = f"more than {MAX_VALUES} values"
_TOO_MANY_BYTES: Final = f"more than {MAX_TOTAL_BYTES} bytes"
_TOO_MANY_ELEMENTS: Final = f"more than {MAX_ELEMENTS} elements under one pointer"
_TOO_LONG: Final = f"a value is longer than {MAX_VALUE_BYTES} bytes"
_NO_UNICODE: Final = "a text holds half of a character"
_TEXT_TOO_LONG: Final = f"the JSON text is longer than {MAX_JSON_TEXT} characters"
_NO_CONTENT: Final = "the tool's result has neither structured content nor a text of JSON"
_NOT_JSON: Final = "the text is not valid JSON, or has a duplicate member"


class WrittenNumber(float):
    """A number of a JSON text that is no integer. It keeps how the text writes it."""

    __slots__ = ("text",)

    text: str
    """The number as it stands in the text."""

    def __new__(cls, text: str) -> Self:
        """Read a number.

        Args:
            text: The number as JSON writes it.
        """
        number = super().__new__(cls, text)
        number.text = text
        return number


@final
@dataclasses.dataclass(frozen=True, slots=True)
class ResultValues:
    """Values of a result, within the bounds of a report."""

    values: tuple[authorizer_pb2.ReportedValue, ...] = ()
    """The values, sorted by item number."""
    left_out: tuple[str, ...] = ()
    """Reasons why values are left out, for a log; they quote nothing of the result."""

    @staticmethod
    def read(result: object, pointers: Sequence[str]) -> "ResultValues":
        """Read the values of a result. Raises no error: the operation is already performed, and its caller gets the result.

        Values beyond a bound are left out. So are null, objects, arrays and numbers that JSON does not have.

        Args:
            result: Mapping, list, dataclass, model of pydantic, message of protobuf, result of an MCP tool, or JSON text.
            pointers: The permit's `report_values`: JSON pointers (RFC 6901), in which `*` stands for every element of an array.

        Returns:
            The values. The item number of a value counts the elements of the last `*` of its pointer, over the whole result.
        """
        try:
            return _Reader().read(result, pointers)
        except Exception as error:  # noqa: BLE001 - objects of the application run code of their own
            return ResultValues(left_out=(f"the result cannot be read: {type(error).__name__}",))


@final
@dataclasses.dataclass(frozen=True, slots=True)
class McpResult:
    """Result of an MCP tool as its JSON object, `CallToolResult`. An object of a library needs no such mark."""

    value: Mapping[str, Any]
    """The object."""


def _mcp_content(result: object) -> object:
    """Give `structuredContent`, or the first text that begins as a JSON object or array; None if there is neither."""
    structured = _part(result, "structuredContent", "structured_content")
    if structured is not None:
        return structured if isinstance(structured, Mapping | list) else None
    blocks = _part(result, "content")
    if not isinstance(blocks, list | tuple):
        return None
    texts = (_part(block, "text") for block in blocks if _part(block, "type") == "text")
    # INVARIANT (one reading): the first text that looks like JSON decides. A later text, which another party may have written,
    # is not read instead of one that is not valid.
    return next((text for text in texts if isinstance(text, str) and _looks_like_json(text)), None)


def _part(value: object, *names: str) -> object:
    """A member of a JSON object, or an attribute of a library's object, by the first name that there is."""
    if isinstance(value, Mapping):
        return next((value[name] for name in names if name in value), None)
    return next((getattr(value, name) for name in names if hasattr(value, name)), None)


def _looks_like_json(text: str) -> bool:
    return text[:64].lstrip(" \t\r\n")[:1] in ("{", "[")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member occurs twice in one object")
    return members


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


STRICT_JSON: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_number, parse_float=WrittenNumber
)
"""Reader of JSON that refuses a member that occurs twice and numbers that JSON does not have; a number with a fraction keeps its text."""


class _LimitError(Exception):
    """A bound is reached."""


@final
class _Reader:
    """Reads one result."""

    def __init__(self) -> None:
        self._left_out: dict[str, None] = {}
        # Objects that were converted, with their JSON; an object that is kept keeps its identity.
        self._converted: dict[int, tuple[object, object]] = {}

    def read(self, result: object, pointers: Sequence[str]) -> ResultValues:
        content = self._content(result)
        found = [
            value
            for pointer in dict.fromkeys(pointers)
            if pointer.startswith("/") and len(pointer.encode()) <= _MAX_POINTER_BYTES
            for value in self._under(pointer, content)
        ]
        # Values of one element stay together if a bound cuts the rest off.
        found.sort(key=lambda value: value.item)
        return ResultValues(tuple(self._bounded(found)), tuple(self._left_out))

    def _bounded(
        self, values: Iterable[authorizer_pb2.ReportedValue]
    ) -> Iterator[authorizer_pb2.ReportedValue]:
        total = 0
        for count, value in enumerate(values):
            total += len(value.pointer.encode()) + len((value.text or value.number).encode())
            if count == MAX_VALUES or total > MAX_TOTAL_BYTES:
                self._leave_out(_TOO_MANY_VALUES if count == MAX_VALUES else _TOO_MANY_BYTES)
                return
            yield value

    def _leave_out(self, reason: str) -> None:
        self._left_out[reason] = None

    # --- the result as JSON

    def _content(self, result: object) -> object:
        if isinstance(result, McpResult):
            return self._of_mcp(result.value)
        if _is_mcp_result(result):
            return self._of_mcp(result)
        if isinstance(result, str | bytes | bytearray):
            return self._of_text(result)
        return result

    def _of_mcp(self, result: object) -> object:
        if _part(result, "isError", "is_error") is True:
            return None
        content = _mcp_content(result)
        if content is None:
            self._leave_out(_NO_CONTENT)
        return self._of_text(content) if isinstance(content, str) else content

    def _of_text(self, text: str | bytes | bytearray) -> object:
        if len(text) > MAX_JSON_TEXT:
            self._leave_out(_TEXT_TOO_LONG)
            return None
        try:
            return STRICT_JSON.decode(text if isinstance(text, str) else text.decode())
        except (ValueError, RecursionError):
            self._leave_out(_NOT_JSON)
            return None

    def _plain(self, value: object) -> object:
        """Convert an object that JSON has no type for."""
        if type(value) in _JSON_TYPES:
            return value
        if isinstance(value, enum.Enum):
            return value.value
        if isinstance(value, str | int | float | list | tuple | Mapping) or value is None:
            return value
        if isinstance(value, uuid.UUID | PurePath):
            return str(value)
        dump = getattr(value, "model_dump", None)
        if not isinstance(value, Message) and not callable(dump):
            return value
        known = self._converted.get(id(value))
        if known is None:
            if isinstance(value, Message):
                # Fields that are not set bring no value.
                converted: object = MessageToDict(value, preserving_proto_field_name=True)
            else:
                converted = dump(mode="json", by_alias=True) if callable(dump) else value
            known = self._converted[id(value)] = (value, converted)
        return known[1]

    # --- pointers

    def _under(self, pointer: str, content: object) -> Iterator[authorizer_pb2.ReportedValue]:
        walk = _Walk(pointer, self._plain)
        count = 0
        try:
            for item, value in walk.values(content):
                reported = self._reported(pointer, item, value)
                if reported is None:
                    continue
                if count == MAX_VALUES:
                    self._leave_out(_TOO_MANY_VALUES)
                    return
                count += 1
                yield reported
        except _LimitError:
            self._leave_out(_TOO_MANY_ELEMENTS)

    def _reported(
        self, pointer: str, item: int, value: object
    ) -> authorizer_pb2.ReportedValue | None:
        reported = authorizer_pb2.ReportedValue(pointer=pointer, item=item)
        if isinstance(value, bool):
            reported.flag = value
        elif isinstance(value, int) and int(value) in _INT64:
            reported.integer = int(value)
        elif isinstance(value, str):
            text = str.__str__(value)
            if not self._fits(text):
                return None
            reported.text = text
        else:
            number = _number_text(value)
            if not number or not self._fits(number):
                return None
            reported.number = number
        return reported

    def _fits(self, text: str) -> bool:
        if len(text) > MAX_VALUE_BYTES:
            self._leave_out(_TOO_LONG)
            return False
        try:
            length = len(text.encode())
        except UnicodeEncodeError:
            self._leave_out(_NO_UNICODE)
            return False
        if length > MAX_VALUE_BYTES:
            self._leave_out(_TOO_LONG)
        return length <= MAX_VALUE_BYTES


def _number_text(value: object) -> str:
    """How JSON writes a number; empty for a value that is no number of JSON."""
    if isinstance(value, WrittenNumber):
        return value.text
    if isinstance(value, float):
        return float.__repr__(value) if math.isfinite(value) else ""
    if isinstance(value, Decimal):
        return str(value) if value.is_finite() else ""
    if isinstance(value, int):
        # Of a larger one: more digits than fit, which the caller leaves out.
        return str(int(value)) if value.bit_length() <= _MAX_BITS else "9" * (MAX_VALUE_BYTES + 1)
    return ""


def _is_mcp_result(value: object) -> bool:
    has_content = hasattr(value, "content")
    return has_content and (
        hasattr(value, "structuredContent") or hasattr(value, "structured_content")
    )


@final
class _Walk:
    """Follows one pointer into a result.

    Args:
        pointer: The pointer.
        plain: Converts objects.
    """

    def __init__(self, pointer: str, plain: Any) -> None:
        raw = pointer.split("/")[1:]
        self._plain = plain
        self._tokens = [token.replace("~1", "/").replace("~0", "~") for token in raw]
        # `~` escapes no `*`, so a member of that name has no pointer.
        self._each = [token == _EACH for token in raw]
        self._last = max((at for at, each in enumerate(self._each) if each), default=-1)
        self._visited = 0
        self._items = 0

    def values(self, value: object, at: int = 0, item: int = 0) -> Iterator[tuple[int, object]]:
        """Values under the rest of the pointer, with their item numbers."""
        for position in range(at, len(self._tokens)):
            value = self._plain(value)
            if self._each[position]:
                if isinstance(value, list | tuple):
                    yield from self._each_of(value, position)
                return
            value = _member(value, self._tokens[position])
            if value is _MISSING:
                return
        yield item, self._plain(value)

    def _each_of(self, array: Sequence[object], position: int) -> Iterator[tuple[int, object]]:
        for element in array:
            if self._visited == MAX_ELEMENTS:
                raise _LimitError
            self._visited += 1
            item = self._items
            if position == self._last:
                self._items += 1
            yield from self.values(element, position + 1, item)


def _member(value: Any, token: str) -> object:
    if type(value) is dict:  # most of all, and much faster than the check below
        return value.get(token, _MISSING)
    if isinstance(value, Mapping):
        return value.get(token, _MISSING)
    if isinstance(value, list | tuple):
        return value[int(token)] if _is_index(token) and int(token) < len(value) else _MISSING
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = {field.name for field in dataclasses.fields(value)}
        return getattr(value, token, _MISSING) if token in names else _MISSING
    return _MISSING


def _is_index(text: str) -> bool:
    return text == "0" or (text.isascii() and text.isdigit() and text[0] != "0" and len(text) <= 9)
