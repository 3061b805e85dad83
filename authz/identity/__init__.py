"""Whose credentials are believed: trust sources, read, fetched and kept fresh."""

from authz.identity.fetch import Fetcher, FetchError
from authz.identity.refresh import Outcome, Refresher, SourceStands
from authz.identity.remote import remote_sources
from authz.identity.sources import (
    SourceKey,
    TrustFiles,
    place_of,
    read_trust,
    trust_spec,
    withdrawn,
)

__all__ = [
    "FetchError",
    "Fetcher",
    "Outcome",
    "Refresher",
    "SourceKey",
    "SourceStands",
    "TrustFiles",
    "place_of",
    "read_trust",
    "remote_sources",
    "trust_spec",
    "withdrawn",
]
