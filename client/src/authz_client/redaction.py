"""Redaction of results: removes what an obligation `redact:…` names.

`redact:/customer/email` removes the value at a JSON pointer, where `*` stands for every item or member. `redact:card`,
`redact:email` and `redact:iban` remove such values wherever they stand in a text.
A result that cannot be searched is not returned: every function raises `RedactionError` instead.
"""

import copy
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from authz_client.base_errors import AuthzError

__all__ = [
    "ANY_POINTER",
    "REDACTED",
    "RedactionError",
    "redact",
    "redact_mcp",
    "redact_mcp_resource",
    "redactions",
]

REDACTED: Final = "[redacted]"
"""What stands instead of a removed value."""
ANY_POINTER: Final = "redact:/"
"""Obligation that an enforcer lists if it can redact the value of any JSON pointer."""

_REDACTED_URI: Final = "about:redacted"
"""What stands instead of a removed URI: clients refuse a text that is not a URI."""
_PREFIX: Final = "redact:"
_MAX_DEPTH: Final = 64
_MAX_TEXT: Final = 16 * 1024 * 1024
_MEDIA_TYPE: Final = re.compile(r"[a-z]{1,32}/[a-z0-9.+-]{1,64}(?:;\s?charset=[A-Za-z0-9-]{1,16})?")
_IBAN_LENGTHS: Final = range(34, 14, -1)
_CARD: Final = re.compile(r"(?<![0-9])[0-9](?:[ -]?[0-9]){12,18}(?![0-9])")
_EMAIL: Final = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_IBAN: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?: ?[A-Za-z0-9]){11,30}")


class RedactionError(AuthzError):
    """A result cannot be redacted, so its caller does not get it."""


def redactions() -> tuple[str, ...]:
    """List the obligations that this module carries out, for `supported_obligations`."""
    return (ANY_POINTER, *(f"{_PREFIX}{name}" for name in _PATTERNS))


def redact(value: Any, obligation: str) -> Any:
    """Remove what an obligation names from a result.

    Args:
        value: The result: values of JSON, a text, or the result of an MCP tool as an object of a library. It is not changed.
        obligation: One of `redactions`, or `redact:/…` with any pointer.

    Returns:
        The result without the values. A pointer that leads nowhere removes nothing.

    Raises:
        RedactionError: The result cannot be searched, or the obligation is another one.
    """
    what = _named(obligation)
    if hasattr(value, "content") and hasattr(value, "structured_content"):
        return _tool_object(value, what)
    if isinstance(value, str) and what.startswith("/"):
        text = _text(value, what)
        if text == REDACTED:
            raise RedactionError("the result is not JSON, so a pointer cannot be followed in it")
        return text
    return _redacted(value, what)


def redact_mcp(result: Mapping[str, Any], obligation: str) -> dict[str, Any]:
    """Remove what an obligation names from the result of an MCP tool.

    A pointer leads into `structuredContent`, and into each text of `content` that is JSON. A text that is not JSON could repeat
    the value, so it is removed as a whole, as are images and other blocks without a text.

    Args:
        result: `CallToolResult`. It is not changed.
        obligation: As for `redact`.

    Returns:
        The result without the values.

    Raises:
        RedactionError: The result cannot be searched.
    """
    what = _named(obligation)
    if not isinstance(result, Mapping):
        raise RedactionError("the result of the tool is not an object")
    cleaned = _other_members(result, what, {"content", "structuredContent"})
    if "content" in result:
        cleaned["content"] = [_block(block, what) for block in _list(result["content"])]
    if "structuredContent" in result:
        cleaned["structuredContent"] = _redacted(result["structuredContent"], what)
    return cleaned


def redact_mcp_resource(result: Mapping[str, Any], obligation: str, uri: str) -> dict[str, Any]:
    """Remove what an obligation names from the contents of an MCP resource.

    A pointer leads into each text that is JSON. Another text could repeat the value, so it is removed as a whole, as are
    binary contents. The URI of another resource than the requested resource could hold the value, so a pointer removes it, too.

    Args:
        result: `ReadResourceResult`. It is not changed.
        obligation: As for `redact`.
        uri: URI that the client asked for.

    Returns:
        The result without the values.

    Raises:
        RedactionError: The result cannot be searched.
    """
    what = _named(obligation)
    if not isinstance(result, Mapping):
        raise RedactionError("the result of the read is not an object")
    cleaned = _other_members(result, what, {"contents"})
    if "contents" in result:
        cleaned["contents"] = [_contents(one, what, uri) for one in _list(result["contents"])]
    return cleaned


def _named(obligation: str) -> str:
    """Give the pointer, or the name of a pattern."""
    what = obligation.removeprefix(_PREFIX)
    is_known = what in _PATTERNS or what.startswith("/")
    if not obligation.startswith(_PREFIX) or not is_known:
        raise RedactionError(f"`{obligation}` is not a redaction")
    return what


def _redacted(value: Any, what: str) -> Any:
    try:
        if what.startswith("/"):
            return _without(value, _tokens(what))
        return _searched(value, _PATTERNS[what], 0)
    except RecursionError as error:
        raise RedactionError("the result is nested too deep") from error


# --- MCP


def _other_members(result: Mapping[str, Any], what: str, but: set[str]) -> dict[str, Any]:
    """Redact the members of a result except those in `but`. A pointer does not lead into them, so it leaves them as they are."""
    return {
        key: member if what.startswith("/") else _redacted(member, what)
        for key, member in result.items()
        if key not in but
    }


