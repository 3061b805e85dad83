"""What a configuration must not say: half-configured security, and what would let anyone in."""

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Final

from authz.config.brokers import broker_findings
from authz.config.document import Path
from authz.config.findings import Finding
from authz.config.schema import (
    BundleProfile,
    BundleSource,
    Config,
    Credentials,
    DecisionListener,
    Enforcer,
    HttpApiListener,
    Issuer,
    Lane,
    Listener,
    MetricsListener,
    Refresh,
    Relay,
    ReportWay,
    StateEngine,
    Tls,
    TrustSource,
)
from authz.config.urls import url_defect

__all__ = ["Finding", "findings", "host_and_port", "socket_path"]

_ALGORITHMS: Final = (
    "RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA".split()  # noqa: SIM905 - read as a line
)
_SPIFFE_ID: Final = re.compile(
    r"spiffe://([a-z0-9._-]{1,255})(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)+"
)
_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_LISTENER: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_ALIAS: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SYSTEM: Final = re.compile(r"system:(\*|[A-Za-z0-9_-]{1,128})")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]+")
_MOST_SEGMENTS: Final = 32
_MAX_PATTERN: Final = 2048
_MAX_PORT: Final = 65_535
_MAX_SOCKET_PATH: Final = 100
_MAX_FAST_THREADS: Final = 1024


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
    yield from _directories(config)
    yield from _listeners(config)
    yield from _enforcers(config)
    yield from _state(config)
    if config.credentials is not None:
        yield from _credentials(config, config.credentials)


def _credentials(config: Config, credentials: Credentials) -> Iterator[Finding]:
    issuer, path = credentials.issuer, ("credentials", "issuer")
    defect = url_defect(issuer)
    if defect is None and "?" in issuer:
        defect = "has a query"
    if defect is None and issuer.endswith("/"):
        defect = "ends in a slash"
    if defect is not None:
        yield Finding(
            path, f"the issuer of task credentials {defect}.", "Use https://authz.example."
        )
    for alias, other in config.trust.issuers.items():
        if other.issuer == issuer:
            yield Finding(
                path,
                f"issuer `{alias}` has the same `iss` as our own credentials. Which profile counts would be chance.",
                "Give our own another URL.",
            )
    if not config.trust.domains:
        yield Finding(
            ("credentials",),
            "credentials are configured, but no trust domain: no agent could be given one.",
            "Add trust.domains.",
        )
    yield from _audiences(config, credentials.audiences)
    yield from broker_findings(("credentials",), credentials.brokers, credentials.injections)
    keys = credentials.keys
    if keys.pkcs11 is not None and keys.folder is not None:
        yield Finding(
            ("credentials", "keys", "folder"),
            "signing keys have `folder` and `pkcs11`: which of them sign would be chance.",
            "Keep one.",
        )
    if keys.rotation <= 2 * keys.jwks_max_age:
        yield Finding(
            ("credentials", "keys", "rotation"),
            "`rotation` is not longer than twice `jwks_max_age`: a key would have to be published before the one before it signs.",
            "Give a longer rotation, or a shorter jwks_max_age.",
        )


def _audiences(config: Config, audiences: Mapping[str, str]) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for system, audience in audiences.items():
        path: Path = ("credentials", "audiences", system)
        if not _SYSTEM.fullmatch(f"system:{system}") or system == "*":
            yield Finding(
                path, f"`{system}` is no id of a system.", "Write it as the catalog does."
            )
        elif audience in config.identity.audiences:
            yield Finding(
                path,
                f"the audience of `{system}` is one of our own (`identity.audiences`). "
                "Its credentials would pass for evidence that is meant for us.",
                "Give the system another audience.",
            )
        elif audience in seen:
            yield Finding(
                path,
                f"systems `{seen[audience]}` and `{system}` have one audience. One would take the other's credentials.",
                "Give each its own.",
            )
        seen.setdefault(audience, system)


