"""`authz audit receipt`: make the receipt of a decision, or verify one."""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from authz.audit import HeadError, Jwks, read_decision
from authz.audit.receipt import MAX_RECEIPT, Receipt, ReceiptError
from authz.audit.receipt_verification import check_receipt
from authz.audit.receipt_writing import LogLine, find_decision, make_receipt
from authz.cli.audit_source import (
    HeadOption,
    HeadsOption,
    LogFiles,
    ended_heads,
    heads_file,
    log_files,
    other_heads,
    private_file,
)
from authz.cli.decision_log import LogSource, log_source, read_bundle
from authz.cli.options import (
    ADMIN,
    Address,
    ConfigFile,
    Format,
    OutputFormat,
    Sets,
    Vars,
    output_path,
)
from authz.cli.render import CommandExit, Terminal
from authz.cli.render.receipt import print_receipt, receipt_document
from authz.engine import Plan
from authz.errors import UsageError
from authz.tools.catalog.tool import plain

__all__ = ["receipt"]

_REFUSED: Final = 2
_LONGEST: Final = 300


def receipt(
    *,
    decision_id: Annotated[
        str | None, typer.Argument(help="Id of the decision. Required to make a receipt.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            "-b",
            help="Folder of the bundle that judged: the receipt gets the texts of the policies that the record names. Default: no texts.",
            file_okay=False,
        ),
    ] = None,
    var: Vars = None,
    log: LogFiles = None,
    heads: HeadsOption = None,
    head: HeadOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            callback=output_path,
            help="File of the receipt. Default: standard output.",
            dir_okay=False,
        ),
    ] = None,
    verify_file: Annotated[
        Path | None,
        typer.Option("--verify", metavar="FILE", help="Receipt to verify.", dir_okay=False),
    ] = None,
    head_key: Annotated[
        list[Path] | None,
        typer.Option(
            "--head-key",
            metavar="FILE",
            help="Trusted public keys of heads, with --verify: JWK, JWK Set or PEM. Repeatable.",
            dir_okay=False,
        ),
    ] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    address: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Make the receipt of a decision, or verify one with trusted keys of heads and nothing else.

    Exit code 2: the receipt that is verified is refused.
    """
    if (decision_id is None) == (verify_file is None):
        raise UsageError("give the id of a decision, or --verify FILE")
    if verify_file is not None:
        _verify_receipt(verify_file, head_key or [], style)
        return
    if head_key:
        raise UsageError("--head-key is for --verify")
    source = log_source([str(file) for file in log or ()], config, sets, address)
    files = log_files(source)
    line = find_decision(files, decision_id or "")
    texts = {} if bundle is None else _policy_texts(bundle, source, var, line)
    stored = [*ended_heads(heads_file(heads, source)), *other_heads(head, source)]
    _write(make_receipt(files, stored, line, texts).content(), out)


def _verify_receipt(file: Path, key_files: list[Path], style: OutputFormat) -> None:
    terminal = Terminal()
    if not key_files:
        raise UsageError("--verify needs --head-key FILE: a key that you trust")
    try:
        keys = Jwks.trusted(_read(key) for key in key_files)
    except HeadError as error:
        raise UsageError(f"--head-key: {error}") from error
    try:
        verified = check_receipt(Receipt.read(_read(file)), keys)
    except ReceiptError as error:
        if style is OutputFormat.JSON:
            terminal.json({"verified": False, "code": error.code, "message": str(error)})
        else:
            terminal.line(f"refused: {error.code}: {plain(str(error), _LONGEST)}")
        raise CommandExit(_REFUSED) from error
    if style is OutputFormat.JSON:
        terminal.json(receipt_document(verified))
    else:
        print_receipt(terminal, verified)


def _policy_texts(
    folder: Path, source: LogSource, var: list[str] | None, line: LogLine
) -> dict[str, str]:
    """Return the text of each policy of the bundle that judged a decision."""
    judged = read_decision(line.fields).digest
    files, values = read_bundle(Terminal(), folder, source, var)
    plan = Plan.compile(files, values)
    if plan.digest != judged:
        raise UsageError(
            f"--bundle {folder} has the digest {plan.digest}, and the bundle that judged {judged or 'none'}"
        )
    return {id_: policy.text for id_, policy in plan.describe().policies.items()}


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_RECEIPT + 1)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error


def _write(content: bytes, out: Path | None) -> None:
    if out is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        with private_file(out) as file:
            file.write(content.decode())
    except OSError as error:
        raise UsageError(f"{out}: {error.strerror}") from error
