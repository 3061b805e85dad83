"""Computes the code by which a person recognises an approval in two places, such as a message and the page."""

import base64
import hashlib
from typing import Final

__all__ = ["binding_code"]

_DOMAIN: Final = b"authz approval code\0"
_LENGTH: Final = 6


def binding_code(approval_id: str) -> str:
    """Return the code of an approval.

    Two calls have different codes, because the id is a keyed hash of task, chain and digest of the call.

    Args:
        approval_id: Id of the approval.

    Returns:
        Six characters of base32, for example `K7QM2A`.
    """
    found = hashlib.sha256(_DOMAIN + approval_id.encode("utf-8", "surrogatepass")).digest()
    return base64.b32encode(found).decode()[:_LENGTH]
