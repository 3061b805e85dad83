"""JSON-RPC messages of MCP, read strictly and kept as they came.

A duplicate member, a number that JSON does not have, a batch, or a member that differs from one of the protocol only in case could
mean one thing here and another thing at the other end, so such a message is refused.
"""

import json
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from authz_client.result_values import STRICT_JSON

__all__ = [
    "Kind",
    "Message",
    "MessageError",
    "RequestId",
    "elements",
    "members",
    "quoted",
    "read_message",
    "without_params",
]

_BLANK: Final = re.compile(r"[ \t\r\n]*")
_ENVELOPE: Final = ("jsonrpc", "id", "method", "params", "result", "error")
_LONGEST_ID: Final = 256
_LARGEST_ID: Final = 2**53

RequestId = tuple[str, str | int]
"""Type and value of an `id`: `1` and `"1"` are two."""


def quoted(text: str, longest: int = 80) -> str:
    """Give the beginning of a peer's text as a line of a log can have it.

    Args:
        text: The text.
        longest: Characters that are kept.

    Returns:
        The text with escapes for control characters and for halves of characters, which UTF-8 cannot write.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text[:longest]
    )


class MessageError(Exception):
    """A line is not a message that this guard passes on.

    Args:
        code: Code of JSON-RPC for an answer.
        text: Defect, for the operators.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Kind(Enum):
    """Kind of a message."""

    REQUEST = "request"
    NOTIFICATION = "notification"
    RESPONSE = "response"


@dataclass(frozen=True, slots=True)
class Message:
    """One message."""

    kind: Kind
    text: str
    """The message as it came, without the line's end."""
    method: str = ""
    """Method of a request or notification."""
    id: RequestId | None = None
    """Id of a request or response; None for an error response to a message that could not be read."""
    id_text: str = "null"
    """The id as it came."""
    params: dict[str, Any] = field(default_factory=dict)
    """Parameters of a request or notification."""
    value: dict[str, Any] = field(default_factory=dict)
    """The whole message."""

    @property
    def meta(self) -> dict[str, Any]:
        """`_meta` of the parameters."""
        meta = self.params.get("_meta")
        return meta if isinstance(meta, dict) else {}

    def part(self, *path: str) -> str | None:
        """Give a part of the message as it came.

        Args:
            path: Names of the members that lead to it.

        Returns:
            Its JSON; None if there is no such member.
        """
        start, end = 0, len(self.text)
        for name in path:
            if self.text[start] != "{":
                return None
            found = members(self.text, start).get(name)
            if found is None:
                return None
            start, end = found
        return self.text[start:end]


def read_message(line: bytes) -> Message:
    """Read one line.

    Args:
        line: Bytes of the line.

    Raises:
        MessageError: The line is not a message, or means more than one thing.
    """
    try:
        text = line.decode().strip(" \t\r\n")
        value = STRICT_JSON.decode(text)
    except (ValueError, RecursionError) as error:
        reason = "it nests too deeply" if isinstance(error, RecursionError) else str(error)
        raise MessageError(-32700, f"not a message: {reason}") from error
    if isinstance(value, list):
        raise MessageError(-32600, "a batch: send one message a line")
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise MessageError(-32600, 'not a message of JSON-RPC: `"jsonrpc": "2.0"` is missing')
    refuse_alike(value, _ENVELOPE)
    if "\r" in text:
        # Some readers end a line there, so they would read two messages.
        raise MessageError(-32600, "a carriage return stands within the message")
    return _typed(text, value)


def refuse_alike(value: dict[str, Any], known: tuple[str, ...]) -> None:
    """Refuse members that differ from known ones only in case: some readers take both for one.

    Args:
        value: An object.
        known: Names of members.

    Raises:
        MessageError: There is such a member.
    """
    lower = {name.lower(): name for name in known}
    for name in value:
        if lower.get(name.lower(), name) != name:
            raise MessageError(
                -32600, f"`{quoted(name, 40)}` differs from `{lower[name.lower()]}` in case"
            )


def _typed(text: str, value: dict[str, Any]) -> Message:
    has_id, method = "id" in value, value.get("method")
    identity = _id(value["id"]) if has_id else None
    id_text = json.dumps(value["id"]) if has_id else "null"
    answers = ("result" in value) + ("error" in value)
    if "method" not in value:
        if answers != 1 or not has_id or (identity is None and "result" in value):
            raise MessageError(-32600, "neither a request nor a response")
        return Message(Kind.RESPONSE, text, id=identity, id_text=id_text, value=value)
    if not isinstance(method, str) or answers:
        raise MessageError(-32600, "neither a request nor a response")
    params = value.get("params", {})
    if not isinstance(params, dict):
        raise MessageError(-32600, "`params` is not an object")
    if "_meta" in params and not isinstance(params["_meta"], dict):
        raise MessageError(-32600, "`_meta` is not an object")
    if has_id and identity is None:
        raise MessageError(-32600, "the `id` of a request is null")
    kind = Kind.REQUEST if has_id else Kind.NOTIFICATION
    return Message(kind, text, method, identity, id_text, params, value)


def _id(value: object) -> RequestId | None:
    if value is None:
        return None
    if isinstance(value, str) and len(value.encode("utf-8", "replace")) <= _LONGEST_ID:
        return ("string", value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST_ID:
        return ("integer", value)
    raise MessageError(-32600, "`id` is neither a short string nor an integer within ±2⁵³")


def members(text: str, start: int = 0) -> dict[str, tuple[int, int]]:
    """Find the members of an object in valid JSON.

    Args:
        text: JSON that `read_message` accepted.
        start: Where the object begins.

    Returns:
        Start and end of each value by name.
    """
    found: dict[str, tuple[int, int]] = {}
    at = _after_blank(text, _after_blank(text, start) + 1)
    while text[at] != "}":
        name, at = STRICT_JSON.raw_decode(text, at)
        begin = _after_blank(text, _after_blank(text, at) + 1)
        _, end = STRICT_JSON.raw_decode(text, begin)
        found[name] = (begin, end)
        at = _next(text, end)
    return found


def without_params(message: Message, names: frozenset[str]) -> Message:
    """Take members out of the parameters of a request.

    Args:
        message: The request.
        names: Names of the members.

    Returns:
        The request without them. All other parts stay as they came.
    """
    begin, end = members(message.text)["params"]
    kept = [
        f"{json.dumps(name)}:{message.text[first:last]}"
        for name, (first, last) in members(message.text, begin).items()
        if name not in names
    ]
    text = f"{message.text[:begin]}{{{','.join(kept)}}}{message.text[end:]}"
    return read_message(text.encode())


def elements(text: str, start: int = 0) -> list[tuple[int, int]]:
    """Find the elements of a list in valid JSON.

    Args:
        text: JSON that `read_message` accepted.
        start: Where the list begins.

    Returns:
        Start and end of each element.
    """
    found: list[tuple[int, int]] = []
    at = _after_blank(text, _after_blank(text, start) + 1)
    while text[at] != "]":
        _, end = STRICT_JSON.raw_decode(text, at)
        found.append((at, end))
        at = _next(text, end)
    return found


def _next(text: str, end: int) -> int:
    at = _after_blank(text, end)
    return _after_blank(text, at + 1) if text[at] == "," else at


def _after_blank(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match is not None else at
