"""How many files the process may have open: each connection is one."""

import resource
from contextlib import suppress
from typing import Final

__all__ = ["connections_of_each", "raise_limit"]

# For bundle, audit, store, fetches, and the connections of the web server and of administration.
_OTHERS: Final = 192
_FEWEST: Final = 16
_MOST: Final = 1_048_576


def raise_limit() -> int:
    """Let the process open as many files as the system allows it.

    Returns:
        How many files it may open now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return most if soft == resource.RLIM_INFINITY else soft
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return soft


def connections_of_each(listeners: int) -> int:
    """Share the files among the listeners, so that one that is full leaves the others theirs.

    Args:
        listeners: How many there are.

    Returns:
        Connections that each may have.
    """
    return max(_FEWEST, (raise_limit() - _OTHERS) // max(1, listeners))
