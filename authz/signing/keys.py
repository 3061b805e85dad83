"""Keys that sign task credentials: what a place that keeps them must be able to do.

A folder of files and a PKCS#11 token do it here; a key management service does it with the same two classes. The private
half never leaves the place: whoever signs gives bytes and takes a signature.
"""

from collections.abc import Sequence
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from authz.config import SigningAlgorithm
from authz.jose import PublicKey, public_jwk, thumbprint

__all__ = ["KeyPlace", "SigningKey", "algorithm_of", "signing_jwk"]


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


def signing_jwk(key: PublicKey) -> dict[str, str]:
    """Return the JWK of a public key that signs (RFC 7517), with its thumbprint as `kid`, `use` and `alg`."""
    jwk = public_jwk(key)
    algorithm = SigningAlgorithm.EDDSA if jwk["kty"] == "OKP" else SigningAlgorithm.ES256
    return {**jwk, "kid": thumbprint(jwk), "use": "sig", "alg": algorithm.value}
