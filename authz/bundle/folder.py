"""Reads a bundle folder by bytes: bounded, regular files only, and never half-copied.

Where the folder has a `MANIFEST.sha256` (the format of `sha256sum`), the bundle is loaded only if the folder has exactly the
listed files, each with its digest. Otherwise the folder is read twice and must not change in between.
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
from authz.files import replace_file
from authz.model import BundleFiles, Diagnostic

__all__ = ["MANIFEST", "read_folder", "seal_folder"]

MANIFEST: Final = "MANIFEST.sha256"
"""Name of the list of files and digests."""

_SUFFIXES: Final = (".yaml", ".yml", ".cedar", ".json", ".csv")
_MAX_BYTES: Final = 67_108_864
_MAX_FILES: Final = 10_000
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
    max_bytes: int = _MAX_BYTES,
    max_files: int = _MAX_FILES,
    pause: Callable[[float], None] = time.sleep,
    served: BundleFiles | None = None,
    require_manifest: bool = False,
) -> BundleFiles:
    """Read a bundle folder.

    A bundle consists of YAML, Cedar, JSON and CSV files; hidden files and folders do not belong to it. Under `policies/` every file belongs
    to it but backup copies of editors (`…~`), and so does every file at the top whose name begins with `policy.` or has `.ced` in it; under
    `data/` text files (`.txt`) belong to it, too. A symbolic link may point to any place inside
    the folder (as in a mounted ConfigMap), but not out of it.

    Args:
        folder: The folder.
        max_bytes: Most bytes of all files together.
        max_files: Most files.
        pause: Waits so many seconds, before the folder is read again and at rests.
        served: The bundle in use, if decisions are made meanwhile: reading then rests, and equal contents are kept once.
        require_manifest: Refuse a folder without a manifest.

    Raises:
        BundleError: The folder cannot be read, breaks a bound, has a link out of it, does not stop changing, or is not the folder
            that its manifest lists.
    """
    bounds = _Bounds(max_bytes, max_files)
    pace = _Pace(pause, _MOST_RESTS if served is not None else 0)
    served_files = served.files if served is not None else {}
    root = _root(folder)
    if os.path.lexists(root / MANIFEST):
        return _read_sealed(folder, bounds, pace, served_files, pause)
    if require_manifest:
        raise _refused(
            f"{MANIFEST} is missing, and `bundle.require_manifest` is true.",
            folder,
            f"Run `authz bundle seal {_shown(folder)}` where the bundle is built, and copy the manifest with it.",
        )
    return BundleFiles(
        str(folder), _read_quiet(folder, root, bounds, pace, served_files, pause=pause)
    )


def seal_folder(folder: Path, *, pause: Callable[[float], None] = time.sleep) -> int:
    """Write the manifest of a bundle folder, in place of an older one.

    Args:
        folder: The folder.
        pause: Waits so many seconds, before the folder is read again.

    Returns:
        Number of listed files.

    Raises:
        BundleError: The folder cannot be read (as of `read_folder`), or a name of a file cannot stand in a manifest.
        OSError: The manifest cannot be written.
    """
    root = _root(folder)
    bounds = _Bounds(_MAX_BYTES, _MAX_FILES)
    files = _read_quiet(folder, root, bounds, _Pace(pause, 0), {}, pause=pause)
    for name in files:
        if "\\" in name or name.splitlines() != [name]:
            raise _refused(
                f"the name {name!a} cannot stand in a manifest.", folder, "Rename the file."
            )
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        for name, content in sorted(files.items())
    ]
    replace_file(root / MANIFEST, "".join(lines).encode())
    return len(files)


def _root(folder: Path) -> Path:
    try:
        root = Path(os.path.realpath(folder, strict=True))
    except (OSError, ValueError) as error:
        raise _refused(
            f"the folder cannot be read: {_reason(error)}.",
            folder,
            "Check the path; `authz init` writes a new bundle.",
        ) from error
    if not root.is_dir():
        raise _refused("not a folder.", folder, "Give the folder that has bundle.yaml in it.")
    return root


def _read_quiet(
    folder: Path,
    root: Path,
    bounds: _Bounds,
    pace: _Pace,
    known: Mapping[str, bytes],
    *,
    pause: Callable[[float], None],
) -> dict[str, bytes]:
    """Read until two readings in a row are equal."""
    before = _read_once(folder, root, bounds, pace, known)
    for _ in range(_TRIES):
        pause(_PAUSE)
        after = _read_once(folder, root, bounds, pace, before)
        if before == after:
            return after
        before = after
    raise _refused(
        "the folder keeps changing while it is read.",
        folder,
        f"Copy beside it and rename, or add {MANIFEST} by `authz bundle seal`.",
    )


def _read_sealed(
    folder: Path,
    bounds: _Bounds,
    pace: _Pace,
    known: Mapping[str, bytes],
    pause: Callable[[float], None],
) -> BundleFiles:
    """Read by the manifest, and once more if folder and manifest differ: a link such as `..data` may have been replaced meanwhile."""
    try:
        return _by_manifest(folder, _root(folder), bounds, pace, known)
    except BundleError:
        pause(_PAUSE)
    return _by_manifest(folder, _root(folder), bounds, pace, known)


def _refused(what: str, where: Path, fix: str = "") -> BundleError:
    return BundleError((Diagnostic(what, _shown(where), fix=fix),))


def _shown(path: Path) -> str:
    """Return a path as text for messages; bytes that are not UTF-8 are escaped."""
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
    top = name.name.lower() if len(name.parts) == 1 else ""
    if name.parts[0] == "policies" or top.startswith("policy.") or ".ced" in top:
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
    digests = _read_manifest(folder, root, bounds)
    listed: dict[str, bytes] = {}
    room = bounds.max_bytes
    for name, digest in digests.items():
        try:
            content = _read_file(root / name, room)
        except FileNotFoundError as error:
            raise _unsealed(f"`{name}`, which {MANIFEST} lists, is missing.", folder) from error
        except OSError as error:
            raise _refused(f"`{name}` cannot be read: {_reason(error)}.", folder) from error
        if content is None:
            raise _refused(
                f"larger than {bounds.max_bytes} bytes.", folder, "Raise bundle_max_bytes."
            )
        if hashlib.sha256(content).hexdigest() != digest:
            raise _unsealed(f"`{name}` is not the file that {MANIFEST} lists.", folder)
        room -= len(content)
        listed[name] = _once(content, known.get(name))
        pace.rest()
    files = {name: content for name, content in listed.items() if _belongs(Path(name))}
    _check_unlisted(folder, root, files, pace)
    return BundleFiles(str(folder), files)


def _read_manifest(folder: Path, root: Path, bounds: _Bounds) -> dict[str, str]:
    """Read the digest of each listed file."""
    manifest = root / MANIFEST
    try:
        text = (_read_file(manifest, bounds.max_bytes) or b"").decode()
    except (OSError, UnicodeDecodeError) as error:
        raise _refused("cannot be read.", manifest, "Write it with `authz bundle seal`.") from error
    digests: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _MANIFEST_LINE.fullmatch(line)
        name = match[2] if match else ""
        if match is None or "\0" in name or not _in_root(root / name, root, folder, name):
            raise _wrong_line("not a line of sha256sum.", manifest, number)
        if name in digests:
            raise _wrong_line(f"`{name}` is listed twice.", manifest, number)
        if len(digests) >= bounds.max_files:
            raise _refused(
                f"more than {bounds.max_files} files.", folder, "Raise bundle_max_files."
            )
        digests[name] = match[1]
    return digests


def _check_unlisted(folder: Path, root: Path, listed: Mapping[str, bytes], pace: _Pace) -> None:
    """Refuse a file that the manifest does not list. Skipped, it could be the policy that forbids."""
    try:
        for path in _walk(folder, root, root, (root,)):
            name = path.relative_to(root).as_posix()
            if name not in listed:
                raise _unsealed(f"`{name}` is not listed in {MANIFEST}.", folder)
            pace.rest()
    except OSError as error:
        name = _shown(Path(os.fsdecode(error.filename))) if error.filename else "it"
        raise _refused(f"`{name}` cannot be read: {_reason(error)}.", folder) from error


def _unsealed(what: str, folder: Path) -> BundleError:
    fix = "Copy the whole bundle again; after an intended change, write the manifest anew: authz bundle seal."
    return _refused(what, folder, fix)


def _wrong_line(what: str, manifest: Path, line: int) -> BundleError:
    fix = "Write it anew: authz bundle seal."
    return BundleError((Diagnostic(what, _shown(manifest), line, fix=fix),))
