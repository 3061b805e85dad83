"""Secrets for systems that know no tokens: made for one lease and taken back with it, or held back from agents."""

from authz.credentials.broker.leases import Lease, Leases, LeaseState, LeaseStore
from authz.credentials.broker.postgresql import PostgresqlBroker
from authz.credentials.broker.protocol import (
    BrokerError,
    NothingMadeError,
    NotRemovedError,
    Order,
    SecretBroker,
    UnreachableError,
)
from authz.credentials.broker.secret_file import MAX_SECRET_BYTES, SecretFileError, read_secret

__all__ = [
    "MAX_SECRET_BYTES",
    "BrokerError",
    "Lease",
    "LeaseState",
    "LeaseStore",
    "Leases",
    "NotRemovedError",
    "NothingMadeError",
    "Order",
    "PostgresqlBroker",
    "SecretBroker",
    "SecretFileError",
    "UnreachableError",
    "read_secret",
]
