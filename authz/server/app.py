"""Builds a node from its configuration, runs it, and takes it down again. Nothing else builds objects."""

import gc
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any, Final

import grpc

from authz import __version__
from authz.config import Config, DecisionListener, HttpApiListener, Lane, Listener
from authz.config.rules import socket_path
from authz.engine import (
    Engine,
    build_profile,
    engine_settings,
    listener_rules,
    node_name,
    peer_rules,
)
from authz.errors import ConfigError
from authz.leases import Leases
from authz.model import Diagnostic, Surface
from authz.server.connections import (
    Connections,
    Place,
    connection_families,
)
from authz.server.directory_fetch import DirectoryFetch
from authz.server.fast.server import FastServer
from authz.server.file_limit import connections_of_each
from authz.server.file_watch import Watch
from authz.server.grpc.access_log import ACCESS_LOG, AccessLogs
from authz.server.grpc.admin import ADMIN, Administration
from authz.server.grpc.decisions import (
    AUTHORIZER,
    ENVOY,
    Decisions,
    RawHandler,
    facts_of,
    reader_of,
)
from authz.server.grpc.errors import not_in_this_version, unimplemented
from authz.server.grpc.health import Health, reflection_handler
from authz.server.grpc.listener import GrpcListener, Services
from authz.server.grpc.probes import Probes
from authz.server.grpc.threads import ListenerThreads, thread_families
from authz.server.grpc.unary import TASKS, Tasks
from authz.server.http.clients import Clients
from authz.server.http.oauth import Endpoints, OAuthApp
from authz.server.http.observation import application
from authz.server.http.server import WebServer, WebSettings
from authz.server.issuing import (
    CREDENTIALS,
    METHODS,
    Issuing,
    StoredKeys,
    key_families,
    public_table,
)
from authz.server.lease_records import EngineLeases, brokers_of
from authz.server.runtime_state import World
from authz.server.static_secrets import Injections
from authz.server.status.directories import Directories
from authz.server.status.mode_reminder import Reminder
from authz.server.status.readiness import Part, Readiness
from authz.server.status.readiness_log import Standing
from authz.server.status.trust_sources import TrustSources
from authz.server.sweep import Sweep
from authz.server.trust_sequences import Sequences
from authz.signing import KeyRing, key_place
from authz.telemetry import Logger, Metrics, TraceExport
from authz.trust import Fetcher, Refresher, SourceKey, remote_sources
from authz.v1 import approvals_pb2

__all__ = ["Node"]

