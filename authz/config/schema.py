"""Every key of the configuration, with its type, default and meaning."""

import re
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
)
from pydantic.json_schema import WithJsonSchema
from pydantic_core import PydanticCustomError

__all__ = [
    "LATER",
    "Audit",
    "Broker",
    "BrokerKind",
    "BrokeredSystem",
    "Bundle",
    "BundleProfile",
    "BundleSource",
    "Config",
    "Credentials",
    "DecisionListener",
    "Dpop",
    "Enforcer",
    "Envoy",
    "Grant",
    "HttpApiListener",
    "Identity",
    "Injection",
    "Issuer",
    "KeySource",
    "Lane",
    "Lifetimes",
    "Limits",
    "Listener",
    "Listeners",
    "Log",
    "LogFormat",
    "LogLevel",
    "Pkcs11",
    "Privilege",
    "Refresh",
    "Relay",
    "SigningAlgorithm",
    "SigningKeys",
    "SourceRefresh",
    "Tls",
    "Trust",
    "TrustDomain",
    "TrustSource",
    "json_schema",
]

LATER: Final = "x-not-in-this-version"
"""Mark of a key that stands in the schema, and is refused when used."""

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)")


def _seconds(value: object) -> object:
    """Read `200ms`, `10s`, `5m`, `1h`, `7d`."""
    if isinstance(value, float):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        kind, message = "duration", "a duration is a number and a unit: 200ms, 10s, 5m, 1h, 7d"
        raise PydanticCustomError(kind, message)
    return float(match[1]) * _UNITS[match[2]]


def _spelled(seconds: float) -> str:
    """Write a duration as it is read."""
    return f"{seconds:g}s" if seconds >= 1 or not seconds else f"{seconds * 1000:g}ms"


Duration = Annotated[
    float,
    BeforeValidator(_seconds),
    PlainSerializer(_spelled, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$", "format": "duration"}),
]
"""Seconds; written as a number and a unit."""
FilePath = Annotated[
    str, StringConstraints(min_length=1), WithJsonSchema({"type": "string", "format": "path"})
]
"""A path; relative ones start at the folder of the file that says it, else at the working folder."""
Address = Annotated[
    str, StringConstraints(min_length=1), WithJsonSchema({"type": "string", "format": "address"})
]
"""`host:port`, `[::1]:port`, or `unix:///path`."""
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
"""A name of an entry: lower case."""
Text = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
"""A text that is not empty."""
SystemId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,255}$")]
"""A system, as the bundle calls it."""
Identifier = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f.]{1,63}$")]
"""A name of PostgreSQL's, as it is stored: without quotes, in its own case, without a dot."""
QualifiedName = Annotated[
    str, StringConstraints(pattern=r"^[^\x00-\x1f.]{1,63}\.[^\x00-\x1f.]{1,63}$")
]
"""Schema and name."""
HeaderName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9!#$%&'*+.^_`|~-]{1,128}$")]
"""A header's name, in lower case."""


def _later(meaning: str) -> Any:
    """Make a key of later work.

    Args:
        meaning: What it will mean.

    Returns:
        The field.
    """
    return Field(
        default=None,
        description=f"{meaning} Not in this version.",
        json_schema_extra={LATER: True},
    )


