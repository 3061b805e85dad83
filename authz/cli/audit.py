"""`authz audit …`: prove that an audit log is what nodes wrote."""

from pathlib import Path
from typing import Annotated

import typer

from authz.audit import HeadError, HeadKeys, Jwks, Verification, rotated, verify
from authz.cli.decision_log import LogSource, log_source
from authz.cli.options import ADMIN, Address, ConfigFile, Output, Sets, read_text
from authz.cli.render import CommandExit, Terminal
from authz.engine import head_jwk
from authz.errors import UsageError

__all__ = ["register"]

_CHANGED = 2
_SHOWN = 100


def register(app: typer.Typer) -> None:
    """Add the group of verbs to the command."""
    group = typer.Typer(
        name="audit", help="Prove that an audit log is whole.", no_args_is_help=True
    )
    group.command("verify", epilog="Example: authz audit verify --keys audit-keys.json")(verify_log)
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
    log: Annotated[
        list[Path] | None,
        typer.Option(
            "--log",
            metavar="FILE",
            help="File of the log, in any order. Default: the audit log of the node, with rotated files. Repeatable.",
            dir_okay=False,
        ),
    ] = None,
    heads: Annotated[
        Path | None,
        typer.Option(
            help="File with the heads of ended segments. Default: the file beside the log that ends in `.heads`.",
            dir_okay=False,
        ),
    ] = None,
    head: Annotated[
        list[Path] | None,
        typer.Option(
            "--head",
            metavar="FILE",
            help="A head that was kept elsewhere: the log must hold its lines. Default: the newest head of the node, beside the log. Repeatable.",
            dir_okay=False,
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            help="Trusted keys of heads: a JSON Web Key Set. Without it signatures are not checked.",
            dir_okay=False,
        ),
    ] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    address: Address = ADMIN,
    output: Output = "text",
) -> None:
    """Verify an audit log: every line in its place and nothing else, as far as heads prove it.

    Exit code 2: a line or a head was changed, dropped, moved or added.
    """
    if output not in {"text", "json"}:
        raise UsageError(f"--output {output[:40]!r}: text or json")
    terminal = Terminal()
    source = log_source([str(file) for file in log or ()], config, sets, address)
    files = list(source.logs) if source.audit is None else _whole(source.audit)
    result = verify(files, heads or _beside(source, ".heads"), _heads(head, source), _trusted(keys))
    if output == "json":
        terminal.json(_document(result))
    else:
        _print(terminal, result, trusted=keys is not None)
    if result.findings:
        raise CommandExit(_CHANGED)


def _whole(audit: Path) -> list[Path]:
    """List all files of a log that exist."""
    return [file for file in rotated(audit, "") if file.exists()]


def _beside(source: LogSource, suffix: str) -> Path | None:
    """Return a file beside the audit file, or beside the first of several."""
    file = source.audit or (source.logs[0] if source.logs else None)
    return file.with_name(file.name + suffix) if file is not None else None


def _heads(given: list[Path] | None, source: LogSource) -> list[str]:
    if given is not None:
        return [read_text(file) for file in given]
    own = _beside(source, ".head")
    if own is None:
        return []
    # Heads to which the log did not fit at a start of the node.
    kept = sorted(own.parent.glob(f"{own.name}.[0-9]*"))
    return [read_text(file) for file in (own, *kept) if file.exists()]


def _trusted(keys: Path | None) -> HeadKeys | None:
    if keys is None:
        return None
    try:
        return Jwks.parse(read_text(keys))
    except HeadError as error:
        raise UsageError(f"--keys {keys}: {error}") from error


def _document(result: Verification) -> dict[str, object]:
    return {
        "lines": result.lines,
        "proved": result.proved,
        "unproved": result.unproved,
        "before_chain": result.before,
        "segments": result.segments,
        "dropped_segments": result.dropped,
        "heads": result.heads,
        "signatures": result.signatures,
        "keys": list(result.keys),
        "findings": [
            {"file": one.file, "line": one.line, "message": one.message} for one in result.findings
        ],
        "notes": result.notes,
    }


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
    if result.dropped:
        terminal.line(f"{result.dropped} older segments are not here; their heads are")
    if result.before:
        terminal.line(
            f"{result.before} lines were written before the chain was on; nothing proves them"
        )
    if result.unproved:
        terminal.line(f"tail not proved: {result.unproved} lines stand after the newest head")
    if not trusted:
        terminal.line("signatures not checked: give --keys")
    elif result.signatures:
        terminal.line(f"{result.signatures} heads signed by {', '.join(result.keys)}")
