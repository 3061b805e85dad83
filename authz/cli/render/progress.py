"""A progress bar on standard error, only on a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from authz.cli.render.terminal import Terminal

__all__ = ["reading_progress", "size_of"]


def size_of(files: list[Path]) -> int | None:
    """Return the bytes of files. None: a file is packed or missing, so its bytes are not known."""
    total = 0
    for file in files:
        if file.suffix == ".gz" or not file.is_file():
            return None
        total += file.stat().st_size
    return total


@contextmanager
def reading_progress(
    terminal: Terminal, total: int | None, what: str
) -> Iterator[Callable[[int], None]]:
    """Show how much of a log was read.

    Args:
        terminal: Terminal of the command. If its standard error is not a terminal, nothing is shown.
        total: Bytes of the log. None: not known.
        what: Text before the bar.

    Yields:
        Function that takes the bytes that were read since the start.
    """
    if not terminal.err.is_terminal:
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=terminal.err, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)
