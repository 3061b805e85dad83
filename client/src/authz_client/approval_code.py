"""Code by which a person recognises an approval in two places, such as a message and the page."""

import base64
import hashlib
from typing import Final

__all__ = ["binding_code"]

_DOMAIN: Final = b"authz approval code\0"
_LENGTH: Final = 6


def binding_code(approval_id: str) -> str:
    """Give the code of an approval.

    The id stands for the call: it is a keyed hash of the task, the chain and the digest, so two calls have two codes.

    Args:
        approval_id: Id of the approval.

    Returns:
        Six characters of base32, for example `K7QM2A`.
    """
    found = hashlib.sha256(_DOMAIN + approval_id.encode("utf-8", "surrogatepass")).digest()
    return base64.b32encode(found).decode()[:_LENGTH]
