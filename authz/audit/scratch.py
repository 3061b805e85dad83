"""Database for the length of one evaluation of a log, so that memory does not grow with the log."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

__all__ = ["scratch_database"]


@contextmanager
def scratch_database() -> Iterator[sqlite3.Connection]:
    """Open an empty database in a temporary file that only this process's user can read.

    SQLite keeps the database in memory up to 64 MiB, writes the rest to the folder of `SQLITE_TMPDIR` or `TMPDIR`, and
    removes the file at the end, also after a crash.
    """
    with closing(sqlite3.connect("", isolation_level=None)) as database:
        for setting in (
            "journal_mode = OFF",
            "synchronous = OFF",
            "cache_size = -65536",
            "temp_store = FILE",
        ):
            database.execute(f"PRAGMA {setting}")
        database.execute("BEGIN")
        yield database
