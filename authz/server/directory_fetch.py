"""Fetches the directories that the bundle names by URL, and keeps them fresh.

The bundle says what is fetched; the configuration says from which addresses anything may be.
"""

import hashlib
import ipaddress
from typing import Final

from authz.config import Directories as Settings
from authz.config import Refresh
from authz.config.urls import shown
from authz.engine import DirectoryEntries, Plan
from authz.model import Directory
from authz.server.runtime_state import RuntimeState
from authz.telemetry import Logger
from authz.trust import (
    Document,
    FetchDocument,
    FetchRequest,
    Reach,
    Refresher,
    RefreshEvents,
    RemoteSource,
    SourceKey,
    SourceStatus,
    WebVerifier,
)

__all__ = ["DirectoryFetcher"]

_MAX_BYTES: Final = 64 << 20
_THREADS: Final = 2
_WORDS: Final = RefreshEvents(
    "a directory was fetched",
    "a directory was not fetched",
    "a directory is too old and was dropped: it trusts nothing",
)


class DirectoryFetcher:
    """Fetches what the bundle that serves names, and nothing else.

    Args:
        settings: What may be asked, and how often.
        runtime: Told of what was fetched.
        get: Fetches a document.
        log: Says what came of it.
    """

    def __init__(
        self, settings: Settings, runtime: RuntimeState, get: FetchDocument, log: Logger
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._get = get
        self._named: dict[SourceKey, Directory] = {}
        self._refresher = Refresher((), self, log, words=_WORDS, threads=_THREADS)
        runtime.follow(self._follow)

    def start(self) -> None:
        """Begin."""
        self._refresher.start()

    def close(self) -> None:
        """End."""
        self._refresher.close()

    def statuses(self) -> dict[str, SourceStatus]:
        """Tell how each directory stands that is fetched.

        Returns:
            By its name.
        """
        return {status.key.name: status for status in self._refresher.statuses()}

    def _follow(self, plan: Plan) -> None:
        named = {_key(directory): directory for directory in plan.directories if directory.url}
        self._named = named
        self._refresher.replace([self._source(key, one) for key, one in named.items()])

    def _source(self, key: SourceKey, directory: Directory) -> RemoteSource:
        settings = self._settings
        networks = tuple(ipaddress.ip_network(network) for network in settings.allow_networks)
        request = FetchRequest(
            directory.url,
            Reach(private=settings.allow_private, networks=networks),
            WebVerifier(settings.ca_file),
            settings.refresh.timeout,
            _MAX_BYTES,
            "text/csv, text/plain",
        )

        def fetch(_: object) -> Document:
            return self._get(request)

        return RemoteSource(key, shown(directory.url), self._refresh(directory), fetch)

    def _refresh(self, directory: Directory) -> Refresh:
        bounds, age = self._settings.refresh, directory.max_age or 0.0
        # One that is fetched once in the time that it may count would be stale for a while now and then.
        longest = max(bounds.min, min(bounds.max, age / 2))
        return Refresh.model_construct(
            min=bounds.min, max=longest, max_staleness=age, timeout=bounds.timeout
        )

    # --- what is told by the refresh

    def current(self, key: SourceKey) -> str | None:
        """Give nothing: what was fetched is not kept.

        Args:
            key: The directory.
        """

    def renew(self, key: SourceKey, document: str) -> bool:
        """Put what was fetched in the place of what was.

        Args:
            key: The directory.
            document: What was fetched.

        Returns:
            Whether anything changed.

        Raises:
            BundleError: It cannot be read whole; what was before goes on counting.
        """
        directory = self._named.get(key)
        if directory is None:
            return False
        digest = hashlib.sha256(document.encode()).digest()
        known = self._runtime.snapshot.fetched.get(directory.name)
        if known is not None and known.is_of(directory) and known.digest == digest:
            entries = known.entries
        else:
            entries = DirectoryEntries.read(document, directory.column)
        return self._runtime.put_directory(directory, digest, entries)

    def drop(self, key: SourceKey) -> None:
        """Forget what was fetched.

        Args:
            key: The directory.
        """
        directory = self._named.get(key)
        if directory is not None:
            self._runtime.drop_directory(directory)


def _key(directory: Directory) -> SourceKey:
    return SourceKey(
        "directory", directory.name, f"{directory.max_age} {directory.column} {directory.url}"
    )
