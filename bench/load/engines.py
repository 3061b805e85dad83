"""Runs a program that measures Checks on each engine of the state."""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from bench.load.matrix import MIDDLE
from bench.load.server import Paths


def on_each(
    paths: Paths,
    module: str,
    name: str,
    dsns: Mapping[str, str | None],
    counts: Mapping[str, int],
    *,
    say: Callable[[str], None],
    patience: float,
) -> list[dict[str, Any]]:
    """Runs a module on one engine after the other, each in a process of its own.

    Args:
        paths: where things stand.
        module: takes a `bench.load.checks.Spec` as JSON, and prints JSON with `rows` and `ratios`.
        name: of the part, for its folders and messages.
        dsns: the engines, and for PostgreSQL where it is.
        counts: `tasks`, `pairs` and `calls` of the spec.
        say: told of each ratio.
        patience: seconds that one engine may take.

    Returns:
        What each printed.

    Raises:
        ProcessError: a program failed, or took longer.
    """
    found = []
    for state, dsn in dsns.items():
        spec = {
            "folder": str(paths.work / f"{name}-{state}"),
            "policies": MIDDLE,
            "state": state,
            "dsn": dsn,
            **counts,
        }
        printed = paths.printed([sys.executable, "-m", module, json.dumps(spec)], patience)
        for one in printed["ratios"]:
            say(f"{name}: {one['ratio']} on {state}, {one['time']}: {one['median']:g} times")
        found.append(printed)
    return found
