"""Kernel, verification and fast lane, compiled from Rust.

Bytes in, bytes out: requests and answers are protobuf messages as they go over the wire. Every function lets other
threads run while it works; no Rust thread ever calls Python.
"""

from collections.abc import Mapping, Sequence
from typing import final

from authz.model import CallFacts

__all__ = [
    "ApiError",
    "BundleError",
    "Engine",
    "EngineError",
    "Entries",
    "FastLane",
    "Plan",
    "SigningKey",
    "Trust",
    "TrustError",
    "accepted_algorithms",
    "build_profile",
    "bundle_schema",
    "case_schema",
    "format_policy",
    "is_usable_key",
    "prompt_names",
    "reason_table",
    "seal_catalog",
]

class BundleError(ValueError):
    """A bundle was refused."""

    diagnostics: str
    """JSON array of `{severity, file, line, column, what, mend}`."""

class TrustError(ValueError):
    """Trust sources were refused; the text says where and how to mend each."""

class EngineError(RuntimeError):
    """The engine or its fast lane could not be set up."""

class ApiError(Exception):
    """A call that answers no decision was refused.

    `grpc_code` is a `google.rpc.Code`; `reason_code` the reason's name in the proto without its prefix; `message` what
    happened, fit for the caller; `step` the step of the decision that refused, empty where it was none.
    """

    grpc_code: int
    reason_code: str
    message: str
    step: str

@final
class Plan:
    """A compiled bundle. Immutable."""

    name: str
    revision: str
    digest: str
    """SHA-256 of the bundle's files, in hex."""
    warnings: str
    """JSON array, as `BundleError.diagnostics`."""
    observing: str
    """JSON array of `mode`'s entries that observe: scope, name, owner, until_ms."""
    harnesses: list[str]
    """Roles of agents that relay their users' prompts."""
    directories: str
    """JSON array of the bundle's directories: name, file or url, column, max_age_seconds, entries, trusted."""
    operation_count: int
    policy_count: int
    systems: list[str]

    def early_stops(self, now_ms: int) -> str:
        """Requests that `mode` enforces where they stop early: JSON object of agents and systems."""

    @staticmethod
    def compile(
        files: Mapping[str, bytes],
        vars: Mapping[str, str],
        now_ms: int,
        previous: Plan | None = None,
    ) -> Plan:
        """Compiles a bundle.

        Args:
            files: Content by path relative to the bundle folder.
            vars: What fills `${…}`.
            now_ms: Unix time in milliseconds: what `mode` observes ends at most 90 days from then.
            previous: The plan served so far; policies that did not change are not validated again.

        Raises:
            BundleError: The bundle is refused.
        """

    def renewal(self, before: Plan) -> str:
        """What becomes of the progress of sequences and budgets where the plan follows another.

        Args:
            before: The plan that served.

        Returns:
            JSON object: carried (a count), changed, added, removed (names, each with its kind).
        """

    def tools(self) -> str:
        """Tools of MCP systems, and how far the review of each has come.

        Returns:
            JSON array of `{system, tool, operation, digest, accepted, reviewed, drifted, effects, tier, cases, file,
            line}`.
        """

    def test(self, files: Mapping[str, bytes], now_ms: int) -> bytes:
        """Runs case files against the plan.

        Args:
            files: Case files by path.
            now_ms: The time of every decision, in milliseconds since 1970.

        Returns:
            A JSON report.

        Raises:
            BundleError: A case file is refused.
        """

    def eval(self, request_json: bytes, now_ms: int) -> bytes:
        """Judges one request whose principals are asserted, not verified; for tools only.

        Args:
            request_json: `{as, operation | call, input, …}`, as a step of a case file.
            now_ms: The time of the decision, in milliseconds since 1970.

        Returns:
            The decision with its detail, as JSON.

        Raises:
            BundleError: The request is refused.
        """

@final
class Entries:
    """Who is in a directory that was fetched. Immutable; only digests are kept."""

    @staticmethod
    def read(text: bytes, column: str | None = None) -> Entries:
        """Reads a directory.

        Args:
            text: UTF-8.
            column: Of a CSV file with a header; None: each line is an entry.

        Raises:
            ValueError: It cannot be read whole; says why, without a word of it.
        """

    def __len__(self) -> int: ...

