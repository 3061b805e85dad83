"""Keys that sign task credentials: what a place that keeps them must be able to do.

A folder of files and a PKCS#11 token do it here; a key management service does it with the same two classes. The private
half never leaves the place: whoever signs gives bytes and takes a signature.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authz.config import SigningAlgorithm

__all__ = [
    "KeyPlace",
    "PublicKey",
    "SigningKey",
    "algorithm_of",
    "public_jwk",
    "thumbprint",
]

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
"""The public half of a key that may sign."""


class SigningKey(Protocol):
    """A key that signs; its private half lies wherever it was made."""

    @property
    def kid(self) -> str:
        """Its name: the RFC 7638 thumbprint of its public half."""

    @property
    def algorithm(self) -> SigningAlgorithm:
        """What it signs with."""

    @property
    def jwk(self) -> dict[str, str]:
        """Its public half (RFC 7517), with `kid`, `use` and `alg`."""

    def sign(self, message: bytes) -> bytes:
        """Sign.

        Args:
            message: What is signed, not yet hashed.

        Returns:
            The signature as JWS has it (RFC 7518 §3.4, RFC 8037 §3.1).

        Raises:
            KeysError: It cannot be used now.
        """


class KeyPlace(Protocol):
    """Where the keys of this node are kept."""

    def find(self) -> Sequence[SigningKey]:
        """Find the keys that are there.

        Returns:
            All of them, in no order.

        Raises:
            KeysError: They cannot be read, or others could read them too.
        """

    def generate(self, algorithm: SigningAlgorithm) -> SigningKey:
        """Make a key that stays there.

        Args:
            algorithm: What it is for.

        Returns:
            The key.

        Raises:
            KeysError: None can be made.
        """

    def destroy(self, kid: str) -> None:
        """Remove a key for good; one that is not there is no error.

        Args:
            kid: Its name.

        Raises:
            KeysError: It is still there.
        """

    def close(self) -> None:
        """Let go of the place; keys cannot be used after it."""


def algorithm_of(key: object) -> SigningAlgorithm | None:
    """Tell what a key can sign with.

    Args:
        key: A public or private key of `cryptography`.

    Returns:
        The algorithm; none where the key is of another kind.
    """
    if isinstance(key, (ed25519.Ed25519PublicKey, ed25519.Ed25519PrivateKey)):
        return SigningAlgorithm.EDDSA
    curves = (ec.EllipticCurvePublicKey, ec.EllipticCurvePrivateKey)
    if isinstance(key, curves) and isinstance(key.curve, ec.SECP256R1):
        return SigningAlgorithm.ES256
    return None


def public_jwk(key: PublicKey) -> dict[str, str]:
    """Write a public key as a JWK (RFC 7517, RFC 8037).

    Args:
        key: P-256 or Ed25519.

    Returns:
        The JWK, with its thumbprint as `kid`.
    """
    if isinstance(key, ed25519.Ed25519PublicKey):
        required = {
            "crv": "Ed25519",
            "kty": "OKP",
            "x": _text(key.public_bytes(Encoding.Raw, PublicFormat.Raw)),
        }
        alg = SigningAlgorithm.EDDSA
    else:
        numbers = key.public_numbers()
        required = {
            "crv": "P-256",
            "kty": "EC",
            "x": _text(numbers.x.to_bytes(32)),
            "y": _text(numbers.y.to_bytes(32)),
        }
        alg = SigningAlgorithm.ES256
    return {**required, "kid": thumbprint(required), "use": "sig", "alg": alg.value}


def thumbprint(jwk: dict[str, Any]) -> str:
    """Work out the thumbprint of a public key (RFC 7638).

    Args:
        jwk: An EC or OKP key; members that its kind does not require are left out.

    Returns:
        SHA-256, in base64url.
    """
    members = ("crv", "kty", "x", "y") if jwk["kty"] == "EC" else ("crv", "kty", "x")
    required = {name: jwk[name] for name in members}
    canonical = json.dumps(required, sort_keys=True, separators=(",", ":"))
    return _text(hashlib.sha256(canonical.encode()).digest())


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
