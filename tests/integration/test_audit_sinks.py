"""Delivery of the audit of a real node to receivers of this process: across outages, kills and rotations."""

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.audit_log import write_head_key
from tests.support.audit_receiver import AuditReceiver
from tests.support.log_collector import LogCollector
from tests.support.minting import Authority
from tests.support.people import People, search
from tests.support.server import Layout, Server, layout, run_authz
from tests.support.surfaces import CHECK
from tests.support.waiting import eventually, free_port


def _place(folder: Path, authority: Authority, sink: dict[str, Any], **audit: Any) -> Layout:
    """Lay out a node with one sink."""
    sink = {"batch_age": "100ms", **sink}
    return layout(
        folder / "node",
        authority,
        "desk",
        {"audit": {"sinks": {"siem": sink}, **audit}, "node": "n1"},
    )


def _chain(folder: Path) -> dict[str, Any]:
    key = write_head_key(folder / "head.pem")
    return {
        "chain": True,
        "head_key": str(key),
        "head_interval": "100ms",
        "segment_bytes": 65_536,
    }


def _decide(server: Server, people: People, count: int) -> None:
    for _ in range(count):
        server.call("main", CHECK, search(people.bot, people.alice))


def _status(server: Server) -> tuple[int, dict[str, Any]]:
    done = run_authz("audit", "status", "--admin", server.address("admin"), "--format", "json")
    return done.returncode, json.loads(done.stdout)


def _undelivered(server: Server) -> int:
    return int(_status(server)[1]["sinks"]["siem"]["undelivered"]["bytes"])


def _written(place: Layout) -> Sequence[bytes]:
    """Return every line of the log, in its order."""
    files = [*sorted(place.audit.parent.glob("audit.jsonl.0*")), place.audit]
    return [line for file in files for line in file.read_bytes().splitlines(keepends=True)]


@pytest.fixture
def people(authority: Authority) -> People:
    """People who call."""
    return People.of(authority)


def test_a_sink_has_the_whole_log_after_outages_kills_and_rotations(
    tmp_path: Path, authority: Authority, people: People
) -> None:
    """In order, without a hole; what the sink has can be verified by itself."""
    port = free_port()
    place = _place(
        tmp_path, authority, {"http": {"url": f"http://127.0.0.1:{port}/audit"}}, **_chain(tmp_path)
    )
    got = tmp_path / "got"
    for round_ in range(3):
        with Server(place) as server:
            # The sink is down at first.
            _decide(server, people, 30)
            _, status = _status(server)
            assert status["sinks"]["siem"]["undelivered"]["bytes"] > 0
            with AuditReceiver(got, port) as receiver:
                receiver.stores_before_it_fails = True
                receiver.statuses = [500, 429]
                _decide(server, people, 30)
                eventually(lambda: receiver.records, what="the first records")
                if round_ == 1:
                    assert server.process is not None
                    server.process.kill()
                    server.process.wait()
            assert receiver.defects == []
    with Server(place) as server, AuditReceiver(got, port) as receiver:
        eventually(lambda: _undelivered(server) == 0, what="everything is delivered")
        _, status = _status(server)
        sink = status["sinks"]["siem"]
        assert sink["gaps"]["count"] == 0, status
        assert sink["delivered"]["segment"] == status["segment"]
        assert server.metric("authz_audit_undelivered_bytes", sink="siem") == 0
        assert server.metric("authz_audit_delivery_gaps_total", sink="siem") == 0
        assert server.metric("authz_audit_undelivered_age_seconds", sink="siem") == 0
    assert receiver.defects == []
    names = sorted(str(file) for file in (got / "records").rglob("*.ndjson"))
    lines = [line for name in names for line in Path(name).read_bytes().splitlines(keepends=True)]
    written = _written(place)
    assert lines == list(written)
    keys = tmp_path / "keys.json"
    keys.write_text(run_authz("audit", "keys", str(tmp_path / "head.pem")).stdout)
    verified = run_authz(
        "audit", "verify", "--delivered", str(got), "--keys", str(keys), "--format", "json"
    )
    result = json.loads(verified.stdout)
    assert verified.returncode == 0, verified.stdout
    assert result["lines"] == result["proved"] == len(written)
    assert result["segments"] >= 2


def test_kills_at_any_moment_leave_no_hole(
    tmp_path: Path, authority: Authority, people: People
) -> None:
    """Of node and sink, while batches are on their way, and files are moved by another program."""
    chance = random.Random(7)
    with AuditReceiver(tmp_path / "got") as receiver:
        receiver.stores_before_it_fails = True
        sink = {"http": {"url": receiver.url}, "batch_bytes": 4096}
        place = _place(tmp_path, authority, sink, **_chain(tmp_path))
        for _ in range(3):
            receiver.statuses = [chance.choice([204, 204, 500]) for _ in range(4)]
            with Server(place) as server:
                _decide(server, people, chance.randrange(5, 40))
                if chance.random() < 0.5:
                    moved = f"audit.jsonl.{chance.randrange(10**8, 10**9)}"
                    place.audit.rename(place.audit.with_name(moved))
                    _decide(server, people, 1)
                    eventually(lambda: place.audit.stat().st_size, what="the node has noticed")
                _decide(server, people, chance.randrange(1, 20))
                assert server.process is not None
                server.process.kill()
                server.process.wait()
        receiver.statuses = []
        with Server(place) as server:
            eventually(lambda: _undelivered(server) == 0, what="everything is delivered")
            gaps = _status(server)[1]["sinks"]["siem"]["gaps"]
            assert gaps["count"] == 0, gaps
    assert receiver.defects == []
    on_disk = {
        line
        for file in place.audit.parent.glob("audit.jsonl*")
        if not re.search(r"\.(torn|head|sink)", file.name)
        for line in file.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")
    }
    assert on_disk == set(receiver.records)
    verified = run_authz(
        "audit", "verify", "--delivered", str(tmp_path / "got"), "--format", "json"
    )
    assert json.loads(verified.stdout)["findings"] == [], verified.stdout


