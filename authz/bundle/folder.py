"""Reads a bundle folder by bytes: bounded, regular files only, and never half-copied.

Where the folder has a `MANIFEST.sha256` (the format of `sha256sum`), exactly the files that it lists are
loaded, and each must have its digest. Otherwise the folder is read twice and must not change in between.
"""

import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
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
# Rests, in seconds: in all less than half a one, since what is loaded must serve soon.
_BURST: Final = 0.000_2
_REST: Final = 0.001
_MOST_RESTS: Final = 400
_MANIFEST_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?(.+)")


@dataclass(frozen=True, slots=True)
class _Bounds:
    max_bytes: int
    max_files: int


class _Pace:
    """Rests while many small files are read. Reading holds the interpreter lock most of the time, and decisions wait for it.

    Args:
        pause: Waits so many seconds.
        most: Most rests. Zero: no decision waits.
    """

    def __init__(self, pause: Callable[[float], None], most: int) -> None:
        self._pause = pause
        self._left = most
        self._since = time.perf_counter()

    def rest(self) -> None:
        """Rest if the last rest is long enough ago."""
        if self._left > 0 and time.perf_counter() - self._since >= _BURST:
            self._left -= 1
            self._pause(_REST)
            self._since = time.perf_counter()


def read_folder(
    folder: Path,
    *,
    max_bytes: int = 67_108_864,
    max_files: int = 10_000,
    pause: Callable[[float], None] = time.sleep,
    served: BundleFiles | None = None,
) -> BundleFiles:
    """Read a bundle folder.

    A bundle consists of YAML, Cedar, JSON and CSV files; hidden files and folders do not belong to it. Under `policies/` every file belongs
    to it but backup copies of editors (`…~`), and under `data/` text files (`.txt`), too. A symbolic link may point to any place inside
    the folder (as in a mounted ConfigMap), but not out of it.

    Args:
        folder: The folder.
        max_bytes: Most bytes of all files together.
        max_files: Most files.
        pause: Waits so many seconds, before the folder is read again and at rests.
        served: The bundle in use, if decisions are made meanwhile: reading then rests, and equal contents are kept once.

    Raises:
        BundleError: The folder cannot be read, breaks a bound, has a link out of it, or does not stop changing.
    """
    bounds = _Bounds(max_bytes, max_files)
    pace = _Pace(pause, _MOST_RESTS if served is not None else 0)
    served_files = served.files if served is not None else {}
    try:
        root = Path(os.path.realpath(folder, strict=True))
    except (OSError, ValueError) as error:
        raise _refused(
            f"the folder cannot be read: {_reason(error)}.", folder, "Check bundle.path."
        ) from error
    if not root.is_dir():
        raise _refused("not a folder.", folder, "Give the folder that has bundle.yaml in it.")
    if os.path.lexists(root / MANIFEST):
        return _by_manifest(folder, root, bounds, pace, served_files)
    before = _read_once(folder, root, bounds, pace, served_files)
    for _ in range(_TRIES):
        pause(_PAUSE)
        after = _read_once(folder, root, bounds, pace, before)
        if before == after:
            return BundleFiles(str(folder), after)
        before = after
    raise _refused(
        "the folder keeps changing while it is read.",
        folder,
        f"Copy beside it and rename, or add {MANIFEST}.",
    )


def _refused(what: str, where: Path, mend: str = "") -> BundleError:
    return BundleError((Diagnostic(what, _shown(where), mend=mend),))


def _shown(path: Path) -> str:
    """Return a path as text for messages, whatever its bytes are."""
    try:
        return os.fsencode(path).decode(errors="backslashreplace")
    except UnicodeEncodeError:
        return ascii(str(path))


