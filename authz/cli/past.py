"""Verbs about past decisions, as the audit tells them: propose."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from authz.audit import Lines, Past, Span, decisions, rotated, span
from authz.cli.options import ConfigFile, Sets, Vars, configuration, offline_variables, variables
from authz.cli.show import Show
from authz.config import Config
from authz.context import read_folder
from authz.engine import Plan
from authz.errors import BundleError, UsageError
from authz.model import BundleFiles, Diagnostic
from authz.tools.propose import Draft, Known, Seen, draft

__all__ = ["register"]

_SHOWN_DAMAGE: Final = 20

Logs = Annotated[
    list[str] | None,
    typer.Option(
        "--log",
        metavar="FILE",
        help="A file of the audit, oldest first, `-`: standard input; else the node's, and what was rotated away from it. Repeatable.",
    ),
]
Since = Annotated[
    str, typer.Option("--since", help="15m, 24h, 7d, a date or a moment; else from the beginning.")
]
Until = Annotated[str, typer.Option("--until", help="The same; else to the end.")]
BundleOption = Annotated[
    Path | None,
    typer.Option("--bundle", "-b", help="Folder of the bundle; else the node's.", file_okay=False),
]


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
    node = _node(config, sets)
    history = _History(show, log, node, span(since, until, time.time()))
    seen = Seen()
    for decision in history:
        seen.see(decision)
    history.tell()
    files, named = _bundle(show, bundle, node, var)
    known = Known.read(files, named) if files is not None else None
    made = draft(seen, known)
    if not made.entries:
        show.note(f"nothing to propose: {seen.all.times} decisions")
        return
    if files is not None:
        _compiles(show, files, named, made)
    _write(show, made, output)


@dataclass(slots=True)
class _History:
    """The decisions that are asked about."""

    show: Show
    logs: list[str] | None
    node: Config | None
    within: Span
    damaged: int = 0

    def __iter__(self) -> Iterator[Past]:
        files: list[Path] = []
        stdin: Lines | None = None
        if self.logs:
            if len(set(self.logs)) != len(self.logs):
                raise UsageError("--log names a file twice")
            files = [Path(name) for name in self.logs if name != "-"]
            stdin = sys.stdin.buffer if "-" in self.logs else None
        elif self.node is None:
            raise UsageError("say where the audit is: --log FILE, --log - or --config FILE")
        elif self.node.audit.path is None:
            raise UsageError("the configuration has no `audit.path`; say --log FILE")
        else:
            files = rotated(Path(self.node.audit.path), self.within.since)
        yield from decisions(files, stdin, self.within, self._damage)

    def _damage(self, diagnostic: Diagnostic) -> None:
        self.damaged += 1
        if self.damaged <= _SHOWN_DAMAGE:
            self.show.diagnostics([diagnostic])

    def tell(self) -> None:
        """Say how many lines were no records, where not all of them were shown."""
        if self.damaged > _SHOWN_DAMAGE:
            self.show.note(f"{self.damaged} lines are no records")


def _node(config: Path | None, sets: list[str] | None) -> Config | None:
    return configuration(config, sets) if config is not None or sets else None


def _bundle(
    show: Show, folder: Path | None, node: Config | None, var: list[str] | None
) -> tuple[BundleFiles | None, dict[str, str]]:
    """Read the bundle that is asked about, and what its variables are."""
    if folder is None and node is not None:
        folder = Path(node.bundle.path)
    if folder is None:
        return None, {}
    files = read_folder(folder)
    named = {**(dict(node.vars) if node is not None else {}), **variables(var)}
    said = [f"{name}={value}" for name, value in named.items()]
    return files, offline_variables(files, said, show.note)


def _compiles(show: Show, files: BundleFiles, named: dict[str, str], made: Draft) -> None:
    """Say where the bundle would be refused with the change as it is."""
    content = {**files.files, **_files(made)}
    try:
        Plan.compile(BundleFiles(files.root, content), named)
    except BundleError as error:
        show.note("with the change as it is, the bundle is refused:")
        show.diagnostics(error.diagnostics[:_SHOWN_DAMAGE])


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
