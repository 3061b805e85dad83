"""Proof that a person approved a call: the assertion of a passkey in the record of the answer (WebAuthn Level 3 §7.2)."""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import webauthn
from cryptography.exceptions import UnsupportedAlgorithm
from webauthn.helpers import decode_credential_public_key
from webauthn.helpers.exceptions import WebAuthnException

from authz.approvals import AnswerStatement, answer_challenge, read_challenge
from authz.audit.receipt import ReceiptError, read_object

__all__ = ["RecordedAnswer", "SignedAnswer", "read_answer", "verify_assertion"]

_ALGORITHMS: Final = {-7: "ES256", -8: "EdDSA", -257: "RS256"}
_ASSERTION: Final = ("authenticator_data", "client_data", "public_key", "signature")


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """Answer of a person, as its record states it."""

    approval_id: str
    """Id of the approval."""
    event: str
    """`answered`, or `approved` for the last answer that the call needed."""
    by: str
    """The person: `<issuer alias>/<sub>`."""
    method: str
    """`passkey`, `login` or `socket`."""
    digest: str
    """SHA-256 of the call, in hex."""
    card_digest: str
    """SHA-256 of the card that the person saw, in hex."""
    endorses: bool
    """The person endorsed the values of the call for later calls."""
    passkey: str
    """Id of the passkey; empty for another method."""
    assertion: Mapping[str, str] | None
    """Parts of the assertion, in base64url; None for another method."""
    timestamp: str
    """Time of the record."""


@dataclass(frozen=True, slots=True)
class SignedAnswer:
    """Facts that the assertion of an answer proves."""

    origin: str
    """Origin of the page at which the passkey was used."""
    algorithm: str
    """`ES256`, `EdDSA` or `RS256`."""


def read_answer(note: Mapping[str, Any], timestamp: str) -> RecordedAnswer:
    """Read an approving answer.

    Args:
        note: `result.approval` of the record.
        timestamp: Time of the record.

    Raises:
        ReceiptError: The record is not one of an approving answer.
    """
    if note.get("event") not in {"answered", "approved"}:
        raise ReceiptError("answer", "a record is not one of an approving answer")
    by, assertion = note.get("by"), note.get("assertion")
    texts = [note.get(name) for name in ("id", "method", "digest", "card_digest")]
    if not isinstance(by, list) or len(by) != 1 or not all(isinstance(one, str) for one in by):
        raise ReceiptError("answer", "the record of an answer does not name one person")
    if not all(isinstance(text, str) for text in texts):
        raise ReceiptError("answer", "the record of an answer does not name its call and its card")
    if assertion is not None and (
        not isinstance(assertion, dict)
        or not all(isinstance(assertion.get(name), str) for name in _ASSERTION)
    ):
        raise ReceiptError("assertion", "the assertion of an answer lacks a member")
    return RecordedAnswer(
        approval_id=str(note["id"]),
        event=str(note["event"]),
        by=by[0],
        method=str(note["method"]),
        digest=str(note["digest"]),
        card_digest=str(note["card_digest"]),
        endorses=note.get("endorses") is True,
        passkey=str(note.get("passkey", "")),
        assertion=assertion,
        timestamp=timestamp,
    )


def verify_assertion(answer: RecordedAnswer) -> SignedAnswer | None:
    """Verify that the passkey signed this answer to this card of this call.

    Returns:
        Facts of the assertion; None if the person did not answer by passkey.

    Raises:
        ReceiptError: The assertion is missing, of another answer, or its signature does not verify.
    """
    if answer.method != "passkey":
        return None
    if answer.assertion is None:
        raise ReceiptError("assertion", "the record of an answer by passkey has no assertion")
    parts = {name: _decode(answer.assertion[name]) for name in _ASSERTION}
    try:
        client_text = parts["client_data"].decode()
    except ValueError as error:
        raise ReceiptError("assertion", "the client data are not JSON") from error
    client = read_object(client_text, "assertion", "the client data")
    origin, challenge = client.get("origin"), client.get("challenge")
    if not isinstance(origin, str) or not isinstance(challenge, str):
        raise ReceiptError("assertion", "the client data name no origin or no challenge")
    signed = _decode(challenge)
    known = read_challenge(signed)
    if client.get("type") != "webauthn.get" or known is None:
        raise ReceiptError("assertion", "the passkey signed something other than an answer")
    if signed != answer_challenge(_statement(answer), *known):
        raise ReceiptError("challenge", "the passkey signed another answer")
    return _verify(answer, parts, origin, signed)


def _statement(answer: RecordedAnswer) -> AnswerStatement:
    try:
        digests = bytes.fromhex(answer.digest), bytes.fromhex(answer.card_digest)
    except ValueError as error:
        raise ReceiptError("challenge", "a digest of the answer is not in hex") from error
    outcome = "endorse" if answer.endorses else "approve"
    return AnswerStatement(answer.approval_id, outcome, *digests)


def _verify(
    answer: RecordedAnswer, parts: Mapping[str, bytes], origin: str, challenge: bytes
) -> SignedAnswer:
    relying_party = _relying_party(origin, parts["authenticator_data"])
    try:
        algorithm = _ALGORITHMS.get(decode_credential_public_key(parts["public_key"]).alg)
        if algorithm is not None:
            webauthn.verify_authentication_response(
                credential=_credential(answer.passkey, parts),
                expected_challenge=challenge,
                expected_rp_id=relying_party,
                expected_origin=origin,
                credential_public_key=parts["public_key"],
                credential_current_sign_count=0,
                require_user_verification=True,
            )
    except (
        WebAuthnException,
        UnsupportedAlgorithm,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
    ) as error:
        raise ReceiptError("assertion", f"the assertion does not verify: {error}") from error
    if algorithm is None:
        raise ReceiptError("assertion", "the algorithm of the passkey is not known")
    return SignedAnswer(origin, algorithm)


def _credential(passkey: str, parts: Mapping[str, bytes]) -> str:
    response = {
        "authenticatorData": _encode(parts["authenticator_data"]),
        "clientDataJSON": _encode(parts["client_data"]),
        "signature": _encode(parts["signature"]),
    }
    names = {"id": passkey, "rawId": passkey, "type": "public-key"}
    return json.dumps({**names, "response": response})


def _relying_party(origin: str, authenticator_data: bytes) -> str:
    """Return the domain of the origin, or one above it, that the authenticator signed for (WebAuthn §5.1.3)."""
    try:
        host = urlsplit(origin).hostname or ""
    except ValueError as error:
        raise ReceiptError("assertion", "the origin of the client data is not a URL") from error
    for domain in _domains(host):
        if hashlib.sha256(domain.encode()).digest() == authenticator_data[:32]:
            return domain
    raise ReceiptError("assertion", "the passkey signed for another site than its origin")


def _domains(host: str) -> Iterator[str]:
    while host:
        yield host
        host = host.partition(".")[2]


def _decode(text: str) -> bytes:
    try:
        value = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise ReceiptError("assertion", "a part of the assertion is not base64url") from error
    if _encode(value) != text:
        raise ReceiptError("assertion", "a part of the assertion is not base64url")
    return value


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
