"""Unary methods that answer without a decision: the engine's answer, or an RPC error with its reason code."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import grpc

from authz.errors import ApiError, GrpcCode
from authz.model import CallFacts, Surface
from authz.server.grpc.decisions import RawHandler, ReadFacts
from authz.server.grpc.errors import answered
from authz.server.grpc.executor import Turn
from authz.telemetry import Metrics

__all__ = ["CallContext", "SurfaceCalls", "UnaryService", "unary_handler"]


class SurfaceCalls(Protocol):
    """Answers methods without a decision: the engine, or the issuer of credentials over it."""

    def call(self, surface: Surface, request: bytes, facts: CallFacts) -> bytes:
        """Answer an encoded request; raises `ApiError` where it is refused."""


@dataclass(frozen=True, slots=True)
class CallContext:
    """Everything that the handlers of one listener share."""

    listener: str
    """Name of the listener."""
    turn: Turn | None
    """The executor, where calls may be shed."""
    default_deadline: float
    """Seconds that a call without a deadline has."""
    read: ReadFacts
    """Reads the transport's facts about a call."""
    metrics: Metrics
    """Counts calls."""
    failed: Callable[[BaseException], None]
    """Receives every unexpected exception."""

    def facts(self, context: grpc.ServicerContext) -> CallFacts:
        """Read the transport's facts about a call.

        Raises:
            ApiError: The queue is full, so the call is refused.
        """
        waited = self.turn.begin() if self.turn is not None else 0.0
        if waited is None:
            what = "the server has more requests than it may hold"
            raise ApiError("OVERLOADED", GrpcCode.RESOURCE_EXHAUSTED, what)
        return self.read(context, self.listener, self.default_deadline - waited)


@dataclass(frozen=True, slots=True)
class UnaryService:
    """A service of one listener, all of whose methods are surfaces of the engine."""

    name: str
    """Full name of the service."""
    methods: Mapping[str, Surface]
    """The engine's surface of each method."""
    calls: SurfaceCalls
    """Answers."""
    context: CallContext
    """Shared by the handlers of the listener."""
    after: Mapping[Surface, Callable[[float], object]] | None = None
    """Called after an answer, by surface, with the seconds that its caller still waits."""

    def handlers(self) -> dict[str, RawHandler]:
        """Return the handler of each method."""
        return {
            method: unary_handler(self.name, method, self._answer(surface), self.context)
            for method, surface in self.methods.items()
        }

    def _answer(self, surface: Surface) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        after = (self.after or {}).get(surface)

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            facts = self.context.facts(context)
            started = time.monotonic()
            response = self.calls.call(surface, request, facts)
            if after is not None:
                after((facts.remaining or 0.0) - (time.monotonic() - started))
            return response

        return answer


def unary_handler(
    service: str,
    method: str,
    answer: Callable[[bytes, grpc.ServicerContext], bytes],
    shared: CallContext,
) -> RawHandler:
    """Make the handler of one method: counted, and every error answered with its reason code.

    Args:
        service: Full name of the service.
        method: Name of the method.
        answer: Returns the encoded response; raises `AuthzError` to refuse.
        shared: Context of the listener.
    """

    def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
        return answered(
            lambda: answer(request, context),
            context,
            counted=lambda code: shared.metrics.handled(service, method, code),
            failed=shared.failed,
        )

    return grpc.unary_unary_rpc_method_handler(handle)
