"""`authz replay`: judge recorded decisions again by another bundle."""

from pathlib import Path
from typing import Annotated

import typer

from authz.cli.decision_log import Logs, Since, Until, log_source
from authz.cli.options import ADMIN, Address, ConfigFile, Sets, Vars
from authz.cli.render import CommandExit, Terminal
from authz.cli.render.replay import print_replay, replay_markdown
from authz.cli.replay_run import (
    AgentFilter,
    FailOn,
    Format,
    OperationFilter,
    Selection,
    compile_folder,
    failures,
    print_json,
    replay_log,
)
from authz.errors import UsageError
from authz.tools.catalog.tool import plain

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command(
        "replay",
        epilog="Example: authz replay --log audit.jsonl --bundle new/ --against old/ --fail-on newly-permitted",
    )(replay)


def replay(
    *,
    bundle: Annotated[
        Path,
        typer.Option(
            "--bundle", "-b", help="Folder of the bundle that judges again.", file_okay=False
        ),
    ],
    log: Logs = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the bundle that judged. With it, more can be replayed, and its answers are compared. Default: the recorded answers.",
            file_okay=False,
        ),
    ] = None,
    since: Since = "",
    until: Until = "",
    agent: AgentFilter = "",
    operation: OperationFilter = "",
    form: Format = "text",
    fail_on: FailOn = None,
    config: ConfigFile = None,
    sets: Sets = None,
    address: Address = ADMIN,
    var: Vars = None,
) -> None:
    """Judge recorded decisions again by another bundle, and list those with another answer and those that cannot be judged.

    Exit code 2 if a decision is of a category of `--fail-on`.
    """
    if form not in {"text", "json", "markdown"}:
        raise UsageError(f"--format {plain(form, 40)}: text, json or markdown")
    conditions = failures(fail_on)
    selection = Selection.read(since, until, agent, operation)
    terminal = Terminal()
    source = log_source(log, config, sets, address)
    plan = compile_folder(terminal, bundle, source, var)
    before = compile_folder(terminal, against, source, var) if against is not None else None
    run = replay_log(terminal, source, selection, plan, before)
    if form == "json":
        print_json(run.document())
    elif form == "markdown":
        print(replay_markdown(run.document()), end="")
    else:
        print_replay(terminal, run.document())
    if failed := run.report.fails(conditions):
        terminal.note(f"--fail-on {', '.join(failed)}")
        raise CommandExit(2)
