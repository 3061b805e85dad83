"""The administration listener: Status, Reload, Revoke and Explain.

Only its owner can open this unix socket, so every caller is the owner, who may always call Status, Reload and Revoke.
Explain is about the authority of others: the engine judges which callers may have it.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, Protocol

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from authz.errors import ApiError, GrpcCode
from authz.model import CallFacts, Surface
from authz.server.grpc.decisions import AUTHORIZER
from authz.server.grpc.listener import Services
from authz.server.grpc.unary import CallContext, SurfaceCalls, UnaryService, unary_handler
from authz.server.runtime_state import RuntimeState
from authz.server.status.readiness import Readiness
from authz.surfaces import METHODS
from authz_client.v1 import admin_pb2

__all__ = ["ADMIN", "AdminCalls", "Administration"]

ADMIN: Final = "authz.v1.Admin"
"""Full name of the service."""


class AdminCalls(SurfaceCalls, Protocol):
    """The part of the engine that administration uses."""

    def explain(self, request: bytes, facts: CallFacts) -> bytes:
        """Answer `authz.v1.Authorizer/Explain`."""


@dataclass(frozen=True, slots=True)
class Administration:
    """Handlers of the administration listener."""

    engine: AdminCalls
    """Explains and revokes."""
    runtime: RuntimeState
    """Reloads."""
    readiness: Readiness
    """Reports the status of the node."""
    version: str
    """Version of the software."""
    context: CallContext
    """Shared by the handlers of the listener."""
    task_ended: Callable[[float], object] | None = None
    """Called after each revocation, with the seconds that its caller still waits."""

    def services(self) -> Services:
        """Return handlers by service and method."""
        after = {Surface.REVOKE: self.task_ended} if self.task_ended is not None else None
        stored = UnaryService(ADMIN, METHODS[ADMIN], self.engine, self.context, after)
        return {
            ADMIN: {
                **stored.handlers(),
                "Status": unary_handler(ADMIN, "Status", self._status, self.context),
                "Reload": unary_handler(ADMIN, "Reload", self._reload, self.context),
            },
            AUTHORIZER: {
                "Explain": unary_handler(AUTHORIZER, "Explain", self._explain, self.context)
            },
        }

    def _explain(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return self.engine.explain(request, self.context.facts(context))

    def _reload(self, request: bytes, _context: grpc.ServicerContext) -> bytes:
        _parse(admin_pb2.ReloadRequest(), request)
        outcome = self.runtime.reload()
        answer = admin_pb2.ReloadResponse(
            reloaded=not outcome.failed,
            bundle_revision=outcome.revision,
            diagnostics=[str(diagnostic) for diagnostic in outcome.diagnostics],
        )
        if not outcome.failed:
            answer.rules.CopyFrom(admin_pb2.RuleChanges(**asdict(outcome.rules)))
        return answer.SerializeToString()

    def _status(self, request: bytes, _context: grpc.ServicerContext) -> bytes:
        _parse(admin_pb2.StatusRequest(), request)
        snapshot, report = self.runtime.snapshot, self.readiness.report()
        answer = admin_pb2.StatusResponse(
            version=self.version,
            ready=report.ready,
            problems=report.problems,
            started_at=_timestamp(self.readiness.started_at),
            last_reload_error="\n".join(str(diagnostic) for diagnostic in snapshot.refused),
            detail_json=json.dumps(report.detail, sort_keys=True).encode(),
        )
        if snapshot.plan is not None:
            answer.bundle_name = snapshot.plan.name
            answer.bundle_revision = snapshot.plan.revision
            answer.bundle_digest = snapshot.plan.digest
            answer.bundle_loaded_at.CopyFrom(_timestamp(snapshot.loaded_at))
        if snapshot.trust is not None:
            answer.trust_revision = snapshot.trust.revision
        return answer.SerializeToString()


def _parse(message: admin_pb2.StatusRequest | admin_pb2.ReloadRequest, request: bytes) -> None:
    try:
        message.ParseFromString(request)
    except Exception as error:
        what = "the request is not the message that this method takes"
        raise ApiError("BAD_INPUT", GrpcCode.INVALID_ARGUMENT, what) from error


def _timestamp(at: float) -> Timestamp:
    return Timestamp(seconds=int(at), nanos=int(at % 1 * 1e9))