def _state(config: Config) -> Iterator[Finding]:
    state = config.state
    if state.engine is StateEngine.POSTGRESQL and state.dsn is None:
        yield Finding(
            ("state", "engine"),
            "`state.engine: postgresql` has no `dsn`.",
            "Add `state: {dsn: ...}`, or the variable AUTHZ_STATE_DSN.",
        )
    if state.engine is not StateEngine.POSTGRESQL and state.dsn is not None:
        yield Finding(
            ("state", "dsn"),
            f"`state.dsn` is given, but `state.engine` is `{state.engine}`: tasks would not be shared.",
            "Say `engine: postgresql`, or remove `dsn`.",
        )
    if state.engine is not StateEngine.EMBEDDED and state.path is not None:
        yield Finding(
            ("state", "path"),
            f"`state.path` is given, but `state.engine` is `{state.engine}`.",
            "Say `engine: embedded`, or remove `path`.",
        )


def _trust(config: Config) -> Iterator[Finding]:
    for name in config.trust.domains:
        if not _DOMAIN.fullmatch(name):
            yield Finding(
                ("trust", "domains", name),
                f"`{name}` is no SPIFFE trust domain.",
                "Use lower-case letters, digits, dots, dashes and underscores, without `spiffe://`.",
            )
    yield from _interval(("trust", "refresh"), "`trust.refresh`", config.trust.refresh)
    for name, domain in config.trust.domains.items():
        yield from _bundle(("trust", "domains", name, "bundle"), name, domain.bundle, config)
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
        yield from _alone(("trust", "issuers", alias), alias, issuer, config)
        yield from _keys(("trust", "issuers", alias), alias, issuer, config.trust.refresh)
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


def _alone(path: Path, alias: str, issuer: Issuer, config: Config) -> Iterator[Finding]:
    """Find audiences of the subjects' own tokens that agents get tokens for."""
    shared = {*issuer.audience, *config.identity.audiences}
    for index, audience in enumerate(issuer.alone_audience):
        if audience in shared:
            yield Finding(
                (*path, "alone_audience", index),
                f"`{audience}` of issuer `{alias}` is an audience of tokens that agents hold too. An agent could show such a "
                "token as if it were the user.",
                "Give an audience that no agent and no tool server gets tokens for.",
            )


def _keys(path: Path, alias: str, issuer: Issuer, refresh: Refresh) -> Iterator[Finding]:
    source = issuer.jwks
    path, of = (*path, "jwks"), f"issuer `{alias}`"
    named = [key for key in ("file", "url") if getattr(source, key) is not None]
    if source.discovery:
        named.append("discovery")
    if len(named) > 1:
        yield _several(path, of, named)
    elif not named and source.discovery is False:
        yield Finding(
            path,
            f"{of} has no keys: every token of it would be refused.",
            "Give file, url or discovery: true.",
        )
    elif named == ["file"]:
        yield from _file_alone(path, of, source)
    elif named == ["url"]:
        yield from _fetched(path, of, source, refresh)
    else:
        yield from _fetched(path, of, source, refresh, issuer.issuer)


def _bundle(path: Path, name: str, source: BundleSource, config: Config) -> Iterator[Finding]:
    of = f"trust domain `{name}`"
    ways = ("file", "url", "workload_api")
    named = [key for key in ways if getattr(source, key) is not None]
    if len(named) > 1:
        yield _several(path, of, named)
        return
    if not named:
        yield Finding(
            path,
            f"{of} has no bundle: every credential of it would be refused.",
            "Give one of file, url, workload_api.",
        )
        return
    if named != ["url"]:
        spiffe = source.profile is not BundleProfile.HTTPS_WEB
        for key in ("endpoint_spiffe_id", "bootstrap_file", *(("profile",) if spiffe else ())):
            if getattr(source, key) is not None:
                yield Finding(
                    (*path, key),
                    f"{of} has `{key}`, and no endpoint at a url.",
                    f"Remove {key}, or give url.",
                )
    if named == ["file"]:
        yield from _file_alone(path, of, source)
    elif named == ["workload_api"]:
        yield from _without_web(path, of, source, "the Workload API")
        yield from _interval((*path, "refresh"), of, source.refresh.over(config.trust.refresh))
        if socket_path(source.workload_api or "") is None:
            yield Finding(
                (*path, "workload_api"),
                f"the Workload API of {of} is not a unix socket: nothing proves who answers.",
                "Use `unix:///path`.",
            )
    else:
        yield from _fetched(path, of, source, config.trust.refresh)
        yield from _endpoint(path, name, source, config)


