"""`authz audit fetch`: get what a PostgreSQL sink has, as files that `authz audit verify --delivered` reads."""

from pathlib import Path
from typing import Annotated, Final

import typer

from authz.audit.delivery import DeliveryError
from authz.cli.options import Format, OutputFormat
from authz.cli.render import CommandExit, Terminal
from authz.config import TABLE_NAME
from authz.errors import UnavailableError, UsageError
from authz.tools.catalog.tool import plain

__all__ = ["fetch"]

_CHANGED: Final = 2
_SECONDS: Final = 3600.0
_SHOWN: Final = 20


def fetch(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of the files. Batches that it has already are not fetched again.",
            file_okay=False,
        ),
    ],
    *,
    node: Annotated[str, typer.Option(help="Name of the node.")],
    dsn_file: Annotated[
        Path,
        typer.Option(
            help="File that holds the connection string of a role that may read the table. Only its owner may read it, or root's group.",
            dir_okay=False,
        ),
    ],
    table: Annotated[str, typer.Option(help="Schema and name of the table.")] = (
        "authz_audit.batches"
    ),
    timeout: Annotated[
        float, typer.Option(help="Longest time of the fetch, in seconds.")
    ] = _SECONDS,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Fetch the batches that a sink of kind `postgresql` has of a node, as files to verify.

    Exit code 2: rows were changed or added; their files are not written.
    """
    if not TABLE_NAME.fullmatch(table):
        raise UsageError(f"--table {plain(table)}: not of the form schema.table")
    try:
        from authz.audit.delivery.postgresql import (  # noqa: PLC0415 - an extra
            PostgresqlPlace,
            fetch_batches,
        )

        fetched = fetch_batches(PostgresqlPlace(str(dsn_file), table, timeout), node, folder)
    except ImportError as error:
        raise UnavailableError(
            'a package for PostgreSQL is missing: pip install "authz-runtime[postgresql]"'
        ) from error
    except DeliveryError as error:
        raise UnavailableError(f"the batches were not fetched: {error}") from error
    except OSError as error:
        raise UnavailableError(f"{folder} cannot be written: {error.strerror}") from error
    terminal = Terminal()
    if style is OutputFormat.JSON:
        terminal.json(
            {
                "written": fetched.written,
                "kept": fetched.kept,
                "changed": fetched.changed,
                "unknown": fetched.unknown,
            }
        )
    else:
        terminal.line(f"{fetched.written} batches fetched, {fetched.kept} were in {folder} already")
        for name in fetched.changed[:_SHOWN]:
            terminal.line(
                f"CHANGED: the row {plain(name)} has other content than the node delivered"
            )
        for name in fetched.unknown[:_SHOWN]:
            terminal.line(f"ADDED: the row {plain(name)} was not delivered by a node")
    if fetched.changed or fetched.unknown:
        raise CommandExit(_CHANGED)
