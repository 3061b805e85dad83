"""Leases: secrets of systems that accept no tokens, made for one task and removed when the task ends.

`manager` has the life of a lease: it makes the secret of a committed record (`lease`). `due` remembers which leases have ended,
`removal` stops and removes their secrets on the threads of `pools`, and `orphans` finds secrets without a lease. `counts` has the
counters and errors of each broker, which `status` shows. `pauses` are the times between attempts.

`protocol` is the interface of a broker, and `postgresql` is the broker that makes login roles. A broker imports `protocol` alone.
"""

from authz.leases.lease import Lease, LeaseState, LeaseStore
from authz.leases.manager import LeaseManager
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
