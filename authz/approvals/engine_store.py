"""Implements the store of approvals over the engine, whose requests and responses are bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, Protocol, final

from authz.approvals.people import Person
from authz.approvals.store import ApprovalChange, ApprovalChanges, StoredPasskey
from authz_client.v1 import approvals_pb2

__all__ = ["ApprovalEngine", "EngineApprovals"]

_STATUSES: Final = {
    "open": approvals_pb2.APPROVAL_STATUS_PENDING,
    "approved": approvals_pb2.APPROVAL_STATUS_APPROVED,
    "rejected": approvals_pb2.APPROVAL_STATUS_REJECTED,
    "expired": approvals_pb2.APPROVAL_STATUS_EXPIRED,
    "consumed": approvals_pb2.APPROVAL_STATUS_CONSUMED,
}


class ApprovalEngine(Protocol):
    """The part of the engine that keeps approvals. Requests and responses are encoded messages; a person is a mapping of JSON values."""

    def approvals_list(self, person: Mapping[str, Any] | None, request: bytes) -> bytes:
        """List approvals."""

    def approval_show(self, person: Mapping[str, Any] | None, request: bytes) -> bytes:
        """Read an approval."""

    def approval_resolve(self, person: Mapping[str, Any] | None, request: bytes) -> bytes:
        """Answer an approval."""

    def approval_changes(
        self, after: int, wait_ms: int
    ) -> tuple[int, Sequence[tuple[str, str, str, Sequence[str]]] | None]:
        """Return the number of the newest change, and the changes (id, task, status, queues), or `None` if some were lost."""

    def passkeys(self, issuer: str, sub: str) -> list[dict[str, Any]]:
        """Return the passkeys of a person."""

    def put_passkey(self, record: StoredPasskey) -> None:
        """Write a passkey."""

    def remove_passkey(self, issuer: str, sub: str, credential_id: str) -> None:
        """Remove a passkey."""


@final
class EngineApprovals:
    """An `ApprovalStore` over the engine.

    Args:
        engine: The engine.
    """

    def __init__(self, engine: ApprovalEngine) -> None:
        self._engine = engine

    def approvals_list(
        self, person: Person | None, request: approvals_pb2.ApprovalsListRequest
    ) -> approvals_pb2.ApprovalsListResponse:
        """List the approvals that a person may answer."""
        answer = self._engine.approvals_list(_person_values(person), request.SerializeToString())
        return approvals_pb2.ApprovalsListResponse.FromString(answer)

    def approval_show(
        self, person: Person | None, request: approvals_pb2.ApprovalsGetRequest
    ) -> approvals_pb2.ApprovalsGetResponse:
        """Read an approval whole."""
        answer = self._engine.approval_show(_person_values(person), request.SerializeToString())
        return approvals_pb2.ApprovalsGetResponse.FromString(answer)

    def approval_resolve(
        self, person: Person | None, request: approvals_pb2.ResolveRequest
    ) -> approvals_pb2.ResolveResponse:
        """Answer an approval."""
        answer = self._engine.approval_resolve(_person_values(person), request.SerializeToString())
        return approvals_pb2.ResolveResponse.FromString(answer)

    def approval_changes(self, after: int, wait_ms: int) -> ApprovalChanges:
        """Wait for changes."""
        # The engine counts from 0. In this interface 0 means "from now on", so numbers are higher by one.
        if after == 0:
            newest, _ = self._engine.approval_changes(0, 0)
            return ApprovalChanges(newest + 1, ())
        newest, changes = self._engine.approval_changes(after - 1, wait_ms)
        if changes is None:
            return ApprovalChanges(newest + 1, (), has_gap=True)
        converted = tuple(
            ApprovalChange(
                approval_id,
                task,
                _STATUSES.get(status, approvals_pb2.APPROVAL_STATUS_UNSPECIFIED),
                tuple(queues),
            )
            for approval_id, task, status, queues in changes
        )
        return ApprovalChanges(newest + 1, converted)

    def passkeys(self, issuer: str, sub: str) -> list[StoredPasskey]:
        """Return the passkeys of a person."""
        return list(self._engine.passkeys(issuer, sub))

    def put_passkey(self, issuer: str, sub: str, passkey: StoredPasskey) -> None:
        """Write a passkey of a person."""
        self._engine.put_passkey({**passkey, "issuer": issuer, "sub": sub})

    def remove_passkey(self, issuer: str, sub: str, credential_id: str) -> None:
        """Remove a passkey of a person."""
        self._engine.remove_passkey(issuer, sub, credential_id)


def _person_values(person: Person | None) -> dict[str, Any] | None:
    return None if person is None else asdict(person)
