"""`listeners`: addresses that are served."""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from authz.config.addresses import host_and_port, socket_path
from authz.config.document import Path
from authz.config.findings import Finding
from authz.config.types import Address, Duration, FilePath, Strict

__all__ = [
    "AdminListener",
    "ApprovalsListener",
    "DecisionListener",
    "HttpApiListener",
    "Lane",
    "Listener",
    "Listeners",
    "MetricsListener",
    "Tls",
    "WebListener",
    "listener_findings",
]

_LISTENER: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_MAX_SOCKET_PATH: Final = 100


class Tls(Strict):
    """TLS of a listener."""

    cert_file: FilePath | None = None
    """Certificate chain, PEM."""
    key_file: FilePath | None = None
    """Private key, PEM."""
    client_ca_file: FilePath | None = None
    """Authorities of client certificates, PEM: callers must show a certificate that one of them signed. On a listener of decisions it must be an
    X.509-SVID of a trust domain; it is verified again on each call against the authorities of that domain, and is the identity of the
    caller.
    """


class Listener(Strict):
    """An address that is served."""

    address: Address
    """`host:port` or `unix:///path`."""
    tls: Tls | None = None
    """TLS; needed on TCP unless `insecure_dev`."""

    @property
    def is_mutual(self) -> bool:
        """Callers must show a certificate."""
        return self.tls is not None and self.tls.client_ca_file is not None


class Lane(StrEnum):
    """Server that answers."""

    PYTHON = "python"
    FAST = "fast"


class DecisionListener(Listener):
    """An address that answers decisions: `authz.v1.Authorizer` and Envoy's `Authorization`."""

    lane: Lane = Lane.PYTHON
    """`python` answers everything, `fast` only Check, Report and Envoy's Check, at a fraction of the cost; for a front end
    that is known by its user (`uids`) also Tasks.Start and Tasks.Extend."""
    insecure_dev: bool = False
    """Plain TCP on loopback, for development: every caller may ask about every system."""


class AdminListener(Listener):
    """Status, Reload and Explain; a unix socket that only its owner can open."""


class MetricsListener(Listener):
    """HTTP: `/metrics`, `/healthz`, `/readyz`."""


class WebListener(Listener):
    """An address that answers HTTP, with bounds of its own."""

    insecure_dev: bool = False
    """Plain HTTP on loopback, for development: tokens travel in plain text, and no client can show a certificate."""
    max_body_bytes: int = Field(default=262_144, ge=4096, le=8_388_608)
    """Largest body of a request. A larger one: 413."""
    max_connections: int = Field(default=256, ge=1, le=65_536)
    """Connections at once. One more closes the oldest whose request is not complete; if all are complete: 429."""
    timeout: Annotated[Duration, Field(ge=0.1, le=60)] = 5.0
    """A request whose headers and body have not arrived by then is refused: 408."""


class HttpApiListener(WebListener):
    """HTTP endpoints of the task credentials (keys, metadata, token exchange, introspection, revocation), and of security events."""


class ApprovalsListener(WebListener):
    """The page where people answer approvals."""


