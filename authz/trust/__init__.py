"""Whose credentials are believed: trust sources, read, fetched and kept fresh."""

from authz.trust.addresses import Reach
from authz.trust.fetch import Fetcher, FetchError, Request, WebTls
from authz.trust.refresh import Outcome, Refresher, SourceStands, Words
from authz.trust.remote import Document, Get, RemoteSource, remote_sources
from authz.trust.sources import (
    SourceKey,
    TrustFiles,
    place_of,
    read_trust,
    trust_spec,
    withdrawn,
)

__all__ = [
    "Document",
    "FetchError",
    "Fetcher",
    "Get",
    "Outcome",
    "Reach",
    "Refresher",
    "RemoteSource",
    "Request",
    "SourceKey",
    "SourceStands",
    "TrustFiles",
    "WebTls",
    "Words",
    "place_of",
    "read_trust",
    "remote_sources",
    "trust_spec",
    "withdrawn",
]
