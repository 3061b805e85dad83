"""A passkey in software (WebAuthn), which can also do what no browser does."""

import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from webauthn.helpers import base64url_to_bytes

from tests.support.minting import b64

_UP, _UV, _AT = 0x01, 0x04, 0x40


@dataclass
class Authenticator:
    """One passkey of one person."""

    rp_id: str = "authz.example"
    origin: str = "https://authz.example"
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    credential_id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    user_handle: bytes = b""
    sign_count: int = 0

    def create(self, options: str, *, verified: bool = True, origin: str | None = None) -> str:
        """Answers `navigator.credentials.create()`."""
        given: dict[str, Any] = json.loads(options)
        self.user_handle = base64url_to_bytes(given["user"]["id"])
        numbers = self.key.public_key().public_numbers()
        public = cbor2.dumps(
            {
                1: 2,
                3: -7,
                -1: 1,
                -2: numbers.x.to_bytes(32, "big"),
                -3: numbers.y.to_bytes(32, "big"),
            }
        )
        attested = (
            bytes(16) + len(self.credential_id).to_bytes(2, "big") + self.credential_id + public
        )
        data = self._data(_AT, verified=verified) + attested
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        client_data = self._client_data("webauthn.create", given["challenge"], origin)
        return self._credential(
            {"attestationObject": b64(attestation), "clientDataJSON": b64(client_data)}
        )

    def get(self, options: str, *, verified: bool = True, origin: str | None = None) -> str:
        """Answers `navigator.credentials.get()`."""
        given: dict[str, Any] = json.loads(options)
        self.sign_count += 1
        data = self._data(0, verified=verified)
        client_data = self._client_data("webauthn.get", given["challenge"], origin)
        signature = self.key.sign(
            data + hashlib.sha256(client_data).digest(), ec.ECDSA(hashes.SHA256())
        )
        return self._credential(
            {
                "authenticatorData": b64(data),
                "clientDataJSON": b64(client_data),
                "signature": b64(signature),
                "userHandle": b64(self.user_handle),
            }
        )

    def _data(self, flags: int, *, verified: bool) -> bytes:
        flags |= _UP | (_UV if verified else 0)
        rp = hashlib.sha256(self.rp_id.encode()).digest()
        return rp + bytes([flags]) + self.sign_count.to_bytes(4, "big")

    def _client_data(self, kind: str, challenge: str, origin: str | None) -> bytes:
        value = {"type": kind, "challenge": challenge, "origin": origin or self.origin}
        return json.dumps(value).encode()

    def _credential(self, response: dict[str, str]) -> str:
        name = b64(self.credential_id)
        return json.dumps({"id": name, "rawId": name, "type": "public-key", "response": response})
