"""Writes the table of holes."""

from collections.abc import Mapping
from typing import Any, Final

_COLUMNS: Final = (
    "found",
    "otherwise",
    "not_decided",
    "nothing",
    "missed",
    "found_by_diff",
    "listed_by_diff",
    "found_by_tests",
)


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
            f"{measured['not_decided']} not decided, {measured['failed']} without a report; {measured['nothing']} open nothing. "
            f"`authz diff` shows a request that is newly permitted for {measured['found_by_diff']}, "
            f"and shows such a request or lists a changed fact for {measured['listed_by_diff']}; "
            f"the bundles' own tests find {measured['found_by_tests']}. "
            f"Of {measured['harmless']} harmless changes {measured['false_alarms']} have a finding, "
            f"and {measured['false_alarms_of_diff']} a request that is newly permitted. "
            f"{machine['cores']} cores of {machine['cpu']}, {machine['date']}, revision `{machine['revision']}`."
        ),
        "",
        "| change | a colleague thinks | changes | found | by another rule | not decided | opens nothing | missed | request by `authz diff` | request or fact by `authz diff` | by own tests |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
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
    counts = (one[key] for key in _COLUMNS)
    cells = " | ".join(str(count) for count in counts)
    return f"| {_words(one)} | {one['thought']} | {one['changes']} | {cells} |"


def _words(one: Mapping[str, Any]) -> str:
    return str(one["operator"]).replace("-", " ")
