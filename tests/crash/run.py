"""Kills a server under load, again and again, and checks that nothing that was answered is lost.

    python -m tests.crash.run [--kills 50] [--seed N]

Prints what was done as one JSON line; exit status 1 where something is not as it must be.
"""

import argparse
import contextlib
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

import grpc

from authz_client.v1 import credentials_pb2, credentials_pb2_grpc
from tests.crash import journal, oracle
from tests.support.leasing import (
    ISSUER,
    OPERATION,
    credentials,
    opens,
    prepare,
    roles,
    write_dsn,
)
from tests.support.minting import Authority
from tests.support.postgres import Postgres, programs
from tests.support.server import Server, layout
from tests.support.waiting import eventually
from tests.support.working import BUNDLE, LIMITS, PLANNER, TALLIES, WORKERS, Crew

ROOT = Path(__file__).parents[2]
#: Live roots whose uses are counted by using up what is left.
COUNTED = 12
#: Seconds in which roles of ended tasks are gone.
SOON = 10.0


@dataclass
class Outcome:
    """What a run did, and what was wrong."""

    kills: int
    calls: int
    answered: int
    tasks: int
    ended: int
    permits: int
    tallies: int
    seconds: float
    restart_s_worst: float
    tokens: int
    leases: int
    violations: list[str]

    def undone(self, *, leased: bool) -> list[str]:
        """What never happened: a run without it shows nothing about it.

        Args:
            leased: Roles of a database were to be leased.
        """
        counts = ["answered", "tasks", "ended", "permits", "tallies", "tokens"]
        counts += ["leases"] if leased else []
        return [f"there were no {name}" for name in counts if not getattr(self, name)]


def run(
    folder: Path,
    kills: int,
    seed: int,
    *,
    state: dict[str, Any] | None = None,
    books: Postgres | None = None,
) -> Outcome:
    """Runs load and kills.

    Args:
        folder: An empty folder, for the server's files and the journal.
        kills: How often the server is killed.
        seed: Of the moments.
        state: The `state` part of the configuration; default: embedded, in `folder`.
        books: A database whose roles are leased, as `leasing.prepare` makes it; default: none are.

    Returns:
        What was done, and found.
    """
    began = time.monotonic()
    moments = random.Random(seed)
    authority = Authority()
    crew = Crew.of(authority)
    changes = {"state": state or {"engine": "embedded", "path": str(folder / "state")}}
    issued = ["desk.note"]
    if books is not None:
        changes["credentials"] = credentials(folder, write_dsn(folder, books))
        issued.append(OPERATION)
    else:
        changes["credentials"] = {"issuer": ISSUER, "keys": {"folder": str(folder / "keys")}}
    place = layout(folder / "server", authority, BUNDLE, changes)
    stop, written = folder / "stop", folder / "journal.jsonl"
    worst = 0.0
    wrong: list[str] = []
    with Server(place) as server:
        plan = {
            "address": server.address("main"),
            "planner": {"id": PLANNER, "token": crew.tokens[PLANNER]},
            "workers": [{"id": name, "token": crew.tokens[name]} for name in WORKERS],
            "subject": crew.subject,
            "threads": 4,
            "stop": str(stop),
            "issued": issued,
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
                if books is not None:
                    wrong += no_role_of_the_dead(
                        books, oracle.expected(list(journal.read(written)))
                    )
        finally:
            stop.touch()
            client.wait(30)
        entries = list(journal.read(written))
        wanted = oracle.expected(entries)
        statuses = dict(standing(server, crew, wanted))
        counted = dict(used(server, crew, wanted))
        tallied = {one: TALLIES - crew.tallies_left(server, one) for one in WORKERS}
        recorded = {line["decision_id"] for line in server.records() if "decision_id" in line}
        missing = wanted.decisions - recorded
        if missing:
            time.sleep(2)
            recorded = {line["decision_id"] for line in server.records() if "decision_id" in line}
        wrong += oracle.violations(wanted, statuses, counted, recorded, tallied)
        wrong += oracle.living(wanted, usable(server, books, wanted))
        if books is not None:
            wrong += none_is_left(server, books, crew, wanted)
    return Outcome(
        kills=kills,
        calls=len(entries),
        answered=sum(entry.answered is not None for entry in entries),
        tasks=len(wanted.parents),
        ended=len(wanted.ended),
        permits=sum(wanted.permits.values()),
        tallies=sum(wanted.tallies.values()),
        seconds=round(time.monotonic() - began, 1),
        restart_s_worst=round(worst, 2),
        tokens=sum(bool(one.token) for one in wanted.issued),
        leases=sum(bool(one.parts) for one in wanted.issued),
        violations=wrong,
    )


def no_role_of_the_dead(books: Postgres, wanted: oracle.Expected) -> list[str]:
    """What was leased to tasks that had ended by then is gone within seconds of a restart."""
    dead = {
        one.parts["username"] for one in wanted.issued if one.parts and wanted.is_dead(one.task)
    }
    with contextlib.suppress(TimeoutError):
        eventually(lambda: not dead & set(roles(books)), within=SOON)
    return [f"role {role} of an ended task lives on" for role in sorted(dead & set(roles(books)))]


def usable(
    server: Server, books: Postgres | None, wanted: oracle.Expected
) -> dict[str, tuple[bool, float]]:
    """Whether each credential can be used, and when that was found out."""
    if books is not None:
        no_role_of_the_dead(books, wanted)
    stub: Any = credentials_pb2_grpc.CredentialsStub(server.channel("main"))
    found = {}
    for one in wanted.issued:
        if one.token:
            request = credentials_pb2.IntrospectRequest(token=one.token)
            alive = bool(stub.Introspect(request, timeout=5, wait_for_ready=True).active)
            found[one.token] = alive, time.time()
        else:
            found[one.parts["username"]] = opens(one.parts), time.time()
    return found


def none_is_left(server: Server, books: Postgres, crew: Crew, wanted: oracle.Expected) -> list[str]:
    """Once every tree has ended, no role is left: not even one whose making nobody answered for."""
    for task, parent in wanted.parents.items():
        if not parent and wanted.is_alive(task):
            crew.end(server, task)
    for task in wanted.maybe_ended:
        with contextlib.suppress(grpc.RpcError):
            crew.revoke(server, task=task)
    with contextlib.suppress(TimeoutError):
        eventually(lambda: not roles(books), within=SOON)
    return [f"role {role} is left of no live task" for role in sorted(roles(books))]


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
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authz-crash-")))
        books = None
        if programs() is not None:
            books = stack.enter_context(Postgres())
            prepare(books)
        done = run(folder, arguments.kills, seed, books=books)
    done.violations += done.undone(leased=books is not None)
    sys.stdout.write(json.dumps({"seed": seed, **asdict(done)}) + "\n")
    return 1 if done.violations else 0


if __name__ == "__main__":
    sys.exit(main())
