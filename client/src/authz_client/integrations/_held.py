"""Calls of an agent that wait for a person, as a framework can store them."""

from datetime import datetime
from typing import Any, Final

from authz_client.approval_code import binding_code
from authz_client.approval_texts import instructions
from authz_client.base_errors import UsageError
from authz_client.client import Authz
from authz_client.errors import (
    ApprovalStatus,
    NextAction,
    Public,
    PublicCode,
    Refused,
    Retry,
    StepUp,
    public_text_of,
)
from authz_client.v1 import decision_pb2

__all__ = ["ENDS", "await_answer", "held_call", "refusal_text", "wait_for_answer"]

ENDS: Final = {
    ApprovalStatus.EXPIRED: "Nobody answered the request in time, so the call was not made.",
    ApprovalStatus.CONSUMED: "The answer of the person was used by another call, so this one was not made.",
}
"""Texts for approvals that ended without a valid answer."""
_PUBLIC: Final = Public(PublicCode.STEP_UP, NextAction.APPROVE, Retry.AFTER_CHANGE)


def held_call(step_up: StepUp) -> dict[str, Any]:
    """Describe a call that waits for a person as JSON, without the arguments of the call.

    Args:
        step_up: The step-up.
    """
    return {
        "approval_id": step_up.approval_id,
        "operation": step_up.operation,
        "url": step_up.url,
        "code": binding_code(step_up.approval_id),
        "kinds": list(step_up.kinds),
        "expires_at": step_up.expires_at.isoformat() if step_up.expires_at else "",
    }


def wait_for_answer(
    authz: Authz, held: dict[str, Any], timeout: float | None = None
) -> ApprovalStatus:
    """Wait until a person has answered, also in another process than the one that made the call.

    Args:
        authz: Client of the agent.
        held: The call that waits.
        timeout: Longest wait, in seconds. Default: until the approval ends.

    Returns:
        APPROVED, REJECTED, EXPIRED or CONSUMED, or PENDING if nobody answered within `timeout`.

    Raises:
        UsageError: `held` does not describe a waiting call.
        Refused: The node refuses the caller.
    """
    return _step_up(authz, held).wait(timeout)


async def await_answer(
    authz: Authz,
    held: dict[str, Any],
    timeout: float | None = None,  # noqa: ASYNC109 - the flow applies the time-out
) -> ApprovalStatus:
    """Wait like `wait_for_answer`, without blocking the event loop.

    Args:
        authz: Client of the agent.
        held: The call that waits.
        timeout: Longest wait, in seconds. Default: until the approval ends.

    Returns:
        APPROVED, REJECTED, EXPIRED or CONSUMED, or PENDING if nobody answered within `timeout`.

    Raises:
        UsageError: `held` does not describe a waiting call.
        Refused: The node refuses the caller.
    """
    return await _step_up(authz, held).wait_async(timeout)


def refusal_text(refused: Refused) -> str:
    """Return the text of a refusal for the model.

    Args:
        refused: The refusal.
    """
    more = instructions(refused) if isinstance(refused, StepUp) else ""
    return " ".join(part for part in (public_text_of(refused), more, refused.shown_reason) if part)


def _step_up(authz: Authz, held: dict[str, Any]) -> StepUp:
    approval_id, expires_at = held.get("approval_id"), held.get("expires_at")
    if not isinstance(approval_id, str) or not approval_id:
        raise UsageError(
            "give the value of an interrupt that a held call made: it has `approval_id`"
        )
    decision = decision_pb2.Decision()
    decision.challenge.approval_id = approval_id
    if expires_at:
        decision.challenge.expires_at.FromDatetime(datetime.fromisoformat(expires_at))
    step_up = StepUp(_PUBLIC, operation=str(held.get("operation", "")), decision=decision)
    authz.parts.approvals.bind(step_up, None, None)
    return step_up
