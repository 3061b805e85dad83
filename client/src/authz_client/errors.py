"""Errors of a call that may not run.

The text of an error is fit for an agent: fixed sentences and the decision's id. Details for the enforcer (`reason_code`,
`policy_ids`, `message`) are attributes, empty if the node did not send them.

    Refused
    ├── Denied         the operation may not be performed
    ├── StepUp         not yet: something must be shown first
    └── Unavailable    no decision was made, so the call is denied
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Protocol, TypeVar

from google.protobuf.descriptor import EnumDescriptor
from google.rpc import error_details_pb2, status_pb2

from authz_client.base_errors import AuthzError, UsageError
from authz_client.v1 import approvals_pb2, decision_pb2, options_pb2, reason_pb2

__all__ = [
    "ApprovalStatus",
    "Denied",
    "NextAction",
    "Public",
    "PublicCode",
    "Refused",
    "Retry",
    "StepUp",
    "TransportError",
    "Unavailable",
    "denied",
    "public_text",
    "public_text_of",
    "refusal_of",
    "refusal_of_rpc",
    "row_of",
]

_DENIED_CODE: Final = 7
_UNAUTHENTICATED_CODE: Final = 16
# CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE.
_NO_ANSWER: Final = (1, 2, 4, 8, 13, 14)


class PublicCode(StrEnum):
    """Code of a decision that an agent may see."""

    PERMIT = "PERMIT"
    STEP_UP = "STEP_UP"
    DENIED = "DENIED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    INVALID = "INVALID"
    UNAVAILABLE = "UNAVAILABLE"


class NextAction(StrEnum):
    """Next action of an agent after a refusal."""

    NONE = "NONE"
    START_TASK = "START_TASK"
    NARROW = "NARROW"
    CONFIRM = "CONFIRM"
    APPROVE = "APPROVE"
    REAUTH = "REAUTH"
    CONTACT_OWNER = "CONTACT_OWNER"


class Retry(StrEnum):
    """When a repeated request may pass."""

    NEVER = "NEVER"
    LATER = "LATER"
    AFTER_CHANGE = "AFTER_CHANGE"


class ApprovalStatus(StrEnum):
    """Status of an approval, as `StepUp.wait` returns it."""

    PENDING = "PENDING"
    """Nobody has answered yet."""
    APPROVED = "APPROVED"
    """The same call may run once, within 10 minutes after the answer."""
    REJECTED = "REJECTED"
    """The call may not run."""
    EXPIRED = "EXPIRED"
    """Nobody answered in time, or the answer was not used in time."""
    CONSUMED = "CONSUMED"
    """The answer was used."""

    @staticmethod
    def of(number: int) -> "ApprovalStatus":
        """Read the status of a response. An unknown value counts as PENDING."""
        word = _word(approvals_pb2.ApprovalStatus.DESCRIPTOR, number, "APPROVAL_STATUS_")
        return _member(ApprovalStatus, word, ApprovalStatus.PENDING)


@dataclass(frozen=True, slots=True)
class Public:
    """The part of a decision that an agent may see."""

    code: PublicCode
    next_action: NextAction
    retry: Retry


_WHAT: Final = {
    PublicCode.PERMIT: "The operation may be performed.",
    PublicCode.STEP_UP: "Not yet: something must be shown first.",
    PublicCode.DENIED: "The operation may not be performed.",
    PublicCode.UNAUTHENTICATED: "The request does not prove who is calling.",
    PublicCode.INVALID: "The request cannot be judged as it stands.",
    PublicCode.UNAVAILABLE: "No decision could be made, so the operation may not be performed.",
}
_ACT: Final = {
    NextAction.NONE: "",
    NextAction.START_TASK: "Start a task that covers it.",
    NextAction.NARROW: "Ask for less, or fix the request.",
    NextAction.CONFIRM: "The user must confirm it.",
    NextAction.APPROVE: "Another person must approve it.",
    NextAction.REAUTH: "Authenticate again.",
    NextAction.CONTACT_OWNER: "Ask the owner of the system.",
}
_AGAIN: Final = {
    Retry.NEVER: "Do not send the same request again.",
    Retry.LATER: "The same request may pass later.",
    Retry.AFTER_CHANGE: "The request may pass once that has changed.",
}

_Word = TypeVar("_Word", bound=StrEnum)


def public_text(public: Public) -> str:
    """Return the fixed text of a triple. The server uses the same text.

    Args:
        public: The triple.

    Returns:
        One to three sentences.
    """
    again = "" if public.code is PublicCode.PERMIT else _AGAIN[public.retry]
    parts = (_WHAT[public.code], _ACT[public.next_action], again)
    return " ".join(part for part in parts if part)


def _word(descriptor: EnumDescriptor, number: int, prefix: str) -> str:
    value = descriptor.values_by_number.get(number)
    return value.name.removeprefix(prefix) if value is not None else ""


def _member(kind: type[_Word], word: str, otherwise: _Word) -> _Word:
    return kind(word) if word in kind.__members__ else otherwise


def _public(code: int, next_action: int, retry: int) -> Public:
    """Read the triple. An unknown value is replaced by the strictest value."""
    code_word = _word(options_pb2.PublicCode.DESCRIPTOR, code, "PUBLIC_CODE_")
    next_word = _word(options_pb2.NextAction.DESCRIPTOR, next_action, "NEXT_ACTION_")
    retry_word = _word(options_pb2.Retry.DESCRIPTOR, retry, "RETRY_")
    return Public(
        _member(PublicCode, code_word, PublicCode.DENIED),
        _member(NextAction, next_word, NextAction.NONE),
        _member(Retry, retry_word, Retry.NEVER),
    )


class Refused(AuthzError):  # noqa: N818 - the exception is an answer of the node
    """A call may not run.

    Args:
        public: Part of the decision that an agent may see.
        operation: Operation id.
        decision: Decision of the node, or None if it made no decision.
        reason_code: Reason code, if there is no decision.
        message: Message for the operators of the enforcer.
    """

    grpc_code = _DENIED_CODE
    http_status = 403

    def __init__(
        self,
        public: Public,
        *,
        operation: str = "",
        decision: decision_pb2.Decision | None = None,
        reason_code: str = "",
        message: str = "",
    ) -> None:
        self.dpop_nonce = ""
        """Nonce for the caller's next DPoP proof, if the node sent one (RFC 9449 §9)."""
        self.decision_id: str = decision.decision_id if decision is not None else ""
        self.operation = operation
        self.public_code = public.code
        self.next_action = public.next_action
        self.retry = public.retry
        self.policy_ids: tuple[str, ...] = tuple(decision.policy_ids) if decision else ()
        self.message = message or (decision.message if decision is not None else "")
        self.reason_code = reason_code
        if decision is not None and not reason_code:
            descriptor = reason_pb2.ReasonCode.DESCRIPTOR
            word = _word(descriptor, decision.reason_code, "REASON_CODE_")
            self.reason_code = "" if word == "UNSPECIFIED" else word
        self.reason = self.reason_code or self.public_code.value
        self.shown_reason: str = decision.shown_reason if decision is not None else ""
        """Reason of the policy, if the bundle shows reasons of the system to agents."""
        text = public_text(public)
        if self.shown_reason:
            text = f"{text} {self.shown_reason}"
        super().__init__(f"{text} (decision {self.decision_id})" if self.decision_id else text)


