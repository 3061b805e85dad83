"""`authz audit show`: the timeline of one session, whole and of no other session."""

from __future__ import annotations

import gzip
import json
import re
import tracemalloc
from html import unescape
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authz.cli import main
from authz.errors import UsageError
from authz.tools.timeline import Timeline, collect
from tests.support.audit_cases import (
    BOT,
    answer,
    dropped,
    entry,
    expired_approval,
    expired_task,
    held,
    loaded,
    refused,
    report,
    revocation,
    used,
    witnessed,
)
from tests.support.audit_log import LogWriter
from tests.support.records import lines, write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def run(*arguments: str | Path) -> int:
    """Run the command and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["audit", "show", *(str(one) for one in arguments)])
    code = ended.value.code
    return code if isinstance(code, int) else 0


def document(files: Sequence[Path], session: str = "s1", task: str = "") -> dict[str, Any]:
    """Return the timeline as JSON."""
    with collect(files, session, task) as timeline:
        read: dict[str, Any] = json.loads("".join(timeline.json()))
        return read


def ids(files: Sequence[Path], session: str = "s1", task: str = "") -> list[str]:
    """Return the ids of the events, in their order."""
    return [event["decision_id"] for event in document(files, session, task)["events"]]


CASE = [
    entry("start", 0, surface="task_start", session="s1", given={"operation": "task:desk"}),
    entry("read", 1, session="s1", result={"changes": {"labels": ["untrusted"]}}),
    entry("foreign", 1, session="s2", result={"changes": {"labels": ["secret"]}}),
    held("ask", 2, "a1-1", session="s1"),
    held("again", 3, "a1-1", "repeated", session="s1"),
    held("foreign-ask", 3, "a2-1", session="s2"),
    answer("yes", 10, "a1-1", ms=1500),
    answer("foreign-yes", 11, "a2-1"),
    used("pay", 12, "a1-1", session="s1"),
    report("told", 13, "pay", "pii"),
    report("foreign-told", 13, "foreign", "secret"),
    entry(
        "later",
        14,
        session="s1",
        task="s1-child",
        given={"session": {"labels": {"untrusted": "read", "old": "before"}}},
        result={"exceptions": ["old-job"], "breakglass": {"id": "bg", "ticket": "INC-7"}},
    ),
    entry("end", 20, surface="task_end", session="s1"),
]


def test_a_session_is_told_whole(tmp_path: Path) -> None:
    """Calls, the answer of a person and the report of a permit, which name no session, and nothing of another session."""
    file = write(tmp_path / "audit.jsonl", CASE)

    told = document([file])

    events = {event["decision_id"]: event for event in told["events"]}
    assert list(events) == ["start", "read", "ask", "again", "yes", "pay", "told", "later", "end"]
    assert events["read"]["joins"] == ["untrusted"]
    assert events["told"]["report_of"] == "pay"
    assert events["later"]["exceptions"] == ["old-job"]
    assert events["later"]["breakglass"] == {"id": "bg", "ticket": "INC-7"}
    assert events["ask"]["rules"] == ["policy pay (policies/pay.cedar:3)"]
    assert events["yes"]["task"] == "s1-root"
    assert events["pay"]["place"]["line"] == 9
    assert told["summary"]["tasks"] == ["s1-child", "s1-root"]


def test_labels_name_the_call_that_brought_them(tmp_path: Path) -> None:
    """By the call's record, by its report, or by a call of files that are not here."""
    told = document([write(tmp_path / "audit.jsonl", CASE)])
    labels = {one["label"]: one for one in told["labels"]}
    assert sorted(labels) == ["old", "pii", "untrusted"]
    assert (labels["untrusted"]["decision_id"], labels["untrusted"]["carried"]) == ("read", True)
    assert labels["untrusted"]["operation"] == "crm.get"
    assert (labels["pii"]["decision_id"], labels["pii"]["carried"]) == ("pay", False)
    assert (labels["old"]["decision_id"], labels["old"]["operation"]) == ("before", "")


