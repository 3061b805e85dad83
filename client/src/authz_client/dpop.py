"""Proofs of possession (DPoP, RFC 9449): a key of the client, and one proof for each request."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import final
from urllib.parse import urlsplit, urlunsplit

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from authz_client.base_errors import UsageError
from authz_client.jose import dpop_proof, public_jwk, thumbprint

__all__ = ["ProofKey"]


@final
class ProofKey:
    """A key pair that credentials are bound to; nothing here writes its private half down.

    Args:
        private: P-256 key. Default: a new one.
        clock: Unix time.
    """

    def __init__(
        self,
        private: ec.EllipticCurvePrivateKey | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._private = private or ec.generate_private_key(ec.SECP256R1())
        self._thumbprint = thumbprint(public_jwk(self._private.public_key()))
        self._clock = clock

    @staticmethod
    def read(file: Path) -> "ProofKey":
        """Read a key that others share, such as several processes of one agent.

        Args:
            file: PEM, without a passphrase.

        Returns:
            The key.

        Raises:
            UsageError: The key is not a P-256 key.
        """
        try:
            private = load_pem_private_key(file.read_bytes(), None)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{file} is not a private key in PEM") from error
        if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(
            private.curve, ec.SECP256R1
        ):
            raise UsageError(f"{file} is not a P-256 key")
        return ProofKey(private)

    def __repr__(self) -> str:
        """Show no key."""
        return f"ProofKey({self._thumbprint})"

    @property
    def thumbprint(self) -> str:
        """RFC 7638 thumbprint: `cnf.jkt` of credentials that are bound to the key."""
        return self._thumbprint

    def proof(self, method: str, url: str, *, token: str | None = None, nonce: str = "") -> str:
        """Make a proof for one request; each is taken once.

        Args:
            method: The request's method.
            url: Its URL; query and fragment do not count.
            token: The credential that goes with it.
            nonce: Nonce that the server demands (RFC 9449 §8). Default: none.

        Returns:
            The value of the header `DPoP`.

        Raises:
            UsageError: The URL is not valid.
        """
        parts = urlsplit(url)
        if not parts.scheme or not parts.netloc:
            raise UsageError(f"a proof is for a URL, not for {url!r}")
        target = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
        return dpop_proof(
            self._private, method.upper(), target, self._clock(), token=token, nonce=nonce
        )
