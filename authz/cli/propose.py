"""`authz propose`: draft a change of the bundle from recorded decisions."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer

from authz.audit import RecordedDecision, span
from authz.cli.decision_log import (
    BundleOption,
    Logs,
    Since,
    Until,
    history,
    log_source,
    read_bundle,
)
from authz.cli.options import ADMIN, Address, ConfigFile, OutputFormat, Sets, Vars, output_path
from authz.cli.render import Terminal
from authz.engine import Plan
from authz.errors import BundleError, UsageError
from authz.model import BundleFiles
from authz.tools.propose import (
    BundleNames,
    Draft,
    Evidence,
    Observations,
    ObservedWork,
    draft,
    draft_kinds,
    kinds_document,
    task_kinds,
)

__all__ = ["register"]

_SHOWN: Final = 20


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("propose", epilog="Example: authz propose --since 24h --config config.yaml")(
        propose
    )


def propose(
    *,
    since: Since = "",
    until: Until = "",
    log: Logs = None,
    bundle: BundleOption = None,
    config: ConfigFile = None,
    sets: Sets = None,
    address: Address = ADMIN,
    var: Vars = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            callback=output_path,
            help="Folder to write the files to. Default: print them.",
            file_okay=False,
        ),
    ] = None,
    templates: Annotated[
        bool,
        typer.Option(
            "--templates",
            help="Draft templates for kinds of task instead: operations that were called together in many sessions.",
        ),
    ] = False,
    min_sessions: Annotated[
        int,
        typer.Option(
            help="With --templates: sessions without a denial that an operation needs; three times as many if it deletes, grants or executes.",
            min=1,
            max=10_000,
        ),
    ] = 3,
    min_subjects: Annotated[
        int,
        typer.Option(
            help="With --templates: distinct subjects of these sessions.", min=1, max=10_000
        ),
    ] = 2,
    max_templates: Annotated[
        int, typer.Option(help="With --templates: templates at most.", min=1, max=100)
    ] = 12,
    pause: Annotated[
        int,
        typer.Option(
            help="With --templates: minutes without a call that end the session of an agent without tasks.",
            min=1,
            max=1_440,
        ),
    ] = 30,
    include_unpermitted: Annotated[
        bool,
        typer.Option(
            "--include-unpermitted",
            help="With --templates: also learn from calls that `mode: observe` let through although no policy permits them, or that came without a task.",
        ),
    ] = False,
    style: Annotated[
        OutputFormat,
        typer.Option(
            "--format", help="text; json, with --templates: print them with all evidence."
        ),
    ] = OutputFormat.TEXT,
) -> None:
    """Draft entries for the bundle from the audit log: unknown operations and routes, agents and subjects without a role, missing permits; or templates. The draft permits nothing until you edit it."""
    terminal = Terminal()
    as_json = style is OutputFormat.JSON
    if as_json and not templates:
        raise UsageError("--format json needs --templates")
    if as_json and output is not None:
        raise UsageError("give --format json or --output, not both")
    source = log_source(log, config, sets, address)
    folder = bundle or source.bundle
    given = read_bundle(terminal, folder, source, var) if folder is not None else None
    decisions = history(terminal, source, span(since, until, time.time()))
    if not templates:
        _propose_entries(terminal, decisions, given, output)
        return
    evidence = Evidence(min_sessions, min_subjects)
    work = ObservedWork(pause * 60, learns_unpermitted=include_unpermitted)
    for decision in decisions:
        work.add(decision)
    operations = Plan.compile(*given).describe().operations if given is not None else None
    effects = {one.id: one.effects for one in operations.values()} if operations else None
    kinds = task_kinds(work, effects, evidence, max_templates)
    if as_json:
        print(json.dumps(kinds_document(kinds, evidence), indent=2, ensure_ascii=False))
        return
    if not kinds.observed:
        terminal.note(f"nothing to propose: {work.decisions} calls")
        return
    proposed = draft_kinds(kinds, evidence, given=given is not None)
    _finish(terminal, proposed, "proposed-templates", given, output)


def _propose_entries(
    terminal: Terminal,
    decisions: Iterator[RecordedDecision],
    given: tuple[BundleFiles, dict[str, str]] | None,
    output: Path | None,
) -> None:
    """Propose entries for requests that the bundle does not cover."""
    observed = Observations()
    for decision in decisions:
        observed.add(decision)
    names = BundleNames.read(Plan.compile(*given).describe()) if given is not None else None
    proposed = draft(observed, names)
    if not proposed.entries:
        terminal.note(f"nothing to propose: {observed.all.times} decisions")
        return
    _finish(terminal, proposed, "proposed", given, output)


def _finish(
    terminal: Terminal,
    proposed: Draft,
    name: str,
    given: tuple[BundleFiles, dict[str, str]] | None,
    output: Path | None,
) -> None:
    """Say where the bundle would be refused with a draft in it, and write the draft."""
    if given is not None:
        _check(terminal, *given, _files(proposed, name))
    _write(terminal, proposed, name, output)


def _check(
    terminal: Terminal, files: BundleFiles, values: dict[str, str], proposed: dict[str, bytes]
) -> None:
    """Tell where the bundle would be refused with the draft in it."""
    content = {**files.files, **proposed}
    try:
        Plan.compile(BundleFiles(files.root, content), values)
    except BundleError as error:
        terminal.note("with the change as it is, the bundle is refused:")
        terminal.diagnostics(error.diagnostics[:_SHOWN])


def _files(made: Draft, name: str) -> dict[str, bytes]:
    """Return the files of a draft. A draft of comments only becomes a Markdown page: a bundle refuses a YAML file without content."""
    if made.bare:
        files = {f"{name}.md": f"```yaml\n{made.facts}```\n".encode()}
    else:
        files = {f"{name}.yaml": made.facts.encode()}
    if made.policies:
        files[f"policies/{name}.cedar"] = made.policies.encode()
    return files


def _write(terminal: Terminal, made: Draft, file: str, output: Path | None) -> None:
    if output is None:
        print(made.facts, end="")
        if made.policies:
            print(f"\n# policies/{file}.cedar\n#")
            print("".join(f"# {line}\n" for line in made.policies.splitlines()), end="")
        return
    for name, content in _files(made, file).items():
        target = output / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("xb") as stream:
                stream.write(content)
        except FileExistsError as error:
            raise UsageError(
                f"{target} is there already; remove it, or name another folder"
            ) from error
        terminal.line(str(target))
    count = "1 entry" if made.entries == 1 else f"{made.entries} entries"
    terminal.note(f"{count} to review; then: authz check {output}")
