"""Users of the processes that hold open connections to a unix socket of this process (SO_PEERCRED).

grpcio tells nothing of the peer of a unix socket, and accepts the connections itself. So the open sockets of this process are
listed, as `connections` does to bound them.
"""

import os
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["user_of", "users_of_socket"]

_FOLDER: Final = Path("/proc/self/fd")
_CREDENTIALS: Final = struct.Struct("3i")


def user_of(connection: socket.socket) -> int:
    """Return the user of the process that opened a connection to a unix socket.

    Raises:
        OSError: The connection is closed.
    """
    shown = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(shown)[1]
    return uid


def users_of_socket(path: str) -> frozenset[int]:
    """Return the users that hold a connection to the socket now; none where the system does not list open files.

    Args:
        path: Path of a socket that this process serves.
    """
    users: set[int] = set()
    try:
        names = os.listdir(_FOLDER)  # noqa: PTH208 - names alone
    except OSError:
        return frozenset()
    for name in names:
        with suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            # A duplicate: the descriptor may be closed, and used again, at any time.
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if _is_accepted(connection, path):
                    users.add(user_of(connection))
    return frozenset(users)


def _is_accepted(connection: socket.socket, path: str) -> bool:
    return (
        connection.family == socket.AF_UNIX
        and connection.getsockname() == path
        and not connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    )
