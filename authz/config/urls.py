"""URLs that keys are fetched from."""

import ipaddress
from typing import Final
from urllib.parse import urlsplit

__all__ = ["host_of", "loopback_host", "shown", "url_defect"]

_MAX_BYTES: Final = 2048
_NEVER: Final = frozenset('"<>\\^`{|}\x7f')


def url_defect(url: str, *, plain: bool = False) -> str | None:
    """Return why a URL may not be fetched; `None` if it may.

    Args:
        url: The URL.
        plain: `http` to loopback is permitted.
    """
    defect: str | None = None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if len(url) > _MAX_BYTES or not url.isascii() or any(c <= " " or c in _NEVER for c in url):
        defect = "is not a URL"
    elif not host or port == 0:
        defect = "is not a URL with a host"
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
    """Return whether a host is a loopback address or `localhost`, without a look-up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def shown(url: str) -> str:
    """Return a URL without user, query and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
