"""The statement that a passkey signs when a person answers a card."""

import hashlib
from dataclasses import dataclass
from typing import Final

__all__ = ["CHALLENGE_BYTES", "AnswerStatement", "answer_challenge", "read_challenge"]

CHALLENGE_BYTES: Final = 56
"""Length of a challenge."""
_NONCE_BYTES: Final = 16
_END_BYTES: Final = 8
_DOMAIN: Final = b"authz approval answer 1"


@dataclass(frozen=True, slots=True)
class AnswerStatement:
    """Answer of a person to one card."""

    approval_id: str
    """Id of the approval."""
    outcome: str
    """`approve`, `endorse` (the call, and its values for later calls) or `reject`."""
    digest: bytes
    """Digest of the call."""
    card_digest: bytes
    """SHA-256 of the card that was shown."""


def answer_challenge(statement: AnswerStatement, expires_at: int, nonce: bytes) -> bytes:
    """Return the challenge of an answer: nonce, end (Unix time in eight bytes, big-endian), and SHA-256 over the parts of the answer.

    The length of each part, in eight bytes (big-endian), precedes the part.

    Args:
        statement: Answer of the person.
        expires_at: Unix time of the end of the challenge.
        nonce: 16 random bytes.
    """
    digest = hashlib.sha256()
    end = expires_at.to_bytes(_END_BYTES, "big")
    parts = (
        _DOMAIN,
        statement.card_digest,
        statement.digest,
        statement.approval_id.encode(),
        statement.outcome.encode(),
        end,
        nonce,
    )
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return nonce + end + digest.digest()


def read_challenge(challenge: bytes) -> tuple[int, bytes] | None:
    """Return the end and the nonce that a challenge begins with; None if it has another length."""
    if len(challenge) != CHALLENGE_BYTES:
        return None
    nonce, rest = challenge[:_NONCE_BYTES], challenge[_NONCE_BYTES:]
    return int.from_bytes(rest[:_END_BYTES], "big"), nonce
