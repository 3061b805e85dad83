"""Errors that server and client share. They stand in the client, which can be installed without the server."""

from typing import ClassVar

__all__ = ["AuthzError", "UsageError"]


class AuthzError(Exception):
    """Root of the tree."""

    reason: str = "UNAVAILABLE"
    """Reason code, as in `google.rpc.ErrorInfo.reason`."""
    grpc_code: int = 14
    """Canonical code, `google.rpc.Code`."""
    http_status: int = 503
    """HTTP status."""
    exit_code: ClassVar[int] = 1
    """Exit code of a command that ends with this error."""


class UsageError(AuthzError):
    """A command was given something that it cannot use."""

    reason = "BAD_INPUT"
    grpc_code = 3
    http_status = 400
