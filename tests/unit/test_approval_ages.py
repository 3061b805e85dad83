"""The metric of the oldest open approval, by queue."""

from typing import Any

import pytest

from authz.errors import ApiError, GrpcCode
from authz.server.approval_ages import ApprovalAges
from authz_client.v1 import approvals_pb2
from tests.support.approvals import open_approval
from tests.support.waiting import eventually

NOW = 1_800_000_000.0


class Pages:
    """A store that lists pages of two approvals."""

    def __init__(self, *approvals: approvals_pb2.Approval) -> None:
        self.approvals = list(approvals)
        self.fails: Exception | None = None
        self.lists = 0

    def approvals_list(
        self, person: None, request: approvals_pb2.ApprovalsListRequest
    ) -> approvals_pb2.ApprovalsListResponse:
        """List a page."""
        assert person is None
        self.lists += 1
        if self.fails is not None:
            raise self.fails
        first = int(request.page_token or 0)
        more = str(first + 2) if first + 2 < len(self.approvals) else ""
        return approvals_pb2.ApprovalsListResponse(
            approvals=self.approvals[first : first + 2], next_page_token=more
        )


def waiting(name: str, seconds: int, *queues: str) -> approvals_pb2.Approval:
    """An approval that waits for that long, in these queues."""
    made = open_approval(name)
    made.created_at.FromSeconds(int(NOW) - seconds)
    made.ClearField("waits_for")
    made.waits_for.extend(queues)
    return made


def ages_of(store: Any, now: float = NOW) -> ApprovalAges:
    """The ages, at a fixed time."""

    def failed(error: BaseException) -> None:
        raise AssertionError from error

    return ApprovalAges(store, failed, lambda: now)


def shown(ages: ApprovalAges) -> dict[str, float]:
    """Age by queue, as it is scraped."""
    (family,) = ages.families()
    return {labels["queue"]: value for _, labels, value in family.samples}


def test_the_oldest_of_each_queue_is_told() -> None:
    """Of all pages, and of each queue that an approval still waits in."""
    store = Pages(
        waiting("a", 30, "confirm"),
        waiting("b", 90, "approve:finance", "confirm"),
        waiting("c", 600, "approve:finance"),
    )
    ages = ages_of(store)
    assert shown(ages) == {}
    ages.refresh()
    assert shown(ages) == {"approve:finance": 600.0, "confirm": 90.0}
    store.approvals = store.approvals[:1]
    ages.refresh()
    assert shown(ages) == {"confirm": 30.0}


def test_an_approval_of_the_future_has_no_age() -> None:
    """The clock of another node is ahead."""
    ages = ages_of(Pages(waiting("a", -5, "approve")))
    ages.refresh()
    assert shown(ages) == {"approve": 0.0}


def test_reading_is_bounded() -> None:
    """However many approvals are open."""
    store = Pages(*(waiting(str(number), number, "approve") for number in range(100)))
    ages_of(store).refresh()
    assert store.lists == 10


def test_a_failing_store_keeps_the_ages() -> None:
    """So that an alert about an old queue does not end with the store."""
    store = Pages(waiting("a", 60, "approve"))
    ages = ages_of(store)
    ages.refresh()
    store.fails = ApiError("STATE_UNAVAILABLE", GrpcCode.UNAVAILABLE, "the disk is full")
    with pytest.raises(ApiError):
        ages.refresh()
    assert shown(ages) == {"approve": 60.0}


def test_the_thread_reads_at_once_and_outlives_a_failure() -> None:
    """A node without a bundle cannot list."""
    store = Pages(waiting("a", 60, "approve"))
    store.fails = ApiError("UNAVAILABLE", GrpcCode.UNAVAILABLE, "no bundle is loaded")
    ages = ages_of(store)
    ages.start()
    try:
        eventually(lambda: store.lists == 1)
        assert shown(ages) == {}
    finally:
        ages.close()
