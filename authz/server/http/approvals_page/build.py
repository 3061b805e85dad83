"""Builds the page from the configuration."""

import time
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

from authz.approvals import ApprovalHub, ApprovalStore, Invitations
from authz.approvals.card import CardReferences
from authz.config import Config
from authz.server.http.approvals_page.live import LiveChanges
from authz.server.http.approvals_page.openid import OpenIdClient, OpenIdSettings
from authz.server.http.approvals_page.page import ApprovalsPage
from authz.server.http.approvals_page.parts import PageParts, PageSettings
from authz.server.http.approvals_page.passkeys import Passkeys, PasskeySettings
from authz.server.http.approvals_page.protection import origin_of
from authz.server.http.approvals_page.rendering import Renderer
from authz.server.http.approvals_page.requests import Cookies
from authz.server.http.approvals_page.sessions import Sessions
from authz.telemetry import Logger
from authz.trust import FetchDocument, SourceKey, discovery_request
from authz_client.v1 import approvals_pb2

__all__ = ["build_page"]


def build_page(
    config: Config,
    store: ApprovalStore,
    hub: ApprovalHub,
    invitations: Invitations,
    *,
    get: FetchDocument,
    keys: Callable[[SourceKey], str | None],
    counted: Callable[[str, int], None],
    failed: Callable[[BaseException], None],
    log: Logger,
    references: Callable[[approvals_pb2.Approval], CardReferences] = lambda _: CardReferences(),
    clock: Callable[[], float] = time.time,
) -> ApprovalsPage:
    """Build the page of a configuration that has the listener `approvals`.

    Args:
        config: The configuration.
        store: Keeps approvals and passkeys.
        hub: Source of changes of approvals.
        invitations: Open invitations.
        get: Fetches documents of issuers.
        keys: Returns the keys of an issuer in use.
        counted: Called with the name of the handler and the HTTP status of each response.
        failed: Receives every unexpected exception.
        log: Receives logins, and changes of passkeys.
        references: Returns the values with which a card compares the values of a call.
        clock: Unix time.
    """
    url, listener = config.approvals.base_url, config.listeners.approvals
    limits = (listener.max_body_bytes, listener.timeout) if listener is not None else ()
    sessions = Sessions()
    most_streams = listener.max_connections // 2 if listener is not None else 0
    parts = PageParts(
        settings=PageSettings(url, urlsplit(url).path, *limits),
        store=store,
        sessions=sessions,
        live=LiveChanges(hub, sessions, most_streams),
        renderer=Renderer(urlsplit(url).path),
        cookies=Cookies(is_secure=url.startswith("https:")),
        invitations=invitations,
        openid=_build_openid(config, get, keys, clock),
        passkeys=_build_passkeys(config, store, clock),
        counted=counted,
        failed=failed,
        log=log,
        references=references,
        clock=clock,
    )
    return ApprovalsPage(parts)


def _build_openid(
    config: Config,
    get: FetchDocument,
    keys: Callable[[SourceKey], str | None],
    clock: Callable[[], float],
) -> OpenIdClient | None:
    login = config.approvals.login
    if login is None:
        return None
    issuer, key = config.trust.issuers[login.issuer], SourceKey("issuer", login.issuer)
    settings = OpenIdSettings(
        alias=login.issuer,
        issuer=issuer.issuer,
        algorithms=issuer.algorithms,
        claims=issuer.claims,
        client_id=login.client_id,
        client_secret_file=login.client_secret_file,
        scopes=login.scopes,
        redirect_uri=f"{config.approvals.base_url}/login/callback",
        description=replace(
            discovery_request(issuer, config.trust.refresh), accept="application/json"
        ),
        leeway=config.trust.leeway,
    )
    return OpenIdClient(settings, get, lambda: keys(key), clock)


def _build_passkeys(
    config: Config, store: ApprovalStore, clock: Callable[[], float]
) -> Passkeys | None:
    passkeys = config.approvals.passkeys
    if passkeys is None:
        return None
    settings = PasskeySettings(passkeys.rp_id, passkeys.name, origin_of(config.approvals.base_url))
    return Passkeys(settings, store, frozenset(config.trust.issuers), clock)
