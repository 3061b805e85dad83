"""Fetches the recipient lists that the bundle names by URL, and keeps them fresh.

The bundle names the URLs; the configuration limits the addresses that may be asked.
"""

import hashlib
import ipaddress
from typing import Final

from authz.config import RecipientLists as Settings
from authz.config import Refresh
from authz.config.urls import shown
from authz.engine import Plan, RecipientListEntries
from authz.model import RecipientList
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

__all__ = ["RecipientListFetcher"]

_MAX_BYTES: Final = 64 << 20
_THREADS: Final = 2
_WORDS: Final = RefreshEvents(
    "a recipient list was fetched",
    "a recipient list was not fetched",
    "a recipient list is too old and was dropped: its entries are not trusted",
    "a recipient list is too old and could not be dropped",
)


class RecipientListFetcher:
    """Fetches the recipient lists of the bundle that serves.

    Args:
        settings: Addresses that may be asked, and how often.
        runtime: Receives fetched recipient lists.
        get: Fetches a document.
        log: Receives the result of each fetch.
    """

    def __init__(
        self, settings: Settings, runtime: RuntimeState, get: FetchDocument, log: Logger
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._get = get
        self._recipient_lists: dict[SourceKey, RecipientList] = {}
        self._refresher = Refresher((), self, log, words=_WORDS, threads=_THREADS)
        runtime.follow(self._follow)

    def start(self) -> None:
        """Start the threads."""
        self._refresher.start()

    def close(self) -> None:
        """Stop the threads."""
        self._refresher.close()

    def statuses(self) -> dict[str, SourceStatus]:
        """Return the status of each recipient list that is fetched, by name."""
        return {status.key.name: status for status in self._refresher.statuses()}

    def _follow(self, plan: Plan) -> None:
        recipient_lists = {
            _key(recipient_list): recipient_list
            for recipient_list in plan.recipient_lists
            if recipient_list.url
        }
        self._recipient_lists = recipient_lists
        self._refresher.replace([self._source(*item) for item in recipient_lists.items()])

    def _source(self, key: SourceKey, recipient_list: RecipientList) -> RemoteSource:
        settings = self._settings
        networks = tuple(ipaddress.ip_network(network) for network in settings.allow_networks)
        request = FetchRequest(
            recipient_list.url,
            Reach(private=settings.allow_private, networks=networks),
            WebVerifier(settings.ca_file),
            settings.refresh.timeout,
            _MAX_BYTES,
            "text/csv, text/plain",
        )

        def fetch(_: object) -> Document:
            return self._get(request)

        return RemoteSource(key, shown(recipient_list.url), self._refresh(recipient_list), fetch)

    def _refresh(self, recipient_list: RecipientList) -> Refresh:
        bounds, age = self._settings.refresh, recipient_list.max_age or 0.0
        # Fetched only once in `max_age`, a recipient list would be stale for a while after each failure.
        longest = max(bounds.min, min(bounds.max, age / 2))
        return Refresh.model_construct(
            min=bounds.min, max=longest, max_staleness=age, timeout=bounds.timeout
        )

    # --- called by the refresh

    def current(self, key: SourceKey) -> str | None:
        """Return `None`: fetched documents are not kept."""

    def renew(self, key: SourceKey, document: str) -> bool:
        """Replace the entries of a recipient list by those of a fetched document; return whether they changed.

        Raises:
            BundleError: One entry is not valid. The entries before stay in use.
        """
        recipient_list = self._recipient_lists.get(key)
        if recipient_list is None:
            return False
        digest = hashlib.sha256(document.encode()).digest()
        before = self._runtime.snapshot.fetched.get(recipient_list.name)
        if before is not None and before.is_of(recipient_list) and before.digest == digest:
            entries = before.entries
        else:
            entries = RecipientListEntries.read(
                document, recipient_list.column, recipient_list.alias
            )
        return self._runtime.put_recipient_list(recipient_list, digest, entries)

    def drop(self, key: SourceKey) -> None:
        """Remove the entries of a recipient list."""
        recipient_list = self._recipient_lists.get(key)
        if recipient_list is not None:
            self._runtime.drop_recipient_list(recipient_list)


def _key(recipient_list: RecipientList) -> SourceKey:
    return SourceKey(
        "recipient_list",
        recipient_list.name,
        f"{recipient_list.max_age} {recipient_list.column} {recipient_list.alias} {recipient_list.url}",
    )
