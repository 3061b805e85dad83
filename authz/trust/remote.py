"""Trust sources that are fetched: key sets, discovery, bundle endpoints, the Workload API."""

import ipaddress
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from authz.config import (
    BundleProfile,
    BundleSource,
    Config,
    Issuer,
    KeySource,
    Refresh,
    TrustSource,
)
from authz.config.urls import host_of
from authz.errors import ConfigError
from authz.files import reason_of
from authz.model import Diagnostic
from authz.trust.addresses import Reach
from authz.trust.fetch import Document, FetchError, FetchRequest, WebVerifier
from authz.trust.sources import SourceKey, discovery_url, place_of, read_document
from authz.trust.spiffe import SpiffeVerifier, authorities_of, has_workload_api, workload_bundle

__all__ = [
    "CurrentDocument",
    "Document",
    "FetchDocument",
    "RemoteSource",
    "described_request",
    "discovery_request",
    "read_description",
    "remote_sources",
]

_MAX_NAME: Final = 100
_LONGEST_HINT: Final = 1 << 31

CurrentDocument = Callable[[SourceKey], str | None]
"""Returns the keys of a source that are in use."""
FetchDocument = Callable[[FetchRequest], Document]
"""Fetches a document; raises FetchError."""


@dataclass(frozen=True, slots=True)
class RemoteSource:
    """A source that is fetched."""

    key: SourceKey
    """The source."""
    place: str
    """Its URL or socket, for messages."""
    refresh: Refresh
    """Intervals of the refresh."""
    fetch: Callable[[CurrentDocument], Document]
    """Fetches the document; raises FetchError."""


def remote_sources(config: Config, get: FetchDocument) -> tuple[RemoteSource, ...]:
    """Return every configured trust source that is fetched.

    Raises:
        ConfigError: A source needs an extra that is not installed.
    """
    common, sources = config.trust.refresh, []
    for name, domain in config.trust.domains.items():
        key, bundle = SourceKey("domain", name), domain.bundle
        refresh = bundle.refresh.over(common)
        if bundle.url is not None:
            request = _request(bundle.url, bundle, refresh)
            sources.append(_source(config, key, refresh, _endpoint(get, key, request, bundle)))
        elif bundle.workload_api is not None:
            fetch = _workload(name, bundle.workload_api, refresh.timeout)
            sources.append(_source(config, key, refresh, fetch))
    for alias, issuer in config.trust.issuers.items():
        key, jwks = SourceKey("issuer", alias), issuer.jwks
        refresh = jwks.refresh.over(common)
        if jwks.file is None:
            sources.append(_source(config, key, refresh, _keys(get, issuer.issuer, jwks, refresh)))
    return tuple(sources)


def _source(
    config: Config, key: SourceKey, refresh: Refresh, fetch: Callable[[CurrentDocument], Document]
) -> RemoteSource:
    return RemoteSource(key, place_of(config, key), refresh, fetch)


def _request(url: str, source: TrustSource, refresh: Refresh) -> FetchRequest:
    reach = Reach(
        private=source.allow_private,
        networks=tuple(ipaddress.ip_network(network) for network in source.allow_networks),
        loopback_only=source.insecure_dev,
    )
    return FetchRequest(url, reach, WebVerifier(source.ca_file), refresh.timeout)


def _keys(
    get: FetchDocument, issuer: str, source: KeySource, refresh: Refresh
) -> Callable[[CurrentDocument], Document]:
    if source.url is not None:
        request = _request(source.url, source, refresh)
        return lambda _: _document(get(request))
    request = _request(discovery_url(issuer), source, refresh)

    def discover(_: CurrentDocument) -> Document:
        return _document(get(_described_keys(get(request), issuer, request)))

    return discover


def discovery_request(issuer: Issuer, common: Refresh) -> FetchRequest:
    """Return the request for the description of an issuer (OpenID Connect Discovery §4), with the rules of its keys.

    Args:
        issuer: The issuer.
        common: Intervals of all sources.
    """
    return _request(discovery_url(issuer.issuer), issuer.jwks, issuer.jwks.refresh.over(common))


