"""Fetches the directories that the bundle names by URL, and keeps them fresh.

The bundle names the URLs; the configuration limits the addresses that may be asked.
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
    "a directory is too old and was dropped: its entries are not trusted",
    "a directory is too old and could not be dropped",
)


class DirectoryFetcher:
    """Fetches the directories of the bundle that serves.

    Args:
        settings: Addresses that may be asked, and how often.
        runtime: Receives fetched directories.
        get: Fetches a document.
        log: Receives the result of each fetch.
    """

    def __init__(
        self, settings: Settings, runtime: RuntimeState, get: FetchDocument, log: Logger
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._get = get
        self._directories: dict[SourceKey, Directory] = {}
        self._refresher = Refresher((), self, log, words=_WORDS, threads=_THREADS)
        runtime.follow(self._follow)

    def start(self) -> None:
        """Start the threads."""
        self._refresher.start()

    def close(self) -> None:
        """Stop the threads."""
        self._refresher.close()

    def statuses(self) -> dict[str, SourceStatus]:
        """Return the status of each directory that is fetched, by name."""
        return {status.key.name: status for status in self._refresher.statuses()}

    def _follow(self, plan: Plan) -> None:
        directories = {
            _key(directory): directory for directory in plan.directories if directory.url
        }
        self._directories = directories
        self._refresher.replace([self._source(*item) for item in directories.items()])

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
        # Fetched only once in `max_age`, a directory would be stale for a while after each failure.
        longest = max(bounds.min, min(bounds.max, age / 2))
        return Refresh.model_construct(
            min=bounds.min, max=longest, max_staleness=age, timeout=bounds.timeout
        )

    # --- called by the refresh

    def current(self, key: SourceKey) -> str | None:
        """Return `None`: fetched documents are not kept."""

    def renew(self, key: SourceKey, document: str) -> bool:
        """Replace the entries of a directory by those of a fetched document; return whether they changed.

        Raises:
            BundleError: One entry is not valid. The entries before stay in use.
        """
        directory = self._directories.get(key)
        if directory is None:
            return False
        digest = hashlib.sha256(document.encode()).digest()
        before = self._runtime.snapshot.fetched.get(directory.name)
        if before is not None and before.is_of(directory) and before.digest == digest:
            entries = before.entries
        else:
            entries = DirectoryEntries.read(document, directory.column)
        return self._runtime.put_directory(directory, digest, entries)

    def drop(self, key: SourceKey) -> None:
        """Remove the entries of a directory."""
        directory = self._directories.get(key)
        if directory is not None:
            self._runtime.drop_directory(directory)


def _key(directory: Directory) -> SourceKey:
    return SourceKey(
        "directory", directory.name, f"{directory.max_age} {directory.column} {directory.url}"
    )
