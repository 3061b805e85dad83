"""A transmitter of security events: its key, and the tokens that it signs."""

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

ISSUER = "https://signals.corp.example"
AUDIENCE = "https://authz.example/signals"
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
SSF = "https://schemas.openid.net/secevent/ssf/event-type/"
TYPE = "application/secevent+jwt"
#: Members of claims and headers that a test leaves out.
ABSENT: Any = object()


def new_key() -> rsa.RSAPrivateKey:
    """Makes a key."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=2048)


#: The key of every transmitter that has none of its own: making one takes long.
shared_key = cache(new_key)


@dataclass
class Transmitter:
    """Signs security event tokens with RS256, as the interoperability profile of CAEP demands."""

    key: rsa.RSAPrivateKey = field(default_factory=shared_key)
    kid: str = "signals-1"

    def jwks(self) -> str:
        """Its keys."""
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return json.dumps({"keys": [{**public, "kid": self.kid, "use": "sig", "alg": "RS256"}]})

    def token(
        self,
        event: str,
        payload: Mapping[str, Any],
        subject: Any,
        *,
        header: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Signs a token about one event; claims and members of the header may be changed or left out."""
        whole = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "jti": f"e-{time.monotonic_ns()}",
            "iat": int(time.time()),
            "sub_id": subject,
            "events": {event: payload},
            **claims,
        }
        return self.sign(json.dumps(_kept(whole)).encode(), header)

    def sign(self, content: bytes, header: Mapping[str, Any] | None = None) -> str:
        """Signs any content as the claims of a token."""
        head = _kept({"typ": "secevent+jwt", "kid": self.kid, **(header or {})})
        return jwt.api_jws.encode(
            content, self.key, algorithm="RS256", headers={"typ": None, **head}
        )


def _kept(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not ABSENT}


def unsigned(claims: Mapping[str, Any]) -> str:
    """Makes a token whose algorithm is `none`."""
    parts = [{"alg": "none", "typ": "secevent+jwt"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join([*encoded, b""]).decode()
