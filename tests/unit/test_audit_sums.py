"""Sums of refusals and records of the node among the records: counted where decisions are, and no source of proposals."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from authz.audit import RecordedDecision, Span, decisions
from authz.tools.propose import Observations
from authz.tools.why import Groups
from tests.support.audit_cases import expired_approval, expired_task, loaded, witnessed

if TYPE_CHECKING:
    from authz.model import Diagnostic

AT = "2026-11-30T06:00:00.000Z"


def record(number: int, **more: Any) -> dict[str, Any]:
    """The record of a request that no route matches, from nobody."""
    result = {"outcome": "DENY", "reason_code": "NO_ROUTE", "enforced": True}
    asked = {"method": "GET", "host": "crm.example", "path": "/a"}
    return {
        "decision_id": f"d{number}",
        "timestamp": AT,
        "result": result,
        "input": {"asked": asked},
        **more,
    }


def a_sum(count: object, *, outcome: str = "DENY") -> dict[str, Any]:
    """The record of a sum."""
    return {
        "decision_id": "s1",
        "timestamp": AT,
        "sum": {"count": count, "peer": "192.0.2.1", "first": AT, "last": AT},
        "result": {"outcome": outcome, "reason_code": "NO_ROUTE"},
    }


def read(folder: Path, *records: dict[str, Any]) -> list[RecordedDecision]:
    """Reads records from a file."""
    file = folder / "audit.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in records))
    damaged: list[Diagnostic] = []
    found = list(decisions([file], None, Span(), damaged.append))
    assert not damaged
    return found


def test_a_sum_counts_as_so_many(tmp_path: Path) -> None:
    """`authz why` counts it with the refusals of its code."""
    groups = Groups()
    for decision in read(tmp_path, record(1), a_sum(40)):
        groups.add(decision)
    assert groups.decisions == 41
    assert {key.code: group.times for key, group in groups.sorted() if not key.operation} == {
        "NO_ROUTE": 40
    }


def test_a_sum_proposes_nothing(tmp_path: Path) -> None:
    """`authz propose` counts what it has seen, and no more than that."""
    observed = Observations()
    for decision in read(tmp_path, record(1), a_sum(40)):
        observed.add(decision)
    assert observed.all.times == 1
    assert [count.times for count in observed.strange.entries.values()] == [1]
    assert not observed.requests.entries


def test_records_of_the_node_are_no_decisions(tmp_path: Path) -> None:
    """Loads, ends by time and heads of other nodes' logs, and kinds of a later version."""
    notes = [
        loaded("n1", 0),
        expired_task("n2", 1, "s1"),
        expired_approval("n3", 2, "a1"),
        witnessed("n4", 3),
        {"decision_id": "n5", "timestamp": AT, "later": {}},
    ]
    found = read(tmp_path, *notes, record(1), a_sum(40), *notes)
    assert [one.decision_id for one in found] == ["d1", "s1"]


@pytest.mark.parametrize("count", [0, -1, 2**60, 1.5, "many", None, True, [3]])
def test_a_count_that_is_none_is_one(tmp_path: Path, count: object) -> None:
    """What another version or a stranger wrote into the file makes no count absurd."""
    (decision,) = read(tmp_path, a_sum(count))
    assert (decision.times, decision.is_sum) == (1, True)
