"""Errors of a configuration that the types cannot express."""

from dataclasses import dataclass

from authz.config.document import Path

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One error of a configuration."""

    path: Path
    """The key."""
    what: str
    """The error and its consequence."""
    fix: str
    """The fix."""