def test_an_approval_is_followed_from_question_to_use(tmp_path: Path) -> None:
    """Who was asked, when a person saw it first, who answered how, and which call used it."""
    (approval,) = document([write(tmp_path / "audit.jsonl", CASE)])["approvals"]
    assert (approval["id"], approval["outcome"]) == ("a1-1", "used")
    assert (approval["asked_by"], approval["repeated"]) == ("ask", 1)
    assert approval["seen_at"] == "2026-11-02T10:00:08.500Z"
    assert approval["used_by"] == ["pay"]
    (given,) = approval["answers"]
    assert given["approval"]["by"] == ["corp/bob"]
    assert given["approval"]["passkey"] == "pk-1"
    assert given["approval"]["decided_in_ms"] == 1500


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ((), "no answer in these files"),
        (("answered",), "answered"),
        (("answered", "approved"), "approved"),
        (("answered", "rejected"), "rejected"),
    ],
)
def test_the_outcome_of_an_approval(tmp_path: Path, events: Sequence[str], outcome: str) -> None:
    """Follows from its answers."""
    answers = [answer(f"n{at}", 10 + at, "a1-1", event) for at, event in enumerate(events)]
    file = write(tmp_path / "audit.jsonl", [held("ask", 1, "a1-1", session="s1"), *answers])
    (approval,) = document([file])["approvals"]
    assert approval["outcome"] == outcome