def test_a_required_sink_that_is_behind_makes_the_node_not_ready(
    tmp_path: Path, authority: Authority, people: People
) -> None:
    """It decides all the same; a sink that is not required is a warning."""
    url = f"http://127.0.0.1:{free_port()}/audit"
    place = _place(tmp_path, authority, {"http": {"url": url}, "max_age": "1s", "required": True})
    with Server(place) as server:
        assert server.readiness()["ready"]
        _decide(server, people, 1)
        eventually(lambda: not server.readiness()["ready"], what="the node is not ready")
        problems = server.readiness()["problems"]
        assert any("audit sink siem: the oldest record" in line for line in problems), problems
        _decide(server, people, 1)
        assert server.metric("authz_audit_undelivered_age_seconds", sink="siem") > 1
        assert server.metric("authz_audit_delivery_errors_total", kind="unreachable") > 0
        code, status = _status(server)
        assert code == 1
        assert not status["sinks"]["siem"]["ok"]
        assert "cannot be reached" in status["sinks"]["siem"]["last_error"]
        shown = run_authz("audit", "status", "--admin", server.address("admin"))
        assert shown.returncode == 1
        assert "NOT ok" in shown.stdout
        whole = run_authz("status", "--admin", server.address("admin"))
        assert re.search(r"siem, \d+ records wait, NOT ok", whole.stdout)
        place.config["audit"]["sinks"]["siem"]["required"] = False
        place.write()
    with Server(place) as server:
        problems = eventually(lambda: _problems(server), what="a warning")
        assert any("audit sink siem" in line for line in problems), problems
        assert server.readiness()["ready"]
    offline = run_authz("audit", "status", "--config", str(place.file), "--format", "json")
    assert offline.returncode == 1
    left = json.loads(offline.stdout)["sinks"]["siem"]["undelivered"]
    assert left["records"] == len(place.audit.read_bytes().splitlines()) >= 2


def test_records_that_logrotate_removed_before_their_delivery_are_told(
    tmp_path: Path, authority: Authority, people: People
) -> None:
    """In the status, the log and the metrics, and still after a restart."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/audit"
    place = _place(tmp_path, authority, {"http": {"url": url}})
    with Server(place) as server:
        for number in range(2):
            _decide(server, people, 3)
            eventually(lambda: _records(server) >= len(place.audit.read_bytes().splitlines()) >= 3)
            place.audit.rename(place.audit.with_name(f"audit.jsonl.{number + 1}"))
        _decide(server, people, 1)
        eventually(lambda: _status(server)[1]["sinks"]["siem"]["undelivered"]["ended_files"] == 2)
        lost = place.audit.with_name("audit.jsonl.2")
        removed = lost.read_bytes().splitlines(keepends=True)
        lost.unlink()
        first = place.audit.with_name("audit.jsonl.1").read_bytes()
    with Server(place) as server, AuditReceiver(tmp_path / "got", port) as receiver:
        eventually(lambda: _undelivered(server) == 0)
        code, status = _status(server)
        gaps = status["sinks"]["siem"]["gaps"]
        assert (code, gaps["count"], gaps["records"]) == (1, 1, len(removed))
        assert server.metric("authz_audit_delivery_gaps_total", sink="siem") == 1
        assert server.metric("authz_audit_undelivered_lost_records_total") == len(removed)
        assert any("audit.jsonl.2 was removed" in line for line in server.readiness()["problems"])
    assert b"".join(receiver.records).startswith(first)
    assert not set(removed) & set(receiver.records)


def _problems(server: Server) -> list[str]:
    return [line for line in server.readiness()["problems"] if "audit sink" in line]


def _records(server: Server) -> int:
    return int(_status(server)[1]["sinks"]["siem"]["undelivered"]["records"])


def test_a_collector_gets_each_record_of_a_node(
    tmp_path: Path, authority: Authority, people: People
) -> None:
    """As OpenTelemetry logs, one for each line."""
    with LogCollector() as collector:
        place = _place(tmp_path, authority, {"otel": {"endpoint": collector.url}})
        with Server(place) as server:
            _decide(server, people, 5)
            eventually(lambda: len(collector.records) >= 5)
            eventually(lambda: _undelivered(server) == 0)
            assert server.metric("authz_audit_delivered_records_total", sink="siem") >= 5
        # The last records leave when the node stops.
        bodies = [record.body.string_value.encode() + b"\n" for record in collector.records]
        assert bodies == list(_written(place))
