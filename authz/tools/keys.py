"""A trust domain for development: keys of its own, and tokens made with them.

The private keys lie in one folder that only its owner can read. Nothing here is for production: there, SPIRE
and an identity provider issue the tokens, and Authz only ever sees public keys.
"""

import base64
import datetime as dt
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from authz.errors import UsageError
from authz_client.jose import dpop_proof, public_jwk, thumbprint

__all__ = ["Authority", "DevDomain", "DevProofKey"]

_LIFETIME: Final = 3600
_KEY_FILE: Final = "private-keys.json"
_AUTHORITY: Final = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "throw-away authority")])
_WORKLOAD: Final = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "workload")])


@dataclass(frozen=True, slots=True)
class _Key:
    """A signing key and its name."""

    kid: str
    private: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"_Key({self.kid})"

    def public_jwk(self, **more: object) -> dict[str, object]:
        """Write the public half as a JWK (RFC 7517)."""
        return {**public_jwk(self.private.public_key()), "kid": self.kid, **more}

    def pem(self) -> str:
        """Write the private key."""
        return self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()

    @staticmethod
    def make() -> "_Key":
        """Make one."""
        return _Key(secrets.token_hex(8), ec.generate_private_key(ec.SECP256R1()))

    @staticmethod
    def read(kid: str, pem: str) -> "_Key":
        """Read one back."""
        private = serialization.load_pem_private_key(pem.encode(), None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise UsageError("not a P-256 key")
        return _Key(kid, private)


class DevProofKey:
    """A key that a workload holds, and its proofs (DPoP, RFC 9449); in memory only."""

    def __init__(self) -> None:
        self._key = _Key.make()

    @property
    def thumbprint(self) -> str:
        """Its RFC 7638 thumbprint: `cnf.jkt` of what is bound to it."""
        return thumbprint(public_jwk(self._key.private.public_key()))

    def proof(self, method: str, url: str, token: str) -> str:
        """Make a proof, which is good for one request.

        Args:
            method: The request's method.
            url: Its URL without query and fragment.
            token: The token that comes with it.

        Returns:
            The value of the header `DPoP`.
        """
        return dpop_proof(self._key.private, method, url, time.time(), token=token)


@dataclass(frozen=True, slots=True)
class DevDomain:
    """A trust domain and an issuer of subject tokens, with private keys: for development only."""

    domain: str
    """SPIFFE trust domain."""
    issuer: str
    """`iss` of subject tokens."""
    agents: _Key
    """Signs JWT-SVIDs."""
    subjects: _Key
    """Signs subject tokens."""

    @staticmethod
    def make(domain: str, issuer: str) -> "DevDomain":
        """Make keys.

        Args:
            domain: SPIFFE trust domain.
            issuer: `iss` of subject tokens.

        Returns:
            A new domain.
        """
        return DevDomain(domain, issuer, _Key.make(), _Key.make())

    @staticmethod
    def open(folder: Path, domain: str, issuer: str) -> "DevDomain":
        """Read the domain of a folder, or make one there.

        Args:
            folder: Folder of the keys; made with mode 0700.
            domain: SPIFFE trust domain of a new one.
            issuer: `iss` of a new one.

        Returns:
            The domain; `bundle.json` and `jwks.json` in the folder are its public keys.

        Raises:
            UsageError: The folder holds something else.
        """
        file = folder / _KEY_FILE
        if file.exists():
            try:
                kept = json.loads(file.read_text())
                return DevDomain(
                    kept["domain"],
                    kept["issuer"],
                    _Key.read(kept["agents"]["kid"], kept["agents"]["pem"]),
                    _Key.read(kept["subjects"]["kid"], kept["subjects"]["pem"]),
                )
            except (KeyError, TypeError, ValueError) as error:
                raise UsageError(f"{file} holds no keys; remove it to make new ones") from error
        created = DevDomain.make(domain, issuer)
        created.save(folder)
        return created

    def save(self, folder: Path) -> None:
        """Write private and public keys.

        Args:
            folder: Folder for the keys; made with mode 0700.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.publish(folder)
        private = {
            "domain": self.domain,
            "issuer": self.issuer,
            "agents": {"kid": self.agents.kid, "pem": self.agents.pem()},
            "subjects": {"kid": self.subjects.kid, "pem": self.subjects.pem()},
        }
        descriptor = os.open(folder / _KEY_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(private, stream)

    def publish(self, folder: Path) -> None:
        """Write the public keys: `bundle.json` (SPIFFE) and `jwks.json` (the issuer).

        Args:
            folder: Folder to write to.
        """
        bundle = {
            "keys": [self.agents.public_jwk(use="jwt-svid")],
            "spiffe_sequence": 1,
            "spiffe_refresh_hint": 300,
        }
        jwks = {"keys": [self.subjects.public_jwk(use="sig", alg="ES256")]}
        (folder / "bundle.json").write_text(json.dumps(bundle, indent=2) + "\n")
        (folder / "jwks.json").write_text(json.dumps(jwks, indent=2) + "\n")

    def svid(
        self,
        path: str,
        audience: str,
        *,
        lifetime: int = _LIFETIME,
        bound_to: "DevProofKey | None" = None,
        clock: Callable[[], float] = time.time,
    ) -> str:
        """Make a JWT-SVID.

        Args:
            path: Path of the SPIFFE id, with a leading slash.
            audience: Its `aud`.
            lifetime: Seconds; below zero it is already past.
            bound_to: The key that must be proved with it.
            clock: Unix time.

        Returns:
            The token.
        """
        now = int(clock())
        claims = {
            "sub": f"spiffe://{self.domain}{path}",
            "aud": [audience],
            "iat": min(now, now + lifetime) - 1,
            "exp": now + lifetime,
            "jti": secrets.token_hex(8),
        }
        if bound_to is not None:
            claims["cnf"] = {"jkt": bound_to.thumbprint}
        return _sign(self.agents, claims)

    def forged_svid(self, forger: "DevDomain", path: str, audience: str) -> str:
        """Make a JWT-SVID that claims to be of this domain, signed with another one's key.

        Args:
            forger: Domain whose key signs the token, under the name of this domain's key.
            path: Path of the SPIFFE id.
            audience: Its `aud`.

        Returns:
            The token; no verifier may accept it.
        """
        disguised = DevDomain(
            self.domain, self.issuer, _Key(self.agents.kid, forger.agents.private), self.subjects
        )
        return disguised.svid(path, audience)

    def subject_token(
        self,
        sub: str,
        audience: str,
        claims: Mapping[str, str | int | bool | Sequence[str]] | None = None,
        *,
        lifetime: int = _LIFETIME,
        clock: Callable[[], float] = time.time,
    ) -> str:
        """Make a subject token.

        Args:
            sub: The subject.
            audience: Its `aud`.
            claims: More claims.
            lifetime: Seconds; below zero it is already past.
            clock: Unix time.

        Returns:
            The token.
        """
        now = int(clock())
        all_claims = {
            **(claims or {}),
            "iss": self.issuer,
            "sub": sub,
            "aud": audience,
            "iat": min(now, now + lifetime) - 1,
            "exp": now + lifetime,
            "jti": secrets.token_hex(8),
        }
        return _sign(self.subjects, all_claims)


def _sign(key: _Key, claims: Mapping[str, Any]) -> str:
    return jwt.encode(dict(claims), key.private, algorithm="ES256", headers={"kid": key.kid})


class Authority:
    """A certificate authority of a trust domain, for one run: it is never written to disk.

    Args:
        domain: SPIFFE trust domain.
    """

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self._key = ec.generate_private_key(ec.SECP256R1())
        spiffe_id = x509.UniformResourceIdentifier(f"spiffe://{domain}")
        self._certificate = (
            _unsigned(_AUTHORITY, self._key.public_key(), _LIFETIME)
            .issuer_name(_AUTHORITY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .add_extension(x509.SubjectAlternativeName([spiffe_id]), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        """Its certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def jwk(self) -> dict[str, object]:
        """Write its certificate as a key of a SPIFFE bundle (SPIFFE X.509-SVID, 6.2).

        Returns:
            The JWK.
        """
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        chain = [base64.b64encode(der).decode()]
        jwk = _Key("", self._key).public_jwk(use="x509-svid", x5c=chain)
        del jwk["kid"]
        return jwk

    def svid(self, path: str, *, lifetime: int = _LIFETIME) -> tuple[str, str]:
        """Make an X.509-SVID.

        Args:
            path: Path of the SPIFFE id, with a leading slash.
            lifetime: Seconds.

        Returns:
            Certificate and private key, PEM.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        spiffe_id = x509.UniformResourceIdentifier(f"spiffe://{self.domain}{path}")
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        certificate = (
            _unsigned(_WORKLOAD, key.public_key(), lifetime)
            .issuer_name(self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName([spiffe_id]), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode(), _Key("", key).pem()


def _unsigned(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(seconds=60))
        .not_valid_after(now + dt.timedelta(seconds=lifetime))
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
