"""What the log says of how a node stands."""

from collections.abc import Sequence
from typing import Any

from authz.server.status.readiness import ReadinessReport
from authz.server.status.readiness_log import ReadinessLog


class _Log:
    def __init__(self) -> None:
        self.said: list[tuple[str, str, Sequence[str]]] = []

    def info(self, event: str, *, problems: Sequence[str]) -> None:
        self.said.append(("info", event, problems))

    def warning(self, event: str, *, problems: Sequence[str]) -> None:
        self.said.append(("warning", event, problems))

    def error(self, event: str, *, problems: Sequence[str]) -> None:
        self.said.append(("error", event, problems))


def _looks(*reports: Any) -> list[tuple[str, str, Sequence[str]]]:
    """What is said at one look after another; an exception is one of telling how the node stands."""
    log, left = _Log(), list(reports)

    def report() -> ReadinessReport:
        one = left.pop(0)
        if isinstance(one, Exception):
            raise one
        ready, *problems = one
        return ReadinessReport(ready, tuple(problems), {})

    readiness_log = ReadinessLog(report, log)  # type: ignore[arg-type]  # the part of a logger that is used
    for _ in reports:
        readiness_log.log_changes()
    return log.said


def test_a_full_disk_is_said_once_and_its_end_too() -> None:
    """Whoever only reads logs sees when a node stops being ready, and when it is again."""
    full = "the audit file cannot be written: No space left on device (os error 28)"
    assert _looks((True,), (False, full), (False, full), (True,), (True,)) == [
        ("error", "is not ready", [full]),
        ("info", "is ready", []),
    ]


def test_what_was_there_at_the_start_is_not_new() -> None:
    """The start says by itself what it starts with."""
    assert _looks((True, "insecure_dev: main"), (True, "insecure_dev: main")) == []


def test_a_new_problem_of_a_node_that_stays_ready() -> None:
    """Each problem is said when it comes, again when it comes again."""
    assert _looks((True, "a"), (True, "a", "b"), (True, "a", "b"), (True, "b")) == [
        ("warning", "new problems", ["b"])
    ]
    again = _looks((True,), (True, "b"), (True,), (True, "b"))
    assert [problems for _, _, problems in again] == [["b"], ["b"]]


def test_numbers_that_move_make_no_new_problem() -> None:
    """A count that grows is not said again and again."""
    assert _looks((True, "3 wait"), (True, "4 wait"), (True, "12 wait")) == []


def test_the_log_has_few_problems_at_once() -> None:
    """A line of the log is bounded."""
    many = tuple(f"problem {chr(97 + one)}" for one in range(26))
    [(_, _, problems)] = _looks((True,), (True, *many))
    assert len(problems) == 20


def test_where_it_cannot_be_told_the_node_is_not_ready() -> None:
    """What fails while it is looked at ends nothing, and is said."""
    said = _looks((True,), ValueError("boom"), (True,))
    assert said == [
        ("error", "is not ready", ["the report of readiness failed: boom"]),
        ("info", "is ready", []),
    ]
