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
    "bundle_digest",
    "bundle_schema",
    "bundle_variables",
    "case_schema",
    "effect_table",
    "format_policy",
    "is_usable_key",
    "mcp_arguments",
    "parse_dsn",
    "prompt_names",
    "prompt_values",
    "prompt_words",
    "reason_table",
    "seal_catalog",
    "spiffe_covers",
]

class BundleError(ValueError):
    """Authz refused a bundle."""

    diagnostics: str
    """JSON array of `{severity, file, line, column, what, fix, code}`; `code` and `replacement` (`{old, new}`)
    are missing where they are empty."""

class TrustError(ValueError):
    """Authz refused trust sources; the text names each source and its fix."""

class EngineError(RuntimeError):
    """Authz cannot set up the engine or its fast lane."""

class ApiError(Exception):
    """Authz refused a call whose answer is not a decision.

    `grpc_code` is a `google.rpc.Code`; `reason_code` the reason's name in the proto without its prefix; `message` a text
    for the caller; `step` the stage that refused, empty where no stage did.
    """

    grpc_code: int
    reason_code: str
    message: str
    step: str

@final
class Plan:
    """Compiled bundle. Immutable."""

    name: str
    revision: str
    digest: str
    """SHA-256 of the bundle's files, in hex."""
    warnings: str
    """JSON array, as `BundleError.diagnostics`."""
    observing: str
    """JSON array of `mode`'s entries that observe: scope, name, owner, until_ms."""
    exceptions: str
    """JSON array of standing exceptions: name, who, operations, tier_cap, owner, reason, ticket, obligations, expires_ms, at."""
    harnesses: list[str]
    """Roles of agents that relay their users' prompts."""
    person_kinds: list[str]
    """Step-up kinds of policies, tiers and templates that people lift, sorted."""
    recipient_lists: str
    """JSON array of the bundle's recipient lists: name, file or url, column, max_age_seconds, entries, trusted."""
    operation_count: int
    policy_count: int
    systems: list[str]

    def early_stops(self, now_ms: int) -> str:
        """Agents and systems whose requests `mode` enforces when they stop early, as a JSON object."""

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
            vars: Values of `${…}`, by name.
            now_ms: Milliseconds since 1970. An entry of `mode` that observes ends at most 90 days after it.
            previous: The plan in service. Authz does not validate its unchanged policies again.

        Raises:
            BundleError: The bundle is not valid.
        """

    def renewal(self, before: Plan) -> str:
        """Compares sequences and budgets with those of the plan before, whose progress is kept or lost.

        Args:
            before: The plan before.

        Returns:
            JSON object: carried (a count), changed, added, removed (names, each with its kind).
        """

    def cedar_schema(self) -> str:
        """Writes the Cedar schema of the bundle in Cedar's own syntax."""

    def cedar_schema_json(self) -> str:
        """Writes the Cedar schema of the bundle in Cedar's JSON form.

        Raises:
            ValueError: Cedar cannot write it.
        """

    def can(self, query_json: bytes, now_ms: int) -> bytes:
        """Tells the best outcome of each operation, for example principals.

        Args:
            query_json: JSON object of agents, subject_roles, subjects and template, each optional.
            now_ms: Milliseconds since 1970.

        Returns:
            JSON object of chains, each with agent, subject and rows.

        Raises:
            BundleError: The query cannot be answered.
        """

    def replay(self, record: bytes, now_ms: int, against: Plan | None = None) -> bytes:
        """Judges a recorded decision again, from its facts.

        Args:
            record: Line of an audit log.
            now_ms: Time of the decision, in milliseconds since 1970.
            against: Bundle whose answer the new answer is compared with. `None`: the recorded answer.

        Returns:
            JSON object with status (`replayed`, `open` or `not_replayed`), before, after, reason, message, missing, best and worst.

        Raises:
            BundleError: The line is not a record of a decision.
        """

    def simulate(self, session_json: bytes) -> bytes:
        """Takes a session through the bundle, step by step, on an engine with an empty store.

        Args:
            session_json: JSON object of issuers and steps; a step has at_ms and one of start, delegate, call, report and end.

        Returns:
            JSON object of steps, one for each step, in order.

        Raises:
            BundleError: The session is not of that form.
        """

    def lint(self, issuers: set[str] | None = None, has_guards: bool | None = None) -> str:
        """Finds parts that can have no effect, or that nobody can ever use.

        Args:
            issuers: Aliases of the issuers of the configuration. `None`: not known.
            has_guards: The configuration has a guard. `None`: not known.

        Returns:
            JSON array, as `BundleError.diagnostics`.
        """

    def describe(self) -> str:
        """Describes the plan for tools.

        Returns:
            JSON object of `policies` (`{id, file, line, effect, reason, text, principal, action, resource, conditional,
            digest, controls}`, the three parts of the head as `{text, entities: [{type, id}]}`), `operations`, `systems`, `roles`,
            `routes`, `classify` (matches), `collections`, `destinations` and `variables`.
        """

    def tools(self) -> str:
        """Lists the tools of MCP systems, with the state of their reviews.

        Returns:
            JSON array of `{system, tool, operation, digest, accepted, reviewed, drifted, effects, tier, cases, file,
            line}`.
        """

    def without(self, files: Mapping[str, bytes], now_ms: int, policy: str) -> Plan:
        """Compiles the bundle of this plan without one policy.

        Args:
            files: Content by path relative to the bundle folder.
            now_ms: Milliseconds since 1970.
            policy: `@id` of the policy.

        Raises:
            BundleError: The bundle is not valid without the policy.
        """

    def test(
        self,
        files: Mapping[str, bytes],
        now_ms: int,
        *,
        covers: bool = False,
        stops_at_failure: bool = False,
    ) -> bytes:
        """Runs case files against the plan.

        Args:
            files: Case files by path.
            now_ms: The time of every decision, in milliseconds since 1970.
            covers: The report has `coverage`: `{decisions, parts}`, each part `{kind, name, file, line, effect, reach, tests}`.
            stops_at_failure: The run ends after the first test that fails.

        Returns:
            A JSON report.

        Raises:
            BundleError: A case file is not valid.
        """

    def eval(self, request_json: bytes, now_ms: int) -> bytes:
        """Judges one request whose principals are asserted, not verified. Commands use it, never the server.

        Args:
            request_json: `{as, operation | call, input, …}`, as a step of a case file.
            now_ms: The time of the decision, in milliseconds since 1970.

        Returns:
            The decision with its detail, as JSON.

        Raises:
            BundleError: The request is not valid.
        """

