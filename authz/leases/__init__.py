"""Leases: secrets of systems that accept no tokens, made for one task and removed when the task ends.

In the order of a lease's life: `manager` keeps the records and decides which lease is due, `protocol` is the interface of a
broker, and `postgresql` is the broker that makes login roles. A broker never imports `manager`.
"""

from authz.leases.manager import Lease, LeaseManager, LeaseState, LeaseStore
from authz.leases.postgresql import PostgresqlBroker
from authz.leases.protocol import (
    BrokerError,
    LeaseOrder,
    NothingMadeError,
    NotRemovedError,
    SecretBroker,
    UnreachableError,
)

__all__ = [
    "BrokerError",
    "Lease",
    "LeaseManager",
    "LeaseOrder",
    "LeaseState",
    "LeaseStore",
    "NotRemovedError",
    "NothingMadeError",
    "PostgresqlBroker",
    "SecretBroker",
    "UnreachableError",
]