class _Strict(BaseModel):
    """No unknown keys, no conversions, no change."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


class Bundle(_Strict):
    """The folder of policy and facts."""

    path: FilePath
    """Folder of the bundle."""
    watch: bool = True
    """Load again when a file of the bundle or a trust source changes."""
    source: Any = _later("Where signed bundles are fetched from.")
    keys: Any = _later("Keys that bundles must be signed with.")


class Refresh(_Strict):
    """How fetched keys are kept fresh."""

    min: Annotated[Duration, Field(ge=1, le=86_400)] = 60.0
    """Shortest time between two fetches that went well, whatever the source says."""
    max: Annotated[Duration, Field(ge=1, le=604_800)] = 3600.0
    """Longest time between two fetches; a source that says nothing is asked every 5 minutes."""
    max_staleness: Annotated[Duration, Field(ge=2, le=2_592_000)] = 86_400.0
    """Keys that could not be fetched again for so long are dropped: every credential of that source is refused."""
    timeout: Annotated[Duration, Field(ge=0.1, le=60)] = 10.0
    """How long one fetch may take, all of it."""


class SourceRefresh(_Strict):
    """How the keys of one source are kept fresh; what is not said is as in `trust.refresh`."""

    min: Annotated[Duration, Field(ge=1, le=86_400)] | None = None
    """Shortest time between two fetches that went well."""
    max: Annotated[Duration, Field(ge=1, le=604_800)] | None = None
    """Longest time between two fetches."""
    max_staleness: Annotated[Duration, Field(ge=2, le=2_592_000)] | None = None
    """Keys that could not be fetched again for so long are dropped."""
    timeout: Annotated[Duration, Field(ge=0.1, le=60)] | None = None
    """How long one fetch may take."""

    def over(self, common: Refresh) -> Refresh:
        """Fill in what is not said.

        Args:
            common: `trust.refresh`.

        Returns:
            What counts for the source.
        """
        return Refresh.model_construct(**{**dict(common), **self.model_dump(exclude_none=True)})


class TrustSource(_Strict):
    """Where keys come from."""

    file: FilePath | None = None
    """A file, watched."""
    url: Text | None = None
    """Fetched from this https URL. Redirects are not followed."""
    ca_file: FilePath | None = None
    """Authorities that may vouch for the server of the URL, PEM; none: those of the system."""
    allow_private: bool = False
    """The host of the URL may have an address of a private network, or loopback."""
    allow_networks: tuple[Text, ...] = Field(default=(), max_length=64)
    """Networks, such as `10.1.0.0/16`, whose addresses may be fetched from beside public ones."""
    insecure_dev: bool = False
    """Plain http to loopback, for development."""
    refresh: SourceRefresh = SourceRefresh()
    """How fetched keys are kept fresh."""


class KeySource(TrustSource):
    """Where the keys of an issuer come from; nothing said: OpenID Connect discovery."""

    discovery: bool | None = None
    """Find the keys by `<issuer>/.well-known/openid-configuration`, whose `issuer` must be exactly this one."""


class BundleProfile(StrEnum):
    """How a bundle endpoint proves who it is."""

    HTTPS_WEB = "https_web"
    HTTPS_SPIFFE = "https_spiffe"


class BundleSource(TrustSource):
    """Where the bundle of a trust domain comes from: one of `file`, `url`, `workload_api`."""

    profile: BundleProfile = BundleProfile.HTTPS_WEB
    """How the endpoint at `url` proves who it is: a certificate of the web, or an X.509-SVID."""
    endpoint_spiffe_id: Text | None = None
    """SPIFFE ID of the endpoint, with `https_spiffe`; it is verified by the bundle of its own trust domain."""
    bootstrap_file: FilePath | None = None
    """With `https_spiffe` and an endpoint of this very domain: the bundle by which the first fetch is verified."""
    workload_api: Address | None = None
    """Socket of the SPIFFE Workload API, `unix:///path`; needs the extra `workload`."""
    sequence_epoch: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Raise it by one where the publisher began to count `spiffe_sequence` anew: older numbers are then accepted once more."""


class TrustDomain(_Strict):
    """One SPIFFE trust domain."""

    bundle: BundleSource
    """Its SPIFFE bundle (JWKS with `use`); an empty one makes the whole domain invalid."""


class SubjectKind(StrEnum):
    """What the subjects of an issuer are."""

    USER = "user"
    SERVICE = "service"


class SubjectProfile(StrEnum):
    """The kind of an issuer's tokens, by which they are judged."""

    JWT = "jwt"
    ACCESS_TOKEN = "access_token"  # noqa: S105 (a name, no secret)


