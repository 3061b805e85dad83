"""The HTTP listeners of a node, and the groups of endpoints that each serves.

A new group of endpoints is a module with a function from `HttpContext` to endpoints, and an entry of `_GROUPS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from authz.approvals import ApprovalHub, ApprovalStore, Invitations
from authz.config import Config
from authz.engine import reason_table
from authz.server.card_references import ServedReferences
from authz.server.http import observation
from authz.server.http.endpoints import Endpoint, application
from authz.server.http.oauth import ClientAuthenticator, OAuthApp, OAuthSettings, OAuthUrls
from authz.server.http.server import App, WebServer, WebSettings
from authz.server.issuing import CredentialIssuer
from authz.server.runtime_state import RuntimeState
from authz.server.status.readiness import Readiness
from authz.signing import KeyRing
from authz.telemetry import Logger, Metrics
from authz.trust import FetchDocument

if TYPE_CHECKING:
    from authz.server.http.shared_signals import SignalReceiver

__all__ = ["ApprovalParts", "HttpContext", "open_http_listeners"]

_PUBLIC_MEMBERS: Final = ("public_code", "next_action", "retry", "public_message")


@dataclass(frozen=True, slots=True)
class ApprovalParts:
    """The parts of a node that the approvals page uses."""

    store: ApprovalStore
    """Keeps approvals and passkeys."""
    hub: ApprovalHub
    """Tells changes."""
    references: ServedReferences
    """Values with which cards are compared."""
    invitations: Invitations
    """Open invitations."""
    get: FetchDocument
    """Fetches documents of the issuer at which people log in."""
    log: Logger
    """Gets logins, and changes of passkeys."""


@dataclass(frozen=True, slots=True)
class HttpContext:
    """The parts of a node that endpoints use."""

    config: Config
    runtime: RuntimeState
    readiness: Readiness
    metrics: Metrics
    failed: Callable[[BaseException], None]
    """Receives every unexpected exception."""
    keys: KeyRing | None
    """The keys that sign credentials. `None`: none are issued."""
    issuer: CredentialIssuer | None
    """Issues credentials. `None`: none are issued."""
    approvals: ApprovalParts | None = None
    """Approvals. `None`: the node has no page."""
    signals: "SignalReceiver | None" = None
    """Takes security events. `None`: the node has no transmitters."""


Group = Callable[[HttpContext], Sequence[Endpoint]]
"""Returns the endpoints of one module; none if the configuration does not ask for them."""


def _observation(context: HttpContext) -> Sequence[Endpoint]:
    return observation.endpoints(context.metrics.render, context.readiness)


def _oauth(context: HttpContext) -> Sequence[Endpoint]:
    config = context.config
    listener, credentials = config.listeners.http, config.credentials
    if listener is None or credentials is None or context.keys is None or context.issuer is None:
        return ()
    public = {
        row["name"]: {member: row[member] for member in _PUBLIC_MEMBERS} for row in reason_table()
    }
    urls = OAuthUrls(credentials.issuer)
    app = OAuthApp(
        urls,
        ClientAuthenticator(urls.issuer, urls.token, lambda: context.runtime.snapshot),
        context.keys,
        context.issuer,
        OAuthSettings(
            mutual=listener.is_mutual,
            max_body=listener.max_body_bytes,
            timeout=listener.timeout,
            deadline=config.limits.default_deadline,
        ),
        public=public,
        counted=context.metrics.answered,
        failed=context.failed,
    )
    return app.endpoints()


def _signals(context: HttpContext) -> Sequence[Endpoint]:
    if context.signals is None:
        return ()
    return context.signals.endpoints(context.metrics.answered, context.failed)


_GROUPS: Final[Mapping[str, tuple[Group, ...]]] = {
    "metrics": (_observation,),
    "http": (_oauth, _signals),
}


def open_http_listeners(
    context: HttpContext, opened: Callable[[WebServer], object]
) -> tuple[WebServer, ...]:
    """Bind each configured HTTP listener that has endpoints.

    Args:
        context: The parts of the node.
        opened: Called with each listener once it is bound, so that it is closed should a later one fail.

    Raises:
        ConfigError: An address cannot be bound, or TLS not be served.
    """
    apps: list[tuple[WebSettings, App, Callable[[], object] | None]] = []
    for settings in _settings(context.config):
        endpoints = [point for group in _GROUPS[settings.name] for point in group(context)]
        if endpoints:
            apps.append((settings, application(endpoints), None))
    if (page := _page(context)) is not None:
        apps.append(page)
    servers = []
    for settings, app, closing in apps:
        server = WebServer(settings, app, closing)
        opened(server)
        servers.append(server)
    return tuple(servers)


def _page(context: HttpContext) -> tuple[WebSettings, App, Callable[[], object]] | None:
    listener, parts = context.config.listeners.approvals, context.approvals
    if listener is None or parts is None:
        return None
    # Its libraries are large, and most nodes have no page.
    from authz.server.http.approvals_page.build import build_page  # noqa: PLC0415

    page = build_page(
        context.config,
        parts.store,
        parts.hub,
        parts.invitations,
        get=parts.get,
        keys=context.runtime.current,
        counted=context.metrics.answered,
        failed=context.failed,
        log=parts.log,
        references=parts.references,
    )
    limits = (listener.max_connections, listener.timeout)
    settings = WebSettings("approvals", listener.address, listener.tls, *limits)
    return settings, page.application(), page.close


def _settings(config: Config) -> Sequence[WebSettings]:
    metrics, http = config.listeners.metrics, config.listeners.http
    settings = []
    if metrics is not None:
        settings.append(WebSettings("metrics", metrics.address, metrics.tls))
    if http is not None:
        limits = (http.max_connections, http.timeout)
        settings.append(WebSettings("http", http.address, http.tls, *limits))
    return settings
