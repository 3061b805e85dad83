"""`authz audit report`: a folder for an auditor about a period."""

from pathlib import Path
from typing import Annotated

import typer

from authz import __version__
from authz.audit import HeadKeys, verify
from authz.bundle import read_folder
from authz.cli.audit_source import (
    HeadOption,
    HeadsOption,
    KeysOption,
    LogFiles,
    NodeFiles,
    ended_heads,
    node_files,
    torn_files,
    trusted_keys,
)
from authz.cli.decision_log import log_source
from authz.cli.options import ADMIN, Address, ConfigFile, Sets, Vars, offline_variables, output_path
from authz.cli.render import Terminal
from authz.engine import Plan
from authz.errors import UsageError
from authz.tools.audit_report import (
    GivenBundle,
    NodeLog,
    ReportFolder,
    ReportInput,
    read_period,
    write_report,
)

__all__ = ["report"]

_MOST_SAMPLES = 10_000


def report(
    *,
    since: Annotated[
        str, typer.Option("--from", metavar="DATE", help="First day, in UTC; or a timestamp.")
    ],
    until: Annotated[
        str,
        typer.Option(
            "--to", metavar="DATE", help="Last day, in UTC; or the timestamp after the last."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            callback=output_path,
            help="Folder to write; a new or an empty one.",
            file_okay=False,
        ),
    ],
    bundle: Annotated[
        list[Path] | None,
        typer.Option(
            "--bundle",
            "-b",
            metavar="FOLDER",
            help="Folder of a bundle of the period, for owners and ends of its exceptions, and for the texts of policies in receipts. Repeatable.",
            file_okay=False,
        ),
    ] = None,
    sample: Annotated[
        int,
        typer.Option(metavar="N", help="Decisions of the sample.", min=0, max=_MOST_SAMPLES),
    ] = 25,
    log: LogFiles = None,
    heads: HeadsOption = None,
    head: HeadOption = None,
    keys: KeysOption = None,
    config: ConfigFile = None,
    sets: Sets = None,
    address: Address = ADMIN,
    var: Vars = None,
) -> None:
    """Write a folder for an auditor about a period: decisions, approvals, exceptions, administration, gaps, and a sample of records.

    `README.md` in it says how each number is made. Exit code 0 even if the log has gaps: the folder tells them, and `authz audit verify` judges.
    """
    terminal = Terminal()
    period = read_period(since, until)
    source = log_source([str(file) for file in log or ()], config, sets, address)
    nodes = node_files(source, heads, head)
    if not nodes[0].files:
        raise UsageError(f"{source.name} does not exist; give --log FILE")
    trusted = trusted_keys(keys)
    bundles = [_bundle(terminal, folder, var) for folder in bundle or ()]
    folder = _folder(out)
    given = ReportInput(
        logs=[_verified(one, trusted) for one in nodes],
        torn=torn_files(source),
        period=period,
        keys_given=keys is not None,
        bundles=bundles,
        sample_size=sample,
        version=__version__,
    )
    written = write_report(folder, given)
    terminal.line(
        f"{written.records} records from {period.since} to {period.until}, {written.sampled} sampled, {written.receipts} with receipts: {out / 'README.md'}"
    )
    if written.findings:
        terminal.note(f"{written.findings} findings of the verification: {out / 'gaps.md'}")
    if written.damaged:
        terminal.note(f"{written.damaged} lines are not records: {out / 'damaged_lines.csv'}")


def _verified(log: NodeFiles, keys: HeadKeys | None) -> NodeLog:
    result = verify(log.files, log.ended, log.heads, keys)
    return NodeLog(log.node, log.files, result, [*ended_heads(log.ended), *log.heads])


def _bundle(terminal: Terminal, folder: Path, var: list[str] | None) -> GivenBundle:
    files = read_folder(folder)
    plan = Plan.compile(files, offline_variables(files, var, terminal.note))
    texts = {id_: policy.text for id_, policy in plan.describe().policies.items()}
    return GivenBundle(folder, plan.digest, plan.revision, plan.exceptions, texts)


def _folder(path: Path) -> ReportFolder:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise UsageError(f"--output {path}: the folder is not empty")
    return ReportFolder(path)