@final
class Entries:
    """Entries of a recipient list that was fetched. Immutable; holds only digests of them."""

    @staticmethod
    def read(text: bytes, column: str | None = None, alias: str | None = None) -> Entries:
        """Reads a recipient list.

        Args:
            text: UTF-8.
            column: Column of a CSV file with a header. Default: each line is an entry.
            alias: Column of the names by which people call the entries. Default: they have none.

        Raises:
            ValueError: The text is not a recipient list. The message quotes nothing of it.
        """

    def __len__(self) -> int: ...

@final
class SigningKey:
    """Private key that signs credentials. Immutable."""

    @staticmethod
    def from_pkcs8(der: bytes) -> SigningKey:
        """Reads a private key of P-256 or Ed25519.

        Args:
            der: PKCS#8 (RFC 5208), not encrypted.

        Raises:
            ValueError: The key is not usable. The message quotes nothing of it.
        """

    def sign(self, message: bytes) -> bytes:
        """Signs a message.

        Args:
            message: The bytes to sign, not hashed.

        Returns:
            64 bytes in the form of JWS (RFC 7518 §3.4, RFC 8037 §3.1).

        Raises:
            RuntimeError: The signature cannot be made.
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
            previous: The trust sources in service. Authz refuses a bundle whose `spiffe_sequence` is lower than in
                them, and the domain keeps its bundle.

        Raises:
            TrustError: A source is not valid.
        """
    def verify_peer(self, chain: Sequence[bytes], now: int) -> str:
        """Verifies a TLS peer's certificate chain as an X.509-SVID of its own trust domain.

        Args:
            chain: Certificates in DER, that of the peer first.
            now: Seconds since 1970.

        Returns:
            SPIFFE ID of the peer.

        Raises:
            ApiError: The chain is not valid; with the reason code.
        """
    def verify_svid(self, token: str, now: int) -> str:
        """Verifies a JWT-SVID that was presented as a bearer token.

        Args:
            token: The JWT-SVID in JWS compact serialization.
            now: Seconds since 1970.

        Returns:
            SPIFFE ID of the agent.

        Raises:
            ApiError: The token is not valid; with the reason code.
        """

