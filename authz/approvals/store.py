"""Interface of the approvals that the engine keeps. Every function may wait for the store: do not call it on an event loop."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from authz.approvals.people import Person
from authz_client.v1 import approvals_pb2

__all__ = ["ApprovalChange", "ApprovalChanges", "ApprovalStore", "StoredPasskey"]

StoredPasskey = Mapping[str, Any]
"""Record of a passkey: `credential_id`, `public_key`, `sign_count`, `name`, `created_at`, and more that the page keeps."""


class ApprovalChange(NamedTuple):
    """A change of one approval."""

    approval_id: str
    """Id of the approval."""
    task: str
    """Id of its task. Empty if the call was made without a task."""
    status: "approvals_pb2.ApprovalStatus.ValueType"
    """Status after the change."""
    queues: tuple[str, ...]
    """Queues that still lack an answer."""


class ApprovalChanges(NamedTuple):
    """Changes after a number."""

    after: int
    """Number for the next request."""
    changes: tuple[ApprovalChange, ...]
    """The changes, oldest first."""
    has_gap: bool = False
    """True if older changes were lost, so that watchers must read their approvals again."""


class ApprovalStore(Protocol):
    """The part of the engine that keeps approvals.

    `person` is the verified human who sends the request. `None` stands for the administration socket or the node itself: it sees
    every approval, cannot answer, and starts no clock.

    Raises:
        ApiError: The request is refused, with its reason code.
        EngineError: The store failed.
    """

    def approvals_list(
        self, person: Person | None, request: approvals_pb2.ApprovalsListRequest
    ) -> approvals_pb2.ApprovalsListResponse:
        """List the approvals that a person may answer."""

    def approval_show(
        self, person: Person | None, request: approvals_pb2.ApprovalsGetRequest
    ) -> approvals_pb2.ApprovalsGetResponse:
        """Read an approval whole. The first time that a person reads it, its clock starts."""

    def approval_resolve(
        self, person: Person | None, request: approvals_pb2.ResolveRequest
    ) -> approvals_pb2.ResolveResponse:
        """Answer an approval. Raise `ApiError` if the answer does not count."""

    def approval_changes(self, after: int, wait_ms: int) -> ApprovalChanges:
        """Wait for changes, at most `wait_ms` milliseconds.

        Args:
            after: `after` of the last response, or 0 to begin now.
            wait_ms: Longest wait, in milliseconds.
        """

    def passkeys(self, issuer: str, sub: str) -> list[StoredPasskey]:
        """Return the passkeys of a person."""

    def put_passkey(self, issuer: str, sub: str, passkey: StoredPasskey) -> None:
        """Write a passkey of a person."""

    def remove_passkey(self, issuer: str, sub: str, credential_id: str) -> None:
        """Remove a passkey of a person. Do nothing if it does not exist."""
