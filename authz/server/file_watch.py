"""Watches the bundle folder and the trust files, and reloads once they no longer change."""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from watchfiles import Change, watch

from authz.telemetry import Logger

__all__ = ["FileWatch"]

_QUIET_MS: Final = 400
_LOOK_MS: Final = 1000


class FileWatch:
    """A thread that calls a function after each change that matters.

    Symbolic links may stand on the way to the bundle or a file, for example `current -> releases/42`. When a link leads elsewhere,
    the watch follows it. Such a change is seen within about a second.

    Args:
        watched: The bundle folder first, then trust files.
        changed: Called on the thread, also once at the start of the watch, for changes before it.
        log: Receives a line when watching fails.
    """

    def __init__(self, watched: Sequence[Path], changed: Callable[[], object], log: Logger) -> None:
        self._bundle = watched[0]
        self._files = frozenset(watched[1:])
        self._changed = changed
        self._log = log
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="authz-watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._watch()
            except Exception as error:  # noqa: BLE001 - watching is a convenience; a signal reloads as well
                self._log.warning("watching failed; trying again", error=str(error))
                self._stop.wait(5)

    def _watch(self) -> None:
        """Watch until a link on the way to the bundle or a file leads elsewhere."""
        bundle, files = self._real_paths()
        # The folder of a file is watched, since most tools replace files by renaming.
        folders = {folder for path in self._files for folder in (path.parent,) if folder.is_dir()}
        folders |= {file.parent for file in files if file.parent.is_dir()}
        # A file may have changed between its reading and the start of the watch, so the first round always reloads.
        is_first = True
        for changes in watch(
            bundle,
            *folders,
            watch_filter=None,
            debounce=_QUIET_MS * 4,
            step=_QUIET_MS,
            stop_event=self._stop,
            rust_timeout=_LOOK_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
        ):
            if is_first or self._matters(changes, bundle, files):
                self._changed()
            is_first = False
            # Folders above are not watched: there may be much below them. The first round of the next watch reloads.
            if self._real_paths() != (bundle, files):
                return

    def _real_paths(self) -> tuple[Path, frozenset[Path]]:
        """Return bundle and files without links."""
        real = {path: Path(os.path.realpath(path)) for path in (self._bundle, *self._files)}
        return real[self._bundle], frozenset(real[file] for file in self._files)

    def _matters(
        self, changes: Iterable[tuple[Change, str]], bundle: Path, files: frozenset[Path]
    ) -> bool:
        for _, name in changes:
            path = Path(name)
            if path.is_relative_to(bundle) or path in self._files or path in files:
                return True
            # A mounted ConfigMap or Secret changes by its `..data` link.
            if path.name.startswith(".."):
                return True
        return False
