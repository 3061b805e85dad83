"""Composition root: it builds the parts of a node from its configuration, and lists the services that run.

Parts are built from the lowest up: engine, secrets, bundle and keys, refreshes, listeners. Nothing else builds them, and no
part imports this module.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from authz import __version__
from authz.approvals import (
    ApprovalHub,
    ApprovalStore,
    EngineApprovals,
    Invitations,
    PeopleByUid,
)
from authz.config import ApprovalPerson, Config, Listener
from authz.config.addresses import socket_path
from authz.engine import (
    Engine,
    build_profile,
    engine_settings,
    listener_rules,
    node_name,
    peer_rules,
)
from authz.errors import ConfigError
from authz.leases import LeaseManager
from authz.model import Diagnostic
from authz.server.audit_sinks import AuditSinks
from authz.server.card_references import ServedReferences
from authz.server.connections import ConnectionLimit, ConnectionLimiter, connection_families
from authz.server.fast.server import FastServer
from authz.server.file_limit import connections_of_each
from authz.server.file_watch import FileWatch
from authz.server.grpc.approvals import ApprovalServices
from authz.server.grpc.passkeys import PasskeyServices
from authz.server.grpc.server import GrpcServer
from authz.server.grpc.watching import WatchStreams
from authz.server.http.listeners import ApprovalParts, HttpContext, open_http_listeners
from authz.server.http.server import WebServer
from authz.server.issuing import CredentialIssuer, SigningKeyRecords, key_families
from authz.server.lease_records import EngineLeases, brokers_of
from authz.server.notifications import Notifications
from authz.server.recipient_list_fetch import RecipientListFetcher
from authz.server.runtime_state import RuntimeState
from authz.server.service import Service
from authz.server.static_secrets import StaticSecrets
from authz.server.status.approval_ways import ApprovalWays
from authz.server.status.mode_reminder import ModeReminder
from authz.server.status.readiness import Readiness, StatusPart
from authz.server.status.readiness_log import ReadinessLog
from authz.server.status.recipient_lists import RecipientListStatus
from authz.server.status.trust_sources import TrustSourceStatus
from authz.server.sweep import Sweep
from authz.server.tls_files import check_database_files
from authz.server.trust_sequences import TrustSequences
from authz.signing import KeyRing, key_place
from authz.telemetry import Logger, Metrics, TraceExport
from authz.trust import Fetcher, Refresher, SourceKey, remote_sources

if TYPE_CHECKING:
    from authz.server.ciba import CibaService
    from authz.server.http.shared_signals import SignalReceiver

__all__ = ["NodeParts", "build_node"]


@dataclass(frozen=True, slots=True)
class NodeParts:
    """The parts of a node that its owner uses."""

    config: Config
    """The configuration, with limits that the process can keep."""
    services: tuple[Service, ...]
    """Everything that runs, in the order of the start. The order of the end is the reverse."""
    runtime: RuntimeState
    """Bundle and keys."""
    grpc: GrpcServer
    """Listeners of the Python lane."""
    addresses: Mapping[str, str]
    """Bound addresses, by listener."""
    mode_reminder: ModeReminder
    """Logs parts of the bundle that only observe."""
    readiness_log: ReadinessLog
    """Logs changes of readiness."""


@dataclass(frozen=True, slots=True)
class _Base:
    """Shared by all steps of the build."""

    config: Config
    log: Logger
    metrics: Metrics
    undo: ExitStack
    """Closes what was built, should a later step fail."""

    def failed(self, error: BaseException) -> None:
        """Log an unexpected exception of a listener: of a call, a request or a thread of its own."""
        self.log.error("a listener met an unexpected error", error=repr(error), exc_info=error)


@dataclass(frozen=True, slots=True)
class _Secrets:
    """Secrets of systems that accept no tokens, and the keys that sign tokens."""

    static: StaticSecrets | None = None
    leases: LeaseManager | None = None

    @property
    def parts(self) -> dict[str, StatusPart]:
        """Parts that readiness shows, by name."""
        parts = {"static_secrets": self.static, "leases": self.leases}
        return {name: part for name, part in parts.items() if part is not None}


def build_node(config: Config, log: Logger) -> NodeParts:
    """Build a node. Listeners are bound, and bundle and keys are loaded; nothing serves before the services start.

    Raises:
        AuthzError: An address is taken, the audit cannot be opened, or bundle or keys are refused.
    """
    with ExitStack() as undo:
        parts = _build(_Base(_lower_limits(config, log), log, Metrics(), undo))
        undo.pop_all()
    return parts


def _build(base: _Base) -> NodeParts:
    core = _build_core(base)

    def show_readiness() -> None:
        core.grpc.health.serving(on=readiness.is_ready())

    refreshes = _build_refreshes(base, core, show_readiness)
    readiness = _build_readiness(base, core, refreshes)
    edges = _open_edges(base, core, readiness)
    return NodeParts(
        config=base.config,
        services=tuple(_services(base, core, refreshes, readiness, edges)),
        runtime=core.runtime,
        grpc=core.grpc,
        addresses=edges.addresses,
        mode_reminder=ModeReminder(lambda: core.runtime.snapshot.plan, base.log, time.time),
        readiness_log=ReadinessLog(readiness.report, base.log),
    )


@dataclass(frozen=True, slots=True)
class _Core:
    """The parts that decide, and the threads of the Python lane."""

    traces: TraceExport | None
    engine: Engine
    secrets: _Secrets
    runtime: RuntimeState
    keys: KeyRing | None
    grpc: GrpcServer
    hub: ApprovalHub
    """Tells of changes of approvals."""
    references: ServedReferences
    """Values with which cards are compared. The page and the issuer's channel read the recipient lists once."""
    approvals: ApprovalServices
    notifications: Notifications
    """Tells webhooks of approvals."""
    ciba: "CibaService | None"
    """Lets an issuer ask people about approvals."""
    sinks: AuditSinks
    """Deliver the audit log to other machines."""
    signals: "SignalReceiver | None"
    """Takes security events of identity providers."""