@final
class SigningKey:
    """A private key that signs credentials. Immutable."""

    @staticmethod
    def from_pkcs8(der: bytes) -> SigningKey:
        """Reads a private key of P-256 or Ed25519.

        Args:
            der: PKCS#8 (RFC 5208), not encrypted.

        Raises:
            ValueError: It is none that can be used; says nothing of it.
        """

    def sign(self, message: bytes) -> bytes:
        """Signs.

        Args:
            message: Not yet hashed.

        Returns:
            64 bytes, as JWS has them (RFC 7518 §3.4, RFC 8037 §3.1).

        Raises:
            RuntimeError: The signature could not be made.
        """

@final
class Trust:
    """Compiled trust sources. Immutable."""

    revision: str
    """Digest of the key set."""
    warnings: str
    """JSON array of `{place, what}`."""
    domains: str
    """JSON array of `{domain, from, keys, authorities, sequence, rolled_back, refresh_hint}`."""
    issuers: str
    """JSON array of `{alias, from, keys}`."""

    @staticmethod
    def compile(spec: bytes, previous: Trust | None = None) -> Trust:
        """Compiles trust sources.

        Args:
            spec: JSON of `{audiences, leeway_seconds, max_token_bytes, max_lifetime_seconds, domains, issuers}`.
            previous: What was trusted until now: a bundle with a lower `spiffe_sequence` than there is refused, and
                its domain keeps the one that it has.

        Raises:
            TrustError: A source is refused.
        """
    def verify_peer(self, chain: Sequence[bytes], now: int) -> str:
        """Verifies a TLS peer's certificate chain as an X.509-SVID of its own trust domain.

        Args:
            chain: Its certificates in DER, its own first.
            now: Seconds since 1970.

        Returns:
            Its SPIFFE ID.

        Raises:
            ApiError: It is refused, with the reason code.
        """
    def verify_svid(self, token: str, now: int) -> str:
        """Verifies a JWT-SVID that was presented as a bearer token.

        Args:
            token: The token.
            now: Seconds since 1970.

        Returns:
            Its SPIFFE ID.

        Raises:
            ApiError: It is refused, with the reason code.
        """

