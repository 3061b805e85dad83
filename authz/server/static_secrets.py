"""Static secrets (`credentials.static_secrets`), read from their files."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from authz.config import Credentials, StaticSecret
from authz.files import PrivateFileError, read_secret
from authz.model import MetricFamily, MetricKind
from authz.telemetry import Logger

__all__ = ["StaticSecrets", "credential_settings"]


class StaticSecrets:
    """The static secrets of systems that accept no tokens.

    Args:
        settings: Their settings, by name.
        log: Receives a line when a secret cannot be read, and when it can again.
    """

    def __init__(self, settings: Mapping[str, StaticSecret], log: Logger) -> None:
        self._settings = dict(settings)
        self._log = log
        self._secrets: dict[str, str | None] = {}
        self._errors: dict[str, str] = {}
        self._digest = b""

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that hold static secrets."""
        return tuple(Path(static_secret.secret_file) for static_secret in self._settings.values())

    def refresh(self) -> bool:
        """Read the secrets again; return whether any of them changed.

        A secret that cannot be read any more is missing; its value from before is not used.
        """
        digest = hashlib.sha256()
        for name, static_secret in self._settings.items():
            value, error = None, ""
            try:
                value = read_secret(static_secret.secret_file)
            except PrivateFileError as refusal:
                error = str(refusal)
            self._secrets[name] = value
            self._log_change(name, error)
            digest.update(hashlib.sha256(repr((name, value)).encode()).digest())
        before, self._digest = self._digest, digest.digest()
        return before != self._digest

    def _log_change(self, name: str, error: str) -> None:
        before = self._errors.pop(name, "")
        if error:
            self._errors[name] = error
        if error and error != before:
            what = "a static secret cannot be read: its systems cannot be reached"
            self._log.error(what, static_secret=name, error=error)
        if before and not error:
            self._log.info("a static secret can be read again", static_secret=name)

    def by_system(self) -> dict[str, dict[str, str | None]]:
        """Return `header` and `value` for each system; the value is `None` if it cannot be read."""
        return {
            system: {"header": static_secret.header, "value": self._secrets.get(name)}
            for name, static_secret in self._settings.items()
            for system in static_secret.systems
        }

    def problems(self) -> tuple[str, ...]:
        """Return one line for each secret that cannot be read."""
        return tuple(
            f"the static secret `{name}` cannot be read ({error})"
            for name, error in sorted(self._errors.items())
        )

    def detail(self) -> list[dict[str, Any]]:
        """Return each secret as JSON values, without its value."""
        return [
            {
                "static_secret": name,
                "systems": list(static_secret.systems),
                "header": static_secret.header,
                "from": static_secret.secret_file,
                "readable": self._secrets.get(name) is not None,
                "error": self._errors.get(name, ""),
            }
            for name, static_secret in self._settings.items()
        ]

    def families(self) -> Iterator[MetricFamily]:
        """Yield every metric; labels are names of the configuration."""
        name = "authz_static_secret_readable"
        yield MetricFamily(
            name,
            "1 where a static secret can be read, else 0: then its systems are out of reach.",
            MetricKind.GAUGE,
            tuple(
                (
                    name,
                    {"static_secret": static_secret},
                    float(self._secrets.get(static_secret) is not None),
                )
                for static_secret in self._settings
            ),
        )


def credential_settings(settings: Credentials, static_secrets: StaticSecrets) -> dict[str, Any]:
    """Return the engine's settings of task credentials, as its JSON. They hold secrets."""
    return {**settings.engine_settings(), "static_secrets": static_secrets.by_system()}
