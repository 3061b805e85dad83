"""The interface of signing keys and of the store that keeps them.

A folder of files and a PKCS#11 token implement it here; a key management service would implement the same two classes. The private
half never leaves the store: it takes bytes and returns a signature.
"""

from collections.abc import Sequence
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from authz.config import SigningAlgorithm
from authz_client.jose import PublicKey, public_jwk, thumbprint

__all__ = ["KeyPlace", "SigningKey", "algorithm_of", "signing_jwk"]


class SigningKey(Protocol):
    """A key that signs. Its private half stays where it was made."""

    @property
    def kid(self) -> str:
        """Name of the key: the RFC 7638 thumbprint of its public half."""

    @property
    def algorithm(self) -> SigningAlgorithm:
        """Signature algorithm."""

    @property
    def jwk(self) -> dict[str, str]:
        """Public half (RFC 7517), with `kid`, `use` and `alg`."""

    def sign(self, message: bytes) -> bytes:
        """Sign a message that is not yet hashed.

        Returns:
            The signature in the form of JWS (RFC 7518 §3.4, RFC 8037 §3.1).

        Raises:
            KeysError: The key cannot be used now.
        """


class KeyPlace(Protocol):
    """Store of this node's keys."""

    def find(self) -> Sequence[SigningKey]:
        """Return all keys, in no order; raises KeysError if they cannot be read, or others could read them."""

    def generate(self, algorithm: SigningAlgorithm) -> SigningKey:
        """Make a key in the store; raises KeysError if that fails."""

    def destroy(self, kid: str) -> None:
        """Remove a key for good. A missing key is not an error; raises KeysError if the key is still there."""

    def close(self) -> None:
        """Close the store; its keys cannot be used after that."""


def algorithm_of(key: object) -> SigningAlgorithm | None:
    """Return the signature algorithm of a key of `cryptography`; `None` for a key of another kind."""
    if isinstance(key, (ed25519.Ed25519PublicKey, ed25519.Ed25519PrivateKey)):
        return SigningAlgorithm.EDDSA
    curves = (ec.EllipticCurvePublicKey, ec.EllipticCurvePrivateKey)
    if isinstance(key, curves) and isinstance(key.curve, ec.SECP256R1):
        return SigningAlgorithm.ES256
    return None


def signing_jwk(key: PublicKey) -> dict[str, str]:
    """Return the JWK of a public key that signs (RFC 7517), with its thumbprint as `kid`, `use` and `alg`."""
    jwk = public_jwk(key)
    algorithm = SigningAlgorithm.EDDSA if jwk["kty"] == "OKP" else SigningAlgorithm.ES256
    return {**jwk, "kid": thumbprint(jwk), "use": "sig", "alg": algorithm.value}