@final
class Engine:
    """Decides. Shared by all threads."""

    def __new__(cls, settings: bytes) -> Engine:
        """Opens the audit file; nothing is decided before `load`.

        Args:
            settings: JSON of `{audit_path}` and, optional, `audit_queue_lines`, `audit_queue_bytes`,
                `audit_sync_interval_ms`, `audit_max_wait_ms`, `audit_unverified_refusals`, `token_cache_size`, `max_message_bytes`,
                `max_arguments_bytes`, `max_token_bytes`, `probe_rate`, `probe_burst`, `probe_callers`,
                `envoy_error_response`, `node_id`, `version`, `trace` (`{parent_based, ratio, queue}`).

        Raises:
            EngineError: A setting is refused, or the audit file cannot be opened.
        """

    def load(
        self,
        plan: Plan,
        trust: Trust,
        listeners: bytes,
        peers: bytes,
        credentials: bytes | None = None,
        directories: Mapping[str, int] = ...,
        fetched: Mapping[str, Entries] = ...,
    ) -> None:
        """Swaps plan, trust, listeners and enforcers, all at once; a running decision keeps what it began with.

        Args:
            plan: The bundle.
            trust: The trust sources.
            listeners: JSON array of `{name, enforcer: {name, asks: ["system:x" | "system:*"], relays: ["principal"],
                reports: null | "sdk" | "access_log"} | null, mutual, insecure_dev, admin, http, surfaces: null | ["check", "batch_check", "ext_authz", "explain"]}`.
            peers: JSON array of `{name, match, asks, relays, reports}`: enforcers that show a certificate.
            credentials: JSON object `{issuer, audiences: {system: audience}, lifetime: {low, standard, high, critical},
                dpop: {window, max_proofs_per_key, require_nonce}, injections: {system: {header, value}}, leases:
                {system: broker}}`, times in seconds; None: no credentials are issued.
            directories: When the file of each directory was last changed, or it was fetched, in milliseconds of Unix time;
                one that is not told and may grow too old is.
            fetched: Who is in each directory that is fetched; of one that is not told nothing is known.

        Raises:
            EngineError: A listener, an enforcer or a setting of credentials is refused.
        """

    def check(self, request: bytes, facts: CallFacts) -> bytes:
        """Judges one operation; any bytes are answered with a decision.

        Args:
            request: `authz.v1.CheckRequest`.
            facts: Facts of the call.

        Returns:
            `authz.v1.CheckResponse`.
        """

    def batch_check(self, request: bytes, facts: CallFacts) -> bytes:
        """Judges several operations on one snapshot; any bytes are answered with decisions.

        Args:
            request: `authz.v1.BatchCheckRequest`.
            facts: Facts of the call.

        Returns:
            `authz.v1.BatchCheckResponse`.
        """

    def envoy_check(self, request: bytes, facts: CallFacts) -> bytes:
        """Judges one HTTP request for Envoy; any bytes are answered, and only a permit has `status.code` 0.

        Args:
            request: `envoy.service.auth.v3.CheckRequest`.
            facts: Facts of the call; `authorization` is ignored: an HTTP request brings its own.

        Returns:
            `envoy.service.auth.v3.CheckResponse`.
        """

    def explain(self, request: bytes, facts: CallFacts) -> bytes:
        """Judges without effect and tells everything; whoever asks needs a permit for `authz.explain`.

        Args:
            request: `authz.v1.ExplainRequest`.
            facts: Facts of the call; its listener is one of administration.

        Returns:
            `authz.v1.ExplainResponse`.

        Raises:
            ApiError: The caller may not explain, or the request cannot be explained.
        """

    def call(self, surface: str, request: bytes, facts: CallFacts) -> bytes:
        """Answers a call that answers no decision: listing, revoking, and all of `authz.v1.Tasks`.

        Args:
            surface: `list`, `task_start`, `task_delegate`, `task_extend`, `task_get`, `task_list`, `task_end` or `revoke`.
            request: Its request.
            facts: Facts of the call.

        Returns:
            Its response.

        Raises:
            ApiError: It is refused.
        """

    def sweep(self) -> str:
        """Does a bounded part of what is due in the store.

        Returns:
            JSON of `{committed, expired, forgotten, more, error}`.
        """

    def dpop_nonce(self) -> str:
        """The nonce that the next proof of possession should bring."""

    def signing_keys(self) -> str:
        """Lists the keys that task credentials are signed with, of all nodes.

        Returns:
            JSON array of `{kid, node, jwk, published_at, active_from, expires_at}`, times in milliseconds since 1970;
            `expires_at` is absent of a key that may still sign.

        Raises:
            EngineError: The store failed.
        """

    def put_signing_key(self, record: bytes) -> None:
        """Writes one.

        Args:
            record: JSON object, as `signing_keys` gives it.

        Raises:
            EngineError: It is none, or the store failed or has too many.
        """

    def remove_signing_key(self, kid: str) -> None:
        """Removes one, if it is there.

        Args:
            kid: Its id.

        Raises:
            EngineError: The store failed.
        """

    def is_key_revoked(self, kid: str) -> bool:
        """Whether a signing key is revoked, as this node knows it now. Never waits."""

    def trust_sequences(self) -> str:
        """Tells which SPIFFE bundle of each trust domain is the newest that any node has used.

        Returns:
            JSON object of `{epoch, sequence}` by the name of the domain.

        Raises:
            EngineError: The store failed.
        """

    def note_trust_sequences(self, used: bytes) -> None:
        """Notes which bundles are used; older ones change nothing.

        Args:
            used: JSON object, as `trust_sequences` gives it.

        Raises:
            EngineError: It is none, the store failed, or knows of too many domains.
        """

    def leases(self, filter: bytes) -> str:
        """Lists leases.

        Args:
            filter: JSON object with `broker`, `session`, both or neither.

        Returns:
            JSON array of at most 10,000 records, times in milliseconds since 1970, each with `live`: whether its task
            and all above it are live, nothing of it is revoked, and its time is not over.

        Raises:
            EngineError: The filter is none, or the store failed.
        """

    def put_lease(self, record: bytes, before: bytes) -> bool:
        """Changes a lease if it still is what it was.

        Args:
            record: JSON object, as `leases` gives it; `state` `ended` removes it.
            before: JSON object with the `state` and the `attempts` that it must still have.

        Returns:
            Whether it was changed; a lease becomes `live` only while its task is.

        Raises:
            EngineError: One of the two cannot be read, or the store failed.
        """

    def refusal(self, surface: str, reason: str) -> bytes:
        """Ready answer for a request that is not judged, counted and audited; never waits.

        Args:
            surface: `check`, `batch_check` or `ext_authz`.
            reason: `OVERLOADED`, `DEADLINE` or `UNAVAILABLE`; anything else counts as `UNAVAILABLE`.

        Returns:
            The surface's response message, a denial.
        """

    def status(self) -> bytes:
        """How the engine stands, as JSON; `ready` and `problems` first."""

    def metrics(
        self,
    ) -> list[tuple[str, str, str, list[tuple[str, list[tuple[str, str]], float]]]]:
        """What was counted: `(name, help, kind, [(sample name, labels, value)])`, kind as Prometheus names it.

        Counter families are named without `_total`; their samples with it.
        """

    def spans(self, most: int) -> bytes:
        """Takes the oldest spans that wait to be exported.

        Args:
            most: So many at most.

        Returns:
            JSON array of `{trace_id, span_id, parent_id, trace_state, name, start_ns, end_ns, failed, decision_id,
            decision, reason_code, operation, bundle_revision, enforcer, listener, verify_ns, decide_ns}`.
        """

    def unknown_keys(self) -> str:
        """Takes whose keys tokens named that are not there, since this was last asked.

        Returns:
            JSON array of `{kind, name}`; `kind` is `domain` or `issuer`.
        """

    def close(self) -> None:
        """Writes and syncs the audit queue. Later requests are denied. Idempotent."""

