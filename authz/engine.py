"""The engine: the only module that imports `authz._native`.

Everything crosses as bytes or scalars; errors of the extension become errors of `authz.errors`.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, ParamSpec, TypeVar, final

from authz import _native
from authz.errors import (
    ApiError,
    BundleError,
    EngineError,
    KeysError,
    TrustError,
    UsageError,
)
from authz.model import (
    BundleFiles,
    CallFacts,
    Diagnostic,
    Directory,
    EarlyStop,
    EarlyStops,
    MetricFamily,
    MetricKind,
    Observing,
    RuleChanges,
    Severity,
    Surface,
)

__all__ = [
    "DirectoryEntries",
    "Engine",
    "FastLane",
    "ListenerRules",
    "PeerRules",
    "Plan",
    "PrivateKey",
    "TestReport",
    "Trust",
    "TrustedDomain",
    "TrustedIssuer",
    "accepted_algorithms",
    "build_profile",
    "bundle_schema",
    "case_schema",
    "format_policy",
    "is_usable_key",
    "reason_table",
    "seal_catalog",
]

_MAX_SHOWN: Final = 1000
_MAX_RULES: Final = 100
_USE_NONCE: Final = "use_dpop_nonce"
_P = ParamSpec("_P")
_R = TypeVar("_R")


def _diagnostics(text: str) -> tuple[Diagnostic, ...]:
    """Read the extension's list of defects."""
    try:
        listed = json.loads(text)
    except ValueError:
        return tuple(Diagnostic(line) for line in text.splitlines() if line.strip())
    return tuple(
        Diagnostic(
            what=str(item.get("what", "")),
            file=str(item.get("file", "")),
            line=int(item.get("line") or 0),
            column=int(item.get("column") or 0),
            mend=str(item.get("mend", "")),
            severity=Severity(item.get("severity", "error")),
        )
        for item in listed[:_MAX_SHOWN]
    )


@dataclass(frozen=True, slots=True)
class ListenerRules:
    """What the engine knows about a listener."""

    name: str
    """Its name."""
    enforcer: str | None = None
    """The enforcer that it is, if it is one."""
    asks: tuple[str, ...] = ()
    """What that enforcer may ask about."""
    relays: tuple[str, ...] = ()
    """What it may say of the agents that it asks about."""
    reports: str | None = None
    """How it tells what came of what it was permitted: `sdk`, `access_log`, or not at all."""
    uids: tuple[int, ...] = ()
    """Users that its processes run as; empty: any that can open the socket."""
    mutual: bool = False
    """Callers show a certificate, which says who they are."""
    insecure_dev: bool = False
    """Plain TCP: whoever reaches it may ask about every system, and may relay nothing."""
    admin: bool = False
    """The administration listener."""
    http: bool = False
    """The listener of credentials over HTTP, which has authenticated the client itself."""


@dataclass(frozen=True, slots=True)
class PeerRules:
    """What the engine knows about an enforcer that shows a certificate."""

    name: str
    """Its name."""
    match: str
    """Its SPIFFE id, or a pattern over such ids."""
    asks: tuple[str, ...]
    """What it may ask about."""
    relays: tuple[str, ...] = ()
    """What it may say of the agents that it asks about."""
    reports: str | None = None
    """How it tells what came of what it was permitted: `sdk`, `access_log`, or not at all."""


@final
class DirectoryEntries:
    """Who is in a directory that was fetched."""

    __slots__ = ("native",)

    def __init__(self, native: "_native.Entries") -> None:
        self.native = native

    @staticmethod
    def read(text: str, column: str | None) -> "DirectoryEntries":
        """Read a directory.

        Args:
            text: What was fetched.
            column: Of a CSV file with a header; none: each line is an entry.

        Returns:
            Its entries.

        Raises:
            BundleError: It cannot be read whole: then nothing of it is believed.
        """
        try:
            return DirectoryEntries(_native.Entries.read(text.encode(), column))
        except ValueError as error:
            raise BundleError((Diagnostic(f"what was fetched is refused: {error}"),)) from error

    def __len__(self) -> int:
        """How many there are."""
        return len(self.native)


