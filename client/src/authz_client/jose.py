"""JSON Web Keys, thumbprints and proofs of possession: one implementation for client, server and tools, over PyJWT.

It stands in the client, which can be installed without the server; the server takes it from there.
"""

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

__all__ = ["PublicKey", "dpop_proof", "public_jwk", "thumbprint"]

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
"""A public key that credentials are signed or bound with."""

_JTI_BYTES: Final = 16
_REQUIRED: Final = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}


def public_jwk(key: PublicKey) -> dict[str, str]:
    """Return the required members of a public key's JWK (RFC 7518 §6.2, RFC 8037 §2)."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        jwk = OKPAlgorithm.to_jwk(key, as_dict=True)
    else:
        jwk = ECAlgorithm.to_jwk(key, as_dict=True)
    return {name: str(jwk[name]) for name in _REQUIRED[jwk["kty"]]}


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the thumbprint of an EC or OKP key (RFC 7638): SHA-256 of its required members, in base64url."""
    required = {name: jwk[name] for name in _REQUIRED[jwk["kty"]]}
    return _sha256(json.dumps(required, sort_keys=True, separators=(",", ":")).encode())


def dpop_proof(
    key: ec.EllipticCurvePrivateKey,
    method: str,
    url: str,
    now: float,
    *,
    token: str | None = None,
    nonce: str = "",
) -> str:
    """Return a proof for one request (RFC 9449 §4.2): the value of the header `DPoP`.

    Args:
        key: A P-256 key.
        method: Method of the request.
        url: URL of the request, without query and fragment.
        now: Unix time.
        token: The token that is sent with the proof.
        nonce: The nonce that the server asked for.
    """
    claims: dict[str, Any] = {
        "htm": method,
        "htu": url,
        "iat": int(now),
        "jti": secrets.token_urlsafe(_JTI_BYTES),
    }
    if token is not None:
        claims["ath"] = _sha256(token.encode("ascii"))
    if nonce:
        claims["nonce"] = nonce
    headers = {"typ": "dpop+jwt", "jwk": public_jwk(key.public_key())}
    return jwt.encode(claims, key, algorithm="ES256", headers=headers)


def _base64url(value: bytes) -> str:
    """Encode without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _sha256(value: bytes) -> str:
    """Return the SHA-256 of a value in base64url."""
    return _base64url(hashlib.sha256(value).digest())