@final
class FastLane:
    """The tonic server; no Python on its path."""

    addresses: list[str]
    """Bound addresses, in the order of its listeners: `host:port` or `unix:/path`."""

    @staticmethod
    def start(engine: Engine, settings: bytes) -> FastLane:
        """Binds and serves.

        Args:
            engine: What decides.
            settings: JSON of `{listeners: [{name, address: "host:port" | "unix:/path", tls: null | {certificate, key,
                client_ca}}], workers, concurrency, connections, max_streams, receive_timeout_ms, handshake_timeout_ms,
                idle_timeout_ms, ready_after_ms}`; certificates are PEM texts.

        Raises:
            EngineError: A listener cannot be bound, or a setting is refused.
        """

    def renew_tls(
        self, listener: str, certificate: bytes, key: bytes, client_ca: bytes | None
    ) -> None:
        """Serves new connections of a listener with other files, PEM texts.

        Raises:
            EngineError: They are refused; those before go on serving.
        """

    def close(self, grace: float) -> None:
        """Answers NOT_SERVING, takes no new calls, and waits for running ones.

        Args:
            grace: Seconds to wait before running calls are cut.
        """

def format_policy(text: str, file: str) -> str:
    """Lays out a Cedar file as `authz fmt` does.

    Raises:
        BundleError: The text is no Cedar.
    """

def bundle_schema() -> str:
    """JSON Schema of a bundle's YAML files."""

def case_schema() -> str:
    """JSON Schema of case files."""

def seal_catalog(document: bytes) -> str:
    """Digests and operations of an MCP server's tools.

    Args:
        document: JSON of `{system, server: {name, version}, origin, tools: [{name, title, description, annotations,
            input, output}]}`.

    Returns:
        JSON of `{digest, tools: [{name, operation, digest, opened}]}`.

    Raises:
        ValueError: It is no such document, or two tools would be one operation.
    """

def prompt_names(prompt: str) -> str:
    """What a prompt names, and why other words of it name nothing.

    Args:
        prompt: The user's words; the first 256 KiB are read.

    Returns:
        JSON array of `{text, kind, name, why}`: `kind` and `name` where it is a destination, `why` where it is not named.
    """

def build_profile() -> str:
    """`debug`, `release` or `guided`: how this module was compiled."""

def accepted_algorithms() -> str:
    """JSON object of the names of signature algorithms that are accepted: `proof`, `jwt_svid`, `credential`."""

def is_usable_key(jwk: str) -> bool:
    """Whether signatures may be verified by a public key, a JWK: it is none for which anybody can sign."""

def reason_table() -> bytes:
    """JSON array of `{name, number, public_code, next_action, retry, grpc_code, http_status, title, mend}`."""
