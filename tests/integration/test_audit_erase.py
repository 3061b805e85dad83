"""Erasure of texts from the log of a node that runs, and that is started again."""

import json
from pathlib import Path
from typing import Any

from authz.audit import read, rotated
from tests.support.audit_log import write_head_key
from tests.support.audit_receiver import AuditReceiver
from tests.support.minting import Authority
from tests.support.people import People, check
from tests.support.server import Layout, Server, layout, run_authz
from tests.support.surfaces import CHECK
from tests.support.waiting import eventually

SECRET = "secret of alice"


def _place(folder: Path, authority: Authority, url: str) -> Layout:
    """Lay out a node that records texts in a chained log, with one sink."""
    key = write_head_key(folder / "head.pem")
    audit = {
        "chain": True,
        "head_key": str(key),
        "head_interval": "100ms",
        "segment_bytes": 65_536,
        "sinks": {"siem": {"http": {"url": url}, "batch_age": "100ms"}},
    }
    place = layout(folder / "node", authority, "desk", {"audit": audit, "node": "n1"})
    with (place.folder / "bundle" / "bundle.yaml").open("a") as bundle:
        bundle.write("record_texts: [crm]\n")
    return place


def _decide(server: Server, people: People, count: int) -> None:
    arguments = json.dumps({"query": SECRET}).encode()
    request = check("crm.search", arguments, agent=people.bot, subject=people.alice)
    for _ in range(count):
        server.call("main", CHECK, request.SerializeToString())


def _lines(place: Layout) -> list[bytes]:
    files = rotated(place.audit, "", 0)
    return [line for file in files for line in file.read_bytes().splitlines(keepends=True)]


def _with_secret(place: Layout) -> dict[Path, int]:
    return {file: file.read_text().count(SECRET) for file in rotated(place.audit, "", 0)}


def test_texts_of_a_running_node_are_erased(tmp_path: Path, authority: Authority) -> None:
    """The node goes on, its sink gets each record once, and the log verifies and can be read, before a restart and after it."""
    people = People.of(authority)
    with AuditReceiver(tmp_path / "siem") as receiver:
        place = _place(tmp_path, authority, receiver.url)
        with Server(place) as server:
            _decide(server, people, 60)
            eventually(lambda: len(receiver.records) == len(_lines(place)))
            before = _with_secret(place)
            assert len(before) >= 2
            assert all(before.values())
            options = (
                "--subject",
                "corp/alice",
                "--yes",
                "--reason",
                "request 4711",
                "--by",
                "ann",
            )
            ended = run_authz("audit", "erase", *options, "--admin", server.address("admin"))
            assert ended.returncode == 2, ended.stdout + ended.stderr
            assert "its segment is open" in ended.stdout
            # The record of the erasure may end the segment that was open.
            after = _with_secret(place)
            assert [after[file] for file in before if file != place.audit] == [0] * (
                len(before) - 1
            )
            assert sum(after.values()) == before[place.audit]
            _decide(server, people, 40)
            _check_log(place, sum(before.values()) - before[place.audit])
            eventually(lambda: len(receiver.records) == len(_lines(place)))
        with Server(place) as server:
            _decide(server, people, 5)
            eventually(lambda: len(receiver.records) == len(_lines(place)))
        assert receiver.defects == []
        assert len(set(receiver.records)) == len(receiver.records), "no record came twice"
    _check_log(place, sum(before.values()) - before[place.audit])


def _check_log(place: Layout, erased: int) -> None:
    """Verify the log, and read the record of the erasure."""
    verified = run_authz("audit", "verify", "--config", str(place.file), "--format", "json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    result: dict[str, Any] = json.loads(verified.stdout)
    assert (result["findings"], result["erased_texts"]) == ([], erased)
    records = [
        record.fields
        for file in rotated(place.audit, "", 0)
        for record in read(file, lambda _: None)
    ]
    (erasure,) = [one["input"]["erasure"] for one in records if "erasure" in one.get("input", {})]
    assert erasure == {
        "selection": "subject=corp/alice",
        "texts": erased,
        "records": erased,
        "by": "ann",
        "reason": "request 4711",
    }
    searches = [one for one in records if one.get("input", {}).get("operation") == "crm.search"]
    texts = [one["input"]["arguments"]["query"] for one in searches]
    assert sum(text.startswith("salted:") for text in texts) == erased
    assert texts[-1] == SECRET
