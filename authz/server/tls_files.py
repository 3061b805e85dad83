"""TLS of the Python lane: certificates are read again when their files change."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import grpc

from authz.config import Tls
from authz.errors import ConfigError
from authz.files import read_trusted
from authz.model import Diagnostic

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TlsFiles", "credentials", "read_tls"]


_MAX_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Contents of the files of one listener."""

    certificate: bytes
    """Chain, PEM."""
    key: bytes
    """Private key, PEM."""
    client_ca: bytes | None
    """Authorities of callers, PEM."""

    def texts(self) -> dict[str, str | None]:
        """Give them as the engine's JSON has them; it holds the key.

        Returns:
            PEM texts by name.
        """
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


def read_tls(tls: Tls) -> TlsFiles:
    """Read the files of one listener.

    Args:
        tls: Where they are; certificate and key are set.

    Returns:
        Their contents.

    Raises:
        ConfigError: One cannot be read, or is no PEM.
    """
    return TlsFiles(
        _pem(tls.cert_file, b"CERTIFICATE"),
        _pem(tls.key_file, b"PRIVATE KEY"),
        _pem(tls.client_ca_file, b"CERTIFICATE") if tls.client_ca_file is not None else None,
    )


def credentials(tls: Tls) -> grpc.ServerCredentials:
    """Make credentials that follow the files.

    Args:
        tls: Where the files are.

    Returns:
        Credentials for `add_secure_port`.

    Raises:
        ConfigError: A file cannot be read now; later failures keep the last good ones.
    """
    known = [read_tls(tls)]

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        try:
            now = read_tls(tls)
        except ConfigError:
            return None
        if now == known[0]:
            return None
        known[0] = now
        return _configuration(now)

    first = known[0]
    return grpc.dynamic_ssl_server_credentials(
        _configuration(first),
        # The stub forgets that None means "as before".
        cast("Callable[[], grpc.ServerCertificateConfiguration]", fetch),
        require_client_authentication=first.client_ca is not None,
    )


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
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        at = Diagnostic(f"cannot be read: {why}.", str(path), mend="Check the path and mode.")
        raise ConfigError((at,)) from error
    if kind + b"-----" not in content:
        at = Diagnostic(
            f"has no {kind.decode().lower()} in it.", str(path), mend="Give a PEM file."
        )
        raise ConfigError((at,))
    return content
