"""Kills a server under load, again and again, and checks that nothing that was answered is lost.

    python -m tests.crash.run [--kills 50] [--seed N]

Prints what was done as one JSON line; exit status 1 where something is not as it must be.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.crash import journal, oracle
from tests.support.minting import Authority
from tests.support.server import Server, layout
from tests.support.waiting import eventually
from tests.support.working import BUNDLE, LIMITS, PLANNER, WORKERS, Crew

ROOT = Path(__file__).parents[2]
#: Live roots whose uses are counted by using up what is left.
COUNTED = 12


@dataclass
class Outcome:
    """What a run did, and what was wrong."""

    kills: int
    calls: int
    answered: int
    tasks: int
    ended: int
    permits: int
    seconds: float
    restart_s_worst: float
    violations: list[str]


def run(folder: Path, kills: int, seed: int, *, state: dict[str, Any] | None = None) -> Outcome:
    """Runs load and kills.

    Args:
        folder: An empty folder, for the server's files and the journal.
        kills: How often the server is killed.
        seed: Of the moments.
        state: The `state` part of the configuration; default: embedded, in `folder`.

    Returns:
        What was done, and found.
    """
    began = time.monotonic()
    moments = random.Random(seed)
    authority = Authority()
    crew = Crew.of(authority)
    changes = {"state": state or {"engine": "embedded", "path": str(folder / "state")}}
    place = layout(folder / "server", authority, BUNDLE, changes)
    stop, written = folder / "stop", folder / "journal.jsonl"
    worst = 0.0
    with Server(place) as server:
        plan = {
            "address": server.address("main"),
            "planner": {"id": PLANNER, "token": crew.tokens[PLANNER]},
            "workers": [{"id": name, "token": crew.tokens[name]} for name in WORKERS],
            "subject": crew.subject,
            "threads": 4,
            "stop": str(stop),
        }
        (folder / "plan.json").write_text(json.dumps(plan))
        client = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.client", folder / "plan.json", written],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        try:
            eventually(written.exists, within=30, what="the client works")
            for _ in range(kills):
                time.sleep(moments.uniform(0.05, 0.8))
                os.kill(server.pid, signal.SIGKILL)
                assert server.process is not None
                server.process.wait(10)
                again = time.monotonic()
                server.disconnect()
                server.start()
                worst = max(worst, time.monotonic() - again)
        finally:
            stop.touch()
            client.wait(30)
        entries = list(journal.read(written))
        wanted = oracle.expected(entries)
        statuses = dict(standing(server, crew, wanted))
        counted = dict(used(server, crew, wanted))
        recorded = {line["decision_id"] for line in server.records() if "decision_id" in line}
        missing = wanted.decisions - recorded
        if missing:
            time.sleep(2)
            recorded = {line["decision_id"] for line in server.records() if "decision_id" in line}
        wrong = oracle.violations(wanted, statuses, counted, recorded)
    return Outcome(
        kills=kills,
        calls=len(entries),
        answered=sum(entry.answered is not None for entry in entries),
        tasks=len(wanted.parents),
        ended=len(wanted.ended),
        permits=sum(wanted.permits.values()),
        seconds=round(time.monotonic() - began, 1),
        restart_s_worst=round(worst, 2),
        violations=wrong,
    )


def standing(server: Server, crew: Crew, wanted: oracle.Expected) -> Iterator[tuple[str, str]]:
    """How each task stands, by the server."""
    for task in wanted.parents:
        status = crew.status(server, task)
        if status is not None:
            yield task, status


def used(
    server: Server, crew: Crew, wanted: oracle.Expected
) -> Iterator[tuple[tuple[str, str], int]]:
    """How often operations were used in some live roots: what is left, used up, tells it."""
    roots = [task for task, parent in wanted.parents.items() if not parent]
    for root in [root for root in roots if wanted.is_alive(root)][-COUNTED:]:
        for operation, limit in LIMITS.items():
            yield (root, operation), limit - crew.left(server, root, operation)


def main() -> int:
    """Runs and prints.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.crash.run", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="how often the server is killed")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; default: random")
    arguments = parser.parse_args()
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    with tempfile.TemporaryDirectory(prefix="authz-crash-") as folder:
        done = run(Path(folder), arguments.kills, seed)
    sys.stdout.write(json.dumps({"seed": seed, **asdict(done)}) + "\n")
    return 1 if done.violations else 0


if __name__ == "__main__":
    sys.exit(main())
