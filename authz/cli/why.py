"""The verb why: one decision, or what many have in common."""

import difflib
import json
import time
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from authz.audit import Past, Span, span
from authz.cli.history import (
    ADMIN,
    Address,
    Logs,
    Since,
    Source,
    Until,
    bundle_of,
    history,
    source_of,
)
from authz.cli.options import ConfigFile, Sets, Vars
from authz.cli.show import Show
from authz.engine import Plan, reason_table
from authz.errors import UsageError
from authz.tools.catalog.tool import plain
from authz.tools.propose import Known
from authz.tools.why import Groups, Policy, Why, changed_policies, explain, read_policies

__all__ = ["register"]

_ROWS: Final = 50
_SOURCE_LINES: Final = 20
_NAMES: Final = 12

Bundles = Annotated[
    list[Path] | None,
    typer.Option(
        "--bundle",
        "-b",
        help="Folder of a bundle that judged; of several, oldest first, what changed is told. Else the node's. Repeatable.",
        file_okay=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verb.

    Args:
        app: The command.
    """
    app.command("why", epilog="Example: authz why --observed --since 24h")(why)


def why(
    *,
    decision_id: Annotated[
        str, typer.Argument(help="One decision; else what many have in common.")
    ] = "",
    since: Since = "",
    until: Until = "",
    observed: Annotated[
        bool, typer.Option("--observed", help="Only what `mode: observe` let through.")
    ] = False,
    agent: Annotated[
        str, typer.Option(help="Only of this caller: a SPIFFE id, `*` stands for any characters.")
    ] = "",
    operation: Annotated[
        str, typer.Option(help="Only of this operation: `crm.delete`, `crm.*`.")
    ] = "",
    code: Annotated[str, typer.Option(help="Only with this reason code.")] = "",
    log: Logs = None,
    bundle: Bundles = None,
    config: ConfigFile = None,
    sets: Sets = None,
    address: Address = ADMIN,
    var: Vars = None,
    output: Annotated[str, typer.Option("--output", "-o", help="text or json")] = "text",
) -> None:
    """Tell why a decision came out as it did, and what would permit it; or what the refused ones have in common, and what changed with the bundle."""
    if output not in {"text", "json"}:
        raise UsageError(f"--output {plain(output, 40)}: text or json")
    _known_code(code)
    show = Show()
    within = span(since, until, time.time())
    source = source_of(log, config, sets, address)
    folders = bundle or ([source.bundle] if source.bundle is not None else [])
    if decision_id:
        found = _find(show, source, decision_id, within)
        told = _explain(show, source, found, folders, var)
        if output == "json":
            _json(told.document())
        else:
            _one(show, told)
        return
    groups = Groups()
    for decision in history(show, source, within):
        kept = (
            (not observed or not decision.enforced)
            and (not code or decision.code == code)
            and (not agent or fnmatchcase(decision.agent, agent))
            and (not operation or fnmatchcase(decision.what, operation))
            and not decision.probe
        )
        if kept:
            groups.see(decision)
    changes = _bundles(show, source, folders, var) if len(folders) > 1 else []
    if output == "json":
        _json({**groups.document(), "bundles": changes})
    else:
        _many(show, groups, changes)


def _known_code(code: str) -> None:
    names = [str(row["name"]) for row in reason_table()]
    if code and code not in names:
        near = difflib.get_close_matches(code.upper(), names, 1)
        raise UsageError(
            f"--code {plain(code, 60)}: no such reason code"
            + (f"; did you mean {near[0]}?" if near else ": see docs/reference/reason-codes.md")
        )


def _find(show: Show, source: Source, decision_id: str, within: Span) -> Past:
    """Find the last record of a decision: an earlier one was not answered."""
    if not within.since and (made := _made(decision_id)):
        # Files that were last written to before the decision was made need not be read.
        within = Span(made, within.until)
    found: Past | None = None
    for decision in history(show, source, within):
        if decision.decision_id == decision_id:
            found = decision
    if found is None:
        raise UsageError(f"no record of {plain(decision_id, 80)} in {source.name}")
    return found


def _made(decision_id: str) -> str:
    """A minute before a UUIDv7 was made; empty for what is none."""
    try:
        parsed = uuid.UUID(decision_id)
    except ValueError:
        return ""
    if parsed.version != 7:
        return ""
    try:
        at = datetime.fromtimestamp((parsed.int >> 80) / 1000, UTC) - timedelta(minutes=1)
    except (ValueError, OverflowError):
        return ""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _explain(
    show: Show, source: Source, found: Past, folders: list[Path], var: list[str] | None
) -> Why:
    """Explain with the bundle that judged, or the last of those that were given."""
    best: tuple[Plan, Mapping[str, bytes]] | None = None
    for folder in folders:
        files, named = bundle_of(show, folder, source, var)
        if files is None:
            continue
        plan = Plan.compile(files, named)
        if best is None or best[0].digest != found.digest:
            best = (plan, files.files)
    if best is None:
        return explain(found, None, {})
    return explain(found, best[0], read_policies(best[1]))


def _bundles(
    show: Show, source: Source, folders: list[Path], var: list[str] | None
) -> list[dict[str, Any]]:
    """Compare each bundle with the one before it, by ids."""
    found: list[dict[str, Any]] = []
    before: tuple[Path, dict[str, Policy], dict[str, set[str]]] | None = None
    for folder in folders:
        files, named = bundle_of(show, folder, source, var)
        if files is None:
            continue
        policies, facts = read_policies(files.files), _names(Known.read(files, named))
        if before is not None:
            change: dict[str, Any] = {
                "from": str(before[0]),
                "to": str(folder),
                "policies": changed_policies(before[1], policies),
            }
            for what, names in facts.items():
                change[what] = {
                    "added": sorted(names - before[2][what]),
                    "removed": sorted(before[2][what] - names),
                }
            found.append(change)
        before = (folder, policies, facts)
    return found


def _names(known: Known) -> dict[str, set[str]]:
    return {
        "operations": set(known.operations),
        "rules": set(known.rules),
        "roles": set(known.roles),
        "agents": set(known.agents),
        "routes": {f"{method} {host}{path}" for method, host, path in known.routes},
    }


def _json(value: Mapping[str, Any]) -> None:
    # In ASCII: a text of a record may hold what a terminal obeys, or what is no character.
    print(json.dumps(value, indent=2))


def _one(show: Show, told: Why) -> None:
    one = told.decision
    softened = "" if one.enforced else "  (mode: observe let it through)"
    show.line(f"{plain(one.outcome, 40)}  {plain(one.code, 60)}{softened}")
    if one.message:
        show.line(f"  {plain(one.message, 600)}")
    for name, value in _facts(told):
        if value:
            show.line(f"  {name}: {plain(value, 1_000)}")
    for id_, at, reason in told.policies:
        said = f": {plain(reason, 300)}" if reason else ""
        show.line(f"  policy: {plain(id_, 200)} ({plain(at, 300)}){said}")
    for line in told.source.splitlines()[:_SOURCE_LINES]:
        show.line(f"    | {plain(line, 300)}")
    if told.same_bundle is False:
        show.line("  the bundle that is given is not the one that judged: what it says may differ")
    _help(show, told)


def _help(show: Show, told: Why) -> None:
    """Print what would permit it."""
    if told.permits:
        show.line("  permits that came closest:")
    for permit in told.permits:
        at = f"{permit.policy.file}:{permit.policy.line}"
        lacks, principal = plain(permit.lacks, 400), plain(permit.principal, 300)
        show.line(f"    {plain(permit.policy.id, 200)} ({at}) for {principal}: {lacks}")
    if told.would_permit:
        show.line("  what would permit it:")
    for what in told.would_permit:
        show.line(f"    {plain(what, 600)}")


def _facts(told: Why) -> list[tuple[str, str]]:
    one = told.decision
    principals = [(link.kind.lower(), _principal(link.id, link.roles)) for link in one.chain]
    return [
        ("meaning", told.title),
        ("page", told.page),
        ("step", f"{one.step}: {told.settles}" if told.settles else one.step),
        ("when", f"{one.at}  {one.decision_id}"),
        ("operation", one.operation),
        ("asked for", one.what if one.asked is not None else ""),
        ("tier", one.tier),
        ("resource", one.resource),
        ("destination", one.destination_class),
        *(principals or [("caller", "nobody: no credential was verified")]),
        ("enforcer", one.enforcer),
        ("arguments", json.dumps(one.arguments) if one.arguments else ""),
        ("bundle", f"{one.bundle} {one.revision} {one.digest[:12]}"),
        ("trace", one.trace_id),
        ("the caller is told", f"next action {one.next_action}, retry {one.retry}"),
    ]


def _principal(id_: str, roles: tuple[str, ...] | None) -> str:
    if roles is None:
        return id_
    return f"{id_} (roles: {', '.join(roles)})" if roles else f"{id_} (no role)"


def _many(show: Show, groups: Groups, changes: Iterable[Mapping[str, Any]]) -> None:
    listed = groups.sorted()
    total = sum(group.times for _, group in listed) + groups.left_out
    if listed:
        show.table(
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
        show.line(f"and {len(listed) - _ROWS} more kinds; --output json tells all")
    show.line(f"{total} of {groups.decisions} decisions refused, in {len(listed)} kinds")
    if groups.left_out:
        show.line(
            f"{groups.left_out} of them are of kinds that are not listed: there were too many"
        )
    revisions = groups.changes()
    if len(revisions) > 1:
        for revision in revisions:
            _revision(show, revision)
    for change in changes:
        _change(show, change)
    if listed:
        show.note(f"Next: authz why {plain(listed[0][1].sample, 80)}")


def _short(at: str) -> str:
    return at[:19].replace("T", " ")


def _revision(show: Show, revision: Mapping[str, Any]) -> None:
    show.line(
        f"revision {plain(revision['revision'], 60)}, {revision['first']} to {revision['last']}: "
        f"{revision['permitted']} permitted, {revision['refused']} refused"
    )
    for what, name in (("policies", "policy"), ("reason_codes", "code")):
        for sign, kind in (("+", "new"), ("-", "gone")):
            for one in revision.get(f"{kind}_{what}", ())[:_NAMES]:
                times = revision[what].get(one)
                said = f", {times} times" if times else ""
                show.line(f"  {sign} {name} {plain(one, 200)}{said}")


def _change(show: Show, change: Mapping[str, Any]) -> None:
    show.line(f"{change['from']} to {change['to']}:")
    lines = [
        f"  {sign} {what} {plain(one, 200)}"
        for what in ("policies", "operations", "rules", "roles", "agents", "routes")
        for sign, kind in (("+", "added"), ("-", "removed"), ("~", "changed"))
        for one in change[what].get(kind, ())
    ]
    for line in lines[: _ROWS * 2]:
        show.line(line)
    if len(lines) > _ROWS * 2:
        show.line(f"  and {len(lines) - _ROWS * 2} more")
    if not lines:
        show.line("  no id differs")
