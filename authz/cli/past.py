"""Verbs about past decisions, as the audit tells them: propose."""

import time
from pathlib import Path
from typing import Annotated, Final

import typer

from authz.audit import span
from authz.cli.history import (
    ADMIN,
    Address,
    BundleOption,
    Logs,
    Since,
    Until,
    bundle_of,
    history,
    source_of,
)
from authz.cli.options import ConfigFile, Sets, Vars
from authz.cli.show import Show
from authz.engine import Plan
from authz.errors import BundleError, UsageError
from authz.model import BundleFiles
from authz.tools.propose import Draft, Known, Seen, draft

__all__ = ["register"]

_SHOWN: Final = 20


def register(app: typer.Typer) -> None:
    """Add the verbs.

    Args:
        app: The command.
    """
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
            "--output", "-o", help="Folder for the files; else they are printed.", file_okay=False
        ),
    ] = None,
) -> None:
    """Propose a change of the bundle from what the audit saw: unknown operations and routes, agents, subjects, missing permits; nothing in it permits before it is reviewed."""
    show = Show()
    source = source_of(log, config, sets, address)
    seen = Seen()
    for decision in history(show, source, span(since, until, time.time())):
        seen.see(decision)
    files, named = bundle_of(show, bundle or source.bundle, source, var)
    known = Known.read(files, named) if files is not None else None
    made = draft(seen, known)
    if not made.entries:
        show.note(f"nothing to propose: {seen.all.times} decisions")
        return
    if files is not None:
        _compiles(show, files, named, made)
    _write(show, made, output)


def _compiles(show: Show, files: BundleFiles, named: dict[str, str], made: Draft) -> None:
    """Say where the bundle would be refused with the change as it is."""
    content = {**files.files, **_files(made)}
    try:
        Plan.compile(BundleFiles(files.root, content), named)
    except BundleError as error:
        show.note("with the change as it is, the bundle is refused:")
        show.diagnostics(error.diagnostics[:_SHOWN])


def _files(made: Draft) -> dict[str, bytes]:
    """What is written: where there is nothing but comments, as a page, since a bundle takes no file that says nothing."""
    if made.bare:
        files = {"proposed.md": f"```yaml\n{made.facts}```\n".encode()}
    else:
        files = {"proposed.yaml": made.facts.encode()}
    if made.policies:
        files["policies/proposed.cedar"] = made.policies.encode()
    return files


def _write(show: Show, made: Draft, output: Path | None) -> None:
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
        show.line(str(target))
    show.note(f"{made.entries} entries to review; then: authz check {output}")
