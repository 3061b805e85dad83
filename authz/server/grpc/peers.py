"""Peers of a listener: callers by address, and the share of one peer."""

import ipaddress
from urllib.parse import unquote

__all__ = ["has_share", "peer_of_address"]


def has_share(mine: int, everybody: int, most: int) -> bool:
    """Return whether a peer may have one more: half of those that others leave, so that there is always room for another peer."""
    return 2 * (mine + 1) <= most - (everybody - mine)


def peer_of_address(address: str) -> str:
    """Return the peer of an address: the whole address of IPv4, and the network of 64 bits of IPv6.

    All callers of a unix socket are one peer.

    Args:
        address: As grpcio writes it: `ipv4:192.0.2.1:4711`, `ipv6:%5B2001:db8::1%5D:4711`, `unix:…`.
    """
    kind, _, rest = unquote(address).partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return kind
    host = rest.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return kind
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    if isinstance(ip, ipaddress.IPv6Address) and mapped is None:
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(mapped or ip)
