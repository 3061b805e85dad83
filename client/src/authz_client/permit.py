"""A permit, as a server answers it; nothing else is ever taken for one."""

from dataclasses import dataclass

from authz_client.errors import Unavailable, refusal_of
from authz_client.v1 import decision_pb2, options_pb2

__all__ = ["Permit", "permit_of"]


@dataclass(frozen=True, slots=True)
class Permit:
    """The operation may be performed, once, as it was asked."""

    decision_id: str
    """The same id stands in the server's audit."""
    operation: str
    """Operation id."""
    obligations: tuple[str, ...]
    """Obligations that the enforcer must carry out."""
    enforced: bool
    """False where the server only observes: it would have refused."""
    reservation_id: str
    """Id for the report of the result; empty if no report is expected."""
    yields: tuple[str, ...]
    """Labels that the results carry at most; told where a report is awaited."""
    resource: str
    """The Cedar resource that was judged; empty where the server does not tell."""
    report_values: tuple[str, ...] = ()
    """JSON pointers (RFC 6901) to the values of the result that an enforcer reports; `*` stands for every element of an array.
    Empty: none."""


def permit_of(decision: decision_pb2.Decision, operation: str) -> Permit:
    """Take a decision for a permit.

    Args:
        decision: The decision.
        operation: Operation id.

    Returns:
        The permit.

    Raises:
        Refused: The decision does not permit.
    """
    if decision.outcome != decision_pb2.OUTCOME_PERMIT:
        raise refusal_of(decision, operation)
    if decision.public_code != options_pb2.PUBLIC_CODE_PERMIT or not decision.decision_id:
        raise Unavailable.of("the answer contradicts itself", operation)
    return Permit(
        decision_id=decision.decision_id,
        operation=operation,
        obligations=tuple(decision.obligations),
        enforced=decision.enforced,
        reservation_id=decision.reservation_id,
        yields=tuple(decision.yields),
        resource=decision.resource,
        report_values=tuple(decision.report_values),
    )
