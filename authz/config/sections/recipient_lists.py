"""`recipient_lists`: how the recipient lists that a bundle names by URL are fetched."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from authz.config.findings import Finding
from authz.config.sections.sources import network_findings
from authz.config.types import Duration, FilePath, Strict, Text

__all__ = ["RecipientListRefresh", "RecipientLists", "recipient_list_findings"]


class RecipientListRefresh(Strict):
    """Intervals of the fetches of recipient lists."""

    min: Annotated[Duration, Field(ge=1, le=86_400)] = 60.0
    """Shortest time between two successful fetches, also if the source names a shorter one."""
    max: Annotated[Duration, Field(ge=1, le=604_800)] = 3600.0
    """Longest time between two fetches, and never longer than half of the recipient list's `max_age`."""
    timeout: Annotated[Duration, Field(ge=0.1, le=60)] = 10.0
    """Longest time of one whole fetch."""


class RecipientLists(Strict):
    """Fetches of the recipient lists that a bundle names by URL."""

    ca_file: FilePath | None = None
    """Authorities of the servers of the URLs, PEM. Default: those of the system."""
    allow_private: bool = False
    """The hosts of the URLs may have addresses of private networks, or loopback."""
    allow_networks: tuple[Text, ...] = Field(default=(), max_length=64)
    """Networks, such as `10.1.0.0/16`, whose addresses may be asked, beside public ones."""
    refresh: RecipientListRefresh = RecipientListRefresh()
    """Intervals of the fetches."""


def recipient_list_findings(recipient_lists: RecipientLists) -> Iterator[Finding]:
    """Yield errors of `recipient_lists` that the types cannot express."""
    yield from network_findings(("recipient_lists",), recipient_lists.allow_networks)
    if recipient_lists.refresh.min > recipient_lists.refresh.max:
        what = "of `recipient_lists`, `refresh.min` is longer than `refresh.max`."
        yield Finding(("recipient_lists", "refresh"), what, "Swap them.")