class Issuer(_Strict):
    """Whoever issues subject tokens: the people and services on whose behalf agents act.

    A token with `may_act` serves only the agent whose SPIFFE ID is its `sub`, its only member; one with `act` is refused.
    """

    issuer: Text
    """The exact `iss` of its tokens."""
    audience: tuple[Text, ...] = Field(default=(), max_length=16)
    """A token must be for one of these; required."""
    alone_audience: tuple[Text, ...] = Field(default=(), max_length=16)
    """Audiences of tokens that only the subject itself holds, and never an agent or a tool server. A subject that shows such
    a token without an agent is alone: its prompt counts as the user's word, and it reads and ends its own tasks. Beside an
    agent the token is refused. No value may stand in `audience` or in `identity.audiences`."""
    alone_bound: bool = False
    """The issuer binds tokens (`cnf`) only to keys of the subjects themselves, and never to a key of an agent. A subject that
    shows such a token and proves its key, without an agent, is alone."""
    algorithms: tuple[Text, ...] = Field(default=(), max_length=16)
    """Signature algorithms that are accepted, such as ES256; required."""
    jwks: KeySource = KeySource()
    """Its keys; none of `file`, `url` given: OpenID Connect discovery."""
    subject: SubjectKind = SubjectKind.USER
    """What its subjects are."""
    claims: tuple[Text, ...] = Field(default=(), max_length=32)
    """Claims that the bundle may read."""
    profile: SubjectProfile = SubjectProfile.JWT
    """The kind of its tokens: OAuth access tokens (RFC 9068, `typ: at+jwt`), or other JWTs such as ID tokens; none passes
    for the other."""
    typ: tuple[Text, ...] | None = Field(default=None, max_length=8)
    """Accepted `typ` headers under the profile `jwt`; none given: JWT or absent."""


class Trust(_Strict):
    """Whose credentials are believed."""

    domains: dict[str, TrustDomain] = Field(default_factory=dict, max_length=1000)
    """SPIFFE trust domains, by name."""
    issuers: dict[str, Issuer] = Field(default_factory=dict, max_length=1000)
    """Issuers of subject tokens, by the alias that bundles use."""
    leeway: Annotated[Duration, Field(ge=0, le=60)] = 5.0
    """How far clocks may differ: those of issuers, and with `state.engine: postgresql` this node's from the database's (1s at
    least); beyond, the node denies and is not ready."""
    max_lifetime: Annotated[Duration, Field(gt=0)] | None = None
    """Tokens that live longer are refused; none: no limit."""
    refresh: Refresh = Refresh()
    """How fetched keys are kept fresh, where a source does not say otherwise."""


class Identity(_Strict):
    """Who we are, to those who send us credentials."""

    audiences: tuple[Text, ...] = Field(default=(), max_length=16)
    """A JWT-SVID must be for one of these: our own names."""


class Relay(StrEnum):
    """A fact about the caller that an enforcer may relay."""

    PRINCIPAL = "principal"
    TASK = "task"
    CONFIDENCE = "confidence"
    LABELS = "labels"
    PROMPT = "prompt"
    SESSION = "session"


class ReportWay(StrEnum):
    """How an enforcer tells what came of what it was permitted."""

    SDK = "sdk"
    ACCESS_LOG = "access_log"


class Enforcer(_Strict):
    """Whoever may ask about others: a TLS peer (`match`) or a unix socket (`listener`)."""

    name: Name
    """Its name, in policies and records."""
    match: Text | None = None
    """SPIFFE ids of the TLS peers that are this enforcer: `*` stands for one whole path segment, and of several that match,
    the most specific counts. Needs a listener with `client_ca_file`."""
    listener: Name | None = None
    """The unix-socket listener that is this enforcer: the mode of its folder is the control."""
    asks: tuple[Text, ...] = Field(default=(), max_length=1000)
    """Systems it may ask about: `system:crm`, or `system:*`; required."""
    relays: tuple[Relay, ...] = Field(default=(), max_length=8)
    """Facts about the agent that are believed on its word. `principal`: who it is, as Envoy verified it on its own mTLS
    connection (`source.principal`). `labels`: which labels of the bundle a call carries, by the request's `labels` or, of a
    proxy, by `labels` of the namespace `authz` in its metadata. `prompt`: what a user wrote, beside that user's token; such an
    enforcer is a front end, and no entry of the bundle's `agents` may match it. `session`: the context of the agent's session,
    by the request's `session_context` or, of a proxy, by `session_context` of the namespace `authz` in its metadata; likewise a
    front end. `task`, `confidence`: not in this version."""
    uids: tuple[int, ...] = Field(default=(), max_length=64)
    """User ids of the processes that may be this enforcer, with `listener` on the fast lane: any other process is refused.
    Required where `listener` goes with `prompt` or `session` in `relays`."""
    reports: ReportWay | None = None
    """How it tells what came of what it was permitted. `sdk`: by `Report`. `access_log`: by Envoy's access log service. It is
    believed where the bundle says the same of the system (`reports`)."""


