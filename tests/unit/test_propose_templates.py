"""`authz propose --templates`: kinds of task from recorded work, and that no log widens one."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz.audit.decision import read_decision
from authz.cli import main
from authz.engine import effect_table
from authz.tools.propose import Evidence, ObservedWork, draft_kinds, kinds_document, task_kinds
from authz.tools.propose.sessions import MOST_OPERATIONS
from tests.support.records import BOT, agent, record, user, write

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from authz.tools.propose.kinds import TaskKinds

BEGIN = datetime(2026, 11, 25, 9, tzinfo=UTC)
EFFECTS = {
    "crm.search": frozenset({"read"}),
    "crm.get": frozenset({"read"}),
    "crm.update": frozenset({"write"}),
    "crm.delete": frozenset({"delete"}),
    "files.read": frozenset({"read"}),
    "mail.send": frozenset({"export"}),
    "wiki.read": frozenset({"read"}),
    "wiki.write": frozenset({"write"}),
}
TIERS = {"crm.delete": "high", "wiki.read": "low"}
ENOUGH = Evidence(3, 2)
_numbers = iter(range(1, 10_000_000))


def call(operation: str, **said: Any) -> dict[str, Any]:
    """A call that is permitted, unless said otherwise."""
    return {"operation": operation, "tier": TIERS.get(operation, "standard"), **said}


def session(
    name: str, subject: str, *calls: dict[str, Any] | str, step: int = 60
) -> list[dict[str, Any]]:
    """Records of a session: one call each minute, unless `step` says another number of seconds."""
    records = []
    for position, one in enumerate(calls):
        said = call(one) if isinstance(one, str) else dict(one)
        one_record = record(
            next(_numbers) % 65_536,
            said.pop("code", "PERMITTED"),
            chain=said.pop("chain", [user(f"corp/{subject}", "staff"), agent(BOT, "assistant")]),
            task=said.pop(
                "task",
                {"id": name, "session": name, "template": "desk", "kind": "root", "depth": 0},
            ),
            **said,
        )
        at = BEGIN + timedelta(seconds=step * position)
        one_record["timestamp"] = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        records.append(one_record)
    return records


def repeated(
    count: int, *calls: dict[str, Any] | str, subjects: Sequence[str] = ("ann", "bob", "cid")
) -> list[dict[str, Any]]:
    """Sessions with the same calls, of several subjects in turn."""
    return [
        one
        for number in range(count)
        for one in session(f"s{next(_numbers)}", subjects[number % len(subjects)], *calls)
    ]


def kinds_of(
    records: Iterable[dict[str, Any]],
    evidence: Evidence = ENOUGH,
    most: int = 12,
    work: ObservedWork | None = None,
) -> TaskKinds:
    """Kinds of task of records."""
    work = work or ObservedWork()
    for one in records:
        work.add(read_decision(one))
    return task_kinds(work, EFFECTS, evidence, most)


def operations(found: TaskKinds) -> list[list[str]]:
    """Operations of each kind."""
    return [sorted(kind.operations) for kind in found.kinds]


def digest(text: str) -> str:
    """A text as a record holds it."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def test_operations_of_similar_sessions_become_one_kind() -> None:
    """Two sets that share half of their operations are one kind; another set is another kind."""
    found = kinds_of(
        [
            *repeated(6, "crm.search", "crm.get", "mail.send"),
            *repeated(4, "crm.get", "mail.send"),
            *repeated(5, "wiki.read", "wiki.write"),
        ]
    )

    assert operations(found) == [
        ["crm.get", "crm.search", "mail.send"],
        ["wiki.read", "wiki.write"],
    ]
    assert [kind.sessions for kind in found.kinds] == [10, 5]
    assert (found.clean, found.covered, found.uncovered) == (15, 15, ())
    assert [kind.name for kind in found.kinds] == ["proposed-mail-send", "proposed-wiki-write"]
    assert found.kinds[0].purpose == "read crm; call mail.send"
    assert found.kinds[1].examples[0].operations == ("wiki.read", "wiki.write")


