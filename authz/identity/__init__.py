"""Whose credentials are believed: trust sources, read, fetched and kept fresh."""

from authz.identity.addresses import Reach
from authz.identity.fetch import Fetcher, FetchError, Request, WebTls
from authz.identity.refresh import Outcome, Refresher, SourceStands, Words
from authz.identity.remote import Document, Get, RemoteSource, remote_sources
from authz.identity.sources import (
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
