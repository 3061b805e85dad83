"""The limit of open files of this process. Each connection is an open file."""

import resource
from contextlib import suppress
from typing import Final

__all__ = ["connections_of_each", "raise_limit"]

# For bundle, audit, store, fetches, and the connections of the web server and of administration.
_OTHERS: Final = 192
_FEWEST: Final = 16
_MOST: Final = 1_048_576


def raise_limit() -> int:
    """Raise the limit as far as the system permits; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return most if soft == resource.RLIM_INFINITY else soft
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return soft


def connections_of_each(listeners: int) -> int:
    """Return the connections that each of so many listeners may have. A listener at its bound leaves the others theirs."""
    return max(_FEWEST, (raise_limit() - _OTHERS) // max(1, listeners))
