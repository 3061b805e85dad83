"""Files that other users must not replace (keys of trust, the bundle, sockets) or even read (secrets).

`check_way` checks every folder on the way to a file, `open_checked` opens it after that, and the readers bound its size:
`read_trusted` for files that others may read, `read_private` and `read_secret` for files that they may not.
`check_trusted` is for files that a library opens itself.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from authz_client.base_errors import AuthzError

__all__ = [
    "MAX_SECRET_BYTES",
    "PrivateFileError",
    "check_private",
    "check_trusted",
    "check_way",
    "open_checked",
    "read_authorities",
    "read_private",
    "read_secret",
    "read_trusted",
    "reason_of",
]

_MAX_PEM_BYTES: Final = 4_194_304

MAX_SECRET_BYTES: Final = 8192
"""Longest secret of `read_secret`."""

_MOST_LINKS: Final = 40
_PRINTABLE: Final = range(0x20, 0x7F)


class PrivateFileError(AuthzError):
    """A private file cannot be read, or others can read it. The message names the file and nothing of its content."""

    exit_code = 3


def reason_of(error: Exception) -> str:
    """Return why a file cannot be read: of an OSError the words of the operating system, without number and path."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def check_way(path: str | Path, *, strict: bool = True) -> Path:
    """Check that no other user can replace a file, and return its path without links.

    Each folder on the way, those that links lead through included, must belong to root or to this process's user, and only
    these and the groups of this process may write to it. A sticky folder, such as `/tmp`, may stand on the way, since nobody
    can replace another user's file there; a link in a sticky folder must belong to root or to this user.

    For example, the links of a secret that Kubernetes mounts are followed (`key` → `..data/key`, `..data` → `..2026_11_30`),
    and a link that anybody could have made is refused.

    Args:
        path: The file, which may be missing.
        strict: Check the owners of folders. False: check only that not everybody can write to them, for example where the
            bundle's folder belongs to a deployment user.

    Returns:
        The path without links; its last part may be missing.

    Raises:
        OSError: The first folder or link that fails, with the fix.
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
            status = entry.lstat()
        except FileNotFoundError:
            return entry.joinpath(*reversed(left))
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            if status.st_uid not in ours and (strict or is_sticky):
                raise _refused(
                    f"symbolic link `{entry}` belongs to user {status.st_uid}, who could lead it elsewhere; "
                    "give the path of the file itself"
                )
            target = entry.readlink()
            if target.is_absolute():
                at = Path("/")
            left += _parts(target)
            is_sticky = bool(at.stat().st_mode & stat.S_ISVTX)
            continue
        at = entry
        if stat.S_ISDIR(status.st_mode) and left:
            is_sticky = _check_folder(at, ours, groups, strict=strict)
    return at


def open_checked(path: str | Path, *, strict: bool = True) -> int:
    """Open a file to read it, after `check_way`, without waiting for a pipe.

    Args:
        path: The file.
        strict: As of `check_way`. The caller must check the mode of the file itself; with False, a file that everybody can
            write to is refused here.

    Returns:
        The file descriptor.

    Raises:
        OSError: As of `check_way`, or the file cannot be opened.
    """
    # The way was checked: no link is left to follow.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(check_way(path, strict=strict), flags)
    mode = os.fstat(descriptor).st_mode
    if not strict and stat.S_ISREG(mode) and mode & stat.S_IWOTH:
        os.close(descriptor)
        raise _refused(f"everybody can write to it (mode {stat.S_IMODE(mode):04o}); chmod o-w it")
    return descriptor


def check_trusted(path: str | Path) -> None:
    """Check a file that a library opens itself: others may read it, but not replace or write it.

    Raises:
        OSError: The file cannot be opened, or everybody could replace or write it.
    """
    os.close(open_checked(path, strict=False))


def read_trusted(path: str | Path, most: int) -> bytes:
    """Read a small file that others may read, but not replace or write.

    Args:
        path: The file.
        most: Most bytes.

    Raises:
        OSError: The file cannot be read, or everybody could replace it.
        ValueError: The path is not a regular file, or is larger than `most`.
    """
    with os.fdopen(open_checked(path, strict=False), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            message = "not a regular file"
            raise ValueError(message)
        content = stream.read(most + 1)
    if len(content) > most:
        message = f"larger than {most >> 20} MiB"
        raise ValueError(message)
    return content


def read_authorities(path: str | Path) -> str:
    """Read certificates of authorities, as `cadata` of `ssl.create_default_context`.

    Args:
        path: The file, PEM. Others may read it, but not replace or write it: its writer chooses the servers that are trusted.

    Raises:
        OSError: The file cannot be read, or everybody could replace or write it.
        ValueError: It is not a regular file, is larger than 4 MiB, or holds no certificate.
    """
    content = read_trusted(path, _MAX_PEM_BYTES)
    # With empty `cadata`, `ssl` would trust the authorities of the system.
    if b"CERTIFICATE-----" not in content:
        message = "holds no certificate in PEM"
        raise ValueError(message)
    # PEM files have comments, in any encoding, between the certificates.
    return content.decode("ascii", "ignore")


def read_private(
    path: str | Path, what: str, most: int, *, root_group: bool = False
) -> tuple[bytes, os.stat_result]:
    """Read a small file that no other user may read: it has mode 0600, and belongs to this user or root.

    Args:
        path: The file. Links are followed within folders that nobody else can write to.
        what: Its content, for the message, such as `signing key`.
        most: Most bytes.
        root_group: The group of a file of root may read it, too (mode 0640), as Kubernetes mounts secrets. PostgreSQL has the
            same rule for its key files.

    Returns:
        The content, and the status of the file that was read.

    Raises:
        PrivateFileError: The file cannot be read, is too large, or others can read or replace it.
    """
    content, status = _read_private(path, what, most + 1, root_group=root_group)
    if len(content) > most:
        raise _longer(path, what, most)
    return content, status


def read_secret(path: str | Path) -> str:
    """Read a secret of one line from a private file, without the end of the line. The group of a file of root may read it.

    Raises:
        PrivateFileError: As of `read_private`, or the content is not one line of printable ASCII.
    """
    most = MAX_SECRET_BYTES + len(b"\r\n") + 1
    content, _ = _read_private(path, "secret", most, root_group=True)
    line = content.removesuffix(b"\n").removesuffix(b"\r")
    if not line:
        raise PrivateFileError(f"{path}: the secret is empty.")
    if len(line) > MAX_SECRET_BYTES:
        raise _longer(path, "secret", MAX_SECRET_BYTES)
    if any(byte not in _PRINTABLE for byte in line):
        raise PrivateFileError(f"{path}: the secret is not one line of printable ASCII.")
    return line.decode("ascii")


def check_private(path: str | Path, what: str, status: os.stat_result, allowed: int) -> None:
    """Refuse a file or folder that other users may read or replace.

    Args:
        path: The file or folder.
        what: Its content, for the message, such as `signing key`.
        status: Its status.
        allowed: The widest mode that it may have, such as 0600. Only the rights of group and others are compared.

    Raises:
        PrivateFileError: It belongs to another user, or its mode gives others more rights.
    """
    if status.st_uid not in {0, os.geteuid()}:
        owner = f"belongs to user {status.st_uid}, who could read or replace it"
        raise PrivateFileError(f"{path}: the {what} {owner}. chown it to user {os.geteuid()}.")
    mode = stat.S_IMODE(status.st_mode)
    if mode & ~allowed & 0o077:
        others = f"has mode {mode:04o}: others may read or write it"
        raise PrivateFileError(f"{path}: the {what} {others}. chmod {allowed:04o}.")


def _read_private(
    path: str | Path, what: str, most: int, *, root_group: bool
) -> tuple[bytes, os.stat_result]:
    """Read at most so many bytes, as `read_private` does."""
    try:
        with os.fdopen(open_checked(path), "rb") as stream:
            # Of the open file: another one may stand at the path by now.
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise PrivateFileError(f"{path}: the {what} is not a regular file.")
            allowed = 0o640 if root_group and status.st_uid == 0 else 0o600
            check_private(path, what, status, allowed)
            return stream.read(most), status
    except OSError as error:
        raise PrivateFileError(f"{path}: the {what} cannot be read: {error.strerror}.") from error


def _longer(path: str | Path, what: str, most: int) -> PrivateFileError:
    return PrivateFileError(f"{path}: the {what} is longer than {most} bytes.")


def _parts(path: Path) -> Iterator[str]:
    """Parts of a path, the last one first."""
    return (part for part in reversed(path.parts) if part != "/")


def _check_folder(folder: Path, ours: set[int], groups: set[int], *, strict: bool) -> bool:
    """Refuse a folder in which others could replace a file; return whether it is sticky."""
    status = folder.stat()
    mode = stat.S_IMODE(status.st_mode)
    if strict and status.st_uid not in ours:
        raise _refused(
            f"folder `{folder}` belongs to user {status.st_uid}, who could replace the file; "
            f"chown it to root or to user {os.geteuid()}, or use another folder"
        )
    is_written = mode & stat.S_IWOTH or (
        strict and mode & stat.S_IWGRP and status.st_gid not in groups
    )
    is_sticky = bool(mode & stat.S_ISVTX)
    if is_written and not is_sticky:
        raise _refused(
            f"folder `{folder}` can be written by others (mode {mode:04o}), who could replace the file; "
            "chmod go-w it, or use another folder"
        )
    return is_sticky


def replace_file(
    path: Path, content: bytes, mode: int = 0o644, *, aside: Path | None = None
) -> None:
    """Write a file aside, flush it to the disk and rename it, so that no reader sees a part of it, also after a crash.

    Args:
        path: The file; its folder exists.
        content: New content.
        mode: Mode of the file.
        aside: The file aside, in the same folder, for a file that is often replaced by one writer: a crash leaves no more than this
            one. Default: a new name each time.

    Raises:
        OSError: It cannot be written; then the file stays as it was.
    """
    # Hidden, so that a bundle that is being watched does not read it.
    if aside is None:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".authz-")
        aside = Path(name)
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(aside, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            os.fchmod(descriptor, mode)
            stream.flush()
            os.fsync(descriptor)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _refused(what: str) -> OSError:
    return PermissionError(errno.EPERM, what)