@final
class Engine:
    """Engine that decides. All threads share it."""

    def __new__(cls, settings: bytes) -> Engine:
        """Opens the audit file. The engine refuses every call before `load`.

        Args:
            settings: JSON, as `engine_settings` of `authz.engine` makes it. Every setting is required.

        Raises:
            EngineError: A setting is not valid, or the audit file cannot be opened.
        """

    def load(
        self,
        plan: Plan,
        trust: Trust,
        listeners: bytes,
        peers: bytes,
        credentials: bytes | None = None,
        recipient_lists: Mapping[str, int] = ...,
        fetched: Mapping[str, Entries] = ...,
        shadow: Plan | None = None,
    ) -> None:
        """Replaces plan, trust, listeners and enforcers at once. A running call keeps the snapshot that it began with.

        Args:
            plan: The bundle.
            trust: The trust sources.
            listeners: JSON array of `{name, enforcer: {name, asks: ["system:x" | "system:*"], relays: ["principal"],
                reports: null | "sdk" | "access_log"} | null, mutual, insecure_dev, admin, http, surfaces: null | ["check", "batch_check", "ext_authz", "explain"]}`.
            peers: JSON array of `{name, match, asks, relays, reports}`: enforcers that present a certificate.
            credentials: JSON object `{issuer, audiences: {system: audience}, lifetime: {low, standard, high, critical},
                dpop: {window, max_proofs_per_key, require_nonce}, static_secrets: {system: {header, value}}, leases:
                {system: broker}}`, times in seconds. Default: Authz issues no credentials.
            recipient_lists: Time at which the file of each recipient list was changed, or the recipient list was fetched, by name, in
                milliseconds since 1970. A recipient list with a `max_age` and without a time counts as too old.
            fetched: Entries of each recipient list that is fetched, by name. Authz knows no entry of a recipient list that is missing here.
            shadow: A second bundle, which judges the same calls and changes no answer.

        Raises:
            EngineError: A listener, an enforcer or a setting of credentials is not valid.
        """

    def record_refused_load(self, load: bytes) -> bool:
        """Records a load that was refused, if the audit log is chained.

        Args:
            load: JSON object `{digest, errors: [{at, code, message}], unrecorded}`. Five errors are recorded, with 300 characters of
                each text.

        Returns:
            Whether the log accepted the record.

        Raises:
            EngineError: `load` has another form.
        """

    def check(self, request: bytes, facts: CallFacts) -> bytes:
        """Judges one operation; answers any bytes with a decision.

        Args:
            request: `authz.v1.CheckRequest`.
            facts: Facts of the call.

        Returns:
            `authz.v1.CheckResponse`.
        """

    def batch_check(self, request: bytes, facts: CallFacts) -> bytes:
        """Judges several operations on one snapshot; answers any bytes with decisions.

        Args:
            request: `authz.v1.BatchCheckRequest`.
            facts: Facts of the call.

        Returns:
            `authz.v1.BatchCheckResponse`.
        """

    def envoy_check(self, request: bytes, facts: CallFacts) -> bytes:
        """Judges one HTTP request for Envoy; answers any bytes, and only a permit has `status.code` 0.

        Args:
            request: `envoy.service.auth.v3.CheckRequest`.
            facts: Facts of the call. The engine ignores `authorization`: the HTTP request has its own.

        Returns:
            `envoy.service.auth.v3.CheckResponse`.
        """

    def explain(self, request: bytes, facts: CallFacts) -> bytes:
        """Judges without effect and shows all facts of the decision. The caller needs a permit for `authz.explain`.

        Args:
            request: `authz.v1.ExplainRequest`.
            facts: Facts of the call; its listener is one of administration.

        Returns:
            `authz.v1.ExplainResponse`.

        Raises:
            ApiError: The caller may not explain, or the request cannot be explained.
        """

    def call(self, surface: str, request: bytes, facts: CallFacts) -> bytes:
        """Answers a call whose answer is not a decision: listing, revoking, and all methods of `authz.v1.Tasks`.

        Args:
            surface: `list`, `task_start`, `task_delegate`, `task_extend`, `task_get`, `task_list`, `task_end` or `revoke`.
            request: Request message of the surface.
            facts: Facts of the call.

        Returns:
            Response message of the surface.

        Raises:
            ApiError: The call is refused.
        """

    def sweep(self) -> str:
        """Does a bounded part of the work that is due in the store.

        Returns:
            JSON of `{committed, expired, forgotten, more, error}`.
        """

    def dpop_nonce(self) -> str:
        """Nonce for the next proof of possession."""

    def signing_keys(self) -> str:
        """Lists the keys with which all nodes sign task credentials.

        Returns:
            JSON array of `{kid, node, jwk, published_at, active_from, expires_at}`, times in milliseconds since 1970;
            a key that may still sign has no `expires_at`.

        Raises:
            EngineError: The store failed.
        """

    def put_signing_key(self, record: bytes) -> None:
        """Writes the record of a signing key.

        Args:
            record: JSON object in the form of `signing_keys`.

        Raises:
            EngineError: The record is not valid, the store failed, or it has too many keys.
        """

    def remove_signing_key(self, kid: str) -> None:
        """Removes the record of a signing key, if it exists.

        Args:
            kid: Id of the key.

        Raises:
            EngineError: The store failed.
        """

    def is_key_revoked(self, kid: str) -> bool:
        """Returns whether this node knows that a signing key is revoked. Never waits."""

    def trust_sequences(self) -> str:
        """Returns the newest SPIFFE bundle of each trust domain that any node has used.

        Returns:
            JSON object of `{epoch, sequence}` by domain.

        Raises:
            EngineError: The store failed.
        """

    def note_trust_sequences(self, used: bytes) -> None:
        """Records the bundles in use. A bundle older than the recorded one changes nothing.

        Args:
            used: JSON object in the form of `trust_sequences`.

        Raises:
            EngineError: The object is not valid, the store failed, or it has too many domains.
        """

    def approvals_list(self, person: bytes, request: bytes) -> bytes:
        """Lists the open approvals that a person may answer.

        Args:
            person: JSON of the verified person: `{issuer, sub, claims, method, authenticated_at_ms, acr, uid, passkey}`.
                `null`: the owner of the administration socket, who sees all.
            request: An `authz.v1.ApprovalsListRequest`.

        Returns:
            An `authz.v1.ApprovalsListResponse`.

        Raises:
            ApiError: The person or the request is not valid, or the store failed.
        """

    def approval_show(self, person: bytes, request: bytes) -> bytes:
        """Shows one approval to a person, whose clock starts with the first look.

        Args:
            person: JSON, as of `approvals_list`.
            request: An `authz.v1.ApprovalsGetRequest`.

        Returns:
            An `authz.v1.ApprovalsGetResponse`.

        Raises:
            ApiError: There is no such approval, the person may not answer it, or the store failed.
        """

    def approval_resolve(self, person: bytes, request: bytes) -> bytes:
        """Approves or rejects an approval for a person.

        Args:
            person: JSON, as of `approvals_list`. `null` answers nothing.
            request: An `authz.v1.ResolveRequest`.

        Returns:
            An `authz.v1.ResolveResponse`.

        Raises:
            ApiError: The person may not answer, the approval is not open, a digest is not that of the call, or the store
                failed.
        """

    def breakglass_open(self, person: bytes, request: bytes) -> bytes:
        """Opens a request for break-glass for a person.

        Args:
            person: JSON, as of `approvals_list`. `null` is refused.
            request: An `authz.v1.OpenBreakglassRequest`.

        Returns:
            An `authz.v1.OpenBreakglassResponse`.

        Raises:
            ApiError: The person may not open it, the request is not valid, or the store failed.
        """

    def breakglass_confirm(self, person: bytes, request: bytes) -> bytes:
        """Confirms a request for break-glass for a person.

        Args:
            person: JSON, as of `approvals_list`. `null` is refused.
            request: An `authz.v1.ConfirmBreakglassRequest`.

        Returns:
            An `authz.v1.ConfirmBreakglassResponse`.

        Raises:
            ApiError: The person may not confirm it, it is not open, or the store failed.
        """

    def breakglass_end(self, person: bytes, request: bytes) -> bytes:
        """Ends break-glass before its time, or withdraws a request for it.

        Args:
            person: JSON, as of `approvals_list`. `null`: the owner of the administration socket.
            request: An `authz.v1.EndBreakglassRequest`.

        Returns:
            An `authz.v1.EndBreakglassResponse`.

        Raises:
            ApiError: It is not live, or the store failed.
        """

    def breakglass_list(self, request: bytes) -> bytes:
        """Lists requests for break-glass.

        Args:
            request: An `authz.v1.ListBreakglassRequest`.

        Returns:
            An `authz.v1.ListBreakglassResponse`.

        Raises:
            ApiError: The store failed.
        """

    def approval_status(self, request: bytes, facts: CallFacts) -> bytes:
        """Status of an approval, for the agent of its call.

        Args:
            request: An `authz.v1.ApprovalsGetRequest`.
            facts: Facts of the call.

        Returns:
            An `authz.v1.ApprovalsGetResponse`.

        Raises:
            ApiError: There is no such approval of the caller, or the store failed.
        """

    def approval_changes(
        self, after: int, wait_ms: int
    ) -> tuple[int, list[tuple[str, str, str, list[str]]] | None]:
        """Changes of approvals on this node.

        Args:
            after: Number of the last change that the caller knows. 0: none.
            wait_ms: Longest wait for a change, at most a minute.

        Returns:
            The number of the newest change, and the changes after `after`: approval id, task, status (`open`, `approved`,
            `rejected` or `consumed`) and queues that still lack an answer. `None` in place of the changes: some are no longer kept, so read all
            approvals again.
        """

    def passkeys(self, issuer: str, sub: str) -> str:
        """Passkeys of a person.

        Args:
            issuer: Alias of the person's issuer.
            sub: `sub` of the person.

        Returns:
            JSON array of records: `id`, `issuer`, `sub`, `credential_id`, `public_key`, `sign_count`, `transports`, `name`,
            `created_at` and `used_at`, times in milliseconds since 1970. Members without a value may be absent.

        Raises:
            EngineError: The store failed.
        """

    def put_passkey(self, record: bytes) -> None:
        """Writes a passkey.

        Args:
            record: JSON object in the form of `passkeys`; `id` is ignored.

        Raises:
            EngineError: The record is not valid, the person has 32 others, or the store failed.
        """

    def remove_passkey(self, issuer: str, sub: str, credential_id: str) -> None:
        """Removes a passkey, if it exists.

        Args:
            issuer: Alias of the person's issuer.
            sub: `sub` of the person.
            credential_id: Id of the credential, in base64url.

        Raises:
            EngineError: The store failed.
        """

    def leases(self, filter: bytes) -> str:
        """Lists leases.

        Args:
            filter: JSON object with `broker`, `session`, both or neither.

        Returns:
            JSON array of at most 10,000 records, times in milliseconds since 1970. `live` is true while the lease's
            task and all tasks above it are live, none of them is revoked, and the lease has not expired.

        Raises:
            EngineError: The filter is not valid, or the store failed.
        """

    def put_lease(self, record: bytes, before: bytes) -> bool:
        """Changes a lease if it is unchanged since it was read.

        Args:
            record: JSON object in the form of `leases`. The `state` `ended` removes the lease.
            before: JSON object with the `state` and the `attempts` that the stored lease must have.

        Returns:
            True if the lease was changed. A lease becomes `live` only while its task is.

        Raises:
            EngineError: An argument is not valid, or the store failed.
        """

    def refusal(self, surface: str, reason: str) -> bytes:
        """Returns the denial of a request that is not judged, and counts and audits it. Never waits.

        Args:
            surface: `check`, `batch_check` or `ext_authz`.
            reason: `OVERLOADED`, `DEADLINE` or `UNAVAILABLE`; any other text counts as `UNAVAILABLE`.

        Returns:
            Response message of the surface.
        """

    def status(self) -> bytes:
        """Returns the status of the engine as JSON; `ready` and `problems` first."""

    def metrics(
        self,
    ) -> list[tuple[str, str, str, list[tuple[str, list[tuple[str, str]], float]]]]:
        """Returns the metrics: `(name, help, kind, [(sample name, labels, value)])`, with Prometheus' names of the kinds.

        A counter family has a name without `_total`, its samples have one with it.
        """

    def spans(self, most: int) -> bytes:
        """Removes and returns the oldest spans that wait for export.

        Args:
            most: Highest number of spans.

        Returns:
            JSON array of `{trace_id, span_id, parent_id, trace_state, name, start_ns, end_ns, failed, decision_id,
            decision, reason_code, operation, bundle_revision, enforcer, listener, verify_ns, decide_ns}`.
        """

    def unknown_keys(self) -> str:
        """Removes and returns the owners of unknown keys that tokens named since the last call.

        Returns:
            JSON array of `{kind, name}`; `kind` is `domain` or `issuer`.
        """

    def close(self) -> None:
        """Writes and syncs the audit queue. The engine denies later requests. Idempotent."""