class Tls(_Strict):
    """TLS of a listener."""

    cert_file: FilePath | None = None
    """Certificate chain, PEM."""
    key_file: FilePath | None = None
    """Private key, PEM."""
    client_ca_file: FilePath | None = None
    """Callers must show a certificate that one of these authorities signed, PEM. On a listener of decisions it must be an
    X.509-SVID of a trust domain, against whose own authorities it is verified again on each call; it says who asks."""


class Listener(_Strict):
    """An address that is served."""

    address: Address
    """`host:port` or `unix:///path`."""
    tls: Tls | None = None
    """TLS; needed on TCP unless `insecure_dev`."""

    @property
    def is_mutual(self) -> bool:
        """Callers must show a certificate."""
        return self.tls is not None and self.tls.client_ca_file is not None


class Lane(StrEnum):
    """Which server answers."""

    PYTHON = "python"
    FAST = "fast"


class DecisionListener(Listener):
    """An address where decisions are asked for: `authz.v1.Authorizer` and Envoy's `Authorization`."""

    lane: Lane = Lane.PYTHON
    """`python` answers everything, `fast` only Check, Report and Envoy's Check, at a fraction of the cost; for a front end
    that is known by its user (`uids`) also Tasks.Start and Tasks.Extend."""
    insecure_dev: bool = False
    """Plain TCP on loopback, for development: whoever reaches it may ask about every system."""


class AdminListener(Listener):
    """Status, Reload and Explain; a unix socket that only its owner can open."""


class MetricsListener(Listener):
    """HTTP: `/metrics`, `/healthz`, `/readyz`."""


class HttpApiListener(Listener):
    """HTTP of the task credentials: keys (JWKS), metadata, token exchange, introspection, revocation."""

    insecure_dev: bool = False
    """Plain HTTP on loopback, for development: tokens travel in plain text, and no client can show a certificate."""
    max_body_bytes: int = Field(default=262_144, ge=4096, le=8_388_608)
    """Largest body of a request; larger: 413."""
    max_connections: int = Field(default=256, ge=1, le=65_536)
    """Connections at once. One more closes the oldest whose request has not come whole; where all have come: 429."""
    timeout: Annotated[Duration, Field(ge=0.1, le=60)] = 5.0
    """A request whose headers and body have not come by then is refused: 408."""


class Listeners(BaseModel):
    """Addresses, by name; `admin`, `metrics` and `http` have a fixed meaning, all others answer decisions."""

    model_config = ConfigDict(
        extra="allow", strict=True, frozen=True, use_attribute_docstrings=True
    )
    __pydantic_extra__: dict[str, DecisionListener] = Field(init=False)

    admin: AdminListener | None = None
    """Administration, on a unix socket."""
    metrics: MetricsListener | None = MetricsListener(address="127.0.0.1:8282")
    """Metrics and health over HTTP; null: none."""
    approvals: Any = _later("The page where people decide.")
    http: HttpApiListener | None = None
    """JWKS, token exchange, introspection and revocation over HTTP."""

    @property
    def decisions(self) -> dict[str, DecisionListener]:
        """The listeners that answer decisions."""
        return dict(self.__pydantic_extra__)


class Audit(_Strict):
    """The record of every decision: JSON lines."""

    path: FilePath | None = None
    """File that records are appended to; required to serve."""
    queue: int = Field(default=65_536, ge=16, le=10_000_000)
    """Records that may wait to be written; full: deny."""
    queue_bytes: int = Field(default=67_108_864, ge=65_536, le=17_179_869_184)
    """Bytes of records that may wait to be written; full: deny."""
    sync_interval: Annotated[Duration, Field(ge=0.001, le=60)] = 1.0
    """Records of tiers low and standard reach the disk at least this often; those of higher tiers at once."""
    max_wait: Annotated[Duration, Field(ge=0.001, le=60)] = 2.0
    """Longest wait for the disk, where the caller's deadline is later; then: deny."""
    unverified_refusals: int = Field(default=10, ge=1, le=1_000_000_000)
    """Records a minute of refusals of callers of whom nothing was verified, for each peer and reason code. Further ones are
    counted in one record of their sum, so that nobody fills the disk without a credential."""


