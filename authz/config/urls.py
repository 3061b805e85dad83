"""URLs that keys are fetched from."""

import ipaddress
from typing import Final
from urllib.parse import urlsplit

__all__ = ["host_of", "loopback_host", "shown", "url_defect"]

_MAX_BYTES: Final = 2048
_NEVER: Final = frozenset('"<>\\^`{|}\x7f')


def url_defect(url: str, *, plain: bool = False) -> str | None:
    """Say why nothing is fetched from a URL.

    Args:
        url: The URL.
        plain: It may be `http`, to loopback.

    Returns:
        What is wrong with it; none where it is well.
    """
    defect: str | None = None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is no URL"
    if len(url) > _MAX_BYTES or not url.isascii() or any(c <= " " or c in _NEVER for c in url):
        defect = "is no URL"
    elif not host or port == 0:
        defect = "is no URL with a host"
    elif "@" in parts.netloc:
        defect = "carries a user or password"
    elif "#" in url:
        defect = "has a fragment"
    elif parts.scheme != "https" and not (parts.scheme == "http" and plain):
        defect = "is not https"
    elif parts.scheme == "http" and not loopback_host(host):
        defect = "is http, and its host is not loopback"
    return defect


def host_of(url: str) -> str:
    """Tell the host of a URL.

    Args:
        url: A URL without defect.

    Returns:
        Its host in lower case, without brackets.
    """
    return urlsplit(url).hostname or ""


def loopback_host(host: str) -> bool:
    """Tell whether a host is this machine, whatever a resolver says.

    Args:
        host: Without brackets.

    Returns:
        Whether it is a loopback address, or `localhost`.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def shown(url: str) -> str:
    """Write a URL so that it may stand in a log: a query may hold a key.

    Args:
        url: A URL.

    Returns:
        It without user, query and fragment.
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
