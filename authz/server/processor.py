"""Keeps threads to one processor.

One thread at a time holds the interpreter's lock. Where a thread that waits for it runs on another processor, each hand-over
wakes that processor first, which takes longer than what most threads do with the lock; on one processor it is a change of threads.
"""

import os
import threading

from authz.errors import ConfigError
from authz.model import Diagnostic

__all__ = ["keep_to", "require"]


def require(processor: int) -> None:
    """Check that this process may run on a processor.

    Args:
        processor: Its number, as sched_setaffinity(2) counts.

    Raises:
        ConfigError: It may not, or this system keeps no thread to a processor.
    """
    if not hasattr(os, "sched_setaffinity"):
        what = "`limits.processor` cannot be kept to: this system binds no thread to a processor."
        raise ConfigError((Diagnostic(what, mend="Remove `limits.processor`."),))
    allowed = sorted(os.sched_getaffinity(0))
    if processor not in allowed:
        what = f"`limits.processor` is {processor}, and this process may run on {_listed(allowed)}."
        raise ConfigError((Diagnostic(what, mend="Name one of them, or remove it."),))


def keep_to(processor: int, thread: threading.Thread) -> None:
    """Keep a thread to a processor; one that has just ended is left alone.

    Args:
        processor: One that `require` has passed.
        thread: A thread that has started.

    Raises:
        OSError: The processor was taken from this process meanwhile.
    """
    if thread.native_id is not None and thread.is_alive():
        os.sched_setaffinity(thread.native_id, {processor})


def _listed(numbers: list[int]) -> str:
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{low}" if low == high else f"{low}-{high}" for low, high in spans)
