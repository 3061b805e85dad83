"""The texts and tables of `authz why`."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from authz.cli.render.page import Page
from authz.cli.render.terminal import Terminal
from authz.tools.catalog.tool import plain
from authz.tools.why import Explanation, Groups

__all__ = ["groups_page", "print_groups", "print_why", "why_page"]


_ROWS: Final = 50
_PAGE_ROWS: Final = 1_000

_SOURCE_LINES: Final = 20

_NAMES: Final = 12


def print_why(terminal: Terminal, explanation: Explanation) -> None:
    """Print the explanation of one decision."""
    decision = explanation.decision
    softened = "" if decision.enforced else "  (mode: observe let it through)"
    terminal.line(f"{plain(decision.outcome, 40)}  {plain(decision.code, 60)}{softened}")
    if decision.message:
        terminal.line(f"  {plain(decision.message, 600)}")
    for name, value in _facts(explanation):
        if value:
            terminal.line(f"  {name}: {plain(value, 1_000)}")
    for rule in _other_rules(explanation):
        terminal.line(f"  because of: {plain(rule, 500)}")
    for id_, at, reason in explanation.policies:
        said = f": {plain(reason, 300)}" if reason else ""
        terminal.line(f"  policy: {plain(id_, 200)} ({plain(at, 300)}){said}")
    for line in explanation.source.splitlines()[:_SOURCE_LINES]:
        terminal.line(f"    | {plain(line, 300)}")
    if explanation.same_bundle is False:
        terminal.line("  another bundle made this decision, so the answer may differ")
    _help(terminal, explanation)


def _other_rules(explanation: Explanation) -> list[str]:
    """Rules beside policies, which have lines of their own."""
    return [str(rule) for rule in explanation.decision.rules if rule.kind != "policy"]


def why_page(explanation: Explanation) -> str:
    """Render the explanation of one decision as a page."""
    decision = explanation.decision
    page = Page(f"Decision {decision.decision_id}", decision.at)
    softened = "" if decision.enforced else " (mode: observe let it through)"
    page.outcome(decision.outcome, f"{decision.code}{softened}")
    if decision.message:
        page.line(decision.message)
    page.facts(_facts(explanation))
    policies = [f"policy {id_} ({at}): {reason}" for id_, at, reason in explanation.policies]
    if policies or decision.rules:
        page.heading("Rules that made this answer")
        page.items([*_other_rules(explanation), *policies])
    page.source(explanation.source.splitlines()[:_SOURCE_LINES])
    if explanation.same_bundle is False:
        page.note("Another bundle made this decision, so the answer may differ.")
    if explanation.permits:
        page.heading("Permits that came closest")
        page.table(
            ("permit", "where", "principal", "why it did not fire"),
            [
                (p.policy.id, f"{p.policy.file}:{p.policy.line}", p.principal, p.lacks)
                for p in explanation.permits
            ],
        )
    if explanation.would_permit:
        page.heading("What would permit it")
        page.items(explanation.would_permit)
    return page.render()


def groups_page(
    groups: Groups, changes: Iterable[Mapping[str, Any]], *, observed: bool, within: str
) -> str:
    """Render refused decisions, grouped by common properties, as a page.

    Args:
        groups: The groups.
        changes: Changes of the bundle meanwhile.
        observed: Only decisions that `mode: observe` let through were counted.
        within: The span of time, in words.
    """
    listed = groups.sorted()
    total = sum(group.times for _, group in listed) + groups.left_out
    title = "Calls that mode: observe let through" if observed else "Refused calls"
    page = Page(title, within)
    page.line(f"{total} of {groups.decisions} decisions, in {len(listed)} kinds.")
    if observed:
        page.note("Each of these calls would be refused once the bundle says `mode: enforce`.")
    page.table(
        (
            "times",
            "observed",
            "code",
            "operation",
            "policy",
            "agent",
            "revision",
            "first",
            "last",
            "example",
        ),
        [
            (
                str(group.times),
                str(group.observed),
                key.code,
                key.operation,
                ", ".join(key.policies),
                key.agent or "nobody",
                key.revision,
                _short(group.first),
                _short(group.last),
                group.sample,
            )
            for key, group in listed[:_PAGE_ROWS]
        ],
    )
    if len(listed) > _PAGE_ROWS:
        page.note(f"and {len(listed) - _PAGE_ROWS} more kinds; --format json tells all")
    if groups.left_out:
        page.note(
            f"{groups.left_out} decisions are of kinds that are not listed: there were too many."
        )
    for change in changes:
        page.heading(f"Bundle {change['from']} → {change['to']}")
        page.source(json.dumps(change, indent=2, ensure_ascii=False).splitlines()[:200])
    return page.render()


def _help(terminal: Terminal, explanation: Explanation) -> None:
    """Print what would permit it."""
    if explanation.permits:
        terminal.line("  permits that came closest:")
    for permit in explanation.permits:
        at = f"{permit.policy.file}:{permit.policy.line}"
        lacks, principal = plain(permit.lacks, 400), plain(permit.principal, 300)
        terminal.line(f"    {plain(permit.policy.id, 200)} ({at}) for {principal}: {lacks}")
    if explanation.would_permit:
        terminal.line("  what would permit it:")
    for what in explanation.would_permit:
        terminal.line(f"    {plain(what, 600)}")


def _facts(explanation: Explanation) -> list[tuple[str, str]]:
    decision = explanation.decision
    principals = [(link.kind.lower(), _principal(link.id, link.roles)) for link in decision.chain]
    return [
        ("meaning", explanation.title),
        ("page", explanation.page),
        (
            "step",
            f"{decision.step}: {explanation.settles}" if explanation.settles else decision.step,
        ),
        ("when", f"{decision.at}  {decision.decision_id}"),
        ("operation", decision.operation),
        ("asked for", decision.requested if decision.unresolved is not None else ""),
        ("tier", decision.tier),
        ("resource", decision.resource),
        ("destination", decision.destination_class),
        *(
            (role, f"named, endorsed by approval {approval}")
            for role, _, approval in decision.endorsed
        ),
        *(principals or [("caller", "nobody: no credential was verified")]),
        ("enforcer", decision.enforcer),
        ("arguments", json.dumps(decision.arguments) if decision.arguments else ""),
        ("bundle", f"{decision.bundle} {decision.revision} {decision.digest[:12]}"),
        *(
            (f"observed policy {policy} ({at})", f"would be {outcome}")
            for policy, at, outcome in decision.observed
        ),
        ("trace", decision.trace_id),
        ("the caller is told", f"next action {decision.next_action}, retry {decision.retry}"),
    ]


def _principal(id_: str, roles: tuple[str, ...] | None) -> str:
    if roles is None:
        return id_
    return f"{id_} (roles: {', '.join(roles)})" if roles else f"{id_} (no role)"


def print_groups(
    terminal: Terminal, groups: Groups, changes: Iterable[Mapping[str, Any]], options: str = ""
) -> None:
    """Print groups of refused decisions, and how the bundle changed meanwhile.

    Args:
        terminal: Terminal to print on.
        groups: Groups.
        changes: Differences between bundles.
        options: Options with which the same log is read again, for the command that explains one decision.
    """
    listed = groups.sorted()
    total = sum(group.times for _, group in listed) + groups.left_out
    if listed:
        terminal.table(
            (
                "times",
                "observed",
                "code",
                "operation",
                "policy",
                "agent",
                "revision",
                "first",
                "last",
            ),
            [
                (
                    str(group.times),
                    str(group.observed),
                    plain(key.code, 60),
                    plain(key.operation, 120),
                    plain(", ".join(key.policies), 120),
                    plain(key.agent, 120) or "nobody",
                    plain(key.revision, 40),
                    _short(group.first),
                    _short(group.last),
                )
                for key, group in listed[:_ROWS]
            ],
        )
    if len(listed) > _ROWS:
        terminal.line(f"and {len(listed) - _ROWS} more kinds; --format json tells all")
    terminal.line(f"{total} of {groups.decisions} decisions refused, in {len(listed)} kinds")
    if groups.left_out:
        terminal.line(
            f"{groups.left_out} of them are of kinds that are not listed: there were too many"
        )
    revisions = groups.changes()
    if len(revisions) > 1:
        for revision in revisions:
            _revision(terminal, revision)
    for change in changes:
        _change(terminal, change)
    if listed:
        again = " ".join(filter(None, [plain(listed[0][1].sample, 80), options]))
        terminal.note(f"Next: authz why {again}")


def _short(at: str) -> str:
    return at[:19].replace("T", " ")


def _revision(terminal: Terminal, revision: Mapping[str, Any]) -> None:
    terminal.line(
        f"revision {plain(revision['revision'], 60)}, {revision['first']} to {revision['last']}: "
        f"{revision['permitted']} permitted, {revision['refused']} refused"
    )
    for what, name in (("policies", "policy"), ("reason_codes", "code")):
        for sign, kind in (("+", "new"), ("-", "gone")):
            for one in revision.get(f"{kind}_{what}", ())[:_NAMES]:
                times = revision[what].get(one)
                said = f", {times} times" if times else ""
                terminal.line(f"  {sign} {name} {plain(one, 200)}{said}")


def _change(terminal: Terminal, change: Mapping[str, Any]) -> None:
    terminal.line(f"{change['from']} to {change['to']}:")
    lines = [
        f"  {sign} {what} {plain(one, 200)}"
        for what in ("policies", "operations", "rules", "roles", "agents", "routes")
        for sign, kind in (("+", "added"), ("-", "removed"), ("~", "changed"))
        for one in change[what].get(kind, ())
    ]
    for line in lines[: _ROWS * 2]:
        terminal.line(line)
    if len(lines) > _ROWS * 2:
        terminal.line(f"  and {len(lines) - _ROWS * 2} more")
    if not lines:
        terminal.line("  no id differs")
