"""`authz.v1.Tasks`: what the engine answers, or an RPC error with its reason."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import grpc

from authz.errors import ApiError
from authz.model import CallFacts, Surface
from authz.server.grpc.decisions import RawHandler, ReadFacts
from authz.server.grpc.errors import answered
from authz.server.grpc.executor import Turn
from authz.telemetry import Metrics

__all__ = ["TASKS", "Calls", "Tasks"]

TASKS: Final = "authz.v1.Tasks"
"""The service's name."""

_METHODS: Final = {
    "Start": Surface.TASK_START,
    "Delegate": Surface.TASK_DELEGATE,
    "Extend": Surface.TASK_EXTEND,
    "Get": Surface.TASK_GET,
    "List": Surface.TASK_LIST,
    "End": Surface.TASK_END,
}
_RESOURCE_EXHAUSTED: Final = 8


class Calls(Protocol):
    """The engine, as far as the service needs it."""

    def call(self, surface: Surface, request: bytes, facts: CallFacts) -> bytes:
        """Answer a call that answers no decision."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """Makes the handlers of one listener."""

    engine: Calls
    """Answers."""
    listener: str
    """Name of the listener."""
    turn: Turn | None
    """The executor, where calls may be shed."""
    default_deadline: float
    """Seconds that a call without a deadline has."""
    metrics: Metrics
    """Counts calls."""
    failed: Callable[[BaseException], None]
    """Told of every unexpected exception."""
    read: ReadFacts
    """Reads what the transport knows of a call."""
    ended: Callable[[float], object] | None = None
    """Told of each task that ended, and how many seconds its caller still waits."""

    def handlers(self) -> dict[str, RawHandler]:
        """Make every handler.

        Returns:
            Handlers by method.
        """
        return self.of(TASKS, _METHODS)

    def of(self, service: str, methods: Mapping[str, Surface]) -> dict[str, RawHandler]:
        """Make the handlers of a service that answers no decision.

        Args:
            service: The service's name.
            methods: What the engine calls each method.

        Returns:
            Handlers by method.
        """
        return {
            method: self.handler(service, method, surface) for method, surface in methods.items()
        }

    def handler(self, service: str, method: str, surface: Surface) -> RawHandler:
        """Make the handler of one method, of this service or of another that answers no decision.

        Args:
            service: The service's name.
            method: The method's.
            surface: What the engine calls it.

        Returns:
            The handler.
        """

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            waited = self.turn.begin() if self.turn is not None else 0.0
            if waited is None:
                what = "the server has more requests than it may hold"
                raise ApiError("OVERLOADED", _RESOURCE_EXHAUSTED, what)
            facts = self.read(context, self.listener, self.default_deadline - waited)
            started = time.monotonic()
            answered = self.engine.call(surface, request, facts)
            if surface is Surface.TASK_END and self.ended is not None:
                self.ended((facts.remaining or 0.0) - (time.monotonic() - started))
            return answered

        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            return answered(
                lambda: answer(request, context),
                context,
                counted=lambda code: self.metrics.handled(service, method, code),
                failed=self.failed,
            )

        return grpc.unary_unary_rpc_method_handler(handle)
