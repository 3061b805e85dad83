"""The chained audit of a real node: across restarts, a kill and rotations, and after damage."""

import json
import subprocess
from base64 import urlsafe_b64decode
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.audit_log import write_head_key
from tests.support.minting import Authority
from tests.support.people import People, search
from tests.support.postgres import Postgres, programs
from tests.support.server import Layout, Server, layout, run_authz
from tests.support.surfaces import CHECK
from tests.support.waiting import eventually


@pytest.fixture
def place(authority: Authority, tmp_path: Path) -> Layout:
    """A node whose audit is chained, with a key for heads."""
    return _place(authority, tmp_path, "n1")


def _place(authority: Authority, folder: Path, name: str, **more: Any) -> Layout:
    key = write_head_key(folder / f"head-{name}.pem")
    chain = {
        "chain": True,
        "head_key": str(key),
        "head_interval": "100ms",
        "segment_bytes": 65_536,
    }
    changes = {"audit": chain, "node": name, **more}
    return layout(folder / name, authority, "desk", changes)


def _verify(place: Layout, *words: str) -> subprocess.CompletedProcess[str]:
    keys = place.folder / "keys.json"
    if not keys.exists():
        keys.write_text(run_authz("audit", "keys", place.config["audit"]["head_key"]).stdout)
    given = ["--config", str(place.file), "--keys", str(keys), "--format", "json", *words]
    return run_authz("audit", "verify", *given)


def _decide(server: Server, people: People, count: int) -> None:
    for _ in range(count):
        server.call("main", CHECK, search(people.bot, people.alice))


def _texts(verified: subprocess.CompletedProcess[str]) -> Sequence[str]:
    return [finding["message"] for finding in json.loads(verified.stdout)["findings"]]


def test_a_log_stays_whole_across_restarts_a_kill_and_rotations(
    place: Layout, authority: Authority
) -> None:
    """Every line is proved by signed heads, but for those after the newest."""
    people = People.of(authority)
    for round_ in range(4):
        with Server(place) as server:
            _decide(server, people, 20)
            status = json.loads(
                run_authz("status", "--admin", server.address("admin"), "--format", "json").stdout
            )
            assert status["engine"]["audit"]["segment"] >= 1, status["engine"]["audit"]
            if round_ == 1:
                place.audit.rename(place.audit.with_name("audit.jsonl.moved"))
                _decide(server, people, 20)
            if round_ == 2:
                assert server.process is not None
                server.process.kill()
                server.process.wait()
    verified = _verify(place)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    result = json.loads(verified.stdout)
    assert result["findings"] == []
    assert result["lines"] >= 100
    assert result["segments"] >= 2
    assert result["unproved"] == 0, "the node wrote a head when it stopped"
    assert result["signatures"] == result["heads"] >= 2
    assert len(result["keys"]) == 1


def test_a_refused_reload_has_one_record(place: Layout, authority: Authority) -> None:
    """The record names the refused bundle, the bundle in use and the error, and the log stays whole. A reader finds it."""
    people = People.of(authority)
    folder = place.folder / "bundle"
    with Server(place) as server:
        status = ("status", "--admin", server.address("admin"))
        _decide(server, people, 1)
        (folder / "policies" / "more.cedar").write_text("permit(")
        for _ in range(3):
            assert run_authz(*status, "--reload").returncode == 1
        (folder / "policies" / "more.cedar").unlink()
        assert run_authz(*status, "--reload").returncode == 0
        (folder / "bundle.yaml").write_text("name: desk\nhunter2-password: 1\n")
        assert run_authz(*status, "--reload").returncode == 1
        _decide(server, people, 1)
    records = [json.loads(line) for line in place.audit.read_text().splitlines()]
    loaded = next(one["loaded"] for one in records if "loaded" in one)
    first, second = (one["refused"] for one in records if "refused" in one)
    assert {first["in_use"], second["in_use"]} == {loaded["digest"]}
    assert len({first["digest"], second["digest"], loaded["digest"]}) == 3
    assert first["errors"][0]["at"].startswith("policies/more.cedar:1")
    assert (first.get("unrecorded", 0), second["unrecorded"]) == (0, 2)
    assert "hunter2-password" not in place.audit.read_text()
    verified = _verify(place)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    out = place.folder / "report"
    first_day, last_day = (records[number]["timestamp"][:10] for number in (0, -1))
    days = ("--from", first_day, "--to", last_day)
    made = run_authz("audit", "report", "--log", str(place.audit), *days, "--output", str(out))
    assert made.returncode == 0, made.stderr
    rows = (out / "refused_loads.csv").read_text().splitlines()
    assert len(rows) == 3
    assert first["digest"] in rows[1]


