"""Throw-away keys, and tokens made with them: good ones, and bad ones that each break one rule.

Nothing here is fixed: every session makes its own keys, so no key or token is ever worth keeping.
"""

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, TypeAlias

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

#: Our own `aud` in a JWT-SVID.
AUDIENCE: Final = "spiffe://a.example/authz"
#: `aud` of the tokens of the configured issuers.
ISSUER_AUDIENCE: Final = "authz"
#: `aud` of the tokens of the same issuers that no agent gets.
ALONE_AUDIENCE: Final = "authz-own"
#: Trusted, trusted, trusted with an empty bundle, and not configured at all.
DOMAIN, OTHER_DOMAIN, EMPTY_DOMAIN, UNKNOWN_DOMAIN = (
    "a.example",
    "b.example",
    "empty.example",
    "x.example",
)
#: The `typ` of a good token, by the profile of its issuer.
TYPES: Final = {"jwt": "JWT", "access_token": "at+jwt"}
#: Name of the guard that states confidence.
GUARD: Final = "scanner"
#: Seconds for which a minted token is good.
LIFETIME: Final = 3600

Claims: TypeAlias = dict[str, Any]
PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def b64(data: bytes) -> str:
    """Encodes as base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Key:
    """A signing key with its id and algorithm."""

    kid: str
    algorithm: str
    private: PrivateKey

    @classmethod
    def make(cls, kid: str, algorithm: str = "ES256") -> "Key":
        """Makes a fresh key fit for `algorithm`."""
        match algorithm:
            case "ES256":
                return cls(kid, algorithm, ec.generate_private_key(ec.SECP256R1()))
            case "ES384":
                return cls(kid, algorithm, ec.generate_private_key(ec.SECP384R1()))
            case "ES512":
                return cls(kid, algorithm, ec.generate_private_key(ec.SECP521R1()))
            case "ES256K":
                return cls(kid, algorithm, ec.generate_private_key(ec.SECP256K1()))
            case "EdDSA":
                return cls(kid, algorithm, ed25519.Ed25519PrivateKey.generate())
            case _:
                return cls(kid, algorithm, rsa.generate_private_key(65537, 2048))

    def jwk(self, use: str) -> dict[str, Any]:
        """Returns the public half as a JWK (RFC 7517) of the given `use`."""
        public = self.private.public_key()
        if isinstance(public, ec.EllipticCurvePublicKey):
            body = ECAlgorithm.to_jwk(public, as_dict=True)
        elif isinstance(public, ed25519.Ed25519PublicKey):
            body = OKPAlgorithm.to_jwk(public, as_dict=True)
        else:
            body = RSAAlgorithm.to_jwk(public, as_dict=True)
        body.pop("key_ops", None)
        return {**body, "kid": self.kid, "use": use, "alg": self.algorithm}

    @cached_property
    def public_pem(self) -> bytes:
        """The public half as a PEM text: what an HS256 confusion signs with."""
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, claims: Claims, header: Mapping[str, Any] | None = None) -> str:
        """Signs claims; `header` members are added to `alg` and `kid` (and `typ: JWT`)."""
        headers = {"kid": self.kid, **(header or {})}
        return jwt.encode(claims, self.private, self.algorithm, headers)

    def sign_raw(self, header: bytes, payload: bytes) -> str:
        """Signs a header and payload exactly as given, so that they may be what no library writes."""
        signing_input = f"{b64(header)}.{b64(payload)}".encode()
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        return f"{signing_input.decode()}.{b64(algorithm.sign(signing_input, self.private))}"


@dataclass(frozen=True)
class Issuer:
    """An issuer of subject tokens: its alias in the configuration, its `iss`, its kind, its key."""

    alias: str
    iss: str
    kind: str
    key: Key
    claims: tuple[str, ...] = ()
    profile: str = "jwt"


@dataclass(frozen=True)
class Authority:
    """Everything that signs: trust domains and issuers of one test session."""

    svid: Mapping[str, Key] = field(
        default_factory=lambda: {
            DOMAIN: Key.make("a-es256"),
            OTHER_DOMAIN: Key.make("b-rs256", "RS256"),
            EMPTY_DOMAIN: Key.make("empty-es256"),
            UNKNOWN_DOMAIN: Key.make("unknown-es256"),
        }
    )
    issuers: Mapping[str, Issuer] = field(
        default_factory=lambda: {
            "corp": Issuer(
                "corp",
                "https://idp.corp.example",
                "user",
                Key.make("corp-1"),
                ("groups", "department", "level", "vip"),
            ),
            "machines": Issuer(
                "machines",
                "https://machines.example",
                "service",
                Key.make("machines-1", "EdDSA"),
                ("team",),
            ),
            "oauth": Issuer(
                "oauth",
                "https://as.corp.example",
                "user",
                Key.make("oauth-1"),
                ("groups",),
                profile="access_token",
            ),
        }
    )
    stranger: Key = field(default_factory=lambda: Key.make("a-es256"))
    guard: Key = field(default_factory=lambda: Key.make("guard-1"))

    def bundle(self, domain: str) -> str:
        """Returns the SPIFFE bundle of a trust domain, as JSON text; that of EMPTY_DOMAIN has no keys."""
        keys = [] if domain == EMPTY_DOMAIN else [self.svid[domain].jwk("jwt-svid")]
        return json.dumps({"keys": keys, "spiffe_sequence": 1, "spiffe_refresh_hint": 300})

    def guard_jwks(self) -> str:
        """Returns the JWK set of the guard, as JSON text."""
        return json.dumps({"keys": [self.guard.jwk("sig")]})

    def confidence(self, operation: str, arguments: object, task: str, confidence: int) -> str:
        """States the confidence of the guard in a call.

        Args:
            operation: Operation id.
            arguments: Arguments, of which the keys are ASCII and the numbers are integers.
            task: Id of the task; empty: none.
            confidence: From 0 to 100.
        """
        # For such arguments, RFC 8785 is this.
        canonical = json.dumps(arguments, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        claims: Claims = {
            "iss": GUARD,
            "aud": AUDIENCE,
            "iat": int(time.time()),
            "operation": operation,
            "arguments_digest": hashlib.sha256(canonical.encode()).hexdigest(),
            "confidence": confidence,
            **({"task": task} if task else {}),
        }
        return self.guard.sign(claims, {"typ": "authz-confidence+jwt"})

    def jwks(self, alias: str) -> str:
        """Returns the JWK set of an issuer, as JSON text."""
        return json.dumps({"keys": [self.issuers[alias].key.jwk("sig")]})

    def agent(self, spiffe_id: str, **claims: Any) -> str:
        """Mints a good JWT-SVID; `claims` replace or add, a value of None removes."""
        return self.svid_key(spiffe_id).sign(self.agent_claims(spiffe_id, **claims))

    def svid_key(self, spiffe_id: str) -> "Key":
        """Returns the key of the id's trust domain."""
        return self.svid[spiffe_id.removeprefix("spiffe://").split("/")[0].lower()]

    @staticmethod
    def agent_claims(spiffe_id: str, **claims: Any) -> Claims:
        """Returns the claims of a good JWT-SVID."""
        now = int(time.time())
        base: Claims = {"sub": spiffe_id, "aud": [AUDIENCE], "iat": now, "exp": now + LIFETIME}
        base |= claims
        return {name: value for name, value in base.items() if value is not None}

    def subject(self, sub: str, alias: str = "corp", **claims: Any) -> str:
        """Mints a good subject token; `claims` replace or add, a value of None removes."""
        issuer = self.issuers[alias]
        return issuer.key.sign(
            self.subject_claims(sub, alias, **claims), {"typ": TYPES[issuer.profile]}
        )

    def alone(self, sub: str, alias: str = "corp", **claims: Any) -> str:
        """Mints a good token that only the subject itself holds."""
        return self.subject(sub, alias, **{"aud": ALONE_AUDIENCE, **claims})

    def subject_claims(self, sub: str, alias: str = "corp", **claims: Any) -> Claims:
        """Returns the claims of a good subject token."""
        now = int(time.time())
        base: Claims = {
            "iss": self.issuers[alias].iss,
            "sub": sub,
            "aud": ISSUER_AUDIENCE,
            "iat": now,
            "exp": now + LIFETIME,
            "jti": str(uuid.uuid4()),
        }
        if self.issuers[alias].profile == "access_token":
            base["client_id"] = "assistant"
        base |= claims
        return {name: value for name, value in base.items() if value is not None}

    def bad_agent(self, defect: str, spiffe_id: str) -> str:
        """Mints the JWT-SVID that breaks the rule named `defect`, and no other."""
        claims = self.agent_claims(spiffe_id)
        return AGENT_DEFECTS[defect](Forge(self, self.svid_key(spiffe_id), claims, spiffe_id))

    def bad_subject(self, defect: str, sub: str, alias: str = "corp", **claims: Any) -> str:
        """Mints the subject token that breaks the rule named `defect`, and no other."""
        issuer = self.issuers[alias]
        own = self.subject_claims(sub, alias, **claims)
        forge = Forge(self, issuer.key, own, sub, TYPES[issuer.profile])
        return (SUBJECT_DEFECTS | ACCESS_TOKEN_DEFECTS)[defect](forge)


