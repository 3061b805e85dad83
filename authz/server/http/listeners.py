"""The HTTP listeners of a node, and the groups of endpoints that each serves.

A new group of endpoints is a module with a function from `HttpContext` to endpoints, and an entry of `_GROUPS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from authz.config import Config
from authz.engine import reason_table
from authz.server.http import observation
from authz.server.http.endpoints import Endpoint, application
from authz.server.http.oauth import ClientAuthenticator, OAuthApp, OAuthSettings, OAuthUrls
from authz.server.http.server import WebServer, WebSettings
from authz.server.issuing import CredentialIssuer
from authz.server.runtime_state import RuntimeState
from authz.server.status.readiness import Readiness
from authz.signing import KeyRing
from authz.telemetry import Metrics

__all__ = ["HttpContext", "open_http_listeners"]

_PUBLIC_MEMBERS: Final = ("public_code", "next_action", "retry", "public_message")


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


_GROUPS: Final[Mapping[str, tuple[Group, ...]]] = {
    "metrics": (_observation,),
    "http": (_oauth,),
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
    servers = []
    for settings in _settings(context.config):
        endpoints = [point for group in _GROUPS[settings.name] for point in group(context)]
        if endpoints:
            server = WebServer(settings, application(endpoints))
            opened(server)
            servers.append(server)
    return tuple(servers)


def _settings(config: Config) -> Sequence[WebSettings]:
    metrics, http = config.listeners.metrics, config.listeners.http
    settings = []
    if metrics is not None:
        settings.append(WebSettings("metrics", metrics.address, metrics.tls))
    if http is not None:
        limits = (http.max_connections, http.timeout)
        settings.append(WebSettings("http", http.address, http.tls, *limits))
    return settings
