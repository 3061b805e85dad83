"""TLS files of a listener, with credentials of grpcio that follow them, and those of the database."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from authz.config import Tls
from authz.engine import DatabaseAddress
from authz.errors import ConfigError
from authz.files import PrivateFileError, read_trusted, reason_of
from authz.model import Diagnostic

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TlsFiles", "check_database_files", "credentials", "read_tls"]


_MAX_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Contents of the TLS files of one listener."""

    certificate: bytes
    """Certificate chain, PEM."""
    key: bytes
    """Private key, PEM."""
    client_ca: bytes | None
    """Authorities of callers, PEM. `None`: callers show no certificate."""

    def texts(self) -> dict[str, str | None]:
        """Return the PEM texts as the engine's JSON; they hold the key."""
        return {
            "certificate": self.certificate.decode(errors="replace"),
            "key": self.key.decode(errors="replace"),
            "client_ca": None
            if self.client_ca is None
            else self.client_ca.decode(errors="replace"),
        }

    def __repr__(self) -> str:
        """Show no key."""
        return "TlsFiles(...)"


def read_tls(tls: Tls, checked: TlsFiles | None = None) -> TlsFiles:
    """Read the TLS files of one listener; certificate and key are configured.

    Args:
        tls: Their paths.
        checked: Contents that were checked before, for example those in use: they are not checked again.

    Raises:
        ConfigError: A file cannot be read, or is not PEM, or the key is not that of the certificate.
    """
    files = _read(tls)
    if files != checked:
        _check_pair(tls, files)
    return files


def _read(tls: Tls) -> TlsFiles:
    client_ca = tls.client_ca_file
    return TlsFiles(
        _pem(tls.cert_file, b"CERTIFICATE"),
        _pem(tls.key_file, b"PRIVATE KEY"),
        _pem(client_ca, b"CERTIFICATE") if client_ca is not None else None,
    )


def _check_pair(tls: Tls, files: TlsFiles) -> None:
    """Refuse a key that is not that of the certificate: no handshake would succeed, and OpenSSL would not say why.

    A rotation that replaced only one of the two files is refused, too, so that the pair before stays in use.
    """
    try:
        leaf = x509.load_pem_x509_certificate(files.certificate)
        of_certificate = _public(leaf.public_key())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        what = "has a certificate that cannot be read."
        at = Diagnostic(what, str(tls.cert_file), fix="Give the certificate of the listener, PEM.")
        raise ConfigError((at,)) from error
    try:
        of_key = _public(load_pem_private_key(files.key, None).public_key())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        what = "has a private key that cannot be read."
        at = Diagnostic(what, str(tls.key_file), fix="Give the key without a passphrase, PEM.")
        raise ConfigError((at,)) from error
    if of_key != of_certificate:
        subject = leaf.subject.rfc4514_string() or f"serial number {leaf.serial_number:x}"
        what = f"is the key of another certificate than that of `{subject}` in {tls.cert_file}."
        fix = "Give the key for which the certificate was issued, and the leaf first in the chain."
        raise ConfigError((Diagnostic(what, str(tls.key_file), fix=fix),))


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def credentials(tls: Tls) -> grpc.ServerCredentials:
    """Return credentials for `add_secure_port` that follow the files.

    Raises:
        ConfigError: A file cannot be read now. Files that become unreadable later leave the ones before in use.
    """
    first = serving = read_tls(tls)
    refused: TlsFiles | None = None

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        # grpcio calls this before each handshake, so contents are checked once: loading an RSA key takes 50 ms and more.
        nonlocal serving, refused
        try:
            now = _read(tls)
        except ConfigError:
            return None
        if now in (serving, refused):
            return None
        try:
            _check_pair(tls, now)
        except ConfigError:
            refused = now
            return None
        serving = now
        return _configuration(now)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(first),
        # The stub lacks `None`, which means no change.
        cast("Callable[[], grpc.ServerCertificateConfiguration]", fetch),
        require_client_authentication=first.client_ca is not None,
    )


def check_database_files(dsn: str | None) -> None:
    """Refuse TLS files of the database that other users could replace: their writer chooses the server that is trusted.

    Raises:
        ConfigError: The connection string is not valid, or a file cannot be used.
    """
    if dsn is None:
        return
    fix = "Give another `state.dsn`; docs/reference/state.md has its rules."
    try:
        tls = DatabaseAddress.parse(dsn).tls
    except ValueError as error:
        what = f"the connection string of the database {error}."
        raise ConfigError((Diagnostic(what, fix=fix),)) from error
    try:
        if tls is not None:
            tls.check()
    except (OSError, ValueError, PrivateFileError) as error:
        what = f"a TLS file of the database cannot be used: {reason_of(error)}."
        raise ConfigError((Diagnostic(what, fix=fix),)) from error


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(files.key, files.certificate)], root_certificates=files.client_ca
    )


def _pem(file: str | None, kind: bytes) -> bytes:
    path = Path(file or "")
    try:
        # A user who could replace the file would choose the key, or the authorities.
        content = read_trusted(path, _MAX_BYTES)
    except (OSError, ValueError) as error:
        what = f"cannot be read: {reason_of(error)}."
        at = Diagnostic(what, str(path), fix="Check the path and mode.")
        raise ConfigError((at,)) from error
    if kind + b"-----" not in content:
        at = Diagnostic(f"has no {kind.decode().lower()} in it.", str(path), fix="Give a PEM file.")
        raise ConfigError((at,))
    return content
