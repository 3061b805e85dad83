"""Progress bars on standard error, only on a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from authz.cli.render.terminal import Terminal

__all__ = ["counting_progress", "reading_progress", "size_of"]


def size_of(files: list[Path]) -> int | None:
    """Return the bytes of files; None if a file is packed or missing."""
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
        total: Bytes of the log; None if the number is unknown.
        what: Text before the bar.

    Yields:
        Function that takes the bytes that were read since the start.
    """
    # A log has many records: without a terminal none of them pays for a bar.
    if not terminal.err.is_terminal:
        yield lambda _: None
        return
    with _progress(terminal, DownloadColumn(), TimeRemainingColumn()) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def counting_progress(terminal: Terminal, total: int, what: str) -> Iterator[Callable[[], None]]:
    """Show how many steps are done.

    Args:
        terminal: Terminal of the command. If its standard error is not a terminal, nothing is shown.
        total: Number of steps.
        what: Text before the bar.

    Yields:
        Function to call after each step.
    """
    with _progress(terminal, MofNCompleteColumn()) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def _progress(terminal: Terminal, *columns: ProgressColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        console=terminal.err,
        transient=True,
        disable=not terminal.err.is_terminal,
    )
