"""Sources that are fetched: where from, and how often. Used by `trust` and `recipient_lists`."""

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field

from authz.config.document import Path
from authz.config.findings import Finding
from authz.config.types import Duration, FilePath, Strict, Text
from authz.config.urls import url_defect

__all__ = [
    "Refresh",
    "SourceRefresh",
    "TrustSource",
    "fetched_findings",
    "file_findings",
    "interval_findings",
    "network_findings",
    "several_sources",
    "web_findings",
]


class Refresh(Strict):
    """Intervals of the fetches of keys."""

    min: Annotated[Duration, Field(ge=1, le=86_400)] = 60.0
    """Shortest time between two successful fetches, also if the source names a shorter one."""
    max: Annotated[Duration, Field(ge=1, le=604_800)] = 3600.0
    """Longest time between two fetches. A source that names no time is asked every 5 minutes."""
    max_staleness: Annotated[Duration, Field(ge=2, le=2_592_000)] = 86_400.0
    """Keys that could not be fetched again for so long are dropped: every credential of that source is refused."""
    timeout: Annotated[Duration, Field(ge=0.1, le=60)] = 10.0
    """Longest time of one whole fetch."""


class SourceRefresh(Strict):
    """Intervals of the fetches of one source. Default: `trust.refresh`."""

    min: Annotated[Duration, Field(ge=1, le=86_400)] | None = None
    """Shortest time between two successful fetches."""
    max: Annotated[Duration, Field(ge=1, le=604_800)] | None = None
    """Longest time between two fetches."""
    max_staleness: Annotated[Duration, Field(ge=2, le=2_592_000)] | None = None
    """Keys that could not be fetched again for so long are dropped."""
    timeout: Annotated[Duration, Field(ge=0.1, le=60)] | None = None
    """Longest time of one whole fetch."""

    def over(self, common: Refresh) -> Refresh:
        """Return the intervals of the source, with those of `trust.refresh` as defaults."""
        return Refresh.model_construct(**{**dict(common), **self.model_dump(exclude_none=True)})


class TrustSource(Strict):
    """A source of keys."""

    file: FilePath | None = None
    """A file, watched."""
    url: Text | None = None
    """https URL that keys are fetched from. Redirects are not followed."""
    ca_file: FilePath | None = None
    """Authorities of the server of the URL, PEM. Default: those of the system."""
    allow_private: bool = False
    """The host of the URL may have an address of a private network, or loopback."""
    allow_networks: tuple[Text, ...] = Field(default=(), max_length=64)
    """Networks, such as `10.1.0.0/16`, whose addresses may be asked, beside public ones."""
    insecure_dev: bool = False
    """Plain http to loopback, for development."""
    refresh: SourceRefresh = SourceRefresh()
    """Intervals of the fetches."""


def several_sources(path: Path, of: str, given: Sequence[str]) -> Finding:
    """Return the error of a source with several places that keys come from."""
    keys = " and ".join(f"`{key}`" for key in given)
    return Finding(path, f"{of} has {keys}.", "Keep one: which keys count would be chance.")


def file_findings(path: Path, of: str, source: TrustSource) -> Iterator[Finding]:
    """Yield keys of a source that mean nothing where it is a file."""
    yield from web_findings(path, of, source, "a file")
    if source.refresh.model_fields_set:
        yield Finding(
            (*path, "refresh"), f"{of} has `refresh`, and is read from a file.", "Remove refresh."
        )


def web_findings(path: Path, of: str, source: TrustSource, what: str) -> Iterator[Finding]:
    """Yield keys of a source that mean nothing where it is not fetched over HTTPS."""
    for key in ("ca_file", "allow_private", "allow_networks", "insecure_dev"):
        if getattr(source, key):
            yield Finding(
                (*path, key), f"{of} has `{key}`, and is read from {what}.", f"Remove {key}."
            )


def fetched_findings(
    path: Path, of: str, source: TrustSource, refresh: Refresh, issuer: str | None = None
) -> Iterator[Finding]:
    """Yield errors of a source that is fetched: by its URL, or by discovery where an issuer is given."""
    url = source.url if issuer is None else issuer
    assert url is not None  # noqa: S101 - one of them is given
    where = (*path, "url") if issuer is None else (*path[:-1], "issuer")
    defect = url_defect(url, plain=source.insecure_dev)
    if defect is None and issuer is not None and "?" in issuer:
        defect = "has a query"
    if defect is not None:
        yield Finding(
            where,
            f"the keys of {of} cannot be fetched: their URL {defect}."
            if issuer is None
            else f"{of} has neither `jwks.file` nor `jwks.url`, and its `issuer` {defect}, "
            "so that its keys cannot be discovered.",
            "Use an https URL." if issuer is None else "Give jwks: {file: ...} or {url: ...}.",
        )
    elif source.insecure_dev and url.startswith("https:"):
        yield Finding(
            (*path, "insecure_dev"), f"{of} has https and `insecure_dev`.", "Remove insecure_dev."
        )
    if source.insecure_dev and source.ca_file is not None:
        yield Finding(
            (*path, "ca_file"), f"{of} has `ca_file` and `insecure_dev`.", "Remove one of them."
        )
    yield from network_findings(path, source.allow_networks)
    yield from interval_findings((*path, "refresh"), of, source.refresh.over(refresh))


def network_findings(path: Path, networks: Sequence[str]) -> Iterator[Finding]:
    """Yield entries of `allow_networks` that are not valid."""
    for index, network in enumerate(networks):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            yield Finding(
                (*path, "allow_networks", index),
                f"`{network}` is not a network.",
                "Write it as `10.1.0.0/16`, without bits of a host.",
            )


def interval_findings(path: Path, of: str, refresh: Refresh) -> Iterator[Finding]:
    """Yield intervals of a refresh that contradict each other."""
    if refresh.min > refresh.max:
        yield Finding(path, f"of {of}, `refresh.min` is longer than `refresh.max`.", "Swap them.")
    if refresh.max_staleness <= refresh.max + refresh.timeout:
        yield Finding(
            path,
            f"of {of}, `refresh.max_staleness` is not longer than `refresh.max` and `timeout` together: "
            "keys would be dropped between two fetches.",
            "Give a longer max_staleness, or a shorter max.",
        )
