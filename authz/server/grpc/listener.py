"""One grpcio server for each listener of the Python lane; it alone knows its own name."""

from collections.abc import Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import grpc

from authz.config import Limits, Listener
from authz.config.addresses import socket_path
from authz.errors import ConfigError
from authz.model import Diagnostic
from authz.server.grpc.decisions import TRANSPORT_MAX_BYTES, RawHandler
from authz.server.sockets import prepare, private
from authz.server.tls_files import credentials

__all__ = ["GrpcListener", "Services", "options"]

Services = Mapping[str, Mapping[str, RawHandler]]
"""Handlers by service and method."""

# Calls beyond queue and threads wait to be shed; past this many, the transport refuses.
_SHED_QUEUE: Final = 16_384
# Calls that have arrived and wait for Python's polling thread.
_MOST_PENDING: Final = 65_536
_MORE_CONNECTIONS: Final = 64


def options(limits: Limits) -> list[tuple[str, int]]:
    """Return grpcio's options; the benchmark's floor uses the same."""
    return [
        # Two processes on one port would each answer some of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", TRANSPORT_MAX_BYTES),
        ("grpc.max_send_message_length", TRANSPORT_MAX_BYTES),
        ("grpc.max_concurrent_streams", limits.max_concurrent_streams),
        # By default the transport cancels calls at random once a thousand wait for Python to pick them up, before
        # any handler could refuse them; and a cancelled call is an error to Envoy, not a denial.
        ("grpc.server.max_pending_requests", _MOST_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", _MOST_PENDING),
        ("grpc.keepalive_permit_without_calls", 1),
        # As on the fast lane: a peer that is gone without a word holds no stream.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        # A call may send 64 KiB before it is received; without this option, a fast sender would be granted megabytes.
        ("grpc.http2.bdp_probe", 0),
        # A compressed call ends as UNIMPLEMENTED (gRPC's compression specification) before anything is unpacked: a message of
        # 4 KiB would unpack to 4 MiB.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        # By default the transport resets streams at random where a caller's finished calls are not yet taken down, and a reset is
        # an error to Envoy, not a denial.
        ("grpc.http.overload_protection", 0),
        # Bounds the connections that arrive between two looks of `authz.server.connections`, which enforces the real bounds.
        ("grpc.max_allowed_incoming_connections", limits.connections + _MORE_CONNECTIONS),
        # TLS handshake, preface and the peer's settings together.
        ("grpc.server_handshake_timeout_ms", round(limits.handshake_timeout * 1000)),
        ("grpc.max_connection_idle_ms", round(limits.idle_timeout * 1000)),
    ]


@dataclass(slots=True)
class GrpcListener:
    """A listener that is bound and can be started and stopped."""

    name: str
    """Its name."""
    address: str
    """Bound address: `host:port` or `unix:///path`."""
    server: grpc.Server
    """grpcio's server."""

    @staticmethod
    def bind(
        name: str,
        listener: Listener,
        *,
        services: Services,
        generic: Sequence[grpc.GenericRpcHandler],
        executor: futures.Executor,
        limits: Limits,
        shared: bool,
    ) -> "GrpcListener":
        """Make a server and bind it; it does not answer before `start`.

        Args:
            name: Name of the listener.
            listener: Address and TLS.
            services: Services.
            generic: Generic handlers, for example of health and reflection.
            executor: Runs the calls.
            limits: Limits of the node.
            shared: The group of a socket's folder may open it, too.

        Raises:
            ConfigError: The address cannot be bound.
        """
        server = grpc.server(
            # grpcio uses only `submit` of it.
            cast("futures.ThreadPoolExecutor", executor),
            options=options(limits),
            maximum_concurrent_rpcs=limits.threads + limits.queue + _SHED_QUEUE,
        )
        for service, methods in services.items():
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, dict(methods)),)
            )
            server.add_registered_method_handlers(service, dict(methods))
        server.add_generic_rpc_handlers(tuple(generic))
        path = socket_path(listener.address)
        if path is not None:
            prepare(Path(path), name)
        target = f"unix:{path}" if path is not None else listener.address
        try:
            with private(shared=shared):
                if listener.tls is not None:
                    port = server.add_secure_port(target, credentials(listener.tls))
                else:
                    port = server.add_insecure_port(target)
        except RuntimeError as error:
            what = f"listener `{name}` cannot be bound to {listener.address}."
            at = Diagnostic(what, fix="Is another process using it?")
            raise ConfigError((at,)) from error
        bound = (
            listener.address
            if path is not None
            else f"{listener.address.rpartition(':')[0]}:{port}"
        )
        return GrpcListener(name, bound, server)

    def start(self) -> None:
        """Answer calls from now on."""
        self.server.start()
