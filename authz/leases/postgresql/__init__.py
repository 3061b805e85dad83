"""The broker that makes one login role of a PostgreSQL server for each lease.

`broker` is the interface to the lease manager. Of one lease, `role_creation` makes the role with its grants (`role_grants`) and
its password (`scram`), `role_end` ends its access, and `stopped_roles` removes it with its objects (`role_removal`).
`server_inspection` reads the settings of the server.

All of them use `connections` to the `server_address`, know their roles by `role_marks`, and repeat disturbed work by `retries`.
"""

from authz.leases.postgresql.broker import PostgresqlBroker

__all__ = ["PostgresqlBroker"]
