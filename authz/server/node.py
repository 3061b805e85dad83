"""A node: it starts the services of a configuration, waits for signals, and stops them."""

import gc
import signal
from collections.abc import Mapping
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Final

from authz import __version__
from authz.config import Config
from authz.engine import build_profile
from authz.server.build import build_node
from authz.server.runtime_state import RuntimeState
from authz.server.service import close_all, drain_all, start_all
from authz.server.service_manager import READY, STOPPING, notify
from authz.telemetry import Logger

__all__ = ["Node"]

_LOOK_SECONDS: Final = 5.0


class Node:
    """One Authz node.

    Args:
        config: The checked configuration.
        log: The log of the node.

    Raises:
        AuthzError: The node cannot be built: an address is taken, the audit cannot be opened, bundle or keys are refused.
    """

    def __init__(self, config: Config, log: Logger) -> None:
        self._log = log
        self._commands: SimpleQueue[str] = SimpleQueue()
        self._is_closed = False
        self._parts = build_node(config, log)
        self._config = self._parts.config

    @property
    def addresses(self) -> Mapping[str, str]:
        """Bound addresses, by listener."""
        return self._parts.addresses

    @property
    def runtime(self) -> RuntimeState:
        """Bundle and keys."""
        return self._parts.runtime

    def start(self) -> None:
        """Open every listener."""
        # Objects of the start-up live as long as the node. Frozen, they cost no garbage collection while calls wait.
        gc.collect()
        gc.freeze()
        start_all(self._parts.services)
        self._log_listeners()
        self._log_changes()
        self._log.info("ready", version=__version__, build_profile=build_profile())
        notify(READY)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. SIGHUP loads bundle and keys again.

        The main thread waits here, in Python, so that signals are handled.
        """

        def on_signal(number: int, _frame: FrameType | None) -> None:
            self._commands.put("reload" if number == signal.SIGHUP else "stop")

        handlers = {
            number: signal.signal(number, on_signal)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        try:
            self.start()
            while (command := self._next_command()) != "stop":
                if command == "reload":
                    self._parts.runtime.reload()
                self._log_changes()
        finally:
            self.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def close(self) -> None:
        """Refuse new calls, let calls in flight end, flush the audit, and free everything. Closing twice is not an error."""
        if self._is_closed:
            return
        self._is_closed = True
        grace = self._config.shutdown_grace_period
        self._log.info("stopping", grace_seconds=grace)
        notify(STOPPING)
        drain_all(self._parts.services, grace, self._log)
        close_all(self._parts.services, self._log)
        self._log.info("stopped")

    def _next_command(self) -> str:
        try:
            return self._commands.get(timeout=_LOOK_SECONDS)
        except Empty:
            return "look"

    def _log_changes(self) -> None:
        self._parts.mode_reminder.remind()
        self._parts.readiness_log.log_changes()

    def _log_listeners(self) -> None:
        for name, address in self.addresses.items():
            self._log.info("listening", listener=name, address=address)
        for name, listener in self._config.listeners.decisions.items():
            if listener.insecure_dev:
                self._log.warning(
                    "insecure_dev: every caller that reaches this address may ask about every system",
                    listener=name,
                )
