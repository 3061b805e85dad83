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
    OperationFilter,
    ReplayFailure,
    ReplayFormat,
    Selection,
    compile_folder,
    print_json,
    replay_log,
)

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
    style: Annotated[
        ReplayFormat, typer.Option("--format", help="text, json or markdown")
    ] = ReplayFormat.TEXT,
    fail_on: Annotated[
        list[ReplayFailure] | None,
        typer.Option(
            help="Exit code 2 if a decision is newly-permitted, newly-held, newly-denied or not-replayed. Repeatable."
        ),
    ] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    address: Address = ADMIN,
    var: Vars = None,
) -> None:
    """Judge recorded decisions again by another bundle, and list those with another answer and those that cannot be judged.

    Exit code 2 if a decision is of a category of `--fail-on`.
    """
    selection = Selection.read(since, until, agent, operation)
    terminal = Terminal()
    source = log_source(log, config, sets, address)
    plan = compile_folder(terminal, bundle, source, var)
    before = compile_folder(terminal, against, source, var) if against is not None else None
    run = replay_log(terminal, source, selection, plan, before)
    if style is ReplayFormat.JSON:
        print_json(run.document())
    elif style is ReplayFormat.MARKDOWN:
        print(replay_markdown(run.document()), end="")
    else:
        print_replay(terminal, run.document())
    if failed := run.report.fails(frozenset(fail_on or ())):
        terminal.note(f"--fail-on {', '.join(failed)}")
        raise CommandExit(2)
