"""All gRPC listeners of the Python lane: their threads, their services, and their life."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Final

from authz import __version__
from authz.config import Config, DecisionListener, Lane, Listener
from authz.config.addresses import socket_path
from authz.model import MetricFamily
from authz.server.grpc.access_log import AccessLogs
from authz.server.grpc.admin import Administration
from authz.server.grpc.approvals import ApprovalServices
from authz.server.grpc.decisions import facts_of, reader_of
from authz.server.grpc.health import Health, reflection_handler
from authz.server.grpc.listener import GrpcListener, Services
from authz.server.grpc.probes import Probes
from authz.server.grpc.services import (
    ADMIN_REFLECTED,
    DECISION_REFLECTED,
    HEALTH_NAMES,
    EngineCalls,
    ListenerCalls,
    admin_services,
    decision_services,
)
from authz.server.grpc.threads import ListenerThreads, thread_families
from authz.server.grpc.unary import CallContext, SurfaceCalls
from authz.server.runtime_state import RuntimeState
from authz.server.socket_users import users_of_socket
from authz.server.status.readiness import Readiness
from authz.telemetry import Metrics

__all__ = ["GrpcServer"]

_ADMIN: Final = "admin"
_ADMIN_THREADS: Final = 2
_ADMIN_QUEUE: Final = 16
_ADMIN_DEADLINE: Final = 30.0
_MARGIN: Final = 2.0


class GrpcServer:
    """The gRPC listeners. `bind` opens them, `start` serves.

    Threads exist from the construction on, since readiness probes them before any listener is bound.

    Args:
        config: The configuration.
        engine: Answers.
        metrics: Counts calls.
        failed: Receives every unexpected exception.
        undo: Frees what was made, should a later step of the start-up fail.
    """

    def __init__(
        self,
        config: Config,
        engine: EngineCalls,
        metrics: Metrics,
        failed: Callable[[BaseException], None],
        undo: ExitStack,
    ) -> None:
        self._config = config
        self._engine = engine
        self._metrics = metrics
        self._failed = failed
        self._undo = undo
        self.health = Health(HEALTH_NAMES)
        self.listeners: list[GrpcListener] = []
        self._logs: dict[str, AccessLogs] = {}
        self._deadline = 0.0
        self._approvals: ApprovalServices | None = None
        self._drained: list[Callable[[float], object]] = []
        self.threads: dict[str, ListenerThreads] = {}
        for name, listener in self._decision_listeners.items():
            self._start_threads(name, mutual=listener.is_mutual)
        if config.listeners.admin is not None:
            self._start_threads(_ADMIN, threads=_ADMIN_THREADS, queue=_ADMIN_QUEUE)
        executors = {name: threads.executor for name, threads in self.threads.items()}
        self.probes = Probes(executors, config.limits.ready_after, failed)
        undo.callback(self.probes.close)
        metrics.gauge(
            "authz_access_log_streams",
            "Open streams of access logs.",
            lambda: float(sum(logs.open for logs in self._logs.values())),
        )

    @property
    def _decision_listeners(self) -> dict[str, DecisionListener]:
        decisions = self._config.listeners.decisions
        return {
            name: listener for name, listener in decisions.items() if listener.lane is not Lane.FAST
        }

    def _start_threads(
        self,
        name: str,
        *,
        mutual: bool = False,
        threads: int | None = None,
        queue: int | None = None,
    ) -> None:
        started = ListenerThreads.start(
            name,
            self._config.limits,
            failed=self._failed,
            mutual=mutual,
            threads=threads,
            queue=queue,
        )
        self.threads[name] = started
        self._undo.callback(started.close)

    def families(self) -> list[MetricFamily]:
        """Return the metrics of all threads."""
        return thread_families(self.threads.values())

    def bind(
        self,
        *,
        runtime: RuntimeState,
        readiness: Readiness,
        issuer: SurfaceCalls | None,
        task_ended: Callable[[float], object] | None,
        approvals: ApprovalServices,
    ) -> None:
        """Open all listeners. They answer no call before `start`.

        Args:
            runtime: Is reloaded by administration.
            readiness: Is shown by administration.
            issuer: Answers calls about credentials. `None`: none are issued.
            task_ended: Called after each task that ended, with the seconds that its caller still waits.
            approvals: Serve approvals.

        Raises:
            ConfigError: An address cannot be bound.
        """
        limits = self._config.limits
        self._approvals = approvals
        for name, listener in self._decision_listeners.items():
            threads = self.threads[name]
            context = CallContext(
                name,
                threads.executor,
                limits.default_deadline,
                reader_of(listener),
                self._metrics,
                self._failed,
            )
            calls = ListenerCalls(self._engine, issuer, context, approvals, task_ended)
            services = decision_services(calls, threads.executor, self._open_logs(name))
            self._bind(name, listener, services, DECISION_REFLECTED, shared=True)
        if self._config.listeners.admin is not None:
            context = CallContext(
                _ADMIN, None, _ADMIN_DEADLINE, facts_of, self._metrics, self._failed
            )
            administration = Administration(
                self._engine, runtime, readiness, __version__, context, task_ended
            )
            calls = ListenerCalls(self._engine, issuer, context, approvals, task_ended)
            admin = self._config.listeners.admin
            path = socket_path(admin.address) or ""
            services = admin_services(calls, administration, lambda: users_of_socket(path))
            self._bind(_ADMIN, admin, services, ADMIN_REFLECTED, shared=False)

    def _open_logs(self, name: str) -> AccessLogs:
        limits = self._config.limits
        logs = AccessLogs(
            self._engine,
            limits.access_log_streams,
            limits.default_deadline,
            self._metrics,
            self._failed,
        )
        self._logs[name] = logs
        self._undo.callback(logs.close)
        return logs

    def _bind(
        self,
        name: str,
        listener: Listener,
        services: Services,
        reflected: tuple[str, ...],
        *,
        shared: bool,
    ) -> None:
        threads = self.threads[name]
        bound = GrpcListener.bind(
            name,
            listener,
            services=services,
            generic=(
                *self.health.handlers(threads.side),
                *reflection_handler(reflected, threads.side),
            ),
            executor=threads.receiver,
            limits=self._config.limits,
            shared=shared,
        )
        self.listeners.append(bound)
        self._undo.callback(bound.server.stop, None)

    def addresses(self) -> Mapping[str, str]:
        """Return bound addresses, by listener."""
        return {listener.name: listener.address for listener in self.listeners}

    def start(self) -> None:
        """Answer calls from now on."""
        for listener in self.listeners:
            listener.start()

    def drain(self, grace: float) -> None:
        """Refuse new calls. Calls in flight may take `grace` seconds."""
        self.health.stopping()
        if self._approvals is not None:
            self._approvals.streams.drain()
        for logs in self._logs.values():
            logs.stopping()
        self._drained = [listener.server.stop(grace).wait for listener in self.listeners]
        self._deadline = time.monotonic() + grace + _MARGIN

    def close(self) -> None:
        """Wait for calls in flight, at most until the grace of `drain` is over."""
        for wait in self._drained:
            wait(max(0.0, self._deadline - time.monotonic()))

    def close_threads(self) -> None:
        """End the threads, once no listener needs them."""
        for threads in self.threads.values():
            threads.close()
        for logs in self._logs.values():
            logs.close()
