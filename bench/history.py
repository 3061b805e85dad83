"""Measures what a task's history costs: Checks that depend on it, rules over it, and sessions in a store."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import micro
from bench.load import postgres
from bench.load.engines import on_each
from bench.load.server import Paths

_PATIENCE = 600


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured.

    Attributes:
        tasks: how many tasks Checks are on, each of another agent and subject; a multiple of the callers.
        rounds: of all kinds of Check, one after the other.
        calls: calls of each kind in a round.
        sessions: how many a store holds, few and many.
    """

    tasks: int
    rounds: int
    calls: int
    sessions: tuple[int, int]


WHOLE = Extent(256, 15, 2_000, (100_000, 1_000_000))
QUICK = Extent(64, 3, 500, (20_000, 100_000))


def run(
    paths: Paths, sessions: Path, extent: Extent, say: Callable[[str], None], *, quick: bool
) -> dict[str, Any]:
    """Measures Checks, rules and stores.

    Args:
        paths: where things stand.
        sessions: the program that measures a store of sessions.
        extent: how much.
        say: told of each step.
        quick: the rules more shortly.

    Returns:
        `checks`, `ratios` and `callers`: of `bench.load.remembering`, on each engine of the state; `rows`: decisions by the kernel alone,
        with and without rules, and `rules_us`: time of the rules in them; `stores`: for each store the figures of its program
        measured, of which `memory_mb` and `recall_ms` are made; `postgresql`: its version, None where it is not installed.

    Raises:
        MicroError: the kernel's benchmark failed.
        ProcessError: PostgreSQL did not start; a program failed, or took longer than ten minutes.
    """
    say("history: criterion")
    # As criterion builds it: no profile guides that.
    kernel = micro.run(paths.root, (micro.HISTORY,), quick=quick)
    few, many = extent.sessions
    stores = [
        paths.printed([str(sessions), str(count), str(paths.work / f"sessions-{count}")], _PATIENCE)
        for count in extent.sessions
    ]
    dsns: dict[str, str | None] = {"embedded": None}
    version = None
    counts = {"tasks": extent.tasks, "pairs": extent.rounds, "calls": extent.calls}
    with postgres.started() as database:
        if database is None:
            say("history: PostgreSQL is not installed, and is not measured")
        else:
            dsns["postgresql"], version = database.dsn, database.version
        found = on_each(
            paths, "bench.load.remembering", "history", dsns, counts, say=say, patience=_PATIENCE
        )
    # Its tables must be empty.
    with postgres.started() as database:
        if database is not None:
            stores.append(paths.printed([str(sessions), str(many), database.dsn], _PATIENCE))
    for store in stores:
        say(
            f"history: {store['sessions']:,} sessions, {store['engine']}: "
            f"{store['memory_bytes'] / 1e6:.0f} MB, recalled in {store['recall_us']['p99']:.0f} us (p99)"
        )
    embedded = {one["sessions"]: one for one in stores if one["engine"] == "embedded"}
    return {
        "postgresql": version,
        "callers": found[0]["callers"],
        "checks": [row for one in found for row in one["rows"]],
        "ratios": [ratio for one in found for ratio in one["ratios"]],
        "rows": kernel,
        "rules_us": rules_us(kernel),
        "stores": stores,
        "memory_mb": round(embedded[few]["memory_bytes"] / 1e6, 1),
        "recall_ms": max(
            round(one["recall_us"]["p99"] / 1e3, 4) for one in stores if one["sessions"] == many
        ),
    }


def rules_us(rows: list[dict[str, Any]]) -> float:
    """Returns what the rules take of one event: the worse of two sessions, each less the same decision without rules.

    Args:
        rows: of the kernel's benchmark.
    """
    medians: dict[str, float] = {row["name"]: row["median_us"] for row in rows}
    found = [
        medians[f"1000 rules, {session}"] - medians[f"0 rules, {session}"]
        for session in ("none completed", "ten completed")
    ]
    return round(max(found), 3)
