"""Whose credentials are believed: trust sources, read and compiled."""

from authz.identity.sources import TrustFiles, read_trust

__all__ = ["TrustFiles", "read_trust"]
