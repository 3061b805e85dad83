"""`authz propose`: draft a change of the bundle from recorded decisions."""

import time
from pathlib import Path
from typing import Annotated, Final

import typer

from authz.audit import span
from authz.cli.decision_log import (
    BundleOption,
    Logs,
    Since,
    Until,
    history,
    log_source,
    read_bundle,
)
from authz.cli.options import ADMIN, Address, ConfigFile, Sets, Vars
from authz.cli.render import Terminal
from authz.engine import Plan
from authz.errors import BundleError, UsageError
from authz.model import BundleFiles
from authz.tools.propose import BundleNames, Draft, Observations, draft

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
            help="Folder to write the files to. Default: print them.",
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Draft entries for the bundle from the audit log: unknown operations and routes, agents and subjects without a role, missing permits. The draft permits nothing until you edit it."""
    terminal = Terminal()
    source = log_source(log, config, sets, address)
    observed = Observations()
    for decision in history(terminal, source, span(since, until, time.time())):
        observed.add(decision)
    folder = bundle or source.bundle
    given = read_bundle(terminal, folder, source, var) if folder is not None else None
    names = BundleNames.read(Plan.compile(*given).describe()) if given is not None else None
    proposed = draft(observed, names)
    if not proposed.entries:
        terminal.note(f"nothing to propose: {observed.all.times} decisions")
        return
    if given is not None:
        _check(terminal, *given, proposed)
    _write(terminal, proposed, output)


def _check(terminal: Terminal, files: BundleFiles, values: dict[str, str], proposed: Draft) -> None:
    """Tell where the bundle would be refused with the draft in it."""
    content = {**files.files, **_files(proposed)}
    try:
        Plan.compile(BundleFiles(files.root, content), values)
    except BundleError as error:
        terminal.note("with the change as it is, the bundle is refused:")
        terminal.diagnostics(error.diagnostics[:_SHOWN])


def _files(made: Draft) -> dict[str, bytes]:
    """Return the files of a draft. A draft of comments only becomes a Markdown page: a bundle refuses a YAML file without content."""
    if made.bare:
        files = {"proposed.md": f"```yaml\n{made.facts}```\n".encode()}
    else:
        files = {"proposed.yaml": made.facts.encode()}
    if made.policies:
        files["policies/proposed.cedar"] = made.policies.encode()
    return files


def _write(terminal: Terminal, made: Draft, output: Path | None) -> None:
    if output is None:
        print(made.facts, end="")
        if made.policies:
            print("\n# policies/proposed.cedar\n#")
            print("".join(f"# {line}\n" for line in made.policies.splitlines()), end="")
        return
    for name, content in _files(made).items():
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
    terminal.note(f"{made.entries} entries to review; then: authz check {output}")
