"""Network addresses from which keys may be fetched.

A host name, or its DNS, could point at an internal address: this node would then ask a service that trusts its neighbours. So
only public addresses are asked, unless the configuration permits others.
"""

import ipaddress
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = ["Address", "Network", "Reach", "refusal"]

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
"""An IP address."""
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
"""An IP network."""


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_LOOPBACK: Final = _networks("127.0.0.0/8", "::1/128")
_PRIVATE: Final = _networks(
    "10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"
)
# Further networks of the registries of special-purpose addresses (RFC 6890).
_SPECIAL: Final = _networks(
    "0.0.0.0/8",
    "169.254.0.0/16",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
)
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
# Metadata services hand out the credentials of the machine. No setting permits them.
_METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "100.100.100.200",
        "168.63.129.16",
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "192.0.0.192",
        "fd00:ec2::23",
        "fd00:ec2::254",
        "fd20:ce::254",
    )
)


_METADATA_SERVICE: Final = "a metadata service"
_IS_LOOPBACK: Final = "loopback"
_IS_PRIVATE: Final = "a private address"


@dataclass(frozen=True, slots=True)
class Reach:
    """Addresses that may be asked."""

    private: bool = False
    """Private networks and loopback, beside public addresses."""
    networks: tuple[Network, ...] = ()
    """Further networks, of any kind but metadata services."""
    loopback_only: bool = False
    """Only loopback: without TLS, nothing else proves which server answers."""


def refusal(address: Address, reach: Reach) -> str | None:
    """Return the kind of an address that may not be asked; `None` if it may be asked."""
    address = _inner(address)
    kind = _kind(address)
    if kind is None or kind == _METADATA_SERVICE:
        is_allowed = kind is None
    else:
        is_listed = any(address in network for network in reach.networks)
        is_allowed = is_listed or (reach.private and kind in (_IS_LOOPBACK, _IS_PRIVATE))
    if reach.loopback_only:
        kind, is_allowed = "not loopback", kind == _IS_LOOPBACK
    return None if is_allowed else kind


def _kind(address: Address) -> str | None:
    """Return the kind of an address; `None` for a public one."""
    if address in _METADATA:
        return _METADATA_SERVICE
    if any(address in network for network in _LOOPBACK):
        return _IS_LOOPBACK
    if any(address in network for network in _PRIVATE):
        return _IS_PRIVATE
    if address.is_link_local:
        return "link-local"
    outside = address.version == 6 and address not in _UNICAST
    if outside or any(address in network for network in _SPECIAL):
        return "not a public address"
    return None


def _inner(address: Address) -> Address:
    """Return the IPv4 address inside an IPv6 address, or the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
