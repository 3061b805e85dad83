"""An authorizer for Envoy that answers what a test tells it: to show what naive answers would do."""

import threading
from collections.abc import Callable
from concurrent import futures
from typing import Self

import grpc

from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc

Handler = Callable[
    [external_auth_pb2.CheckRequest, grpc.ServicerContext], external_auth_pb2.CheckResponse
]


class NaiveAuthorizer(external_auth_pb2_grpc.AuthorizationServicer):
    """Serves `Authorization/Check` on an ephemeral loopback port.

    Args:
        handler: Answers each request; may be replaced at any time.
    """

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.requests: list[external_auth_pb2.CheckRequest] = []
        self._lock = threading.Lock()
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        external_auth_pb2_grpc.add_AuthorizationServicer_to_server(self, self._server)
        self.port: int = self._server.add_insecure_port("127.0.0.1:0")

    def Check(  # noqa: N802 - the method's name on the wire
        self, request: external_auth_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> external_auth_pb2.CheckResponse:
        """Answers as told."""
        with self._lock:
            self.requests.append(request)
        return self.handler(request, context)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()
