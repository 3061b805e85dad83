"""Heads of an audit log: statements of a node about the first lines of a segment, signed."""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWS, PyJWTError
from jwt.api_jwk import PyJWK

from authz_client.jose import public_jwk, thumbprint

__all__ = ["Head", "HeadError", "HeadKeys", "Jwks", "StoredHead", "read_head"]

_ALGORITHMS: Final = ("EdDSA", "ES256")
_TYPE: Final = "authz-audit-head"
_MAX_HEAD: Final = 8_192


class HeadError(ValueError):
    """A head cannot be read, or its signature does not verify.

    Args:
        message: Description of the defect.
        code: `head`, `head_unsigned`, `head_key`, `head_algorithm` or `head_signature`.
    """

    def __init__(self, message: str, code: str = "head") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Head:
    """Statement about the first lines of a segment."""

    node: str
    """Name of the node that writes the log."""
    segment: int
    """Number of the segment, from 1."""
    count: int
    """Number of lines."""
    root: str
    """Root of the Merkle tree over the lines (RFC 9162 §2.1), in hex."""
    previous: str
    """SHA-256 of the head that the first line of the segment names, in hex."""
    at: str
    """Time of the head: RFC 3339, UTC, milliseconds."""
    sealed: bool
    """True if the segment ended with these lines."""


@dataclass(frozen=True, slots=True)
class StoredHead:
    """A head with its signature."""

    head: Head
    payload: str
    """The head as JSON, in base64url."""
    protected: str = ""
    """Header of the signature, in base64url; empty without a signature."""
    signature: str = ""
    """Signature, in base64url; empty without a signature."""

    @property
    def text(self) -> str:
        """The stored form: flattened JSON of JWS."""
        members = {"payload": self.payload}
        if self.signature:
            members |= {"protected": self.protected, "signature": self.signature}
        return _dump(members)

    @property
    def digest(self) -> str:
        """SHA-256 of the payload in hex, which the first line of the next segment names."""
        return hashlib.sha256(_decode(self.payload)).hexdigest()


class HeadKeys(Protocol):
    """Keys that are trusted for heads."""

    def verify(self, head: StoredHead) -> str:
        """Return the `kid` of the key that signed a head.

        Raises:
            HeadError: No trusted key signed it.
        """


class Jwks:
    """Trusted keys from a JSON Web Key Set (RFC 7517 §5)."""

    def __init__(self, keys: Mapping[str, PyJWK]) -> None:
        self._keys = dict(keys)

    @staticmethod
    def trusted(contents: Iterable[bytes]) -> "Jwks":
        """Read trusted keys from files. Each key is known by its RFC 7638 thumbprint, also if its file states another `kid`.

        Args:
            contents: Of each file: a JWK, a JWK Set, or one or more public keys in PEM.

        Raises:
            HeadError: A file does not hold public keys of Ed25519 or P-256.
        """
        keys: dict[str, PyJWK] = {}
        for content in contents:
            for jwk in _public_jwks(content):
                keys[thumbprint(jwk)] = PyJWK(jwk)
        return Jwks(keys)

    @staticmethod
    def parse(text: str) -> "Jwks":
        """Read a key set, or a single key.

        Raises:
            HeadError: The text is not a key set of Ed25519 or P-256 keys that each have a `kid`.
        """
        try:
            document = json.loads(text)
            entries = document.get("keys", [document])
            keys = {str(entry["kid"]): PyJWK(entry) for entry in entries}
        except (ValueError, KeyError, TypeError, AttributeError, PyJWTError) as error:
            raise HeadError(f"not a key set with a `kid` for each key: {error}") from error
        if not keys or any(key.algorithm_name not in _ALGORITHMS for key in keys.values()):
            raise HeadError("give keys of Ed25519 (EdDSA) or P-256 (ES256)")
        return Jwks(keys)

    def verify(self, head: StoredHead) -> str:
        """Return the `kid` of the key that signed a head; see `HeadKeys`."""
        if not head.signature:
            raise HeadError("the head is not signed", "head_unsigned")
        token = f"{head.protected}.{head.payload}.{head.signature}"
        try:
            header = json.loads(_decode(head.protected))
            key = self._keys[header["kid"]]
            algorithm = header["alg"]
        except KeyError as error:
            raise HeadError("no trusted key has the `kid` of the signature", "head_key") from error
        except (ValueError, TypeError) as error:
            raise HeadError(f"the header of the signature cannot be read: {error}") from error
        if algorithm != key.algorithm_name:
            raise HeadError("the algorithm is not that of the trusted key", "head_algorithm")
        try:
            PyJWS().decode(token, key, algorithms=[key.algorithm_name])
        except (ValueError, TypeError, PyJWTError) as error:
            message = f"the signature does not verify: {error}"
            raise HeadError(message, "head_signature") from error
        if set(header) != {"alg", "kid", "typ"} or header["typ"] != _TYPE:
            raise HeadError("the signature is not one of a head")
        return str(header["kid"])