def public_text_of(refused: Refused) -> str:
    """Return the fixed text of a refusal, without the decision's id and the policy's reason.

    Args:
        refused: The refusal.

    Returns:
        One to three sentences.
    """
    return public_text(Public(refused.public_code, refused.next_action, refused.retry))


class Denied(Refused):
    """The operation may not be performed."""


class _Waiter(Protocol):
    """Waits for the answer to a step-up."""

    def wait(self, timeout: float | None) -> ApprovalStatus: ...

    async def wait_async(self, timeout: float | None) -> ApprovalStatus: ...  # noqa: ASYNC109


class StepUp(Refused):
    """The operation may not be performed yet: the call needs a proof, or the answer of a person, for each kind in `kinds`.

    A step-up that a person lifts has an approval. `wait` returns when the person has answered; then make the same call again.

    Args:
        public: Part of the decision that an agent may see.
        operation: Operation id.
        decision: Decision of the node.
        reason_code: Reason code, if there is no decision.
        message: Message for the operators of the enforcer.
    """

    def __init__(
        self,
        public: Public,
        *,
        operation: str = "",
        decision: decision_pb2.Decision | None = None,
        reason_code: str = "",
        message: str = "",
    ) -> None:
        super().__init__(
            public,
            operation=operation,
            decision=decision,
            reason_code=reason_code,
            message=message,
        )
        self.kinds: tuple[str, ...] = tuple(decision.step_up_kinds) if decision is not None else ()
        challenge = decision.challenge if decision is not None else decision_pb2.Challenge()
        self.approval_id: str = challenge.approval_id
        """Id of the approval, for `check(…, approval_id=…)`. Empty if no person can answer the step-up."""
        self.url: str = challenge.url
        """URL of the page on which a person answers. Empty if the node has no page."""
        self.expires_at: datetime | None = (
            challenge.expires_at.ToDatetime(UTC) if challenge.HasField("expires_at") else None
        )
        """End of the approval, in UTC. `None` without an approval."""
        self.reject_reason = ""
        """Name of the reason of a rejection. Set by `wait`."""
        self.waiter: _Waiter | None = None

    def wait(self, timeout: float | None = None) -> ApprovalStatus:
        """Wait until a person has answered.

        Args:
            timeout: Longest wait, in seconds. Default: until the approval ends.

        Returns:
            APPROVED, REJECTED, EXPIRED or CONSUMED, or PENDING if nobody answered within `timeout`. If the node cannot be reached,
            the client tries again until then.

        Raises:
            UsageError: No person can answer this step-up.
            Refused: The node refuses the caller, or this listener serves no approvals.
        """
        return self._waits().wait(timeout)

    async def wait_async(self, timeout: float | None = None) -> ApprovalStatus:  # noqa: ASYNC109 - the flow applies the time-out
        """Wait like `wait`, without blocking the event loop.

        Args:
            timeout: Longest wait, in seconds. Default: until the approval ends.

        Returns:
            APPROVED, REJECTED, EXPIRED or CONSUMED, or PENDING if nobody answered within `timeout`. If the node cannot be reached,
            the client tries again until then.

        Raises:
            UsageError: No person can answer this step-up.
            Refused: The node refuses the caller, or this listener serves no approvals.
        """
        return await self._waits().wait_async(timeout)

    def _waits(self) -> _Waiter:
        if self.waiter is None:
            kinds = ", ".join(self.kinds) or "another kind of proof"
            raise UsageError(
                f"no person answers this step-up: show {kinds}, and make the call again"
            )
        return self.waiter