@pytest.mark.parametrize(
    ("records", "outcome"),
    [
        ([expired_approval("end", 90, "a1-1")], "expired"),
        ([answer("n", 10, "a1-1", "answered"), expired_approval("end", 90, "a1-1")], "expired"),
        (
            [
                answer("n", 10, "a1-1"),
                expired_approval("end", 90, "a1-1", session="s1", was_approved=True),
            ],
            "unused",
        ),
    ],
)
def test_an_approval_that_its_time_ended(
    tmp_path: Path,
    records: Sequence[dict[str, Any]],
    outcome: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the record of the node, whether or not it names the session; the end stands with the calls of the approval."""
    file = write(
        tmp_path / "audit.jsonl", [held("ask", 1, "a1-1", session="s1", task="t1"), *records]
    )
    told = document([file], "s1", "t1")
    (approval,) = told["approvals"]
    assert (approval["outcome"], approval["ended_at"]) == (outcome, "2026-11-02T10:01:30.000Z")
    end = told["events"][-1]
    assert (end["kind"], end["task"], end["node"]) == ("approval expiry", "t1", "n1")
    assert run("--session", "s1", "--log", file) == 0
    text = {
        "expired": "nobody answered in time for approve",
        "unused": "approved, and the call was not made in time",
    }[outcome]
    shown = capsys.readouterr().out
    assert f"ended at 2026-11-02T10:01:30.000Z: {text}" in shown
    assert f"approval a1-1: {text}" in shown
    assert "node n1; task t1; end" in shown


def test_ends_and_loads_of_the_session_stand_between_its_calls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Loads of its nodes from its first to its last record; no end of another session, and no heads."""
    file = write(
        tmp_path / "audit.jsonl",
        [
            loaded("before", 0),
            entry("start", 1, session="s1"),
            loaded("load", 2, "r2", trust="t2"),
            loaded("load-elsewhere", 3, "r2", node="n2"),
            refused("refusal", 2.5),
            refused("refusal-elsewhere", 3, node="n2"),
            witnessed("heads", 3),
            expired_task("foreign-end", 4, "s2"),
            expired_approval("foreign-approval", 4, "a2-1", session="s2"),
            expired_approval("unknown-approval", 5, "a0-1", session="s1"),
            expired_task("child-end", 5, "s1", "s1-child"),
            expired_task("end", 6, "s1", tasks=3),
            loaded("after", 7, "r3"),
        ],
    )
    told = document([file])
    names = ["start", "load", "refusal", "unknown-approval", "child-end", "end"]
    assert [event["decision_id"] for event in told["events"]] == names
    events = {event["decision_id"]: event for event in told["events"]}
    assert (events["end"]["kind"], events["end"]["ended_tasks"]) == ("task expiry", 3)
    assert events["load"]["kind"] == "bundle load"
    assert events["load"]["loaded"] == {
        "bundle": "desk",
        "revision": "r2",
        "digest": "r2" * 4,
        "trust": "t2",
    }
    assert events["refusal"]["kind"] == "refused load"
    assert events["refusal"]["refused"] == {"digest": "d1", "in_use": "d0"}
    assert told["approvals"] == []
    assert told["summary"]["tasks"] == ["s1-child", "s1-root"]
    assert ids([file], "s1", "s1-child") == ["child-end"]
    assert run("--session", "s1", "--log", file) == 0
    shown = capsys.readouterr().out
    assert (
        "the time of task s1-root was over; tasks that ended with it, itself included: 3" in shown
    )
    assert "bundle desk, revision r2, digest r2r2r2r2, trust t2" in shown
    assert "refused bundle d1; bundle d0 stays in use" in shown
    assert "tasks.yaml:3: `…` is not a key." in shown


def test_dropped_records_of_the_time_of_the_session_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reader must know that calls of the session may be missing: by the times of the decisions, not of the record."""
    file = write(
        tmp_path / "audit.jsonl",
        [
            dropped("before", 1, 5),
            entry("a", 2, session="s1"),
            entry("b", 4, session="s1"),
            dropped("meanwhile", 9, 7, first=3),
            dropped("after", 9, 2, first=8),
            {**dropped("odd", 3), "dropped": {"count": "x", "first": 1, "last": None}},
        ],
    )
    told = document([file])
    assert [event["decision_id"] for event in told["events"]] == ["a", "b", "meanwhile"]
    assert told["events"][2]["kind"] == "dropped records"
    assert told["events"][2]["dropped_count"] == 7
    assert run("--session", "s1", "--log", file) == 0
    shown = capsys.readouterr().out
    assert "decisions of the node without records, since the audit queue was full: 7" in shown


def test_facts_and_digests_of_an_approved_call_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that a reader can compare them with the card."""
    approval = {"id": "a1", "event": "consumed", "digest": "d" * 8, "card_digests": ["c1", "c2"]}
    call = entry(
        "pay", 1, session="s1", given={"facts": {"tier": 1}}, result={"approval": approval}
    )
    assert run("--session", "s1", "--log", write(tmp_path / "audit.jsonl", [call])) == 0
    shown = capsys.readouterr().out
    assert 'facts that policies could read: {"tier": 1}' in shown
    assert "digest of the call: dddddddd" in shown
    assert "digests of the cards that the approvers saw: c1, c2" in shown


def test_events_stand_by_time_then_by_the_chain(tmp_path: Path) -> None:
    """In whatever order the files are given, packed or not."""
    log = LogWriter(tmp_path)
    first = log.write([entry("a", 1, session="s1"), entry("b", 2, session="s1")], sealed=True)
    last = log.write([entry("c", 2, session="s1"), entry("d", 0, session="s1")])
    packed = tmp_path / "first.gz"
    packed.write_bytes(gzip.compress(first.read_bytes()))
    for files in ([last, first], [packed, last]):
        assert ids(files) == ["d", "a", "b", "c"]
    event = document([last, first])["events"][3]
    assert (event["place"]["segment"], event["place"]["line"]) == (2, 1)


def test_a_refusal_by_an_older_approval_brings_no_other_session(tmp_path: Path) -> None:
    """A remembered rejection names the approval of another task, whose answer belongs there."""
    refused = held(
        "no",
        30,
        "a2-1",
        "refused",
        session="s1",
        result={"outcome": "DENY", "reason_code": "APPROVAL_REJECTED"},
    )
    file = write(
        tmp_path / "audit.jsonl", [*CASE, answer("theirs", 12, "a2-1", "rejected"), refused]
    )
    told = document([file])
    names = [event["decision_id"] for event in told["events"]]
    assert "no" in names
    assert "theirs" not in names
    assert [one["id"] for one in told["approvals"]] == ["a1-1"]


def test_a_task_is_shown_alone(tmp_path: Path) -> None:
    """With or without its session."""
    file = write(tmp_path / "audit.jsonl", CASE)
    assert ids([file], "s1", "s1-child") == ["later"]
    assert ids([file], "", "s1-child") == ["later"]
    assert "yes" in ids([file], "", "s1-root")
    with pytest.raises(UsageError, match="no record of session s2 and task s1-child"):
        ids([file], "s2", "s1-child")


def test_a_session_without_a_task(tmp_path: Path) -> None:
    """Its id stands in `input.session`."""
    file = write(
        tmp_path / "audit.jsonl",
        [entry("one", 1, given={"session": {"id": "loose", "labels": {}}}), entry("other", 2)],
    )
    assert ids([file], "loose") == ["one"]


def test_revocations_that_end_the_session(tmp_path: Path) -> None:
    """Of the session, its tasks, and its principals while its tasks can live."""
    day = 24 * 3600
    file = write(
        tmp_path / "audit.jsonl",
        [
            revocation("early", -5, "agent", BOT),
            *CASE,
            revocation("agent", 21, "agent", BOT),
            revocation("subject", 22, "subject", "corp/alice"),
            revocation("task", 23, "task", "s1-child"),
            revocation("session", 24, "session", "s1"),
            revocation("other-session", 25, "session", "s2"),
            revocation("other-agent", 25, "agent", BOT + "2"),
            revocation("late", 22 + day, "agent", BOT),
        ],
    )
    assert ids([file])[-4:] == ["agent", "subject", "task", "session"]
    assert "early" not in ids([file])


def test_a_record_that_stands_twice_is_shown_once(tmp_path: Path) -> None:
    """As a record that was written at the moment of a rotation; the summary tells it."""
    one = entry("one", 1, session="s1")
    files = [write(tmp_path / "a", [one]), write(tmp_path / "b", [one])]
    told = document(files)
    assert (len(told["events"]), told["summary"]["repeated"]) == (1, 1)


@pytest.mark.parametrize("turned", [False, True])
def test_a_permit_that_was_not_answered(tmp_path: Path, *, turned: bool) -> None:
    """Is marked, and the denial in its place stands after it."""
    result = {"outcome": "DENY", "reason_code": "AUDIT_FULL", "instead_of": "PERMIT"}
    records = [entry("one", 1, session="s1"), entry("one", 1, session="s1", result=result)]
    file = write(tmp_path / "audit.jsonl", records[::-1] if turned else records)
    events = {event["outcome"]: event["answered"] for event in document([file])["events"]}
    assert events == {"PERMIT": False, "DENY": True}


def test_damaged_lines_are_told_with_their_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In each format, and on standard error."""
    file = tmp_path / "audit.jsonl"
    file.write_text("not json\n" + lines(CASE) + '[1]\n{"decision_id": "x"')
    damaged = [(str(file), 1), (str(file), 2 + len(CASE)), (str(file), 3 + len(CASE))]
    for form in ("text", "html"):
        assert run("--session", "s1", "--log", file, "--format", form) == 0
        said = capsys.readouterr()
        assert all(f"{name}:{line}: " in said.out for name, line in damaged)
        assert "3 lines of the files are not records" in said.err
    told = document([file])["damaged_lines"]
    assert [(one["file"], one["line"]) for one in told] == damaged


def test_an_unknown_session_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So that a mistyped id does not pass for an empty session."""
    file = write(tmp_path / "audit.jsonl", CASE)
    out = tmp_path / "page.html"
    assert run("--session", "s9", "--log", file, "--output", out) == 1
    assert "no record of session s9" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["audit.jsonl"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ((), "give --session or --task"),
        (("--session", "s1", "--format", "pdf"), "text, html or json"),
    ],
)
def test_wrong_use(
    words: Sequence[str], error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Is refused before a file is read."""
    assert run(*words, "--log", tmp_path / "missing") == 1
    assert error in capsys.readouterr().err


def _hostile(text: str) -> list[dict[str, Any]]:
    """Records with a text in every member that is shown."""
    approval = {"id": text, "event": "made", "by": [text], "queues": [text], "why": text}
    given = {
        "operation": text,
        "arguments": {text: text},
        "resource": text,
        "uncleared_labels": [text],
        "chain": [{"kind": "Agent", "id": text}],
        "session": {"labels": {text: text}, "remembered": {text: text}, "written": {text: text}},
        "credential": {"jti": text},
    }
    result = {
        "outcome": "DENY",
        "reason_code": text,
        "message": text,
        "tier": text,
        "controls": [text],
        "step_up_kinds": [text],
        "rules": [{"kind": text, "name": text, "file": text, "line": 1}],
        "changes": {"labels": [text], "written": [text], "denials": text},
        "origins": {text: [text]},
        "exceptions": [text],
        "breakglass": {"id": text, "ticket": text},
        "obligations": [text],
        "approval": approval,
    }
    return [
        entry(text, 1, session="s1", task=text, given=given, result=result),
        entry(
            "start",
            2,
            surface="task_start",
            session="s1",
            given={"task": {"id": text, "session": "s1", "template": text}},
        ),
        answer("yes", 3, text, method=text, acr=text, reject_reason=text),
        revocation("out", 4, "session", "s1", reason=text, by=text),
        expired_task("end", 5, "s1", text, node=text),
        _with({"queues": [text]}, expired_approval("approval-end", 6, text, session="s1")),
        {**loaded("load", 3, text, trust=text), "labels": {"id": text}},
    ]


def _with(more: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """The end of an approval with other members."""
    return {**record, "expired": {**record["expired"], **more}}


HOSTILE = "<script>alert(1)</script>\"'\x1b[31m\n\ud800<img src=x onerror=a>"


def test_a_page_holds_no_markup_of_a_record(tmp_path: Path) -> None:
    """Every text of a record is escaped; the page has no script and fetches nothing."""
    file = write(tmp_path / "audit.jsonl", _hostile(HOSTILE))
    out = tmp_path / "page.html"
    assert run("--session", "s1", "--log", file, "--format", "html", "--output", out) == 0
    page = out.read_text()
    assert out.stat().st_mode & 0o777 == 0o600
    assert page.count("&lt;script&gt;") > 30
    assert (
        re.search(r"<script|<img|<a |src=|href=|url\(|\x1b", page.replace("&lt;img src=x", ""))
        is None
    )
    assert "default-src 'none'" in unescape(page.partition("<h1>")[0])
    assert "No call asked" not in page
    assert len(re.findall(r"<!doctype html>", page)) == 1


def test_a_terminal_gets_no_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does a program get bytes that are not characters."""
    file = write(tmp_path / "audit.jsonl", _hostile(HOSTILE))
    for form in ("text", "json"):
        assert run("--session", "s1", "--log", file, "--format", form) == 0
        said = capsys.readouterr().out
        assert "\x1b" not in said
        assert "<script>" in said
        said.encode()


def test_members_of_other_types_read_as_empty(tmp_path: Path) -> None:
    """Another version, or somebody else, may have written them."""
    strange: list[Any] = [None, 7, "x", [], {}, [7], {"a": 7}, True]
    records = []
    for number, value in enumerate(strange):
        names = (
            "labels",
            "uncleared_labels",
            "session",
            "report",
            "revoked",
            "credential",
            "asked",
        )
        given = dict.fromkeys(names, value)
        members = (
            "changes",
            "origins",
            "approval",
            "rules",
            "exceptions",
            "breakglass",
            "controls",
        )
        one = entry(
            f"n{number}", number, session="s1", given=given, result=dict.fromkeys(members, value)
        )
        one["labels"] = value
        records.append(one)
        named = {"decision_id": f"node{number}", "labels": value, "timestamp": value}
        records += [
            {**named, "loaded": value},
            {**named, "expired": value},
            {**named, "expired": {"session": "s1", "task": value, "approval": value}},
        ]
    ends = 1  # `task` is a text in one of them, which names the session then.
    assert len(ids([write(tmp_path / "audit.jsonl", records)])) == len(strange) + ends


RECORDS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "entry",
                "held",
                "repeated",
                "refused",
                "relied",
                "answer",
                "used",
                "report",
                "revocation",
                "task-end",
                "approval-end",
            ]
        ),
        st.sampled_from(["s1", "s2", ""]),
        st.integers(0, 3),
        st.integers(0, 40),
    ),
    max_size=14,
)


