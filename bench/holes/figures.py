"""Writes the table of holes."""

from collections.abc import Mapping
from typing import Any


def table(measured: Mapping[str, Any]) -> str:
    """Return the table of `bench/results/holes.json` in Markdown.

    Args:
        measured: the results.
    """
    machine, holes = measured["machine"], measured["changes"]
    found = measured["found"] + measured["otherwise"]
    rows = [
        (
            f"{holes} changes in {len(measured['bundles'])} bundles: {found} found, {measured['missed']} missed, "
            f"{measured['not_decided']} not decided, {measured['failed']} without a report. "
            f"The bundles' own tests find {measured['found_by_tests']}. "
            f"{measured['false_alarms']} of {measured['harmless']} harmless changes have a finding. "
            f"{machine['cores']} cores of {machine['cpu']}, {machine['date']}, revision `{machine['revision']}`."
        ),
        "",
        "| change | a colleague thinks | changes | found | by another rule | not decided | missed | by own tests |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    rows += [_row(one) for one in measured["operators"] if one["is_hole"]]
    rows += [
        "",
        "| harmless change | changes | with a finding |",
        "|---|--:|--:|",
    ]
    rows += [
        f"| {_words(one)} | {one['changes']} | {one['found']} |"
        for one in measured["operators"]
        if not one["is_hole"]
    ]
    return "\n".join(rows) + "\n"


def _row(one: Mapping[str, Any]) -> str:
    counts = (one[key] for key in ("found", "otherwise", "not_decided", "missed", "found_by_tests"))
    cells = " | ".join(str(count) for count in counts)
    return f"| {_words(one)} | {one['thought']} | {one['changes']} | {cells} |"


def _words(one: Mapping[str, Any]) -> str:
    return str(one["operator"]).replace("-", " ")
