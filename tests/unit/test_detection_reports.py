"""What the enforcer of the detection bench reports: what the bundle asks for, and labels as if nothing had been reported."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from authz.bundle import compile_bundle
from authz.model import BundleFiles
from authz_client.result_values import MAX_VALUE_BYTES, MAX_VALUES
from bench.detection import measure, memory
from bench.detection.judge import NOW_MS
from bench.detection.reports import Reports
from tests.support.detecting import (
    NO_DATA_OUT,
    PERMITS,
    READ,
    bundle,
    knowing_events,
    mail,
    scenario,
)

if TYPE_CHECKING:
    import pytest

REPORTED: dict[str, Any] = {
    "catalog": {name: {"kind": "mcp", "reports": "sdk"} for name in ("files", "mail")}
}
RESULT = {
    "id": "r-1",
    "items": [
        {"id": "a", "title": "Survey", "from": "bob@kestrel.example", "tags": ["x", "y"]},
        {"id": "b", "from": "eve@evil.example", "tags": ["z"]},
    ],
}


def reports(*classify: dict[str, Any], **systems: Any) -> Reports:
    """Reports of a bundle with these rules."""
    facts = {
        "catalog": systems or {"mail": {"kind": "mcp", "reports": "sdk"}},
        "classify": classify,
    }
    return Reports.of(BundleFiles("", {"facts.yaml": json.dumps(facts).encode()}))


def test_only_what_the_bundle_asks_for_is_reported() -> None:
    """Ids that were made, fields of the owner or of an author, pairs; what anybody may write is left out."""
    rule = {
        "match": "mail.read",
        "effects": ["read"],
        "yields": {"minimum": ["x"], "maximum": ["x", "y"]},
        "creates": {"id": "/id", "collection": "items"},
        "introduces": [
            {"from": "/items/*/tags/*", "collection": "tags", "by": "owner"},
            {"from": "/items/*/reply_to", "type": "email", "author": "/items/*/from"},
            {"from": "/never", "type": "email", "by": "anybody"},
            {"from": "/never", "type": "email"},
        ],
        "pairs": [
            {"id": "/items/*/id", "name": "/items/*/title", "collection": "items", "by": "owner"},
            {"id": "/never", "name": "/never", "collection": "items"},
        ],
    }
    assert reports(rule).report("mail.read", {}, RESULT) == {
        "result": "ok",
        "labels": ["x", "y"],
        "values": {
            "/id": "r-1",
            "/items/*/from": ["bob@kestrel.example", "eve@evil.example"],
            "/items/*/id": ["a", "b"],
            "/items/*/tags/*": ["x", "y", "z"],
            "/items/*/title": ["Survey"],
        },
    }


def test_an_operation_has_the_rule_that_the_bundle_gives_it() -> None:
    """An exact id beats a glob, the first glob counts, a case of a split adds what it says."""
    made = reports(
        {"match": "mail.*", "creates": {"id": "/glob"}},
        {"match": "mail.r*", "creates": {"id": "/later"}},
        {
            "match": "mail.read",
            "yields": ["x"],
            "split": {
                "on": "/all",
                "cases": {"true": {"creates": {"id": "/id"}}, "false": {"yields": ["y"]}},
            },
        },
    )
    result = {"glob": "g", "later": "l", "id": 7}
    told = {"result": "ok"}
    assert made.report("mail.rest", {}, result) == {**told, "values": {"/glob": "g"}}
    assert made.report("mail.read", {"all": True}, result) == {
        **told,
        "labels": ["x"],
        "values": {"/id": 7},
    }
    assert made.report("mail.read", {"all": False}, result) == {**told, "labels": ["y"]}
    assert made.report("mail.read", {}, result) == {**told, "labels": ["x"]}


def test_nothing_is_reported_for_a_system_that_nobody_reports_for() -> None:
    """Its catalog entry says who reports."""
    rule = {"match": "mail.read", "creates": {"id": "/id"}}
    for said in ({"kind": "mcp"}, {"kind": "mcp", "reports": "access_log"}):
        made = reports(rule, mail=said)
        assert not made
        assert made.report("mail.read", {}, RESULT) is None
    assert reports(rule)
    assert reports(rule).report("files.read", {}, RESULT) is None


def test_a_report_keeps_the_bounds_of_the_sdk() -> None:
    """Later values and long texts are left out, and so is what is no value."""
    ids = {
        "match": "mail.read",
        "introduces": {"from": "/items/*", "collection": "x", "by": "owner"},
    }
    made = reports(ids)

    def told(*items: Any) -> Any:
        return (made.report("mail.read", {}, {"items": list(items)}) or {}).get("values")

    long = "b" * (MAX_VALUE_BYTES + 1)
    assert told("a", long, 3, True, {"a": 1}, "z") == {"/items/*": ["a", None, 3, True, None, "z"]}
    assert told(long, None) is None
    assert told() is None
    assert len(told(*["v"] * (MAX_VALUES + 5))["/items/*"]) == MAX_VALUES
    assert 40 < len(told(*["v" * MAX_VALUE_BYTES] * 100)["/items/*"]) < 64
    assert told(1.5) == {"/items/*": ["1.5"]}


def outcomes(files: BundleFiles, *steps: Any, told: bool) -> list[str]:
    """Outcome of each step."""
    plan = compile_bundle(files, {}, NOW_MS).plan
    run = measure.run(plan, scenario(*steps), reports=Reports.of(files) if told else None)
    return [answer.outcome for answer in run.answers]


def test_labels_stay_as_they_are_without_reports() -> None:
    """What a call may have brought at most stays, and a call is seen as done."""
    steps = (mail("eve@evil.example"), READ, mail("eve@evil.example"))
    files = bundle(PERMITS + NO_DATA_OUT, **REPORTED)
    assert outcomes(files, *steps, told=False) == ["PERMIT", "PERMIT", "DENY"]
    assert outcomes(files, *steps, told=True) == ["PERMIT", "PERMIT", "DENY"]
    rule = {"require": "files.read_file", "before": "mail.send_email"}
    policy = """@id("order") forbid(principal, action == Action::"mail.send_email", resource)
    when { context.sequences.contains(Sequence::"first-read") };"""
    files = bundle(PERMITS + policy, sequences={"first-read": rule}, **REPORTED)
    assert outcomes(files, *steps, told=False) == ["DENY", "PERMIT", "DENY"]
    assert outcomes(files, *steps, told=True) == ["DENY", "PERMIT", "PERMIT"]


def test_a_days_calls_are_reported_too() -> None:
    """As those of a play: a rule that waits for what came of a call sees it."""
    rule = {"require": "files.read_file", "before": "mail.send_email"}
    policy = """@id("order") forbid(principal, action == Action::"mail.send_email", resource)
    when { context.sequences.contains(Sequence::"first-read") };"""
    files = bundle(PERMITS + policy, sequences={"first-read": rule}, **REPORTED)
    days = [memory.day("mail", seed) for seed in range(2)]
    told, untold = (
        memory.cost(files, "per_task", days, reported=reported) for reported in (True, False)
    )
    assert 0 < told.denied < untold.denied
    same = bundle(PERMITS + NO_DATA_OUT, **REPORTED)
    told, untold = (
        memory.cost(same, "none", days, reported=reported) for reported in (True, False)
    )
    assert told == untold


CREATE = {
    "call": "calendar.create_event",
    "with": {"title": "Call", "start": "2026-12-01 10:00"},
}


def cancel(event: str) -> dict[str, Any]:
    """Cancels an event."""
    return {"call": "calendar.cancel_event", "with": {"id": event}}


def test_what_a_task_made_is_known_from_its_report_alone() -> None:
    """An id that the back end gave; another event's id stays unknown, and so do all where nothing is reported."""
    files = knowing_events()
    steps = (CREATE, cancel("${1.id}"), cancel("e-team"), cancel("e-board"))
    assert outcomes(files, *steps, told=True) == ["PERMIT", "PERMIT", "STEP_UP", "STEP_UP"]
    assert outcomes(files, *steps, told=False) == ["PERMIT", "STEP_UP", "STEP_UP", "STEP_UP"]


def test_figures_stand_beside_those_without_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle that knows what a task made asks less where it is told."""
    one = scenario(CREATE, cancel("${1.id}"), goal={"none": "events", "where": {"title": "Call"}})
    monkeypatch.setattr(measure, "scenarios", lambda _, kind: (one,) if kind == "honest" else ())
    found = measure.measure("mail", knowing_events())
    assert (found["honest_reached"], found["questions"]) == (1, 0)
    assert found["without_reports"]["honest_reached"] == 0
    assert found["without_reports"]["questions"] == 1
    assert found["careless"]["honest_reached"] == 1
