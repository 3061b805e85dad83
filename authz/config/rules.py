"""What a configuration must not say: half-configured security, and what would let anyone in."""

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from authz.config.document import Path
from authz.config.schema import (
    Config,
    DecisionListener,
    Enforcer,
    Issuer,
    Lane,
    Listener,
    MetricsListener,
    Tls,
)

__all__ = ["Finding", "findings", "host_and_port", "socket_path"]

_ALGORITHMS: Final = (
    "RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA".split()  # noqa: SIM905 - read as a line
)
_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_LISTENER: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_ALIAS: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SYSTEM: Final = re.compile(r"system:(\*|[A-Za-z0-9_-]{1,128})")
_MAX_PORT: Final = 65_535
_MAX_SOCKET_PATH: Final = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect of a configuration that has the right shape."""

    path: Path
    """Where."""
    what: str
    """What is wrong, and what would follow."""
    mend: str
    """How to mend it."""


def socket_path(address: str) -> str | None:
    """Tell the path of a unix-socket address.

    Args:
        address: As configured.

    Returns:
        The path; none for TCP.
    """
    return address.removeprefix("unix://") if address.startswith("unix://") else None


def host_and_port(address: str) -> tuple[str, int] | None:
    """Split a TCP address.

    Args:
        address: `host:port` or `[::1]:port`.

    Returns:
        Host without brackets, and port; none where it is no such address.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
        return None
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    return (host, int(port)) if host else None


def findings(config: Config) -> Iterator[Finding]:
    """Find every defect that the types cannot say.

    Args:
        config: A configuration of the right shape.

    Yields:
        Each defect.
    """
    yield from _trust(config)
    yield from _listeners(config)
    yield from _enforcers(config)


def _trust(config: Config) -> Iterator[Finding]:
    for name in config.trust.domains:
        if not _DOMAIN.fullmatch(name):
            yield Finding(
                ("trust", "domains", name),
                f"`{name}` is no SPIFFE trust domain.",
                "Use lower-case letters, digits, dots, dashes and underscores, without `spiffe://`.",
            )
    if config.trust.domains and not config.identity.audiences:
        yield Finding(
            ("trust", "domains"),
            "trust domains are configured, but `identity.audiences` is empty: every JWT-SVID would be refused.",
            "Add the audience that agents ask for: `identity: {audiences: [...]}`.",
        )
    seen: dict[str, str] = {}
    for alias, issuer in config.trust.issuers.items():
        if not _ALIAS.fullmatch(alias):
            yield Finding(
                ("trust", "issuers", alias),
                f"`{alias}` is no alias of an issuer.",
                "Use letters, digits, dots, dashes and underscores.",
            )
        yield from _issuer(("trust", "issuers", alias), alias, issuer)
        if issuer.issuer in seen:
            yield Finding(
                ("trust", "issuers", alias, "issuer"),
                f"issuers `{seen[issuer.issuer]}` and `{alias}` have the same `iss`.",
                "Keep one: which profile counts would be chance.",
            )
        seen[issuer.issuer] = alias


def _issuer(path: Path, alias: str, issuer: Issuer) -> Iterator[Finding]:
    if not issuer.audience:
        yield Finding(
            path,
            f"issuer `{alias}` has no audience. A token for any service would be accepted.",
            "Add audience: [...].",
        )
    if not issuer.algorithms:
        yield Finding(
            path,
            f"issuer `{alias}` has no algorithms. The token itself would choose.",
            "Add algorithms: [ES256], or what the issuer signs with.",
        )
    for index, algorithm in enumerate(issuer.algorithms):
        if algorithm not in _ALGORITHMS:
            yield Finding(
                (*path, "algorithms", index),
                f"`{algorithm}` is no signature algorithm that is accepted.",
                f"Use one of {', '.join(_ALGORITHMS)}.",
            )


def _listeners(config: Config) -> Iterator[Finding]:
    named: dict[str, Listener] = {**config.listeners.decisions}
    if not named:
        yield Finding(
            ("listeners",),
            "no listener answers decisions.",
            "Add one, for example `main: {address: 127.0.0.1:9191, tls: {...}}`.",
        )
    for name, listener in config.listeners.decisions.items():
        path: Path = ("listeners", name)
        if not _LISTENER.fullmatch(name):
            yield Finding(path, f"`{name}` is no name of a listener.", "Use lower-case letters.")
        yield from _decision_listener(path, name, listener)
    if config.listeners.admin is not None:
        named["admin"] = config.listeners.admin
        if socket_path(config.listeners.admin.address) is None:
            yield Finding(
                ("listeners", "admin", "address"),
                "the `admin` listener is not a unix socket: whoever reaches it could reload.",
                "Use `unix:///run/authz/admin.sock`.",
            )
    if config.listeners.metrics is not None:
        named["metrics"] = config.listeners.metrics
    addresses: dict[str, str] = {}
    for name, served in named.items():
        path = ("listeners", name)
        yield from _address((*path, "address"), name, served.address)
        yield from _tls((*path, "tls"), name, served)
        fixed = not served.address.endswith(":0")
        if fixed and served.address in addresses:
            yield Finding(
                (*path, "address"),
                f"listeners `{addresses[served.address]}` and `{name}` have the same address.",
                "Give each its own.",
            )
        addresses[served.address] = name


