"""The worklist as CSV: a reviewer decides in a spreadsheet."""

import csv
import io
import re
from collections.abc import Iterable
from typing import Any, Final

from authz.errors import UsageError
from authz.tools.catalog.files import flow
from authz.tools.catalog.review import WorklistItem, changed
from authz.tools.catalog.tool import plain

__all__ = ["read_csv", "write_csv"]

_COLUMNS: Final = (
    "decision",
    "operation",
    "state",
    "effects",
    "tier",
    "rule",
    "why",
    "description",
    "changes",
)
# Some spreadsheets take the wide forms of these characters for them, and blanks before them for nothing.
_FORMULA: Final = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")  # noqa: RUF001 - as spreadsheets read them
_MAX_ROWS: Final = 10_000


def write_csv(items: Iterable[WorklistItem]) -> str:
    """Write the worklist as CSV, for a spreadsheet.

    Args:
        items: The tools.

    Returns:
        The text; the column `decision` is to be filled with `accept`.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for item in items:
        row = (
            "",
            item.operation,
            item.state,
            " ".join(item.effects),
            item.tier,
            "" if item.has_rule else flow(item.rule),
            item.why,
            plain(item.tool.description or ""),
            "; ".join(f"{part}: {plain(a)} -> {plain(b)}" for part, a, b in item.differences),
        )
        writer.writerow([_cell(text) for text in row])
    return stream.getvalue()


def read_csv(text: str, items: Iterable[WorklistItem]) -> dict[str, dict[str, Any] | None]:
    """Read what a reviewer decided.

    Args:
        text: The CSV that `write_csv` wrote, with `accept` in the column `decision`, effects and tiers as changed.
        items: The tools as they are now.

    Returns:
        Accepted operations with the rule of each. None stands for its proposal, or its present rule.

    Raises:
        UsageError: A row is not in the worklist, or has an unknown effect or tier.
    """
    by_operation = {item.operation: item for item in items}
    chosen: dict[str, dict[str, Any] | None] = {}
    reader = csv.DictReader(io.StringIO(text))
    if reader.fieldnames is None or not {"decision", "operation", "effects", "tier"} <= set(
        reader.fieldnames
    ):
        raise UsageError("the CSV needs the columns decision, operation, effects and tier")
    for number, row in enumerate(reader, 2):
        if number > _MAX_ROWS:
            raise UsageError(f"more than {_MAX_ROWS} rows")
        decision = (row["decision"] or "").strip().lower()
        operation = (row["operation"] or "").strip()
        if decision in {"", "skip"}:
            continue
        if decision != "accept":
            raise UsageError(
                f"row {number}: unknown decision `{plain(decision)}`. Write accept or skip, or leave it empty"
            )
        item = by_operation.get(operation)
        if item is None:
            raise UsageError(f"row {number}: `{plain(operation)}` is not on the worklist")
        if operation in chosen:
            raise UsageError(f"row {number}: `{plain(operation)}` has an earlier row")
        chosen[operation] = changed(
            item,
            (row["effects"] or "").replace(",", " ").split(),
            (row["tier"] or "").strip(),
            f"row {number}",
        )
    return chosen


def _cell(text: str) -> str:
    """Keep a spreadsheet from reading a stranger's text as a formula."""
    return f"'{text}" if _FORMULA.match(text) else text
