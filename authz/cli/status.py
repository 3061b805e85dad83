"""`authz status`: show the state of a running node, and reload it."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from authz.cli.options import ADMIN, Address, Format, OutputFormat
from authz.cli.render import CommandExit, Terminal
from authz.cli.render.status import approval_status_rows, status_rows
from authz.errors import AuthzError
from authz.tools.remote import Remote
from authz_client.v1 import admin_pb2, approvals_pb2

__all__ = ["register"]

_MOST_APPROVALS: Final = 1000


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("status")(status)


def status(
    *,
    address: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
    reload: Annotated[
        bool, typer.Option("--reload", help="Reload the bundle and the keys first.")
    ] = False,
) -> None:
    """Show the status of a node. Exit code 1 if it is not ready, or if the reload is refused."""
    terminal = Terminal()
    remote = Remote(address)
    refused = False
    if reload:
        outcome = remote.reload()
        refused = not outcome.reloaded
        for line in outcome.diagnostics:
            terminal.note(line)
        now = outcome.bundle_revision or "nothing"
        terminal.note(
            f"reload refused; bundle {now} stays in service"
            if refused
            else f"bundle {now} is in service"
        )
        for line in _rule_changes(outcome.rules):
            terminal.note(line)
    answer = remote.status()
    detail = json.loads(answer.detail_json)
    approvals = _approvals(remote, terminal)
    detail["approvals"] = {**(detail.get("approvals") or {}), **(approvals or {})}
    if style is OutputFormat.JSON:
        terminal.json(detail)
    else:
        rows = [*status_rows(answer, detail), *approval_status_rows(approvals)]
        terminal.table(("", address), rows)
    if refused or not answer.ready:
        raise CommandExit(1)


def _approvals(remote: Remote, terminal: Terminal) -> dict[str, Any] | None:
    """Count the open approvals by queue; `None` where the node cannot tell."""
    request = approvals_pb2.ApprovalsListRequest(page_size=_MOST_APPROVALS)
    try:
        answer = remote.approval("List", request, approvals_pb2.ApprovalsListResponse())
    except AuthzError as error:
        terminal.note(f"open approvals are not known: {error}")
        return None
    queues = Counter(queue for one in answer.approvals for queue in one.waits_for)
    oldest = min((one.created_at.ToNanoseconds() for one in answer.approvals), default=0)
    return {
        "open": len(answer.approvals),
        "more": bool(answer.next_page_token),
        "queues": dict(sorted(queues.items())),
        "oldest_seconds": round(time.time() - oldest / 1e9) if oldest else None,
    }


def _rule_changes(rules: admin_pb2.RuleChanges) -> Iterator[str]:
    """Tell which sequences and budgets kept their progress over the reload."""
    if rules.carried:
        yield f"{rules.carried} rules are unchanged: their progress goes on"
    for what, names in (
        ("changed, progress starts anew", rules.changed),
        ("new", rules.added),
        ("removed", rules.removed),
    ):
        if names:
            yield f"{what}: {', '.join(names)}"
    if rules.omitted:
        yield f"and {rules.omitted} more"
