"""A bundle that a command changes: its folder is read once, and each content is compiled once."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from authz.engine import Plan
from authz.errors import UsageError
from authz.model import BundleFiles
from authz.tools.catalog.files import write_files

__all__ = ["EditedBundle"]


class EditedBundle:
    """Files of a bundle as they were read, and as they are after each write.

    Args:
        folder: Folder of the bundle.
        files: Its files, as they were read.
        variables: Values of `${…}` in the bundle.
    """

    def __init__(self, folder: Path, files: BundleFiles, variables: Mapping[str, str]) -> None:
        self.folder = folder
        self._files = files
        self._variables = variables

    @cached_property
    def plan(self) -> Plan:
        """The bundle, compiled.

        Raises:
            BundleError: The bundle is refused.
        """
        return Plan.compile(self._files, self._variables)

    def name_of(self, path: Path) -> str:
        """Return the name of a file within the bundle."""
        return path.relative_to(self.folder).as_posix()

    def text(self, path: Path) -> str:
        """Return the content of a file; empty where there is none.

        Raises:
            UsageError: The file is not UTF-8.
        """
        try:
            return self._files.files.get(self.name_of(path), b"").decode()
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is not UTF-8") from error

    def write(self, texts: Mapping[Path, str]) -> None:
        """Write files, if the bundle compiles with them; an empty text removes a file.

        Raises:
            BundleError: The bundle would be refused; nothing was written.
            UsageError: A file changed since it was read, or leads out of the bundle.
        """
        after = dict(self._files.files)
        for path, text in texts.items():
            if text:
                after[self.name_of(path)] = text.encode()
            else:
                after.pop(self.name_of(path), None)
        if after == self._files.files:
            return
        changed = BundleFiles(str(self.folder), after)
        plan = Plan.compile(changed, self._variables, self.__dict__.get("plan"))
        for path in texts:
            self._refuse_changed(path)
        write_files(self.folder, texts)
        self._files = changed
        self.__dict__["plan"] = plan

    def _refuse_changed(self, path: Path) -> None:
        """Refuse to write over what somebody wrote since the folder was read."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = b""
        if content != self._files.files.get(self.name_of(path), b""):
            raise UsageError(f"{path} changed meanwhile; run the command again")
