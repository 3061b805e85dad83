"""Addresses of listeners."""

from typing import Final

__all__ = ["host_and_port", "socket_path"]

_MAX_PORT: Final = 65_535


def socket_path(address: str) -> str | None:
    """Return the path of a unix-socket address; `None` for TCP."""
    return address.removeprefix("unix://") if address.startswith("unix://") else None


def host_and_port(address: str) -> tuple[str, int] | None:
    """Return host, without brackets, and port of `host:port` or `[::1]:port`; `None` for any other text."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
        return None
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    return (host, int(port)) if host else None
