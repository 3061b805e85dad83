"""Issues task credentials: the engine decides and commits the claims, then they are signed here.

In this order: without a key, nothing is committed, and nothing is signed that is not committed.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from authz.errors import ApiError, GrpcCode, KeysError
from authz.leases import LeaseManager
from authz.model import CallFacts, MetricFamily, MetricKind, Surface
from authz.server.grpc.unary import SurfaceCalls
from authz.server.http.oauth.clients import OAuthClient
from authz.server.lease_records import lease_of
from authz.server.static_secrets import StaticSecrets
from authz.signing import KeyRecord, KeyRing, SigningKey, mint
from authz_client.v1 import credentials_pb2

__all__ = ["CredentialIssuer", "SigningKeyRecords", "key_families"]

_MARGIN: Final = 0.05


@dataclass(frozen=True, slots=True)
class CredentialIssuer:
    """Answers calls about credentials, over gRPC and HTTP."""

    engine: SurfaceCalls
    """Decides and commits."""
    key: Callable[[], SigningKey | None]
    """Returns the key that signs now."""
    leases: LeaseManager | None = None
    """Makes the secrets of leases."""
    secrets: StaticSecrets | None = None
    """Has the static secrets."""

    def call(self, surface: Surface, request: bytes, facts: CallFacts) -> bytes:
        """Answer a method of `authz.v1.Credentials`.

        Args:
            surface: The method.
            request: Its encoded request.
            facts: Facts of the transport about the call.

        Returns:
            The encoded response.

        Raises:
            ApiError: The call is refused.
        """
        if surface is Surface.CREDENTIAL_ISSUE:
            self._signing()
            until = time.monotonic() + (facts.remaining or 0.0)
            issued = self._ask(surface, request, facts)
            if "lease" in issued:
                return self._leased(issued, until)
            if "static_secret" in issued:
                return self._with_static_secret(issued)
            return self._issued(issued)
        if surface is Surface.CREDENTIAL_INTROSPECT:
            return _introspection(self._ask(surface, request, facts))
        self.engine.call(surface, request, facts)
        return credentials_pb2.CredentialsRevokeResponse().SerializeToString()

    def exchange(self, request: Mapping[str, Any], facts: CallFacts) -> Mapping[str, Any]:
        """Exchange tokens for a credential.

        Args:
            request: The request, as the engine's JSON.
            facts: Facts of the transport about the call.

        Returns:
            The engine's answer, with the `token`.

        Raises:
            ApiError: The exchange is refused.
        """
        self._signing()
        encoded = json.dumps(request, allow_nan=False).encode()
        issued = self._ask(Surface.CREDENTIAL_EXCHANGE, encoded, facts)
        claims = issued["claims"]
        return {**issued, "claims": json.loads(claims), "token": self._signed(claims)}

    def introspect(self, client: OAuthClient, token: str, facts: CallFacts) -> Mapping[str, Any]:
        """Return whether a credential is `active`, and its claims if it is.

        Raises:
            ApiError: The credential cannot be looked up now.
        """
        return self._ask(Surface.CREDENTIAL_INTROSPECT, _encode(client, token), facts)

    def revoke(self, client: OAuthClient, token: str, facts: CallFacts) -> None:
        """Revoke a credential. A credential of another client stays valid, without an error.

        Raises:
            ApiError: The credential cannot be revoked now.
        """
        self.engine.call(Surface.CREDENTIAL_REVOKE, _encode(client, token), facts)

    def _leased(self, issued: Mapping[str, Any], until: float) -> bytes:
        """Make the secret of a lease whose record is committed."""
        if self.leases is None:
            raise ApiError(
                "UNAVAILABLE", GrpcCode.UNAVAILABLE, "no secrets are leased on this node"
            )
        lease = lease_of(issued["lease"])
        # The margin lets the answer leave in time. A secret whose answer comes too late is removed again.
        parts = self.leases.make(lease, max(0.0, until - time.monotonic() - _MARGIN))
        return _secret(lease.id, parts, issued)

    def _with_static_secret(self, issued: Mapping[str, Any]) -> bytes:
        """Return a static secret to the enforcer that holds the permit."""
        static_secret = issued["static_secret"]
        secrets = self.secrets.by_system() if self.secrets is not None else {}
        parts = secrets.get(str(static_secret["system"]), {})
        if any(value is None for value in parts.values()) or not parts:
            what = "the secret that the system is reached with cannot be read"
            raise ApiError("UNAVAILABLE", GrpcCode.UNAVAILABLE, what)
        return _secret(
            str(static_secret["lease"]), {k: v for k, v in parts.items() if v is not None}, issued
        )

    def _issued(self, issued: Mapping[str, Any]) -> bytes:
        answer = credentials_pb2.IssueResponse(
            token_type=issued.get("token_type", ""), dpop_nonce=issued.get("dpop_nonce") or ""
        )
        if "claims" in issued:
            answer.token = self._signed(issued["claims"])
            answer.expires_at.seconds = issued["expires_at"]
        return answer.SerializeToString()

    def _signed(self, claims: str) -> str:
        # The key is read again: it may have been revoked since, and the commit has told this node. Without a key nobody gets
        # the committed credential, and its reservations are released when it ends.
        try:
            return mint(claims, self._signing())
        except KeysError as error:
            what = "the signing key cannot be used now"
            raise ApiError("UNAVAILABLE", GrpcCode.UNAVAILABLE, what) from error

    def _signing(self) -> SigningKey:
        key = self.key()
        if key is None:
            raise ApiError(
                "UNAVAILABLE", GrpcCode.UNAVAILABLE, "no key signs credentials on this node now"
            )
        return key

    def _ask(self, surface: Surface, request: bytes, facts: CallFacts) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.engine.call(surface, request, facts))
        return answer


class SigningKeyCalls(Protocol):
    """The part of the engine that keeps signing keys."""

    def signing_keys(self) -> list[dict[str, Any]]:
        """Return the keys of all nodes."""

    def put_signing_key(self, record: Mapping[str, Any]) -> None:
        """Write a key."""

    def remove_signing_key(self, kid: str) -> None:
        """Remove a key."""

    def is_key_revoked(self, kid: str) -> bool:
        """Return whether a key is revoked."""


@dataclass(frozen=True, slots=True)
class SigningKeyRecords:
    """The published keys in the engine's store, whose times are milliseconds."""

    engine: SigningKeyCalls
    """Has the store."""

    def signing_keys(self) -> tuple[KeyRecord, ...]:
        """Return the keys of all nodes."""
        return tuple(
            KeyRecord(
                kid=str(record["kid"]),
                node=str(record["node"]),
                jwk=str(record["jwk"]),
                published_at=record["published_at"] / 1000,
                active_from=record["active_from"] / 1000,
                # Every key of Authz has an end. A record without one would never be removed.
                expires_at=(record.get("expires_at") or record["active_from"]) / 1000,
            )
            for record in self.engine.signing_keys()
        )

    def put_signing_key(self, record: KeyRecord) -> None:
        """Write a key."""
        self.engine.put_signing_key(
            {
                "kid": record.kid,
                "node": record.node,
                "jwk": record.jwk,
                "published_at": round(record.published_at * 1000),
                "active_from": round(record.active_from * 1000),
                "expires_at": round(record.expires_at * 1000),
            }
        )

    def remove_signing_key(self, kid: str) -> None:
        """Remove a key by its id."""
        self.engine.remove_signing_key(kid)

    def is_key_revoked(self, kid: str) -> bool:
        """Return whether this node knows that a key is revoked."""
        return self.engine.is_key_revoked(kid)


