"""Errors of the Python side: one tree.

Each class has the reason code, the canonical gRPC code (`google.rpc.Code`) and the HTTP status of its answer on the wire;
only `authz.server.grpc.errors` writes them. A denial is not an error: Check answers with a decision.

    AuthzError
    ├── ConfigError          the configuration is refused; nothing starts
    ├── BundleError          the bundle is refused; the one before stays in use
    │   └── BundleTestError      the bundle compiles, but its own tests fail
    ├── TrustError           keys or trust sources are refused
    ├── KeysError            keys that sign credentials cannot be read, made or used
    ├── EngineError          the engine could not be built
    ├── ApiError             an API method (never a decision) refuses; the engine says how
    ├── NotInThisVersionError    the method or option is of a later version
    ├── UnavailableError     a server cannot be reached, or cannot answer
    └── UsageError           an argument of a command is not valid
"""

from enum import IntEnum

from authz.model import Diagnostic
from authz_client.base_errors import AuthzError, UsageError

__all__ = [
    "ApiError",
    "AuthzError",
    "BundleError",
    "BundleTestError",
    "ConfigError",
    "EngineError",
    "GrpcCode",
    "KeysError",
    "NotInThisVersionError",
    "TrustError",
    "UnavailableError",
    "UsageError",
]


class GrpcCode(IntEnum):
    """Canonical codes (`google.rpc.Code`) of the errors below."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    UNAVAILABLE = 14


class _DiagnosedError(AuthzError):
    """An error with a diagnostic for each cause, at least one."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        super().__init__("\n".join(str(d) for d in diagnostics))
        self.diagnostics = diagnostics


class ConfigError(_DiagnosedError):
    """The configuration is refused."""

    reason = "BAD_INPUT"
    grpc_code = GrpcCode.INVALID_ARGUMENT
    http_status = 400
    exit_code = 3


class BundleError(_DiagnosedError):
    """The bundle is refused."""

    reason = "BAD_INPUT"
    grpc_code = GrpcCode.FAILED_PRECONDITION
    http_status = 400
    exit_code = 3


class BundleTestError(BundleError):
    """The bundle's own tests fail."""

    exit_code = 2


class TrustError(_DiagnosedError):
    """Keys or trust sources are refused."""

    reason = "UNTRUSTED_ISSUER"
    grpc_code = GrpcCode.FAILED_PRECONDITION
    http_status = 400
    exit_code = 3


class KeysError(AuthzError):
    """Keys that sign credentials cannot be read, made or used."""

    exit_code = 3


class EngineError(AuthzError):
    """The engine could not be built or was closed."""

    exit_code = 3


class ApiError(AuthzError):
    """An API method refuses.

    Args:
        reason: Reason code.
        grpc_code: Canonical gRPC code.
        message: One line for people.
        dpop_nonce: Nonce that the next DPoP proof must carry; empty unless it was missing.
        step: The step of the decision that refused, such as `identify`; empty if no step did.
    """

    def __init__(
        self, reason: str, grpc_code: int, message: str, dpop_nonce: str = "", step: str = ""
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.grpc_code = grpc_code
        self.dpop_nonce = dpop_nonce
        self.step = step


class NotInThisVersionError(AuthzError):
    """The method or option is of a later version."""

    reason = "UNIMPLEMENTED"
    grpc_code = GrpcCode.UNIMPLEMENTED
    http_status = 501


class UnavailableError(AuthzError):
    """A server cannot be reached, or cannot answer."""