@dataclass(frozen=True)
class Forge:
    """What a defect starts from: the right key and the right claims."""

    authority: Authority
    key: Key
    claims: Claims
    name: str
    typ: str = "JWT"

    def with_claims(self, **claims: Any) -> str:
        """Signs well, over other claims; None removes one."""
        merged = {**self.claims, **claims}
        kept = {name: value for name, value in merged.items() if value is not None}
        return self.key.sign(kept, {"typ": self.typ})

    def with_header(self, **header: Any) -> str:
        """Signs well, under more header members."""
        return self.key.sign_raw(_json({**self.header, **header}), _json(self.claims))

    @property
    def header(self) -> dict[str, Any]:
        """The header of a good token."""
        return {"alg": self.key.algorithm, "kid": self.key.kid, "typ": self.typ}

    @property
    def good(self) -> str:
        """The good token."""
        return self.key.sign(self.claims, {"typ": self.typ})

    def domain(self, domain: str) -> str:
        """Signs well for the same path in another trust domain."""
        key = self.authority.svid[domain]
        return key.sign({**self.claims, "sub": self.name.replace(DOMAIN, domain, 1)})


def _none(forge: Forge, spelling: str = "none") -> str:
    header = {**forge.header, "alg": spelling}
    return f"{b64(_json(header))}.{b64(_json(forge.claims))}."


