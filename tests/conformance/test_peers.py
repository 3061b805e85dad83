"""X.509-SVIDs minted by another library, each breaking one rule; SPIFFE X509-SVID and RFC 5280."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from authz.engine import Trust
from authz.errors import ApiError
from tests.support.svid import ID, NOW, PrivateKey, Signer, usage


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
        lambda: _with(A.intermediate("a.example", usage=usage("digital_signature"))),
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
        lambda: [A.leaf(usage=usage("digital_signature", "key_cert_sign"))],
    ),
    "crl-sign": (
        "BAD_CREDENTIAL",
        lambda: [A.leaf(usage=usage("digital_signature", "crl_sign"))],
    ),
    "no-signature-usage": ("BAD_CREDENTIAL", lambda: [A.leaf(usage=usage("key_encipherment"))]),
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