@final
class FastLane:
    """Listener on tonic; its threads never call Python."""

    addresses: list[str]
    """Bound addresses in the order of the listeners: `host:port` or `unix:/path`."""

    @staticmethod
    def start(engine: Engine, settings: bytes) -> FastLane:
        """Binds the listeners and serves.

        Args:
            engine: The engine that answers the calls.
            settings: JSON of `{listeners: [{name, address: "host:port" | "unix:/path", tls: null | {certificate, key,
                client_ca}}], workers, concurrency, connections, max_streams, receive_timeout_ms, handshake_timeout_ms,
                idle_timeout_ms, ready_after_ms}`; certificates are PEM texts.

        Raises:
            EngineError: A listener cannot be bound, or a setting is not valid.
        """

    def renew_tls(
        self, listener: str, certificate: bytes, key: bytes, client_ca: bytes | None
    ) -> None:
        """Uses other files, PEM texts, for new connections of a listener.

        Raises:
            EngineError: The files are not valid; the listener keeps those before.
        """

    def close(self, grace: float) -> None:
        """Answers NOT_SERVING, accepts no new calls, and waits for running calls.

        Args:
            grace: Seconds after which running calls are cut.
        """

def format_policy(text: str, file: str) -> str:
    """Lays out a Cedar file in the format of `authz fmt`.

    Raises:
        BundleError: The text is not valid Cedar.
    """

