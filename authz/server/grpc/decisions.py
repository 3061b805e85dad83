"""The methods that answer with a decision: also after an error, the RPC status is OK and the answer is a decision.

An Envoy with `failure_mode_allow` turns every RPC error into a permit. So nothing here aborts: a full queue,
a passed deadline, a message that is too large, an exception, even a panic of the engine, all answer a denial.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, cast

import grpc

from authz.config import Listener
from authz.errors import GrpcCode
from authz.model import CallFacts, Surface
from authz.server.grpc.executor import Turn
from authz.telemetry.context import in_trace
from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2
from authz.thirdparty.envoy.type.v3 import http_status_pb2
from authz_client.v1 import authorizer_pb2, decision_pb2, options_pb2, reason_pb2

__all__ = [
    "AUTHORIZER",
    "ENVOY",
    "TRANSPORT_MAX_BYTES",
    "UNRECEIVED",
    "DecisionCalls",
    "Decisions",
    "Observe",
    "RawHandler",
    "ReadFacts",
    "facts_of",
    "last_resort",
    "reader_of",
    "traceparent_of",
]

AUTHORIZER: Final = "authz.v1.Authorizer"
"""Our own service."""
ENVOY: Final = "envoy.service.auth.v3.Authorization"
"""Envoy's service."""
TRANSPORT_MAX_BYTES: Final = 16 * 1024 * 1024
"""Larger messages end as an RPC error: the one limit that only the transport can enforce."""

UNRECEIVED: Final = "unreceived"
"""Attribute of a behaviour: a function from a reason code to the answer of a call whose message did not arrive."""

_FAR: Final = 1e6

RawHandler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
"""Handler from bytes to bytes."""
Observe = Callable[[float], None]
"""Called with the duration of a call, in seconds."""
ReadFacts = Callable[[grpc.ServicerContext, str, float], CallFacts]
"""Reads the transport's facts about a call: context, name of the listener, seconds left where the caller set no deadline."""


class DecisionCalls(Protocol):
    """The part of the engine that decides; all answers are encoded responses."""

    def check(self, request: bytes, facts: CallFacts) -> bytes:
        """Answer `authz.v1.Authorizer/Check`."""

    def batch_check(self, request: bytes, facts: CallFacts) -> bytes:
        """Answer `authz.v1.Authorizer/BatchCheck`."""

    def envoy_check(self, request: bytes, facts: CallFacts) -> bytes:
        """Answer `envoy.service.auth.v3.Authorization/Check`."""

    def refusal(self, surface: Surface, reason: str) -> bytes:
        """Answer a ready denial, counted and audited; never waits."""


def last_resort(surface: Surface) -> bytes:
    """Return an encoded denial (UNAVAILABLE) for the case that even the engine cannot refuse."""
    if surface is Surface.EXT_AUTHZ:
        answer = external_auth_pb2.CheckResponse()
        answer.status.code = GrpcCode.UNAVAILABLE
        answer.denied_response.status.code = http_status_pb2.ServiceUnavailable
        return answer.SerializeToString()
    decision = decision_pb2.Decision(
        outcome=decision_pb2.OUTCOME_DENY,
        public_code=options_pb2.PUBLIC_CODE_UNAVAILABLE,
        next_action=options_pb2.NEXT_ACTION_NONE,
        retry=options_pb2.RETRY_LATER,
        reason_code=reason_pb2.REASON_CODE_UNAVAILABLE,
        enforced=True,
    )
    if surface is Surface.BATCH_CHECK:
        return authorizer_pb2.BatchCheckResponse(decisions=[decision]).SerializeToString()
    return decision_pb2.CheckResponse(decision=decision).SerializeToString()


