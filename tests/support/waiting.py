"""Waits on conditions: a test never sleeps for a guessed time."""

import random
import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
# Not the generator that test order is drawn from, which starts anew with each test.
_RANDOM = random.SystemRandom()


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
    """Returns a loopback port that was free a moment ago.

    From below the range that Linux gives to outgoing connections, so that none of them takes it meanwhile.
    """
    while True:
        port = _RANDOM.randrange(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
