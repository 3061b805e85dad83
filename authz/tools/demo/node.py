"""The demo's own node: an `authz serve` in a process of its own."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

from authz.errors import UnavailableError

__all__ = ["NodeProcess"]

_START: Final = 120.0


class NodeProcess:
    """One `authz serve`.

    Args:
        config: Its configuration.
        log: File for its log.

    Raises:
        UnavailableError: It does not become ready.
    """

    def __init__(self, config: Path, log: Path) -> None:
        self.addresses: dict[str, str] = {}
        self.profile = ""
        self._log = log
        self._ready = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "authz", "serve", "--config", str(config)],
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(_START) or not self.profile:
            self.close()
            raise UnavailableError(f"the node does not start: {log.read_text()[-2000:]}")

    def close(self) -> None:
        """Stop it, and wait."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(5)

    def kill(self) -> None:
        """Kill it, as the machine might: it can write and tell nothing more."""
        self._process.kill()
        self._process.wait()
        self._reader.join(5)

    def _read(self) -> None:
        stream = self._process.stderr
        if stream is None:
            return
        with stream, self._log.open("w") as kept:
            for line in stream:
                kept.write(line)
                kept.flush()
                self._note(line)
        self._ready.set()

    def _note(self, line: str) -> None:
        try:
            event: dict[str, Any] = json.loads(line)
        except ValueError:
            return
        if event.get("event") == "listening":
            self.addresses[str(event["listener"])] = str(event["address"])
        elif event.get("event") == "ready":
            self.profile = str(event["build_profile"])
            self._ready.set()