class StateEngine(StrEnum):
    """What keeps tasks."""

    EMBEDDED = "embedded"
    POSTGRESQL = "postgresql"
    MEMORY = "memory"


class State(_Strict):
    """Where tasks and revocations are kept."""

    engine: StateEngine = StateEngine.EMBEDDED
    """`embedded`: a folder of this node alone, which survives a crash. `postgresql`: a database that several nodes share.
    `memory`: nothing outlives the process."""
    path: FilePath | None = None
    """The folder of the embedded one; none given: `state` beside the audit file."""
    dsn: Text | None = None
    """Connection string of the PostgreSQL database: `postgresql://user@host/name?sslmode=verify-full&sslrootcert=…`, or
    libpq's `key=value` form; a secret. A host that is neither a socket nor loopback needs `sslrootcert` or
    `sslmode=disable`."""
    connections: int = Field(default=8, ge=1, le=1_000)
    """Connections to the database that answer requests."""
    max_wait: Annotated[Duration, Field(ge=0.001, le=60)] = 2.0
    """Longest wait for the store, where the caller's deadline is later; then: deny."""
    revocation_staleness: Annotated[Duration, Field(ge=0.001, le=60)] = 1.0
    """How old what a node knows of revocations elsewhere may be; older: it denies, and is not ready."""
    report_within: Annotated[Duration, Field(ge=0.001, le=86_400)] = 60.0
    """After so long without a report a permitted operation counts as done."""
    retention: Annotated[Duration, Field(ge=1, le=31_622_400)] = 86_400.0
    """How long ended tasks are kept; then they are unknown."""
    max_tasks: int = Field(default=250_000, ge=1, le=10_000_000)
    """Most tasks, live and ended; full: OVERLOADED."""
    max_tasks_per_agent: int = Field(default=10_000, ge=1, le=1_000_000)
    """Most live tasks of one agent; full: OVERLOADED."""
    max_tasks_per_session: int = Field(default=1_000, ge=1, le=1_000_000)
    """Most tasks of one tree, live and ended; full: OVERLOADED."""


class SigningAlgorithm(StrEnum):
    """What signs task credentials."""

    ES256 = "ES256"
    EDDSA = "EdDSA"


class Lifetimes(_Strict):
    """How long a task credential lives at most, by the tier of what was permitted."""

    low: Annotated[Duration, Field(ge=1, le=86_400)] = 900.0
    """Of tier low."""
    standard: Annotated[Duration, Field(ge=1, le=86_400)] = 300.0
    """Of tier standard."""
    high: Annotated[Duration, Field(ge=1, le=86_400)] = 120.0
    """Of tier high."""
    critical: Annotated[Duration, Field(ge=1, le=86_400)] = 60.0
    """Of tier critical."""


class Pkcs11(_Strict):
    """A token of PKCS#11, such as an HSM, that keeps the private keys; needs the extra `pkcs11`."""

    module: FilePath
    """The vendor's library."""
    token_label: Text
    """Label of the token."""
    pin_file: FilePath
    """File with the user's PIN; nobody but its owner may read it."""
    key_label: Text = "authz"
    """Label of the keys in the token that are ours; others are left alone."""


class SigningKeys(_Strict):
    """The keys of this node that sign task credentials."""

    folder: FilePath | None = None
    """Folder of private keys, one PEM file each (PKCS#8), mode 0700 with files of 0600; none given: `keys` beside the audit
    file. Each node has its own."""
    algorithm: SigningAlgorithm = SigningAlgorithm.ES256
    """What new keys are for."""
    generate: bool = True
    """Make keys when there is none, and for rotation; false: only those that are put there are used."""
    rotation: Annotated[Duration, Field(ge=60, le=31_622_400)] = 86_400.0
    """How long a key signs before the next one does."""
    jwks_max_age: Annotated[Duration, Field(ge=1, le=86_400)] = 300.0
    """How long others may keep our JWKS: a new key is published so long before it signs."""
    pkcs11: Pkcs11 | None = None
    """Keep the keys in a PKCS#11 token instead of a folder."""


