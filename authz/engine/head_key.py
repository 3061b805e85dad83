"""The chain of the audit log in the settings of the engine, with the key that signs its heads."""

from base64 import b64encode
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from authz.config import Audit
from authz.errors import ConfigError
from authz.files import PrivateFileError, read_private
from authz.model import Diagnostic
from authz_client.jose import public_jwk, thumbprint

__all__ = ["chain_settings", "head_jwk"]

_MAX_BYTES: Final = 65_536
_FIX: Final = "Give PKCS#8 in PEM, without a passphrase, of an Ed25519 or P-256 key: openssl genpkey -algorithm ed25519"


def chain_settings(audit: Audit) -> dict[str, Any] | None:
    """Return the engine's settings of the chain; None if records are not chained.

    Raises:
        ConfigError: The key of heads cannot be read.
    """
    if not audit.chain:
        return None
    return {
        "head_key": _head_key(Path(audit.head_key)) if audit.head_key is not None else None,
        "max_segment_bytes": audit.segment_bytes,
        "max_segment_age_ms": round(audit.segment_age * 1000),
        "head_interval_ms": round(audit.head_interval * 1000),
        # Where there are sinks, segments are removed once they are delivered, which the engine does not know.
        "keep_segments": None if audit.sinks else audit.keep_segments,
    }


def head_jwk(file: Path) -> dict[str, str]:
    """Return the public half of a key that signs heads, as a JWK (RFC 7517) with its RFC 7638 thumbprint as `kid`.

    Args:
        file: A private key in PKCS#8 or a public key, in PEM.

    Raises:
        ConfigError: The file does not hold such a key.
    """
    try:
        content = file.read_bytes()[:_MAX_BYTES]
        private = b"PRIVATE KEY" in content
        key = (
            load_pem_private_key(content, None).public_key()
            if private
            else load_pem_public_key(content)
        )
    except (OSError, ValueError, TypeError) as error:
        raise _refused(file, str(error)) from error
    return _jwk(file, key)


def _jwk(file: Path, key: object) -> dict[str, str]:
    if isinstance(key, ed25519.Ed25519PublicKey):
        algorithm = "EdDSA"
    elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        algorithm = "ES256"
    else:
        raise _refused(file, "it is a key of another kind")
    jwk = public_jwk(key)
    return {**jwk, "kid": thumbprint(jwk), "use": "sig", "alg": algorithm}


def _head_key(file: Path) -> dict[str, str]:
    try:
        content, _ = read_private(file, "key of audit heads", _MAX_BYTES)
        key = load_pem_private_key(content, None)
    except (PrivateFileError, ValueError, TypeError) as error:
        raise _refused(file, str(error)) from error
    jwk = _jwk(file, key.public_key())
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return {"kid": jwk["kid"], "algorithm": jwk["alg"], "pkcs8": b64encode(der).decode()}


def _refused(file: Path, why: str) -> ConfigError:
    return ConfigError((Diagnostic(f"key of audit heads {file}: {why}", fix=_FIX),))
