"""The listeners of the fast lane: settings of the Rust server, and its TLS files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authz.config import Config, Lane
from authz.config.addresses import socket_path
from authz.engine import Engine, FastLane
from authz.server.fast.tls import FastTls
from authz.server.sockets import prepare, private
from authz.server.tls_files import read_tls
from authz.telemetry import Logger

__all__ = ["FastServer"]


@dataclass(frozen=True, slots=True)
class FastServer:
    """The running Rust server."""

    lane: FastLane
    """The extension's server."""
    tls: FastTls
    """Follows the TLS files."""
    names: tuple[str, ...]
    """Names of the listeners."""

    @staticmethod
    def open(config: Config, engine: Engine, log: Logger) -> "FastServer | None":
        """Bind the listeners of the fast lane, and serve; `None` if no listener is of the fast lane.

        Args:
            config: The configuration.
            engine: The engine that answers.
            log: Receives a line when TLS files change.

        Raises:
            AuthzError: A listener cannot be opened.
        """
        listeners: list[dict[str, Any]] = []
        followed = {}
        for name, listener in config.listeners.decisions.items():
            if listener.lane is not Lane.FAST:
                continue
            path = socket_path(listener.address)
            if path is not None:
                prepare(Path(path), name)
            address = f"unix:{path}" if path is not None else listener.address
            settings: dict[str, Any] = {"name": name, "address": address, "tls": None}
            if listener.tls is not None:
                files = read_tls(listener.tls)
                followed[name] = (listener.tls, files)
                settings["tls"] = files.texts()
            listeners.append(settings)
        if not listeners:
            return None
        settings = {
            "listeners": listeners,
            **config.limits.fast_lane_settings(),
            # Lowered to the files that this process may open before the node is built.
            "connections": config.limits.connections,
        }
        with private(shared=True):
            lane = FastLane(engine, settings)
        names = tuple(listener["name"] for listener in listeners)
        return FastServer(lane, FastTls(lane.renew_tls, followed, log), names)

    @property
    def addresses(self) -> dict[str, str]:
        """Bound addresses, by listener."""
        return dict(zip(self.names, self.lane.addresses, strict=True))

    def start(self) -> None:
        """Follow the TLS files from now on."""
        self.tls.start()

    def close(self, grace: float) -> None:
        """Drain calls in flight for at most `grace` seconds, then stop."""
        self.tls.close()
        self.lane.close(grace)
