"""Lets many callers run into each other, and checks that no rule was broken and nobody was denied for the crowd.

    python -m tests.race.run [--rounds 6] [--kills 10] [--out FILE]

Half of the callers share one session; all spend one budget of their subject, and one of what an agent does without a task; half
ask the fast lane. Of some permits they tell what came of it, so that what was reserved is given back or spent. On the embedded store one server answers 64 callers, on
PostgreSQL two servers 32 each. Prints what was done as one JSON line; exit status 1 where something is not as it must be.
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
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from authz import engine
from authz_client.v1 import tasks_pb2, tasks_pb2_grpc
from bench import machine
from tests.race.oracle import PERMITTED, REPORT, Answer, Limit, Pair, violations
from tests.support.cases import BUNDLES
from tests.support.minting import Authority
from tests.support.postgres import Postgres, programs
from tests.support.server import Server, layout
from tests.support.working import evidence

ROOT: Final = Path(__file__).parents[2]
BUNDLE: Final = BUNDLES / "race"
CALLERS: Final = 64
#: As the bundle says.
NOTES, CALLS, SPENDING, WIPES, HOLDS, ROAMS = 150, 100, 200, 50, 60, 120
LANES: Final = ("main", "main-fast")
LOCK_WAIT: Final = "authz_state_lock_wait_seconds"


@dataclass
class Figures:
    """What one run did, and what was wrong."""

    engine: str
    servers: int
    callers: int
    callers_fast: int
    kills: int
    calls: int
    reports: int
    unanswered: int
    permits: int
    seconds: float
    calls_per_s: float
    answer_ms_p50: float
    answer_ms_p99: float
    lock_wait_ms_p50: float
    lock_wait_ms_p99: float
    violations: list[str]


@dataclass
class Site:
    """The servers, and who works there."""

    servers: list[Server]
    authority: Authority
    #: Agents and subjects are new in each run: a database may remember those of another.
    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def agent(self, name: str) -> str:
        """Returns an agent's SPIFFE id."""
        return f"spiffe://a.example/ns/race/sa/{name}-{self.mark}"

    def start(self, agent: str, subject: str = "alice") -> str:
        """Starts a root task; returns its id."""
        token = self.authority.alone(f"{subject}-{self.mark}", "corp", groups=["employees"])
        request = tasks_pb2.StartRequest(
            evidence=[evidence(token, of_subject=True)],
            template="run",
            assignee=self.agent(agent),
        )
        stub: Any = tasks_pb2_grpc.TasksStub(self.servers[0].channel("main"))
        task: str = stub.Start(request, timeout=10, wait_for_ready=True).task.id
        return task

    def token(self, agent: str) -> str:
        """Mints an agent's credential."""
        return self.authority.agent(self.agent(agent))


@dataclass
class Script:
    """What each caller asks, and what must come of it."""

    calls: list[list[list[str]]]
    limits: list[Limit]
    pairs: list[Pair]


