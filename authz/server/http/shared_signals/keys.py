"""Keys of the transmitters: a file that is read for each token, or a JWKS that is fetched again and again."""

import ipaddress
import threading
from collections.abc import Iterable, Mapping
from typing import Final

from authz.config import Refresh, Transmitter
from authz.config.urls import shown
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
    WebVerifier,
)
from authz.trust.remote import read_object
from authz.trust.sources import read_document

__all__ = ["TransmitterKeys"]

_KIND: Final = "transmitter"
_WORDS: Final = RefreshEvents(
    "keys of a transmitter were refreshed",
    "keys of a transmitter were not refreshed",
    "keys of a transmitter are too old and were dropped: its events are refused",
    "keys of a transmitter are too old and could not be dropped",
)


class TransmitterKeys:
    """Holds the keys of each transmitter.

    Args:
        transmitters: The transmitters, by name.
        common: Intervals of the fetches, where a transmitter has none.
        get: Fetches a document.
        log: Receives the result of each fetch.
    """

    def __init__(
        self,
        transmitters: Mapping[str, Transmitter],
        common: Refresh,
        get: FetchDocument,
        log: Logger,
    ) -> None:
        self._files = {
            name: one.jwks.file for name, one in transmitters.items() if one.jwks.file is not None
        }
        self._documents: dict[str, str] = {}
        self._asked: set[str] = set()
        self._lock = threading.Lock()
        sources = [
            _source(name, one, common, get)
            for name, one in transmitters.items()
            if one.jwks.file is None
        ]
        self._refresher = Refresher(sources, self, log, unknown=self._take_asked, words=_WORDS)

    def start(self) -> None:
        """Start to fetch."""
        self._refresher.start()

    def close(self) -> None:
        """Stop the fetches."""
        self._refresher.close()

    def of(self, name: str) -> str:
        """Return the keys of a transmitter as JWKS; empty before the first fetch.

        Raises:
            OSError: The file cannot be read, or everybody could replace it.
            ValueError: The file is larger than 1 MiB, or not UTF-8.
        """
        file = self._files.get(name)
        return self._documents.get(name, "") if file is None else read_document(file)

    def ask_for(self, name: str) -> None:
        """Fetch the keys of a transmitter soon: a token named a key that is not among them."""
        if name not in self._files:
            with self._lock:
                self._asked.add(name)

    def _take_asked(self) -> Iterable[SourceKey]:
        with self._lock:
            asked, self._asked = self._asked, set()
        return [SourceKey(_KIND, name) for name in asked]

    # --- called by the refresh

    def current(self, key: SourceKey) -> str | None:
        """Return the keys of a transmitter in use; `None` where there never were any."""
        return self._documents.get(key.name)

    def renew(self, key: SourceKey, document: str) -> bool:
        """Replace the keys of a transmitter; return whether they changed."""
        changed = self._documents.get(key.name) != document
        self._documents[key.name] = document
        return changed

    def drop(self, key: SourceKey) -> None:
        """Remove the keys of a transmitter."""
        self._documents.pop(key.name, None)


def _source(
    name: str, transmitter: Transmitter, common: Refresh, get: FetchDocument
) -> RemoteSource:
    jwks, url = transmitter.jwks, transmitter.jwks.url or ""
    refresh = jwks.refresh.over(common)
    request = FetchRequest(
        url,
        Reach(
            private=jwks.allow_private,
            networks=tuple(ipaddress.ip_network(network) for network in jwks.allow_networks),
            loopback_only=jwks.insecure_dev,
        ),
        WebVerifier(jwks.ca_file),
        refresh.timeout,
    )

    def fetch(_: object) -> Document:
        document = get(request)
        read_object(document.text)
        return document

    return RemoteSource(SourceKey(_KIND, name), shown(url), refresh, fetch)
