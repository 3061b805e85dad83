"""Errors of the Python side: one tree.

Each class carries the reason code, the canonical gRPC code (`google.rpc.Code`) and the HTTP status that it
has on the wire; only `authz.server.grpc.errors` puts them there. Decisions are no errors: Check answers with one.

    AuthzError
    ├── ConfigError          the configuration is refused; nothing starts
    ├── BundleError          the bundle is refused; the one before goes on serving
    │   └── BundleTestError      it compiles, but its own tests fail
    ├── TrustError           keys or trust sources are refused
    ├── KeysError            keys that sign credentials cannot be read, made or used
    ├── EngineError          the engine could not be built
    ├── ApiError             an API method (never a decision) refuses; the engine says how
    ├── NotInThisVersionError    the method or option exists and is not done yet
    ├── UnavailableError     a server cannot be reached, or cannot answer
    └── UsageError           a command was given something that it cannot use
"""

from authz.base_errors import AuthzError, UsageError
from authz.model import Diagnostic

__all__ = [
    "ApiError",
    "AuthzError",
    "BundleError",
    "BundleTestError",
    "ConfigError",
    "EngineError",
    "KeysError",
    "NotInThisVersionError",
    "TrustError",
    "UnavailableError",
    "UsageError",
]


class _DiagnosedError(AuthzError):
    """An error that lists every defect it found.

    Args:
        diagnostics: At least one.
    """

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        super().__init__("\n".join(str(d) for d in diagnostics))
        self.diagnostics = diagnostics


class ConfigError(_DiagnosedError):
    """The configuration is refused."""

    reason = "BAD_INPUT"
    grpc_code = 3
    http_status = 400
    exit_code = 3


class BundleError(_DiagnosedError):
    """The bundle is refused."""

    reason = "BAD_INPUT"
    grpc_code = 9
    http_status = 400
    exit_code = 3


class BundleTestError(BundleError):
    """The bundle's own tests fail."""

    exit_code = 2


class TrustError(_DiagnosedError):
    """Keys or trust sources are refused."""

    reason = "UNTRUSTED_ISSUER"
    grpc_code = 9
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
        dpop_nonce: What the next DPoP proof must carry, where that is what was missing.
        step: The step of the decision that refused, such as `identify`; empty where it was none.
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
    """The method or option exists and is not done yet."""

    reason = "UNIMPLEMENTED"
    grpc_code = 12
    http_status = 501


class UnavailableError(AuthzError):
    """A server cannot be reached, or cannot answer."""
