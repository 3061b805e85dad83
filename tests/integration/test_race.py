"""Callers that run into each other break no rule, and nobody is denied for the crowd; the long form is `make race`."""

from pathlib import Path

import pytest

from tests.race import run
from tests.race.oracle import Answer, Limit, Pair, violations
from tests.support.postgres import Postgres, programs


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kills", [0, 3])
def test_on_one_server(tmp_path: Path, kills: int) -> None:
    """64 callers, half of them on one session; killed meanwhile, it loses no label, no progress and no use."""
    done = run.run(tmp_path, "embedded", rounds=1, kills=kills)

    assert not done.violations, "\n".join(done.violations)
    assert (
        done.permits
        >= run.NOTES + run.CALLS + run.SPENDING + run.WIPES + run.HOLDS - 4 * done.unanswered
    )
    assert kills or done.lock_wait_ms_p99 > 0


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kills", [0, 3])
@pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed (Debian: postgresql)")
def test_on_two_servers(tmp_path: Path, kills: int) -> None:
    """32 callers on each of two servers on one PostgreSQL."""
    with Postgres() as database:
        done = run.run(tmp_path, "postgresql", rounds=1, kills=kills, database=database)

    assert not done.violations, "\n".join(done.violations)
    assert (
        done.permits
        >= run.NOTES + run.CALLS + run.SPENDING + run.WIPES + run.HOLDS - 4 * done.unanswered
    )
    assert kills or done.lock_wait_ms_p99 > 0


def answer(begun: float, code: str, operation: str = "note") -> Answer:
    """An answer that took one second."""
    return Answer(operation, "t", begun, begun + 1, code)


def limited(*answers: Answer) -> list[str]:
    """What the oracle says where two may be permitted."""
    limit = Limit("notes", 2, "BUDGET_EXCEEDED", lambda one: one.operation == "note")
    return list(violations(answers, [limit], []))


def test_the_oracle_counts() -> None:
    """One too many, and one too few."""
    yes, no = "PERMITTED", "BUDGET_EXCEEDED"
    assert limited(answer(0, yes), answer(0, yes), answer(2, no)) == []
    assert limited(answer(0, yes), answer(0, ""), answer(2, no)) == []
    assert limited(*[answer(0, yes)] * 3) == ["notes: 3 were permitted, at most 2 may be"]
    room = "notes: note in t was answered BUDGET_EXCEEDED with room left: 1 of 2 were taken"
    rest = "notes: 1 of 2 were permitted, and then no more"
    assert limited(answer(0, yes), answer(2, no)) == [room, rest]
    assert limited(answer(0, yes), answer(2, no), answer(5, yes)) == [room]
    assert limited(answer(0, "STORE_SLOW")) == [
        "notes: note in t was answered STORE_SLOW with room left: 0 of 2 were taken",
        "notes: 0 of 2 were permitted, and then no more",
        "note in t was answered STORE_SLOW",
    ]


def test_the_oracle_gives_back() -> None:
    """What failed may be permitted once more, from when it is told; what is only reserved, or was done, may not."""
    yes, no = "PERMITTED", "BUDGET_EXCEEDED"

    def said(*answers: Answer) -> list[str]:
        back = "report FAILED"
        limit = Limit(
            "notes", 1, no, lambda one: one.operation == "note", lambda one: one.operation == back
        )
        return list(violations(answers, [limit], []))

    told = answer(2, "TOLD", "report FAILED")
    assert said(answer(0, yes), told, answer(4, yes), answer(6, no)) == []
    assert said(answer(0, yes), told, answer(2, yes)) == []
    assert said(answer(0, yes), told, answer(2, no)) == []
    assert said(answer(0, yes), answer(4, yes), answer(6, "TOLD", "report FAILED")) == [
        "notes: 2 were permitted, at most 1 may be"
    ]
    assert said(answer(0, yes), answer(2, "TOLD", "report OK"), answer(4, yes)) == [
        "notes: 2 were permitted, at most 1 may be"
    ]
    assert said(answer(0, yes), told, answer(4, no)) == [
        "notes: note in t was answered BUDGET_EXCEEDED with room left: 0 of 1 were taken"
    ]
    assert said(answer(0, yes), answer(2, "PERMISSION_DENIED", "report FAILED")) == [
        "report FAILED in t was answered PERMISSION_DENIED"
    ]


def test_the_oracle_orders() -> None:
    """What was asked after the answer must heed it; what was answered before the question must not; between, either may."""
    pair = Pair("p", ("read", "t"), ("send", "t"))

    def said(*answers: Answer) -> list[str]:
        return list(violations(answers, [], [pair]))

    read = answer(10, "PERMITTED", "read")
    assert said(read, answer(9.5, "PERMITTED", "send"), answer(10.5, "PERMITTED", "send")) == []
    assert said(read, answer(9.5, "FORBIDDEN", "send"), answer(12, "FORBIDDEN", "send")) == []
    assert said(read, answer(11.5, "PERMITTED", "send")) == [
        "p: send in t was permitted after read"
    ]
    assert said(read, answer(8, "FORBIDDEN", "send")) == ["p: send in t was denied before read"]
    lost = answer(10, "", "read")
    assert said(lost, answer(12, "PERMITTED", "send"), answer(12, "FORBIDDEN", "send")) == []
