"""A compiled key set, and keys of this process."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from authz import _native
from authz.engine.native_errors import api_errors, trust_errors
from authz.errors import KeysError

__all__ = [
    "PrivateKey",
    "Trust",
    "TrustedDomain",
    "TrustedIssuer",
    "accepted_algorithms",
    "is_usable_key",
]


@dataclass(frozen=True, slots=True)
class TrustedDomain:
    """The keys of one trust domain."""

    name: str
    keys: int
    """Usable keys of JWT-SVIDs."""
    authorities: int
    """Usable authorities of X.509-SVIDs."""
    sequence: int | None
    """`spiffe_sequence` of the bundle in use."""
    refresh_hint: int | None
    """`spiffe_refresh_hint`: how often its publisher suggests to fetch the bundle, in seconds."""
    rolled_back: bool
    """The newest bundle was refused as older than the one before it, which stays in use."""


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """The keys of one issuer."""

    alias: str
    keys: int
    """Usable keys."""


@final
class Trust:
    """A compiled key set."""

    __slots__ = ("native",)

    def __init__(self, native: "_native.Trust") -> None:
        self.native = native

    @staticmethod
    def compile(spec: bytes, previous: "Trust | None" = None) -> "Trust":
        """Compile trust sources.

        Args:
            spec: The sources, as JSON.
            previous: The key set before. A bundle whose `spiffe_sequence` is lower than in this key set is refused,
                and its domain keeps the bundle that it has.

        Raises:
            TrustError: The sources are not valid; it lists every error.
        """
        with trust_errors():
            before = previous.native if previous is not None else None
            return Trust(_native.Trust.compile(spec, before))

    @property
    def revision(self) -> str:
        """Digest of the key set."""
        return self.native.revision

    @property
    def warnings(self) -> tuple[str, ...]:
        """Errors that do not refuse the key set, such as an empty domain bundle."""
        return tuple(
            f"{item.get('place', '')}: {item.get('what', '')}"
            for item in json.loads(self.native.warnings)
        )

    def verify_peer(self, chain: Sequence[bytes], now: float) -> str:
        """Verify a TLS peer's certificate chain as an X.509-SVID of the trust domain that it names.

        Args:
            chain: Certificates in DER, the peer's own first.
            now: Unix time.

        Returns:
            The SPIFFE ID of the peer.

        Raises:
            ApiError: The chain is refused, with the reason code.
        """
        with api_errors():
            return self.native.verify_peer(chain, int(now))

    def verify_svid(self, token: str, now: float) -> str:
        """Verify a JWT-SVID that was presented as a bearer token.

        Returns:
            The SPIFFE ID of the token.

        Raises:
            ApiError: The token is refused, with the reason code.
        """
        with api_errors():
            return self.native.verify_svid(token, int(now))

    @property
    def domains(self) -> tuple[TrustedDomain, ...]:
        """Each trust domain, sorted by name."""
        return tuple(
            TrustedDomain(
                name=item["domain"],
                keys=item["keys"],
                authorities=item["authorities"],
                sequence=item["sequence"],
                refresh_hint=item["refresh_hint"],
                rolled_back=item["rolled_back"],
            )
            for item in json.loads(self.native.domains)
        )

    @property
    def issuers(self) -> tuple[TrustedIssuer, ...]:
        """Each issuer."""
        return tuple(
            TrustedIssuer(alias=item["alias"], keys=item["keys"])
            for item in json.loads(self.native.issuers)
        )


@final
class PrivateKey:
    """A private key (P-256 or Ed25519) in the memory of this process."""

    __slots__ = ("_native",)

    def __init__(self, native: "_native.SigningKey") -> None:
        self._native = native

    @staticmethod
    def read(der: bytes) -> "PrivateKey":
        """Read an unencrypted PKCS#8 key (RFC 5208).

        Raises:
            KeysError: The key is malformed or of another kind.
        """
        try:
            return PrivateKey(_native.SigningKey.from_pkcs8(der))
        except ValueError as error:
            raise KeysError(f"{error}.") from error

    def sign(self, message: bytes) -> bytes:
        """Sign a message that is not yet hashed. Other threads run meanwhile.

        Returns:
            The signature in the form of JWS (RFC 7518 §3.4, RFC 8037 §3.1).

        Raises:
            KeysError: The signature could not be made.
        """
        try:
            return self._native.sign(message)
        except RuntimeError as error:
            raise KeysError(f"{error}.") from error


def accepted_algorithms() -> dict[str, list[str]]:
    """Return the signature algorithms that verification accepts.

    Returns:
        Names by `proof` (DPoP), `jwt_svid` (also as an assertion of a client) and `credential` (task credentials).
    """
    accepted: dict[str, list[str]] = json.loads(_native.accepted_algorithms())
    return accepted


def is_usable_key(jwk: Mapping[str, object]) -> bool:
    """Return whether signatures may be verified by a public key (RFC 7517).

    Returns:
        False for a key that is malformed, of an unsupported kind, or one for which anybody can sign (RFC 8725 §3.4).
    """
    return _native.is_usable_key(json.dumps(jwk))