@dataclass(frozen=True, slots=True)
class Decisions:
    """Handlers of one listener.

    The listener's name is part of each handler, so no request can claim another listener.
    """

    engine: DecisionCalls
    """Answers."""
    listener: str
    """Name of the listener."""
    turn: Turn
    """The executor."""
    default_deadline: float
    """Seconds that a call without a deadline has."""
    failed: Callable[[BaseException], None]
    """Receives every unexpected exception."""
    read: ReadFacts
    """Reads the transport's facts; of `reader_of`."""

    def handler(self, surface: Surface, observe: Observe) -> RawHandler:
        """Make a raw-bytes handler.

        Args:
            surface: The method.
            observe: Called with the duration of each call.
        """
        judge = {
            Surface.CHECK: self.engine.check,
            Surface.BATCH_CHECK: self.engine.batch_check,
            Surface.EXT_AUTHZ: self.engine.envoy_check,
        }[surface]
        ready = last_resort(surface)
        begin, refuse, listener = self.turn.begin, self.engine.refusal, self.listener
        read, default = self.read, self.default_deadline
        clock = time.perf_counter

        def refused(reason: str) -> bytes:
            try:
                return refuse(surface, reason)
            except BaseException as again:  # noqa: BLE001 - the same
                with suppress(BaseException):
                    self.failed(again)
                return ready

        def denied(error: BaseException, context: grpc.ServicerContext) -> bytes:
            with suppress(BaseException), in_trace(traceparent_of(context)):
                self.failed(error)
            return refused("UNAVAILABLE")

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            started = clock()
            try:
                waited = begin()
                if waited is None:
                    reply = refuse(surface, "OVERLOADED")
                else:
                    reply = judge(request, read(context, listener, default - waited))
            except BaseException as error:  # noqa: BLE001 - a panic of the engine is not an Exception
                reply = denied(error, context)
            try:  # noqa: SIM105 - a context manager takes longer
                observe(clock() - started)
            except BaseException:  # noqa: BLE001, S110 - no metric that fails may turn the answer into an RPC error
                pass
            return reply

        setattr(answer, UNRECEIVED, refused)
        return grpc.unary_unary_rpc_method_handler(answer)


def reader_of(listener: Listener) -> ReadFacts:
    """Choose the reader of the facts about calls of a listener.

    Only with TLS a caller may be on another machine. Without TLS its address says nothing and is not read: to read it, grpcio
    releases the interpreter lock twice, and each time wakes a thread that waits for the lock and does not get it.
    """
    if listener.is_mutual:
        return _mutual_facts_of
    return _remote_facts_of if listener.tls is not None else facts_of


def facts_of(context: grpc.ServicerContext, listener: str, default: float) -> CallFacts:
    """Read the transport's facts about a call from this machine.

    Args:
        context: The call.
        listener: Name of the listener.
        default: Seconds left where the caller set no deadline.
    """
    traceparents: list[str] = []
    tracestates: list[str] = []
    authorization: str | None = None
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            text = value if isinstance(value, str) else value.decode("latin-1")
            # Two headers are joined, so that no verifier accepts them.
            authorization = text if authorization is None else f"{authorization},{text}"
        elif key == "traceparent":
            traceparents.append(value if isinstance(value, str) else "")
        elif key == "tracestate":
            tracestates.append(value if isinstance(value, str) else "")
    # Without a deadline this is None or infinite, unlike the stub says.
    left: float | None = context.time_remaining()
    remaining = left if left is not None and left < _FAR else default
    return CallFacts(
        listener,
        remaining,
        # Several are ignored (W3C Trace Context §3.2).
        traceparents[0] if len(traceparents) == 1 else None,
        authorization,
        None,
        ",".join(tracestates) or None,
    )


def _remote_facts_of(context: grpc.ServicerContext, listener: str, default: float) -> CallFacts:
    return facts_of(context, listener, default)._replace(peer=context.peer())


def _mutual_facts_of(context: grpc.ServicerContext, listener: str, default: float) -> CallFacts:
    # Certificates are taken as they are: what grpcio makes of them, such as `peer_spiffe_id`, holds for any trust domain whose
    # authority it knows. Without one the engine refuses the call. The stub says bytes, where there is a list of them.
    shown = cast("Mapping[str, Sequence[bytes]]", context.auth_context())
    leaf, rest = shown.get("x509_pem_cert", ()), shown.get("x509_pem_cert_chain", ())
    return _remote_facts_of(context, listener, default)._replace(
        certificate=leaf[0] if leaf else None, intermediates=rest[0] if rest else None
    )


def traceparent_of(context: grpc.ServicerContext) -> str | None:
    """Return a call's `traceparent`; `None` where it has none or several."""
    values = [value for key, value in context.invocation_metadata() or () if key == "traceparent"]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None
