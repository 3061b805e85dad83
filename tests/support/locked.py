"""Locks the file of an embedded store, so that its transactions fail."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


@contextmanager
def locked_store(file: Path) -> Iterator[None]:
    """Hold the only writer's place of a `state.db`, as a backup or a person with a shell might.

    Args:
        file: The file.

    Yields:
        Nothing.
    """
    with closing(sqlite3.connect(file, isolation_level=None, timeout=20)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")
