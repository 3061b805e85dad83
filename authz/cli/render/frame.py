"""Code frames: the line that a message is about, with a caret below the place."""

import re
from collections.abc import Iterator
from typing import Final

from authz.model import Diagnostic

__all__ = ["frame"]

_WIDTH: Final = 96
_TOKEN: Final = re.compile(r'"[^"]*"|[\w./:@*${}-]+|\S')
_CUT: Final = "…"


def frame(diagnostic: Diagnostic) -> Iterator[str]:
    """Yield the lines of a frame; none where the source is not known.

    A long line is cut on both sides of the place. Tabs and control characters become spaces, so that the caret stands below its
    character and a file cannot control the terminal.
    """
    text = "".join(c if c.isprintable() else " " for c in diagnostic.source.rstrip())
    if not text.strip() or not diagnostic.line:
        return
    start = min(max(diagnostic.column - 1, 0), len(text))
    token = _TOKEN.match(text, start)
    length = token.end() - start if token else 1
    text, start = _window(text, start, length)
    number = str(diagnostic.line)
    margin = " " * len(number)
    yield f"  {number} | {text}"
    if diagnostic.column:
        yield f"  {margin} | {' ' * start}{'^' * min(length, max(len(text) - start, 1))}"


def _window(text: str, start: int, length: int) -> tuple[str, int]:
    """Cut a line to the width, around the place. Returns it with the new offset of the place."""
    indent = len(text) - len(text.lstrip())
    text, start = text[indent:], max(start - indent, 0)
    if len(text) <= _WIDTH:
        return text, start
    begin = 0
    if start + min(length, _WIDTH // 2) > _WIDTH - 2:
        begin = max(0, min(start - _WIDTH // 3, len(text) - _WIDTH))
    shown = text[begin : begin + _WIDTH]
    if begin + _WIDTH < len(text):
        shown = shown[:-1] + _CUT
    if begin:
        shown = _CUT + shown[1:]
    return shown, start - begin
