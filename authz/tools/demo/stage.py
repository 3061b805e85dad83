"""Stage of a demo: its folder, and the processes that it starts and stops."""

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Stage"]


class Stage(ABC):
    """A context manager; what was started before a failure is stopped again.

    Args:
        say: Told what is being done.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._undo = ExitStack()
        self.folder = Path()

    def __enter__(self) -> Self:
        """Start everything."""
        with ExitStack() as undo:
            self._start(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything, and remove the folder."""
        self._undo.__exit__(kind, error, trace)

    @abstractmethod
    def _start(self, undo: ExitStack) -> None:
        """Start everything.

        Args:
            undo: Stack of callbacks that stop the parts.
        """

    def _make_folder(self, undo: ExitStack, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"authz-{name}-"))
        undo.callback(shutil.rmtree, self.folder, ignore_errors=True)
