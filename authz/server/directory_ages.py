"""Ages of the directories of a bundle: when each last changed."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from authz.model import Directory
from authz.server.snapshot import FetchedDirectory

__all__ = ["DirectoryAges"]


@dataclass(frozen=True, slots=True)
class _FileAge:
    modified: float
    """Modification time that the file has."""
    counted: float
    """Modification time that counts."""


class DirectoryAges:
    """Reads when the file of each directory was modified.

    A modification time in the future counts as the time at which it was first seen. It is remembered, so that a reload does
    not make the file younger.

    Args:
        folder: Folder of the bundle.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, _FileAge] = {}

    def read(
        self,
        directories: Iterable[Directory],
        fetched: Mapping[str, FetchedDirectory],
        now: float,
    ) -> dict[str, float]:
        """Return the Unix time at which each directory changed or was fetched.

        A directory whose file is missing, or that was not fetched, is left out.
        """
        changed = {name: directory.at for name, directory in fetched.items()}
        files: dict[str, _FileAge] = {}
        for directory in directories:
            if directory.url:
                continue
            with suppress(OSError, ValueError):
                modified = (self._folder / directory.file).stat().st_mtime
                before = self._files.get(directory.file)
                is_same = before is not None and before.modified == modified
                counted = before.counted if before and is_same else min(modified, now)
                changed[directory.name] = counted
                files[directory.file] = _FileAge(modified, counted)
        self._files = files
        return changed
