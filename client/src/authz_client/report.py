"""Reports: the result of a permitted operation, sent to the node after it was performed."""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, TypeAlias, final

from authz_client.errors import Refused
from authz_client.flow import Flow
from authz_client.permit import Permit
from authz_client.result_values import ResultValues
from authz_client.session import Session
from authz_client.v1 import authorizer_pb2

__all__ = ["Report", "ReportResult", "Reports"]

_METHOD: Final = "authz.v1.Authorizer/Report"
_RESULTS: Final = {
    "ok": authorizer_pb2.REPORT_RESULT_OK,
    "failed": authorizer_pb2.REPORT_RESULT_FAILED,
    "aborted": authorizer_pb2.REPORT_RESULT_ABORTED,
}
_log: Final = logging.getLogger("authz_client")

ReportResult: TypeAlias = Literal["ok", "failed", "aborted"]
"""Result of an operation: performed, failed, or not tried."""


@final
class Report:
    """Details that a guarded function adds to its report, which the guard sends when the function ends.

    If the function adds no labels, its results count as carrying all labels that the operation may yield.
    """

    def __init__(self) -> None:
        self._labels: set[str] | None = None
        self._actuals: dict[str, int] = {}
        self._has_failed = False
        self._returned: object = None

    def carries(self, *labels: str) -> None:
        """Add labels to those that the results always carry. Call it without labels if there are no others.

        Args:
            labels: Labels that the operation `yields`; those of several calls add up.
        """
        self._labels = (self._labels or set()).union(labels)

    def spent(self, budget: str, amount: int) -> None:
        """Set the amount that was spent of a reserved sum.

        Args:
            budget: Name of the budget in the bundle.
            amount: The amount, at most the reserved one.
        """
        self._actuals[budget] = amount

    def failed(self) -> None:
        """Report a failure, although the function returns."""
        self._has_failed = True

    def returned(self, value: object) -> None:
        """Set the result that values are reported of. Default: the value that the function returns; of a generator: none.

        For example, a function that returns a sentence sets the answer of the backend, which has the id of the new record. Only an
        enforcer reports values, and only those that the permit asks for.

        Args:
            value: Mapping, list, dataclass, model of pydantic, message of protobuf, result of an MCP tool, or JSON text.
        """
        self._returned = value

    def flow(
        self, reports: "Reports", permit: Permit, result: ReportResult, returned: object = None
    ) -> Flow[None]:
        """The flow that sends the report.

        Args:
            reports: Reports of the client.
            permit: Permit of the operation.
            result: Result of the function.
            returned: The value that the caller of the function gets.

        Yields:
            Steps to perform.
        """
        outcome: ReportResult = "failed" if self._has_failed and result == "ok" else result
        if self._returned is not None:
            returned = self._returned
        yield from reports.settling(permit, outcome, self._labels, self._actuals, returned=returned)


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
        """Number of lost reports of guards; each is logged. Their operations count with all labels and full amounts."""
        return self._lost

    def telling(
        self,
        permit: Permit,
        result: ReportResult,
        labels: Iterable[str] | None,
        actuals: Mapping[str, int] | None,
        timeout: float | None = None,
        *,
        returned: object = None,
    ) -> Flow[None]:
        """The flow of one report; nothing is sent for a permit without `reservation_id`.

        Args:
            permit: Permit of the operation.
            result: Result of the operation.
            labels: Labels that the results carry. Default: all that the operation yields if the result is `ok`.
            actuals: Amounts spent of reserved sums, by budget.
            timeout: Seconds. Default: the client's.
            returned: Result of the operation, as of `Report.returned`.

        Yields:
            Steps to perform.

        Raises:
            Refused: The node did not take the report.
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
            values=self._values(permit, returned) if result == "ok" else (),
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
        *,
        returned: object = None,
    ) -> Flow[None]:
        """As `telling`, but log and count a failure instead of raising it: the operation is already performed.

        Args:
            permit: Permit of the operation.
            result: Result of the operation.
            labels: Labels that the results carry.
            actuals: Amounts spent of reserved sums, by budget.
            returned: Result of the operation, as of `Report.returned`.

        Yields:
            Steps to perform.
        """
        try:
            yield from self.telling(permit, result, labels, actuals, returned=returned)
        except Exception as error:  # noqa: BLE001 - what was done stays done
            why = error.reason_code if isinstance(error, Refused) else type(error).__name__
            _log.warning("the report of decision %s was lost: %s", permit.reservation_id, why)
            with self._lock:
                self._lost += 1

    def _values(self, permit: Permit, returned: object) -> Sequence[authorizer_pb2.ReportedValue]:
        """Values of a result that the permit asks for."""
        # An agent that acts for itself chooses its own results, so the node refuses a report of it that has values.
        if not permit.report_values or returned is None or not self._session.enforcer:
            return ()
        read = ResultValues.read(returned, permit.report_values)
        if read.left_out:
            why = "; ".join(read.left_out)
            _log.warning("the report of decision %s lacks values: %s", permit.reservation_id, why)
        return read.values
