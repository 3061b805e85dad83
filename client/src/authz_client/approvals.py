"""Waits for the answer of a person to a step-up."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, final

from google.protobuf.message import DecodeError

from authz_client.context import Caller
from authz_client.credentials import Credentials
from authz_client.errors import (
    ApprovalStatus,
    StepUp,
    TransportError,
    Unavailable,
    refusal_of_rpc,
)
from authz_client.flow import Call, Deadline, Flow, Listen, Pause, arun, run, undecided
from authz_client.session import Session
from authz_client.v1 import approvals_pb2, decision_pb2

__all__ = ["Approvals"]

_SERVICE: Final = "authz.v1.Approvals"
_UNIMPLEMENTED: Final = 12
_DEADLINE_EXCEEDED: Final = 4
# UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE: the node restarts, or a proxy failed.
_PASSING: Final = (2, 4, 8, 13, 14)
_FIRST_PAUSE: Final = 1.0
_ASK_SECONDS: Final = 10.0
# An approval ends after 24 hours at most.
_LONGEST_WAIT: Final = 25 * 3600.0


@final
class Approvals:
    """Approvals of one client.

    Args:
        session: Session that calls the node.
        poll_seconds: Longest pause between two requests if the node cannot stream, in seconds.
    """

    def __init__(self, session: Session, poll_seconds: float) -> None:
        self.session = session
        self.poll_seconds = poll_seconds

    def bind(
        self, step_up: StepUp, caller: Caller | None, subject_token: Credentials | None
    ) -> None:
        """Attach a waiter to a step-up, so that `wait` works.

        Args:
            step_up: The step-up. Without an approval, nothing is attached.
            caller: Caller of the call. Default: the client itself.
            subject_token: Token of the subject of the call.
        """
        if step_up.approval_id:
            step_up.waiter = _Waiter(self, step_up, caller, subject_token)

    def waiting(self, step_up: StepUp, timeout: float | None) -> Flow[ApprovalStatus]:
        """Return the flow that waits for the answer to a step-up.

        Args:
            step_up: The step-up.
            timeout: Longest wait, in seconds. Default: until the approval ends.

        Yields:
            Steps to perform.

        Returns:
            The status. PENDING if nobody answered within `timeout`.

        Raises:
            Refused: The node refuses the caller, or serves no approvals on this listener.
        """
        waiter = step_up.waiter
        if not isinstance(waiter, _Waiter):
            raise step_up
        return (yield from waiter.waiting(timeout))


@final
class _Waiter:
    """Waits for the answer to one step-up, as its caller."""

    def __init__(
        self,
        approvals: Approvals,
        step_up: StepUp,
        caller: Caller | None,
        subject_token: Credentials | None,
    ) -> None:
        self._session = approvals.session
        self._poll_seconds = approvals.poll_seconds
        self._step_up = step_up
        self._caller = caller
        self._subject_token = subject_token

    def wait(self, timeout: float | None) -> ApprovalStatus:
        """Wait on this thread."""
        return run(self.waiting(timeout), self._session.transport)

    async def wait_async(self, timeout: float | None) -> ApprovalStatus:  # noqa: ASYNC109 - the flow applies the time-out
        """Wait without blocking the event loop."""
        return await arun(self.waiting(timeout), self._session.transport)

    def waiting(self, timeout: float | None) -> Flow[ApprovalStatus]:
        """Watch the approval, or poll it if the node cannot stream."""
        deadline = Deadline.within(min(_seconds(timeout, self._step_up.expires_at), _LONGEST_WAIT))
        pause, streams = _FIRST_PAUSE, True
        while True:
            try:
                approval = yield from self._watched(deadline) if streams else self._asked(deadline)
            except TransportError as error:
                if error.code == _DEADLINE_EXCEEDED and _is_over(deadline):
                    return ApprovalStatus.PENDING
                if error.code == _UNIMPLEMENTED and streams:
                    # The listener is of another kind, or the transport has no streams.
                    streams = False
                    continue
                if not _is_passing(error):
                    raise refusal_of_rpc(error, self._step_up.operation) from error
            else:
                status = ApprovalStatus.of(approval.status)
                self._step_up.reject_reason = approval.reject_reason
                if status is not ApprovalStatus.PENDING:
                    return status
            left = deadline.at - time.monotonic()
            if left <= 0:
                return ApprovalStatus.PENDING
            yield Pause(min(pause if streams else self._poll_seconds, left))
            pause = min(2 * pause, self._poll_seconds)

    def _watched(self, deadline: Deadline) -> Flow[approvals_pb2.Approval]:
        evidence = yield from self._evidence()
        request = approvals_pb2.WatchRequest(
            evidence=evidence, approval_id=self._step_up.approval_id
        )
        answer = yield Listen(
            f"{_SERVICE}/Watch", request.SerializeToString(), _left(deadline), _is_answered
        )
        return _parse(approvals_pb2.WatchResponse, answer)

    def _asked(self, deadline: Deadline) -> Flow[approvals_pb2.Approval]:
        evidence = yield from self._evidence()
        request = approvals_pb2.ApprovalsGetRequest(
            evidence=evidence, approval_id=self._step_up.approval_id
        )
        seconds = min(_ASK_SECONDS, max(_left(deadline), self._session.timeout))
        answer = yield Call(f"{_SERVICE}/Get", request.SerializeToString(), seconds)
        return _parse(approvals_pb2.ApprovalsGetResponse, answer)

    def _evidence(self) -> Flow[Sequence[decision_pb2.Evidence]]:
        # Fetched for each attempt, because a token may expire before people answer.
        within = Deadline.within(self._session.timeout)
        return (yield from self._session.evidence(within, self._caller, self._subject_token))


def _seconds(timeout: float | None, end: datetime | None) -> float:
    """Return the seconds until the approval ends, or `timeout` if that is sooner."""
    if timeout is not None:
        return max(timeout, 0.0)
    if end is None:
        return _LONGEST_WAIT
    # Only the node decides that an approval has expired, and clocks differ a little.
    return max(end.timestamp() - time.time(), 0.0) + _ASK_SECONDS


def _left(deadline: Deadline) -> float:
    return max(deadline.at - time.monotonic(), 0.001)


def _is_over(deadline: Deadline) -> bool:
    return time.monotonic() >= deadline.at - 0.01


def _is_passing(error: TransportError) -> bool:
    """Return whether a later attempt may succeed."""
    return undecided(error) or (not error.reason and error.code in _PASSING)


def _is_answered(response: bytes) -> bool:
    approval = _parse(approvals_pb2.WatchResponse, response)
    return ApprovalStatus.of(approval.status) is not ApprovalStatus.PENDING


def _parse(kind: type[Any], answer: bytes) -> approvals_pb2.Approval:
    try:
        approval: approvals_pb2.Approval = kind.FromString(answer).approval
    except DecodeError as error:
        raise Unavailable.of("the answer cannot be read") from error
    return approval