def test_a_rare_mixture_is_not_covered_and_widens_nothing() -> None:
    """Reading files and sending mail were both common, and together they were rare."""
    found = kinds_of(
        [
            *repeated(6, "crm.get", "mail.send"),
            *repeated(6, "crm.get", "files.read"),
            *repeated(2, "crm.get", "files.read", "mail.send"),
        ]
    )

    assert operations(found) == [["crm.get", "files.read"], ["crm.get", "mail.send"]]
    (uncovered,) = found.uncovered
    assert uncovered.operations == ("crm.get", "files.read", "mail.send")
    assert uncovered.sessions == 2
    assert uncovered.nearest == "proposed-read-crm-and-files"
    assert uncovered.denied == ("mail.send",)


def test_two_kinds_that_would_mix_reading_and_sending_stay_apart() -> None:
    """They share three of five operations; the union would have a pair that no session had."""
    common = ("crm.search", "crm.get", "wiki.read")
    found = kinds_of([*repeated(5, *common, "files.read"), *repeated(5, *common, "mail.send")])

    assert sorted(operations(found)) == [
        ["crm.get", "crm.search", "files.read", "wiki.read"],
        ["crm.get", "crm.search", "mail.send", "wiki.read"],
    ]


@pytest.mark.parametrize(
    ("sessions", "subjects", "kept"),
    [(3, ("ann", "bob"), True), (2, ("ann", "bob"), False), (30, ("ann",), False)],
)
def test_an_operation_needs_sessions_and_subjects(
    sessions: int, subjects: tuple[str, ...], *, kept: bool
) -> None:
    """One subject alone proves nothing, however often it worked."""
    found = kinds_of(repeated(sessions, "crm.get", subjects=subjects))

    assert bool(found.kinds) is kept
    assert (found.rare == ()) is kept


@pytest.mark.parametrize(("sessions", "kept"), [(8, False), (9, True)])
def test_deleting_needs_more_sessions(sessions: int, *, kept: bool) -> None:
    """Three times as many, of three subjects."""
    found = kinds_of(repeated(sessions, "crm.get", "crm.delete"))

    assert any("crm.delete" in kind.operations for kind in found.kinds) is kept
    assert found.rare == (() if kept else (("crm.delete", 8, 3),))


def test_an_operation_of_which_the_bundle_says_nothing_counts_as_one_that_executes() -> None:
    """Without a bundle every operation does."""
    work = ObservedWork()
    for one in repeated(8, "crm.get"):
        work.add(read_decision(one))

    assert not task_kinds(work, None, ENOUGH, 12).kinds
    assert not task_kinds(work, {"crm.get": frozenset()}, ENOUGH, 12).kinds
    gone = task_kinds(work, {}, ENOUGH, 12)
    assert (gone.kinds, gone.gone) == ((), ("crm.get",))


@pytest.mark.parametrize(
    "refused",
    [
        {"code": "FORBIDDEN"},
        {"code": "FORBIDDEN", "enforced": False},
        {"code": "OUT_OF_SCOPE"},
        {"code": "NOT_PERMITTED", "enforced": False},
        {"code": "CONFIRM_REQUIRED", "outcome": "STEP_UP", "enforced": True},
    ],
)
def test_a_session_with_a_denial_shapes_nothing(refused: dict[str, Any]) -> None:
    """Nor one that only `mode: observe` let through, nor one with a held call that nobody agreed to."""
    found = kinds_of(
        [
            *repeated(4, "crm.get"),
            *repeated(9, "crm.get", "mail.send", call("crm.update", **refused)),
        ]
    )

    assert operations(found) == [["crm.get"]]
    assert (found.observed, found.clean) == (13, 4)
    is_denial = refused.get("outcome") != "STEP_UP"
    assert found.refusals == ({refused["code"]: 9} if is_denial else {})
    assert found.held == (0 if is_denial else 9)
    assert found.stopped == (9 if is_denial else 0)


def test_an_unknown_request_counts_against_the_session_in_which_it_was_made() -> None:
    """It is refused before its task is known."""
    lost = {"operation": "", "tier": "", "code": "NO_ROUTE", "enforced": False, "task": None}
    found = kinds_of(repeated(4, "crm.get", lost, "mail.send"))

    assert (found.observed, found.clean) == (4, 0)


