"""Measures what tasks cost: Checks on a task beside Checks without one, and a store of 100,000 tasks."""

import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.load import postgres
from bench.load.matrix import MIDDLE
from bench.load.server import Paths

STORED = 100_000
_PATIENCE = 600


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured.

    Attributes:
        tasks: how many tasks Checks are on, each of another agent and subject.
        pairs: interleaved pairs of each ratio.
        calls: calls of each half of a pair.
    """

    tasks: int
    pairs: int
    calls: int


WHOLE = Extent(256, 7, 2_000)
QUICK = Extent(64, 3, 500)


def run(paths: Paths, store: Path, extent: Extent, say: Callable[[str], None]) -> dict[str, Any]:
    """Measures Checks on every engine of the state, and the embedded store.

    Args:
        paths: where things stand.
        store: the program that measures a store.
        extent: how much.
        say: told of each step.

    Returns:
        `rows` and `ratios` of `bench.load.checks`; `store`: what the store's program printed, of which `memory_mb` and
        `open_s` are made; `postgresql`: its version, None where it is not installed and so not measured.

    Raises:
        ProcessError: PostgreSQL did not start; a program failed, or took longer than ten minutes.
    """
    rows: list[dict[str, Any]] = []
    ratios: list[dict[str, Any]] = []
    version = None
    with ExitStack() as running:
        dsns: dict[str, str | None] = {"embedded": None, "memory": None}
        if postgres.programs() is None:
            say("tasks: PostgreSQL is not installed, and is not measured")
        else:
            # Of its own: PostgreSQL's user cannot reach the work folder.
            folder = running.enter_context(tempfile.TemporaryDirectory(prefix="authz-bench-pg-"))
            database = running.enter_context(postgres.Postgres(Path(folder)))
            dsns["postgresql"], version = database.dsn, database.version
        for state, dsn in dsns.items():
            spec = {
                "folder": str(paths.work / f"tasks-{state}"),
                "policies": MIDDLE,
                "state": state,
                "dsn": dsn,
                "tasks": extent.tasks,
                "pairs": extent.pairs,
                "calls": extent.calls,
            }
            found = paths.printed(
                [sys.executable, "-m", "bench.load.checks", json.dumps(spec)], _PATIENCE
            )
            rows += found["rows"]
            ratios += found["ratios"]
            for one in found["ratios"]:
                say(f"tasks: {one['ratio']} on {state}, {one['time']}: {one['median']:g} times")
    stored = paths.printed([str(store), str(STORED), str(paths.work / "store")], _PATIENCE)
    return {
        "postgresql": version,
        "rows": rows,
        "ratios": ratios,
        "memory_mb": round(stored["memory_bytes"] / 1e6, 1),
        "open_s": round(stored["open_ms"] / 1e3, 2),
        "store": stored,
    }