_PEM: Final = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)
_KEY_TYPES: Final = {
    ("OKP", "Ed25519"): ("kty", "crv", "x"),
    ("EC", "P-256"): ("kty", "crv", "x", "y"),
}


def _public_jwks(content: bytes) -> list[dict[str, str]]:
    """Return the keys of a file, each with its required members only."""
    try:
        if content.lstrip().startswith(b"{"):
            document = json.loads(content)
            return [_required(entry) for entry in document.get("keys", [document])]
        keys = [load_pem_public_key(block) for block in _PEM.findall(content)]
        return [_required(public_jwk(_head_key(key))) for key in keys] or [_required({})]
    except (ValueError, KeyError, TypeError, AttributeError, PyJWTError) as error:
        message = f"give public keys of Ed25519 or P-256, as JWK, JWK Set or PEM: {error}"
        raise HeadError(message, "head_key") from error


def _required(entry: Mapping[str, Any]) -> dict[str, str]:
    members = _KEY_TYPES.get((entry.get("kty", ""), entry.get("crv", "")))
    if members is None or "d" in entry:
        raise ValueError("a key is missing, private or of another kind")
    jwk = {name: str(entry[name]) for name in members}
    if public_jwk(PyJWK(jwk).key) != jwk:
        raise ValueError("a key is not in its only spelling")
    return jwk


def _head_key(key: object) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey:
    if isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        return key
    raise ValueError("a key is of another kind")


def read_head(text: str | bytes) -> StoredHead:
    """Read a head in its stored form: flattened JSON of JWS (RFC 7515 §7.2.2).

    Only the form in which the server writes a head is accepted, so that no byte can change unseen.

    Args:
        text: One line, without its line feed.

    Raises:
        HeadError: The text is not a head in that form.
    """
    try:
        return _parse(text.decode() if isinstance(text, bytes) else text)
    except HeadError:
        raise
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise HeadError(f"not a head: {error}") from error


def _parse(line: str) -> StoredHead:
    if len(line) > _MAX_HEAD:
        raise HeadError("longer than 8 KiB")
    stored = json.loads(line)
    members = ["payload"] if len(stored) == 1 else ["payload", "protected", "signature"]
    if list(stored) != members or _dump(stored) != line:
        raise HeadError("not in the form in which heads are written")
    if not all(isinstance(value, str) for value in stored.values()):
        raise HeadError("a member is not a string")
    payload = next(iter([_decode(value) for value in stored.values()])).decode()
    head = _head(json.loads(payload))
    if _dump(asdict(head)) != payload:
        raise HeadError("not in the form in which heads are written")
    return StoredHead(head, **stored)


def _head(value: Any) -> Head:
    types: dict[str, type] = {
        "node": str,
        "segment": int,
        "count": int,
        "root": str,
        "previous": str,
        "at": str,
        "sealed": bool,
    }
    if list(value) != list(types):
        raise HeadError("its members are not those of a head")
    if any(type(value[name]) is not kind for name, kind in types.items()):
        raise HeadError("a member has another type")
    return Head(**value)


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _decode(text: str) -> bytes:
    """Decode base64url without padding, of which each value has one spelling."""
    try:
        value = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise HeadError("not base64url") from error
    if base64.urlsafe_b64encode(value).rstrip(b"=").decode() != text:
        raise HeadError("not base64url in its only spelling")
    return value
