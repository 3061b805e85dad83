"""How long a test of load, crashes or races runs: short in every run, long with `make soak`."""

import os
from typing import TypeVar

Number = TypeVar("Number", int, float)

SOAK = os.environ.get("AUTHZ_SOAK", "") not in ("", "0")
"""Whether this is a long run."""


def effort(short: Number, long: Number) -> Number:
    """Returns `long` in a long run, otherwise `short`."""
    return long if SOAK else short
