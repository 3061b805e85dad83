"""Measures what tasks cost: Checks on a task beside Checks without one, and a store of 100,000 tasks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.load import postgres
from bench.load.engines import on_each
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
    dsns: dict[str, str | None] = {"embedded": None, "memory": None}
    version = None
    counts = {"tasks": extent.tasks, "pairs": extent.pairs, "calls": extent.calls}
    with postgres.started() as database:
        if database is None:
            say("tasks: PostgreSQL is not installed, and is not measured")
        else:
            dsns["postgresql"], version = database.dsn, database.version
        found = on_each(
            paths, "bench.load.checks", "tasks", dsns, counts, say=say, patience=_PATIENCE
        )
    stored = paths.printed([str(store), str(STORED), str(paths.work / "store")], _PATIENCE)
    return {
        "postgresql": version,
        "rows": [row for one in found for row in one["rows"]],
        "ratios": [ratio for one in found for ratio in one["ratios"]],
        "memory_mb": round(stored["memory_bytes"] / 1e6, 1),
        "open_s": round(stored["open_ms"] / 1e3, 2),
        "store": stored,
    }
