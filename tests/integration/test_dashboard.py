"""The dashboard: every query of every panel finds something in a real Prometheus that watched a server under load."""

import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from authz_client.v1 import admin_pb2, tasks_pb2
from bench.load.ghz import Ghz, Load
from bench.load.requests import compile_protos, write
from tests.support.collector import Collector
from tests.support.locked import locked_store
from tests.support.minting import Authority
from tests.support.people import BOT, IDLE, People, check, delete, envoy_search, search
from tests.support.prometheus import Prometheus
from tests.support.server import Server, command, layout
from tests.support.stalled import StalledCalls
from tests.support.surfaces import CHECK, ENVOY
from tests.support.tools import find
from tests.support.waiting import eventually

pytestmark = pytest.mark.peers

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "authz.json"
SECONDS = 9.0
# On a busy machine no command answers in three seconds.
MAY_BE_ZERO = {"Answered in under 3 seconds, by queue and rule"}
# The mail system is not enforced yet.
OBSERVE = {"mode": {"systems": {"mail": {"mode": "observe", "owner": "sec@corp.example"}}}}

TEMPLATES = (
    "templates: {search: {purpose: search, deadline: 5m, scope: [{operation: crm.search}]}}\n"
)
# The user of the test answers calls of others; an enforcer of the portal would run under this user, too.
ANSWERS = {
    "approvals": {
        "people": [
            {
                "uid": os.geteuid(),
                "issuer": "corp",
                "sub": "bob",
                "claims": {"groups": ["managers"]},
            }
        ]
    },
    "enforcers": [],
    "listeners": {"portal": None},
}
# An agent that the bundle gives nothing else.
EXCEPTION = """\
  wiki-sync:
    who: "{agent}"
    operations: [wiki.read]
    owner: wiki-team
    reason: the sync could not log in
    ticket: WIKI-1
    expires: {until}
"""
STARTS = """\
@id("wiki-sync") permit(principal, action == Action::"wiki.read", resource)
when { context.exception.contains(Exception::"wiki-sync") };
@id("bosses-answer") permit(principal in Role::"boss", action == Action::"authz.approve", resource);
@id("starts") permit(principal in Role::"staff", action == Action::"task:search", resource);
@id("gives") permit(principal in Role::"staff", action == Action::"give:search", resource);
"""


def queries() -> list[tuple[str, str]]:
    """Title of the panel and PromQL of every query, with Grafana's variables filled in."""
    board: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return [
        (
            panel["title"],
            target["expr"]
            .replace("$__rate_interval", "1m")
            .replace("$__range", "5m")
            .replace("$instance", ".*"),
        )
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]


def test_committed_dashboard_is_what_the_code_gives() -> None:
    """Nobody edits it by hand."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "grafana" / "dashboard.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_no_query_makes_up_a_value() -> None:
    """A panel that shows zero where there is no data hides that a metric is gone."""
    assert len(queries()) > 30
    assert not [text for _, text in queries() if "vector(" in text or "absent" in text]


@pytest.fixture(scope="module")
def watched(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has watched a server through a busy while."""
    folder = tmp_path_factory.mktemp("watched")
    programs = find("ghz"), find("prometheus")
    changes = {
        "limits": {"threads": 1, "queue": 16, "receive_timeout": "300ms"},
        "audit": {
            "sync_interval": "100ms",
            "sinks": {"down": {"http": {"url": "http://127.0.0.1:1/"}, "batch_age": "100ms"}},
        },
        # So few that starting one more is refused.
        "state": {"max_tasks": 3},
        "shadow": {"bundle": str(folder / "shadow")},
        **ANSWERS,
    }
    place = layout(folder / "server", authority, "desk", changes)
    with_observe = place.folder / "bundle" / "mode.yaml"
    with_observe.write_text(yaml.safe_dump(_with_until(OBSERVE)))
    with (place.folder / "bundle" / "facts.yaml").open("a") as facts:
        facts.write(EXCEPTION.format(agent=IDLE, until=_until()))
    (place.folder / "bundle" / "templates.yaml").write_text(TEMPLATES)
    (place.folder / "bundle" / "policies" / "tasks.cedar").write_text(STARTS)
    shutil.copytree(place.folder / "bundle", folder / "shadow")
    with Collector(stalls=True) as collector:
        server = Server(place)
        try:
            server.spawn(
                OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, OTEL_BSP_MAX_QUEUE_SIZE="16"
            )
            eventually(lambda: server.http("/readyz")[0] == 200)
            with Prometheus(folder / "prometheus", server.port("metrics")) as prometheus:
                _be_busy(server, authority, Ghz(programs[0], folder / "protos.bin"), folder)
                _let_people_answer(server, People.of(authority), prometheus)
                yield prometheus
        finally:
            server.close()


def _with_until(mode: dict[str, Any]) -> dict[str, Any]:
    mode["mode"]["systems"]["mail"]["until"] = _until()
    return mode


def _until() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() + 30 * 86400))


def _be_busy(server: Server, authority: Authority, ghz: Ghz, folder: Path) -> None:
    people = People.of(authority)
    compile_protos(ROOT, ghz.protoset)
    data = write(folder / "requests.bin", [search(people.bot, people.alice)])
    failed: list[BaseException] = []

    def load(port: int, concurrency: int) -> None:
        try:
            ghz.samples("check", data, port, Load(concurrency, 0, SECONDS))
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            failed.append(error)

    loads = [
        # More than fits into threads and queue.
        threading.Thread(target=load, args=(server.port("main"), 48)),
        threading.Thread(target=load, args=(server.port("main-fast"), 4)),
        threading.Thread(target=_lock_store, args=(server.place.audit.parent / "state",)),
    ]
    for one in loads:
        one.start()
    ends, turn = time.monotonic() + SECONDS, 0
    while time.monotonic() < ends:
        _round(server, people, authority, turn)
        turn += 1
        time.sleep(0.2)
    for one in loads:
        one.join()
    assert not failed, failed


