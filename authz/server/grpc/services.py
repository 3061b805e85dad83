"""The gRPC services of each kind of listener, as tables: service, method, handler."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import grpc

from authz.model import CallFacts, Surface
from authz.server.grpc.access_log import ACCESS_LOG, AccessLogs
from authz.server.grpc.admin import ADMIN, AdminCalls, Administration
from authz.server.grpc.approvals import APPROVALS, ApprovalServices
from authz.server.grpc.breakglass import AdminBreakglass, BreakglassCalls
from authz.server.grpc.decisions import (
    AUTHORIZER,
    ENVOY,
    DecisionCalls,
    Decisions,
    RawHandler,
)
from authz.server.grpc.errors import not_in_this_version, unimplemented
from authz.server.grpc.executor import Turn
from authz.server.grpc.listener import Services
from authz.server.grpc.passkeys import PASSKEYS
from authz.server.grpc.unary import CallContext, SurfaceCalls, UnaryService
from authz.surfaces import METHODS

__all__ = [
    "ADMIN_REFLECTED",
    "DECISION_REFLECTED",
    "HEALTH_NAMES",
    "EngineCalls",
    "ListenerCalls",
    "admin_services",
    "decision_services",
]

TASKS: Final = "authz.v1.Tasks"
CREDENTIALS: Final = "authz.v1.Credentials"

DECISION_REFLECTED: Final = (AUTHORIZER, APPROVALS, ENVOY, ACCESS_LOG)
"""Services that reflection shows on a listener of decisions."""
ADMIN_REFLECTED: Final = (ADMIN, APPROVALS, PASSKEYS, AUTHORIZER, TASKS, CREDENTIALS)
"""Services that reflection shows on the administration listener."""
HEALTH_NAMES: Final = (AUTHORIZER, APPROVALS, ENVOY, ACCESS_LOG, ADMIN)
"""Services whose health can be asked for."""

# Named one by one, so that no new method is served on listeners of decisions by default. Decisions have handlers of
# their own, and only the administration listener explains them.
_AUTHORIZER_METHODS: Final = {name: METHODS[AUTHORIZER][name] for name in ("List", "Report")}


class EngineCalls(DecisionCalls, AdminCalls, BreakglassCalls, Protocol):
    """All of the engine that gRPC services use."""

    def approval_status(self, request: bytes, facts: CallFacts) -> bytes:
        """Answer `authz.v1.Approvals/Get` for the agent of the call."""


@dataclass(frozen=True, slots=True)
class ListenerCalls:
    """Who answers the calls of a listener."""

    engine: EngineCalls
    """Answers decisions and tasks."""
    issuer: SurfaceCalls | None
    """Answers calls about credentials. `None`: none are issued."""
    context: CallContext
    """Shared by the handlers of the listener."""
    approvals: ApprovalServices
    """Serve approvals."""
    task_ended: Callable[[float], object] | None = None
    """Called after each task that ended, with the seconds that its caller still waits."""

    def unary_services(self) -> Services:
        """Return the services that every kind of listener has."""
        after = {Surface.TASK_END: self.task_ended} if self.task_ended is not None else None
        tasks = UnaryService(TASKS, METHODS[TASKS], self.engine, self.context, after)
        return {TASKS: tasks.handlers(), CREDENTIALS: self._credentials()}

    def _credentials(self) -> dict[str, RawHandler]:
        if self.issuer is not None:
            service = UnaryService(CREDENTIALS, METHODS[CREDENTIALS], self.issuer, self.context)
            return service.handlers()
        why = "no credentials are issued here: `credentials` is not configured"
        return {
            method: grpc.unary_unary_rpc_method_handler(
                unimplemented(f"Credentials.{method}: {why}")
            )
            for method in METHODS[CREDENTIALS]
        }


def decision_services(calls: ListenerCalls, turn: Turn, logs: AccessLogs) -> Services:
    """Return the services of a listener of decisions.

    Args:
        calls: Who answers.
        turn: The executor of the listener.
        logs: Streams of access logs of the listener.
    """
    context = calls.context
    decisions = Decisions(
        calls.engine,
        context.listener,
        turn,
        context.default_deadline,
        context.failed,
        context.read,
    )

    def decision(service: str, method: str, surface: Surface) -> RawHandler:
        return decisions.handler(surface, context.metrics.observer(service, method))

    unary = UnaryService(AUTHORIZER, _AUTHORIZER_METHODS, calls.engine, context)
    return {
        **calls.unary_services(),
        APPROVALS: calls.approvals.agents(calls.engine.approval_status, context),
        AUTHORIZER: {
            "Check": decision(AUTHORIZER, "Check", Surface.CHECK),
            "BatchCheck": decision(AUTHORIZER, "BatchCheck", Surface.BATCH_CHECK),
            **unary.handlers(),
            "Explain": grpc.unary_unary_rpc_method_handler(
                not_in_this_version("Authorizer.Explain outside the administration listener")
            ),
        },
        ENVOY: {"Check": decision(ENVOY, "Check", Surface.EXT_AUTHZ)},
        ACCESS_LOG: logs.handlers(context.listener, context.read),
    }


def admin_services(
    calls: ListenerCalls, administration: Administration, users: Callable[[], frozenset[int]]
) -> Services:
    """Return the services of the administration listener.

    Args:
        calls: Who answers.
        administration: Answers administration.
        users: Returns the users that are connected to the socket.
    """
    served = administration.services()
    breakglass = AdminBreakglass(calls.engine, calls.approvals.people, users, calls.context)
    return {
        **served,
        ADMIN: {**served[ADMIN], **breakglass.handlers()},
        **calls.unary_services(),
        APPROVALS: calls.approvals.admin(users, calls.context),
        PASSKEYS: calls.approvals.passkeys.handlers(calls.context),
    }
