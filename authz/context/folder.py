"""Reads a bundle folder by bytes: bounded, regular files only, and never half-copied.

Where the folder has a `MANIFEST.sha256` (the format of `sha256sum`), exactly the files that it lists are
loaded, and each must have its digest. Otherwise the folder is read twice and must not change in between.
"""

import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authz.errors import BundleError
from authz.model import BundleFiles, Diagnostic

__all__ = ["MANIFEST", "read_folder"]

MANIFEST: Final = "MANIFEST.sha256"
"""Name of the list of files and digests."""

_SUFFIXES: Final = (".yaml", ".yml", ".cedar", ".json", ".csv")
_MAX_DEPTH: Final = 16
_TRIES: Final = 5
_PAUSE: Final = 0.1
_MANIFEST_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?(.+)")


@dataclass(frozen=True, slots=True)
class _Bounds:
    max_bytes: int
    max_files: int


def read_folder(
    folder: Path,
    *,
    max_bytes: int = 67_108_864,
    max_files: int = 10_000,
    pause: Callable[[float], None] = time.sleep,
) -> BundleFiles:
    """Read a bundle folder.

    Hidden files and folders, and files of other kinds than YAML, Cedar, JSON and CSV, are not part of a bundle.
    A symbolic link may lead anywhere inside the folder (as in a mounted ConfigMap), but not out of it.

    Args:
        folder: The folder.
        max_bytes: Most bytes, all files together.
        max_files: Most files.
        pause: Waits so many seconds before the folder is read again.

    Returns:
        Its files.

    Raises:
        BundleError: It cannot be read, breaks a bound, leads out of itself, or does not stop changing.
    """
    bounds = _Bounds(max_bytes, max_files)
    try:
        root = folder.resolve(strict=True)
    except OSError as error:
        raise _refused(
            f"the folder cannot be read: {error.strerror}.", folder, "Check bundle.path."
        ) from error
    if not root.is_dir():
        raise _refused("not a folder.", folder, "Give the folder that has bundle.yaml in it.")
    manifest = root / MANIFEST
    if manifest.exists():
        return _by_manifest(folder, root, manifest, bounds)
    before = _read_once(folder, root, bounds)
    for _ in range(_TRIES):
        pause(_PAUSE)
        after = _read_once(folder, root, bounds)
        if before == after:
            return BundleFiles(str(folder), after)
        before = after
    raise _refused(
        "the folder keeps changing while it is read.",
        folder,
        f"Copy beside it and rename, or add {MANIFEST}.",
    )


def _refused(what: str, where: Path, mend: str = "") -> BundleError:
    return BundleError((Diagnostic(what, str(where), mend=mend),))


def _walk(folder: Path, root: Path, at: Path, depth: int) -> Iterator[Path]:
    if depth > _MAX_DEPTH:
        raise _refused(f"folders are nested deeper than {_MAX_DEPTH}.", folder)
    with os.scandir(at) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            path = Path(entry.path)
            if entry.is_symlink() and not path.resolve().is_relative_to(root):
                raise _refused(
                    f"the symbolic link `{path.relative_to(root)}` leads out of the bundle.",
                    folder,
                    "Copy the file into the bundle.",
                )
            if entry.is_dir():
                yield from _walk(folder, root, path, depth + 1)
            elif path.suffix in _SUFFIXES:
                yield path


def _read_once(folder: Path, root: Path, bounds: _Bounds) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    room = bounds.max_bytes
    try:
        for path in _walk(folder, root, root, 0):
            if len(files) >= bounds.max_files:
                raise _refused(
                    f"more than {bounds.max_files} files.", folder, "Raise bundle_max_files."
                )
            content = _read_file(path, room)
            if content is None:
                raise _refused(
                    f"larger than {bounds.max_bytes} bytes.", folder, "Raise bundle_max_bytes."
                )
            room -= len(content)
            files[path.relative_to(root).as_posix()] = content
    except FileNotFoundError:
        # Gone between listing and reading: the folder changes, and the next reading will differ.
        files[""] = os.urandom(8)
    except OSError as error:
        raise _refused(f"`{error.filename}` cannot be read: {error.strerror}.", folder) from error
    return files


def _read_file(path: Path, room: int) -> bytes | None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "not a regular file", str(path))
        content = stream.read(room + 1)
    return content if len(content) <= room else None


def _by_manifest(folder: Path, root: Path, manifest: Path, bounds: _Bounds) -> BundleFiles:
    try:
        listed = (_read_file(manifest, bounds.max_bytes) or b"").decode()
    except (OSError, UnicodeDecodeError) as error:
        raise _refused("cannot be read.", manifest, "Write it with sha256sum.") from error
    files: dict[str, bytes] = {}
    room = bounds.max_bytes
    for number, line in enumerate(listed.splitlines(), 1):
        if not line.strip():
            continue
        match = _MANIFEST_LINE.fullmatch(line)
        name = match[2] if match else ""
        path = root / name
        if match is None or not path.resolve().is_relative_to(root):
            at = Diagnostic(
                "not a line of sha256sum.", str(manifest), number, mend="Write it anew."
            )
            raise BundleError((at,))
        if len(files) >= bounds.max_files:
            raise _refused(
                f"more than {bounds.max_files} files.", folder, "Raise bundle_max_files."
            )
        try:
            content = _read_file(path, room)
        except OSError as error:
            raise _refused(f"`{name}` cannot be read: {error.strerror}.", folder) from error
        if content is None:
            raise _refused(
                f"larger than {bounds.max_bytes} bytes.", folder, "Raise bundle_max_bytes."
            )
        if hashlib.sha256(content).hexdigest() != match[1]:
            raise _refused(
                f"`{name}` is not the file that {MANIFEST} lists.",
                folder,
                "Finish copying, or write the manifest anew.",
            )
        room -= len(content)
        if path.suffix in _SUFFIXES:
            files[name] = content
    return BundleFiles(str(folder), files)