def _endpoint(path: Path, name: str, source: BundleSource, config: Config) -> Iterator[Finding]:
    of = f"trust domain `{name}`"
    if source.profile is BundleProfile.HTTPS_WEB:
        for key in ("endpoint_spiffe_id", "bootstrap_file"):
            if getattr(source, key) is not None:
                yield Finding(
                    (*path, key),
                    f"{of} has `{key}`, which the profile `https_web` does not look at.",
                    f"Say profile: https_spiffe, or remove {key}.",
                )
        return
    for key in ("ca_file", "insecure_dev"):
        if getattr(source, key):
            yield Finding(
                (*path, key),
                f"{of} has `{key}`, which the profile `https_spiffe` does not look at.",
                f"Remove {key}: the endpoint shows an X.509-SVID.",
            )
    if source.endpoint_spiffe_id is not None:
        yield from _endpoint_id(path, name, source, source.endpoint_spiffe_id, config)
        return
    yield Finding(
        path,
        f"{of} has the profile `https_spiffe` without `endpoint_spiffe_id`. "
        "Any workload could give the bundle.",
        "Add endpoint_spiffe_id, for example spiffe://example.org/spire/server.",
    )


def _endpoint_id(
    path: Path, name: str, source: BundleSource, endpoint: str, config: Config
) -> Iterator[Finding]:
    of = f"trust domain `{name}`"
    found = _SPIFFE_ID.fullmatch(endpoint)
    if found is None:
        yield Finding(
            (*path, "endpoint_spiffe_id"),
            f"`{endpoint}` is no SPIFFE ID of a workload.",
            "Write spiffe://<trust domain>/<path>.",
        )
    elif found[1] == name:
        if source.bootstrap_file is None:
            yield Finding(
                path,
                f"{of} gives its bundle itself, and has no `bootstrap_file`. Nothing would verify the first fetch.",
                "Add bootstrap_file: a copy of its bundle that came another way.",
            )
    elif found[1] not in config.trust.domains:
        yield Finding(
            (*path, "endpoint_spiffe_id"),
            f"the endpoint of {of} is of the trust domain `{found[1]}`, which is not trusted.",
            f"Add it under trust.domains, or name an endpoint of `{name}`.",
        )
    elif source.bootstrap_file is not None:
        yield Finding(
            (*path, "bootstrap_file"),
            f"the endpoint of {of} is verified by the bundle of `{found[1]}`, not by `bootstrap_file`.",
            "Remove bootstrap_file.",
        )


def _several(path: Path, of: str, named: Sequence[str]) -> Finding:
    listed = " and ".join(f"`{key}`" for key in named)
    return Finding(path, f"{of} has {listed}.", "Keep one: which keys count would be chance.")


def _file_alone(path: Path, of: str, source: TrustSource) -> Iterator[Finding]:
    yield from _without_web(path, of, source, "a file")
    if source.refresh.model_fields_set:
        yield Finding(
            (*path, "refresh"), f"{of} has `refresh`, and is read from a file.", "Remove refresh."
        )


def _without_web(path: Path, of: str, source: TrustSource, what: str) -> Iterator[Finding]:
    for key in ("ca_file", "allow_private", "allow_networks", "insecure_dev"):
        if getattr(source, key):
            yield Finding(
                (*path, key), f"{of} has `{key}`, and is read from {what}.", f"Remove {key}."
            )