def test_a_held_call_that_somebody_agreed_to_counts() -> None:
    """The template still leaves the question to the policies."""
    held = call("mail.send", code="CONFIRM_REQUIRED", outcome="STEP_UP", enforced=True)
    found = kinds_of(repeated(4, held, "mail.send"))

    assert operations(found) == [["mail.send"]]
    (entry,) = found.kinds[0].entries
    assert (entry.most_calls, entry.held) == (1, 4)


def test_calls_without_a_permit_count_only_if_asked_for() -> None:
    """They are what a bundle without policies lets through while it observes."""
    records = repeated(4, call("crm.get", code="NOT_PERMITTED", enforced=False))

    assert not kinds_of(records).kinds
    work = ObservedWork(learns_unpermitted=True)
    assert operations(kinds_of(records, work=work)) == [["crm.get"]]
    enforced = repeated(4, call("crm.get", code="NOT_PERMITTED", enforced=True))
    assert not kinds_of(enforced, work=ObservedWork(learns_unpermitted=True)).kinds


def test_limits_hold_what_enough_sessions_reached() -> None:
    """One session with a thousand calls, of an hour, of a higher tier, moves no limit, and is not covered."""
    many = [call("mail.send") for _ in range(1_000)]
    found = kinds_of(
        [
            *repeated(3, "crm.get", "mail.send", "mail.send", "mail.send", "mail.send"),
            *session("odd", "eve", "crm.get", *many, step=4),
            *session("high", "eve", "crm.get", call("mail.send", tier="critical")),
        ]
    )

    (kind,) = found.kinds
    entry = next(one for one in kind.entries if one.operation == "mail.send")
    assert (entry.most_calls, entry.uses) == (4, 5)
    assert (kind.tier_cap, kind.deadline_seconds) == ("standard", 300)
    denied = {one.denied for one in found.uncovered}
    assert denied == {
        ("more than 5 calls of mail.send", "calls after the deadline"),
        ("mail.send of tier critical",),
    }


def test_a_prefix_is_proposed_where_too_few_sessions_are_outside() -> None:
    """Whole segments, below the collection."""

    def got(id_: str) -> dict[str, Any]:
        return call("crm.get", resource=f'Resource::"customers/{id_}"')

    inside = [
        *repeated(4, got("acme/orders/1"), got("acme/orders/2")),
        *repeated(3, got("acme/bills/1")),
    ]
    (kind,) = kinds_of(inside).kinds
    assert [entry.prefix for entry in kind.entries] == ["acme"]
    found = kinds_of([*inside, *session("odd", "eve", got("globex/1"))])
    assert [entry.prefix for entry in found.kinds[0].entries] == ["acme"]
    assert found.uncovered[0].denied == ("crm.get outside acme",)
    (kind,) = kinds_of([*inside, *repeated(3, got("globex/1"))]).kinds
    assert [entry.prefix for entry in kind.entries] == [""]


def test_arguments_with_one_value_become_limits_or_remarks() -> None:
    """A value in clear is a limit; of a digest a person knows the value; one in each session is a parameter."""
    records = []
    for number in range(6):
        arguments = {
            "method": "get",
            "open": True,
            "repo": digest("own/site"),
            "issue": digest(str(number)),
            "text": digest("a"),
        }
        calls = [
            call("crm.update", arguments=arguments),
            call("crm.update", arguments={**arguments, "text": digest(f"b{number}")}),
        ]
        records += session(f"a{number}", ("ann", "bob")[number % 2], *calls)
    (kind,) = kinds_of(records).kinds
    (entry,) = kind.entries

    assert entry.values == {"method": "get", "open": True}
    assert entry.fixed == ("repo",)
    assert entry.per_session == ("issue",)