def _hs256(forge: Forge, secret: bytes) -> str:
    signing_input = f"{b64(_json({**forge.header, 'alg': 'HS256'}))}.{b64(_json(forge.claims))}"
    return (
        f"{signing_input}.{b64(hmac.new(secret, signing_input.encode(), hashlib.sha256).digest())}"
    )


def _tampered(forge: Forge, **claims: Any) -> str:
    header, _, signature = forge.good.split(".")
    return f"{header}.{b64(_json({**forge.claims, **claims}))}.{signature}"


def _signature(forge: Forge, change: Callable[[bytes], bytes]) -> str:
    header, payload, signature = forge.good.split(".")
    raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    return f"{header}.{payload}.{b64(change(raw))}"


def _der(forge: Forge) -> str:
    header, payload, _ = forge.good.split(".")
    assert isinstance(forge.key.private, ec.EllipticCurvePrivateKey)
    return f"{header}.{payload}.{b64(forge.key.private.sign(f'{header}.{payload}'.encode(), ec.ECDSA(hashes.SHA256())))}"


def _twice(forge: Forge, member: str, value: object, *, header: bool) -> str:
    plain = _json(forge.header if header else forge.claims)
    doubled = b"{" + _json(member) + b":" + _json(value) + b"," + plain[1:]
    if header:
        return forge.key.sign_raw(doubled, _json(forge.claims))
    return forge.key.sign_raw(_json(forge.header), doubled)


def _now(offset: int) -> int:
    return int(time.time()) + offset


