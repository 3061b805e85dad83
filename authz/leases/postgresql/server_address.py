"""The PostgreSQL server that a broker makes roles on."""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from authz.engine import DatabaseAddress, DatabaseTls
from authz.files import PrivateFileError, reason_of
from authz.leases.protocol import BrokerError

__all__ = ["ServerAddress"]

_PORT: Final = 5432


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
    tls: DatabaseTls | None
    """TLS files. `None`: no TLS."""

    @staticmethod
    def parse(dsn: str) -> "ServerAddress":
        """Read a connection string by the rules of the store. It must name one host and a user.

        Raises:
            BrokerError: The string is not valid. The message holds no password.
        """
        try:
            address = DatabaseAddress.parse(dsn)
        except ValueError as error:
            raise BrokerError(f"the connection string {error}") from None
        defect = next(_defects(address), None)
        if defect is not None:
            raise BrokerError(f"the connection string {defect}")
        user = address.user or ""
        return ServerAddress(
            host=address.hosts[0],
            port=address.ports[0] if address.ports else _PORT,
            user=user,
            password=address.password or "",
            database=address.database or user,
            tls=address.tls,
        )

    def context(self) -> ssl.SSLContext | None:
        """Return the TLS context, which verifies the server's name; `None`: no TLS."""
        try:
            return None if self.tls is None else self.tls.context()
        except (OSError, ValueError, PrivateFileError) as error:
            reason = reason_of(error)
            raise BrokerError(f"a file of the connection's TLS cannot be used: {reason}") from error


def _defects(address: DatabaseAddress) -> Iterator[str]:
    if not address.user:
        yield "names no user"
    for other in address.others:
        yield f"has the setting `{other[:64]}`, which a broker does not have"
    if len(address.hosts) != 1:
        yield "names several hosts; a broker makes roles on one server"