def bundle_digest(files: Mapping[str, bytes]) -> str:
    """Returns the digest of a bundle's files in hex, also of a bundle that does not compile."""

def bundle_variables(files: Mapping[str, bytes]) -> list[str]:
    """Lists the names of `${…}` in a bundle's files, sorted; files of imported tools have none."""

def bundle_schema() -> str:
    """Returns the JSON Schema of a bundle's YAML files."""

def case_schema() -> str:
    """Returns the JSON Schema of case files."""

def seal_catalog(document: bytes) -> str:
    """Computes the digests and the operations of an MCP server's tools.

    Args:
        document: JSON of `{system, server: {name, version}, origin, tools: [{name, title, description, annotations,
            input, output}]}`.

    Returns:
        JSON of `{digest, tools: [{name, operation, digest, opened}]}`.

    Raises:
        ValueError: The document is not valid, or two tools have one operation.
    """

def mcp_arguments(method: str | None, params: bytes, *, is_notification: bool) -> bytes | None:
    """Returns the arguments of the operation `<system>.mcp` for a message of MCP, as one JSON object.

    Args:
        method: Method of the message; None for a response.
        params: JSON object: parameters of the message; of a response its `result` or `error`.
        is_notification: The message is a notification.

    Returns:
        The arguments; None for a method that MCP does not have.

    Raises:
        ValueError: `params` is not a JSON object.
    """

