"""Where files stand that nobody else may replace: secrets, keys, sockets, trust, the bundle."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["check_way", "open_checked"]

_MOST_LINKS: Final = 40


def check_way(path: str | Path, *, strict: bool = True) -> Path:
    """Check that nobody else can put another file in the place of one, and find out where it stands.

    Each folder on the way, those that links lead through included, must belong to root or to this process's user, and may be
    written by nobody else than these and the groups of this process. In a sticky folder, such as `/tmp`, nobody can replace
    what belongs to another, so it may stand on the way; a link in one must be root's or ours.

    So the links of a secret that Kubernetes mounts are followed (`key` → `..data/key`, `..data` → `..2026_11_30`), and a link
    that anybody could have made is not.

    Args:
        path: The file, which need not be there.
        strict: Whose folders they are counts; else only that not everybody can write to them, as where a bundle's folder
            belongs to who deploys it.

    Returns:
        Its path without links; the last part may be missing.

    Raises:
        OSError: The first folder or link that is not so, with how to fix it.
    """
    ours = {0, os.geteuid()}
    groups = {0, os.getegid(), *os.getgroups()}
    at = Path("/")
    is_sticky = _check_folder(at, ours, groups, strict=strict)
    left = list(_parts(Path(path).absolute()))
    links = 0
    while left:
        part = left.pop()
        if part == "..":
            at = at.parent
            is_sticky = _check_folder(at, ours, groups, strict=strict)
            continue
        entry = at / part
        try:
            found = entry.lstat()
        except FileNotFoundError:
            return entry.joinpath(*reversed(left))
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            if found.st_uid not in ours and (strict or is_sticky):
                raise _refused(
                    f"symbolic link `{entry}` belongs to user {found.st_uid}, who could lead it elsewhere; "
                    "give the path of the file itself"
                )
            target = entry.readlink()
            if target.is_absolute():
                at = Path("/")
            left += _parts(target)
            is_sticky = bool(at.stat().st_mode & stat.S_ISVTX)
            continue
        at = entry
        if stat.S_ISDIR(found.st_mode) and left:
            is_sticky = _check_folder(at, ours, groups, strict=strict)
    return at


def open_checked(path: str | Path, *, strict: bool = True) -> int:
    """Open a file to read it, after `check_way`, without waiting for a pipe.

    Args:
        path: The file.
        strict: As `check_way` has it. Who may read and write the file itself is then for the caller to check.

    Returns:
        Its descriptor.

    Raises:
        OSError: As of `check_way` and the system.
    """
    # The way was checked: no link is left to follow.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(check_way(path, strict=strict), flags)
    mode = os.fstat(descriptor).st_mode
    if not strict and stat.S_ISREG(mode) and mode & stat.S_IWOTH:
        os.close(descriptor)
        raise _refused(f"everybody can write to it (mode {stat.S_IMODE(mode):04o}); chmod o-w it")
    return descriptor


def _parts(path: Path) -> Iterator[str]:
    """Parts of a path, the last one first."""
    return (part for part in reversed(path.parts) if part != "/")


def _check_folder(folder: Path, ours: set[int], groups: set[int], *, strict: bool) -> bool:
    """Refuse a folder in which others could replace a file; tell whether it is sticky."""
    found = folder.stat()
    mode = stat.S_IMODE(found.st_mode)
    if strict and found.st_uid not in ours:
        raise _refused(
            f"folder `{folder}` belongs to user {found.st_uid}, who could replace the file; "
            f"chown it to root or to user {os.geteuid()}, or use another folder"
        )
    is_written = mode & stat.S_IWOTH or (
        strict and mode & stat.S_IWGRP and found.st_gid not in groups
    )
    is_sticky = bool(mode & stat.S_ISVTX)
    if is_written and not is_sticky:
        raise _refused(
            f"folder `{folder}` can be written by others (mode {mode:04o}), who could replace the file; "
            "chmod go-w it, or use another folder"
        )
    return is_sticky


def _refused(what: str) -> OSError:
    return PermissionError(errno.EPERM, what)
