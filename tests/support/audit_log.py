"""An audit log as a node writes it, with heads, made by the book."""

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authz_client.jose import public_jwk, thumbprint

NO_HEAD = "0" * 64


def reference_root(leaves: Sequence[bytes]) -> bytes:
    """Return the Merkle root by the definition of RFC 9162 §2.1.1."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    children = reference_root(leaves[:half]) + reference_root(leaves[half:])
    return hashlib.sha256(b"\1" + children).digest()


def _b64(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


HeadKey = Ed25519PrivateKey | EllipticCurvePrivateKey
"""A key that signs heads."""


def write_head_key(file: Path) -> Path:
    """Write a new key for `audit.head_key`; return its file."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    file.write_bytes(pem)
    file.chmod(0o600)
    return file


def sign_head(key: HeadKey, kid: str, payload: str, **header: str) -> dict[str, str]:
    """Return the flattened JWS of a payload that is base64url already."""
    algorithm = "EdDSA" if isinstance(key, Ed25519PrivateKey) else "ES256"
    members = {"alg": algorithm, "kid": kid, "typ": "authz-audit-head", **header}
    protected = _b64(_compact(members).encode())
    message = f"{protected}.{payload}".encode()
    if isinstance(key, Ed25519PrivateKey):
        signature = key.sign(message)
    else:
        pair = decode_dss_signature(key.sign(message, ECDSA(hashes.SHA256())))
        signature = b"".join(number.to_bytes(32, "big") for number in pair)
    return {"payload": payload, "protected": protected, "signature": _b64(signature)}


def erasable(text: str, salt: str) -> tuple[dict[str, str], str]:
    """Return a text as the texts of a line have it, and the digest that stands in its place.

    Args:
        text: The text.
        salt: 32 hex digits.
    """
    written = len(json.dumps(text, ensure_ascii=False).encode()) - 2
    digest = hashlib.sha256((salt + text).encode()).hexdigest()
    return {"salt": salt, "text": text, "pad": "-" * (64 - written % 64)}, f"salted:{digest}"


class LogWriter:
    """Writes segments of an audit log into a folder.

    Args:
        folder: Folder of the log.
        signed: Heads are signed.
        key: Key that signs heads; its `kid` is its thumbprint. Default: a new one with the `kid` `k1`.
    """

    def __init__(self, folder: Path, *, signed: bool = True, key: HeadKey | None = None) -> None:
        self.path = folder / "audit.jsonl"
        self.heads = folder / "audit.jsonl.heads"
        self.key: HeadKey | None = key or (Ed25519PrivateKey.generate() if signed else None)
        self.kid = thumbprint(public_jwk(key.public_key())) if key is not None else "k1"
        self.lines: dict[int, list[str]] = {}
        self.segment = 1
        self.previous = NO_HEAD
        self.newest = ""

    def jwks(self) -> str:
        """Return the public half of the key of heads, as a key set."""
        assert self.key is not None
        return json.dumps({"keys": [{**public_jwk(self.key.public_key()), "kid": self.kid}]})

    def head(self, leaves: Sequence[bytes], *, sealed: bool, **changes: Any) -> str:
        """Return a head of the first lines of the segment."""
        root = reference_root(leaves).hex()
        head = {
            "node": "n1",
            "segment": self.segment,
            "count": len(leaves),
            "root": root,
            "previous": self.previous,
            "at": "2026-12-01T00:00:00.000Z",
            "sealed": sealed,
        }
        payload = _b64(_compact(head | changes).encode())
        if self.key is None:
            return _compact({"payload": payload})
        return _compact(sign_head(self.key, self.kid, payload))

    def write(
        self,
        records: Sequence[dict[str, Any]],
        *,
        sealed: bool = False,
        change: Callable[[str], str] = lambda line: line,
    ) -> Path:
        """Write a segment; return its file. `newest` is its head then."""
        last, leaves, lines = self.previous, [], []
        for index, record in enumerate(records):
            chain = {"segment": self.segment, "index": index, "previous": last}
            members = {name: value for name, value in record.items() if name != "texts"}
            line = change(_compact({**members, "chain": chain}))
            leaf = hashlib.sha256(b"\0" + line.encode()).digest()
            leaves.append(leaf)
            if "texts" in record:
                texts = json.dumps(record["texts"], separators=(",", ":"), ensure_ascii=False)
                line = f'{{"texts":{texts},{line[1:]}'
            lines.append(line)
            last = leaf.hex()
        self.lines[self.segment] = lines
        self.newest = self.head(leaves, sealed=sealed)
        file = self.path
        if sealed:
            file = self.path.with_name(f"{self.path.name}.{self.segment:08}")
            with self.heads.open("a") as heads:
                heads.write(self.newest + "\n")
            payload = json.loads(self.newest)["payload"]
            decoded = urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
            self.previous = hashlib.sha256(decoded).hexdigest()
            self.segment += 1
        file.write_text("".join(line + "\n" for line in lines))
        return file