def prompt_names(prompt: str) -> str:
    """Lists what a prompt names, and the words that name nothing.

    Args:
        prompt: Prompt of the user, of which Authz reads the first 256 KiB.

    Returns:
        JSON array of `{text, kind, name, why}`: `kind` and `name`, or `why` the text names nothing.
    """

def prompt_words(prompt: str) -> str:
    """Lists the words of a prompt that a task keeps, in order.

    Args:
        prompt: Prompt of the user, of which Authz reads the first 256 KiB.

    Returns:
        JSON array of words; `","` for a comma, null for the end of a sentence and for words that are left out.
    """

def prompt_values(prompt: str, values: Sequence[str]) -> str:
    """Tells of each value whether a prompt names it.

    Args:
        prompt: Prompt of the user, of which Authz reads the first 256 KiB.
        values: `email:…`, `url:…`, `iban:…`, `account:…`, `path:…`, `amount:EUR 870`, or `<collection>/<id>`.

    Returns:
        JSON array of `{value, named}`, with `error` for any other value.
    """

def build_profile() -> str:
    """Returns the profile that this module was compiled with: `debug`, `release` or `guided`."""

def accepted_algorithms() -> str:
    """Returns the accepted signature algorithms, as a JSON object of `proof`, `jwt_svid` and `credential`."""

def is_usable_key(jwk: str) -> bool:
    """Returns whether a JWK is a public key that Authz verifies signatures by.

    A key for which anybody can sign is not usable.
    """

def effect_table() -> str:
    """Returns a JSON object: `effects`, pairs of an effect and its default tier, in order; `tiers`, the lowest first."""

def parse_dsn(dsn: str) -> str:
    """Reads a connection string of PostgreSQL by the rules of the store.

    Args:
        dsn: `postgresql://…` or `key=value …`.

    Returns:
        JSON object with the password: `hosts`, `ports`, `user`, `password`, `database`, `tls` (null, or `roots`, `certificate`
        and `key`, which are paths) and `others`, names of further settings.

    Raises:
        ValueError: The string is not valid. The text goes on after "the connection string", and holds no password.
    """

def reason_table() -> bytes:
    """Returns a JSON array of `{name, number, public_code, next_action, retry, grpc_code, http_status, title, fix}`."""

def spiffe_covers(pattern: str, id: str) -> bool:
    """Tells whether a pattern of SPIFFE ids, or an id, covers an id or a narrower pattern."""