def test_work_without_a_task_is_divided_by_pauses() -> None:
    """A pair works all day; what it does within half an hour belongs together."""
    records = []
    for person in ("ann", "bob", "cid"):
        for hour, operation in enumerate(("crm.get", "wiki.read")):
            one = session("", person, call(operation, task=None), call(operation, task=None))
            for entry in one:
                at = datetime.fromisoformat(entry["timestamp"]) + timedelta(hours=hour)
                entry["timestamp"] = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            records += one
    assert operations(kinds_of(records)) == [["crm.get"], ["wiki.read"]]
    whole_day = ObservedWork(pause_seconds=86_400)
    assert operations(kinds_of(records, work=whole_day)) == [["crm.get", "wiki.read"]]


def test_only_the_most_frequent_kinds_are_kept() -> None:
    """The number of the others is said."""
    found = kinds_of(
        [*repeated(5, "crm.get"), *repeated(4, "wiki.read"), *repeated(3, "files.read")], most=2
    )

    assert operations(found) == [["crm.get"], ["wiki.read"]]
    assert (found.dropped, found.covered) == (1, 9)


def test_a_session_with_too_many_operations_is_no_task() -> None:
    """It shapes nothing, and does not stop the others."""
    wide = [f"crm.op{number}" for number in range(MOST_OPERATIONS + 1)]
    found = kinds_of([*repeated(4, "crm.get"), *repeated(4, *wide)])

    assert operations(found) == [["crm.get"]]
    assert found.too_wide == 4


def test_protocol_probes_and_calls_about_tasks_are_no_work() -> None:
    """Nor a report, a sum, or a failure of Authz itself."""
    records = repeated(
        4,
        "crm.get",
        "crm.mcp",
        call("authz.task.read"),
        call("mail.send", mode="PROBE"),
        call("mail.send", code="OVERLOADED", retry="later", enforced=True),
    )
    for one in (reported := repeated(4, "mail.send")):
        one["labels"]["surface"] = "report"

    found = kinds_of([*records, *reported])
    assert operations(found) == [["crm.get"]]
    assert found.clean == 4


def test_the_draft_is_a_template_that_nothing_permits() -> None:
    """Its policies are comments, and name the template."""
    found = kinds_of(
        [*repeated(4, "crm.get", "mail.send", "mail.send"), *repeated(1, "wiki.write")]
    )
    made = draft_kinds(found, ENOUGH, given=True)
    facts = yaml.safe_load(made.facts)

    assert facts == {
        "templates": {
            "proposed-mail-send": {
                "purpose": "read crm; call mail.send",
                "deadline": "5m",
                "tier_cap": "standard",
                "scope": [{"operations": ["crm.get"]}, {"operation": "mail.send", "uses": 2}],
            }
        }
    }
    assert "1 template covers 4 of these 5 sessions (80%)" in made.facts
    assert "#   1 session with wiki.write: no template is near" in made.facts
    assert "#   wiki.write: 1 session, 1 subject" in made.facts
    assert all(line.startswith("//") for line in made.policies.splitlines())
    assert (
        'principal in Role::"staff", action == Action::"task:proposed-mail-send"' in made.policies
    )
    assert 'action == Action::"give:proposed-mail-send"' in made.policies
    document = json.loads(json.dumps(kinds_document(found, ENOUGH)))
    assert document["templates"][0]["template"]["scope"][1] == {"operation": "mail.send", "uses": 2}


def test_agents_that_act_for_nobody_start_their_own_tasks() -> None:
    """Each agent counts as a subject."""
    records = []
    for number in range(4):
        chain = [agent(f"spiffe://corp.example/batch/{number}", "batch")]
        records += session(f"b{number}", "", call("crm.get", chain=chain))
    found = kinds_of(records)
    made = draft_kinds(found, ENOUGH, given=True)

    assert "`starters: [batch]`" in made.facts
    assert 'permit(principal in Role::"batch", action == Action::"task:' in made.policies


def test_no_text_of_a_caller_breaks_out() -> None:
    """Names of arguments, ids, roles and reason codes come from records."""
    evil = 'x"\n);\npermit(principal, action, resource);\n'
    chain = [user("corp/ann", evil), agent(BOT, evil)]
    other = [user("corp/bob", evil), agent(BOT, evil)]
    records = []
    for number in range(6):
        records += session(
            f"e{number}",
            "",
            call(
                "crm.get",
                chain=(chain, other)[number % 2],
                arguments={evil: digest("x"), "fine": evil},
                resource=f'Resource::"customers/{evil}"',
            ),
        )
    records += session("f", "ann", call("crm.get", code=evil, outcome="DENY"))
    found = kinds_of(records)
    made = draft_kinds(found, ENOUGH, given=True)

    assert yaml.safe_load(made.facts)["templates"].keys() == {"proposed-read-crm"}
    assert all(line.startswith("//") for line in made.policies.splitlines())


