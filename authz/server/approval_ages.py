"""Ages of the open approvals: the waiting time of the oldest approval of each queue."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from authz.approvals import ApprovalStore
from authz.errors import ApiError, EngineError
from authz.model import MetricFamily, MetricKind
from authz.periodic import PeriodicThread
from authz_client.v1 import approvals_pb2

__all__ = ["ApprovalAges"]

_SECONDS: Final = 15.0
_PAGE: Final = 200
_MOST_PAGES: Final = 10


class ApprovalAges:
    """Reads at most 2,000 open approvals every 15 seconds, and keeps the time of the oldest approval of each queue.

    If the store fails, the last times are kept, so that the age of a waiting call still grows.

    Args:
        store: Lists approvals.
        failed: Receives every unexpected exception.
        now: Returns the time in seconds since the epoch.
    """

    def __init__(
        self,
        store: ApprovalStore,
        failed: Callable[[BaseException], object],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._now = now
        self._lock = threading.Lock()
        self._oldest: Mapping[str, float] = {}
        self._thread = PeriodicThread(
            "approval-ages", self._run_once, _SECONDS, failed, starts_at_once=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._thread.close(10)

    def refresh(self) -> None:
        """Read the open approvals once."""
        oldest: dict[str, float] = {}
        for one in self._open():
            made = one.created_at.ToNanoseconds() / 1e9
            for queue in one.waits_for:
                oldest[queue] = min(made, oldest.get(queue, made))
        with self._lock:
            self._oldest = oldest

    def families(self) -> Iterator[MetricFamily]:
        """Yield the metric. Its label is the queue."""
        with self._lock:
            oldest = self._oldest
        now = self._now()
        yield MetricFamily(
            "authz_approvals_oldest_seconds",
            "Age of the oldest approval that waits for an answer, by queue.",
            MetricKind.GAUGE,
            tuple(
                ("authz_approvals_oldest_seconds", {"queue": queue}, max(0.0, now - made))
                for queue, made in sorted(oldest.items())
            ),
        )

    def _run_once(self) -> None:
        # Readiness reports a failing store and a missing bundle.
        try:
            self.refresh()
        except (ApiError, EngineError):
            return

    def _open(self) -> Iterator[approvals_pb2.Approval]:
        request = approvals_pb2.ApprovalsListRequest(page_size=_PAGE)
        for _ in range(_MOST_PAGES):
            answer = self._store.approvals_list(None, request)
            yield from answer.approvals
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token