#: Defects that make sense for any token.
COMMON_DEFECTS: Final[dict[str, Callable[[Forge], str]]] = {
    "alg-none": _none,
    "alg-none-mixed-case": lambda f: _none(f, "nOnE"),
    "hs256-public-key": lambda f: _hs256(f, f.key.public_pem),
    "hs256-empty-key": lambda f: _hs256(f, b""),
    "wrong-key": lambda f: Key(f.key.kid, "ES256", f.authority.stranger.private).sign(
        f.claims, {"typ": f.typ}
    ),
    "unknown-kid": lambda f: Key("nobody", f.key.algorithm, f.key.private).sign(
        f.claims, {"typ": f.typ}
    ),
    "missing-kid-wrong-key": lambda f: f.authority.stranger.sign_raw(
        _json({"alg": "ES256", "typ": f.typ}), _json(f.claims)
    ),
    "wrong-aud": lambda f: f.with_claims(aud=["someone-else"]),
    "aud-prefix": lambda f: f.with_claims(aud=[AUDIENCE + "/extra", ISSUER_AUDIENCE + "x"]),
    "missing-aud": lambda f: f.with_claims(aud=None),
    "empty-aud": lambda f: f.with_claims(aud=[]),
    "expired": lambda f: f.with_claims(iat=_now(-7200), exp=_now(-3600)),
    "missing-exp": lambda f: f.with_claims(exp=None),
    "text-exp": lambda f: f.with_claims(exp=str(_now(600))),
    "huge-exp": lambda f: f.key.sign_raw(
        _json(f.header), _json({**f.claims, "exp": "@"}).replace(b'"@"', b"1e400")
    ),
    "not-yet-valid": lambda f: f.with_claims(nbf=_now(1800)),
    "issued-in-future": lambda f: f.with_claims(iat=_now(1800), exp=_now(3600)),
    "jku": lambda f: f.with_header(jku="https://evil.example/jwks.json"),
    "jwk": lambda f: f.authority.stranger.sign_raw(
        _json({**f.header, "alg": "ES256", "jwk": f.authority.stranger.jwk("sig")}), _json(f.claims)
    ),
    "x5u": lambda f: f.with_header(x5u="https://evil.example/cert.pem"),
    "crit": lambda f: f.with_header(crit=["exp"]),
    "b64-false": lambda f: f.with_header(b64=False, crit=["b64"]),
    "wrong-typ": lambda f: f.with_header(typ="dpop+jwt"),
    "duplicate-alg": lambda f: _twice(f, "alg", "none", header=True),
    "duplicate-kid": lambda f: _twice(f, "kid", "nobody", header=True),
    "duplicate-sub": lambda f: _twice(f, "sub", "spiffe://a.example/ns/ops/sa/root", header=False),
    "duplicate-exp": lambda f: _twice(f, "exp", 1, header=False),
    "cnf": lambda f: f.with_claims(cnf={"jkt": "0" * 43}),
    "tampered-payload": lambda f: _tampered(f, exp=_now(LIFETIME * 20)),
    "tampered-signature": lambda f: _signature(f, lambda s: bytes([s[0] ^ 1]) + s[1:]),
    "empty-signature": lambda f: _signature(f, lambda _: b""),
    "zero-signature": lambda f: _signature(f, lambda s: bytes(len(s))),
    "short-signature": lambda f: _signature(f, lambda s: s[:-1]),
    "long-signature": lambda f: _signature(f, lambda s: s + b"\0"),
    "oversized": lambda f: f.with_claims(padding="x" * 70_000),
    "just-oversized": lambda f: f.with_claims(padding="x" * 6_200),
    "garbage": lambda _: "not a token at all",
    "empty": lambda _: "",
    "three-dots": lambda f: f.good + ".",
    "four-segments": lambda f: f.good + "." + b64(b"x"),
    "two-segments": lambda f: f.good.rsplit(".", 1)[0],
    "padded": lambda f: f.good + "==",
    "leading-space": lambda f: " " + f.good,
    "trailing-newline": lambda f: f.good + "\n",
    "scheme-word": lambda f: "Bearer " + f.good,
    "header-not-json": lambda f: f.key.sign_raw(b"alg=ES256", _json(f.claims)),
    "payload-not-json": lambda f: f.key.sign_raw(_json(f.header), b"sub=root"),
    "payload-array": lambda f: f.key.sign_raw(_json(f.header), _json([f.claims])),
    "payload-trailing": lambda f: f.key.sign_raw(_json(f.header), _json(f.claims) + b"{}"),
    "payload-deep": lambda f: f.key.sign_raw(
        _json(f.header), _json({**f.claims, "deep": "@"}).replace(b'"@"', b"[" * 900 + b"]" * 900)
    ),
    "nul-in-sub": lambda f: f.with_claims(sub=f.name + "\0"),
    "sub-number": lambda f: f.with_claims(sub=42),
    "missing-sub": lambda f: f.with_claims(sub=None),
}