def _build_core(base: _Base) -> _Core:
    traces = _build_traces(base)
    engine = _build_engine(base, traces)
    secrets = _build_secrets(base, engine)
    runtime = _build_runtime(base, engine, secrets)
    keys = _build_keys(base, engine, runtime)
    grpc = GrpcServer(base.config, engine, base.metrics, base.failed, base.undo)
    base.metrics.pull(grpc.families)
    store = EngineApprovals(engine)
    hub = ApprovalHub(store, base.failed)
    approvals = _build_approvals(base, store, hub)
    notifications = Notifications(base.config.approvals, store, hub, Fetcher().get, base.log)
    base.metrics.pull(notifications.families)
    references = ServedReferences(lambda: runtime.snapshot)
    ciba = _build_ciba(base, store, hub, runtime, references)
    sinks = AuditSinks(base.config.audit, node_name(base.config), Fetcher().get, base.log)
    base.metrics.pull(sinks.families)
    signals = _build_signals(base, engine, secrets)
    return _Core(
        traces,
        engine,
        secrets,
        runtime,
        keys,
        grpc,
        hub,
        references,
        approvals,
        notifications,
        ciba,
        sinks,
        signals,
    )


@dataclass(frozen=True, slots=True)
class _Refreshes:
    """The parts that fetch keys and recipient lists."""

    keys: Refresher
    lists: RecipientListFetcher
    show_readiness: Callable[[], None]
    """Shows health checks whether the node is ready."""


def _build_refreshes(base: _Base, core: _Core, show_readiness: Callable[[], None]) -> _Refreshes:
    keys = Refresher(
        remote_sources(base.config, Fetcher().get),
        core.runtime,
        base.log,
        unknown=lambda: _unknown_keys(core.engine, core.keys),
        # The node is ready once every source of keys was fetched.
        complete=show_readiness,
    )
    base.undo.callback(keys.close)
    lists = RecipientListFetcher(base.config.recipient_lists, core.runtime, Fetcher().get, base.log)
    base.undo.callback(lists.close)
    return _Refreshes(keys, lists, show_readiness)


def _build_readiness(base: _Base, core: _Core, refreshes: _Refreshes) -> Readiness:
    config = base.config
    sources = TrustSourceStatus(config, core.runtime, refreshes.keys)
    base.metrics.pull(sources.families)
    recipient_lists = RecipientListStatus(core.runtime, fetched=refreshes.lists.statuses)
    base.metrics.pull(recipient_lists.families)
    return Readiness(
        __version__,
        build_profile(),
        runtime=core.runtime,
        sources=sources,
        engine=core.engine.status,
        insecure=_insecure_listeners(config),
        started_at=time.time(),
        more={
            **core.secrets.parts,
            "recipient_lists": recipient_lists,
            "approvals": ApprovalWays(config, core.runtime),
            "audit_sinks": core.sinks,
            **({"shared_signals": core.signals} if core.signals is not None else {}),
            **({"shadow": core.runtime.shadow} if config.shadow is not None else {}),
        },
        files={"bundle": config.bundle.path, "audit": str(config.audit.path)},
        listeners={name: listener.address for name, listener in _listeners(config).items()},
        keys=core.keys,
        late=lambda: (*core.grpc.probes.problems(), *core.sinks.late()),
    )


