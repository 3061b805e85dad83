"""`authz audit erase`: erase recorded texts from the ended segments of an audit log."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from authz.audit.delivery import LogTail
from authz.audit.erasure import Erasure, ErasureFile, TextSelection, erase_files, plan_erasure
from authz.audit.history import read_timestamp
from authz.cli.decision_log import log_source
from authz.cli.options import ADMIN, Address, ConfigFile, Format, OutputFormat, Sets
from authz.cli.render import CommandExit, Terminal
from authz.errors import UnavailableError, UsageError
from authz.tools.catalog.tool import plain
from authz.tools.remote import Remote
from authz_client.v1 import admin_pb2

__all__ = ["erase"]

_LEFT: Final = 2
_SHOWN: Final = 20
_LONGEST: Final = 200
_READ: Final = 1_048_576


def erase(
    *,
    decision: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Texts of this decision. Repeatable."),
    ] = None,
    session: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Texts of the calls of this session. Repeatable."),
    ] = None,
    agent: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID", help="Texts of calls with this agent in their chain. Repeatable."
        ),
    ] = None,
    subject: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ISSUER/SUB",
            help="Texts of calls on behalf of this subject, with the issuer's alias. Repeatable.",
        ),
    ] = None,
    before: Annotated[
        str,
        typer.Option(
            help="Texts of records before this time: 90d ago, a date or a timestamp. Default: of any time."
        ),
    ] = "",
    pointer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POINTER",
            help="Texts at this JSON pointer of their record, or below it, for example /input/arguments/body. Repeatable.",
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Erase. Default: show what would be erased.")
    ] = False,
    reason: Annotated[
        str, typer.Option(help="Reason, for the audit record. Required with --yes.")
    ] = "",
    by: Annotated[
        str,
        typer.Option(
            help="Name for the audit record. Default: the owner of the administration socket."
        ),
    ] = "",
    undelivered: Annotated[
        bool,
        typer.Option(
            "--undelivered",
            help="Also erase texts that a sink does not have yet: it never gets them.",
        ),
    ] = False,
    unrecorded: Annotated[
        bool,
        typer.Option(
            "--unrecorded",
            help="Erase without an audit record of the erasure, for example in the log of a node that no longer runs.",
        ),
    ] = False,
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Audit file of a node; the ended segments stand beside it. Default: that of the node.",
            dir_okay=False,
        ),
    ] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    address: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Erase recorded texts from ended segments of a chained audit log. The log still verifies.

    The conditions combine: a text is erased if its record meets each option, and one value of an option that is given several times.
    The node that runs records the erasure first. Exit code 2: texts that meet the conditions are left.
    """
    selection = TextSelection(
        decisions=frozenset(decision or ()),
        sessions=frozenset(session or ()),
        agents=frozenset(agent or ()),
        subjects=frozenset(subject or ()),
        before=read_timestamp("--before", before, time.time()),
        pointers=frozenset(pointer or ()),
    )
    _check(selection, yes=yes, reason=reason, unrecorded=unrecorded)
    file = log or log_source(None, config, sets, address).audit
    if file is None:
        raise UsageError("give --log FILE")
    erasure = plan_erasure(
        file, selection, lambda path: [] if undelivered else _lacking(file, path)
    )
    terminal = Terminal()
    done: list[ErasureFile] = []
    recorded = ""
    if yes and erasure.erasable:
        if not unrecorded:
            recorded = _record(erasure, reason, by, address)
        done = erase_files(erasure)
    if style is OutputFormat.JSON:
        terminal.json(_document(erasure, done, recorded))
    else:
        _print(terminal, erasure, done, recorded)
    if erasure.left:
        raise CommandExit(_LEFT)


def _check(selection: TextSelection, *, yes: bool, reason: str, unrecorded: bool) -> None:
    if selection == TextSelection():
        raise UsageError(
            "say which texts: --decision, --session, --agent, --subject, --before or --pointer"
        )
    if any(not one.startswith("/") for one in selection.pointers):
        raise UsageError(
            "--pointer: a JSON pointer begins with /, for example /input/arguments/body"
        )
    if yes and not unrecorded and not reason.strip():
        raise UsageError("--yes needs --reason TEXT, for the audit record")


def _lacking(log: Path, path: Path) -> Sequence[str]:
    """Return the sinks that lack records of a file."""
    start = f"{log.name}.sink-"
    names = sorted(
        one.name.removeprefix(start)
        for one in log.parent.glob(f"{start}*")
        if not one.name.endswith(".new")
    )
    return [f"sink {name}" for name in names if path.name not in _delivered(log, name)]


def _delivered(log: Path, sink: str) -> frozenset[str]:
    """Return the names of the files that a sink has to their ends."""
    try:
        tail = LogTail(log, sink, _READ, time.time, is_read_only=True)
        try:
            tail.look()
            return tail.status().delivered_files or frozenset()
        finally:
            tail.close()
    except (OSError, ValueError) as error:
        raise UnavailableError(f"cursor of sink {sink}: {error}") from error


def _record(erasure: Erasure, reason: str, by: str, address: str) -> str:
    """Have the node record the erasure; return the id of the record."""
    request = admin_pb2.RecordErasureRequest(
        selection=erasure.selection.words(),
        texts=sum(file.count for file in erasure.erasable),
        records=sum(file.records for file in erasure.erasable),
        reason=reason,
        by=by,
    )
    try:
        return Remote(address).record_erasure(request).decision_id
    except UnavailableError as error:
        raise UnavailableError(
            f"{error} Nothing was erased: the node records an erasure first. If no node runs, give --unrecorded."
        ) from error


def _document(erasure: Erasure, done: Sequence[ErasureFile], recorded: str) -> dict[str, object]:
    return {
        "erased": bool(done),
        "decision_id": recorded or None,
        "files": [_file(file) for file in done or erasure.erasable],
        "left": [{**_file(file), "reason": file.left} for file in erasure.left],
    }


def _file(file: ErasureFile) -> dict[str, object]:
    return {
        "file": str(file.path),
        "records": file.records,
        "texts": file.count,
        "pointers": dict(sorted(file.texts.items())),
    }


def _print(
    terminal: Terminal, erasure: Erasure, done: Sequence[ErasureFile], recorded: str
) -> None:
    files = done or erasure.erasable
    word = "erased" if done else "would erase"
    for file in files:
        terminal.line(f"{word}: {_count(file)} in {file.path}")
    pointers: Counter[str] = Counter()
    for file in files:
        pointers.update(file.texts)
    for pointer, count in pointers.most_common(_SHOWN):
        terminal.line(f"  {count} at {plain(pointer, _LONGEST)}")
    if len(pointers) > _SHOWN:
        terminal.line(f"  and at {len(pointers) - _SHOWN} more pointers")
    for file in erasure.left:
        terminal.line(f"left: {_count(file)} in {file.path}: {file.left}")
    if not erasure.files:
        terminal.line("no texts meet the conditions")
    elif recorded:
        terminal.line(f"recorded as decision {recorded}")
    elif not done and files:
        terminal.line("nothing was erased yet: give --yes")


def _count(file: ErasureFile) -> str:
    return f"{file.count} texts of {file.records} records"
