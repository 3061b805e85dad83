"""The server: listeners, the world that serves, and its life from start to stop."""

import os

# The transport writes a line to standard error for each call that it refuses, so that a caller could fill the disk. Before grpcio
# is imported; who looks for a fault of the transport sets another one.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from authz.server.app import Node

__all__ = ["Node"]
