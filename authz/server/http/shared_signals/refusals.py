"""Errors that the receiver answers (RFC 8935 §2.4)."""

from enum import StrEnum

__all__ = ["SetError", "SetErrorCode"]


class SetErrorCode(StrEnum):
    """Error codes of RFC 8935 §2.4."""

    INVALID_REQUEST = "invalid_request"
    INVALID_KEY = "invalid_key"
    INVALID_ISSUER = "invalid_issuer"
    INVALID_AUDIENCE = "invalid_audience"
    AUTHENTICATION_FAILED = "authentication_failed"
    ACCESS_DENIED = "access_denied"


class SetError(Exception):
    """A security event token is refused. The description says why, without a byte of the token."""

    def __init__(self, code: SetErrorCode, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