def _block(block: object, what: str) -> dict[str, Any]:
    """Redact a block of content; a block without text is removed."""
    text = block.get("text") if isinstance(block, Mapping) else None
    if not isinstance(block, Mapping) or block.get("type") != "text" or not isinstance(text, str):
        return {"type": "text", "text": REDACTED}
    return {"type": "text", "text": _text(text, what)}


def _contents(one: object, what: str, asked: str) -> dict[str, Any]:
    """Redact the contents of a resource. Members that only describe them are left out."""
    if not isinstance(one, Mapping):
        raise RedactionError("the contents of the resource are not an object")
    uri, media_type, text = one.get("uri"), one.get("mimeType"), one.get("text")
    is_asked = uri == asked
    if what in _PATTERNS and isinstance(uri, str):
        is_asked = _redacted(uri, what) == uri
    cleaned = {"uri": uri if is_asked else _REDACTED_URI}
    if isinstance(text, str) and "blob" not in one:
        if isinstance(media_type, str) and _MEDIA_TYPE.fullmatch(media_type):
            cleaned["mimeType"] = media_type
        return {**cleaned, "text": _text(text, what)}
    return {**cleaned, "text": REDACTED}


def _text(text: str, what: str) -> str:
    """Redact a text, as JSON if it is JSON. A pointer removes a text that is not JSON as a whole."""
    try:
        value = json.loads(_bounded(text))
    except RecursionError as error:
        raise RedactionError("the result is nested too deep") from error
    except ValueError:
        return REDACTED if what.startswith("/") else str(_redacted(text, what))
    if not isinstance(value, dict | list):
        return REDACTED if what.startswith("/") else str(_redacted(text, what))
    try:
        return json.dumps(_redacted(value, what), ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise RedactionError("a text of the result is not JSON") from error


def _tool_object(result: Any, what: str) -> Any:
    """Redact the result of a tool as FastMCP has it."""
    cleaned = copy.copy(result)
    blocks = []
    for block in _list(result.content):
        text = getattr(block, "text", None)
        if getattr(block, "type", None) != "text" or not isinstance(text, str):
            raise RedactionError("the result has a block without a text")
        changed = copy.copy(block)
        changed.text = _text(text, what)
        blocks.append(changed)
    cleaned.content = blocks
    if result.structured_content is not None:
        cleaned.structured_content = _redacted(result.structured_content, what)
    return cleaned


def _list(value: object) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise RedactionError("the content of the result is not a list")
    return list(value)


# --- pointers


def _tokens(pointer: str) -> list[str]:
    return [
        token.replace("~1", "/").replace("~0", "~")
        for token in pointer.removeprefix("/").split("/")
    ]


def _without(value: Any, tokens: list[str]) -> Any:
    """Give a value without the parts that the tokens lead to."""
    if not tokens:
        return REDACTED
    first, rest = tokens[0], tokens[1:]
    if isinstance(value, Mapping):
        return {
            key: _without(member, rest) if first in {"*", key} else member
            for key, member in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            _without(item, rest) if first in {"*", str(index)} else item
            for index, item in enumerate(value)
        ]
    if value is None or isinstance(value, bool | int | float):
        # INVARIANT (no other form): the value that the pointer means would stand in an object, and this is none.
        return value
    raise RedactionError("the result is not a JSON value, so a pointer cannot be followed in it")


# --- patterns


def _searched(value: Any, clean: Callable[[str], str], depth: int) -> Any:
    """Give a value whose texts, names of members and numbers are searched."""
    if depth > _MAX_DEPTH:
        raise RedactionError("the result is nested too deep")
    if isinstance(value, str):
        return clean(_bounded(value))
    if isinstance(value, Mapping):
        return {
            clean(_bounded(str(key))): _searched(member, clean, depth + 1)
            for key, member in value.items()
        }
    if isinstance(value, list | tuple):
        return [_searched(item, clean, depth + 1) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        text = str(value)
        return value if clean(text) == text else REDACTED
    raise RedactionError("the result is not a JSON value, so it cannot be searched")


def _bounded(text: str) -> str:
    if len(text) > _MAX_TEXT:
        raise RedactionError("a text of the result is too long to be searched")
    return text


def _cards(text: str) -> str:
    """Remove numbers of payment cards: 13 to 19 digits with the check digit of ISO/IEC 7812-1."""

    def one(found: re.Match[str]) -> str:
        digits = [int(digit) for digit in found[0] if digit.isdigit()]
        doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
        return REDACTED if (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 else found[0]

    return _CARD.sub(one, text)


def _emails(text: str) -> str:
    """Remove mailboxes."""
    return _EMAIL.sub(REDACTED, text)


def _ibans(text: str) -> str:
    """Remove account numbers with the check digits of ISO 13616. Words behind one stay."""

    def one(found: re.Match[str]) -> str:
        whole = found[0]
        places = [place for place, char in enumerate(whole) if char != " "]
        for length in _IBAN_LENGTHS:
            if length <= len(places):
                end = places[length - 1] + 1
                if _is_iban(whole[:end].replace(" ", "").upper()):
                    return REDACTED + whole[end:]
        return whole

    return _IBAN.sub(one, text)


def _is_iban(text: str) -> bool:
    return int("".join(str(int(char, 36)) for char in text[4:] + text[:4])) % 97 == 1


_PATTERNS: Final[Mapping[str, Callable[[str], str]]] = {
    "card": _cards,
    "email": _emails,
    "iban": _ibans,
}
