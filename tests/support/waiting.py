"""Waits on conditions: a test never sleeps for a guessed time."""

import fcntl
import os
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_PORTS = range(15_000, 32_000)


def eventually(
    probe: Callable[[], T], *, within: float = 60.0, every: float = 0.02, what: str = ""
) -> T:
    """Calls `probe` until its answer is true, and returns that answer.

    Args:
        probe: Asked again and again; an OSError or AssertionError counts as "not yet".
        within: Seconds until it gives up: far more than it takes, since a busy machine may be ten times as slow.
        every: Seconds between two questions.
        what: What was waited for, for the message.

    Raises:
        TimeoutError: It never became true.
    """
    deadline = time.monotonic() + within
    last: object = None
    while True:
        try:
            answer = probe()
        except (OSError, AssertionError) as error:
            last = error
        else:
            if answer:
                return answer
            last = answer
        if time.monotonic() > deadline:
            message = f"not within {within} s: {what or probe!r}; the last answer was {last!r}"
            raise TimeoutError(message)
        time.sleep(every)


def accepts(port: int) -> bool:
    """Tells whether something accepts connections on this loopback port."""
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def free_port() -> int:
    """Returns a loopback port that is free, and that no test has been given lately, of this or of another process.

    What is given is bound later, so that a port drawn at random may be given twice. All who share a temporary
    folder therefore take turns in one range, below the one that Linux gives to outgoing connections.
    """
    with (Path(tempfile.gettempdir()) / f"authz-ports-{os.getuid()}").open("a+") as turns:
        fcntl.flock(turns, fcntl.LOCK_EX)
        turns.seek(0)
        last = int(turns.read() or _PORTS[0])
        while True:
            last = _PORTS[(last + 1 - _PORTS[0]) % len(_PORTS)]
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", last))
                except OSError:
                    continue
                turns.truncate(0)
                turns.write(str(last))
                return last