def _address(path: Path, name: str, address: str) -> Iterator[Finding]:
    socket = socket_path(address)
    if socket is not None:
        if len(socket.encode()) > _MAX_SOCKET_PATH:
            yield Finding(
                path, f"the socket path of `{name}` is too long.", "Use at most 100 bytes."
            )
    elif address.startswith("unix-abstract:"):
        yield Finding(
            path,
            f"listener `{name}` is an abstract socket, which has no file mode: anyone could open it.",
            "Use `unix:///path`.",
        )
    elif host_and_port(address) is None:
        yield Finding(
            path,
            f"`{address}` is no address.",
            "Use `host:port`, `[::1]:port` or `unix:///path`.",
        )


def _tls(path: Path, name: str, listener: Listener) -> Iterator[Finding]:
    tls = listener.tls
    if tls is None:
        return
    if socket_path(listener.address) is not None:
        yield Finding(path, f"listener `{name}` is a unix socket and has `tls`.", "Remove `tls`.")
    if tls.cert_file is not None and tls.key_file is None:
        yield Finding(
            path,
            f"listener `{name}` has a certificate without a key. It could not serve TLS.",
            "Add key_file.",
        )
    if tls.key_file is not None and tls.cert_file is None:
        yield Finding(
            path,
            f"listener `{name}` has a key without a certificate. It could not serve TLS.",
            "Add cert_file.",
        )
    if tls == Tls() or (tls.cert_file is None and tls.key_file is None):
        yield Finding(
            path,
            f"listener `{name}` has `tls` without a certificate. It would serve plain text.",
            "Add cert_file and key_file.",
        )
    if isinstance(listener, MetricsListener) and tls.client_ca_file is not None:
        yield Finding(
            (*path, "client_ca_file"),
            "client certificates on the metrics listener are not in this version.",
            "Remove client_ca_file; bind it to loopback instead.",
        )


def _decision_listener(path: Path, name: str, listener: DecisionListener) -> Iterator[Finding]:
    tcp = host_and_port(listener.address)
    if tcp is None:
        if listener.insecure_dev:
            yield Finding(
                (*path, "insecure_dev"),
                f"listener `{name}` is a unix socket and has `insecure_dev`.",
                "Remove insecure_dev, and name the enforcer under `enforcers`.",
            )
        return
    if listener.insecure_dev:
        if listener.tls is not None:
            yield Finding(
                (*path, "insecure_dev"),
                f"listener `{name}` has both `tls` and `insecure_dev`.",
                "Keep tls.",
            )
        if not _loopback(tcp[0]):
            yield Finding(
                (*path, "insecure_dev"),
                f"listener `{name}` is `insecure_dev` on `{tcp[0]}`, which is not loopback. "
                "Anyone on the network could ask about every system.",
                "Use 127.0.0.1 or [::1], or set tls.",
            )
    elif listener.tls is None:
        yield Finding(
            path,
            f"listener `{name}` is TCP without `tls`. Credentials would travel in plain text, "
            "and callers would have no identity.",
            "Add tls: {cert_file: ..., key_file: ...}; or, on loopback for development, insecure_dev: true.",
        )
    if listener.lane is Lane.FAST and tcp[1] == 0 and listener.tls is not None:
        yield Finding((*path, "address"), f"listener `{name}` needs a fixed port.", "Choose one.")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # A name could resolve to anything, and to something else tomorrow.
        return False


def _enforcers(config: Config) -> Iterator[Finding]:
    taken: dict[str, str] = {}
    names: set[str] = set()
    for index, enforcer in enumerate(config.enforcers):
        path: Path = ("enforcers", index)
        if enforcer.name in names:
            yield Finding(path, f"enforcer `{enforcer.name}` is named twice.", "Rename one.")
        names.add(enforcer.name)
        yield from _asks(path, enforcer)
        if enforcer.listener is None:
            yield Finding(
                path,
                f"enforcer `{enforcer.name}` has no listener. Nobody could be it.",
                "Add listener: the name of a unix-socket listener.",
            )
            continue
        listener = config.listeners.decisions.get(enforcer.listener)
        if listener is None:
            known = ", ".join(sorted(config.listeners.decisions)) or "none"
            yield Finding(
                (*path, "listener"),
                f"enforcer `{enforcer.name}` names listener `{enforcer.listener}`, which does not exist.",
                f"Declared: {known}.",
            )
        elif host_and_port(listener.address) is not None:
            yield Finding(
                (*path, "listener"),
                f"enforcer `{enforcer.name}` is bound to `{enforcer.listener}`, which is not a unix socket. "
                "Whoever reaches the port would be that enforcer.",
                "Use a unix-socket listener; the mode of its folder says who may open it.",
            )
        elif enforcer.listener in taken:
            yield Finding(
                (*path, "listener"),
                f"enforcers `{taken[enforcer.listener]}` and `{enforcer.name}` share a listener.",
                "Give each its own socket.",
            )
        taken[enforcer.listener] = enforcer.name


def _asks(path: Path, enforcer: Enforcer) -> Iterator[Finding]:
    if not enforcer.asks:
        yield Finding(
            path,
            f"enforcer `{enforcer.name}` may ask about no system.",
            'Add asks: ["system:crm"], or ["system:*"] for all.',
        )
    for index, asked in enumerate(enforcer.asks):
        if not _SYSTEM.fullmatch(asked):
            yield Finding(
                (*path, "asks", index),
                f"`{asked}` names no system.",
                'Write "system:crm", or "system:*" for all.',
            )
