"""X.509-SVIDs minted by another library, good ones and such as break any one rule."""

import base64
import datetime as dt
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ID: Final = "spiffe://a.example/ns/tools/sa/crm"
NOW: Final = int(time.time())

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def usage(*names: str) -> x509.KeyUsage:
    """Makes a key usage of the named bits."""
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in names for name in every})


@dataclass(frozen=True)
class Template:
    """What a certificate says; the defaults are those of a good leaf."""

    name: str = "workload"
    uris: Sequence[str] = (ID,)
    dns: Sequence[str] = ()
    ca: bool | None = False
    length: int | None = None
    usage: x509.KeyUsage | None = field(default_factory=lambda: usage("digital_signature"))
    usage_critical: bool = True
    purposes: Sequence[x509.ObjectIdentifier] = (
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    )
    begins: int = -3600
    ends: int = 3600
    ends_at: int | None = None
    constraints: x509.NameConstraints | None = None


def _signing(domain: str) -> Template:
    return Template(
        name=f"authority of {domain}",
        uris=(f"spiffe://{domain}",),
        ca=True,
        usage=usage("key_cert_sign", "crl_sign"),
        purposes=(),
    )


@dataclass(frozen=True)
class Svid:
    """A leaf with its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key."""
        return self.key.private_bytes(
            Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


@dataclass(frozen=True)
class Signer:
    """A signing certificate with its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @classmethod
    def authority(cls, domain: str, key: PrivateKey | None = None, **changes: Any) -> "Signer":
        """Makes a self-signed authority of a trust domain."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        template = replace(_signing(domain), **changes)
        return cls(_certify(template, key, _name(template.name), key), key)

    def intermediate(self, domain: str, **changes: Any) -> "Signer":
        """Signs an intermediate of a trust domain."""
        key = ec.generate_private_key(ec.SECP256R1())
        template = replace(_signing(domain), **{"name": f"intermediate of {domain}", **changes})
        return Signer(_certify(template, key, self.certificate.subject, self.key), key)

    def leaf(self, **changes: Any) -> bytes:
        """Signs a leaf; returns its DER."""
        return self.svid(**changes).certificate.public_bytes(Encoding.DER)

    def svid(self, uri: str | None = None, **changes: Any) -> "Svid":
        """Signs a leaf, of that SPIFFE ID where one is given; returns it with its key."""
        if uri is not None:
            changes["uris"] = (uri,)
        template = replace(Template(), **changes)
        key = ec.generate_private_key(ec.SECP256R1())
        return Svid(_certify(template, key, self.certificate.subject, self.key), key)

    @property
    def der(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def jwk(self) -> dict[str, Any]:
        """Its entry of a SPIFFE bundle."""
        public = self.key.public_key()
        if isinstance(public, ec.EllipticCurvePublicKey):
            body = ECAlgorithm.to_jwk(public, as_dict=True)
        elif isinstance(public, rsa.RSAPublicKey):
            body = RSAAlgorithm.to_jwk(public, as_dict=True)
        else:
            body = OKPAlgorithm.to_jwk(public, as_dict=True)
        body.pop("key_ops", None)
        return {**body, "use": "x509-svid", "x5c": [base64.b64encode(self.der).decode()]}


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _end(template: Template, start: dt.datetime) -> dt.datetime:
    if template.ends_at is not None:
        return dt.datetime.fromtimestamp(template.ends_at, dt.UTC)
    return start + dt.timedelta(seconds=template.ends)


def _certify(
    template: Template, key: PrivateKey, issuer: x509.Name, by: PrivateKey
) -> x509.Certificate:
    start = dt.datetime.fromtimestamp(NOW, dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(template.name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start + dt.timedelta(seconds=template.begins))
        .not_valid_after(_end(template, start))
    )
    names = [
        *(x509.UniformResourceIdentifier(uri) for uri in template.uris),
        *(x509.DNSName(name) for name in template.dns),
    ]
    extensions: list[tuple[x509.ExtensionType, bool]] = []
    if names:
        extensions.append((x509.SubjectAlternativeName(names), False))
    if template.ca is not None:
        extensions.append((x509.BasicConstraints(template.ca, template.length), True))
    if template.usage is not None:
        extensions.append((template.usage, template.usage_critical))
    if template.purposes:
        extensions.append((x509.ExtendedKeyUsage(template.purposes), False))
    if template.constraints is not None:
        extensions.append((template.constraints, True))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    if isinstance(by, ed25519.Ed25519PrivateKey):
        return builder.sign(by, None)
    long = isinstance(by, ec.EllipticCurvePrivateKey) and by.curve.name == "secp521r1"
    return builder.sign(by, hashes.SHA512() if long else hashes.SHA256())
