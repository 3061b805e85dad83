"""Prints results on standard output, and everything else on standard error."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from authz.cli.render.frame import frame
from authz.errors import (
    ApiError,
    AuthzError,
    BundleError,
    BundleTestError,
    ConfigError,
    TrustError,
)
from authz.model import Diagnostic, Severity

__all__ = ["OUTCOME_STYLES", "CommandExit", "Terminal"]

OUTCOME_STYLES: Final = {
    "PERMIT": "green",
    "STEP_UP": "yellow",
    "DENY": "red",
    "ok": "green",
    "WRONG": "bold red",
}


class CommandExit(Exception):  # noqa: N818 - a result, not an error
    """Ends the command with an exit code that reports a result, for example of a test.

    Args:
        code: The exit code.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


class Terminal:
    """Standard output for results, standard error for everything else.

    Args:
        out: Stream for results. Default: standard output.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        # Paths and policy texts must never be read as markup, nor be wrapped when piped.
        wide = None if out is None and sys.stdout.isatty() else 160
        self.out = Console(file=out, markup=False, highlight=False, width=wide)
        self.err = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)

    def line(self, text: str | Text) -> None:
        """Print one line as it is."""
        self.out.print(text, soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a line that is not a result."""
        self.err.print(text)

    def hint(self, text: str) -> None:
        """Print a next step for a person; programs that read the output do not get it."""
        if self.err.is_terminal:
            self.err.print(Text(text, style="dim"))

    def json(self, value: object) -> None:
        """Print a value as JSON."""
        print(json.dumps(value, indent=2, ensure_ascii=False))

    def json_line(self, value: object) -> None:
        """Print a value as one line of JSON, at once."""
        print(json.dumps(value, ensure_ascii=False), flush=True)

    def diagnostics(self, found: Iterable[Diagnostic]) -> None:
        """Print defects, one a line."""
        for diagnostic in found:
            error = diagnostic.severity is Severity.ERROR
            name = "error" if error else "warning"
            code = f"[{diagnostic.code}]" if diagnostic.code and not error else ""
            kind = Text(f"{name}{code}: ", style="red" if error else "yellow")
            self.err.print(kind + Text(str(diagnostic)))
            for line in frame(diagnostic):
                self.err.print(Text(line, style="dim"))

    def error(self, error: AuthzError) -> None:
        """Print why the command ends."""
        if isinstance(error, (BundleError, ConfigError, TrustError)):
            self.diagnostics(error.diagnostics)
            count = sum(one.severity is Severity.ERROR for one in error.diagnostics)
            what = {
                BundleTestError: "tests fail",
                BundleError: "bundle refused",
                TrustError: "trust refused",
            }.get(type(error), "configuration refused")
            self.err.print(f"{what}: {count} defect{'s' if count != 1 else ''}")
            return
        reason = f"{error.reason}: " if isinstance(error, ApiError) else ""
        self.err.print(Text("error: ", style="red") + Text(f"{reason}{error}"))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
        """Print a table; outcomes are coloured."""
        table = Table(*columns, title=title or None, title_justify="left", header_style="bold")
        for row in rows:
            table.add_row(*(Text(cell, style=OUTCOME_STYLES.get(cell, "")) for cell in row))
        self.out.print(table)

    @contextmanager
    def live(self, columns: Sequence[str]) -> Iterator[Callable[[Sequence[str]], None]]:
        """Print a table that grows: in place on a terminal, else once it is whole.

        Args:
            columns: Its head.

        Yields:
            What adds a row.
        """
        table = Table(*columns, header_style="bold")

        def add(row: Sequence[str]) -> None:
            words = (cell.partition(",")[0] for cell in row)
            cells = zip(row, words, strict=True)
            table.add_row(*(Text(cell, style=OUTCOME_STYLES.get(word, "")) for cell, word in cells))

        if self.out.is_terminal:
            with Live(table, console=self.out, auto_refresh=True):
                yield add
        else:
            yield add
            self.out.print(table)
