"""What came of a permitted operation, told to the node by whoever performed it."""

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias, final

from authz.client.errors import Refused
from authz.client.flow import Flow
from authz.client.permit import Permit
from authz.client.session import Session
from authz.v1 import authorizer_pb2

__all__ = ["Report", "ReportResult", "Reports"]

_METHOD: Final = "authz.v1.Authorizer/Report"
_RESULTS: Final = {
    "ok": authorizer_pb2.REPORT_RESULT_OK,
    "failed": authorizer_pb2.REPORT_RESULT_FAILED,
    "aborted": authorizer_pb2.REPORT_RESULT_ABORTED,
}
_log: Final = logging.getLogger("authz.client")

ReportResult: TypeAlias = Literal["ok", "failed", "aborted"]
"""What came of it: it happened, it failed, or it was never tried."""


@final
class Report:
    """What a guarded function tells of what it did, for the guard to report when it is done.

    Of a function that tells no labels, all that its operation may yield is taken to have come.
    """

    def __init__(self) -> None:
        self._labels: set[str] | None = None
        self._actuals: dict[str, int] = {}
        self._has_failed = False

    def carries(self, *labels: str) -> None:
        """Tell the labels that the results carry, besides those that they always do; without any: no others.

        Args:
            labels: Labels that the operation `yields`; those of several calls add up.
        """
        self._labels = (self._labels or set()).union(labels)

    def spent(self, budget: str, amount: int) -> None:
        """Tell how much of a reserved sum was really spent.

        Args:
            budget: The budget, by its name in the bundle.
            amount: How much, at most what was reserved.
        """
        self._actuals[budget] = amount

    def failed(self) -> None:
        """Tell that it failed, although the function returns."""
        self._has_failed = True

    def flow(self, reports: "Reports", permit: Permit, result: ReportResult) -> Flow[None]:
        """Report it.

        Args:
            reports: Those of the client.
            permit: What it is of.
            result: What came of the function.

        Yields:
            What is needed.
        """
        outcome: ReportResult = "failed" if self._has_failed and result == "ok" else result
        yield from reports.settling(permit, outcome, self._labels, self._actuals)


@final
class Reports:
    """Reports of one client.

    Args:
        session: Calls the node.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._lost = 0

    @property
    def lost(self) -> int:
        """Reports of guards that the node did not take; each was logged. What they were of stays at its most."""
        return self._lost

    def telling(
        self,
        permit: Permit,
        result: ReportResult,
        labels: Iterable[str] | None,
        actuals: Mapping[str, int] | None,
        timeout: float | None = None,
    ) -> Flow[None]:
        """The flow of one report; without `reservation_id` nobody waits for one, and nothing is asked.

        Args:
            permit: What it is of.
            result: What came of it.
            labels: Labels that the results carry; none: of what happened, all that may have come.
            actuals: What was spent of reserved sums, by budget.
            timeout: Seconds; none: the client's.

        Yields:
            What is needed.

        Raises:
            Refused: It was not taken.
        """
        if not permit.reservation_id:
            return
        if labels is None:
            labels = permit.yields if result == "ok" else ()
        request = authorizer_pb2.ReportRequest(
            decision_id=permit.reservation_id,
            result=_RESULTS[result],
            labels=sorted(labels),
            actuals=actuals,
        )
        yield from self._session.calling(
            _METHOD,
            request.SerializeToString(),
            authorizer_pb2.ReportResponse,
            self._session.attempts(timeout),
            permit.operation,
        )

    def settling(
        self,
        permit: Permit,
        result: ReportResult,
        labels: Iterable[str] | None = None,
        actuals: Mapping[str, int] | None = None,
    ) -> Flow[None]:
        """As `telling`, where nobody could do anything about a failure: it is logged and counted.

        Args:
            permit: What it is of.
            result: What came of it.
            labels: Labels that the results carry.
            actuals: What was spent of reserved sums, by budget.

        Yields:
            What is needed.
        """
        try:
            yield from self.telling(permit, result, labels, actuals)
        except Exception as error:  # noqa: BLE001 - what was done stays done
            why = error.reason_code if isinstance(error, Refused) else type(error).__name__
            _log.warning("the report of decision %s was lost: %s", permit.reservation_id, why)
            with self._lock:
                self._lost += 1
