"""Strings of a bundle, made safe to show: they stand in terminals, pages and pictures that others read."""

import json
import re
from html import escape
from typing import Any, Final

from authz.approvals.inert import visible

__all__ = ["compact_json", "inert", "inert_html", "inert_markdown"]

_CUT: Final = "…"
# Characters that begin or end markup, entities and mentions in GitHub's Markdown, also inside a table.
_MARKUP: Final = frozenset("\\`*_{}[]<>()#+!|~$@&")
# GitHub makes links of addresses without any markup. A line that begins with two colons would be a command of its runner, where the Markdown is
# printed into a log.
_COLON: Final = re.compile(r":(?=:|//)")
_LINK: Final = "www."


def inert(text: str, most: int = 600) -> str:
    """Return a text on one line without characters that control a terminal or cannot be seen.

    Args:
        text: Text of a bundle, of any length.
        most: Characters that are kept.

    Returns:
        The text, with a visible marker for each control, bidi and invisible character, cut at `most`.
    """
    shown = visible(text[: most + 1])
    return shown if len(shown) <= most else shown[: most - 1] + _CUT


def inert_html(text: str, most: int = 600) -> str:
    """Return a text for the content or an attribute of an XML or HTML element."""
    return escape(inert(text, most), quote=True)


def inert_markdown(text: str, most: int = 600) -> str:
    """Return a text for a line of Markdown: no character of it is markup, a link or a mention."""
    shown = inert(text, most)
    escaped = "".join(f"&#{ord(one)};" if one in _MARKUP else one for one in shown)
    return _COLON.sub("&#58;", escaped).replace(_LINK, "www&#46;")


def compact_json(value: Any) -> str:
    """Return a value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
