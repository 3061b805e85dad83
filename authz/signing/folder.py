"""Signing keys in a folder: one PEM file each, which nobody but the owner can read."""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from authz.config import SigningAlgorithm
from authz.engine import PrivateKey
from authz.errors import KeysError
from authz.files import PrivateFileError, check_private, check_way, read_private
from authz.signing.keys import SigningKey, algorithm_of, signing_jwk

__all__ = ["FileKey", "FolderKeys"]

_MAX_BYTES: Final = 16_384
_MAX_FILES: Final = 64
_Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class FileKey:
    """A key in this process's memory."""

    kid: str
    """RFC 7638 thumbprint."""
    algorithm: SigningAlgorithm
    """Signature algorithm."""
    jwk: dict[str, str]
    """Public half."""
    private: PrivateKey
    """Private half."""

    def __repr__(self) -> str:
        """Show no key."""
        return f"FileKey({self.kid})"

    @staticmethod
    def of(private: _Private) -> "FileKey":
        """Wrap a private key; raises KeysError if it cannot be used."""
        jwk = signing_jwk(private.public_key())
        der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return FileKey(jwk["kid"], SigningAlgorithm(jwk["alg"]), jwk, PrivateKey.read(der))

    def sign(self, message: bytes) -> bytes:
        """Sign a message that is not yet hashed; raises KeysError if that fails."""
        return self.private.sign(message)


class FolderKeys:
    """The keys of a folder.

    Args:
        folder: Folder of PEM files. It is made with mode 0700 if it is missing.

    Raises:
        KeysError: The folder cannot be made, or others could read it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            what = f"{folder}: the folder of signing keys cannot be made: {error.strerror}."
            raise KeysError(what) from error
        self._known: dict[tuple[int, ...], FileKey] = {}

    def find(self) -> Sequence[SigningKey]:
        """Read every new or changed `*.pem`, and return all keys; raises KeysError for a file that others can read, or that does not hold a key."""
        keys: dict[tuple[int, ...], FileKey] = {}
        try:
            self._check()
            files = sorted(self._folder.glob("*.pem"))
        except OSError as error:
            raise KeysError(f"{self._folder}: cannot be read: {error.strerror}.") from error
        if len(files) > _MAX_FILES:
            what = f"{self._folder}: has more than {_MAX_FILES} keys."
            raise KeysError(f"{what} Remove keys that no longer sign.")
        for file in files:
            content, version = _read(file)
            keys[version] = self._known.get(version) or _parse(file, content)
        self._known = keys
        return tuple({key.kid: key for key in keys.values()}.values())

    def generate(self, algorithm: SigningAlgorithm) -> SigningKey:
        """Make a key and write it, so that its file survives a power failure; raises KeysError if that fails."""
        private: _Private = (
            ed25519.Ed25519PrivateKey.generate()
            if algorithm is SigningAlgorithm.EDDSA
            else ec.generate_private_key(ec.SECP256R1())
        )
        key = FileKey.of(private)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        partial = self._folder / f".{secrets.token_hex(8)}"
        try:
            self._check()
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with os.fdopen(os.open(partial, flags, 0o600), "wb") as stream:
                    stream.write(pem)
                    stream.flush()
                    os.fsync(stream.fileno())
                partial.rename(self._folder / f"{key.kid}.pem")
            finally:
                partial.unlink(missing_ok=True)
            self._sync()
        except OSError as error:
            what = f"{self._folder}: a signing key cannot be written: {error.strerror}."
            raise KeysError(what) from error
        return key

    def destroy(self, kid: str) -> None:
        """Remove the files of a key; raises KeysError if one cannot be removed."""
        try:
            for file in sorted(self._folder.glob("*.pem"))[:_MAX_FILES]:
                content, version = _read(file)
                if (self._known.get(version) or _parse(file, content)).kid == kid:
                    file.unlink(missing_ok=True)
            self._sync()
        except OSError as error:
            what = f"{self._folder}: a signing key cannot be removed: {error.strerror}."
            raise KeysError(what) from error

    def close(self) -> None:
        """Forget the keys."""
        self._known = {}

    def _check(self) -> None:
        check_way(self._folder / "key.pem")
        try:
            check_private(self._folder, "folder of signing keys", self._folder.stat(), 0o700)
        except PrivateFileError as error:
            raise KeysError(str(error)) from error

    def _sync(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read(file: Path) -> tuple[bytes, tuple[int, ...]]:
    """Read a key file; return its content, and a version that changes with it."""
    try:
        content, status = read_private(file, "signing key", _MAX_BYTES)
    except PrivateFileError as error:
        raise KeysError(str(error)) from error
    version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return content, version


def _parse(file: Path, content: bytes) -> FileKey:
    fix = "Give PKCS#8 in PEM, without a passphrase, of a P-256 or Ed25519 key."
    try:
        private = load_pem_private_key(content, None)
    except (ValueError, TypeError) as error:
        raise KeysError(f"{file}: does not hold a readable private key. {fix}") from error
    if algorithm_of(private) is None or not isinstance(
        private, (ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)
    ):
        raise KeysError(f"{file}: is a key of another kind. {fix}")
    try:
        return FileKey.of(private)
    except KeysError as error:
        raise KeysError(f"{file}: {error} {fix}") from error
