"""The server: one node, from its configuration to its end.

`node` runs a node: its services start, wait for signals and stop. `build` makes the parts: `runtime_state` (bundle, keys and
recipient lists that serve) over the engine, `grpc`, `fast` and `http` (listeners), `issuing` with `lease_records` and
`static_secrets` (credentials), `recipient_list_fetch`, `file_watch`, `sweep` and `connections` (in the background), and `status`
(reports). None of them imports `build` or `node`.
"""

import os

# The transport writes a line to standard error for each call that it refuses, so that a caller could fill the disk. Before grpcio
# is imported; who looks for a fault of the transport sets another one.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from authz.server.node import Node

__all__ = ["Node"]