def key_families(keys: KeyRing) -> tuple[MetricFamily, ...]:
    """Return the metrics of the signing keys."""
    name = "authz_signing_keys"
    counted = tuple((name, {"state": state}, float(n)) for state, n in keys.counts().items())
    text = "Published keys that sign credentials: of this node by state, and those of other nodes."
    return (MetricFamily(name, text, MetricKind.GAUGE, counted),)


def _encode(client: OAuthClient, token: str) -> bytes:
    caller = {"spiffe_id": client.spiffe_id, "how": client.how}
    return json.dumps({"client": caller, "token": token}).encode()


def _secret(name: str, parts: Mapping[str, str], issued: Mapping[str, Any]) -> bytes:
    answer = credentials_pb2.IssueResponse(
        lease=credentials_pb2.Lease(id=name, parts=parts),
        expires_at=Timestamp(seconds=int(issued["expires_at"])),
        dpop_nonce=issued.get("dpop_nonce") or "",
    )
    return answer.SerializeToString()


def _introspection(state: Mapping[str, Any]) -> bytes:
    answer = credentials_pb2.IntrospectResponse(active=state.get("active") is True)
    if answer.active:
        claims = {name: value for name, value in state.items() if name != "active"}
        json_format.ParseDict(claims, answer.claims)
    return answer.SerializeToString()