_ADMIN_THREADS: Final = 2
_ADMIN_QUEUE: Final = 16
_MARGIN: Final = 2.0
_LOOK_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a node is made of."""

    engine: Engine
    world: World
    readiness: Readiness
    health: Health
    threads: tuple[ListenerThreads, ...]
    probes: Probes
    connections: Connections
    listeners: tuple[GrpcListener, ...]
    fast: FastServer | None
    web: tuple[WebServer, ...]
    watch: Watch | None
    refresher: Refresher
    fetch: DirectoryFetch
    sweep: Sweep
    keys: KeyRing | None
    leases: Leases | None
    logs: tuple[AccessLogs, ...]
    metrics: Metrics
    traces: TraceExport | None


@dataclass(frozen=True, slots=True)
class _Secrets:
    """What makes or keeps the secrets of systems that know no tokens."""

    injections: Injections | None = None
    leases: Leases | None = None

    @property
    def parts(self) -> dict[str, Part]:
        """Those that readiness tells of."""
        named = {"injections": self.injections, "leases": self.leases}
        return {name: part for name, part in named.items() if part is not None}


class Node:
    """One Authz node.

    Args:
        config: The checked configuration.
        log: Where it says what it does.

    Raises:
        AuthzError: It cannot be built: an address is taken, the audit cannot be opened, bundle or keys are refused.
    """

    def __init__(self, config: Config, log: Logger) -> None:
        config = _affordable(config, log)
        self._config = config
        self._log = log
        self._commands: SimpleQueue[str] = SimpleQueue()
        self._closed = False
        with ExitStack() as undo:
            self._parts = self._build(undo)
            undo.pop_all()
        self._reminder = Reminder(lambda: self._parts.world.stands.plan, log, time.time)
        self._standing = Standing(self._parts.readiness.report, log)

    # --- life

    def start(self) -> None:
        """Open every listener."""
        parts = self._parts
        # What is here stays: the collector need not look at it again while calls wait for it.
        gc.collect()
        gc.freeze()
        if parts.traces is not None:
            parts.traces.start(parts.engine.spans)
        parts.connections.start()
        for listener in parts.listeners:
            listener.start()
        for web in parts.web:
            web.start()
        parts.readiness.serving()
        parts.probes.start(self._follow)
        # Says that the node serves, once every source of keys was fetched.
        parts.refresher.start()
        rest = (parts.fetch, parts.sweep, parts.keys, parts.leases, parts.fast, parts.watch)
        for part in rest:
            if part is not None:
                part.start()
        for name, address in self.addresses.items():
            self._log.info("listening", listener=name, address=address)
        for name, decision in self._config.listeners.decisions.items():
            if decision.insecure_dev:
                self._log.warning(
                    "insecure_dev: whoever reaches this address may ask about every system",
                    listener=name,
                )
        self._reminder.remind()
        self._standing.look()
        self._log.info("ready", version=__version__, build_profile=build_profile())

    def run(self) -> None:
        """Serve until a signal says stop; SIGHUP loads bundle and keys again.

        The main thread waits here, in Python, so that signals are handled.
        """

        def on_signal(number: int, _frame: FrameType | None) -> None:
            self._commands.put("reload" if number == signal.SIGHUP else "stop")

        before = {
            number: signal.signal(number, on_signal)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        try:
            self.start()
            while (command := self._next_command()) != "stop":
                if command == "reload":
                    self._parts.world.reload()
                self._reminder.remind()
                self._standing.look()
        finally:
            self.close()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _next_command(self) -> str:
        try:
            return self._commands.get(timeout=_LOOK_SECONDS)
        except Empty:
            return "look"

    def close(self) -> None:
        """Stop: not serving, lanes drain, audit flushes, engine closes. Again: nothing."""
        if self._closed:
            return
        self._closed = True
        parts, grace = self._parts, self._config.shutdown_grace_period
        self._log.info("stopping", grace_seconds=grace)
        parts.readiness.stopping()
        parts.health.stopping()
        parts.probes.close()
        for logs in parts.logs:
            logs.stopping()
        self._close_side()
        draining = [listener.server.stop(grace) for listener in parts.listeners]
        if parts.fast is not None:
            parts.fast.close(grace)
        deadline = time.monotonic() + grace + _MARGIN
        for drained in draining:
            drained.wait(max(0.0, deadline - time.monotonic()))
        parts.connections.close()
        for threads in parts.threads:
            threads.close()
        for logs in parts.logs:
            logs.close()
        if parts.traces is not None:
            parts.traces.close()
        parts.engine.close()
        self._let_go()
        self._log.info("stopped")

    def _let_go(self) -> None:
        for web in self._parts.web:
            web.close()
        for listener in self._config.listeners.decisions.values():
            _unlink(listener.address)
        fixed_listeners = self._config.listeners
        for fixed in (fixed_listeners.admin, fixed_listeners.metrics, fixed_listeners.http):
            if fixed is not None:
                _unlink(fixed.address)

    def _close_side(self) -> None:
        parts = self._parts
        if parts.watch is not None:
            parts.watch.close()
        parts.refresher.close()
        parts.fetch.close()
        parts.sweep.close()
        if parts.keys is not None:
            parts.keys.close()
        if parts.leases is not None:
            parts.leases.close()

    def _follow(self) -> None:
        """Say over gRPC what readiness says."""
        self._parts.health.serving(on=self._parts.readiness.is_ready())

    # --- what it can be asked

    @property
    def addresses(self) -> dict[str, str]:
        """Bound addresses, by listener."""
        found = {listener.name: listener.address for listener in self._parts.listeners}
        if self._parts.fast is not None:
            found.update(self._parts.fast.addresses)
        found.update((web.name, web.address) for web in self._parts.web)
        return found

    @property
    def world(self) -> World:
        """Bundle and keys."""
        return self._parts.world

    # --- building

    def _failed(self, error: BaseException) -> None:
        self._log.error("a call failed inside the server", error=repr(error), exc_info=error)

    def _build(self, undo: ExitStack) -> _Parts:
        config, log = self._config, self._log
        metrics = Metrics()
        _make_folder(config.audit.path)
        traces = TraceExport.from_environment(os.environ, __version__, log)
        if traces is not None:
            undo.callback(traces.close)
            _trace_metrics(metrics, traces)
        trace = traces.settings.engine() if traces is not None else None
        engine = Engine(engine_settings(config, trace=trace))
        undo.callback(engine.close)
        metrics.pull(engine.metrics)
        secrets = self._secrets(engine, metrics, undo)
        world = World(
            config,
            engine,
            listener_rules(config),
            peers=peer_rules(config),
            injections=secrets.injections,
            sequences=Sequences(config, engine, log),
            metrics=metrics,
            log=log,
        )
        keys = self._keys(engine, world, metrics)
        if keys is not None:
            undo.callback(keys.close)
        health = Health((AUTHORIZER, ENVOY, ACCESS_LOG, ADMIN))
        refresher = Refresher(
            remote_sources(config, Fetcher().get),
            world,
            log,
            unknown=lambda: _unknown(engine, keys),
            complete=lambda: health.serving(on=readiness.is_ready()),
        )
        undo.callback(refresher.close)
        sources = TrustSources(config, world, refresher)
        metrics.pull(sources.families)
        fetch, directories = self._directories(world, metrics, undo)
        threads = self._threads(metrics, undo)
        probes = self._probes(threads, undo)
        readiness = Readiness(
            __version__,
            build_profile(),
            world=world,
            sources=sources,
            engine=engine.status,
            insecure=[
                name
                for name, listener in config.listeners.decisions.items()
                if listener.insecure_dev
            ],
            started_at=time.time(),
            more={**secrets.parts, "directories": directories},
            files={"bundle": config.bundle.path, "audit": str(config.audit.path)},
            listeners=_addresses(config),
            keys=keys,
            late=probes.problems,
        )
        logs = self._logs(engine, metrics, undo)
        issuing = None
        if keys is not None:
            issuing = Issuing(engine, keys.active, secrets.leases, secrets.injections)
        listeners = self._bind(
            engine=engine,
            issuing=issuing,
            world=world,
            readiness=readiness,
            threads=threads,
            health=health,
            metrics=metrics,
            leases=secrets.leases,
            logs=logs,
            undo=undo,
        )
        world.load()
        fast = FastServer.open(config, engine, log)
        if fast is not None:
            undo.callback(fast.close, 0.0)
            metrics.pull(fast.tls.families)
            readiness.add("fast_tls", fast.tls)
        web: list[WebServer] = []
        if config.listeners.metrics is not None:
            told = WebSettings(
                "metrics", config.listeners.metrics.address, config.listeners.metrics.tls
            )
            web.append(WebServer(told, application(metrics.render, readiness)))
            undo.callback(web[-1].close)
        if config.listeners.http is not None and keys is not None and issuing is not None:
            web.append(self._oauth(config.listeners.http, world, keys, issuing, metrics))
            undo.callback(web[-1].close)
        connections = self._connections(listeners, web, metrics, undo)

        def sweep() -> dict[str, Any]:
            world.keep_sequences()
            return engine.sweep()

        watch = Watch(world.watched, world.reload, log) if config.bundle.watch else None
        return _Parts(
            engine,
            world,
            readiness,
            health,
            tuple(threads.values()),
            probes,
            connections,
            listeners,
            fast,
            tuple(web),
            watch,
            refresher,
            fetch,
            Sweep(sweep, self._log),
            keys,
            secrets.leases,
            tuple(logs.values()),
            metrics,
            traces,
        )

    @property
    def _python_listeners(self) -> dict[str, DecisionListener]:
        decisions = self._config.listeners.decisions
        return {
            name: listener for name, listener in decisions.items() if listener.lane is not Lane.FAST
        }

    def _threads(self, metrics: Metrics, undo: ExitStack) -> dict[str, ListenerThreads]:
        limits = self._config.limits
        started: dict[str, ListenerThreads] = {}
        for name, listener in self._python_listeners.items():
            started[name] = ListenerThreads.start(
                name, limits, failed=self._failed, mutual=listener.is_mutual
            )
            undo.callback(started[name].close)
        if self._config.listeners.admin is not None:
            started["admin"] = ListenerThreads.start(
                "admin", limits, failed=self._failed, threads=_ADMIN_THREADS, queue=_ADMIN_QUEUE
            )
            undo.callback(started["admin"].close)
        metrics.pull(lambda: thread_families(started.values()))
        return started

    def _probes(self, threads: Mapping[str, ListenerThreads], undo: ExitStack) -> Probes:
        executors = {name: one.executor for name, one in threads.items()}
        probes = Probes(executors, self._config.limits.ready_after, self._failed)
        undo.callback(probes.close)
        return probes

    def _connections(
        self,
        listeners: Sequence[GrpcListener],
        web: Sequence[WebServer],
        metrics: Metrics,
        undo: ExitStack,
    ) -> Connections:
        limits = self._config.limits
        places = [Place(one.name, one.address, limits.connections) for one in listeners]
        # A probe of readiness must get through from the address of a flood: connections live for a moment here.
        places += [
            Place(one.name, one.address, 2 * one.connections, close_oldest=True) for one in web
        ]
        made = Connections(places, self._failed)
        undo.callback(made.close)
        metrics.pull(lambda: connection_families(made))
        return made

    def _logs(self, engine: Engine, metrics: Metrics, undo: ExitStack) -> dict[str, AccessLogs]:
        limits = self._config.limits
        logs: dict[str, AccessLogs] = {}
        for name in self._python_listeners:
            logs[name] = AccessLogs(
                engine, limits.access_log_streams, limits.default_deadline, metrics, self._failed
            )
            undo.callback(logs[name].close)
        metrics.gauge(
            "authz_access_log_streams",
            "Open streams of access logs.",
            lambda: float(sum(one.open for one in logs.values())),
        )
        return logs

    def _directories(
        self, world: World, metrics: Metrics, undo: ExitStack
    ) -> tuple[DirectoryFetch, Directories]:
        fetch = DirectoryFetch(self._config.directories, world, Fetcher().get, self._log)
        undo.callback(fetch.close)
        directories = Directories(world, fetched=fetch.stands)
        metrics.pull(directories.families)
        return fetch, directories

    def _secrets(self, engine: Engine, metrics: Metrics, undo: ExitStack) -> _Secrets:
        config = self._config
        if config.credentials is None:
            return _Secrets()
        injections = Injections(config.credentials.injections, self._log)
        metrics.pull(injections.families)
        leases = Leases(
            brokers_of(config.credentials),
            EngineLeases(engine),
            self._log,
            staleness=config.state.revocation_staleness,
        )
        undo.callback(leases.close)
        metrics.pull(leases.families)
        return _Secrets(injections, leases)

    def _keys(self, engine: Engine, world: World, metrics: Metrics) -> KeyRing | None:
        config = self._config
        if config.credentials is None:
            return None
        keys = KeyRing(
            config.credentials,
            key_place(config),
            StoredKeys(engine),
            node=node_name(config),
            changed=world.publish,
            log=self._log,
            clock=time.time,
        )
        keys.begin()
        metrics.pull(lambda: key_families(keys))
        return keys

    def _oauth(
        self,
        listener: HttpApiListener,
        world: World,
        keys: KeyRing,
        issuing: Issuing,
        metrics: Metrics,
    ) -> WebServer:
        config = self._config
        assert config.credentials is not None  # noqa: S101 - checked with the configuration
        endpoints = Endpoints(config.credentials.issuer)
        app = OAuthApp(
            endpoints,
            Clients(endpoints.issuer, endpoints.token, lambda: world.stands),
            keys,
            issuing,
            public=public_table(),
            mutual=listener.is_mutual,
            max_body=listener.max_body_bytes,
            timeout=listener.timeout,
            deadline=config.limits.default_deadline,
            counted=metrics.answered,
            failed=self._failed,
        )
        settings = WebSettings(
            "http", listener.address, listener.tls, listener.max_connections, listener.timeout
        )
        return WebServer(settings, app.asgi())

    def _bind(
        self,
        *,
        engine: Engine,
        issuing: Issuing | None,
        world: World,
        readiness: Readiness,
        threads: Mapping[str, ListenerThreads],
        health: Health,
        metrics: Metrics,
        leases: Leases | None,
        logs: Mapping[str, AccessLogs],
        undo: ExitStack,
    ) -> tuple[GrpcListener, ...]:
        config = self._config
        ended = leases.ended if leases is not None else None
        bound: list[GrpcListener] = []
        limits = config.limits
        for name, listener in self._python_listeners.items():
            mine = threads[name]
            generic = (
                *health.handlers(mine.side),
                *reflection_handler((AUTHORIZER, ENVOY, ACCESS_LOG), mine.side),
            )
            read = reader_of(listener)
            decisions = Decisions(
                engine,
                name,
                mine.executor,
                config.limits.default_deadline,
                self._failed,
                read,
            )
            tasks = Tasks(
                engine,
                name,
                mine.executor,
                config.limits.default_deadline,
                metrics,
                self._failed,
                read,
                ended=ended,
            )
            credentials = replace(tasks, engine=issuing) if issuing is not None else None
            services = {
                **_decision_services(decisions, tasks, credentials, metrics),
                ACCESS_LOG: logs[name].handlers(name, read),
            }
            bound.append(
                GrpcListener.bind(
                    name,
                    listener,
                    services=services,
                    generic=generic,
                    executor=mine.receiver,
                    limits=limits,
                    shared=True,
                )
            )
            undo.callback(bound[-1].server.stop, None)
        if config.listeners.admin is not None:
            administration = Administration(
                engine, world, readiness, __version__, "admin", metrics, self._failed, ended
            )
            owner = Tasks(engine, "admin", None, 30.0, metrics, self._failed, facts_of, ended=ended)
            of_owner = replace(owner, engine=issuing) if issuing is not None else None
            mine = threads["admin"]
            generic = (
                *health.handlers(mine.side),
                *reflection_handler((ADMIN, AUTHORIZER, TASKS, CREDENTIALS), mine.side),
            )
            bound.append(
                GrpcListener.bind(
                    "admin",
                    config.listeners.admin,
                    services={
                        **administration.services(),
                        TASKS: owner.handlers(),
                        CREDENTIALS: _credential_handlers(of_owner),
                    },
                    generic=generic,
                    executor=mine.receiver,
                    limits=limits,
                    shared=False,
                )
            )
            undo.callback(bound[-1].server.stop, None)
        return tuple(bound)


def _affordable(config: Config, log: Logger) -> Config:
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


def _decision_services(
    decisions: Decisions, tasks: Tasks, credentials: Tasks | None, metrics: Metrics
) -> Services:
    def judged(service: str, method: str, surface: Surface) -> RawHandler:
        return decisions.handler(surface, metrics.observer(service, method))

    return {
        **_later_services(),
        TASKS: tasks.handlers(),
        CREDENTIALS: _credential_handlers(credentials),
        AUTHORIZER: {
            "Check": judged(AUTHORIZER, "Check", Surface.CHECK),
            "BatchCheck": judged(AUTHORIZER, "BatchCheck", Surface.BATCH_CHECK),
            "List": tasks.handler(AUTHORIZER, "List", Surface.LIST),
            "Report": tasks.handler(AUTHORIZER, "Report", Surface.REPORT),
            "Explain": grpc.unary_unary_rpc_method_handler(
                not_in_this_version("Authorizer.Explain outside the administration listener")
            ),
        },
        ENVOY: {"Check": judged(ENVOY, "Check", Surface.EXT_AUTHZ)},
    }


def _credential_handlers(credentials: Tasks | None) -> dict[str, RawHandler]:
    """Answer about task credentials; where none are issued, say so."""
    if credentials is not None:
        return credentials.of(CREDENTIALS, METHODS)
    why = "no credentials are issued here: `credentials` is not configured"
    return {
        method: grpc.unary_unary_rpc_method_handler(unimplemented(f"Credentials.{method}: {why}"))
        for method in METHODS
    }


def _unknown(engine: Engine, keys: KeyRing | None) -> Iterator[SourceKey]:
    """Take whose keys tokens named that are not there; our own are looked for in the store."""
    for kind, name in engine.unknown_keys():
        if kind == "own":
            if keys is not None:
                keys.wake()
        else:
            yield SourceKey(kind, name)


def _later_services() -> dict[str, dict[str, RawHandler]]:
    """Answer every method of the services that are not done yet with why."""
    services: dict[str, dict[str, RawHandler]] = {}
    for file in (approvals_pb2,):
        for service in file.DESCRIPTOR.services_by_name.values():
            services[service.full_name] = {
                method.name: (
                    grpc.unary_stream_rpc_method_handler
                    if method.server_streaming
                    else grpc.unary_unary_rpc_method_handler
                )(not_in_this_version(f"{service.name}.{method.name}"))
                for method in service.methods
            }
    return services


def _trace_metrics(metrics: Metrics, traces: TraceExport) -> None:
    metrics.counted(
        "authz_trace_spans_exported_total",
        "Spans that were sent.",
        lambda: float(traces.exported),
    )
    metrics.counted(
        "authz_trace_spans_failed_total",
        "Spans that could not be sent.",
        lambda: float(traces.failed),
    )


def _addresses(config: Config) -> dict[str, str]:
    served: dict[str, Listener | None] = {
        **config.listeners.decisions,
        "admin": config.listeners.admin,
        "metrics": config.listeners.metrics,
        "http": config.listeners.http,
    }
    return {name: one.address for name, one in served.items() if one is not None}


def _make_folder(audit: str | None) -> None:
    if audit is None:
        return
    try:
        Path(audit).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        what = f"the folder of `audit.path` cannot be made: {error.strerror}."
        at = Diagnostic(what, audit, mend="Decisions would leave no record; name another path.")
        raise ConfigError((at,)) from error


def _unlink(address: str) -> None:
    path = socket_path(address)
    if path is not None:
        Path(path).unlink(missing_ok=True)
