"""TLS of the fast lane: certificates are read again when their files change."""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from authz.config import Tls
from authz.errors import AuthzError
from authz.model import MetricFamily, MetricKind
from authz.server.tls_files import TlsFiles, read_tls
from authz.telemetry import Logger

__all__ = ["FastTls"]

_SECONDS: Final = 1.0
# A certificate and its key are two files: between the two writes of a renewal they do not belong together.
_PATIENCE: Final = 3

Renew = Callable[[str, bytes, bytes, bytes | None], None]
"""Takes the name of a listener, certificate, key and client authorities."""


class FastTls:
    """A thread that reads the files of every TLS listener of the fast lane each second.

    Args:
        renew: Gives a listener other files; raises where they are refused.
        listeners: Where the files of each listener are, and what was read at the start.
        log: Told when files are replaced or refused.
    """

    def __init__(
        self, renew: Renew, listeners: Mapping[str, tuple[Tls, TlsFiles]], log: Logger
    ) -> None:
        self._renew = renew
        self._listeners = {name: tls for name, (tls, _) in listeners.items()}
        self._serving = {name: files for name, (_, files) in listeners.items()}
        self._log = log
        self._refusals = dict.fromkeys(listeners, 0)
        self._errors: dict[str, str] = {}
        self._counts = {(name, result): 0 for name in listeners for result in ("ok", "refused")}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="authz-fast-tls", daemon=True)

    def start(self) -> None:
        """Begin, where there are files to follow."""
        if self._listeners:
            self._thread.start()

    def close(self) -> None:
        """End, and wait for the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def look(self) -> None:
        """Read all files once."""
        for name in self._listeners:
            self._look_at(name)

    def problems(self) -> tuple[str, ...]:
        """Tell what is wrong.

        Returns:
            One line for each listener whose new files are refused.
        """
        return tuple(
            f"the TLS files of listener `{name}` are refused, those before go on serving ({error})"
            for name, error in sorted(self._errors.items())
        )

    def detail(self) -> list[dict[str, Any]]:
        """Tell how each listener stands; no key is shown.

        Returns:
            JSON values.
        """
        return [
            {
                "listener": name,
                "renewed": self._counts[name, "ok"],
                "error": self._errors.get(name, ""),
            }
            for name in self._listeners
        ]

    def families(self) -> Iterator[MetricFamily]:
        """Give the metrics.

        Yields:
            Every family; labels are the names of the configuration.
        """
        name = "authz_fast_tls_reloads"
        yield MetricFamily(
            name,
            "Times that changed TLS files of a listener of the fast lane were read, by what came of it.",
            MetricKind.COUNTER,
            tuple(
                (f"{name}_total", {"listener": listener, "result": result}, float(count))
                for (listener, result), count in self._counts.items()
            ),
        )

    def _run(self) -> None:
        while not self._stop.wait(_SECONDS):
            self.look()

    def _look_at(self, name: str) -> None:
        try:
            files = read_tls(self._listeners[name])
            if files == self._serving[name]:
                self._refusals[name] = 0
                self._tell(name, "")
                return
            self._renew(name, files.certificate, files.key, files.client_ca)
        except AuthzError as refused:
            self._refusals[name] += 1
            if self._refusals[name] >= _PATIENCE:
                self._tell(name, str(refused))
            return
        self._serving[name] = files
        self._refusals[name] = 0
        self._counts[name, "ok"] += 1
        self._tell(name, "")
        self._log.info("TLS files are renewed", listener=name)

    def _tell(self, name: str, error: str) -> None:
        before = self._errors.pop(name, "")
        if error:
            self._errors[name] = error
        if error and error != before:
            self._counts[name, "refused"] += 1
            what = "TLS files are refused; those before go on serving"
            self._log.error(what, listener=name, error=error)
        if before and not error:
            self._log.info("TLS files are well again", listener=name)
