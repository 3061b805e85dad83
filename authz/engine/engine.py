"""The engine itself: it decides, and it keeps the records that decisions need."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, final

from authz import _native
from authz.engine.native_errors import api_errors, engine_errors
from authz.engine.plan import Plan, RecipientListEntries
from authz.engine.settings import ListenerRules, PeerRules
from authz.engine.trust import Trust
from authz.errors import ApiError
from authz.model import CallFacts, MetricFamily, MetricKind, Surface

__all__ = ["Engine"]

_USE_NONCE: Final = "use_dpop_nonce"


@final
class Engine:
    """Decides: bytes in, bytes out.

    Args:
        settings: Limits, store and audit, of `engine_settings`.

    Raises:
        EngineError: The engine cannot be built, for example because the audit file cannot be opened.
    """

    __slots__ = ("_native",)

    def __init__(self, settings: Mapping[str, Any]) -> None:
        with engine_errors():
            self._native = _native.Engine(json.dumps(settings).encode())

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
        recipient_lists: Mapping[str, float] | None = None,
        fetched: Mapping[str, RecipientListEntries] | None = None,
        shadow: Plan | None = None,
    ) -> None:
        """Replace bundle, keys and rules at once. Decisions in flight keep the ones before.

        Args:
            plan: The bundle.
            trust: The keys.
            listeners: Rules of every listener.
            peers: Rules of every enforcer that shows a certificate.
            credentials: How task credentials are issued, as the engine's JSON. `None`: none are issued.
            recipient_lists: Unix time at which the file of each recipient list changed, or it was fetched. A recipient list with
                `max_age` that is missing here is stale.
            fetched: Entries of each recipient list that is fetched. A recipient list that is missing here has no entries.
            shadow: A second bundle, which judges the same calls and changes no answer.

        Raises:
            EngineError: A rule or a setting of credentials is not valid; nothing changed.
        """
        with engine_errors():
            self._native.load(
                plan.native,
                trust.native,
                json.dumps([asdict(rules) for rules in listeners]).encode(),
                json.dumps([asdict(rules) for rules in peers]).encode(),
                json.dumps(credentials).encode() if credentials is not None else None,
                {name: int(at * 1000) for name, at in (recipient_lists or {}).items()},
                {name: entries.native for name, entries in (fetched or {}).items()},
                shadow.native if shadow is not None else None,
            )

    # --- decisions: requests and answers are encoded messages; a malformed request is denied

    def check(self, request: bytes, facts: CallFacts) -> bytes:
        """Answer `authz.v1.Authorizer/Check`."""
        return self._native.check(request, facts)

    def batch_check(self, request: bytes, facts: CallFacts) -> bytes:
        """Answer `authz.v1.Authorizer/BatchCheck`."""
        return self._native.batch_check(request, facts)

    def envoy_check(self, request: bytes, facts: CallFacts) -> bytes:
        """Answer `envoy.service.auth.v3.Authorization/Check`."""
        return self._native.envoy_check(request, facts)

    def refusal(self, surface: Surface, reason: str) -> bytes:
        """Answer a ready denial with a reason code; it is counted and audited, and never waits."""
        return self._native.refusal(surface.value, reason)

    # --- other calls

    def explain(self, request: bytes, facts: CallFacts) -> bytes:
        """Answer `authz.v1.Authorizer/Explain`.

        Raises:
            ApiError: The request cannot be read, or the caller may not ask.
        """
        with api_errors():
            return self._native.explain(request, facts)

    def call(self, surface: Surface, request: bytes, facts: CallFacts) -> bytes:
        """Answer a call without a decision: tasks, credentials, lists, reports, revocation.

        Args:
            surface: The method.
            request: Its encoded request.
            facts: Facts of the transport about the call.

        Returns:
            The encoded response.

        Raises:
            ApiError: The call is refused.
        """
        try:
            return self._native.call(surface.value, request, facts)
        except _native.ApiError as error:
            # The engine begins the message so only where the proof lacks a nonce.
            nonce = self.dpop_nonce() if error.message.startswith(_USE_NONCE) else ""
            reason, code, message = error.reason_code, error.grpc_code, error.message
            raise ApiError(reason, code, message, nonce, error.step) from error

    def dpop_nonce(self) -> str:
        """Make the nonce that the next DPoP proof should carry; every node of the store makes the same."""
        return self._native.dpop_nonce()

    def record_refused_load(self, load: Mapping[str, Any]) -> bool:
        """Record a load that was refused, if the audit log is chained.

        Args:
            load: `digest` of the refused bundle in hex, or empty; `errors` with `at`, `code` and `message` each; `unrecorded`, the
                number of refused loads since the last record of one.

        Returns:
            Whether the log accepted the record.

        Raises:
            EngineError: `load` has another form.
        """
        with engine_errors():
            return self._native.record_refused_load(json.dumps(load).encode())

    # --- records in the store

    def sweep(self) -> dict[str, Any]:
        """Do a bounded part of the work that is due in the store.

        Returns:
            `committed`, `expired`, `forgotten`, `more` (call again at once), `error`.
        """
        result: dict[str, Any] = json.loads(self._native.sweep())
        return result

    def signing_keys(self) -> list[dict[str, Any]]:
        """Return the keys that sign task credentials, of all nodes.

        Returns:
            `kid`, `node`, `jwk`, `published_at`, `active_from`, and `expires_at` once a key no longer signs; times in
            milliseconds.

        Raises:
            EngineError: The store failed.
        """
        with engine_errors():
            records: list[dict[str, Any]] = json.loads(self._native.signing_keys())
            return records

    def put_signing_key(self, record: Mapping[str, Any]) -> None:
        """Write a signing key, in the form of `signing_keys`.

        Raises:
            EngineError: The record is not valid, or the store failed or is full.
        """
        with engine_errors():
            self._native.put_signing_key(json.dumps(record).encode())

    def remove_signing_key(self, kid: str) -> None:
        """Remove a signing key. A missing key is not an error.

        Raises:
            EngineError: The store failed.
        """
        with engine_errors():
            self._native.remove_signing_key(kid)

    def is_key_revoked(self, kid: str) -> bool:
        """Return whether this node knows that a signing key is revoked; never waits."""
        return self._native.is_key_revoked(kid)

    def trust_sequences(self) -> dict[str, dict[str, int]]:
        """Return the newest bundle of each trust domain that any node has used.

        Returns:
            `epoch` and `sequence`, by the name of the domain.

        Raises:
            EngineError: The store failed.
        """
        with engine_errors():
            sequences: dict[str, dict[str, int]] = json.loads(self._native.trust_sequences())
            return sequences

    def note_trust_sequences(self, used: Mapping[str, Mapping[str, int]]) -> None:
        """Write the bundles in use, in the form of `trust_sequences`. Older ones than the store has change nothing.

        Raises:
            EngineError: The store failed, or has too many domains.
        """
        with engine_errors():
            self._native.note_trust_sequences(json.dumps(used).encode())

    def leases(
        self, *, broker: str | None = None, session: str | None = None
    ) -> list[dict[str, Any]]:
        """Return leases.

        Args:
            broker: Only leases of this broker.
            session: Only leases of this session.

        Returns:
            At most 10,000 records, times in milliseconds. `live` says whether the task and its ancestors are live, none of
            it is revoked, and the lease has not expired.

        Raises:
            EngineError: The store failed.
        """
        with engine_errors():
            selection = json.dumps({"broker": broker, "session": session}).encode()
            records: list[dict[str, Any]] = json.loads(self._native.leases(selection))
            return records

    def put_lease(self, record: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
        """Change a lease if it did not change meanwhile.

        Args:
            record: The lease, in the form of `leases`. `state: ended` removes it.
            before: `state` and `attempts` that the stored lease must still have.

        Returns:
            Whether the lease was changed. A lease becomes `live` only while its task is.

        Raises:
            EngineError: The record is not valid, or the store failed.
        """
        expected = {"state": before["state"], "attempts": before.get("attempts", 0)}
        with engine_errors():
            return self._native.put_lease(
                json.dumps(record).encode(), json.dumps(expected).encode()
            )

    # --- approvals: requests and answers are encoded messages, a person is JSON

    def approvals_list(self, person: Mapping[str, Any] | None, request: bytes) -> bytes:
        """Answer `authz.v1.Approvals/List` for a person.

        Args:
            person: The verified person: `issuer`, `sub`, `claims`, `method`, `authenticated_at_ms`, `acr`, `uid` and `passkey`.
                `None` for the owner of the administration socket, who sees all approvals and cannot answer.
            request: The encoded request.

        Raises:
            ApiError: The person or the request is not valid, or the store failed.
        """
        with api_errors():
            return self._native.approvals_list(json.dumps(person).encode(), request)

    def approval_show(self, person: Mapping[str, Any] | None, request: bytes) -> bytes:
        """Answer `authz.v1.Approvals/Get` for a person, whose clock starts with the first look.

        Raises:
            ApiError: There is no such approval, the person may not answer it, or the store failed.
        """
        with api_errors():
            return self._native.approval_show(json.dumps(person).encode(), request)

    def approval_resolve(self, person: Mapping[str, Any] | None, request: bytes) -> bytes:
        """Answer `authz.v1.Approvals/Resolve` for a person.

        Raises:
            ApiError: The person may not answer, the approval is not open, a digest is not that of the call, or the store failed.
        """
        with api_errors():
            return self._native.approval_resolve(json.dumps(person).encode(), request)

    # --- break-glass: requests and answers are encoded messages, a person is JSON

    def breakglass_open(self, person: Mapping[str, Any] | None, request: bytes) -> bytes:
        """Answer `authz.v1.Admin/OpenBreakglass` for a person.

        Args:
            person: The verified person, as of `approvals_list`. `None`: the caller is not a person, and is refused.
            request: The encoded request.

        Raises:
            ApiError: The person may not open it, the request is not valid, or the store failed.
        """
        with api_errors():
            return self._native.breakglass_open(json.dumps(person).encode(), request)

    def breakglass_confirm(self, person: Mapping[str, Any] | None, request: bytes) -> bytes:
        """Answer `authz.v1.Admin/ConfirmBreakglass` for a person, as `breakglass_open` does.

        Raises:
            ApiError: The person may not confirm it, it is not open, or the store failed.
        """
        with api_errors():
            return self._native.breakglass_confirm(json.dumps(person).encode(), request)

    def breakglass_end(self, person: Mapping[str, Any] | None, request: bytes) -> bytes:
        """Answer `authz.v1.Admin/EndBreakglass` for a person, or with `None` for the owner of the administration socket.

        Raises:
            ApiError: It is not live, or the store failed.
        """
        with api_errors():
            return self._native.breakglass_end(json.dumps(person).encode(), request)

    def breakglass_list(self, request: bytes) -> bytes:
        """Answer `authz.v1.Admin/ListBreakglass`.

        Raises:
            ApiError: The store failed.
        """
        with api_errors():
            return self._native.breakglass_list(request)

    def approval_status(self, request: bytes, facts: CallFacts) -> bytes:
        """Answer `authz.v1.Approvals/Get` for the agent of the call.

        Raises:
            ApiError: The caller has no such approval, or the store failed.
        """
        with api_errors():
            return self._native.approval_status(request, facts)

    def approval_changes(
        self, after: int, wait_ms: int
    ) -> tuple[int, list[tuple[str, str, str, list[str]]] | None]:
        """Wait for changes of approvals on this node.

        Args:
            after: Number of the last change that the caller knows. 0: none.
            wait_ms: Longest wait, at most a minute.

        Returns:
            The number of the newest change, and the changes after `after`: approval id, task, status (`open`, `approved`,
            `rejected`, `consumed`) and queues that still lack an answer. `None` in place of the changes: some are no longer kept,
            so read all approvals again.
        """
        return self._native.approval_changes(after, wait_ms)

    def passkeys(self, issuer: str, sub: str) -> list[dict[str, Any]]:
        """Return the passkeys of a person.

        Raises:
            EngineError: The store failed.
        """
        with engine_errors():
            records: list[dict[str, Any]] = json.loads(self._native.passkeys(issuer, sub))
            return records

    def put_passkey(self, record: Mapping[str, Any]) -> None:
        """Write a passkey, in the form of `passkeys`.

        Raises:
            EngineError: The record is not valid, the person has 32 others, or the store failed.
        """
        with engine_errors():
            self._native.put_passkey(json.dumps(record).encode())

    def remove_passkey(self, issuer: str, sub: str, credential_id: str) -> None:
        """Remove a passkey of a person. A missing one is not an error.

        Raises:
            EngineError: The store failed.
        """
        with engine_errors():
            self._native.remove_passkey(issuer, sub, credential_id)

    # --- status

    def status(self) -> dict[str, Any]:
        """Return the engine's status: `ready`, `problems`, and its parts."""
        status: dict[str, Any] = json.loads(self._native.status())
        return status

    def metrics(self) -> tuple[MetricFamily, ...]:
        """Return every metric that the engine counts."""
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
        """Take the oldest spans that wait for export, at most `most`; none where traces are off."""
        spans: list[dict[str, Any]] = json.loads(self._native.spans(most))
        return spans

    def unknown_keys(self) -> tuple[tuple[str, str], ...]:
        """Take the owners of keys that tokens named and this node does not have, each once since the last call.

        Returns:
            `domain` or `issuer` with the name of the configuration; `own`, without a name, for the keys of task credentials.
        """
        return tuple(
            (str(owner["kind"]), str(owner.get("name", "")))
            for owner in json.loads(self._native.unknown_keys())
        )

    def close(self) -> None:
        """Flush the audit and free all resources; later calls deny."""
        self._native.close()
