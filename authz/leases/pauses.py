"""Pauses between attempts. They are random, so that nodes which failed together do not return together."""

import random
from typing import Final

__all__ = ["backoff", "jittered"]

_FIRST: Final = 0.5
_LONGEST: Final = 60.0
_DOUBLINGS: Final = 7


def backoff(attempts: int) -> float:
    """Return the seconds to wait after so many failed attempts."""
    return jittered(min(_LONGEST, _FIRST * 2 ** min(attempts - 1, _DOUBLINGS)))


def jittered(seconds: float) -> float:
    """Return a random time between half of a time and all of it."""
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
