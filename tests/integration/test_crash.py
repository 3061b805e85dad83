"""A server that is killed under load loses nothing that it answered; the long form is `make crash`."""

from pathlib import Path

import pytest

from tests.crash import oracle, run
from tests.crash.journal import Entry
from tests.support.effort import effort
from tests.support.leasing import prepare
from tests.support.postgres import Postgres, programs


@pytest.mark.timeout(240)
def test_killed_under_load(tmp_path: Path) -> None:
    """Killed again and again, it has every task and every record that it answered, and no ended task is alive."""
    done = run.run(tmp_path, kills=effort(4, 8), seed=20)
    assert not done.violations, "\n".join(done.violations)
    assert done.tokens >= effort(2, 5)
    assert done.tasks >= effort(5, 10)
    assert done.ended >= 1
    assert done.permits >= effort(20, 50)
    assert done.tallies >= effort(8, 20)


@pytest.mark.timeout(240)
@pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed (Debian: postgresql)")
def test_killed_while_it_leases(tmp_path: Path) -> None:
    """After each kill no credential of an ended task can be used, and no role of one is there."""
    with Postgres() as books:
        prepare(books)
        done = run.run(tmp_path, kills=effort(3, 6), seed=21, books=books)
    assert not done.violations, "\n".join(done.violations)
    assert done.tokens >= 1
    assert done.leases >= 1


def test_a_run_in_which_something_never_happened_shows_nothing_about_it() -> None:
    """Whoever counts no token in a whole run has not tried whether tokens survive it."""
    counts = {"calls": 9, "answered": 9, "tasks": 2, "ended": 1, "permits": 4, "tallies": 3}
    some = run.Outcome(
        **counts, kills=1, seconds=1, restart_s_worst=1, tokens=1, leases=0, violations=[]
    )
    assert some.undone(leased=False) == []
    assert some.undone(leased=True) == ["there were no leases"]
    some.tokens = some.permits = 0
    assert some.undone(leased=False) == ["there were no permits", "there were no tokens"]


def test_the_oracle_finds_credentials_that_live_on_or_are_lost() -> None:
    """In a dead task none is alive; in a live one none is dead before its time."""
    answer = {"token": "a.b.c", "parts": {}, "expires_at": 1000}
    issued = [*tree(), asked("issue", 6, dict(answer), task="child", operation="desk.note")]
    ended = [*issued, asked("end", 8, {"ended": 2}, task="root")]

    def said(entries: list[Entry], *, alive: bool, now: float = 500) -> list[str]:
        return list(oracle.living(oracle.expected(entries), {"a.b.c": (alive, now)}))

    one = "a credential for desk.note of task child"
    assert said(issued, alive=True) == said(ended, alive=False) == []
    assert said(issued, alive=False) == [f"{one} was answered and is lost"]
    assert said(ended, alive=True) == [f"{one}, which has ended, is alive"]
    assert said(issued, alive=True, now=1010) == [f"{one} is alive after its time"]
    assert said(issued, alive=False, now=1010) == []
    late = [*ended, asked("issue", 10, dict(answer), task="child", operation="desk.note")]
    assert oracle.expected(late).late == ["of a credential for desk.note"]


def asked(kind: str, place: int, answered: dict[str, object] | None, **more: str) -> Entry:
    """One call, answered right away or never."""
    return Entry(f"{place}", {"kind": kind, **more}, place, answered, place + 1)


def tree() -> list[Entry]:
    """A root, a child of it, and a permit in the child that is counted."""
    note = {"task": "child", "operation": "desk.note"}
    return [
        asked("start", 0, {"task": "root"}),
        asked("delegate", 2, {"task": "child"}, parent="root"),
        asked("check", 4, {"decision": "d-1", "permit": True}, **note),
    ]


def found(
    entries: list[Entry],
    statuses: dict[str, str] | None = None,
    counted: dict[tuple[str, str], int] | None = None,
    recorded: frozenset[str] = frozenset({"d-1"}),
) -> list[str]:
    """What the oracle says of a server that has both tasks alive, unless told otherwise."""
    alive = {"root": "ACTIVE", "child": "ACTIVE"}
    wanted = oracle.expected(entries)
    return oracle.violations(wanted, statuses or alive, counted or {}, set(recorded))


def test_the_oracle_is_content() -> None:
    """Nothing is wrong with a server that kept everything."""
    assert found(tree(), counted={("root", "desk.note"): 1}) == []


def test_the_oracle_finds_what_is_lost() -> None:
    """A task, a record, a use that is missing, or one too many."""
    assert found(tree(), {"root": "ACTIVE"}) == ["task child was answered and is lost"]
    assert found(tree(), recorded=frozenset()) == ["decision d-1 has no record"]
    assert found(tree(), counted={("root", "desk.note"): 0}) == [
        "desk.note in root was used 1 to 1 times, counted 0"
    ]
    assert found(tree(), counted={("root", "desk.note"): 2}) == [
        "desk.note in root was used 1 to 1 times, counted 2"
    ]


def test_the_oracle_counts_what_is_done_without_a_task() -> None:
    """What was answered is counted, what nobody answered may be, and nothing else is."""
    by = {"task": "", "operation": "desk.tally", "agent": "worker"}
    entries = [
        asked("tally", 0, {"decision": "d-1", "permit": True}, **by),
        asked("tally", 2, {"decision": "d-2", "permit": False}, **by),
        asked("tally", 4, None, **by),
    ]
    wanted = oracle.expected(entries)

    def said(count: int) -> list[str]:
        return oracle.violations(wanted, {}, {}, {"d-1"}, {"worker": count})

    assert said(1) == said(2) == []
    assert said(0) == ["worker did 1 to 2 tallies without a task, counted 0"]
    assert said(3) == ["worker did 1 to 2 tallies without a task, counted 3"]
    assert oracle.violations(wanted, {}, {}, set()) == ["decision d-1 has no record"]


def test_the_oracle_finds_who_lives_on() -> None:
    """What was ended is dead with all below it, and stays so; what nobody ended is alive."""
    ended = [*tree(), asked("end", 6, {"ended": 2}, task="root")]
    dead = {"root": "COMPLETED", "child": "COMPLETED"}
    assert found(ended, dead) == []
    assert found(ended) == [
        "task root has ended and is alive",
        "task child has ended and is alive",
    ]
    assert found(tree(), {"root": "ACTIVE", "child": "EXPIRED"}) == [
        "task child is EXPIRED, and nobody ended it"
    ]
    late = {"task": "child", "operation": "desk.note"}
    after = [*ended, asked("check", 8, {"decision": "d-2", "permit": True}, **late)]
    assert found(after, dead, recorded=frozenset({"d-1", "d-2"})) == [
        "decision d-2 permits in a task that had ended"
    ]
    unknown = [*tree(), asked("end", 6, None, task="root")]
    assert found(unknown) == found(unknown, dead) == []


def test_the_oracle_counts_permits() -> None:
    """More permits than the rules allow are found by the journal alone."""
    note = {"task": "child", "operation": "desk.note"}
    many = [
        asked("check", place, {"decision": f"d-{place}", "permit": True}, **note)
        for place in range(100, 180, 2)
    ]
    recorded = frozenset({"d-1", *(f"d-{place}" for place in range(100, 180, 2))})
    assert found([*tree(), *many], recorded=recorded) == [
        "desk.note in root was permitted 41 times, at most 40 may be",
        "desk.note in child was permitted 41 times, at most 40 may be",
    ]
