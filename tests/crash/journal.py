"""What a client was about to ask and what it was answered, on the disk before it goes on."""

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

__all__ = ["Entry", "Journal", "read"]


class Journal:
    """Appends entries to a file; each is synced before the call returns. For many threads."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()

    def write(self, call: str, what: str, **more: Any) -> None:
        """Appends one entry.

        Args:
            call: The call that it is about; a name of the client's own.
            what: `asked`, `answered` or `unknown`.
            more: What was asked or answered.
        """
        line = json.dumps({"call": call, "what": what, **more}).encode() + b"\n"
        with self._lock:
            os.write(self._file, line)
            os.fdatasync(self._file)


@dataclass(frozen=True)
class Entry:
    """One call: what was asked, and what came of it; both with their place in the journal."""

    call: str
    asked: dict[str, Any]
    asked_at: int
    answered: dict[str, Any] | None = None
    answered_at: int = 0


def read(path: Path) -> Iterator[Entry]:
    """Reads every call of a journal, in the order in which they were asked; one without an answer may have been done or not."""
    found: dict[str, Entry] = {}
    for place, line in enumerate(path.read_text().splitlines()):
        entry = json.loads(line)
        call, what = entry.pop("call"), entry.pop("what")
        if what == "asked":
            found[call] = Entry(call, entry, place)
        elif what == "answered":
            found[call] = replace(found[call], answered=entry, answered_at=place)
    yield from found.values()
