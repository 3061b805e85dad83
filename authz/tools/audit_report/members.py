"""Members of a record, read leniently: another version may have written it, and a stranger some of its texts."""

from collections.abc import Mapping
from typing import Any, Final

from authz.tools.catalog.tool import plain

__all__ = ["count_of", "mapping", "shown", "text_of", "texts"]

_MOST_TEXT: Final = 1_000
_MOST_ITEMS: Final = 256


def mapping(value: object) -> Mapping[str, Any]:
    """Return an object; a value of another type reads as empty."""
    return value if isinstance(value, dict) else {}


def shown(text: str) -> str:
    """Return a text as one line without control characters, cut at 1,000 characters."""
    return plain(text, _MOST_TEXT)


def text_of(fields: Mapping[str, Any], name: str) -> str:
    """Return a member that is a text."""
    value = fields.get(name)
    return shown(value) if isinstance(value, str) else ""


def texts(value: object) -> list[str]:
    """Return the texts of a list, at most 256."""
    items = value[:_MOST_ITEMS] if isinstance(value, list) else []
    return [shown(item) for item in items if isinstance(item, str)]


def count_of(value: object) -> int | None:
    """Return a number that can be a count; None for another value."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value < 2**53 else None
