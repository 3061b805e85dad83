"""ID tokens, and the client to which an issuer gives them (OpenID Connect Core §3.1.3.7, RFC 6749 §2.3.1)."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import jwt

from authz.engine import is_usable_key

__all__ = [
    "MAX_CLAIM_TEXT",
    "MAX_ID_TOKEN",
    "IdTokenError",
    "IdTokenRules",
    "authenticate_client",
    "authentication_time",
    "select_key",
    "subject_of",
    "verify_id_token",
]

MAX_ID_TOKEN: Final = 65_536
"""Longest ID token, in characters."""
MAX_CLAIM_TEXT: Final = 256
"""Longest text of a claim."""


class IdTokenError(Exception):
    """An ID token is not valid. The message says why, without a byte of the token."""


@dataclass(frozen=True, slots=True)
class IdTokenRules:
    """What an ID token must match."""

    issuer: str
    """The exact `iss`."""
    client_id: str
    """Our client, which is its audience."""
    algorithms: tuple[str, ...]
    """Accepted signature algorithms."""
    leeway: float
    """Accepted difference of the clocks, in seconds."""


def verify_id_token(token: str, keys: str, rules: IdTokenRules) -> dict[str, Any]:
    """Verify signature, issuer, audience and times of an ID token; return its claims.

    Args:
        token: The token.
        keys: Keys that Authz trusts for the issuer, as JWKS; empty before the first fetch.
        rules: What the token must match.

    Raises:
        IdTokenError: The token is refused.
    """
    try:
        header = jwt.get_unverified_header(token)
        key = select_key(keys, header, rules.algorithms)
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=list(rules.algorithms),
            audience=rules.client_id,
            issuer=rules.issuer,
            leeway=rules.leeway,
            options={"require": ["iss", "sub", "aud", "exp", "iat"]},
        )
    except jwt.PyJWTError as error:
        raise IdTokenError(str(error)) from error
    audience, authorized = claims["aud"], claims.get("azp")
    if authorized not in ({None} if _is_single(audience) else set()) | {rules.client_id}:
        raise IdTokenError("it was issued to another client (`azp`)")
    return claims


def subject_of(claims: Mapping[str, Any]) -> str | None:
    """Return `sub`; `None` where it is not valid."""
    sub = claims.get("sub")
    return sub if isinstance(sub, str) and 0 < len(sub) <= MAX_CLAIM_TEXT else None


def authentication_time(claims: Mapping[str, Any]) -> float | None:
    """Return `auth_time` in seconds since 1970; `None` where it is missing or not valid."""
    time = claims.get("auth_time")
    if isinstance(time, bool) or not isinstance(time, (int, float)) or not math.isfinite(time):
        return None
    return time


def authenticate_client(
    form: dict[str, str], client_id: str, secret: str, description: Mapping[str, Any]
) -> str | None:
    """Add the proof of a client with a secret to a request, as the issuer's description wants it (RFC 6749 §2.3.1).

    Args:
        form: The request. It gets the proof where the issuer takes it only there.
        client_id: Client id.
        secret: Secret of the client.
        description: Description of the issuer.

    Returns:
        Value of the `authorization` header. `None`: the form has the proof.
    """
    methods = description.get("token_endpoint_auth_methods_supported")
    if (
        isinstance(methods, list)
        and "client_secret_post" in methods
        and "client_secret_basic" not in methods
    ):
        form |= {"client_id": client_id, "client_secret": secret}
        return None
    pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _is_single(audience: object) -> bool:
    return isinstance(audience, str) or (isinstance(audience, Sequence) and len(audience) == 1)


def select_key(document: str, header: Mapping[str, Any], algorithms: Sequence[str]) -> jwt.PyJWK:
    """Return the one usable key of a JWKS that a token's header names.

    Args:
        document: The keys (RFC 7517 §5); empty before the first fetch.
        header: Header of the token.
        algorithms: Accepted signature algorithms.

    Raises:
        jwt.InvalidAlgorithmError: The algorithm of the header is not accepted.
        jwt.InvalidKeyError: There is no such key, or several.
    """
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in algorithms:
        raise jwt.InvalidAlgorithmError("its algorithm is not one of `algorithms` of the issuer")
    try:
        listed = json.loads(document)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise jwt.InvalidKeyError("the keys of the issuer are not there yet") from error
    candidates = [
        key
        for key in listed
        if isinstance(key, dict)
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and (key_id is None or key.get("kid") == key_id)
        and is_usable_key(key)
    ]
    if len(candidates) != 1:
        raise jwt.InvalidKeyError("the issuer has no such key, or several; try again in a minute")
    return jwt.PyJWK(candidates[0], algorithm=algorithm)
