"""The administration listener: Status, Reload, Revoke and Explain.

It is a unix socket that only its owner can open, so its caller is the owner, who may always ask for Status,
Reload and Revoke. Explain is a decision about somebody else's authority: the engine judges who may have it.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, Protocol

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from authz.errors import ApiError
from authz.model import CallFacts, Surface
from authz.server.grpc.decisions import AUTHORIZER, RawHandler, facts_of
from authz.server.grpc.errors import answered
from authz.server.grpc.listener import Services
from authz.server.runtime_state import World
from authz.server.status.readiness import Readiness
from authz.telemetry import Metrics
from authz.v1 import admin_pb2

__all__ = ["ADMIN", "Administration", "Explains"]

ADMIN: Final = "authz.v1.Admin"
"""The service's name."""


class Explains(Protocol):
    """The engine, as far as Explain and Revoke need it."""

    def explain(self, request: bytes, facts: CallFacts) -> bytes:
        """Answer `authz.v1.Authorizer/Explain`."""

    def call(self, surface: Surface, request: bytes, facts: CallFacts) -> bytes:
        """Answer a call that answers no decision."""


@dataclass(frozen=True, slots=True)
class Administration:
    """Makes the handlers of the administration listener."""

    engine: Explains
    """Explains and revokes."""
    world: World
    """Reloads."""
    readiness: Readiness
    """Tells how the node stands."""
    version: str
    """Version of the software."""
    listener: str
    """Name of the listener."""
    metrics: Metrics
    """Counts calls."""
    failed: Callable[[BaseException], None]
    """Told of every unexpected exception."""
    ended: Callable[[float], object] | None = None
    """Told of each revocation, and how many seconds its caller still waits."""

    def services(self) -> Services:
        """Make every handler.

        Returns:
            Handlers by service and method.
        """
        return {
            ADMIN: {
                "Status": self._handler(ADMIN, "Status", self._status),
                "Reload": self._handler(ADMIN, "Reload", self._reload),
                "Revoke": self._handler(ADMIN, "Revoke", self._revoke),
                "Forget": self._handler(ADMIN, "Forget", self._forget),
            },
            AUTHORIZER: {"Explain": self._handler(AUTHORIZER, "Explain", self._explain)},
        }

    def _handler(
        self, service: str, method: str, answer: Callable[[bytes, grpc.ServicerContext], bytes]
    ) -> RawHandler:
        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            return answered(
                lambda: answer(request, context),
                context,
                counted=lambda code: self.metrics.handled(service, method, code),
                failed=self.failed,
            )

        return grpc.unary_unary_rpc_method_handler(handle)

    def _explain(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return self.engine.explain(request, facts_of(context, self.listener, 30.0))

    def _revoke(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        facts, started = facts_of(context, self.listener, 30.0), time.monotonic()
        answered = self.engine.call(Surface.REVOKE, request, facts)
        if self.ended is not None:
            self.ended((facts.remaining or 0.0) - (time.monotonic() - started))
        return answered

    def _forget(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return self.engine.call(Surface.FORGET, request, facts_of(context, self.listener, 30.0))

    def _reload(self, request: bytes, _context: grpc.ServicerContext) -> bytes:
        _parse(admin_pb2.ReloadRequest(), request)
        outcome = self.world.reload()
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
        stands, report = self.world.stands, self.readiness.report()
        answer = admin_pb2.StatusResponse(
            version=self.version,
            ready=report.ready,
            problems=report.problems,
            started_at=_timestamp(self.readiness.started_at),
            last_reload_error="\n".join(str(diagnostic) for diagnostic in stands.refused),
            detail_json=json.dumps(report.detail, sort_keys=True).encode(),
        )
        if stands.plan is not None:
            answer.bundle_name = stands.plan.name
            answer.bundle_revision = stands.plan.revision
            answer.bundle_digest = stands.plan.digest
            answer.bundle_loaded_at.CopyFrom(_timestamp(stands.loaded_at))
        if stands.trust is not None:
            answer.trust_revision = stands.trust.revision
        return answer.SerializeToString()


def _parse(message: admin_pb2.StatusRequest | admin_pb2.ReloadRequest, request: bytes) -> None:
    try:
        message.ParseFromString(request)
    except Exception as error:
        what = "the request is not the message that this method takes"
        raise ApiError("BAD_INPUT", 3, what) from error


def _timestamp(at: float) -> Timestamp:
    return Timestamp(seconds=int(at), nanos=int(at % 1 * 1e9))