@dataclass(frozen=True, slots=True)
class _Edges:
    """The parts that callers reach. They answer no call before their services start."""

    fast: FastServer | None
    http: Sequence[WebServer]
    connections: ConnectionLimiter
    addresses: Mapping[str, str]
    """Bound addresses, by listener."""


def _open_edges(base: _Base, core: _Core, readiness: Readiness) -> _Edges:
    """Bind every listener, and load bundle and keys before the fast lane needs them."""
    secrets, grpc, issuer = core.secrets, core.grpc, None
    if core.keys is not None:
        issuer = CredentialIssuer(core.engine, core.keys.active, secrets.leases, secrets.static)
    task_ended = secrets.leases.ended if secrets.leases is not None else None
    grpc.bind(
        runtime=core.runtime,
        readiness=readiness,
        issuer=issuer,
        task_ended=task_ended,
        approvals=core.approvals,
    )
    core.runtime.load()
    fast = _open_fast_lane(base, core.engine, readiness)
    http = open_http_listeners(
        HttpContext(
            base.config,
            core.runtime,
            readiness,
            base.metrics,
            base.failed,
            core.keys,
            issuer,
            _page_parts(base, core),
            core.signals,
        ),
        lambda server: base.undo.callback(server.close),
    )
    addresses = {**grpc.addresses(), **(fast.addresses if fast is not None else {})}
    addresses.update((server.name, server.address) for server in http)
    return _Edges(fast, http, _build_connections(base, grpc, http), addresses)


def _services(
    base: _Base, core: _Core, refreshes: _Refreshes, readiness: Readiness, edges: _Edges
) -> Iterator[Service]:
    """Yield everything that runs, in the order of the start."""
    config, grpc, runtime = base.config, core.grpc, core.runtime
    yield Service("socket files", close=lambda: _remove_sockets(config))
    for server in edges.http:
        yield Service(f"http {server.name}", server.start, close=server.close)
    # Closed after the engine, which writes the last records.
    yield Service("audit sinks", core.sinks.start, close=core.sinks.close)
    yield Service("engine", close=core.engine.close)
    yield from _trace_services(core.traces, core.engine)
    yield Service("threads", close=grpc.close_threads)
    yield Service("approvals", core.hub.start, close=core.hub.close)
    yield Service("notifications", core.notifications.start, close=core.notifications.close)
    if core.ciba is not None:
        yield Service("ciba", core.ciba.start, close=core.ciba.close)
    yield from _optional("shared signals", core.signals)
    yield Service("streams", core.approvals.streams.start, close=core.approvals.streams.close)
    yield Service("connections", edges.connections.start, close=edges.connections.close)
    yield Service("grpc", grpc.start, grpc.drain, grpc.close)
    yield from _fast_services(edges.fast, config.shutdown_grace_period)
    yield Service("readiness", readiness.serving, lambda _: readiness.stopping())
    yield Service(
        "probes", lambda: grpc.probes.start(refreshes.show_readiness), close=grpc.probes.close
    )
    # Reports the node as serving once every source of keys was fetched.
    yield Service("refresher", refreshes.keys.start, close=refreshes.keys.close)
    yield Service("recipient list fetch", refreshes.lists.start, close=refreshes.lists.close)
    sweep = Sweep(lambda: _sweep(runtime, core.engine), base.log)
    yield Service("sweep", sweep.start, close=sweep.close)
    yield from _optional("signing keys", core.keys)
    yield from _optional("leases", core.secrets.leases)
    if config.bundle.watch:
        watch = FileWatch(runtime.watched, runtime.reload, base.log)
        yield Service("file watch", watch.start, close=watch.close)