def read_description(described: Document, issuer: str) -> dict[str, Any]:
    """Read the description of an issuer; raises FetchError unless it is exactly this issuer's."""
    try:
        description = read_object(described.text)
    except FetchError as error:
        raise FetchError(f"its description: {error}") from error
    name = description.get("issuer")
    if name != issuer:
        other = f"`{name[:_MAX_NAME]}`" if isinstance(name, str) else "none"
        raise FetchError(f"its description is that of another issuer: {other}, not `{issuer}`")
    return description


def _described_keys(described: Document, issuer: str, request: FetchRequest) -> FetchRequest:
    return described_request(read_description(described, issuer), "jwks_uri", request)


def described_request(
    description: dict[str, Any], member: str, request: FetchRequest
) -> FetchRequest:
    """Return the request for an endpoint that the description of an issuer names.

    Args:
        description: The description.
        member: Its member, for example `jwks_uri`.
        request: The request for the description.

    Raises:
        FetchError: The description does not name it.
    """
    url = description.get(member)
    if not isinstance(url, str):
        raise FetchError(f"its description has no `{member}`")
    reach = request.reach
    # The description may name any host. Private addresses are permitted only for the host of the configuration.
    if host_of_or_none(url) != host_of(request.url):
        reach = replace(reach, private=False)
    return replace(request, url=url, reach=reach)


def host_of_or_none(url: str) -> str | None:
    """Return the host of a URL; `None` for any other text."""
    try:
        return host_of(url) or None
    except ValueError:
        return None


def _endpoint(
    get: FetchDocument, key: SourceKey, request: FetchRequest, source: BundleSource
) -> Callable[[CurrentDocument], Document]:
    endpoint = source.endpoint_spiffe_id
    if source.profile is BundleProfile.HTTPS_WEB or endpoint is None:
        return lambda _: _bundle(get(request))
    owner = SourceKey("domain", endpoint.split("/")[2])

    def fetch(current: CurrentDocument) -> Document:
        authorities = authorities_of(current(owner) or "")
        if not authorities and owner == key and source.bootstrap_file is not None:
            authorities = authorities_of(_read(source.bootstrap_file))
        return _bundle(get(replace(request, tls=SpiffeVerifier(endpoint, authorities))))

    return fetch


def _read(file: str) -> str:
    try:
        return read_document(file)
    except (OSError, ValueError) as error:
        raise FetchError(f"`bootstrap_file` {file} cannot be read: {reason_of(error)}") from error


def _workload(domain: str, socket: str, timeout: float) -> Callable[[CurrentDocument], Document]:
    if not has_workload_api():
        what = f"`workload_api` of trust domain `{domain}` needs the extra `workload`."
        raise ConfigError((Diagnostic(what, fix="pip install 'authz-runtime[workload]'."),))
    # The agent of this machine is asked as often as the configuration allows, since that costs nothing.
    return lambda _: Document(workload_bundle(socket, domain, timeout), 0.0)


def _document(document: Document) -> Document:
    """Return a document that is a JSON object; raises FetchError for any other."""
    read_object(document.text)
    return document


def _bundle(document: Document) -> Document:
    """Return a bundle. How long it is fresh, it says itself (SPIFFE Trust Domain and Bundle §4.1.2)."""
    hint = read_object(document.text).get("spiffe_refresh_hint")
    if isinstance(hint, int) and not isinstance(hint, bool) and hint >= 0:
        return replace(document, fresh_for=float(min(hint, _LONGEST_HINT)))
    return document


def read_object(text: str) -> dict[str, Any]:
    """Read a JSON object without duplicate members; raises FetchError for any other text."""

    def pairs(listed: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(listed)
        if len(members) != len(listed):
            raise FetchError("a member occurs twice")
        return members

    try:
        value = json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise FetchError("the answer is not JSON") from error
    if not isinstance(value, dict):
        raise FetchError("the answer is not a JSON object")
    return value
