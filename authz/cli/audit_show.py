"""`authz audit show`: the timeline of one session."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from authz.cli.audit_source import LogFiles, log_files, private_file, torn_files
from authz.cli.decision_log import log_source
from authz.cli.options import ADMIN, Address, ConfigFile, Sets, output_path
from authz.cli.render import Terminal
from authz.cli.render.timeline import timeline_lines, timeline_page
from authz.errors import UsageError
from authz.tools.catalog.tool import plain
from authz.tools.timeline import Timeline, collect

__all__ = ["show"]


def show(
    *,
    session: Annotated[
        str,
        typer.Option(
            help="Id of the session: `input.task.session` of a record, or `input.session.id` without a task."
        ),
    ] = "",
    task: Annotated[
        str, typer.Option(help="Only the records of this task. Enough without `--session`.")
    ] = "",
    form: Annotated[str, typer.Option("--format", help="text, html or json")] = "text",
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            callback=output_path,
            help="File to write. Default: standard output.",
            dir_okay=False,
        ),
    ] = None,
    log: LogFiles = None,
    config: ConfigFile = None,
    sets: Sets = None,
    address: Address = ADMIN,
) -> None:
    """Show all that an audit log has about one session, in the order of time: calls, labels, approvals, reports and tasks.

    `html` is one file to send, without scripts. Lines that are not records are listed at the end.
    """
    if form not in {"text", "html", "json"}:
        raise UsageError(f"--format {plain(form, 40)}: text, html or json")
    if not session and not task:
        raise UsageError("give --session or --task")
    source = log_source([str(file) for file in log or ()], config, sets, address)
    files = log_files(source)
    if not files:
        raise UsageError(f"{source.name} does not exist; give --log FILE")
    with collect(files, session, task, torn_files(source)) as timeline:
        terminal = Terminal()
        if out is not None:
            with private_file(out) as file:
                file.writelines(_pieces(timeline, form))
            terminal.note(f"wrote {out}")
        elif form == "text":
            for line in timeline_lines(timeline):
                terminal.out.print(line, soft_wrap=True)
        else:
            sys.stdout.writelines(_pieces(timeline, form))
        if timeline.summary.damaged:
            terminal.note(
                f"{timeline.summary.damaged} lines of the files are not records; the output lists them"
            )


def _pieces(timeline: Timeline, form: str) -> Iterator[str]:
    if form == "html":
        return timeline_page(timeline)
    if form == "json":
        return timeline.json()
    return (f"{line.plain}\n" for line in timeline_lines(timeline))