def test_a_changed_log_is_found_by_the_verifier_and_by_the_node(
    place: Layout, authority: Authority
) -> None:
    """A changed record is found, and a log that was cut while the node was down."""
    people = People.of(authority)
    with Server(place) as server:
        _decide(server, people, 20)
    whole = place.audit.read_text()
    lines = whole.splitlines(keepends=True)
    place.audit.write_text(whole.replace('"PERMIT"', '"DENY"', 1))
    changed = _verify(place)
    assert changed.returncode == 2
    assert any("was changed" in text for text in _texts(changed))
    place.audit.write_text("".join(lines[:-3]))
    cut = _verify(place)
    assert cut.returncode == 2
    assert any("the last 3 lines of segment" in text for text in _texts(cut))
    with Server(place) as server:
        warnings = server.readiness()["engine"]["warnings"]
        assert any("the last 3 lines of segment" in text for text in warnings), warnings
        _decide(server, people, 5)
    assert any("3 lines" in text for text in _texts(_verify(place)))


def test_a_key_that_others_can_read_is_refused(place: Layout) -> None:
    """The node does not start, and says which file it is."""
    Path(place.config["audit"]["head_key"]).chmod(0o644)
    refused = run_authz("serve", "--config", str(place.file))
    assert refused.returncode == 3
    assert "head-n1.pem" in refused.stderr


def _witnessed(place: Layout) -> Sequence[int]:
    """Returns the numbers of lines that recorded heads of other nodes speak of."""
    lines = place.audit.read_text().splitlines() if place.audit.exists() else []
    heads = [head for line in lines for head in json.loads(line).get("heads", ())]
    payloads = [head["payload"] + "=" * (-len(head["payload"]) % 4) for head in heads]
    return [json.loads(urlsafe_b64decode(payload))["count"] for payload in payloads]


def _has_more(place: Layout, before: Sequence[int]) -> bool:
    return len(_witnessed(place)) > len(before)


@pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed (Debian: postgresql)")
def test_nodes_of_a_store_witness_each_other(authority: Authority, tmp_path: Path) -> None:
    """Each node records the heads of the other, which prove later that a log was cut, whatever stands beside it."""
    people = People.of(authority)
    with Postgres() as database:
        dsn = f"postgresql://postgres@127.0.0.1:{database.port}/authz"
        state = {"engine": "postgresql", "dsn": dsn}
        first, second = (_place(authority, tmp_path, name, state=state) for name in ("n1", "n2"))
        with Server(first) as one:
            _decide(one, people, 10)
            # A node stores its head within seconds, and a node that starts records what the store has then.
            for _ in range(10):
                before = _witnessed(second)
                with Server(second):
                    eventually(partial(_has_more, second, before), within=30)
                if max(_witnessed(second)) > 10:
                    break
    whole = _verify(first, "--witness", str(second.audit))
    assert whole.returncode == 0, whole.stdout + whole.stderr
    lines = first.audit.read_text().splitlines(keepends=True)
    assert "loaded" in json.loads(lines[0])
    first.audit.write_text(lines[0])
    first.audit.with_name("audit.jsonl.head").unlink()
    assert _verify(first).returncode == 0, "nothing beside the log tells"
    cut = _verify(first, "--witness", str(second.audit))
    assert cut.returncode == 2
    assert any("of segment 1 are missing" in text for text in _texts(cut)), cut.stdout
