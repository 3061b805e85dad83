"""`authz init`: a bundle that a newcomer can edit."""

from collections.abc import Iterator
from importlib.abc import Traversable
from importlib.resources import files
from pathlib import Path

from authz.errors import UsageError

__all__ = ["write_template"]


def write_template(folder: Path) -> tuple[Path, ...]:
    """Copy the template.

    Args:
        folder: Where; must not exist, or be empty.

    Returns:
        The files that were written.

    Raises:
        UsageError: The folder has something in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty; name a new folder")
    written = []
    for name, content in _walk(files("authz.tools") / "templates" / "init", ""):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        written.append(target)
    return tuple(written)


def _walk(at: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(at.iterdir(), key=lambda entry: entry.name):
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _walk(entry, f"{name}/")
        else:
            yield name, entry.read_bytes()