AGENT_DEFECTS: Final[dict[str, Callable[[Forge], str]]] = COMMON_DEFECTS | {
    "extra-header": lambda f: f.with_header(note="hello"),
    "der-signature": _der,
    "empty-domain": lambda f: f.domain(EMPTY_DOMAIN),
    "unknown-domain": lambda f: f.domain(UNKNOWN_DOMAIN),
    "foreign-key": lambda f: f.authority.svid[OTHER_DOMAIN].sign(f.claims),
    "upper-case-domain": lambda f: f.with_claims(sub=f.name.replace(DOMAIN, DOMAIN.upper())),
    "domain-prefix": lambda f: f.with_claims(sub=f.name.replace(DOMAIN, DOMAIN + ".evil.example")),
    "dot-segment": lambda f: f.with_claims(sub=f"spiffe://{DOMAIN}/ns/x/../support/sa/bot"),
    "empty-segment": lambda f: f.with_claims(sub=f"spiffe://{DOMAIN}/ns//sa/bot"),
    "percent-segment": lambda f: f.with_claims(sub=f"spiffe://{DOMAIN}/ns/%73upport/sa/bot"),
    "with-query": lambda f: f.with_claims(sub=f.name + "?x=1"),
    "no-path": lambda f: f.with_claims(sub=f"spiffe://{DOMAIN}"),
    "not-spiffe": lambda f: f.with_claims(sub="alice"),
    "long-spiffe-id": lambda f: f.with_claims(sub=f"spiffe://{DOMAIN}/" + "a" * 2100),
    "is-subject-token": lambda f: f.authority.subject("alice"),
}

SUBJECT_DEFECTS: Final[dict[str, Callable[[Forge], str]]] = COMMON_DEFECTS | {
    "unknown-issuer": lambda f: f.with_claims(iss="https://evil.example"),
    "issuer-with-slash": lambda f: f.with_claims(iss=f.claims["iss"] + "/"),
    "missing-iss": lambda f: f.with_claims(iss=None),
    "other-issuers-key": lambda f: f.authority.issuers["machines"].key.sign(
        f.claims, {"typ": f.typ}
    ),
    "is-svid": lambda f: f.authority.agent(f"spiffe://{DOMAIN}/ns/support/sa/bot"),
}

#: Defects of an access token (RFC 9068 sections 2 and 4), beside those of any subject token.
ACCESS_TOKEN_DEFECTS: Final[dict[str, Callable[[Forge], str]]] = {
    "id-token": lambda f: f.with_header(typ="JWT"),
    "without-typ": lambda f: f.key.sign_raw(
        _json({"alg": f.key.algorithm, "kid": f.key.kid}), _json(f.claims)
    ),
    "missing-client-id": lambda f: f.with_claims(client_id=None),
    "client-id-number": lambda f: f.with_claims(client_id=7),
    "empty-client-id": lambda f: f.with_claims(client_id=""),
    "missing-iat": lambda f: f.with_claims(iat=None),
    "missing-jti": lambda f: f.with_claims(jti=None),
    "jti-number": lambda f: f.with_claims(jti=7),
    "x5c": lambda f: f.with_header(x5c=["AAAA"]),
    "delegated": lambda f: f.with_claims(act={"sub": "someone"}),
}