class Dpop(_Strict):
    """Proofs of possession by DPoP (RFC 9449)."""

    window: Annotated[Duration, Field(ge=1, le=600)] = 60.0
    """How far `iat` of a proof may be from our clock."""
    max_proofs_per_key: int = Field(default=4096, ge=1, le=10_000)
    """Proofs of one key that are remembered at once, so that none is used twice; full: OVERLOADED."""
    require_nonce: bool = False
    """Each proof must carry a nonce that we gave; otherwise only those do that are older than the start of the
    node and, with `state.engine: memory`, those dated ahead of our clock."""


class Privilege(StrEnum):
    """A privilege of PostgreSQL."""

    SELECT = "SELECT"
    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    TRUNCATE = "TRUNCATE"
    REFERENCES = "REFERENCES"
    TRIGGER = "TRIGGER"
    USAGE = "USAGE"
    CREATE = "CREATE"


class Grant(_Strict):
    """What a leased role may do: privileges on one of `tables`, `sequences`, `schemas`.

    To use the schemas of its tables and sequences, and to connect to the database, comes with it.
    """

    privileges: tuple[Privilege, ...] = Field(min_length=1, max_length=9)
    """On tables SELECT, INSERT, UPDATE, DELETE, TRUNCATE; on sequences USAGE, SELECT, UPDATE; on schemas USAGE, CREATE."""
    tables: tuple[QualifiedName, ...] = Field(default=(), max_length=1000)
    """Tables and views, `schema.table`; `schema.*`: all that the schema holds at the time."""
    columns: tuple[Identifier, ...] = Field(default=(), max_length=1000)
    """Only these columns of each table, for SELECT, INSERT and UPDATE."""
    sequences: tuple[QualifiedName, ...] = Field(default=(), max_length=1000)
    """Sequences, `schema.sequence`."""
    schemas: tuple[Identifier, ...] = Field(default=(), max_length=1000)
    """Schemas."""
    database: Identifier | None = None
    """The database that holds them; none: that of `dsn_file`."""


class BrokeredSystem(_Strict):
    """A system that knows no tokens, and is reached with a leased secret."""

    operations: dict[str, Annotated[tuple[Grant, ...], Field(min_length=1, max_length=100)]] = (
        Field(min_length=1, max_length=1000)
    )
    """What a lease for each operation may do; an operation that is not here has none."""


class BrokerKind(StrEnum):
    """What makes the secrets."""

    POSTGRESQL = "postgresql"


class Broker(_Strict):
    """Makes a secret for each lease, and takes it back when the task ends: a login role of PostgreSQL."""

    kind: BrokerKind
    """`postgresql`; needs the extra `postgresql`."""
    dsn_file: FilePath
    """File that holds the connection string of a role that may create roles: `postgresql://user:password@host/name?sslmode=…`.
    Only its owner may read it, or root's group; it is read anew for each connection."""
    systems: dict[str, BrokeredSystem] = Field(min_length=1, max_length=1000)
    """The systems whose secrets it makes."""
    connections: int = Field(default=4, ge=1, le=1000)
    """Connections that the role of one lease may hold."""
    max_connections: int | None = Field(default=None, ge=1, le=262_143)
    """Connections that the roles of all leases of the server may hold together; a lease that may go beyond is not made. Of what
    the others leave, the leases of one agent may hold half. Default: half of what the server gives to ordinary roles."""
    temporary_tables: bool = False
    """Leased roles may create temporary tables."""
    reassign_to: Identifier | None = None
    """Not valid any more: what a leased role made is dropped with it, since it would run with the rights of its new owner."""
    timeout: Annotated[Duration, Field(ge=0.1, le=60)] = 5.0
    """How long making or taking back one secret may take, all of it; what is not removed by then is tried again."""


class Injection(_Strict):
    """A standing secret that requests get on permit; no agent ever holds it."""

    systems: tuple[SystemId, ...] = Field(min_length=1, max_length=1000)
    """The systems that are reached with it."""
    header: HeaderName
    """The header that carries it, in lower case; the agent's own header of that name never passes."""
    secret_file: FilePath
    """File that holds the header's value. Only its owner may read it, or root's group; it is loaded again when it changes."""


