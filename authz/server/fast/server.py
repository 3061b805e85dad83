"""The fast lane's server: what the extension is told of it, and what follows its files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authz.config import Config, Lane
from authz.config.addresses import socket_path
from authz.engine import Engine, FastLane
from authz.server.fast.tls import FastTls
from authz.server.file_limit import connections_of_each
from authz.server.sockets import prepare, private
from authz.server.tls_files import read_tls
from authz.telemetry import Logger

__all__ = ["FastServer"]


@dataclass(frozen=True, slots=True)
class FastServer:
    """The listeners of the fast lane."""

    lane: FastLane
    """The extension's server."""
    tls: FastTls
    """What follows its TLS files."""
    names: tuple[str, ...]
    """Its listeners."""

    @staticmethod
    def open(config: Config, engine: Engine, log: Logger) -> "FastServer | None":
        """Bind its listeners, and serve.

        Args:
            config: The configuration.
            engine: The engine that answers.
            log: Told of TLS files, and where there are too few files for all connections.

        Returns:
            The server; none where no listener is of the fast lane.

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
            told: dict[str, Any] = {"name": name, "address": address}
            if listener.tls is not None:
                files = read_tls(listener.tls)
                followed[name] = (listener.tls, files)
                told["tls"] = files.texts()
            listeners.append(told)
        if not listeners:
            return None
        settings = {
            "listeners": listeners,
            **config.limits.fast_lane_settings(),
            "connections": _affordable(config, log),
        }
        with private(shared=True):
            lane = FastLane(engine, settings)
        names = tuple(told["name"] for told in listeners)
        return FastServer(lane, FastTls(lane.renew_tls, followed, log), names)

    @property
    def addresses(self) -> dict[str, str]:
        """Bound addresses, by listener."""
        return dict(zip(self.names, self.lane.addresses, strict=True))

    def start(self) -> None:
        """Begin to follow the TLS files."""
        self.tls.start()

    def close(self, grace: float) -> None:
        """Drain and stop.

        Args:
            grace: Seconds that calls in flight may take.
        """
        self.tls.close()
        self.lane.close(grace)


def _affordable(config: Config, log: Logger) -> int:
    """Lower the connections of each listener to what the process may open files for."""
    said = config.limits.connections
    most = connections_of_each(len(config.listeners.decisions))
    if said > most:
        log.warning(
            "the process may not open enough files for `limits.connections`: raise its limit (LimitNOFILE of systemd, ulimit -n)",
            connections=said,
            instead=most,
        )
    return min(said, most)
