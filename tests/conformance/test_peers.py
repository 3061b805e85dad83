"""X.509-SVIDs minted by another library, each breaking one rule; SPIFFE X509-SVID and RFC 5280."""

import base64
import datetime as dt
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from authz.engine import Trust
from authz.errors import ApiError

ID: Final = "spiffe://a.example/ns/tools/sa/crm"
NOW: Final = int(time.time())

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def _usage(*names: str) -> x509.KeyUsage:
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
    usage: x509.KeyUsage | None = field(default_factory=lambda: _usage("digital_signature"))
    usage_critical: bool = True
    purposes: Sequence[x509.ObjectIdentifier] = (
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    )
    begins: int = -3600
    ends: int = 3600
    constraints: x509.NameConstraints | None = None


def _signing(domain: str) -> Template:
    return Template(
        name=f"authority of {domain}",
        uris=(f"spiffe://{domain}",),
        ca=True,
        usage=_usage("key_cert_sign", "crl_sign"),
        purposes=(),
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
        template = replace(Template(), **changes)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certify(template, key, self.certificate.subject, self.key)
        return certificate.public_bytes(Encoding.DER)

    @property
    def der(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.DER)

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
        .not_valid_after(start + dt.timedelta(seconds=template.ends))
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


def _trust(**domains: Sequence[Signer]) -> Trust:
    spec = {
        "audiences": ["authz"],
        "domains": {
            name.replace("_", "."): {
                "bundle": json.dumps({"keys": [signer.jwk for signer in signers]}),
                "from": "test",
            }
            for name, signers in domains.items()
        },
    }
    return Trust.compile(json.dumps(spec).encode())


A: Final = Signer.authority("a.example")
B: Final = Signer.authority("b.example")
TRUST: Final = _trust(a_example=[A], b_example=[B], empty_example=[])


def _reason(*chain: bytes, trust: Trust = TRUST) -> str:
    try:
        trust.verify_peer(chain, NOW)
    except ApiError as error:
        return error.reason
    return "verified"


def _with(signer: Signer, **changes: Any) -> tuple[bytes, ...]:
    return (signer.leaf(**changes), signer.der)


def _too_long() -> tuple[bytes, ...]:
    first = A.intermediate("a.example", length=0)
    second = first.intermediate("a.example", name="second")
    return (second.leaf(), second.der, first.der)


#: Chains that each break one rule, with the reason for which they are refused.
DEFECTS: Final[dict[str, tuple[str, Callable[[], Sequence[bytes]]]]] = {
    "no-certificate": ("NO_CREDENTIAL", list),
    "no-der": ("BAD_CREDENTIAL", lambda: [b"not a certificate"]),
    "other-authority": ("UNTRUSTED_ISSUER", lambda: [B.leaf()]),
    "other-authority-sent-along": ("BAD_CREDENTIAL", lambda: _with(B)),
    "other-authority-same-name": (
        "BAD_CREDENTIAL",
        lambda: [Signer.authority("a.example").leaf()],
    ),
    "other-intermediate": ("BAD_CREDENTIAL", lambda: _with(B.intermediate("b.example"))),
    "other-intermediate-our-name": (
        "UNTRUSTED_ISSUER",
        lambda: _with(B.intermediate("a.example")),
    ),
    "other-intermediate-no-name": (
        "UNTRUSTED_ISSUER",
        lambda: _with(B.intermediate("b.example", uris=())),
    ),
    "own-intermediate-other-name": (
        "BAD_CREDENTIAL",
        lambda: _with(A.intermediate("a.example", uris=("spiffe://b.example",))),
    ),
    "intermediate-with-path": (
        "BAD_CREDENTIAL",
        lambda: _with(A.intermediate("a.example", uris=("spiffe://a.example/signer",))),
    ),
    "intermediate-no-ca": (
        "BAD_CREDENTIAL",
        lambda: _with(A.intermediate("a.example", ca=False)),
    ),
    "intermediate-usage": (
        "BAD_CREDENTIAL",
        lambda: _with(A.intermediate("a.example", usage=_usage("digital_signature"))),
    ),
    "intermediate-expired": (
        "EXPIRED_CREDENTIAL",
        lambda: _with(A.intermediate("a.example", ends=-1)),
    ),
    "intermediate-missing": ("UNTRUSTED_ISSUER", lambda: [A.intermediate("a.example").leaf()]),
    "path-too-long": ("BAD_CREDENTIAL", _too_long),
    "name-constraints": (
        "BAD_CREDENTIAL",
        lambda: _with(
            A.intermediate(
                "a.example",
                constraints=x509.NameConstraints(
                    [x509.UniformResourceIdentifier("b.example")], None
                ),
            )
        ),
    ),
    "unknown-domain": ("UNTRUSTED_ISSUER", lambda: [A.leaf(uris=("spiffe://x.example/x",))]),
    "empty-domain": ("UNTRUSTED_ISSUER", lambda: [A.leaf(uris=("spiffe://empty.example/x",))]),
    "two-uris": ("BAD_CREDENTIAL", lambda: [A.leaf(uris=(ID, "spiffe://a.example/x"))]),
    "two-uris-one-web": ("BAD_CREDENTIAL", lambda: [A.leaf(uris=(ID, "https://a.example/"))]),
    "dns-only": ("BAD_CREDENTIAL", lambda: [A.leaf(uris=(), dns=("crm.a.example",))]),
    "no-names": ("BAD_CREDENTIAL", lambda: [A.leaf(uris=())]),
    "root-path": ("BAD_CREDENTIAL", lambda: [A.leaf(uris=("spiffe://a.example",))]),
    "upper-case-domain": ("BAD_CREDENTIAL", lambda: [A.leaf(uris=("spiffe://A.example/x",))]),
    "trailing-slash": ("BAD_CREDENTIAL", lambda: [A.leaf(uris=(ID + "/",))]),
    "scheme": ("BAD_CREDENTIAL", lambda: [A.leaf(uris=("https://a.example/x",))]),
    "query": ("BAD_CREDENTIAL", lambda: [A.leaf(uris=(ID + "?x",))]),
    "too-long": ("BAD_CREDENTIAL", lambda: [A.leaf(uris=(ID + "/" + "x" * 2048,))]),
    "ca-leaf": ("BAD_CREDENTIAL", lambda: [A.leaf(ca=True)]),
    "authority-as-leaf": ("BAD_CREDENTIAL", lambda: [A.der]),
    "cert-sign": (
        "BAD_CREDENTIAL",
        lambda: [A.leaf(usage=_usage("digital_signature", "key_cert_sign"))],
    ),
    "crl-sign": (
        "BAD_CREDENTIAL",
        lambda: [A.leaf(usage=_usage("digital_signature", "crl_sign"))],
    ),
    "no-signature-usage": ("BAD_CREDENTIAL", lambda: [A.leaf(usage=_usage("key_encipherment"))]),
    "no-usage": ("BAD_CREDENTIAL", lambda: [A.leaf(usage=None)]),
    "usage-not-critical": ("BAD_CREDENTIAL", lambda: [A.leaf(usage_critical=False)]),
    "client-only": (
        "BAD_CREDENTIAL",
        lambda: [A.leaf(purposes=(ExtendedKeyUsageOID.CLIENT_AUTH,))],
    ),
    "server-only": (
        "BAD_CREDENTIAL",
        lambda: [A.leaf(purposes=(ExtendedKeyUsageOID.SERVER_AUTH,))],
    ),
    "expired": ("EXPIRED_CREDENTIAL", lambda: [A.leaf(ends=-1)]),
    "not-yet-valid": ("EXPIRED_CREDENTIAL", lambda: [A.leaf(begins=60)]),
    "nine-certificates": ("BAD_CREDENTIAL", lambda: [A.leaf(), *[A.der] * 8]),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_refused(defect: str) -> None:
    """No chain that breaks a rule proves anything, and its reason says which kind of rule."""
    expected, make = DEFECTS[defect]
    assert _reason(*make()) == expected


@pytest.mark.parametrize(
    "chain",
    [
        lambda: [A.leaf()],
        lambda: [A.leaf(dns=("crm.a.example",))],
        lambda: [A.leaf(ca=None)],
        lambda: [A.leaf(purposes=())],
        lambda: [A.leaf(), A.der],
        lambda: _with(A.intermediate("a.example")),
        lambda: _with(A.intermediate("a.example", uris=())),
        lambda: [B.leaf(uris=("spiffe://b.example/x",))],
    ],
)
def test_a_good_chain_is_verified(chain: Callable[[], Sequence[bytes]]) -> None:
    """What the rules allow is verified, so that the refusals above are of their defects."""
    assert _reason(*chain()) == "verified"


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-384", "P-521", "RSA", "Ed25519"],
)
def test_authorities_of_each_kind_of_key(key: PrivateKey) -> None:
    """Authorities sign with every supported kind of key, and their entries are matched to it."""
    authority = Signer.authority("a.example", key)
    trust = _trust(a_example=[authority])
    assert [domain.authorities for domain in trust.domains] == [1]
    assert _reason(authority.leaf(), trust=trust) == "verified"
    assert _reason(A.leaf(), trust=trust) == "BAD_CREDENTIAL"


def test_a_weak_authority_signs_for_nobody() -> None:
    """An RSA authority below 2048 bits is left out of its bundle, with a warning."""
    weak = Signer.authority("a.example", rsa.generate_private_key(65537, 1024))
    trust = _trust(a_example=[weak])
    assert [domain.authorities for domain in trust.domains] == [0]
    assert any("2048" in warning for warning in trust.warnings)
    assert _reason(weak.leaf(), trust=trust) == "UNTRUSTED_ISSUER"
