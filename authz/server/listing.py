"""`Authorizer/List`: no decision, so what fails is an RPC error."""

from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

import grpc

from authz.errors import ApiError, AuthzError, UnavailableError
from authz.model import CallFacts, Surface
from authz.server.decisions import (
    AUTHORIZER,
    Decisions,
    RawHandler,
    facts_of,
    peer_facts_of,
    traceparent_of,
)
from authz.server.status import abort, status_code
from authz.telemetry import Metrics
from authz.telemetry.context import in_trace

__all__ = ["Listing", "Lists"]

_METHOD: Final = "List"
_RESOURCE_EXHAUSTED: Final = 8


class Lists(Protocol):
    """The engine, as far as List needs it."""

    def call(self, surface: Surface, request: bytes, facts: CallFacts) -> bytes:
        """Answer a call that answers no decision."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Makes the handler of one listener."""

    decisions: Decisions
    """The listener's other methods."""
    engine: Lists
    """Answers."""
    metrics: Metrics
    """Counts calls."""

    def handler(self) -> RawHandler:
        """Make the handler.

        Returns:
            The handler.
        """
        listener, turn = self.decisions.listener, self.decisions.turn
        read = peer_facts_of if self.decisions.mutual else facts_of

        def answered(request: bytes, context: grpc.ServicerContext) -> bytes:
            turn.received()
            if turn.shedding():
                what = "the server has more calls than it can answer"
                raise ApiError("OVERLOADED", _RESOURCE_EXHAUSTED, what)
            left = self.decisions.default_deadline - turn.waited()
            return self.engine.call(Surface.LIST, request, read(context, listener, left))

        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            with in_trace(traceparent_of(context)):
                try:
                    answer = answered(request, context)
                except AuthzError as refused:
                    self._refuse(context, refused)
                except BaseException as unexpected:  # noqa: BLE001 - a panic of the engine is no Exception
                    self.decisions.failed(unexpected)
                    what = "internal error; see the server's log"
                    self._refuse(context, UnavailableError(what))
            self.metrics.handled(AUTHORIZER, _METHOD, "OK")
            return answer

        return grpc.unary_unary_rpc_method_handler(handle)

    def _refuse(self, context: grpc.ServicerContext, error: AuthzError) -> NoReturn:
        self.metrics.handled(AUTHORIZER, _METHOD, status_code(error.grpc_code).name)
        abort(context, error)
