"""Proofs of possession (DPoP, RFC 9449) by PyJWT, good ones and every way to forge one that this suite knows."""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.minting import Key, b64

METHOD: Final = "GET"
URI: Final = "https://crm.example/customers"


def public_jwk(key: Key) -> dict[str, Any]:
    """Returns the public half as a proof brings it along."""
    jwk = key.jwk("sig")
    return {name: value for name, value in jwk.items() if name not in {"kid", "use", "alg"}}


def thumbprint(key: Key) -> str:
    """Returns the SHA-256 thumbprint (RFC 7638), `cnf.jkt` of what is bound to the key."""
    # The public halves hold the required members and nothing else.
    text = json.dumps(public_jwk(key), sort_keys=True, separators=(",", ":"))
    return b64(hashlib.sha256(text.encode()).digest())


@dataclass(frozen=True)
class Proof:
    """What goes into a proof.

    Attributes:
        key: Whoever holds the token.
        token: The token that it goes with.
        method: The request's method.
        uri: The request's URI.
        made: Unix time.
        jti: Its id.
    """

    key: Key
    token: str
    method: str = METHOD
    uri: str = URI
    made: int = field(default_factory=lambda: int(time.time()))
    jti: str = field(default_factory=secrets.token_urlsafe)

    @property
    def claims(self) -> dict[str, Any]:
        """The claims of a good proof (RFC 9449 §4.2)."""
        ath = b64(hashlib.sha256(self.token.encode()).digest())
        return {"htm": self.method, "htu": self.uri, "iat": self.made, "jti": self.jti, "ath": ath}

    @property
    def header(self) -> dict[str, Any]:
        """The header of a good proof."""
        return {"typ": "dpop+jwt", "alg": self.key.algorithm, "jwk": public_jwk(self.key)}

    @property
    def good(self) -> str:
        """The good proof."""
        return self.sign()

    def sign(
        self,
        claims: Mapping[str, Any] | None = None,
        header: Mapping[str, Any] | None = None,
        by: Key | None = None,
    ) -> str:
        """Signs well, over other claims and another header; None removes a member."""
        parts = [
            {name: value for name, value in {**good, **(other or {})}.items() if value is not None}
            for good, other in ((self.header, header), (self.claims, claims))
        ]
        return (by or self.key).sign_raw(*(json.dumps(part).encode() for part in parts))


def _other() -> Key:
    return Key.make("other")


def _private(proof: Proof) -> dict[str, Any]:
    return {**public_jwk(proof.key), "d": b64(bytes(32))}


def _unsigned(proof: Proof) -> str:
    header = b64(json.dumps({**proof.header, "alg": "none"}).encode())
    return f"{header}.{b64(json.dumps(proof.claims).encode())}."


def _symmetric(proof: Proof) -> str:
    secret = bytes(32)
    jwk = {"kty": "oct", "k": b64(secret)}
    header = b64(json.dumps({**proof.header, "alg": "HS256", "jwk": jwk}).encode())
    signed = f"{header}.{b64(json.dumps(proof.claims).encode())}"
    return f"{signed}.{b64(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


def _tampered(proof: Proof) -> str:
    header, _, signature = proof.good.split(".")
    return f"{header}.{b64(json.dumps({**proof.claims, 'jti': 'another'}).encode())}.{signature}"


def _flipped(proof: Proof) -> str:
    signed, _, signature = proof.good.rpartition(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)))
    raw[0] ^= 1
    return f"{signed}.{b64(bytes(raw))}"


def _twice(proof: Proof) -> str:
    claims = json.dumps(proof.claims).encode()
    header = json.dumps(proof.header).encode()
    return proof.key.sign_raw(header, b'{"jti":"a",' + claims[1:])


#: Forged proofs by name.
PROOF_DEFECTS: Final[dict[str, Callable[[Proof], str]]] = {
    "absent-typ": lambda p: p.sign(header={"typ": None}),
    "typ-jwt": lambda p: p.sign(header={"typ": "JWT"}),
    "typ-access-token": lambda p: p.sign(header={"typ": "at+jwt"}),
    "alg-none": _unsigned,
    "alg-hmac": _symmetric,
    "alg-of-another-key": lambda p: p.sign(header={"alg": "ES384"}),
    "absent-jwk": lambda p: p.sign(header={"jwk": None}),
    "private-jwk": lambda p: p.sign(header={"jwk": _private(p)}),
    "key-by-url": lambda p: p.sign(header={"jku": "https://evil.example/keys"}),
    "critical-extension": lambda p: p.sign(header={"crit": ["exp"]}),
    "another-key": lambda p: Proof(_other(), p.token).good,
    "the-key-in-name-only": lambda p: p.sign(by=_other()),
    "tampered-claims": _tampered,
    "tampered-signature": _flipped,
    "absent-jti": lambda p: p.sign({"jti": None}),
    "empty-jti": lambda p: p.sign({"jti": ""}),
    "long-jti": lambda p: p.sign({"jti": "x" * 256}),
    "number-jti": lambda p: p.sign({"jti": 7}),
    "jti-twice": _twice,
    "absent-htm": lambda p: p.sign({"htm": None}),
    "another-htm": lambda p: p.sign({"htm": "DELETE"}),
    "lower-case-htm": lambda p: p.sign({"htm": METHOD.lower()}),
    "absent-htu": lambda p: p.sign({"htu": None}),
    "relative-htu": lambda p: p.sign({"htu": "/customers"}),
    "another-path": lambda p: p.sign({"htu": "https://crm.example/refunds"}),
    "path-below": lambda p: p.sign({"htu": URI + "/"}),
    "another-host": lambda p: p.sign({"htu": "https://mail.example/customers"}),
    "another-scheme": lambda p: p.sign({"htu": "http://crm.example/customers"}),
    "another-port": lambda p: p.sign({"htu": "https://crm.example:8443/customers"}),
    "user-in-htu": lambda p: p.sign({"htu": "https://a@crm.example/customers"}),
    "absent-iat": lambda p: p.sign({"iat": None}),
    "text-iat": lambda p: p.sign({"iat": str(p.made)}),
    "old": lambda p: p.sign({"iat": p.made - 600}),
    "ahead": lambda p: p.sign({"iat": p.made + 600}),
    "expired": lambda p: p.sign({"exp": p.made - 1}),
    "absent-ath": lambda p: p.sign({"ath": None}),
    "ath-of-another-token": lambda p: p.sign({"ath": Proof(p.key, "another").claims["ath"]}),
    "a-nonce-of-nobody": lambda p: p.sign({"nonce": "of-nobody"}),
    "two-at-once": lambda p: f"{p.good},{p.good}",
    "the-token-itself": lambda p: p.token,
    "garbage": lambda _: "not.a.proof",
    "oversized": lambda p: p.sign({"padding": "x" * 9_000}),
}
