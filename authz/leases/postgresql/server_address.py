"""The address of a broker's PostgreSQL server, with errors of brokers."""

import ssl

from authz.engine import ServerAddress
from authz.files import PrivateFileError, reason_of
from authz.leases.protocol import BrokerError

__all__ = ["ServerAddress", "broker_address", "tls_context"]


def broker_address(dsn: str) -> ServerAddress:
    """Read the connection string of a broker.

    Raises:
        BrokerError: The string is not valid. The message holds no password.
    """
    try:
        return ServerAddress.parse(dsn)
    except ValueError as error:
        raise BrokerError(f"the connection string {error}") from None


def tls_context(address: ServerAddress) -> ssl.SSLContext | None:
    """Return the TLS context of a connection; `None`: no TLS.

    Raises:
        BrokerError: A file cannot be used.
    """
    try:
        return address.context()
    except (OSError, ValueError, PrivateFileError) as error:
        reason = reason_of(error)
        raise BrokerError(f"a file of the connection's TLS cannot be used: {reason}") from error