def _build_traces(base: _Base) -> TraceExport | None:
    traces = TraceExport.from_environment(os.environ, __version__, base.log)
    if traces is None:
        return None
    base.undo.callback(traces.close)
    base.metrics.counted(
        "authz_trace_spans_exported_total",
        "Spans that were sent.",
        lambda: float(traces.exported),
    )
    base.metrics.counted(
        "authz_trace_spans_failed_total",
        "Spans that could not be sent.",
        lambda: float(traces.failed),
    )
    return traces


def _build_engine(base: _Base, traces: TraceExport | None) -> Engine:
    _make_audit_folder(base.config.audit.path)
    check_database_files(base.config.state.dsn)
    trace = traces.settings.engine() if traces is not None else None
    engine = Engine(engine_settings(base.config, trace=trace))
    base.undo.callback(engine.close)
    base.metrics.pull(engine.metrics)
    return engine


def _build_secrets(base: _Base, engine: Engine) -> _Secrets:
    config = base.config
    if config.credentials is None:
        return _Secrets()
    static = StaticSecrets(config.credentials.static_secrets, base.log)
    base.metrics.pull(static.families)
    leases = LeaseManager(
        brokers_of(config.credentials),
        EngineLeases(engine),
        base.log,
        staleness=config.state.revocation_staleness,
    )
    base.undo.callback(leases.close)
    base.metrics.pull(leases.families)
    return _Secrets(static, leases)


def _build_runtime(base: _Base, engine: Engine, secrets: _Secrets) -> RuntimeState:
    return RuntimeState(
        base.config,
        engine,
        listener_rules(base.config),
        peers=peer_rules(base.config),
        secrets=secrets.static,
        sequences=TrustSequences(base.config, engine, base.log),
        metrics=base.metrics,
        log=base.log,
    )


def _build_keys(base: _Base, engine: Engine, runtime: RuntimeState) -> KeyRing | None:
    config = base.config
    if config.credentials is None:
        return None
    keys = KeyRing(
        config.credentials,
        key_place(config),
        SigningKeyRecords(engine),
        node=node_name(config),
        changed=runtime.publish,
        log=base.log,
        clock=time.time,
    )
    base.undo.callback(keys.close)
    keys.begin()
    base.metrics.pull(lambda: key_families(keys))
    return keys


def _build_approvals(base: _Base, store: ApprovalStore, hub: ApprovalHub) -> ApprovalServices:
    _check_people(base.config.approvals.people)
    streams = WatchStreams(hub, store, base.failed)
    base.undo.callback(streams.close)
    base.metrics.gauge(
        "authz_approval_streams", "Open streams of approvals.", lambda: float(len(streams))
    )
    return ApprovalServices(
        store, streams, PeopleByUid(base.config.approvals.people), _build_passkeys(base, store)
    )


def _build_ciba(
    base: _Base,
    store: ApprovalStore,
    hub: ApprovalHub,
    runtime: RuntimeState,
    references: ServedReferences,
) -> "CibaService | None":
    ciba = base.config.approvals.ciba
    if ciba is None:
        return None
    # Its libraries are large, and most nodes ask nobody so.
    from authz.server.ciba import CibaService  # noqa: PLC0415

    service = CibaService(
        base.config,
        ciba,
        store,
        hub,
        get=Fetcher().get,
        keys=runtime.current,
        references=references,
        log=base.log,
    )
    base.metrics.pull(service.families)
    return service


def _build_signals(base: _Base, engine: Engine, secrets: _Secrets) -> "SignalReceiver | None":
    if not base.config.shared_signals.transmitters:
        return None
    # Its libraries are large, and most nodes take no events.
    from authz.server.http.shared_signals import SignalReceiver  # noqa: PLC0415

    task_ended = secrets.leases.ended if secrets.leases is not None else None
    receiver = SignalReceiver(base.config, engine, Fetcher().get, base.log, task_ended=task_ended)
    base.undo.callback(receiver.close)
    base.metrics.pull(receiver.families)
    return receiver


def _build_passkeys(base: _Base, store: ApprovalStore) -> PasskeyServices:
    config = base.config
    has_page = config.listeners.approvals is not None and config.approvals.passkeys is not None
    return PasskeyServices(
        store,
        Invitations(),
        config.approvals.base_url if has_page else "",
        frozenset(config.trust.issuers),
        base.log,
    )


def _page_parts(base: _Base, core: _Core) -> ApprovalParts:
    """Return the parts of the approvals page, which takes the invitations of the administration listener."""
    approvals = core.approvals
    return ApprovalParts(
        approvals.store,
        core.hub,
        core.references,
        approvals.passkeys.invitations,
        Fetcher().get,
        base.log,
    )