def _let_people_answer(server: Server, people: People, prometheus: Prometheus) -> None:
    """Lets five transfers wait, approves two, rejects two, and leaves the last one open."""
    for amount in range(3001, 3006):
        transfer = json.dumps({"amount": amount}).encode()
        request = check("bank.transfer", transfer, agent=people.bot, subject=people.boss)
        server.call("main", CHECK, request.SerializeToString())
    # A rate needs samples before and after, so each answer is scraped before the next of its kind.
    for number in (1, 2):
        for verb, event in (("approve", "approved"), ("reject", "rejected")):
            waiting = _approval(server, "list")["approvals"]
            shown = _approval(server, "show", waiting[0]["id"])
            reason = ["--reason", min(shown["reject_reasons"])] if verb == "reject" else []
            _approval(server, verb, shown["id"], "--yes", "--digest", shown["card_digest"], *reason)
            query = f'sum(authz_approvals_total{{event="{event}"}}) == {number}'
            eventually(partial(prometheus.query, query), what=query)


def _approval(server: Server, *words: str) -> Any:
    """Runs `authz approval …` against the administration socket; returns its JSON."""
    words = ("approval", *words, "--format", "json", "--admin", server.address("admin"))
    done = subprocess.run(
        [*command(), *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _lock_store(folder: Path) -> None:
    """Makes transactions of the store fail: they wait for one second."""
    with locked_store(folder / "state.db"):
        time.sleep(SECONDS / 2)


def _round(server: Server, people: People, authority: Authority, turn: int) -> None:
    """One of everything that a panel shows."""
    lane = ("main", "main-fast")[turn % 2]
    to = b'{"to": ["eve@evil.example"], "subject": "x"}'
    transfer = b'{"amount": 2000, "note": "x"}'
    page = b'{"page": "start"}'
    for request in (
        search(people.idle),
        search(None),
        delete(people.bot, people.alice),
        check("mail.send", to, agent=people.bot, subject=people.alice).SerializeToString(),
        check("bank.transfer", transfer, agent=people.bot, subject=people.boss).SerializeToString(),
        check("no.such", agent=people.bot).SerializeToString(),
        check("wiki.read", page, agent=people.idle, subject=people.alice).SerializeToString(),
        check("wiki.archive", page, agent=people.bot, subject=people.alice).SerializeToString(),
    ):
        server.call(lane, CHECK, request)
    server.call(lane, ENVOY, envoy_search(people.bot))
    if turn % 8 == 1:
        _tasks(server, people, authority.alone("alice", groups=["employees"]))
    if turn % 8 == 2:
        with StalledCalls(server.port("main"), CHECK, 2):
            time.sleep(0.7)
    if turn % 4 == 1:
        bundle = server.place.folder / "bundle" / "bundle.yaml"
        whole = bundle.read_text()
        bundle.write_text("what: is this\n" if turn % 8 == 1 else f"{whole}# {turn}\n")
        reload = admin_pb2.ReloadRequest().SerializeToString()
        server.call("admin", "authz.v1.Admin/Reload", reload)
        bundle.write_text(whole)
    if turn % 8 == 4:
        # A folder where the audit file should be: it cannot be written.
        audit = server.place.audit
        audit.rename(audit.with_suffix(f".{turn}"))
        audit.mkdir()
        for _ in range(3):
            server.call(lane, CHECK, search(people.bot, people.alice))
        time.sleep(0.6)
        shutil.rmtree(audit)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_every_query_finds_something(watched: Prometheus) -> None:
    """At least one sample of each is a number, and other than zero but for few."""

    def check() -> bool:
        empty = []
        for title, text in queries():
            # An approval ends with its task, or after a day: that query is tried with an event that happened.
            tried = text.replace('event="expired"', 'event="approved"')
            # On a busy machine the calls may be over for longer than a minute.
            tried = tried.replace("[1m]", "[10m]")
            values = [value for _, value in watched.query(tried)]
            can_be_zero = title in MAY_BE_ZERO
            if not any(math.isfinite(value) and (value or can_be_zero) for value in values):
                empty.append(f"{title}: {text}: {values}")
        assert not empty, "\n".join(empty)
        return True

    # The last scrape has everything.
    eventually(check, within=20, every=0.5, what="every query finds something")


def _tasks(server: Server, people: People, alice: str) -> None:
    """Starts tasks until no more are kept, brings a label into one, and ends it; revokes a token that nobody has. The other listener is busy."""
    request = tasks_pb2.StartRequest(
        evidence=check("", subject=alice).evidence, template="search", assignee=BOT
    )
    started = []
    with suppress(grpc.RpcError):
        for _ in range(4):
            answer = server.call("admin", "authz.v1.Tasks/Start", request.SerializeToString())
            started.append(tasks_pb2.StartResponse.FromString(answer).task.id)
    for task in started[:1]:
        search_in = check("crm.search", b'{"query": "x"}', agent=people.bot, subject=people.alice)
        search_in.task = task
        # A rate needs samples before and after.
        for _ in range(2):
            server.call("main-fast", CHECK, search_in.SerializeToString())
            time.sleep(1.2)
        end = tasks_pb2.EndRequest(task=task, status=tasks_pb2.TASK_STATUS_COMPLETED)
        server.call("admin", "authz.v1.Tasks/End", end.SerializeToString())
    revoke = admin_pb2.AdminRevokeRequest(jti="nobody")
    server.call("admin", "authz.v1.Admin/Revoke", revoke.SerializeToString())
