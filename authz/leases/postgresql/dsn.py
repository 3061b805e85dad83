"""The connection string of a PostgreSQL server that a broker makes roles on."""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from authz.config.urls import loopback_host
from authz.files import (
    PrivateFileError,
    check_trusted,
    read_authorities,
    read_private,
    reason_of,
)
from authz.leases.protocol import BrokerError

__all__ = ["ServerAddress"]

_PORT: Final = 5432
_MAX_KEY_BYTES: Final = 65_536
_SETTINGS: Final = frozenset({"host", "sslmode", "sslrootcert", "sslcert", "sslkey"})
_WITH_TLS: Final = frozenset({"require", "verify-ca", "verify-full"})


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Address of a server, and the log-in of the broker."""

    host: str
    """Host name, address, or folder of a socket."""
    port: int
    """Its port."""
    user: str
    """Role of the log-in."""
    password: str = field(repr=False)
    """Password; empty: none."""
    database: str
    """The database."""
    tls: dict[str, str] | None
    """TLS files. `None`: no TLS."""

    @staticmethod
    def parse(dsn: str) -> "ServerAddress":
        """Read a connection string.

        A host that is neither a socket nor this machine is reached over TLS, and its name is verified, unless `sslmode=disable` is given. Missing
        settings are not read from the environment.

        Args:
            dsn: `postgresql://user:password@host:port/database?sslmode=…&sslrootcert=…`.

        Raises:
            BrokerError: The string is not valid. The message holds nothing of it.
        """
        try:
            parts = urlsplit(dsn)
            port = parts.port or _PORT
            settings = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        except ValueError:
            raise BrokerError("the connection string is no URL") from None
        defect = next(_defects(parts.scheme, parts.username, settings), None)
        if defect is not None:
            raise BrokerError(f"the connection string {defect}")
        host = settings.pop("host", None) or unquote(parts.hostname or "")
        if not host:
            raise BrokerError("the connection string names no host")
        user = unquote(parts.username or "")
        database = unquote(parts.path.removeprefix("/")) or user
        mode = settings.pop("sslmode", None)
        near = host.startswith("/") or loopback_host(host)
        tls = settings if mode in _WITH_TLS or (mode is None and (settings or not near)) else None
        if tls is not None and "sslrootcert" not in tls:
            what = (
                "needs sslrootcert for TLS, a file with the authorities that vouch for the server"
            )
            raise BrokerError(f"the connection string {what}; sslmode=disable does without TLS")
        return ServerAddress(host, port, user, unquote(parts.password or ""), database, tls)

    def context(self) -> ssl.SSLContext | None:
        """Return the TLS context, which verifies the server's name; `None`: no TLS."""
        if self.tls is None:
            return None
        try:
            context = ssl.create_default_context(cadata=read_authorities(self.tls["sslrootcert"]))
            if "sslcert" in self.tls:
                check_trusted(self.tls["sslcert"])
                # The same rule as libpq's: the group of a file of root may read it.
                read_private(self.tls["sslkey"], "TLS key", _MAX_KEY_BYTES, root_group=True)
                context.load_cert_chain(self.tls["sslcert"], self.tls["sslkey"])
        except (OSError, ValueError, PrivateFileError) as error:
            reason = reason_of(error)
            raise BrokerError(f"a file of the connection's TLS cannot be used: {reason}") from error
        return context


def _defects(scheme: str, user: str | None, settings: dict[str, str]) -> Iterator[str]:
    if scheme not in {"postgres", "postgresql"}:
        yield "does not begin with postgresql://"
    if not user:
        yield "names no user"
    for unknown in sorted(settings.keys() - _SETTINGS):
        yield f"has the setting `{unknown[:64]}`, which is not known here"
    mode = settings.get("sslmode")
    if mode is not None and mode not in {*_WITH_TLS, "disable"}:
        yield "has an sslmode that may go on without TLS; say verify-full or disable"
    if ("sslcert" in settings) != ("sslkey" in settings):
        yield "has one of sslcert and sslkey; they go together"
