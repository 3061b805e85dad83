"""Watches the bundle folder and the trust files, and reloads once they no longer change."""

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
        # The folder of a file is watched, since most tools replace files by renaming.
        folders = {file.parent for file in self._files if file.parent.is_dir()}
        folders.add(self._bundle.parent if self._bundle.is_symlink() else self._bundle)
        while not self._stop.is_set():
            # A file may have changed between its reading and the start of the watch, so the first round always reloads.
            is_first = True
            try:
                for changes in watch(
                    *folders,
                    watch_filter=None,
                    debounce=_QUIET_MS * 4,
                    step=_QUIET_MS,
                    stop_event=self._stop,
                    rust_timeout=_LOOK_MS,
                    yield_on_timeout=True,
                    raise_interrupt=False,
                ):
                    if is_first or self._matters(changes):
                        self._changed()
                    is_first = False
            except Exception as error:  # noqa: BLE001 - watching is a convenience; a signal reloads as well
                self._log.warning("watching failed; trying again", error=str(error))
                self._stop.wait(5)

    def _matters(self, changes: Iterable[tuple[Change, str]]) -> bool:
        for _, name in changes:
            path = Path(name)
            if path.is_relative_to(self._bundle) or path in self._files:
                return True
            # A mounted ConfigMap or Secret changes by its `..data` link.
            if path.name.startswith("..") or path == self._bundle:
                return True
        return False
