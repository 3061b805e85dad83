"""Removal of ended segments that every sink has. The engine removes segments by itself only where there are no sinks."""

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from authz.audit.history import is_rotated_name

__all__ = ["SegmentRetention"]

_ENDED: Final = re.compile(r"\.\d{8}(?:-\d{1,3})?")


class SegmentRetention:
    """Removes ended segments of a chained log.

    Args:
        log: The audit file.
        keep: Number of ended segments that are kept in any case.
        keep_undelivered: Number of ended segments that are kept although a sink lacks them. None: all.
        delivered: Returns the names of files of which every sink has every record; None while that is not known.
    """

    def __init__(
        self,
        log: Path,
        keep: int,
        keep_undelivered: int | None,
        delivered: Callable[[], Collection[str] | None],
    ) -> None:
        self._log = log
        self._keep = keep
        self._keep_undelivered = keep_undelivered
        self._delivered = delivered

    def remove_old(self) -> list[Path]:
        """Remove segments, the oldest first, up to the first one that has to stay. Return those that were removed undelivered.

        Raises:
            OSError: The folder cannot be read, or a file not removed.
        """
        delivered = self._delivered()
        if delivered is None:
            return []
        ended = self._ended()
        lost = []
        for left, file in zip(range(len(ended), self._keep, -1), ended, strict=False):
            is_delivered = file.name in delivered
            if not is_delivered:
                if self._keep_undelivered is None or left <= self._keep_undelivered:
                    break
                lost.append(file)
            file.unlink(missing_ok=True)
        return lost

    def _ended(self) -> list[Path]:
        """List the files that the node moved at the end of their segments, the oldest first."""
        name = self._log.name
        return sorted(
            file
            for file in self._log.parent.iterdir()
            if is_rotated_name(file.name, name)
            and _ENDED.fullmatch(file.name.removeprefix(name))
            and file.is_file()
        )