def _fetched(
    path: Path, of: str, source: TrustSource, refresh: Refresh, issuer: str | None = None
) -> Iterator[Finding]:
    """Check what is fetched: by its URL, or by discovery where an issuer is given."""
    url = source.url if issuer is None else issuer
    assert url is not None  # noqa: S101 - one of them is given
    where = (*path, "url") if issuer is None else (*path[:-1], "issuer")
    defect = url_defect(url, plain=source.insecure_dev)
    if defect is None and issuer is not None and "?" in issuer:
        defect = "has a query"
    if defect is not None:
        yield Finding(
            where,
            f"the keys of {of} cannot be fetched: their URL {defect}."
            if issuer is None
            else f"{of} has neither `jwks.file` nor `jwks.url`, and its `issuer` {defect}, "
            "so that its keys cannot be discovered.",
            "Use an https URL." if issuer is None else "Give jwks: {file: ...} or {url: ...}.",
        )
    elif source.insecure_dev and url.startswith("https:"):
        yield Finding(
            (*path, "insecure_dev"), f"{of} has https and `insecure_dev`.", "Remove insecure_dev."
        )
    if source.insecure_dev and source.ca_file is not None:
        yield Finding(
            (*path, "ca_file"), f"{of} has `ca_file` and `insecure_dev`.", "Remove one of them."
        )
    yield from _networks(path, source.allow_networks)
    yield from _interval((*path, "refresh"), of, source.refresh.over(refresh))


def _networks(path: Path, networks: Sequence[str]) -> Iterator[Finding]:
    for index, network in enumerate(networks):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            yield Finding(
                (*path, "allow_networks", index),
                f"`{network}` is no network.",
                "Write it as `10.1.0.0/16`, without bits of a host.",
            )


def _directories(config: Config) -> Iterator[Finding]:
    directories = config.directories
    yield from _networks(("directories",), directories.allow_networks)
    if directories.refresh.min > directories.refresh.max:
        what = "of `directories`, `refresh.min` is longer than `refresh.max`."
        yield Finding(("directories", "refresh"), what, "Swap them.")


