"""TLS files of the fast lane: read each second, and given to the listener when they change."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from authz.config import Tls
from authz.errors import AuthzError
from authz.model import MetricFamily, MetricKind
from authz.periodic import PeriodicThread
from authz.server.tls_files import TlsFiles, read_tls
from authz.telemetry import Logger

__all__ = ["FastTls"]

_SECONDS: Final = 1.0
# A certificate and its key are two files: between the two writes of a renewal they do not belong together.
_PATIENCE: Final = 3

Renew = Callable[[str, bytes, bytes, bytes | None], None]
"""Gives a listener other files: name of the listener, certificate, key and client authorities."""


class FastTls:
    """Follows the TLS files of every listener of the fast lane.

    Args:
        renew: Gives a listener other files; raises `AuthzError` where they are refused.
        listeners: Paths of each listener, and the files that it started with.
        log: Receives a line when files are replaced or refused.
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
        self._thread = PeriodicThread("fast-tls", self.look, _SECONDS, self._log_failure)

    def start(self) -> None:
        """Start the thread, where there are files to follow."""
        if self._listeners:
            self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._thread.close()

    def look(self) -> None:
        """Read the files of all listeners once."""
        for name in self._listeners:
            self._look_at(name)

    def problems(self) -> tuple[str, ...]:
        """Return one line for each listener whose new files are refused."""
        return tuple(
            f"the TLS files of listener `{name}` are refused, the files before stay in use ({error})"
            for name, error in sorted(self._errors.items())
        )

    def detail(self) -> list[dict[str, Any]]:
        """Return each listener as JSON values, without keys."""
        return [
            {
                "listener": name,
                "renewed": self._counts[name, "ok"],
                "error": self._errors.get(name, ""),
            }
            for name in self._listeners
        ]

    def families(self) -> Iterator[MetricFamily]:
        """Yield every metric; labels are names of the configuration."""
        name = "authz_fast_tls_reloads"
        yield MetricFamily(
            name,
            "Times that changed TLS files of a listener of the fast lane were read, by result.",
            MetricKind.COUNTER,
            tuple(
                (f"{name}_total", {"listener": listener, "result": result}, float(count))
                for (listener, result), count in self._counts.items()
            ),
        )

    def _log_failure(self, error: BaseException) -> None:
        self._log.error("following the TLS files failed; trying again", error=repr(error))

    def _look_at(self, name: str) -> None:
        try:
            files = read_tls(self._listeners[name], self._serving[name])
            if files == self._serving[name]:
                self._refusals[name] = 0
                self._log_change(name, "")
                return
            self._renew(name, files.certificate, files.key, files.client_ca)
        except AuthzError as refusal:
            self._refusals[name] += 1
            if self._refusals[name] >= _PATIENCE:
                self._log_change(name, str(refusal))
            return
        self._serving[name] = files
        self._refusals[name] = 0
        self._counts[name, "ok"] += 1
        self._log_change(name, "")
        self._log.info("TLS files are renewed", listener=name)

    def _log_change(self, name: str, error: str) -> None:
        before = self._errors.pop(name, "")
        if error:
            self._errors[name] = error
        if error and error != before:
            self._counts[name, "refused"] += 1
            what = "TLS files are refused; the files before stay in use"
            self._log.error(what, listener=name, error=error)
        if before and not error:
            self._log.info("TLS files are accepted again", listener=name)
