"""A throw-away trust domain and issuer, and the credentials of 256 agents and 256 subjects."""

import base64
import json
import time
from dataclasses import dataclass
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from bench.load.bundle import ISSUER, TRUST_DOMAIN

AUDIENCE = "authz.bench"
ISSUER_URL = "https://login.bench.example"
CREDENTIALS = 256
# Longer than the longest measurement, so that nothing expires within it.
LIFETIME_SECONDS = 3 * 3600


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files that the server trusts, and what they signed.

    Attributes:
        domain_bundle: SPIFFE bundle of the trust domain.
        jwks: key set of the issuer.
        agents: JWT-SVIDs.
        subjects: subject tokens.
    """

    domain_bundle: Path
    jwks: Path
    agents: tuple[str, ...]
    subjects: tuple[str, ...]

    def trust(self) -> dict[str, object]:
        """Returns what a trust store is compiled from that believes them."""
        return {
            "audiences": [AUDIENCE],
            "domains": {
                TRUST_DOMAIN: {
                    "bundle": self.domain_bundle.read_text(),
                    "from": str(self.domain_bundle),
                }
            },
            "issuers": {
                ISSUER: {
                    "issuer": ISSUER_URL,
                    "audience": [AUDIENCE],
                    "algorithms": ["ES256"],
                    "jwks": self.jwks.read_text(),
                    "from": str(self.jwks),
                    "claims": ["groups"],
                }
            },
        }


def agent_id(number: int) -> str:
    """Returns the SPIFFE id of an agent."""
    return f"spiffe://{TRUST_DOMAIN}/ns/bench/sa/agent-{number:03}"


def mint(folder: Path, count: int = CREDENTIALS) -> Credentials:
    """Makes keys, writes their public halves and signs the credentials.

    Args:
        folder: where the key sets are written; made if it does not exist.
        count: how many JWT-SVIDs, and how many subject tokens.

    Returns:
        The credentials.
    """
    folder.mkdir(parents=True, exist_ok=True)
    domain_key, issuer_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    domain_bundle, jwks = folder / "bench.example.json", folder / "corp.jwks.json"
    domain_bundle.write_text(
        json.dumps({"keys": [_jwk(domain_key, "svid-1", "jwt-svid")], "spiffe_sequence": 1})
    )
    jwks.write_text(json.dumps({"keys": [_jwk(issuer_key, "corp-1", "sig")]}))
    now = int(time.time())
    lasting = {"iat": now, "exp": now + LIFETIME_SECONDS}
    agents = tuple(
        jwt.encode(
            {
                "sub": agent_id(number),
                "aud": [AUDIENCE],
                **lasting,
            },
            domain_key,
            algorithm="ES256",
            headers={"kid": "svid-1", "typ": "JWT"},
        )
        for number in range(count)
    )
    subjects = tuple(
        jwt.encode(
            {
                "iss": ISSUER_URL,
                "sub": f"user-{number:03}",
                "aud": AUDIENCE,
                "groups": ["employees", f"team-{number % 16}"],
                "jti": f"bench-{number:03}",
                **lasting,
            },
            issuer_key,
            algorithm="ES256",
            headers={"kid": "corp-1", "typ": "JWT"},
        )
        for number in range(count)
    )
    return Credentials(domain_bundle, jwks, agents, subjects)


def _jwk(key: ec.EllipticCurvePrivateKey, kid: str, use: str) -> dict[str, str]:
    """RFC 7518 §6.2.1: coordinates of P-256 are 32 bytes each, left padded."""
    numbers = key.public_key().public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "use": use,
        "alg": "ES256",
        "kid": kid,
        "x": _base64url(numbers.x.to_bytes(32, "big")),
        "y": _base64url(numbers.y.to_bytes(32, "big")),
    }


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
