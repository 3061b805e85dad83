"""`audit.sinks`: places away from this machine to which audit records are delivered."""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints

from authz.config.document import Path
from authz.config.findings import Finding
from authz.config.sections.sources import network_findings
from authz.config.types import ENTRY_NAME, Duration, FilePath, Strict, Text
from authz.config.urls import url_defect

__all__ = [
    "TABLE_NAME",
    "AuditHttp",
    "AuditOtel",
    "AuditPostgresql",
    "AuditS3",
    "AuditServer",
    "AuditSink",
    "sink_findings",
]

TABLE_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}\.[a-z_][a-z0-9_]{0,62}")
"""Schema and name of a table."""

_KINDS: Final = ("http", "s3", "otel", "postgresql")


class AuditServer(Strict):
    """A server that takes records, and the rules under which it is asked."""

    ca_file: FilePath | None = None
    """File of the certificate authorities of the server, PEM. Default: the authorities of the system."""
    allow_private: bool = False
    """Whether the host of the URL may have an address of a private network or of loopback."""
    allow_networks: tuple[Text, ...] = Field(default=(), max_length=64)
    """Networks, such as `10.1.0.0/16`, whose addresses the host may have besides public addresses."""


class AuditHttp(AuditServer):
    """A URL that takes batches of records by POST."""

    url: Text
    """URL that takes the batches: https, or http on loopback. Redirects are not followed."""
    authorization_file: FilePath | None = None
    """File that holds the value of the `authorization` header, for example `Bearer …`. Only its owner may read it, or root's group. It is
    read before each request. Default: no such header."""


class AuditOtel(AuditServer):
    """An OpenTelemetry collector that takes records as log records (OTLP over HTTP). It needs the extra `otel`."""

    endpoint: Text
    """Full URL of the collector's endpoint of logs, for example `https://collector.corp.example:4318/v1/logs`: https, or http on loopback."""
    authorization_file: FilePath | None = None
    """File that holds the value of the `authorization` header. Only its owner may read it, or root's group. It is read before each
    request. Default: no such header."""


class ObjectLockMode(StrEnum):
    """Mode of an object lock."""

    GOVERNANCE = "governance"
    COMPLIANCE = "compliance"


class AuditObjectLock(Strict):
    """Lock of each object, so that nobody can remove or replace it. The bucket must have object lock enabled."""

    mode: ObjectLockMode = ObjectLockMode.COMPLIANCE
    """`compliance`: nobody can shorten it. `governance`: principals with a permission of their own can."""
    retention: Annotated[Duration, Field(ge=86_400, le=3_153_600_000)]
    """Time for which an object is locked after its delivery; required."""


class AuditS3(AuditServer):
    """A bucket of an S3-compatible store. It needs the extra `s3`."""

    endpoint: Text
    """URL of the store, for example `https://s3.eu-central-1.amazonaws.com`: https, or http on loopback. Buckets are addressed by path."""
    bucket: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    """Name of the bucket."""
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,64}$")]
    """Region that requests are signed for. Use that of the bucket; stores without regions take `us-east-1`."""
    prefix: Annotated[
        str, StringConstraints(pattern=r"^([0-9A-Za-z._-]+/){0,16}$", max_length=512)
    ] = ""
    """Prefix of keys; it ends in a slash, for example `authz/`. The name of the node follows it."""
    credentials_file: FilePath
    """File with the access key, in the form of the shared credentials file of AWS. Only its owner may read it, or root's group. It is read
    before each request."""
    profile: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z._-]{1,64}$")] = "default"
    """Section of the file."""
    object_lock: AuditObjectLock | None = None
    """Lock of each object. Default: the node locks none; the bucket may have a default lock."""


class AuditPostgresql(Strict):
    """A table of a PostgreSQL database, to which batches are added as rows. It needs the extra `postgresql`."""

    dsn_file: FilePath
    """File that holds the connection string of a role that may add rows and do nothing else: `postgresql://user:password@host/name?sslmode=…`.
    Only its owner may read it, or root's group; it is read anew for each connection."""
    table: Annotated[str, StringConstraints(pattern=f"^{TABLE_NAME.pattern}$")] = (
        "authz_audit.batches"
    )
    """Schema and name of the table. The node does not create it."""


class AuditSink(Strict):
    """A place to which audit records are delivered, at least once and in order. It has one kind: `http`, `s3`, `otel` or `postgresql`."""

    http: AuditHttp | None = None
    """A URL that takes batches of records by POST."""
    s3: AuditS3 | None = None
    """A bucket of an S3-compatible store. It needs the extra `s3`."""
    otel: AuditOtel | None = None
    """An OpenTelemetry collector that takes records as log records (OTLP over HTTP). It needs the extra `otel`."""
    postgresql: AuditPostgresql | None = None
    """A table of a PostgreSQL database, to which batches are added as rows. It needs the extra `postgresql`."""
    batch_bytes: int = Field(default=1_048_576, ge=4_096, le=16_777_216)
    """Size at which a batch is delivered, in bytes before compression."""
    batch_age: Annotated[Duration, Field(ge=0.1, le=3_600)] = 5.0
    """Time after which a smaller batch is delivered, too."""
    timeout: Annotated[Duration, Field(ge=0.1, le=300)] = 10.0
    """Longest time of one delivery."""
    max_age: Annotated[Duration, Field(ge=1, le=2_678_400)] = 300.0
    """Age of the oldest record that is not delivered from which readiness warns."""
    required: bool = False
    """Whether the node is not ready while a record older than `max_age` is not delivered. Decisions go on."""

    @property
    def kind(self) -> str:
        """The kind of a sink without errors."""
        return next(kind for kind in _KINDS if getattr(self, kind) is not None)


def sink_findings(sinks: Mapping[str, AuditSink]) -> Iterator[Finding]:
    """Yield errors of `audit.sinks` that the types cannot express."""
    for name, sink in sinks.items():
        path: Path = ("audit", "sinks", name)
        if not ENTRY_NAME.fullmatch(name):
            yield Finding(
                path,
                f"`{name}` is not a name of a sink.",
                "Begin with a lower-case letter; then letters, digits, `_` and `-`, at most 63 characters.",
            )
        kinds = [kind for kind in _KINDS if getattr(sink, kind) is not None]
        if len(kinds) != 1:
            given = " and ".join(f"`{kind}`" for kind in kinds) or "no kind"
            yield Finding(
                path,
                f"sink `{name}` has {given}: it delivers to one place.",
                "Give one of " + ", ".join(f"`{kind}`" for kind in _KINDS) + ".",
            )
        if sink.http is not None:
            yield from _server_findings((*path, "http", "url"), name, sink.http.url, sink.http)
        if sink.s3 is not None:
            endpoint = sink.s3.endpoint
            yield from _server_findings((*path, "s3", "endpoint"), name, endpoint, sink.s3)
        if sink.otel is not None:
            endpoint = sink.otel.endpoint
            yield from _server_findings((*path, "otel", "endpoint"), name, endpoint, sink.otel)


def _server_findings(path: Path, name: str, url: str, server: AuditServer) -> Iterator[Finding]:
    defect = url_defect(url, plain=True)
    if defect is None and path[-2:] == ("s3", "endpoint") and urlsplit(url).query:
        defect = "has a query"
    if defect is not None:
        yield Finding(
            path,
            f"the URL of sink `{name}` {defect}.",
            "Use an https URL, or http on loopback.",
        )
    yield from network_findings(path[:-1], server.allow_networks)
