"""Unix sockets. Modes of files decide who may open a socket, so they are checked before anything binds."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from authz.errors import ConfigError
from authz.files import check_way
from authz.model import Diagnostic

__all__ = ["prepare", "private"]

_TOO_OPEN: Final = stat.S_IRWXO | stat.S_IWGRP
_SHARED: Final = 0o660
_OWN: Final = 0o600


def prepare(path: Path, listener: str) -> None:
    """Check the folder of a socket, and remove a socket that no process serves any more.

    Every user who may enter the folder may call, and every user who may write to it, or to a folder above, could replace the socket.

    Args:
        path: The socket.
        listener: Name of the listener, for messages.

    Raises:
        ConfigError: The folder is too open or belongs to another user, or another process serves the socket.
    """
    _check_folder(path, listener)
    if path.is_symlink():
        raise _refused(
            f"the address of listener `{listener}` is a symbolic link, which may lead anywhere.",
            path,
            "Give the path of the socket itself.",
        )
    if not path.exists():
        return
    if not path.is_socket():
        raise _refused(
            f"the address of listener `{listener}` is a file that is not a socket.",
            path,
            "Move it.",
        )
    if (owner := path.lstat().st_uid) not in {os.geteuid(), 0}:
        raise _refused(
            f"the socket of listener `{listener}` belongs to user {owner}.", path, "Remove it."
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            what = f"the socket of listener `{listener}` cannot be tried: {error.strerror}."
            raise _refused(what, path, "Stop the process that serves it.") from error
    raise _refused(
        f"another process serves listener `{listener}`.", path, "Stop it, or use another path."
    )


def _check_folder(path: Path, listener: str) -> None:
    folder = path.parent
    is_new = not folder.exists()
    if not is_new:
        info = folder.stat()
        mode = stat.S_IMODE(info.st_mode)
        if info.st_uid not in {os.geteuid(), 0}:
            raise _refused(
                f"the folder of listener `{listener}` belongs to another user, who could replace the socket.",
                folder,
                f"chown it to user {os.geteuid()}.",
            )
        if mode & _TOO_OPEN:
            raise _refused(
                f"the folder of listener `{listener}` has mode {mode:04o}. "
                "Any local user could open or replace the socket.",
                folder,
                "chmod 0750 or 0700; the group is who may ask.",
            )
    try:
        check_way(path)
        if is_new:
            folder.mkdir(mode=0o700, parents=True)
    except OSError as error:
        what = f"the socket of listener `{listener}`: {error.strerror}."
        raise _refused(what, path, "Use a folder such as /run/authz.") from error


@contextmanager
def private(*, shared: bool) -> Iterator[None]:
    """Make sockets that are bound inside the block openable by their owner only.

    Args:
        shared: The group of the folder may open them, too.
    """
    before = os.umask(0o777 & ~(_SHARED if shared else _OWN))
    try:
        yield
    finally:
        os.umask(before)


def _refused(what: str, where: Path, fix: str) -> ConfigError:
    return ConfigError((Diagnostic(what, str(where), fix=fix),))
