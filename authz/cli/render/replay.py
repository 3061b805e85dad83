"""The texts and tables of a replay."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from authz.cli.render.terminal import Terminal
from authz.tools.catalog.tool import plain

__all__ = ["print_replay", "replay_markdown"]

_ROWS: Final = 50
_TITLES: Final = {
    "newly_permitted": "newly permitted",
    "newly_held": "newly held",
    "newly_denied": "newly denied",
    "other_change": "same outcome, other reason",
}
_CLAIMS: Final = {"never_admits": "never admits", "may_admit": "may admit"}
_Row = tuple[str, ...]
_CHANGE_COLUMNS: Final = ("times", "sessions", "operation", "before", "after", "first", "sample")
_SESSION_COLUMNS: Final = (
    "session",
    "newly permitted",
    "newly held",
    "newly denied",
    "other reason",
)
_GAP_COLUMNS: Final = (
    "times",
    "reason",
    "because",
    "operations",
    "what the names prove",
    "sample",
)


def print_replay(terminal: Terminal, document: Mapping[str, Any]) -> None:
    """Print the result of a replay.

    Args:
        terminal: Terminal to print on.
        document: The result, as in JSON.
    """
    for title, columns, rows in _tables(document):
        terminal.table(columns, rows[:_ROWS], title=title)
        if len(rows) > _ROWS:
            terminal.line(f"and {len(rows) - _ROWS} more rows; --format json has all")
    for line in _summary(document):
        terminal.line(line)


def replay_markdown(document: Mapping[str, Any]) -> str:
    """Write the result of a replay in Markdown, for a comment on a pull request.

    Args:
        document: The result, as in JSON.
    """
    counts = document["counts"]
    changed = ", ".join(
        f"{counts[category]} {_TITLES[category]}"
        for category in ("newly_permitted", "newly_held", "newly_denied")
    )
    lines = [
        f"### Replay: {changed}",
        "",
        *(f"- {_cell(line)}" for line in _summary(document)),
    ]
    for title, columns, rows in _tables(document):
        lines += ["", f"**{title}**", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows[:_ROWS]]
        if len(rows) > _ROWS:
            lines += ["", f"and {len(rows) - _ROWS} more rows"]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Escape a text, which may come from a record, for a cell of a table."""
    escaped = text.replace("\\", "\\\\")
    for mark in "|`*_[]<>#!":
        escaped = escaped.replace(mark, f"&#{ord(mark)};")
    return escaped


def _summary(document: Mapping[str, Any]) -> Iterator[str]:
    counts = document["counts"]
    apart = {
        "records of the node": counts["node_records"],
        "sums of refusals": counts["sums"],
        "repeated records": counts["repeated"],
        "left out by options": counts["left_out"],
        "probes": counts["probes"],
        "lines that are not records": counts["damaged_lines"],
    }
    said = ", ".join(f"{number} {name}" for name, number in apart.items() if number)
    yield f"{counts['records']} records read, {counts['decisions']} decisions to replay" + (
        f" ({said})" if said else ""
    )
    yield (
        f"{counts['replayed']} replayed: {counts['equal']} equal, {counts['newly_permitted']} newly permitted, "
        f"{counts['newly_held']} newly held, {counts['newly_denied']} newly denied, "
        f"{counts['other_change']} with another reason"
    )
    if counts["not_replayed"]:
        yield f"{counts['not_replayed']} not replayed: nothing is known of them, except where a table says it"
    if document["further_changes"]:
        yield f"{document['further_changes']} changed decisions are not listed: there were too many groups"
    if document["further_sessions"]:
        yield f"{document['further_sessions']} changed decisions are of sessions that are not listed"
    changed = len(document["sessions"])
    if changed:
        yield f"{changed} sessions have changed decisions"


def _tables(document: Mapping[str, Any]) -> Iterator[tuple[str, _Row, list[_Row]]]:
    for category, title in _TITLES.items():
        rows = [_change_row(one) for one in document["changes"] if one["category"] == category]
        if rows:
            yield title, _CHANGE_COLUMNS, rows
    if rows := [_session_row(one) for one in document["sessions"]]:
        yield "by session", _SESSION_COLUMNS, rows
    if rows := [_gap_row(one) for one in document["not_replayed"]]:
        yield "not replayed", _GAP_COLUMNS, rows


def _change_row(change: Mapping[str, Any]) -> _Row:
    return (
        str(change["times"]),
        str(change["sessions"]),
        plain(change["operation"], 80),
        _answer(change["before"]),
        _answer(change["after"]),
        plain(change["first"], 30),
        _sample(change["samples"]),
    )


def _answer(answer: Mapping[str, Any]) -> str:
    words = [plain(answer["outcome"], 20), plain(answer["reason_code"], 40) or "(reason open)"]
    if not answer["enforced"]:
        words.append("(observed)")
    if policies := answer["policies"]:
        words.append("by " + plain(", ".join(policies), 160))
    if kinds := answer["step_up_kinds"]:
        words.append("needs " + plain(", ".join(kinds), 80))
    return " ".join([*words, f"tier {plain(answer['tier'], 20)}" if answer["tier"] else ""]).strip()


def _session_row(session: Mapping[str, Any]) -> _Row:
    return (
        plain(session["session"], 80),
        *(str(session[category]) for category in _TITLES),
    )


def _gap_row(gap: Mapping[str, Any]) -> _Row:
    claims = [f"{gap[name]} {words}" for name, words in _CLAIMS.items() if gap[name]]
    return (
        str(gap["times"]),
        plain(gap["reason"], 40),
        plain(gap["message"], 300),
        plain(", ".join(gap["operations"]), 120),
        ", ".join(claims),
        _sample(gap["samples"]),
    )


def _sample(samples: Sequence[str]) -> str:
    return plain(samples[0], 60) if samples else ""
