"""Verifies security event tokens (SET, RFC 8417) as the Shared Signals Framework 1.0 profiles them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import jwt
from jwt.api_jws import PyJWS

from authz.server.http.shared_signals.refusals import SetError, SetErrorCode
from authz.strict_json import refuse_constant, unique_members
from authz.trust.id_tokens import select_key

__all__ = ["SecurityEventToken", "SetRules", "UnknownKeyError", "verify_set"]

_TYPE: Final = "secevent+jwt"
_MAX_ID: Final = 255
_PARTS: Final = 3
_FORBIDDEN: Final = {
    "exp": "an event does not expire (SSF 1.0 §4.1.7)",
    "sub": "the subject is `sub_id` (SSF 1.0 §4.1.2)",
}


class UnknownKeyError(SetError):
    """The transmitter has no key that the token names, or several. Its keys may be newer than those that are known."""


@dataclass(frozen=True, slots=True)
class SetRules:
    """Requirements on a security event token."""

    issuer: str
    """The exact `iss`."""
    audience: tuple[str, ...]
    """Audiences, of which the token must have one."""
    algorithms: tuple[str, ...]
    """Accepted signature algorithms."""
    max_age: float
    """Greatest age by `iat`, in seconds."""
    leeway: float
    """Accepted difference of the clocks, in seconds."""


@dataclass(frozen=True, slots=True)
class SecurityEventToken:
    """A verified token."""

    jti: str
    """Its id."""
    issued_at: float
    """`iat`, in seconds since 1970."""
    event_type: str
    """URI of its event."""
    event: Mapping[str, Any]
    """Payload of the event."""
    subject: Mapping[str, Any] | None
    """`sub_id`. `None`: the token has none."""


def verify_set(token: str, keys: str, rules: SetRules, now: float) -> SecurityEventToken:
    """Verify type, signature, issuer, audience, times and form of a security event token.

    Args:
        token: The token, in compact form.
        keys: Keys of the transmitter, as JWKS; empty before the first fetch.
        rules: What the token must match.
        now: Time in seconds since 1970.

    Raises:
        SetError: The token is refused.
    """
    header = _header(token)
    claims = _claims(_verified(token, header, keys, rules.algorithms))
    if claims.get("iss") != rules.issuer:
        raise SetError(SetErrorCode.INVALID_ISSUER, "`iss` is not the issuer of this transmitter")
    if not _audiences(claims.get("aud")) & set(rules.audience):
        raise SetError(SetErrorCode.INVALID_AUDIENCE, "`aud` does not name this receiver")
    for name, reason in _FORBIDDEN.items():
        if name in claims:
            raise _invalid(f"`{name}` is not allowed: {reason}")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= _MAX_ID or not jti.isprintable():
        raise _invalid("`jti` is missing, or not a short text (RFC 8417 §2.2)")
    issued_at = _time(claims.get("iat"))
    if issued_at is None:
        raise _invalid("`iat` is missing, or no time (RFC 8417 §2.2)")
    if issued_at > now + rules.leeway:
        raise _invalid("`iat` is still to come")
    if issued_at < now - rules.max_age - rules.leeway:
        raise _invalid("`iat` is too long ago")
    event_type, event = _event(claims.get("events"))
    subject = claims.get("sub_id")
    if subject is not None and not isinstance(subject, dict):
        raise _invalid("`sub_id` is not an object (RFC 9493 §3)")
    return SecurityEventToken(jti, issued_at, event_type, event, subject)


def _invalid(description: str) -> SetError:
    return SetError(SetErrorCode.INVALID_REQUEST, description)


def _header(token: str) -> dict[str, Any]:
    if not token.isascii() or token.count(".") != _PARTS - 1:
        raise _invalid("the body is not a signed JWT in compact form")
    try:
        text = jwt.utils.base64url_decode(token.partition(".")[0])
    except ValueError as error:
        raise _invalid("the header of the token cannot be read") from error
    header = _object(text, "header")
    kind = header.get("typ")
    kind = kind.lower().removeprefix("application/") if isinstance(kind, str) else None
    if kind != _TYPE:
        raise _invalid("`typ` is not `secevent+jwt` (RFC 8417 §2.3)")
    if "crit" in header or "b64" in header:
        raise _invalid("the token has a critical header parameter, and none is known here")
    return header


def _verified(token: str, header: Mapping[str, Any], keys: str, algorithms: Sequence[str]) -> bytes:
    try:
        key = select_key(keys, header, algorithms)
        payload = PyJWS().decode(token, key, algorithms=list(algorithms))
    except jwt.InvalidKeyError as error:
        raise UnknownKeyError(SetErrorCode.INVALID_KEY, str(error)) from error
    except jwt.InvalidAlgorithmError as error:
        description = "the algorithm of the signature is not accepted"
        raise SetError(SetErrorCode.INVALID_KEY, description) from error
    except jwt.InvalidSignatureError as error:
        raise SetError(SetErrorCode.INVALID_KEY, "the signature is not valid") from error
    except jwt.PyJWTError as error:
        raise _invalid("the token cannot be read") from error
    return cast("bytes", payload)


def _claims(payload: bytes) -> dict[str, Any]:
    return _object(payload, "claims")


def _object(text: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object that every reader understands alike: without duplicate members and NaN."""
    try:
        value = json.loads(
            text.decode(), object_pairs_hook=unique_members, parse_constant=refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise _invalid(f"the {what} of the token are not JSON, or have a member twice") from error
    if not isinstance(value, dict):
        raise _invalid(f"the {what} of the token are not a JSON object")
    return value


def _audiences(audience: object) -> set[str]:
    listed = audience if isinstance(audience, list) else [audience]
    return {one for one in listed if isinstance(one, str)}


def _time(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _event(events: object) -> tuple[str, dict[str, Any]]:
    if not isinstance(events, dict) or not events:
        raise _invalid("`events` is missing, or not an object with an event (RFC 8417 §2.2)")
    if len(events) > 1:
        raise _invalid(
            "`events` has several events, and a token tells of one (CAEP interoperability profile)"
        )
    ((event_type, event),) = events.items()
    if not isinstance(event, dict):
        raise _invalid("the payload of the event is not an object (RFC 8417 §2.2)")
    return event_type, event
