"""Files of a report: tables as CSV (RFC 4180), and Markdown.

Texts come from the log, so that a stranger may have written them. A spreadsheet reads a cell that begins with `=`, `+`, `-` or `@` as a
formula: such a cell gets an apostrophe in front. Markdown is escaped.
"""

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Final, TextIO

from authz.tools.catalog.tool import plain

__all__ = ["Cell", "ReportFolder", "markdown", "markdown_table", "percent", "seconds"]

Cell = str | int | float | bool | None
"""Value of a cell."""

_FORMULA: Final = re.compile(r"[=+\-@]")
_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]()#!|~])")
_MOST_TEXT: Final = 1_000


class ReportFolder:
    """Folder of a report. Only its owner can read it.

    Args:
        path: The folder, which exists and is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, parts: Iterable[str]) -> None:
        """Write a text."""
        with self._open(name) as file:
            file.writelines(parts)

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write bytes."""
        with os.fdopen(self._create(name), "wb") as file:
            file.write(data)

    def write_csv(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """Write a table."""
        with self._open(name) as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            for row in rows:
                writer.writerow([_csv_cell(cell) for cell in row])

    def make_folder(self, name: str) -> None:
        """Make a folder in this one."""
        (self.path / name).mkdir(mode=0o700)

    def _open(self, name: str) -> TextIO:
        return os.fdopen(self._create(name), "w", encoding="utf-8", newline="")

    def _create(self, name: str) -> int:
        return os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def _csv_cell(cell: Cell) -> str:
    text = _cell_text(cell)
    return f"'{text}" if isinstance(cell, str) and _FORMULA.match(text) else text


def _cell_text(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return f"{cell:.4f}"
    if isinstance(cell, int):
        return str(cell)
    return plain(cell, _MOST_TEXT)


def markdown(text: str) -> str:
    """Escape a text for Markdown."""
    return _MARKDOWN.sub(r"\\\1", escape(plain(text, _MOST_TEXT), quote=False))


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    yield f"| {' | '.join(columns)} |\n"
    yield f"|{'---|' * len(columns)}\n"
    for row in rows:
        cells = (markdown(_cell_text(cell)) for cell in row)
        yield f"| {' | '.join(cells)} |\n"


def percent(share: float | None) -> str:
    """Write a share for people; empty if nothing was counted."""
    return "" if share is None else f"{100 * share:.1f} %"


def seconds(ms: int | None) -> str:
    """Write a time for people; empty if nothing was counted."""
    return "" if ms is None else f"{ms / 1000:g} s"
