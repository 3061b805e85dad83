"""Secrets in files that nobody else may read."""

import os
import stat
from pathlib import Path
from typing import Final

from authz.errors import AuthzError
from authz.place import open_checked

__all__ = ["MAX_SECRET_BYTES", "SecretFileError", "read_secret"]

MAX_SECRET_BYTES: Final = 8192
"""Longest secret."""

_PRINTABLE: Final = range(0x20, 0x7F)


class SecretFileError(AuthzError):
    """A secret cannot be read, or others can read it; what it says names the file, never what is in it."""

    exit_code = 3


def read_secret(path: str | Path) -> str:
    """Read a secret of one line.

    As PostgreSQL holds it with keys: a file of ours is for its owner alone (0600), one of root's may be read by its group
    (0640).

    Args:
        path: The file; links are followed within folders that nobody else can write.

    Returns:
        Its line, without the line's end.

    Raises:
        SecretFileError: There is none, others may read it, or it is no line of printable ASCII.
    """
    try:
        # A pipe must not hold us up, nor may what is looked at be another file than what is read.
        with os.fdopen(open_checked(path), "rb") as file:
            found = os.fstat(file.fileno())
            _hold(path, found)
            content = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise SecretFileError(f"`{path}` cannot be read: {error.strerror}") from error
    line = content.removesuffix(b"\n").removesuffix(b"\r")
    if not line:
        raise SecretFileError(f"`{path}` is empty")
    if len(line) > MAX_SECRET_BYTES:
        raise SecretFileError(f"`{path}` holds more than {MAX_SECRET_BYTES} bytes")
    if any(byte not in _PRINTABLE for byte in line):
        raise SecretFileError(f"`{path}` holds something else than one line of printable ASCII")
    return line.decode("ascii")


def _hold(path: str | Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SecretFileError(f"`{path}` is no regular file")
    if found.st_uid not in {0, os.geteuid()}:
        raise SecretFileError(f"`{path}` belongs to neither this user nor root")
    allowed = 0o640 if found.st_uid == 0 else 0o600
    mode = stat.S_IMODE(found.st_mode)
    if mode & ~allowed & 0o077:
        what = f"`{path}` has mode {mode:04o}: others may read or write it; chmod {allowed:o}"
        raise SecretFileError(what)