def _interval(path: Path, of: str, refresh: Refresh) -> Iterator[Finding]:
    if refresh.min > refresh.max:
        yield Finding(path, f"of {of}, `refresh.min` is longer than `refresh.max`.", "Swap them.")
    if refresh.max_staleness <= refresh.max + refresh.timeout:
        yield Finding(
            path,
            f"of {of}, `refresh.max_staleness` is not longer than `refresh.max` and `timeout` together: "
            "keys would be dropped between two fetches.",
            "Give a longer max_staleness, or a shorter max.",
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
        yield from _decision_listener(path, name, listener, config)
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
    if config.listeners.http is not None:
        named["http"] = config.listeners.http
        yield from _http(config.listeners.http, config)
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
    yield from _fast_threads(config)


def _fast_threads(config: Config) -> Iterator[Finding]:
    fast = [name for name, served in config.listeners.decisions.items() if served.lane is Lane.FAST]
    each = config.limits.fast_threads
    if len(fast) * each > _MAX_FAST_THREADS:
        yield Finding(
            ("limits", "fast_threads"),
            f"{len(fast)} listeners of the fast lane with {each} threads each have {len(fast) * each} threads.",
            f"Give them {_MAX_FAST_THREADS} at most, for example `fast_threads: 2`.",
        )


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


def _decision_listener(
    path: Path, name: str, listener: DecisionListener, config: Config
) -> Iterator[Finding]:
    tcp = host_and_port(listener.address)
    yield from _plain(path, name, listener)
    if tcp is None:
        return
    if listener.is_mutual and not config.trust.domains:
        yield Finding(
            (*path, "tls", "client_ca_file"),
            f"listener `{name}` asks for certificates, but no trust domain is configured. Every caller would be refused.",
            "Add trust.domains with the SPIFFE bundle of the callers' trust domain.",
        )
    if listener.lane is Lane.FAST and tcp[1] == 0 and listener.tls is not None:
        yield Finding((*path, "address"), f"listener `{name}` needs a fixed port.", "Choose one.")


def _http(listener: HttpApiListener, config: Config) -> Iterator[Finding]:
    path: Path = ("listeners", "http")
    if config.credentials is None:
        yield Finding(
            path,
            "listener `http` is given, but `credentials` is not: it would serve nothing.",
            "Add credentials: {issuer: https://...}, or remove the listener.",
        )
    yield from _plain(path, "http", listener)


def _plain(
    path: Path, name: str, listener: DecisionListener | HttpApiListener
) -> Iterator[Finding]:
    """Find where plain TCP would be served, and where `insecure_dev` says nothing."""
    tcp = host_and_port(listener.address)
    http = isinstance(listener, HttpApiListener)
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


def _enforcers(config: Config) -> Iterator[Finding]:
    taken: dict[str, str] = {}
    patterns: dict[str, str] = {}
    names: set[str] = set()
    for index, enforcer in enumerate(config.enforcers):
        path: Path = ("enforcers", index)
        if enforcer.name in names:
            yield Finding(path, f"enforcer `{enforcer.name}` is named twice.", "Rename one.")
        names.add(enforcer.name)
        yield from _asks(path, enforcer)
        yield from _relays(path, enforcer, config)
        yield from _uids(path, enforcer, config)
        yield from _reports(path, enforcer, config)
        if enforcer.match is not None:
            yield from _match(path, enforcer.name, enforcer.match, config)
            yield from _ties(path, enforcer.name, enforcer.match, patterns)
            patterns.setdefault(enforcer.match, enforcer.name)
            if enforcer.listener is not None:
                yield Finding(
                    path,
                    f"enforcer `{enforcer.name}` has both `match` and `listener`. Whoever opens the socket would be it "
                    "without a certificate.",
                    "Keep one; for both ways in, give the other an entry and a name of its own.",
                )
            continue
        if enforcer.listener is None:
            yield Finding(
                path,
                f"enforcer `{enforcer.name}` has neither `match` nor `listener`. Nobody could be it.",
                "Add match: the SPIFFE id of a TLS peer; or listener: the name of a unix-socket listener.",
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
                "Use a unix-socket listener, the mode of whose folder says who may open it; or match: its SPIFFE id.",
            )
        elif enforcer.listener in taken:
            yield Finding(
                (*path, "listener"),
                f"enforcers `{taken[enforcer.listener]}` and `{enforcer.name}` share a listener.",
                "Give each its own socket.",
            )
        taken[enforcer.listener] = enforcer.name


def _match(path: Path, name: str, pattern: str, config: Config) -> Iterator[Finding]:
    """Find what keeps a pattern from ever naming a peer."""
    at: Path = (*path, "match")
    domain, slash, rest = pattern.removeprefix("spiffe://").partition("/")
    segments = rest.split("/")
    is_plain = all(
        segment == "*" or (_SEGMENT.fullmatch(segment) and segment not in {".", ".."})
        for segment in segments
    )
    if (
        not pattern.startswith("spiffe://")
        or not slash
        or not _DOMAIN.fullmatch(domain)
        or not is_plain
        or len(segments) >= _MOST_SEGMENTS
        or len(pattern) > _MAX_PATTERN
    ):
        yield Finding(
            at,
            f"`{pattern}` is no SPIFFE id and no pattern of one. Nobody could be enforcer `{name}`.",
            "Write `spiffe://trust.domain/ns/tools/sa/crm`; `*` stands for one whole segment of the path.",
        )
    elif domain not in config.trust.domains:
        known = ", ".join(sorted(config.trust.domains)) or "none"
        yield Finding(
            at,
            f"enforcer `{name}` is of trust domain `{domain}`, which is not trusted. Its certificate would be refused.",
            f"Add it under trust.domains; there: {known}.",
        )
    if not any(listener.is_mutual for listener in config.listeners.decisions.values()):
        yield Finding(
            at,
            f"enforcer `{name}` is known by its certificate, but no listener asks for one. Nobody could be it.",
            "Give a listener tls: {client_ca_file: ...}.",
        )


def _ties(path: Path, name: str, pattern: str, before: Mapping[str, str]) -> Iterator[Finding]:
    """Find earlier patterns that match an id of this one, where neither is the more specific."""
    at: Path = (*path, "match")
    for other, first in before.items():
        if other == pattern:
            yield Finding(
                at,
                f"enforcers `{first}` and `{name}` have the same `match`. Which one a peer is would be chance.",
                "Remove one, or make one entry of both.",
            )
        elif _overlap(pattern, other) and _covers(pattern, other) == _covers(other, pattern):
            yield Finding(
                at,
                f"`{pattern}` of enforcer `{name}` and `{other}` of `{first}` match one id, and neither is the more "
                "specific. Which one a peer is would be chance.",
                "Narrow one of them.",
            )


def _overlap(one: str, other: str) -> bool:
    pairs = list(zip_longest(one.split("/"), other.split("/")))
    return all(a == b or (a and b and "*" in {a, b}) for a, b in pairs)


def _covers(wide: str, narrow: str) -> bool:
    pairs = list(zip_longest(wide.split("/"), narrow.split("/")))
    return all(a == b or (b and a == "*") for a, b in pairs)


def _relays(path: Path, enforcer: Enforcer, config: Config) -> Iterator[Finding]:
    for index, relay in enumerate(enforcer.relays):
        if relay not in {Relay.PRINCIPAL, Relay.LABELS, Relay.PROMPT, Relay.SESSION}:
            yield Finding(
                (*path, "relays", index),
                f"enforcer `{enforcer.name}` relays `{relay}`, which is not in this version.",
                "Remove it; without it, what the enforcer says of it is not believed.",
            )
    if Relay.PRINCIPAL in enforcer.relays and not config.trust.domains:
        yield Finding(
            (*path, "relays"),
            f"enforcer `{enforcer.name}` relays principals, but no trust domain is configured. Each would be refused.",
            "Add trust.domains.",
        )


def _uids(path: Path, enforcer: Enforcer, config: Config) -> Iterator[Finding]:
    """Find a front end behind a socket that any agent of the same folder could open."""
    is_socket = enforcer.match is None
    listener = config.listeners.decisions.get(enforcer.listener or "")
    said = {Relay.PROMPT: "prompts", Relay.SESSION: "contexts of sessions"}
    spoken = next((words for relay, words in said.items() if relay in enforcer.relays), None)
    if is_socket and spoken is not None and not enforcer.uids:
        yield Finding(
            (*path, "relays"),
            f"enforcer `{enforcer.name}` relays {spoken}, and is whoever opens a socket. An agent that may open it could speak "
            "for its user.",
            "Add uids: [...], the users that the front end runs as; or match: its SPIFFE id.",
        )
    if not enforcer.uids:
        return
    at: Path = (*path, "uids")
    if not is_socket:
        yield Finding(
            at,
            f"enforcer `{enforcer.name}` is known by its certificate, and has `uids`.",
            "Remove uids.",
        )
    elif listener is not None and listener.lane is not Lane.FAST:
        yield Finding(
            at,
            f"enforcer `{enforcer.name}` has `uids`, but listener `{enforcer.listener}` is of the Python lane, which is not "
            "told the user of a process.",
            "Give the listener lane: fast, which then answers Tasks.Start and Tasks.Extend too; or match: its SPIFFE id.",
        )
    for uid in enforcer.uids:
        if not 0 <= uid < 2**32 - 1:
            yield Finding(at, f"`{uid}` is no user id.", "Give the number that `id -u` prints.")


def _reports(path: Path, enforcer: Enforcer, config: Config) -> Iterator[Finding]:
    if enforcer.reports is not ReportWay.ACCESS_LOG:
        return
    decisions = config.listeners.decisions
    ways = [
        listener
        for name, listener in decisions.items()
        if (name == enforcer.listener if enforcer.match is None else listener.is_mutual)
    ]
    if ways and all(listener.lane is Lane.FAST for listener in ways):
        yield Finding(
            (*path, "reports"),
            f"enforcer `{enforcer.name}` reports by access log, which the fast lane does not take. What it is permitted would "
            "be spent, whatever came of it.",
            "Let it log to a listener of the Python lane"
            + ("." if enforcer.match is not None else ", on which it then also asks."),
        )


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