NAMES = st.sampled_from(sorted(EFFECTS))
CALLS = st.lists(
    st.tuples(NAMES, st.integers(1, 2), st.sampled_from(["low", "standard", "critical"])),
    min_size=1,
    max_size=3,
)
HONEST = st.lists(
    st.tuples(st.sampled_from(["ann", "bob", "cid", "dan"]), CALLS, st.integers(1, 900)),
    max_size=10,
)
MALLORY = st.lists(st.tuples(CALLS, st.integers(1, 3_600)), max_size=8)


def sessions_of(name: str, drawn: list[tuple[str, Any, int]]) -> list[dict[str, Any]]:
    """Records of drawn sessions."""
    records = []
    for number, (subject, calls, step) in enumerate(drawn):
        flat = [call(op, tier=tier) for op, times, tier in calls for _ in range(times)]
        records += session(f"{name}{number}", subject, *flat, step=step)
    return records


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(HONEST, MALLORY, HONEST)
def test_no_log_of_one_subject_widens_a_template(
    honest: list[tuple[str, Any, int]],
    mallory: list[tuple[Any, int]],
    refused: list[tuple[str, Any, int]],
) -> None:
    """However often one subject works, and whatever is done in sessions with a denial: all of a template is honest work.

    Each operation, each mixture of operations of which one does more than read, and each limit was reached in a session of
    another subject without a denial.
    """
    denied = [
        one
        for number, (subject, calls, step) in enumerate(refused)
        for one in session(
            f"d{number}",
            subject,
            *[call(op, tier=tier) for op, _, tier in calls],
            call("crm.get", code="FORBIDDEN", enforced=False),
            step=step,
        )
    ]
    found = kinds_of(
        [
            *sessions_of("h", honest),
            *sessions_of("m", [("mallory", calls, step) for calls, step in mallory]),
            *denied,
        ],
        Evidence(2, 2),
    )

    work = ObservedWork()
    for one in sessions_of("h", honest):
        work.add(read_decision(one))
    kept = list(work.sessions.entries.values())
    table = effect_table()
    for kind in found.kinds:
        names = kind.operations
        for name in names:
            assert any(name in have.operations for have in kept)
            for other in names - {name}:
                if EFFECTS[name] | EFFECTS[other] != {"read"}:
                    assert any({name, other} <= have.operations.keys() for have in kept)
        for entry in kind.entries:
            most = max(
                have.operations[entry.operation].calls
                for have in kept
                if entry.operation in have.operations
            )
            assert entry.most_calls <= most
        tiers = [
            use.tier for have in kept for name, use in have.operations.items() if name in names
        ]
        assert table.rank(kind.tier_cap) <= max(map(table.rank, tiers))
        assert kind.longest_seconds <= max(have.seconds for have in kept)
    assert found.covered + sum(one.sessions for one in found.uncovered) == found.clean


def run(*arguments: str | Path) -> int:
    """Run the command and give its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


def test_json_needs_templates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And goes to standard output."""
    log = write(tmp_path / "audit.jsonl", repeated(9, "crm.get"))
    assert run("propose", "--log", log, "--format", "json") == 1
    assert "--format json needs --templates" in capsys.readouterr().err
    assert (
        run("propose", "--log", log, "--format", "json", "--templates", "-o", tmp_path / "x") == 1
    )
    assert "give --format json or --output" in capsys.readouterr().err
    assert run("propose", "--log", log, "--templates", "--format", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in document["templates"]] == ["proposed-crm-get"]
    empty = write(tmp_path / "empty.jsonl", [])
    assert run("propose", "--log", empty, "--templates") == 0
    assert "nothing to propose: 0 calls" in capsys.readouterr().err