def _reason(error: OSError | ValueError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _real(path: Path, folder: Path, name: str) -> Path:
    """Follow every link of a path. `Path.resolve` tells a circle differently in each Python."""
    try:
        return Path(os.path.realpath(path, strict=True))
    except FileNotFoundError:
        return Path(os.path.realpath(path))
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise _circle(folder, name) from error


def _circle(folder: Path, name: str) -> BundleError:
    return _refused(f"the symbolic link `{name}` leads in a circle.", folder, "Remove it.")


def _walk(folder: Path, root: Path, at: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """Yield files. `above` are the folders that are being read, without links, the root first."""
    if len(above) > _MAX_DEPTH + 1:
        raise _refused(f"folders are nested deeper than {_MAX_DEPTH}.", folder)
    at_real = above[-1]
    with os.scandir(at) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            path = Path(entry.path)
            name = _shown(path.relative_to(root))
            real = _real(path, folder, name) if entry.is_symlink() else at_real / entry.name
            if not real.is_relative_to(root):
                raise _refused(
                    f"the symbolic link `{name}` leads out of the bundle.",
                    folder,
                    "Copy the file into the bundle.",
                )
            if not entry.is_dir() and not _belongs(path.relative_to(root)):
                continue
            if not _is_utf8(entry.name):
                raise _refused(f"the name `{name}` is not UTF-8.", folder, "Rename it.")
            if not entry.is_dir():
                yield path
            elif real in above:
                raise _circle(folder, name)
            else:
                yield from _walk(folder, root, path, (*above, real))


def _belongs(name: Path) -> bool:
    """Return whether a file belongs to the bundle. A policy with a misspelt name must be refused, not skipped."""
    if name.parts[0] == "policies":
        return not name.name.endswith("~")
    return name.suffix in _SUFFIXES or (name.parts[0] == "data" and name.suffix == ".txt")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_once(
    folder: Path, root: Path, bounds: _Bounds, pace: _Pace, known: Mapping[str, bytes]
) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    room = bounds.max_bytes
    try:
        for path in _walk(folder, root, root, (root,)):
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
            name = path.relative_to(root).as_posix()
            files[name] = _once(content, known.get(name))
            pace.rest()
    except FileNotFoundError:
        # Gone between listing and reading: the folder changes, and the next reading will differ.
        files[""] = os.urandom(8)
    except OSError as error:
        name = _shown(Path(os.fsdecode(error.filename))) if error.filename else "it"
        raise _refused(f"`{name}` cannot be read: {_reason(error)}.", folder) from error
    return files


def _once(content: bytes, known: bytes | None) -> bytes:
    """Return the known content if it is equal. To free many files at once would take milliseconds in which no call is answered."""
    return known if known == content else content


def _read_file(path: Path, room: int) -> bytes | None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "not a regular file", str(path))
        content = stream.read(room + 1)
    return content if len(content) <= room else None


def _in_root(path: Path, root: Path, folder: Path, name: str) -> bool:
    try:
        return _real(path, folder, name).is_relative_to(root)
    except OSError as error:
        raise _refused(f"`{name}` cannot be read: {_reason(error)}.", folder) from error


def _by_manifest(
    folder: Path,
    root: Path,
    bounds: _Bounds,
    pace: _Pace,
    known: Mapping[str, bytes],
) -> BundleFiles:
    manifest = root / MANIFEST
    try:
        manifest_text = (_read_file(manifest, bounds.max_bytes) or b"").decode()
    except (OSError, UnicodeDecodeError) as error:
        raise _refused("cannot be read.", manifest, "Write it with sha256sum.") from error
    files: dict[str, bytes] = {}
    room = bounds.max_bytes
    for number, line in enumerate(manifest_text.splitlines(), 1):
        if not line.strip():
            continue
        match = _MANIFEST_LINE.fullmatch(line)
        name = match[2] if match else ""
        path = root / name
        if match is None or "\0" in name or not _in_root(path, root, folder, name):
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
            raise _refused(f"`{name}` cannot be read: {_reason(error)}.", folder) from error
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
        if _belongs(Path(name)):
            files[name] = _once(content, known.get(name))
        pace.rest()
    return BundleFiles(str(folder), files)
