"""The fast lane: the Rust gRPC server for `Check` and Envoy's `Check`."""

import json
from collections.abc import Mapping
from typing import Any, final

from authz import _native
from authz.engine.engine import Engine
from authz.engine.native_errors import engine_errors

__all__ = ["FastLane"]


@final
class FastLane:
    """A running Rust server.

    Args:
        engine: The engine that answers.
        settings: Listeners and limits, as the engine's JSON.

    Raises:
        EngineError: A listener cannot be opened.
    """

    __slots__ = ("_native",)

    def __init__(self, engine: Engine, settings: Mapping[str, Any]) -> None:
        with engine_errors():
            self._native = _native.FastLane.start(engine.native, json.dumps(settings).encode())

    @property
    def addresses(self) -> tuple[str, ...]:
        """Bound addresses, in the order of the listeners."""
        return tuple(self._native.addresses)

    def renew_tls(
        self, listener: str, certificate: bytes, key: bytes, client_ca: bytes | None
    ) -> None:
        """Serve new connections of a listener with other TLS files.

        Args:
            listener: Name of the listener.
            certificate: Certificate chain, PEM.
            key: Private key, PEM.
            client_ca: Authorities of callers, PEM. `None`: callers need no certificate.

        Raises:
            EngineError: The files are refused. The listener keeps the files it has.
        """
        with engine_errors():
            self._native.renew_tls(listener, certificate, key, client_ca)

    def close(self, grace: float) -> None:
        """Drain calls in flight for at most `grace` seconds, then stop."""
        self._native.close(grace)
