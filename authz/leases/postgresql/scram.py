"""The form of a password that PostgreSQL stores."""

import base64
import hashlib
import hmac
import secrets
from typing import Final

__all__ = ["scram_verifier"]

_ITERATIONS: Final = 4096


def scram_verifier(password: str, salt: bytes | None = None) -> str:
    """Return the form of a password that PostgreSQL stores (RFC 5803). Default of the salt: random."""
    salt = salt if salt is not None else secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    words = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${_ITERATIONS}:{words[0]}${words[1]}:{words[2]}"