class Listeners(BaseModel):
    """Addresses, by name; `admin`, `metrics`, `approvals` and `http` have a fixed meaning, all others answer decisions."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    __pydantic_extra__: dict[str, DecisionListener] = Field(init=False)

    admin: AdminListener | None = None
    """Administration, on a unix socket."""
    metrics: MetricsListener | None = MetricsListener(address="127.0.0.1:8282")
    """Metrics and health over HTTP. `null`: none."""
    approvals: ApprovalsListener | None = None
    """The page where people answer approvals, over HTTP. Default: there is none."""
    http: HttpApiListener | None = None
    """JWKS, token exchange, introspection, revocation and security events over HTTP."""

    @property
    def decisions(self) -> dict[str, DecisionListener]:
        """The listeners that answer decisions."""
        return dict(self.__pydantic_extra__)


def listener_findings(
    listeners: Listeners, *, has_domains: bool, has_credentials: bool, has_transmitters: bool
) -> Iterator[Finding]:
    """Yield errors of `listeners` that the types cannot express."""
    served_listeners: dict[str, Listener] = {**listeners.decisions}
    if not served_listeners:
        yield Finding(
            ("listeners",),
            "no listener answers decisions.",
            "Add one, for example `main: {address: 127.0.0.1:9191, tls: {...}}`.",
        )
    for name, listener in listeners.decisions.items():
        path: Path = ("listeners", name)
        if not _LISTENER.fullmatch(name):
            yield Finding(
                path, f"`{name}` is not a valid name of a listener.", "Use lower-case letters."
            )
        yield from _decision_listener(path, name, listener, has_domains=has_domains)
    if listeners.admin is not None:
        served_listeners["admin"] = listeners.admin
        if socket_path(listeners.admin.address) is None:
            yield Finding(
                ("listeners", "admin", "address"),
                "the `admin` listener is not a unix socket: any caller that reaches it could reload.",
                "Use `unix:///run/authz/admin.sock`.",
            )
    if listeners.metrics is not None:
        served_listeners["metrics"] = listeners.metrics
    if listeners.http is not None:
        served_listeners["http"] = listeners.http
        yield from _http(listeners.http, serves=has_credentials or has_transmitters)
    if listeners.approvals is not None:
        served_listeners["approvals"] = listeners.approvals
        yield from _plain(("listeners", "approvals"), "approvals", listeners.approvals)
    yield from _addresses(served_listeners)


def _addresses(served_listeners: Mapping[str, Listener]) -> Iterator[Finding]:
    addresses: dict[str, str] = {}
    for name, served in served_listeners.items():
        path: Path = ("listeners", name)
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
            f"`{address}` is not a valid address.",
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


def _decision_listener(
    path: Path, name: str, listener: DecisionListener, *, has_domains: bool
) -> Iterator[Finding]:
    tcp = host_and_port(listener.address)
    yield from _plain(path, name, listener)
    if tcp is None:
        return
    if listener.is_mutual and not has_domains:
        yield Finding(
            (*path, "tls", "client_ca_file"),
            f"listener `{name}` asks for certificates, but no trust domain is configured. Every caller would be refused.",
            "Add trust.domains with the SPIFFE bundle of the callers' trust domain.",
        )
    if listener.lane is Lane.FAST and tcp[1] == 0 and listener.tls is not None:
        yield Finding((*path, "address"), f"listener `{name}` needs a fixed port.", "Choose one.")


def _http(listener: HttpApiListener, *, serves: bool) -> Iterator[Finding]:
    path: Path = ("listeners", "http")
    if not serves:
        yield Finding(
            path,
            "listener `http` is given, but neither `credentials` nor `shared_signals` is: it would serve nothing.",
            "Add credentials: {issuer: https://...}, or remove the listener.",
        )
    yield from _plain(path, "http", listener)


def _plain(path: Path, name: str, listener: DecisionListener | WebListener) -> Iterator[Finding]:
    """Yield errors of plain TCP, and of `insecure_dev` where it has no meaning."""
    tcp = host_and_port(listener.address)
    http = isinstance(listener, WebListener)
    if tcp is None:
        if listener.insecure_dev:
            yield Finding(
                (*path, "insecure_dev"),
                f"listener `{name}` is a unix socket and has `insecure_dev`.",
                "Remove insecure_dev."
                if http
                else "Remove insecure_dev, and name the enforcer under `enforcers`.",
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
                + (
                    "Tokens would travel in plain text."
                    if http
                    else "Anyone on the network could ask about every system."
                ),
                "Use 127.0.0.1 or [::1], or set tls.",
            )
    elif listener.tls is None:
        yield Finding(
            path,
            f"listener `{name}` is TCP without `tls`. Credentials would travel in plain text, "
            "and callers would have no identity.",
            "Add tls: {cert_file: ..., key_file: ...}; or, on loopback for development, insecure_dev: true.",
        )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # A name could resolve to anything, and to something else tomorrow.
        return False
