"""RPC errors: a gRPC status with `google.rpc.ErrorInfo`. Only methods that answer without a decision use them."""

from collections.abc import Callable
from typing import Final, NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from authz.errors import ApiError, AuthzError, NotInThisVersionError, UnavailableError
from authz.server.grpc.decisions import traceparent_of
from authz.telemetry.context import in_trace

__all__ = [
    "DOMAIN",
    "abort",
    "answered",
    "details_of",
    "not_in_this_version",
    "status_code",
    "unimplemented",
]

DOMAIN: Final = "authz.dev"
"""`domain` of every ErrorInfo."""
_DETAILS: Final = "grpc-status-details-bin"
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def status_code(number: int) -> grpc.StatusCode:
    """Return grpcio's name of a `google.rpc.Code`; UNKNOWN for a number that is not an error code."""
    return _CODES.get(number, grpc.StatusCode.UNKNOWN) if number else grpc.StatusCode.UNKNOWN


def abort(context: grpc.ServicerContext, error: AuthzError) -> NoReturn:
    """End the call with an error.

    Raises:
        Exception: Always; grpcio's way to end a call.
    """
    context.set_trailing_metadata(details_of(error))
    context.abort(status_code(error.grpc_code), str(error))


def details_of(error: AuthzError) -> tuple[tuple[str, bytes]]:
    """Return the trailing metadata of an error: `grpc-status-details-bin` with an ErrorInfo."""
    info = any_pb2.Any()
    nonce = error.dpop_nonce if isinstance(error, ApiError) else ""
    metadata = {"dpop_nonce": nonce} if nonce else {}
    info.Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))
    code = status_code(error.grpc_code).value[0]
    status = status_pb2.Status(code=code, message=str(error), details=[info])
    return ((_DETAILS, status.SerializeToString()),)


def answered(
    answer: Callable[[], bytes],
    context: grpc.ServicerContext,
    *,
    counted: Callable[[str], object],
    failed: Callable[[BaseException], object],
    over: tuple[type[BaseException], ...] = (),
) -> bytes:
    """Answer a call, or end it with an error; no exception leaves this function.

    Args:
        answer: Returns the encoded response; raises `AuthzError` to refuse.
        context: The call.
        counted: Called with the name of the call's status code.
        failed: Receives every unexpected exception.
        over: Exceptions that mean that the caller has ended the call.

    Raises:
        Exception: The call ends with an error; grpcio's way to do so.
    """
    error: AuthzError | None = None
    code, response = "OK", b""
    with in_trace(traceparent_of(context)):
        try:
            response = answer()
        except AuthzError as refused:
            error = refused
        except over:
            code = "CANCELLED"
        except BaseException as unexpected:  # noqa: BLE001 - a panic of the engine is not an Exception
            failed(unexpected)
            error = UnavailableError("internal error; see the server's log")
    if error is not None:
        code = status_code(error.grpc_code).name
    counted(code)
    if error is not None:
        abort(context, error)
    return response


def not_in_this_version(method: str) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    """Return the handler of a method of a later version; `method` is its name, for the message."""
    return unimplemented(f"{method} is not in this version")


def unimplemented(why: str) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    """Return a handler that answers UNIMPLEMENTED with a message."""

    def refuse(_request: bytes, context: grpc.ServicerContext) -> bytes:
        abort(context, NotInThisVersionError(why))

    return refuse
