"""A store of approvals in memory, in the place of the engine's."""

import threading
import time
from collections import deque
from collections.abc import Iterable

from authz.approvals import ApprovalChange, ApprovalChanges, Person, StoredPasskey
from authz.errors import ApiError, GrpcCode
from authz_client.v1 import approvals_pb2

__all__ = ["FakeApprovals", "open_approval"]

_RING = 1024


def open_approval(approval_id: str, task: str = "t1", **more: object) -> approvals_pb2.Approval:
    """An approval that waits for a person of the queue `approve`, and ends in an hour."""
    approval = approvals_pb2.Approval(
        id=approval_id,
        task=task,
        operation="crm.delete",
        kinds=["approve"],
        waits_for=["approve"],
        status=approvals_pb2.APPROVAL_STATUS_PENDING,
        digest=b"\1" * 32,
        arguments_json=b'{"id":"42"}',
    )
    approval.created_at.FromSeconds(int(time.time()))
    approval.expires_at.FromSeconds(int(time.time()) + 3600)
    for name, value in more.items():
        setattr(approval, name, value)
    return approval


class FakeApprovals:
    """Keeps approvals, and tells of changes as the engine does. It judges nobody.

    Attributes:
        shown_to: Name of each person that read an approval, and its id.
        answered_by: Each person that answered.
        answers: Each answer that was taken.
        needs: Number of answers that approve.
        fails: Raised by every call, if it is set.
    """

    def __init__(self, approvals: Iterable[approvals_pb2.Approval] = ()) -> None:
        self._changed = threading.Condition()
        self._approvals = {one.id: one for one in approvals}
        self._changes: deque[tuple[int, ApprovalChange]] = deque(maxlen=_RING)
        self._number = 1
        self._passkeys: dict[tuple[str, str], dict[str, StoredPasskey]] = {}
        self.shown_to: list[tuple[str, str]] = []
        self.answered_by: list[Person] = []
        self.answers: list[approvals_pb2.ResolveRequest] = []
        self.needs = 1
        self.fails: Exception | None = None

    def put(self, approval: approvals_pb2.Approval) -> None:
        """Write an approval, and tell of it."""
        with self._changed:
            self._approvals[approval.id] = approval
            self._number += 1
            change = ApprovalChange(
                approval.id, approval.task, approval.status, tuple(approval.waits_for)
            )
            self._changes.append((self._number, change))
            self._changed.notify_all()

    def set_status(
        self, approval_id: str, status: "approvals_pb2.ApprovalStatus.ValueType", **more: object
    ) -> None:
        """Change the status of an approval, and tell of it."""
        changed = approvals_pb2.Approval()
        changed.CopyFrom(self.find(approval_id))
        changed.status = status
        for name, value in more.items():
            setattr(changed, name, value)
        self.put(changed)

    def status(self, approval_id: str) -> "approvals_pb2.ApprovalStatus.ValueType":
        """The status of an approval; UNSPECIFIED where there is none."""
        return self._approvals.get(approval_id, approvals_pb2.Approval()).status

    def find(self, approval_id: str) -> approvals_pb2.Approval:
        """The approval, or the error of `fails`, or of an unknown id."""
        if self.fails is not None:
            raise self.fails
        try:
            return self._approvals[approval_id]
        except KeyError:
            what = f"there is no approval `{approval_id}`"
            raise ApiError("BAD_INPUT", GrpcCode.NOT_FOUND, what) from None

    def approvals_list(
        self, person: Person | None, request: approvals_pb2.ApprovalsListRequest
    ) -> approvals_pb2.ApprovalsListResponse:
        """List by status and queue, in pages; to a person, only those that have `answerable`."""
        status = request.status or approvals_pb2.APPROVAL_STATUS_PENDING
        listed = [
            one
            for one in self._approvals.values()
            if one.status == status
            and (not request.queue or request.queue in one.waits_for)
            and (person is None or one.answerable)
        ]
        start, size = int(request.page_token or 0), request.page_size or 100
        end = start + size
        answer = approvals_pb2.ApprovalsListResponse(
            approvals=listed[start:end], next_page_token=str(end) if end < len(listed) else ""
        )
        if person is None:
            # As the engine: nobody in particular may answer.
            for one in answer.approvals:
                one.answerable = one.needs_passkey = False
        return answer

    def approval_show(
        self, person: Person | None, request: approvals_pb2.ApprovalsGetRequest
    ) -> approvals_pb2.ApprovalsGetResponse:
        """Give an approval whole."""
        approval = self.find(request.approval_id)
        if person is not None:
            self.shown_to.append((person.name, approval.id))
        return approvals_pb2.ApprovalsGetResponse(approval=approval)

    def approval_resolve(
        self, person: Person | None, request: approvals_pb2.ResolveRequest
    ) -> approvals_pb2.ResolveResponse:
        """Take any answer whose digest is that of the call."""
        if person is None:
            raise ApiError("NOT_PERMITTED", GrpcCode.PERMISSION_DENIED, "nobody answers")
        if request.digest != self.find(request.approval_id).digest:
            what = "the digest is not that of the call"
            raise ApiError("APPROVAL_MISMATCH", GrpcCode.FAILED_PRECONDITION, what)
        self.answered_by.append(person)
        self.answers.append(request)
        is_last = len(self.answers) >= self.needs
        status = request.status if is_last else approvals_pb2.APPROVAL_STATUS_PENDING
        self.set_status(request.approval_id, status, reject_reason=request.reject_reason)
        return approvals_pb2.ResolveResponse(approval=self.find(request.approval_id))

    def approval_changes(self, after: int, wait_ms: int) -> ApprovalChanges:
        """Wait for changes after a number."""
        with self._changed:
            if after == 0:
                return ApprovalChanges(self._number, ())
            if self._number <= after:
                self._changed.wait(wait_ms / 1000)
            oldest = self._changes[0][0] if self._changes else self._number + 1
            news = tuple(change for number, change in self._changes if number > after)
            return ApprovalChanges(self._number, news, has_gap=bool(news) and oldest > after + 1)

    def passkeys(self, issuer: str, sub: str) -> list[StoredPasskey]:
        """Give the passkeys of a person."""
        return list(self._passkeys.get((issuer, sub), {}).values())

    def put_passkey(self, issuer: str, sub: str, passkey: StoredPasskey) -> None:
        """Write a passkey of a person."""
        self._passkeys.setdefault((issuer, sub), {})[passkey["credential_id"]] = passkey

    def remove_passkey(self, issuer: str, sub: str, credential_id: str) -> None:
        """Remove a passkey of a person."""
        self._passkeys.get((issuer, sub), {}).pop(credential_id, None)
