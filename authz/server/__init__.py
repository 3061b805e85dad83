"""The server: listeners, the world that serves, and its life from start to stop."""

from authz.server.app import Node

__all__ = ["Node"]
