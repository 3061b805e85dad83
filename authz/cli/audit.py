"""`authz audit …`: prove that an audit log is unchanged, show its records and their delivery, and erase texts."""

from pathlib import Path
from typing import Annotated

import typer

from authz.audit import Verification, verify, verify_delivered, witnessed_heads
from authz.cli.audit_erase import erase
from authz.cli.audit_fetch import fetch
from authz.cli.audit_receipt import receipt
from authz.cli.audit_report import report
from authz.cli.audit_show import show
from authz.cli.audit_source import (
    HeadOption,
    HeadsOption,
    KeysOption,
    LogFiles,
    heads_file,
    log_files,
    node_of,
    other_heads,
    trusted_keys,
)
from authz.cli.audit_status import log_status
from authz.cli.decision_log import log_source
from authz.cli.options import ADMIN, Address, ConfigFile, Format, OutputFormat, Sets, read_text
from authz.cli.render import CommandExit, Terminal
from authz.engine import head_jwk
from authz.errors import UsageError

__all__ = ["register"]

_CHANGED = 2
_SHOWN = 100


def register(app: typer.Typer) -> None:
    """Add the group of verbs to the command."""
    group = typer.Typer(
        name="audit",
        help="Prove that an audit log is whole, show what it says and how far it is delivered, and erase recorded texts.",
        no_args_is_help=True,
    )
    group.command("verify", epilog="Example: authz audit verify --keys audit-keys.json")(verify_log)
    group.command(
        "show", epilog="Example: authz audit show --session 0199c1f2-7c1e-7f3a-8b1d-52a0c1d2e3f4"
    )(show)
    group.command(
        "report",
        epilog="Example: authz audit report --from 2026-11-01 --to 2026-11-30 --output november",
    )(report)
    group.command(
        "receipt",
        epilog="Example: authz audit receipt 0199c1f2-7c1e-7f3a-8b1d-52a0c1d2e3f4 --output receipt.json",
    )(receipt)
    group.command(
        "erase",
        epilog="Example: authz audit erase --subject corp/alice --before 2026-09-01 --yes --reason 'request of the person'",
    )(erase)
    group.command(
        "fetch",
        epilog="Example: authz audit fetch n1 --node n1 --dsn-file /etc/authz/audit-reader-dsn",
    )(fetch)
    group.command("status", epilog="Example: authz audit status --format json")(log_status)
    group.command("keys", epilog="Example: authz audit keys audit-head.pem > audit-keys.json")(
        public_keys
    )
    app.add_typer(group)


def public_keys(
    *,
    key: Annotated[
        Path,
        typer.Argument(help="File of `audit.head_key`, or of its public half.", dir_okay=False),
    ],
) -> None:
    """Print the public half of a key that signs heads, as a JSON Web Key Set."""
    Terminal().json({"keys": [head_jwk(key)]})


def verify_log(
    *,
    log: LogFiles = None,
    heads: HeadsOption = None,
    head: HeadOption = None,
    keys: KeysOption = None,
    delivered: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the files that a sink got, instead of a log: `records/…` and `heads/…`, named as they were delivered. Lines may be "
            "repeated.",
            file_okay=False,
        ),
    ] = None,
    witness: Annotated[
        list[Path] | None,
        typer.Option(
            help="Log of another node of the same store, which holds heads of this one: the log must hold their lines. Repeatable.",
            metavar="FILE",
            dir_okay=False,
        ),
    ] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    address: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Verify an audit log: every line in its place and nothing else, as far as heads prove it.

    Exit code 2: a line or a head was changed, dropped, moved or added.
    """
    terminal = Terminal()
    if delivered is not None:
        if log or heads is not None:
            raise UsageError(
                "--delivered has records and heads of its own: leave --log and --heads out"
            )
        if not delivered.is_dir():
            raise UsageError(f"--delivered {delivered}: not a folder")
        others = [read_text(file) for file in head or ()]
        others += _witnessed(witness, sorted((delivered / "records").glob("**/*.*")))
        result = verify_delivered(delivered, others, trusted_keys(keys))
    else:
        source = log_source([str(file) for file in log or ()], config, sets, address)
        files = log_files(source)
        result = verify(
            files,
            heads_file(heads, source),
            [*other_heads(head, source), *_witnessed(witness, files)],
            trusted_keys(keys),
        )
    if style is OutputFormat.JSON:
        terminal.json(result.document())
    else:
        _print(terminal, result, trusted=keys is not None)
    if result.findings:
        raise CommandExit(_CHANGED)


def _witnessed(witness: list[Path] | None, files: list[Path]) -> list[str]:
    """Read the heads of the node that wrote the files from logs of other nodes."""
    if not witness:
        return []
    node = next((node for file in files if (node := node_of(file))), "")
    if not node:
        raise UsageError("--witness: no record of the log names its node")
    heads = list(witnessed_heads(witness, node))
    if not heads:
        raise UsageError(f"--witness: no head of node {node!r} in {', '.join(map(str, witness))}")
    return heads


def _print(terminal: Terminal, result: Verification, *, trusted: bool) -> None:
    for finding in result.findings[:_SHOWN]:
        terminal.line(f"changed: {finding}")
    if len(result.findings) > _SHOWN:
        terminal.line(f"changed: {len(result.findings) - _SHOWN} more findings")
    for note in result.notes[:_SHOWN]:
        terminal.line(f"note: {note}")
    terminal.line(
        f"{result.lines} lines in {result.segments} segments, {result.proved} of them proved by heads"
    )
    for count, words in (
        (result.repeated, "lines were delivered again"),
        (result.erased, "recorded texts were erased"),
        (result.dropped, "older segments are not here; their heads are"),
        (result.before, "lines were written before the chain was on; nothing proves them"),
    ):
        if count:
            terminal.line(f"{count} {words}")
    if result.unproved:
        terminal.line(f"tail not proved: {result.unproved} lines stand after the newest head")
    if not trusted:
        terminal.line("signatures not checked: give --keys")
    elif result.signatures:
        terminal.line(f"{result.signatures} heads signed by {', '.join(result.keys)}")
