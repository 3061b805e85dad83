"""Ages of the recipient lists of a bundle: when each last changed."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from authz.model import RecipientList
from authz.server.snapshot import FetchedRecipientList

__all__ = ["RecipientListAges"]


@dataclass(frozen=True, slots=True)
class _FileAge:
    modified: float
    """Modification time that the file has."""
    counted: float
    """Modification time that counts."""


class RecipientListAges:
    """Reads when the file of each recipient list was modified.

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
        recipient_lists: Iterable[RecipientList],
        fetched: Mapping[str, FetchedRecipientList],
        now: float,
    ) -> dict[str, float]:
        """Return the Unix time at which each recipient list changed or was fetched.

        A recipient list whose file is missing, or that was not fetched, is left out.
        """
        changed = {name: recipient_list.at for name, recipient_list in fetched.items()}
        files: dict[str, _FileAge] = {}
        for recipient_list in recipient_lists:
            if recipient_list.url:
                continue
            with suppress(OSError, ValueError):
                modified = (self._folder / recipient_list.file).stat().st_mtime
                before = self._files.get(recipient_list.file)
                is_same = before is not None and before.modified == modified
                counted = before.counted if before and is_same else min(modified, now)
                changed[recipient_list.name] = counted
                files[recipient_list.file] = _FileAge(modified, counted)
        self._files = files
        return changed
