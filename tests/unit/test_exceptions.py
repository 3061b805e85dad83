"""Standing exceptions: how long they last, and when readiness tells of them."""

import pytest

from authz.cli.render.exceptions import exception_rows, time_left
from authz.server.status.exception_reminder import breakglass_in_force, expiring

DAY_MS = 86_400_000
NOW = 1_800_000_000.0
NOW_MS = int(NOW * 1000)


@pytest.mark.parametrize(
    ("left_ms", "text"),
    [
        (-1, "expired"),
        (0, "expired"),
        (1, "0 hours"),
        (DAY_MS - 1, "23 hours"),
        (DAY_MS, "1 day"),
        (3 * DAY_MS - 1, "2 days"),
    ],
)
def test_time_left(left_ms: int, text: str) -> None:
    """Whole days, in the last day hours."""
    assert time_left(NOW_MS + left_ms, NOW) == text


@pytest.mark.parametrize(
    ("left_ms", "word"),
    [(15 * DAY_MS, None), (14 * DAY_MS, "expires"), (1, "expires"), (0, "expired")],
)
def test_readiness_tells_of_the_end(left_ms: int, word: str | None) -> None:
    """From two weeks before it on, and afterwards."""
    entry = {
        "name": "erp-nightly",
        "owner": "erp-team",
        "ticket": "ERP-7",
        "expires_ms": NOW_MS + left_ms,
    }
    lines = list(expiring([entry], NOW))
    assert [line.split(" at ")[0] for line in lines] == (
        [] if word is None else [f"exception erp-nightly {word}"]
    )
    assert all(line.endswith("(erp-team, ERP-7)") for line in lines)


def test_rows_of_a_node_have_uses() -> None:
    """A bundle has none."""
    entry = {"name": "a", "who": "b", "owner": "c", "ticket": "d", "expires_ms": NOW_MS + DAY_MS}
    assert list(exception_rows([entry], NOW)) == [["a", "b", "c", "d", "1 day"]]
    used = {**entry, "uses": 3, "last_used_ms": 1_800_000_000_000}
    (row,) = exception_rows([used], NOW)
    assert row[5:] == ["3", "2027-01-15T08:00:00Z"]


@pytest.mark.parametrize(("agent", "who"), [("", "all callers"), ("spiffe://a/b", "spiffe://a/b")])
def test_readiness_tells_of_breakglass(agent: str, who: str) -> None:
    """Who opened and confirmed it, its ticket, and its end."""
    entry = {
        "system": "erp",
        "agent": agent,
        "ticket": "INC-7",
        "opened_by": "corp/ann",
        "confirmed_by": "corp/bob",
        "ends_ms": NOW_MS + 999,
    }
    (line,) = breakglass_in_force([entry])
    assert line == (
        f"break-glass is in force at erp for {who} until 2027-01-15T08:00:00Z "
        "(opened by corp/ann, confirmed by corp/bob, INC-7)"
    )
