"""Changes of approvals reach the watchers that asked for them, within bounds."""

import threading
from collections import deque
from typing import TYPE_CHECKING

import pytest

from authz.approvals import ApprovalChange, ApprovalChanges, ApprovalHub, Subscription
from authz.errors import ApiError
from authz_client.v1 import approvals_pb2
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

PENDING = approvals_pb2.APPROVAL_STATUS_PENDING
APPROVED = approvals_pb2.APPROVAL_STATUS_APPROVED


class Feed:
    """A store that has only changes."""

    def __init__(self) -> None:
        self.answers: deque[ApprovalChanges | Exception] = deque()
        self.asked: list[int] = []
        self._arrived = threading.Condition()

    def add(self, *changes: ApprovalChange, has_gap: bool = False) -> None:
        """Answer these changes next."""
        with self._arrived:
            number = len(self.asked) + len(self.answers) + 1
            self.answers.append(ApprovalChanges(number, changes, has_gap))
            self._arrived.notify()

    def fail(self, error: Exception) -> None:
        """Raise an error next."""
        with self._arrived:
            self.answers.append(error)
            self._arrived.notify()

    def approval_changes(self, after: int, wait_ms: int) -> ApprovalChanges:
        """Answer what was added."""
        with self._arrived:
            self.asked.append(after)
            if not self.answers:
                self._arrived.wait(min(wait_ms, 20) / 1000)
            if not self.answers:
                return ApprovalChanges(after, ())
            answer = self.answers.popleft()
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def feed() -> Feed:
    """A store that has only changes."""
    return Feed()


@pytest.fixture
def failures() -> list[BaseException]:
    """Exceptions that the node heard of."""
    return []


@pytest.fixture
def hub(feed: Feed, failures: list[BaseException]) -> "Iterator[ApprovalHub]":
    """A hub that runs, with small bounds."""
    hub = ApprovalHub(feed, failures.append, most=4, most_of_task=2)  # type: ignore[arg-type]
    hub.start()
    yield hub
    hub.close()


def change(approval: str, task: str = "t1") -> ApprovalChange:
    """A change of an approval."""
    return ApprovalChange(approval, task, APPROVED, ())


def test_a_change_reaches_only_its_watchers(feed: Feed, hub: ApprovalHub) -> None:
    """By approval, by task, or all."""
    told: dict[str, list[ApprovalChange | None]] = {"a": [], "t2": [], "all": []}
    hub.subscribe(Subscription(told["a"].append, approval_id="a-1", task="t1"))
    hub.subscribe(Subscription(told["t2"].append, task="t2"))
    hub.subscribe(Subscription(told["all"].append))

    feed.add(change("a-1"), change("b-1"))
    feed.add(change("c-1", "t2"))
    eventually(lambda: len(told["all"]) == 3)

    assert told["a"] == [change("a-1")]
    assert told["t2"] == [change("c-1", "t2")]


def test_a_gap_tells_every_watcher_to_read_again(feed: Feed, hub: ApprovalHub) -> None:
    """What was lost could have been anybody's."""
    told: list[ApprovalChange | None] = []
    hub.subscribe(Subscription(told.append, approval_id="a-1"))
    hub.subscribe(Subscription(told.append))

    feed.add(has_gap=True)

    eventually(lambda: told == [None, None])


def test_one_watcher_or_a_store_that_fails_keeps_no_other_from_its_news(
    feed: Feed, hub: ApprovalHub, failures: list[BaseException]
) -> None:
    """Both are told to the node."""
    told: list[ApprovalChange | None] = []

    def broken(_: ApprovalChange | None) -> None:
        raise ValueError("broken watcher")

    hub.subscribe(Subscription(broken))
    hub.subscribe(Subscription(told.append))
    feed.fail(RuntimeError("the store is down"))
    feed.add(change("a-1"))

    eventually(lambda: told == [change("a-1")])
    assert [str(failure) for failure in failures] == ["the store is down", "broken watcher"]


def test_watchers_are_bounded_by_node_and_by_task(hub: ApprovalHub) -> None:
    """A place that was given back can be taken again."""
    first = Subscription(print, approval_id="a-1", task="t1")
    hub.subscribe(first)
    hub.subscribe(Subscription(print, approval_id="a-1", task="t1"))
    with pytest.raises(ApiError, match="of this task") as refused:
        hub.subscribe(Subscription(print, approval_id="b-1", task="t1"))
    assert refused.value.reason == "OVERLOADED"
    hub.subscribe(Subscription(print))
    hub.subscribe(Subscription(print))
    with pytest.raises(ApiError, match="on this node"):
        hub.subscribe(Subscription(print, task="t9"))

    hub.unsubscribe(first)
    hub.unsubscribe(first)

    assert len(hub) == 3
    hub.subscribe(Subscription(print, approval_id="a-1", task="t1"))
    assert len(hub) == 4


def test_a_refused_watcher_leaves_nothing_behind(hub: ApprovalHub) -> None:
    """Ids of approvals are chosen by callers, so a refusal must not keep one."""
    for number in range(4):
        hub.subscribe(Subscription(print, approval_id=f"a-{number}"))
    before = dict(hub._by_approval)

    for number in range(100):
        with pytest.raises(ApiError):
            hub.subscribe(Subscription(print, approval_id=f"b-{number}"))
        hub.unsubscribe(Subscription(print, approval_id=f"c-{number}"))

    assert hub._by_approval == before