def _check_people(people: Sequence[ApprovalPerson]) -> None:
    """Refuse people who could never answer: only the user of the node and root can open the administration socket."""
    node = os.geteuid()
    never = [
        Diagnostic(
            f"`approvals.people`: user {person.uid} (`{person.issuer}/{person.sub}`) cannot open the administration socket, which "
            f"only user {node}, who runs the node, and root can.",
            fix="Let the person answer at the approvals page, or remove the entry.",
        )
        for person in people
        if person.uid not in {node, 0}
    ]
    if never:
        raise ConfigError(tuple(never))


def _open_fast_lane(base: _Base, engine: Engine, readiness: Readiness) -> FastServer | None:
    fast = FastServer.open(base.config, engine, base.log)
    if fast is not None:
        base.undo.callback(fast.close, 0.0)
        base.metrics.pull(fast.tls.families)
        readiness.add("fast_tls", fast.tls)
    return fast


def _build_connections(
    base: _Base, grpc: GrpcServer, http: Sequence[WebServer]
) -> ConnectionLimiter:
    most = base.config.limits.connections
    places = [ConnectionLimit(listener.name, listener.address, most) for listener in grpc.listeners]
    # A probe of readiness must get through from the address of a flood: connections live for a moment here.
    places += [
        ConnectionLimit(server.name, server.address, 2 * server.connections, close_oldest=True)
        for server in http
    ]
    connections = ConnectionLimiter(places, base.failed)
    base.undo.callback(connections.close)
    base.metrics.pull(lambda: connection_families(connections))
    return connections


class _Runs(Protocol):
    def start(self) -> None: ...

    def close(self) -> None: ...


def _optional(name: str, part: _Runs | None) -> Iterator[Service]:
    if part is not None:
        yield Service(name, part.start, close=part.close)


def _trace_services(traces: TraceExport | None, engine: Engine) -> Iterator[Service]:
    if traces is not None:
        yield Service("traces", lambda: traces.start(engine.spans), close=traces.close)


def _fast_services(fast: FastServer | None, grace: float) -> Iterator[Service]:
    if fast is not None:
        yield Service("fast lane", fast.start, close=lambda: fast.close(grace))


def _sweep(runtime: RuntimeState, engine: Engine) -> dict[str, Any]:
    runtime.keep_sequences()
    return engine.sweep()


def _unknown_keys(engine: Engine, keys: KeyRing | None) -> Iterator[SourceKey]:
    """Yield trust sources whose keys tokens named and this node lacks. Its own keys are read from the store again."""
    for kind, name in engine.unknown_keys():
        if kind != "own":
            yield SourceKey(kind, name)
        elif keys is not None:
            keys.wake()


def _lower_limits(config: Config, log: Logger) -> Config:
    """Lower the connections of each listener to its share of the files that this process may open."""
    limits = config.limits
    connections = connections_of_each(len(config.listeners.decisions))
    if connections >= limits.connections:
        return config
    log.warning(
        "the process may not open enough files for `limits.connections`: raise its limit (LimitNOFILE of systemd, ulimit -n)",
        connections=limits.connections,
        instead=connections,
    )
    return config.model_copy(
        update={"limits": limits.model_copy(update={"connections": connections})}
    )


def _insecure_listeners(config: Config) -> list[str]:
    decisions = config.listeners.decisions
    return [name for name, listener in decisions.items() if listener.insecure_dev]


def _listeners(config: Config) -> dict[str, Listener]:
    """Return each configured listener, by name."""
    configured: dict[str, Listener | None] = {
        **config.listeners.decisions,
        "admin": config.listeners.admin,
        "metrics": config.listeners.metrics,
        "http": config.listeners.http,
        "approvals": config.listeners.approvals,
    }
    return {name: listener for name, listener in configured.items() if listener is not None}


def _remove_sockets(config: Config) -> None:
    for listener in _listeners(config).values():
        path = socket_path(listener.address)
        if path is not None:
            Path(path).unlink(missing_ok=True)


def _make_audit_folder(audit: str | None) -> None:
    if audit is None:
        return
    try:
        Path(audit).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        what = f"the folder of `audit.path` cannot be made: {error.strerror}."
        at = Diagnostic(what, audit, fix="Decisions would leave no record; name another path.")
        raise ConfigError((at,)) from error