class Credentials(_Strict):
    """Task credentials: short-lived tokens that exist because of one permit, and end with their task."""

    issuer: Text
    """Our `iss`: an https URL without query or fragment, at which others find `listeners.http`."""
    audiences: dict[str, Text] = Field(default_factory=dict, max_length=10_000)
    """`aud` of a credential for each system; not listed: the system's id."""
    lifetime: Lifetimes = Lifetimes()
    """How long a credential lives at most; the task's deadline may end it earlier."""
    keys: SigningKeys = SigningKeys()
    """What signs them."""
    dpop: Dpop = Dpop()
    """Proofs of possession by DPoP."""
    brokers: dict[str, Broker] = Field(default_factory=dict, max_length=64)
    """Who makes secrets for systems that know no tokens, one for each lease."""
    injections: dict[str, Injection] = Field(default_factory=dict, max_length=64)
    """Standing secrets of systems that know no tokens: requests get them on permit, agents never."""


class Envoy(_Strict):
    """How Envoy's `Authorization` is answered."""

    error_response: bool = False
    """Answer failures of our own, time-outs and overload with `error_response`, not with a denial. The proxy's
    `failure_mode_allow` then decides, and may let the request through.
    """


class Limits(_Strict):
    """What one node may use; whatever is over a limit is denied with its own reason code."""

    threads: int = Field(default=4, ge=1, le=64)
    """Threads of each listener of the Python lane that decide; more than 8 seldom helps."""
    queue: int = Field(default=256, ge=1, le=65_536)
    """Calls of one listener of the Python lane that may wait for a thread; full: OVERLOADED."""
    connections: int = Field(default=1024, ge=16, le=1_000_000)
    """Connections of one listener, or its share of the files that the process may open, if that is less; one more is closed. Of
    what the others leave, one peer may have half. A peer is an IP address (of IPv6 the /64 network) or the user at a unix socket,
    and on the fast lane the identity in a client certificate."""
    handshake_timeout: Annotated[Duration, Field(ge=0.1, le=60)] = 5.0
    """How long a TLS handshake and the start of HTTP/2 may take."""
    idle_timeout: Annotated[Duration, Field(ge=1, le=86_400)] = 300.0
    """A connection that had no call for so long is closed; its caller opens another one."""
    unreceived_calls: int = Field(default=64, ge=4, le=4096)
    """Calls of one listener of the Python lane whose messages are received at once, each of 16 MiB at most; others wait. Of what
    the others leave, one peer may have half: the identity in a client certificate, or an IP address; all callers of a unix socket
    are one peer. A receipt for whose place others wait is given up after 100ms: OVERLOADED."""
    max_message_bytes: int = Field(default=1_048_576, ge=4096, le=8_388_608)
    """Largest request that is read; larger: BAD_INPUT."""
    max_concurrent_streams: int = Field(default=1024, ge=16, le=65_536)
    """Calls in flight on one connection."""
    receive_timeout: Annotated[Duration, Field(ge=0.1, le=60)] = 5.0
    """A call whose message has not come by then, counted from the arrival of its headers, is denied: DEADLINE."""
    default_deadline: Annotated[Duration, Field(ge=0.01, le=60)] = 2.0
    """Deadline of a call that sets none."""
    max_arguments_bytes: int = Field(default=262_144, ge=256, le=8_388_608)
    """Longest arguments; longer: BAD_INPUT."""
    max_token_bytes: int = Field(default=8192, ge=512, le=65_536)
    """Longest credential."""
    token_cache: int = Field(default=65_536, ge=0, le=10_000_000)
    """Verified tokens that are remembered, and as many certificates."""
    probe_rate: int = Field(default=100, ge=0, le=1_000_000)
    """Requests in mode PROBE a second, of one caller."""
    probe_burst: int = Field(default=200, ge=0, le=1_000_000)
    """Requests in mode PROBE that one caller may send at once."""
    ready_after: Annotated[Duration, Field(ge=0.1, le=60)] = 1.0
    """The node is not ready while three probes in a row of one listener waited longer than this for the threads that answer."""
    access_log_streams: int = Field(default=64, ge=1, le=1024)
    """Open streams of access logs on one listener, each with a thread of its own; one more: OVERLOADED. An Envoy opens one for each of its
    worker threads."""
    fast_threads: int = Field(default=2, ge=1, le=256)
    """Threads of each listener of the fast lane, which no other listener uses; all listeners together may have 1,024."""
    fast_concurrency: int = Field(default=2048, ge=1, le=1_000_000)
    """Calls in flight on one listener of the fast lane, their request received or not; one more: OVERLOADED. Of what the others
    leave, one peer may have half."""
    bundle_max_bytes: int = Field(default=67_108_864, ge=1024, le=1_073_741_824)
    """Largest bundle, all files together."""
    bundle_max_files: int = Field(default=10_000, ge=1, le=1_000_000)
    """Most files of a bundle."""