@final
class PrivateKey:
    """A private key of P-256 or Ed25519, in this process's memory."""

    __slots__ = ("_native",)

    def __init__(self, native: "_native.SigningKey") -> None:
        self._native = native

    @staticmethod
    def read(der: bytes) -> "PrivateKey":
        """Read a private key.

        Args:
            der: PKCS#8 (RFC 5208), not encrypted.

        Returns:
            The key.

        Raises:
            KeysError: It is none that can be used.
        """
        try:
            return PrivateKey(_native.SigningKey.from_pkcs8(der))
        except ValueError as error:
            raise KeysError(f"{error}.") from error

    def sign(self, message: bytes) -> bytes:
        """Sign; other threads run meanwhile.

        Args:
            message: What is signed, not yet hashed.

        Returns:
            The signature as JWS has it (RFC 7518 §3.4, RFC 8037 §3.1).

        Raises:
            KeysError: It could not be made.
        """
        try:
            return self._native.sign(message)
        except RuntimeError as error:
            raise KeysError(f"{error}.") from error


@final
class Plan:
    """A compiled bundle."""

    __slots__ = ("native",)

    def __init__(self, native: "_native.Plan") -> None:
        self.native = native

    @staticmethod
    def compile(
        bundle: BundleFiles,
        variables: Mapping[str, str],
        previous: "Plan | None" = None,
        *,
        now_ms: int | None = None,
    ) -> "Plan":
        """Compile a bundle.

        Args:
            bundle: Its files.
            variables: Values of `${…}`.
            previous: The plan before; what did not change is not validated again.
            now_ms: Unix time in milliseconds against which the ends of `mode` are held; default: the clock's.

        Returns:
            The plan.

        Raises:
            BundleError: With every defect.
        """
        before = previous.native if previous is not None else None
        now = now_ms if now_ms is not None else int(time.time() * 1000)
        try:
            return Plan(_native.Plan.compile(dict(bundle.files), dict(variables), now, before))
        except _native.BundleError as error:
            raise BundleError(_diagnostics(error.diagnostics)) from error

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.native.name

    @property
    def revision(self) -> str:
        """Its revision."""
        return self.native.revision

    @property
    def digest(self) -> str:
        """SHA-256 of its files, in hex."""
        return self.native.digest

    @property
    def systems(self) -> tuple[str, ...]:
        """Systems in its catalog."""
        return tuple(self.native.systems)

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """Defects that do not refuse it."""
        return _diagnostics(self.native.warnings)

    @property
    def directories(self) -> tuple[Directory, ...]:
        """Named sets of destinations that others keep."""
        return tuple(
            Directory(
                name=str(entry["name"]),
                file=str(entry["file"] or ""),
                url=str(entry["url"] or ""),
                column=entry["column"],
                max_age=entry["max_age_seconds"],
                entries=entry["entries"],
                trusted=bool(entry["trusted"]),
            )
            for entry in json.loads(self.native.directories)
        )

    @property
    def observing(self) -> tuple[Observing, ...]:
        """Entries of `mode` that say `observe`, ended or not."""
        return tuple(
            Observing(
                scope=str(entry["scope"]),
                name=str(entry["name"]),
                owner=str(entry["owner"]),
                until=int(entry["until_ms"]) / 1000,
            )
            for entry in json.loads(self.native.observing)
        )

    def early_stops(self, now_ms: int) -> EarlyStops:
        """Tell which requests `mode` enforces where they stop before they are judged.

        Args:
            now_ms: The time, in milliseconds since 1970.

        Returns:
            Agents and systems; nothing where no entry of `mode` observes.
        """
        stops = json.loads(self.native.early_stops(now_ms))
        return EarlyStops(
            agents=tuple(stops["agents"]),
            systems=tuple(
                EarlyStop(
                    system=str(stop["system"]),
                    unplaced=bool(stop["unplaced"]),
                    operations=tuple(stop["operations"]),
                    tiers=tuple(stop["tiers"]),
                )
                for stop in stops["systems"]
            ),
        )

    @property
    def harnesses(self) -> tuple[str, ...]:
        """Roles of agents that relay their users' prompts."""
        return tuple(self.native.harnesses)

    @property
    def operation_count(self) -> int:
        """Operations in its catalog."""
        return self.native.operation_count

    @property
    def policy_count(self) -> int:
        """Policies."""
        return self.native.policy_count

    def rule_changes(self, before: "Plan | None") -> RuleChanges:
        """Tell what becomes of the progress of sequences and budgets where this plan follows another.

        Args:
            before: The plan that served; none: this is the first.

        Returns:
            Of each list at most 100 names.
        """
        if before is None:
            return RuleChanges()
        told = json.loads(self.native.renewal(before.native))
        lists = [tuple(map(str, told[name])) for name in ("changed", "added", "removed")]
        changed, added, removed = (names[:_MAX_RULES] for names in lists)
        omitted = sum(max(0, len(names) - _MAX_RULES) for names in lists)
        return RuleChanges(int(told["carried"]), changed, added, removed, omitted)

    def tools(self) -> list[dict[str, Any]]:
        """Tell of each tool of an MCP system how far its review has come.

        Returns:
            `system`, `tool`, `operation`, `digest`, `accepted`, `reviewed`, `drifted`, `effects`, `tier`, `cases`,
            `file`, `line`, a tool each.
        """
        listed: list[dict[str, Any]] = json.loads(self.native.tools())
        return listed

    def test(self, bundle: BundleFiles, now_ms: int) -> "TestReport":
        """Run the bundle's own tests.

        Args:
            bundle: Its files.
            now_ms: The time that the tests see.

        Returns:
            The report.

        Raises:
            BundleError: A test file cannot be read.
        """
        cases = {
            name: content
            for name, content in bundle.files.items()
            if name.startswith("tests/") and name.endswith((".yaml", ".yml"))
        }
        try:
            return TestReport(json.loads(self.native.test(cases, now_ms)))
        except _native.BundleError as error:
            raise BundleError(_diagnostics(error.diagnostics)) from error

    def eval(self, request: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
        """Judge one request offline, on facts that are stated instead of proved.

        Args:
            request: As documented for `authz eval`.
            now_ms: The time.

        Returns:
            The decision with its trace.

        Raises:
            BundleError: The request cannot be read.
        """
        try:
            decided: dict[str, Any] = json.loads(
                self.native.eval(json.dumps(request).encode(), now_ms)
            )
        except _native.BundleError as error:
            raise BundleError(_diagnostics(error.diagnostics)) from error
        return decided


@dataclass(frozen=True, slots=True)
class TestReport:
    """What a bundle's tests came to."""

    __test__ = False

    document: Mapping[str, Any]
    """As the engine wrote it."""


@dataclass(frozen=True, slots=True)
class TrustedDomain:
    """The state of a trust domain's bundle."""

    name: str
    keys: int
    """Usable keys of JWT-SVIDs."""
    authorities: int
    """Usable authorities of X.509-SVIDs."""
    sequence: int | None
    """`spiffe_sequence` of the bundle in use."""
    refresh_hint: int | None
    """`spiffe_refresh_hint`: how often its publisher suggests to ask again, in seconds."""
    rolled_back: bool
    """The bundle given last was refused as older, so that the one before stays in use."""


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """The state of an issuer's key set."""

    alias: str
    keys: int
    """Usable keys."""


@final
class Trust:
    """A compiled key set."""

    __slots__ = ("native",)

    def __init__(self, native: "_native.Trust") -> None:
        self.native = native

    @staticmethod
    def compile(spec: bytes, previous: "Trust | None" = None) -> "Trust":
        """Compile trust sources.

        Args:
            spec: Their JSON.
            previous: What was trusted until now. A bundle whose `spiffe_sequence` is lower than
                there is refused, and its domain keeps the bundle that it has.

        Returns:
            The key set.

        Raises:
            TrustError: With every defect.
        """
        try:
            before = previous.native if previous is not None else None
            return Trust(_native.Trust.compile(spec, before))
        except _native.TrustError as error:
            raise TrustError(_diagnostics(str(error))) from error

    @property
    def revision(self) -> str:
        """Digest of the key set."""
        return self.native.revision

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong but does not refuse it, such as an empty domain bundle."""
        return tuple(
            f"{item.get('place', '')}: {item.get('what', '')}"
            for item in json.loads(self.native.warnings)
        )

    def verify_peer(self, chain: Sequence[bytes], now: float) -> str:
        """Verify a TLS peer's certificate chain as an X.509-SVID of its own trust domain.

        Args:
            chain: Its certificates in DER, its own first.
            now: Seconds since 1970.

        Returns:
            Its SPIFFE ID.

        Raises:
            ApiError: It is refused, with the reason code.
        """
        try:
            return self.native.verify_peer(chain, int(now))
        except _native.ApiError as error:
            raise ApiError(error.reason_code, error.grpc_code, error.message) from error

    def verify_svid(self, token: str, now: float) -> str:
        """Verify a JWT-SVID that was presented as a bearer token.

        Args:
            token: The token.
            now: Seconds since 1970.

        Returns:
            Its SPIFFE ID.

        Raises:
            ApiError: It is refused, with the reason code.
        """
        try:
            return self.native.verify_svid(token, int(now))
        except _native.ApiError as error:
            raise ApiError(error.reason_code, error.grpc_code, error.message) from error

    @property
    def domains(self) -> tuple[TrustedDomain, ...]:
        """The state of each trust domain, by name."""
        return tuple(
            TrustedDomain(
                name=item["domain"],
                keys=item["keys"],
                authorities=item["authorities"],
                sequence=item["sequence"],
                refresh_hint=item["refresh_hint"],
                rolled_back=item["rolled_back"],
            )
            for item in json.loads(self.native.domains)
        )

    @property
    def issuers(self) -> tuple[TrustedIssuer, ...]:
        """The state of each issuer."""
        return tuple(
            TrustedIssuer(alias=item["alias"], keys=item["keys"])
            for item in json.loads(self.native.issuers)
        )


@final
class Engine:
    """Decides: bytes in, bytes out.

    Args:
        settings: Limits and the audit, as the engine's JSON.

    Raises:
        EngineError: It cannot be built, for example because the audit file cannot be opened.
    """

    __slots__ = ("_native",)

    def __init__(self, settings: Mapping[str, Any]) -> None:
        try:
            self._native = _native.Engine(json.dumps(settings).encode())
        except _native.EngineError as error:
            raise EngineError(str(error)) from error

    @property
    def native(self) -> "_native.Engine":
        """The extension's object, for the fast lane."""
        return self._native

    def load(
        self,
        plan: Plan,
        trust: Trust,
        listeners: Sequence[ListenerRules],
        peers: Sequence[PeerRules],
        credentials: Mapping[str, Any] | None = None,
        *,
        directories: Mapping[str, float] | None = None,
        fetched: Mapping[str, DirectoryEntries] | None = None,
    ) -> None:
        """Swap in a new world; decisions that run keep the one before.

        Args:
            plan: The bundle.
            trust: The keys.
            listeners: Every listener.
            peers: Every enforcer that shows a certificate.
            credentials: How task credentials are issued, as the engine's JSON; none: they are not.
            directories: When the file of each directory was last changed, or it was fetched, in Unix time; one that is not
                told and may grow too old is.
            fetched: Who is in each directory that is fetched; of one that is not told nothing is known.

        Raises:
            EngineError: A listener, an enforcer or a setting of credentials is refused; nothing changed.
        """
        rules = [
            {
                "name": rule.name,
                "enforcer": {
                    "name": rule.enforcer,
                    "asks": list(rule.asks),
                    "relays": list(rule.relays),
                    "reports": rule.reports,
                    "uids": list(rule.uids),
                }
                if rule.enforcer is not None
                else None,
                "mutual": rule.mutual,
                "insecure_dev": rule.insecure_dev,
                "admin": rule.admin,
                "http": rule.http,
            }
            for rule in listeners
        ]
        try:
            self._native.load(
                plan.native,
                trust.native,
                json.dumps(rules).encode(),
                json.dumps([asdict(peer) for peer in peers]).encode(),
                json.dumps(credentials).encode() if credentials is not None else None,
                {name: int(at * 1000) for name, at in (directories or {}).items()},
                {name: entries.native for name, entries in (fetched or {}).items()},
            )
        except _native.EngineError as error:
            raise EngineError(str(error)) from error

    def check(self, request: bytes, facts: CallFacts) -> bytes:
        """Answer `authz.v1.Authorizer/Check`.

        Args:
            request: An encoded CheckRequest, or anything else.
            facts: What the transport knows.

        Returns:
            An encoded CheckResponse.
        """
        return self._native.check(request, facts)

    def batch_check(self, request: bytes, facts: CallFacts) -> bytes:
        """Answer `authz.v1.Authorizer/BatchCheck`.

        Args:
            request: An encoded BatchCheckRequest, or anything else.
            facts: What the transport knows.

        Returns:
            An encoded BatchCheckResponse.
        """
        return self._native.batch_check(request, facts)

    def envoy_check(self, request: bytes, facts: CallFacts) -> bytes:
        """Answer `envoy.service.auth.v3.Authorization/Check`.

        Args:
            request: An encoded CheckRequest of Envoy, or anything else.
            facts: What the transport knows.

        Returns:
            An encoded CheckResponse of Envoy.
        """
        return self._native.envoy_check(request, facts)

    def explain(self, request: bytes, facts: CallFacts) -> bytes:
        """Answer `authz.v1.Authorizer/Explain`.

        Args:
            request: An encoded ExplainRequest.
            facts: What the transport knows.

        Returns:
            An encoded ExplainResponse.

        Raises:
            ApiError: The request cannot be read, or the caller may not ask.
        """
        try:
            return self._native.explain(request, facts)
        except _native.ApiError as error:
            raise ApiError(error.reason_code, error.grpc_code, error.message) from error

    def call(self, surface: Surface, request: bytes, facts: CallFacts) -> bytes:
        """Answer a call that answers no decision: listing, revoking, and all of `authz.v1.Tasks`.

        Args:
            surface: Which call.
            request: Its encoded request.
            facts: What the transport knows.

        Returns:
            The encoded response.

        Raises:
            ApiError: It is refused.
        """
        try:
            return self._native.call(surface.value, request, facts)
        except _native.ApiError as error:
            # Only of a proof that lacks one does the engine say so.
            nonce = self.dpop_nonce() if error.message.startswith(_USE_NONCE) else ""
            reason, code, message = error.reason_code, error.grpc_code, error.message
            raise ApiError(reason, code, message, nonce, error.step) from error

    def sweep(self) -> dict[str, Any]:
        """Do a bounded part of what is due in the store.

        Returns:
            `committed`, `expired`, `forgotten`, `more` (ask again at once), `error`.
        """
        swept: dict[str, Any] = json.loads(self._native.sweep())
        return swept

    def dpop_nonce(self) -> str:
        """Make the nonce that the next proof of possession should bring.

        Returns:
            The nonce; every server of the store makes the same.
        """
        return self._native.dpop_nonce()

    def signing_keys(self) -> list[dict[str, Any]]:
        """List the keys that task credentials are signed with, of all nodes.

        Returns:
            `kid`, `node`, `jwk`, `published_at`, `active_from`, and `expires_at` once it signs no more; times in
            milliseconds.

        Raises:
            EngineError: The store failed.
        """
        listed: list[dict[str, Any]] = json.loads(self._kept(self._native.signing_keys))
        return listed

    def put_signing_key(self, record: Mapping[str, Any]) -> None:
        """Write a signing key.

        Args:
            record: As `signing_keys` gives it.

        Raises:
            EngineError: It is none, or the store failed or has too many.
        """
        self._kept(self._native.put_signing_key, json.dumps(record).encode())

    def remove_signing_key(self, kid: str) -> None:
        """Remove a signing key, if it is there.

        Args:
            kid: Its id.

        Raises:
            EngineError: The store failed.
        """
        self._kept(self._native.remove_signing_key, kid)

    def is_key_revoked(self, kid: str) -> bool:
        """Tell whether a signing key is revoked, as this node knows it now; never waits.

        Args:
            kid: Its id.

        Returns:
            Whether it is.
        """
        return self._native.is_key_revoked(kid)

    def trust_sequences(self) -> dict[str, dict[str, int]]:
        """Tell which bundle of each trust domain is the newest that any node has used.

        Returns:
            `epoch` and `sequence`, by the name of the domain.

        Raises:
            EngineError: The store failed.
        """
        known: dict[str, dict[str, int]] = json.loads(self._kept(self._native.trust_sequences))
        return known

    def note_trust_sequences(self, used: Mapping[str, Mapping[str, int]]) -> None:
        """Note which bundles are used; older ones than those that are known change nothing.

        Args:
            used: As `trust_sequences` gives it.

        Raises:
            EngineError: The store failed, or knows of too many domains.
        """
        self._kept(self._native.note_trust_sequences, json.dumps(used).encode())

    def leases(
        self, *, broker: str | None = None, session: str | None = None
    ) -> list[dict[str, Any]]:
        """List leases.

        Args:
            broker: Only those of this broker.
            session: Only those of this session.

        Returns:
            At most 10,000 records, times in milliseconds, each with `live`: whether its task and all above it are
            live, nothing of it is revoked, and its time is not over.

        Raises:
            EngineError: The store failed.
        """
        asked = {"broker": broker, "session": session}
        listed: list[dict[str, Any]] = json.loads(
            self._kept(self._native.leases, json.dumps(asked).encode())
        )
        return listed

    def put_lease(self, record: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
        """Change a lease if it still is what it was.

        Args:
            record: As `leases` gives it; `state` `ended` removes it.
            before: The `state` and the `attempts` that it must still have.

        Returns:
            Whether it was changed; a lease becomes `live` only while its task is.

        Raises:
            EngineError: It is none, or the store failed.
        """
        was = {"state": before["state"], "attempts": before.get("attempts", 0)}
        return self._kept(
            self._native.put_lease, json.dumps(record).encode(), json.dumps(was).encode()
        )

    @staticmethod
    def _kept(call: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return call(*args, **kwargs)
        except _native.EngineError as error:
            raise EngineError(str(error)) from error

    def refusal(self, surface: Surface, reason: str) -> bytes:
        """Answer a ready denial, counted and audited; never waits.

        Args:
            surface: How the decision was asked for.
            reason: Reason code.

        Returns:
            An encoded response of that surface.
        """
        return self._native.refusal(surface.value, reason)

    def status(self) -> dict[str, Any]:
        """Tell how the engine stands.

        Returns:
            Its own account.
        """
        stands: dict[str, Any] = json.loads(self._native.status())
        return stands

    def metrics(self) -> tuple[MetricFamily, ...]:
        """Read what the engine counted.

        Returns:
            Every family.
        """
        return tuple(
            MetricFamily(
                name,
                text,
                MetricKind(kind),
                tuple((sample, dict(labels), value) for sample, labels, value in samples),
            )
            for name, text, kind, samples in self._native.metrics()
        )

    def spans(self, most: int) -> list[dict[str, Any]]:
        """Take the oldest spans that wait to be exported.

        Args:
            most: So many at most.

        Returns:
            One mapping a span; none where there are no traces.
        """
        taken: list[dict[str, Any]] = json.loads(self._native.spans(most))
        return taken

    def unknown_keys(self) -> tuple[tuple[str, str], ...]:
        """Take whose keys tokens named that are not there.

        Returns:
            `domain` or `issuer` with the name of the configuration, or `own` with none for the keys of this server's own
            credentials, each once since this was last asked.
        """
        return tuple(
            (str(owner["kind"]), str(owner.get("name", "")))
            for owner in json.loads(self._native.unknown_keys())
        )

    def close(self) -> None:
        """Flush the audit and let go of everything; later calls deny."""
        self._native.close()


@final
class FastLane:
    """The Rust server for Check and Envoy's Check.

    Args:
        engine: The engine that answers.
        settings: Listeners and limits, as the engine's JSON.

    Raises:
        EngineError: A listener cannot be opened.
    """

    __slots__ = ("_native",)

    def __init__(self, engine: Engine, settings: Mapping[str, Any]) -> None:
        try:
            self._native = _native.FastLane.start(engine.native, json.dumps(settings).encode())
        except _native.EngineError as error:
            raise EngineError(str(error)) from error

    @property
    def addresses(self) -> tuple[str, ...]:
        """Bound addresses, in the order of the listeners."""
        return tuple(self._native.addresses)

    def renew_tls(
        self, listener: str, certificate: bytes, key: bytes, client_ca: bytes | None
    ) -> None:
        """Serve new connections of a listener with other files.

        Args:
            listener: Its name.
            certificate: Certificate chain, PEM.
            key: Private key, PEM.
            client_ca: Authorities of callers, PEM; none where callers need no certificate.

        Raises:
            EngineError: They are refused; those before go on serving.
        """
        try:
            self._native.renew_tls(listener, certificate, key, client_ca)
        except _native.EngineError as error:
            raise EngineError(str(error)) from error

    def close(self, grace: float) -> None:
        """Drain and stop.

        Args:
            grace: Seconds that calls in flight may take.
        """
        self._native.close(grace)


def format_policy(text: str, file: str) -> str:
    """Format a Cedar file.

    Args:
        text: The file.
        file: Its name, for messages.

    Returns:
        The same policies in the usual form.

    Raises:
        BundleError: It is no Cedar.
    """
    try:
        return _native.format_policy(text, file)
    except _native.BundleError as error:
        raise BundleError(_diagnostics(error.diagnostics)) from error


@dataclass(frozen=True, slots=True)
class Reading:
    """A word of a prompt that could name a destination."""

    text: str
    """The word."""
    kind: str
    """`email`, `url`, `iban`, `account` or `path`; empty where it is no destination."""
    name: str
    """The canonical form of the destination."""
    why: str
    """Why it is not named; empty where it is."""


def prompt_names(prompt: str) -> tuple[Reading, ...]:
    """Read what a prompt names.

    Args:
        prompt: The user's words; the first 256 KiB are read.

    Returns:
        The words that could name a destination, in order.
    """
    return tuple(
        Reading(
            str(item["text"]),
            str(item.get("kind", "")),
            str(item.get("name", "")),
            str(item.get("why", "")),
        )
        for item in json.loads(_native.prompt_names(prompt))
    )


def bundle_schema() -> str:
    """Give the JSON Schema of bundle files.

    Returns:
        JSON text.
    """
    return _native.bundle_schema()


def case_schema() -> str:
    """Give the JSON Schema of case files.

    Returns:
        JSON text.
    """
    return _native.case_schema()


def seal_catalog(document: Mapping[str, Any]) -> dict[str, Any]:
    """Work out digests and operations of an MCP server's tools.

    Args:
        document: `system`, `server`, `origin`, `tools`, as they stand in a catalog file.

    Returns:
        `digest`, and `tools` with `name`, `operation`, `digest`, `opened` each.

    Raises:
        UsageError: It is no such document, or two tools would be one operation.
    """
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
        sealed: dict[str, Any] = json.loads(_native.seal_catalog(text))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the tools cannot be read: {error}") from error
    return sealed


def build_profile() -> str:
    """Tell how the extension was built.

    Returns:
        `release`; `guided`, by a profile of such work; or `debug`: then nothing may be concluded from its speed.
    """
    return _native.build_profile()


def accepted_algorithms() -> dict[str, list[str]]:
    """Give the names of the signature algorithms that verification accepts.

    Returns:
        Of `proof` (DPoP), `jwt_svid` (also as an assertion of a client) and `credential` (task credentials).
    """
    accepted: dict[str, list[str]] = json.loads(_native.accepted_algorithms())
    return accepted


def is_usable_key(jwk: Mapping[str, Any]) -> bool:
    """Tell whether signatures may be verified by a public key.

    Args:
        jwk: The key (RFC 7517).

    Returns:
        False where it is malformed, of a kind that is not supported, or one for which anybody can sign (RFC 8725 §3.4).
    """
    return _native.is_usable_key(json.dumps(jwk))


def reason_table() -> list[dict[str, Any]]:
    """Give every reason code with what follows from it.

    Returns:
        One row a code.
    """
    rows: list[dict[str, Any]] = json.loads(_native.reason_table())
    return rows
