"""The Python floor: the Python lane's transport, answering constant bytes.

Server class, threads, queue and options are the lane's own; the handler neither parses, judges nor logs.

    python -m bench.floor.python PORT CHECK_ANSWER EXT_AUTHZ_ANSWER
"""

import signal
import sys
import threading
from pathlib import Path

import grpc

from authz.config import Limits, Listener
from authz.server.grpc.decisions import RawHandler
from authz.server.grpc.listener import GrpcListener
from authz.server.grpc.threads import ListenerThreads
from bench.load.requests import METHODS


def main(arguments: list[str]) -> None:
    """Serves until SIGTERM.

    Args:
        arguments: port; a file with the answer of each surface in the order of `METHODS`.
    """
    port, *files = arguments
    limits = Limits()
    services: dict[str, dict[str, RawHandler]] = {}
    for (method, _, _), file in zip(METHODS.values(), files, strict=True):
        service, _, name = method.partition("/")
        services[service] = {name: _constant(Path(file).read_bytes())}
    listener = GrpcListener.bind(
        "floor",
        Listener(address=f"127.0.0.1:{port}"),
        services=services,
        generic=(),
        executor=ListenerThreads.start("floor", limits, failed=lambda _: None).receiver,
        limits=limits,
        shared=False,
    )
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    listener.start()
    done.wait()
    listener.server.stop(None).wait(timeout=5)


def _constant(answer: bytes) -> RawHandler:
    def answer_it(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        return answer

    # No serialisers: bytes in, bytes out, as in the lane itself.
    return grpc.unary_unary_rpc_method_handler(answer_it)


if __name__ == "__main__":
    main(sys.argv[1:])