def _made(name: str, kind: str, session: str, number: int, at: int) -> dict[str, Any]:
    """A record of some kind. Approvals belong to one session, as those of a node do."""
    approval = f"{session or 'none'}-{number}"
    made = {
        "entry": lambda: entry(name, at, session=session),
        "held": lambda: held(name, at, approval, session=session),
        "repeated": lambda: held(name, at, approval, kind, session=session),
        "relied": lambda: held(name, at, approval, kind, session=session),
        "refused": lambda: held(name, at, f"s{1 + number % 2}-{number}", kind, session=session),
        "answer": lambda: answer(name, at, approval),
        "used": lambda: used(name, at, approval, session=session),
        "report": lambda: report(name, at, f"d{number}"),
        "revocation": lambda: revocation(name, at, "session", session or "s3"),
        "task-end": lambda: expired_task(name, at, session or "s3"),
        "approval-end": lambda: expired_approval(name, at, approval, session=session or "s3"),
    }
    return made[kind]()


@settings(max_examples=60, deadline=None)
@example(kinds=[("entry", "s1", 0, 0), ("task-end", "s1", 0, 0), ("report", "s1", 1, 0)])
@given(kinds=RECORDS)
def test_no_row_of_another_session(
    kinds: list[tuple[str, str, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every event is of the session, by its own word or by the id of a call that is of it."""
    records = [_made(f"d{place}", *kind) for place, kind in enumerate(kinds)]
    ends = [one for one in records if "expired" in one]
    records = [one for one in records if "expired" not in one]
    own = {
        one["decision_id"] for one in records if one["input"].get("task", {}).get("session") == "s1"
    }
    asked = {
        one["result"]["approval"]["id"]
        for one in records
        if one["decision_id"] in own
        and one["result"].get("approval", {}).get("event")
        in {"made", "repeated", "relied", "consumed"}
    }
    expired = [one for one in ends if one["expired"]["session"] == "s1"]
    task_ends = {one["decision_id"] for one in expired if "task" in one["expired"]}
    expected = own | {one["decision_id"] for one in expired}
    for one in records:
        about = one["input"].get("report", {}).get("decision_id")
        surface = one["labels"]["surface"]
        if about in own or one["input"].get("revoked", {}).get("value") == "s1":
            expected.add(one["decision_id"])
        if surface == "approval_resolve" and one["result"]["approval"]["id"] in asked:
            expected.add(one["decision_id"])
    file = write(tmp_path_factory.mktemp("log") / "audit.jsonl", [*records, *ends])
    if not own | task_ends:
        with pytest.raises(UsageError):
            ids([file])
        return
    assert set(ids([file])) == expected


def test_arguments_are_told_as_the_record_has_them(tmp_path: Path) -> None:
    """Texts are digests there. Arguments that nest without end do not stop the timeline."""
    digest = "sha256:822b33ad87c148a0a20a5ba7cd5ebcaa68d36a18e7aad165554903f52ca82757"
    one = entry("one", 1, session="s1", given={"arguments": {"to": digest, "amount": 870}})
    deep = json.dumps(entry("deep", 2, session="s1", given={"arguments": "DEEP"}))
    file = tmp_path / "audit.jsonl"
    for depth in (10, 500, 900, 950, 990):
        nested = deep.replace('"DEEP"', "[" * depth + "7" + "]" * depth)
        file.write_text(lines([one]) + nested + "\n")
        told = document([file])
        events = {event["decision_id"]: event for event in told["events"]}
        assert json.loads(events["one"]["arguments"]) == {"to": digest, "amount": 870}
        assert ("deep" in events) != bool(told["damaged_lines"])


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    """The records of the session are kept on disk, and those of others are not kept."""
    file = tmp_path / "audit.jsonl"
    with file.open("w") as out:
        for number in range(6_000):
            session = "s1" if number % 2 else "s2"
            out.write(
                json.dumps(entry(f"d{number}", number, session=session, given={"x": "y" * 2_000}))
                + "\n"
            )

    def count(timeline: Timeline) -> int:
        return sum(1 for _ in timeline.events())

    tracemalloc.start()
    try:
        with collect([file], "s1") as timeline:
            assert count(timeline) == 3_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * 1_048_576
