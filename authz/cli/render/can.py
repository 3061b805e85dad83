"""The tables of `authz can`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from authz.cli.render.page import Page
from authz.cli.render.terminal import Terminal

__all__ = ["can_page", "print_can"]

Row = Mapping[str, Any]


def print_can(terminal: Terminal, table: Mapping[str, Any]) -> None:
    """Print a table for each chain, and where the named rules stand."""
    rules: dict[str, str] = {}
    for index, (title, chain) in enumerate(_merged(table["chains"])):
        if index:
            terminal.line("")
        terminal.line(title)
        has_templates = len({row["template"] for row in chain["rows"]} - {""}) > 1
        columns = ("operation", "outcome", *(("task",) if has_templates else ()), "because")
        rows = []
        for row in chain["rows"]:
            cells = [row["operation"], _outcome(row)]
            if has_templates:
                cells.append(row["template"])
            rows.append((*cells, _why(row)))
            rules |= {_label(rule): _place(rule) for rule in _rules(row)}
        terminal.table(columns, rows)
        terminal.line(_summary(chain["rows"]))
    if rules:
        terminal.line("\nwhere the rules are")
    for label, place in sorted(rules.items()):
        terminal.line(f"  {label}: {place}")


def can_page(name: str, revision: str, table: Mapping[str, Any]) -> str:
    """Render the table as a page."""
    page = Page(f"Who can do what: {name}", f"Bundle {name}, revision {revision}.")
    page.note(
        "Each outcome is the best that a call could have. Arguments, history, time and proof of a call are not known here: a rule that "
        "depends on one of them is listed with its effect on the call."
    )
    for title, chain in _merged(table["chains"]):
        page.heading(title)
        page.note(_ids(chain))
        page.table(
            ("operation", "effects", "tier", "task", "outcome", "because", "where the rules are"),
            [
                (
                    row["operation"],
                    ", ".join(row["effects"]),
                    row["tier"],
                    row["template"],
                    _outcome(row),
                    _why(row),
                    "; ".join(dict.fromkeys(f"{_label(r)}: {_place(r)}" for r in _rules(row))),
                )
                for row in chain["rows"]
            ],
        )
        page.note(_summary(chain["rows"]))
    return page.render()


def _merged(
    chains: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each chain with rows once, with the names of all that have the same rows."""
    merged: list[tuple[list[str], Mapping[str, Any]]] = []
    for chain in chains:
        if not chain["rows"]:
            continue
        same = next((one for one in merged if _same(one[1], chain)), None)
        if same is None:
            merged.append(([_title(chain)], chain))
        else:
            same[0].append(_behalf(chain))
    for titles, chain in merged:
        yield " or ".join(titles), chain


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    has_agent = one["agent"] is not None
    return bool(has_agent and one["agent"] == other["agent"] and _shown(one) == _shown(other))


def _shown(chain: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    return [(row["operation"], _outcome(row), row["template"], _why(row)) for row in chain["rows"]]


def _title(chain: Mapping[str, Any]) -> str:
    if chain["agent"] is None:
        return f"{_name(chain['subject'])}, without an agent"
    return f"{_name(chain['agent'])}, {_behalf(chain)}"


def _behalf(chain: Mapping[str, Any]) -> str:
    return "for itself" if chain["subject"] is None else f"for {_name(chain['subject'])}"


def _name(member: Mapping[str, str]) -> str:
    return member["role"] or member["id"]


def _ids(chain: Mapping[str, Any]) -> str:
    members = [chain["agent"], chain["subject"]]
    return ", ".join(str(member["id"]) for member in members if member and member["role"])


def _outcome(row: Row) -> str:
    return f"{row['outcome']} (observed)" if row["observed"] else str(row["outcome"])


def _why(row: Row) -> str:
    """Name the rules that made the outcome, and those that make it worse for some calls."""
    parts: list[str] = []
    if row["outcome"] == "DENY":
        names = ", ".join(_short(rule) for rule in row["rules"])
        parts.append(f"{row['reason_code']}: {names}" if names else str(row["reason_code"]))
    if row["step_up_kinds"]:
        parts.append(f"needs {', '.join(row['step_up_kinds'])}")
    if row["proofs"]:
        parts.append(f"with {', '.join(row['proofs'])}")
    worse: dict[str, list[str]] = {}
    for condition in row["conditions"]:
        kind = condition["step_up_kind"] or "denied"
        is_beyond = condition["rule"]["kind"] == "scope" and condition["outcome"] == "STEP_UP"
        what = "only if" if condition["needed"] else f"{kind} {'beyond' if is_beyond else 'if'}"
        worse.setdefault(what, []).append(_short(condition["rule"]))
    parts += [f"{what} {', '.join(names)}" for what, names in worse.items()]
    return "; ".join(parts)


def _rules(row: Row) -> list[Mapping[str, Any]]:
    conditions = [condition["rule"] for condition in row["conditions"]]
    shown = row["rules"] if row["outcome"] != "PERMIT" else []
    return [rule for rule in [*shown, *conditions] if rule["file"]]


def _short(rule: Mapping[str, Any]) -> str:
    kind, name = str(rule["kind"]), str(rule["name"])
    return name if kind in ("policy", "default_deny") else f"{kind.replace('_', ' ')} {name}"


def _label(rule: Mapping[str, Any]) -> str:
    return f"{str(rule['kind']).replace('_', ' ')} {rule['name']}"


def _place(rule: Mapping[str, Any]) -> str:
    return f"{rule['file']}:{rule['line']}"


def _summary(rows: Sequence[Row]) -> str:
    outcomes = [row["outcome"] for row in rows]
    permitted, held, denied = (outcomes.count(name) for name in ("PERMIT", "STEP_UP", "DENY"))
    noun = "operation" if len(rows) == 1 else "operations"
    return f"{len(rows)} {noun}: {permitted} permitted, {held} after a step-up, {denied} denied"
