"""What the command prints, and how."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from authz.errors import (
    ApiError,
    AuthzError,
    BundleError,
    BundleTestError,
    ConfigError,
    TrustError,
)
from authz.model import Diagnostic, Severity

__all__ = ["Ended", "Show"]

_STYLES: Final = {"PERMIT": "green", "STEP_UP": "yellow", "DENY": "red"}


class Ended(Exception):  # noqa: N818 - it ends the command, and is no error
    """Ends the command with an exit code that is no failure of the command itself.

    Args:
        code: The exit code.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


class Show:
    """Results on standard output, everything else on standard error."""

    def __init__(self) -> None:
        # Paths and policy texts must never be read as markup, nor be wrapped when piped.
        wide = None if sys.stdout.isatty() else 160
        self.out = Console(markup=False, highlight=False, width=wide)
        self.err = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)

    def line(self, text: str) -> None:
        """Print one line as it is."""
        self.out.print(text, soft_wrap=True)

    def note(self, text: str) -> None:
        """Say something that is no result."""
        self.err.print(text)

    def json(self, value: object) -> None:
        """Print a value as JSON."""
        print(json.dumps(value, indent=2, ensure_ascii=False))

    def diagnostics(self, found: Iterable[Diagnostic]) -> None:
        """Print defects, one a line."""
        for diagnostic in found:
            error = diagnostic.severity is Severity.ERROR
            kind = Text("error: " if error else "warning: ", style="red" if error else "yellow")
            self.err.print(kind + Text(str(diagnostic)))

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
            table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
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
            table.add_row(*(Text(cell, style=_STYLES.get(word, "")) for cell, word in cells))

        if self.out.is_terminal:
            with Live(table, console=self.out, auto_refresh=True):
                yield add
        else:
            yield add
            self.out.print(table)

    def decision(self, decision: Mapping[str, Any]) -> None:
        """Print a decision with its trace, for people."""
        outcome = str(decision.get("outcome", "DENY"))
        head = Text(outcome, style=_STYLES.get(outcome, "")) + Text(
            f"  {decision.get('reason_code', '')}"
        )
        if decision.get("enforced") is False:
            head += Text("  only observed: the call is let through", style="yellow")
        self.out.print(head)
        if message := decision.get("message"):
            self.line(f"  {message}")
        for name, label in (
            ("step_up_kinds", "show first"),
            ("policy_ids", "because of"),
            ("obligations", "obligations"),
            ("controls", "controls"),
            ("excess", "not cleared for"),
            ("sequences", "would complete"),
            ("budgets", "would exceed"),
        ):
            if listed := decision.get(name):
                self.line(f"  {label}: {', '.join(map(str, listed))}")
        for name in ("tier", "resource", "destination_class", "chain"):
            if value := decision.get(name):
                said = " → ".join(map(str, value)) if isinstance(value, list) else str(value)
                self.line(f"  {name.replace('_', ' ')}: {said}")
        trace = decision.get("trace") or ()
        if trace:
            self.table(
                ("policy", "effect", "result", "principal", "where", "reason"),
                [
                    (
                        str(judged.get("policy_id", "")),
                        str(judged.get("effect", "")),
                        str(judged.get("error") or judged.get("result", "")),
                        str(judged.get("principal", "")),
                        f"{judged.get('file', '')}:{judged.get('line', '')}",
                        str(judged.get("reason", "")),
                    )
                    for judged in trace
                ],
            )