class LogLevel(StrEnum):
    """What is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How it is logged."""

    JSON = "json"
    TEXT = "text"


class Log(_Strict):
    """The log of the node, on standard error; decisions are in the audit."""

    level: LogLevel = LogLevel.INFO
    """Least level that is logged."""
    format: LogFormat = LogFormat.JSON
    """`json` for machines, `text` for people."""


class DirectoryRefresh(_Strict):
    """How fetched directories are kept fresh."""

    min: Annotated[Duration, Field(ge=1, le=86_400)] = 60.0
    """Shortest time between two fetches that went well, whatever the source says."""
    max: Annotated[Duration, Field(ge=1, le=604_800)] = 3600.0
    """Longest time between two fetches, and never longer than half of the directory's `max_age`."""
    timeout: Annotated[Duration, Field(ge=0.1, le=60)] = 10.0
    """How long one fetch may take, all of it."""


class Directories(_Strict):
    """How the directories are fetched that a bundle names by URL."""

    ca_file: FilePath | None = None
    """Authorities that may vouch for the servers of the URLs, PEM; none: those of the system."""
    allow_private: bool = False
    """The hosts of the URLs may have addresses of private networks, or loopback."""
    allow_networks: tuple[Text, ...] = Field(default=(), max_length=64)
    """Networks, such as `10.1.0.0/16`, whose addresses may be fetched from beside public ones."""
    refresh: DirectoryRefresh = DirectoryRefresh()
    """How fetched directories are kept fresh."""


class Config(_Strict):
    """Configuration of one Authz node."""

    node: Annotated[str, StringConstraints(max_length=255)] = ""
    """Name of this node in records."""
    bundle: Bundle
    """The folder of policy and facts."""
    trust: Trust = Trust()
    """Whose credentials are believed."""
    identity: Identity = Identity()
    """Who we are."""
    enforcers: tuple[Enforcer, ...] = Field(default=(), max_length=1000)
    """Whoever may ask about others; everyone else may ask only about itself."""
    listeners: Listeners = Listeners()
    """Addresses that are served."""
    vars: dict[str, str] = Field(default_factory=dict, max_length=1000)
    """Values of `${…}` in the bundle."""
    directories: Directories = Directories()
    """How the directories are fetched that the bundle names by URL."""
    audit: Audit = Audit()
    """The record of every decision."""
    limits: Limits = Limits()
    """What one node may use."""
    state: State = State()
    """Where tasks and revocations are kept."""
    envoy: Envoy = Envoy()
    """How Envoy's `Authorization` is answered."""
    log: Log = Log()
    """The log of the node."""
    shutdown_grace_period: Annotated[Duration, Field(ge=0, le=600)] = 10.0
    """How long calls in flight may take once the node stops."""
    topology: Any = _later("Whether one server decides all calls of a session.")
    providers: Any = _later("Coroutines that fetch facts which cannot be a snapshot.")
    mode: Any = _later("Softening by deployment.")
    credentials: Credentials | None = None
    """Task credentials; none: none are issued."""
    approvals: Any = _later("How people are asked to decide.")
    guards: Any = _later("Keys whose signed confidence is believed.")


def json_schema() -> dict[str, Any]:
    """Make the published JSON Schema.

    Returns:
        The schema (draft 2020-12).
    """
    schema = Config.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    for model, keys in (("Issuer", ("audience", "algorithms")), ("Enforcer", ("asks",))):
        required = schema["$defs"][model].setdefault("required", [])
        required.extend(key for key in keys if key not in required)
    return schema