class Unavailable(Refused):
    """No decision was made, so the call is denied."""

    grpc_code = 14
    http_status = 503

    @classmethod
    def of(
        cls, message: str, operation: str = "", reason_code: str = "UNAVAILABLE"
    ) -> "Unavailable":
        """Return the error for a failure on the side of the client.

        Args:
            message: Description of the failure, for the operators of the enforcer.
            operation: Operation id.
            reason_code: Reason code.

        Returns:
            The error.
        """
        public = Public(PublicCode.UNAVAILABLE, NextAction.NONE, Retry.LATER)
        return cls(public, operation=operation, reason_code=reason_code, message=message)


class TransportError(Exception):
    """A call ended without an answer of its method.

    Args:
        code: `google.rpc.Code`.
        details: Text of the status.
        status: The encoded `google.rpc.Status` of the trailers; empty without a status.
    """

    def __init__(self, code: int, details: str, status: bytes = b"") -> None:
        super().__init__(f"{code}: {details}")
        self.code = code
        self.details = details
        self.reason, self.dpop_nonce = _info(status)


def _info(status: bytes) -> tuple[str, str]:
    """Read `ErrorInfo.reason`, and the nonce that the next DPoP proof must carry."""
    if not status:
        return "", ""
    info = error_details_pb2.ErrorInfo()
    try:
        for detail in status_pb2.Status.FromString(status).details:
            if detail.Unpack(info):
                return str(info.reason), str(info.metadata.get("dpop_nonce", ""))
    except Exception:  # noqa: BLE001 - another server than Authz answered; the code remains
        return "", ""
    return "", ""


_CLASSES: Final[Mapping[PublicCode, type[Refused]]] = {
    PublicCode.STEP_UP: StepUp,
    PublicCode.UNAVAILABLE: Unavailable,
}


def denied(message: str, *, operation: str = "", reason_code: str = "ENFORCER_REFUSED") -> Denied:
    """Make a denial of this side's own.

    Args:
        message: Defect, for the operators of the enforcer.
        operation: Operation id.
        reason_code: Reason code.

    Returns:
        The error.
    """
    row = row_of(reason_code)
    return Denied(row, operation=operation, reason_code=reason_code, message=message)


def row_of(reason_code: str) -> Public:
    """Look up the public part of a reason code.

    Args:
        reason_code: Its name.

    Returns:
        The part of a denial that an agent may see. An unknown code is a denial without a next action.
    """
    value = reason_pb2.ReasonCode.DESCRIPTOR.values_by_name.get(f"REASON_CODE_{reason_code}")
    row = value.GetOptions().Extensions[options_pb2.reason] if value is not None else None
    if row is None:
        return Public(PublicCode.DENIED, NextAction.NONE, Retry.NEVER)
    return _public(row.public_code, row.next_action, row.retry)


def refusal_of(decision: decision_pb2.Decision, operation: str) -> Refused:
    """Turn a decision that does not permit into an error.

    Args:
        decision: The decision.
        operation: Operation id.

    Returns:
        The error; also of a decision that says permit, which nothing here lets through.
    """
    public = _public(decision.public_code, decision.next_action, decision.retry)
    if public.code is PublicCode.PERMIT:
        # Outcome and code contradict each other, so neither counts.
        return Unavailable.of("the answer contradicts itself", operation)
    return _CLASSES.get(public.code, Denied)(public, operation=operation, decision=decision)


def refusal_of_rpc(error: TransportError, operation: str) -> Refused:
    """Turn an RPC that failed into an error.

    Args:
        error: How it failed.
        operation: Operation id.

    Returns:
        The error.
    """
    if not error.reason:
        if error.code in _NO_ANSWER:
            return Unavailable.of(error.details, operation)
        unknown = error.code == _UNAUTHENTICATED_CODE
        return denied(
            error.details,
            operation=operation,
            reason_code="NO_CREDENTIAL" if unknown else "ENFORCER_REFUSED",
        )
    public = row_of(error.reason)
    kind = _CLASSES.get(public.code, Denied)
    return kind(public, operation=operation, reason_code=error.reason, message=error.details)
