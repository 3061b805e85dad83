"""Secrets for systems that take no tokens: made for one lease and taken back with it, or held back from agents.

In the order of a lease's life: `leases` has the records and decides what is due; `protocol` is what it needs of a broker, and
`postgresql` is the one broker. That one reads `secret_file` and `address`, opens `connections`, grants with `role_grants`,
removes with `role_removal`, and looks at the server with `server_inspection`. None of them imports `leases`.
"""

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
