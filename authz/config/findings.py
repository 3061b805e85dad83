"""A defect of a configuration."""

from dataclasses import dataclass

from authz.config.document import Path

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect of a configuration that has the right shape."""

    path: Path
    """Where."""
    what: str
    """What is wrong, and what would follow."""
    mend: str
    """How to mend it."""
