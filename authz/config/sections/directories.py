"""`directories`: how the directories that a bundle names by URL are fetched."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from authz.config.findings import Finding
from authz.config.sections.sources import network_findings
from authz.config.types import Duration, FilePath, Strict, Text

__all__ = ["Directories", "DirectoryRefresh", "directory_findings"]


class DirectoryRefresh(Strict):
    """Intervals of the fetches of directories."""

    min: Annotated[Duration, Field(ge=1, le=86_400)] = 60.0
    """Shortest time between two successful fetches, also if the source names a shorter one."""
    max: Annotated[Duration, Field(ge=1, le=604_800)] = 3600.0
    """Longest time between two fetches, and never longer than half of the directory's `max_age`."""
    timeout: Annotated[Duration, Field(ge=0.1, le=60)] = 10.0
    """Longest time of one whole fetch."""


class Directories(Strict):
    """Fetches of the directories that a bundle names by URL."""

    ca_file: FilePath | None = None
    """Authorities of the servers of the URLs, PEM. Default: those of the system."""
    allow_private: bool = False
    """The hosts of the URLs may have addresses of private networks, or loopback."""
    allow_networks: tuple[Text, ...] = Field(default=(), max_length=64)
    """Networks, such as `10.1.0.0/16`, whose addresses may be asked, beside public ones."""
    refresh: DirectoryRefresh = DirectoryRefresh()
    """Intervals of the fetches."""


def directory_findings(directories: Directories) -> Iterator[Finding]:
    """Yield errors of `directories` that the types cannot express."""
    yield from network_findings(("directories",), directories.allow_networks)
    if directories.refresh.min > directories.refresh.max:
        what = "of `directories`, `refresh.min` is longer than `refresh.max`."
        yield Finding(("directories", "refresh"), what, "Swap them.")
