"""Metrics and health over HTTP, on a thread of its own."""

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from authz.config import MetricsListener
from authz.config.rules import host_and_port, socket_path
from authz.errors import ConfigError, UnavailableError
from authz.model import Diagnostic
from authz.server.readiness import Readiness
from authz.server.sockets import prepare, private
from authz.telemetry.metrics import CONTENT_TYPE

__all__ = ["HttpListener", "application"]

_START: Final = 10.0
_BACKLOG: Final = 128


def application(render: Callable[[], bytes], readiness: Readiness) -> Starlette:
    """Make the routes.

    Args:
        render: Gives the metrics text.
        readiness: Tells how the node stands.

    Returns:
        The ASGI application.
    """

    def metrics(_request: Request) -> Response:
        return Response(render(), media_type=None, headers={"content-type": CONTENT_TYPE})

    def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    def readyz(_request: Request) -> Response:
        report = readiness.report()
        return JSONResponse(report.detail, status_code=200 if report.ready else 503)

    return Starlette(
        routes=[
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ]
    )


class HttpListener:
    """A bound HTTP listener.

    Args:
        listener: Its address and TLS.
        app: What answers.

    Raises:
        ConfigError: The address cannot be bound.
    """

    def __init__(self, listener: MetricsListener, app: Starlette) -> None:
        self._socket = _bind(listener.address)
        tls = listener.tls
        settings = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            limit_concurrency=64,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=2,
            server_header=False,
            ssl_certfile=tls.cert_file if tls is not None else None,
            ssl_keyfile=tls.key_file if tls is not None else None,
        )
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="authz-http", daemon=True
        )
        if self._socket.family == socket.AF_UNIX:
            self.address = listener.address
        else:
            host, port = self._socket.getsockname()[:2]
            self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def start(self) -> None:
        """Serve.

        Raises:
            UnavailableError: It does not come up.
        """
        self._thread.start()
        deadline = time.monotonic() + _START
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                message = f"the HTTP listener {self.address} does not start"
                raise UnavailableError(message)
            time.sleep(0.01)

    def close(self) -> None:
        """Stop, and wait for the thread."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._socket.close()


def _bind(address: str) -> socket.socket:
    path = socket_path(address)
    try:
        if path is not None:
            prepare(Path(path), "metrics")
            bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with private(shared=True):
                bound.bind(path)
        else:
            host, port = host_and_port(address) or ("", 0)
            family, kind, protocol, _, target = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            bound = socket.socket(family, kind, protocol)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(target)
        bound.listen(_BACKLOG)
    except OSError as error:
        at = Diagnostic(
            f"listener `metrics` cannot be bound to {address}: {error.strerror}.",
            mend="Is another process using it?",
        )
        raise ConfigError((at,)) from error
    return bound
