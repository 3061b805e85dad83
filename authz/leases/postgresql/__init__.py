"""The broker that makes one login role of a PostgreSQL server for each lease.

`broker` is the interface to the lease manager. It reads `dsn`, opens `connections`, grants with `role_grants`, removes with
`role_removal`, and reads the state of the server with `server_inspection`.
"""

from authz.leases.postgresql.broker import PostgresqlBroker

__all__ = ["PostgresqlBroker"]
