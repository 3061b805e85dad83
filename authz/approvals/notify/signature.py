"""Signatures of notifications (Standard Webhooks, 1.0.0): HMAC-SHA256 over id, time and body."""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

__all__ = ["SigningKey", "SigningKeyError"]

_PREFIX: Final = "whsec_"
_LEAST_BYTES: Final = 24
_MOST_BYTES: Final = 64


class SigningKeyError(ValueError):
    """A key cannot sign. The message has no part of the key."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """Key that sender and receiver of a webhook share."""

    key: bytes = field(repr=False)
    """24 to 64 bytes."""

    @staticmethod
    def read(secret: str) -> "SigningKey":
        """Read a key.

        Args:
            secret: Base64, with or without the prefix `whsec_`.

        Raises:
            SigningKeyError: The key is not valid Base64, or has too few or too many bytes.
        """
        try:
            key = base64.b64decode(secret.strip().removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise SigningKeyError("is not valid Base64") from None
        if not _LEAST_BYTES <= len(key) <= _MOST_BYTES:
            raise SigningKeyError(f"has {len(key)} bytes, not {_LEAST_BYTES} to {_MOST_BYTES}")
        return SigningKey(key)

    def headers(
        self, message_id: str, unix_seconds: int, body: bytes
    ) -> tuple[tuple[str, str], ...]:
        """Return the headers `webhook-id`, `webhook-timestamp` and `webhook-signature` of one attempt.

        Args:
            message_id: Id of the message. It is the same for each attempt.
            unix_seconds: Unix time of the attempt.
            body: Body of the message.
        """
        signed = f"{message_id}.{unix_seconds}.".encode() + body
        signature = base64.b64encode(hmac.new(self.key, signed, hashlib.sha256).digest()).decode()
        return (
            ("webhook-id", message_id),
            ("webhook-timestamp", str(unix_seconds)),
            ("webhook-signature", f"v1,{signature}"),
        )
