"""`authz why`: explain one decision, or count what refused decisions have in common."""

import difflib
import json
import shlex
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import typer

from authz.audit import RecordedDecision, Span, span
from authz.cli.decision_log import (
    Logs,
    LogSource,
    Since,
    Until,
    history,
    log_source,
    read_bundle,
)
from authz.cli.options import ADMIN, Address, ConfigFile, Sets, Vars
from authz.cli.render import Terminal
from authz.cli.render.why import groups_page, print_groups, print_why, why_page
from authz.engine import BundleDescription, Plan, reason_table
from authz.errors import UsageError
from authz.tools.catalog.tool import plain
from authz.tools.propose import BundleNames
from authz.tools.why import Explanation, Groups, changed_policies, explain

__all__ = ["register"]


Bundles = Annotated[
    list[Path] | None,
    typer.Option(
        "--bundle",
        "-b",
        help="Folder of the bundle that judged. Give several, oldest first, to see what changed. Default: that of the node. Repeatable.",
        file_okay=False,
    ),
]


class WhyFormat(StrEnum):
    """Format of the explanation."""

    TEXT = "text"
    JSON = "json"
    HTML = "html"


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("why", epilog="Example: authz why --observed --since 24h")(why)


def why(
    *,
    decision_id: Annotated[
        str, typer.Argument(help="Id of a decision to explain. Default: count refused decisions.")
    ] = "",
    since: Since = "",
    until: Until = "",
    observed: Annotated[
        bool, typer.Option("--observed", help="Only decisions that `mode: observe` let through.")
    ] = False,
    agent: Annotated[
        str,
        typer.Option(
            help="Only decisions of this caller: a SPIFFE id, in which `*` matches any characters."
        ),
    ] = "",
    operation: Annotated[
        str,
        typer.Option(
            help="Only decisions about this operation, for example `crm.delete` or `crm.*`."
        ),
    ] = "",
    code: Annotated[str, typer.Option(help="Only decisions with this reason code.")] = "",
    log: Logs = None,
    bundle: Bundles = None,
    config: ConfigFile = None,
    sets: Sets = None,
    address: Address = ADMIN,
    var: Vars = None,
    style: Annotated[
        WhyFormat,
        typer.Option(
            "--format", help="text, json, or html: a page to send, one file without scripts."
        ),
    ] = WhyFormat.TEXT,
) -> None:
    """Explain one decision and what would permit it; without an id, count the refused decisions by their common properties."""
    _known_code(code)
    terminal = Terminal()
    within = span(since, until, time.time())
    source = log_source(log, config, sets, address)
    folders = bundle or ([source.bundle] if source.bundle is not None else [])
    if decision_id:
        found = _find(terminal, source, decision_id, within)
        explanation = _explain(terminal, source, found, folders, var)
        if style is WhyFormat.HTML:
            print(why_page(explanation), end="")
        elif style is WhyFormat.JSON:
            _json(explanation.document())
        else:
            print_why(terminal, explanation)
        return
    groups = Groups()
    for decision in history(terminal, source, within):
        kept = (
            (not observed or not decision.enforced)
            and (not code or decision.code == code)
            and (not agent or fnmatchcase(decision.agent, agent))
            and (not operation or fnmatchcase(decision.requested, operation))
            and not decision.probe
        )
        if kept:
            groups.add(decision)
    changes = _bundles(terminal, source, folders, var) if len(folders) > 1 else []
    if style is WhyFormat.HTML:
        span_text = f"{within.since or 'the beginning'} to {within.until or 'now'}, {source.name}"
        print(groups_page(groups, changes, observed=observed, within=span_text), end="")
    elif style is WhyFormat.JSON:
        _json({**groups.document(), "bundles": changes})
    else:
        print_groups(terminal, groups, changes, _again(log, bundle))


def _again(log: list[str] | None, bundle: list[Path] | None) -> str:
    """Options that lead to the same log; empty for standard input, which is read once."""
    named = [("--log", path) for path in log or []] + [("-b", str(path)) for path in bundle or []]
    if ("--log", "-") in named:
        return ""
    return shlex.join(part for option in named for part in option)


def _known_code(code: str) -> None:
    names = [str(row["name"]) for row in reason_table()]
    if code and code not in names:
        near = difflib.get_close_matches(code.upper(), names, 1)
        raise UsageError(
            f"--code {plain(code, 60)}: no such reason code"
            + (f"; did you mean {near[0]}?" if near else ": see docs/reference/reason-codes.md")
        )


def _find(
    terminal: Terminal, source: LogSource, decision_id: str, within: Span
) -> RecordedDecision:
    """Find the last record of a decision: an earlier one was not answered."""
    if not within.since and (made := _made(decision_id)):
        # Files that were last written to before the decision was made need not be read.
        within = Span(made, within.until)
    last: RecordedDecision | None = None
    for decision in history(terminal, source, within):
        if decision.decision_id == decision_id:
            last = decision
    if last is None:
        raise UsageError(f"no record of {plain(decision_id, 80)} in {source.name}")
    return last


def _made(decision_id: str) -> str:
    """Return a minute before the time in a UUIDv7; empty for any other text."""
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
    terminal: Terminal,
    source: LogSource,
    decision: RecordedDecision,
    folders: list[Path],
    var: list[str] | None,
) -> Explanation:
    """Explain with the bundle that judged, or the last of those that were given."""
    chosen: Plan | None = None
    for folder in folders:
        if chosen is None or chosen.digest != decision.digest:
            chosen = _compile(terminal, folder, source, var)
    if chosen is None:
        return explain(decision)
    return explain(decision, chosen.describe(), chosen.digest)


def _compile(terminal: Terminal, folder: Path, source: LogSource, var: list[str] | None) -> Plan:
    files, values = read_bundle(terminal, folder, source, var)
    return Plan.compile(files, values)


def _bundles(
    terminal: Terminal, source: LogSource, folders: list[Path], var: list[str] | None
) -> list[dict[str, Any]]:
    """Compare each bundle with the one before it, by ids."""
    changes: list[dict[str, Any]] = []
    before: tuple[Path, BundleDescription] | None = None
    for folder in folders:
        bundle = _compile(terminal, folder, source, var).describe()
        if before is not None:
            change: dict[str, Any] = {
                "from": str(before[0]),
                "to": str(folder),
                "policies": changed_policies(before[1].policies, bundle.policies),
            }
            old, new = _names(before[1]), _names(bundle)
            for kind, names in new.items():
                change[kind] = {
                    "added": sorted(names - old[kind]),
                    "removed": sorted(old[kind] - names),
                }
            changes.append(change)
        before = (folder, bundle)
    return changes


def _names(bundle: BundleDescription) -> dict[str, set[str]]:
    names = BundleNames.read(bundle)
    return {
        "operations": set(names.operations),
        "rules": set(names.rules),
        "roles": set(names.roles),
        "agents": set(names.agents),
        "routes": {f"{method} {host}{path}" for method, host, path in names.routes},
    }


def _json(value: Mapping[str, Any]) -> None:
    # In ASCII: a text of a record can have control sequences of a terminal, or bytes that are not characters.
    print(json.dumps(value, indent=2))