def script(site: Site, rounds: int) -> Script:
    """Starts the tasks, and writes down who asks what."""
    order = random.Random(7)
    calls: list[list[list[str]]] = [[] for _ in range(CALLERS)]
    shared, clerk = site.start("clerk"), site.token("clerk")
    own = [(site.start(f"own-{one}"), site.token(f"own-{one}")) for one in range(CALLERS // 2)]
    roamer, drifter = site.token("roamer"), site.token("drifter")
    roaming = [site.start("roamer", "bob") for _ in range(4)]
    pairs: list[Pair] = []
    each = -(-2 * max(NOTES, CALLS, SPENDING, WIPES) // CALLERS)
    for number, mine in enumerate(calls):
        on_shared = number % 4 < 2
        task, token = (shared, clerk) if on_shared else own[number // 2]
        for _ in range(each):
            mine.append([task, token, "bank.pay", '{"amount": 1}', ""])
            mine.append([roaming[number % 4], roamer, "desk.call", "{}", ""])
            mine.append(["", drifter, "desk.roam", "{}", ""])
            if on_shared:
                mine.extend([[shared, clerk, "desk.note", "{}", ""]] * 2)
                mine.append([shared, clerk, "desk.wipe", "{}", ""])
                # Of every fourth nothing is told: it stays reserved.
                result = order.choice(["FAILED", "FAILED", "OK", ""])
                mine.append([shared, clerk, "vault.hold", "{}", result])
        order.shuffle(mine)
    for turn in range(rounds):
        for number in range(CALLERS // 2):
            name = f"pair-{turn}-{number}"
            read = site.start(name, "carol")
            # Every other pair is of two sessions of one agent.
            flows = number % 2 == 0
            write = read if flows else site.start(name, "dave")
            token = site.token(name)
            first = [read, token, "crm.profile" if flows else "crm.get", "{}", ""]
            to = '{"to": "eve@evil.example"}' if flows else "{}"
            then = [write, token, "mail.post" if flows else "mail.send", to, ""]
            pairs.append(Pair(name, (first[2], first[0]), (then[2], then[0])))
            # The one reads while the other sends, and then both send.
            reader, sender = calls[number], calls[CALLERS - 1 - number]
            reader += [first, then]
            sender += [then] * 4
    beyond = "BUDGET_EXCEEDED"
    limits = [
        Limit("notes of a session", NOTES, beyond, lambda one: one.operation == "desk.note"),
        Limit("calls of an agent", CALLS, beyond, lambda one: one.operation == "desk.call"),
        Limit("roams without a task", ROAMS, beyond, lambda one: one.operation == "desk.roam"),
        Limit("spending of a subject", SPENDING, beyond, lambda one: one.operation == "bank.pay"),
        Limit("uses of a task", WIPES, "USES_EXHAUSTED", lambda one: one.operation == "desk.wipe"),
        Limit(
            "holds of a session",
            HOLDS,
            beyond,
            lambda one: one.operation == "vault.hold",
            lambda one: one.operation == f"{REPORT} FAILED",
        ),
    ]
    return Script(calls, limits, pairs)


def ask(folder: Path, site: Site, written: Script, kills: int) -> list[Answer]:
    """Runs the callers, each server's in a process of their own, and kills servers meanwhile."""
    clients = []
    for number, server in enumerate(site.servers):
        callers = [
            {"address": lane_of(caller), "calls": calls}
            for caller, calls in enumerate(written.calls)
            if caller % len(site.servers) == number
        ]
        addresses = [server.address(lane) for lane in LANES]
        plan = folder / f"plan-{number}.json"
        plan.write_text(
            json.dumps({"addresses": addresses, "reports_to": addresses[0], "callers": callers})
        )
        clients.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.race.client", plan, folder / f"answers-{number}"],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        )
    moments = random.Random(kills)
    for _ in range(kills):
        time.sleep(moments.uniform(0.2, 1.0))
        if all(client.poll() is not None for client in clients):
            break
        kill(moments.choice(site.servers))
    answers = []
    for number, client in enumerate(clients):
        if client.wait(600):
            raise RuntimeError(f"the callers of server {number} failed")
        for line in (folder / f"answers-{number}").read_text().splitlines():
            _, operation, task, begun, ended, code = json.loads(line)
            answers.append(Answer(operation, task, begun, ended, code))
    return answers


def lane_of(caller: int) -> int:
    """Which lane a caller asks: as many of each, in each session and on each server; of each pair one of both."""
    return caller // 4 % len(LANES)


def kill(server: Server) -> None:
    """Kills a server and starts it again."""
    os.kill(server.pid, signal.SIGKILL)
    assert server.process is not None
    server.process.wait(10)
    server.disconnect()
    server.start()


def run(
    folder: Path, store: str, *, rounds: int = 6, kills: int = 0, database: Postgres | None = None
) -> Figures:
    """Runs once.

    Args:
        folder: An empty folder.
        store: `embedded` or `postgresql`.
        rounds: How many pairs each two callers try.
        kills: How often a server is killed meanwhile.
        database: Of `postgresql`.

    Returns:
        What was done, and found.
    """
    authority = Authority()
    with ExitStack() as stack:
        servers = []
        for number in range(1 if database is None else 2):
            state = {"engine": "embedded", "path": str(folder / "state")}
            if database is not None:
                dsn = f"postgresql://postgres@127.0.0.1:{database.port}/authz"
                state = {"engine": "postgresql", "dsn": dsn}
            place = layout(folder / f"server-{number}", authority, BUNDLE, {"state": state})
            servers.append(stack.enter_context(Server(place)))
        site = Site(servers, authority)
        written = script(site, rounds)
        began = time.monotonic()
        answers = ask(folder, site, written, kills)
        took = time.monotonic() - began
        waits = [quantiles(server) for server in servers]
    reports = sum(one.operation.startswith(REPORT) for one in answers)
    times = sorted(
        one.ended - one.begun
        for one in answers
        if one.code and not one.operation.startswith(REPORT)
    )
    return Figures(
        engine=store,
        servers=len(servers),
        callers=CALLERS,
        callers_fast=sum(lane_of(caller) for caller in range(CALLERS)),
        kills=kills,
        calls=len(answers) - reports,
        reports=reports,
        unanswered=sum(not one.code for one in answers),
        permits=sum(one.code == PERMITTED for one in answers),
        seconds=round(took, 1),
        calls_per_s=round((len(answers) - reports) / took),
        answer_ms_p50=round(times[len(times) // 2] * 1e3, 2),
        answer_ms_p99=round(times[len(times) * 99 // 100] * 1e3, 2),
        lock_wait_ms_p50=round(max(wait[0] for wait in waits) * 1e3, 2),
        lock_wait_ms_p99=round(max(wait[1] for wait in waits) * 1e3, 2),
        violations=list(violations(answers, written.limits, written.pairs)),
    )


def quantiles(server: Server) -> tuple[float, float]:
    """The median and the 99th percentile of the waits for locks, in seconds, as Prometheus works them out."""
    buckets = sorted(_buckets(server))
    total = buckets[-1][1] if buckets else 0.0
    if not total:
        # It was killed, and decided nothing since.
        return 0.0, 0.0

    def quantile(share: float) -> float:
        below, before = 0.0, 0.0
        for bound, count in buckets:
            if count >= share * total and count > before:
                if bound == float("inf"):
                    return below
                return below + (bound - below) * (share * total - before) / (count - before)
            below, before = bound, count
        return below

    return quantile(0.5), quantile(0.99)


def _buckets(server: Server) -> Iterator[tuple[float, float]]:
    for name, labels, value in server.samples():
        if name == f"{LOCK_WAIT}_bucket":
            yield float(labels["le"]), value


def main() -> int:
    """Runs on each engine and prints.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.race.run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="pairs that each two callers try")
    parser.add_argument("--kills", type=int, default=10, help="how often a server is killed")
    parser.add_argument("--out", type=Path, help="where the figures are written, too")
    arguments = parser.parse_args()
    if arguments.out and engine.build_profile() not in machine.RELEASED:
        parser.error("figures of a development build are not kept: install the release build first")
    figures = []
    with ExitStack() as stack:
        database = None
        if programs() is not None:
            database = stack.enter_context(Postgres())
        for store, of in (("embedded", None), ("postgresql", database)):
            if store == "postgresql" and of is None:
                continue
            for kills in dict.fromkeys((0, arguments.kills)):
                with tempfile.TemporaryDirectory(prefix="authz-race-") as name:
                    done = run(Path(name), store, rounds=arguments.rounds, kills=kills, database=of)
                figures.append(asdict(done))
                sys.stdout.write(json.dumps(asdict(done)) + "\n")
    if arguments.out:
        found = {"machine": machine.facts(ROOT, engine.build_profile()), "runs": figures}
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if any(one["violations"] for one in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
