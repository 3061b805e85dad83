"""Trust: the keys of issuers and trust domains whose credentials are accepted.

`sources` reads sources that are files and writes the engine's JSON. `remote` makes the sources that are fetched, by `fetch` (HTTPS,
from the addresses that `addresses` permits) or `spiffe` (bundle endpoints, Workload API). `refresh` keeps them fresh.
`id_tokens` verifies what an issuer says to our own client of a person; a caller imports it itself.
"""

from authz.trust.addresses import Reach
from authz.trust.fetch import Document, Fetcher, FetchError, FetchRequest, WebVerifier
from authz.trust.refresh import Refresher, RefreshEvents, RefreshOutcome, SourceStatus
from authz.trust.remote import (
    FetchDocument,
    RemoteSource,
    described_request,
    discovery_request,
    read_description,
    remote_sources,
)
from authz.trust.sources import (
    SourceKey,
    place_of,
    read_trust,
    trust_spec,
    withdrawn,
)

__all__ = [
    "Document",
    "FetchDocument",
    "FetchError",
    "FetchRequest",
    "Fetcher",
    "Reach",
    "RefreshEvents",
    "RefreshOutcome",
    "Refresher",
    "RemoteSource",
    "SourceKey",
    "SourceStatus",
    "WebVerifier",
    "described_request",
    "discovery_request",
    "place_of",
    "read_description",
    "read_trust",
    "remote_sources",
    "trust_spec",
    "withdrawn",
]
