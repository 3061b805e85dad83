"""Task credentials: the engine decides and commits what one is for, then it is signed here.

In this order: a key must be there before anything is committed, and nothing is signed that is not committed.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from authz.errors import ApiError, KeysError
from authz.leases import LeaseManager
from authz.model import CallFacts, MetricFamily, MetricKind, Surface
from authz.server.grpc.unary import SurfaceCalls
from authz.server.http.oauth.clients import OAuthClient
from authz.server.lease_records import lease_of
from authz.server.static_secrets import StaticSecrets
from authz.signing import KeyRecord, KeyRing, SigningKey, mint
from authz.v1 import credentials_pb2

__all__ = ["CredentialIssuer", "SigningKeyRecords", "key_families"]

_UNAVAILABLE: Final = 14
_MARGIN: Final = 0.05


@dataclass(frozen=True, slots=True)
class CredentialIssuer:
    """Answers what is asked about credentials, over gRPC and HTTP."""

    engine: SurfaceCalls
    """Decides and commits."""
    key: Callable[[], SigningKey | None]
    """Gives the key that signs now."""
    leases: LeaseManager | None = None
    """Makes the secrets of leases."""
    injections: StaticSecrets | None = None
    """Has standing secrets."""

    def call(self, surface: Surface, request: bytes, facts: CallFacts) -> bytes:
        """Answer a method of `authz.v1.Credentials`.

        Args:
            surface: Which.
            request: Its encoded request.
            facts: What the transport knows.

        Returns:
            Its encoded response.

        Raises:
            ApiError: It is refused.
        """
        if surface is Surface.CREDENTIAL_ISSUE:
            self._signing()
            until = time.monotonic() + (facts.remaining or 0.0)
            issued = self._asked(surface, request, facts)
            if "lease" in issued:
                return self._leased(issued, until)
            if "injection" in issued:
                return self._injected(issued)
            return self._issued(issued)
        if surface is Surface.CREDENTIAL_INTROSPECT:
            return _known(self._asked(surface, request, facts))
        self.engine.call(surface, request, facts)
        return credentials_pb2.CredentialsRevokeResponse().SerializeToString()

    def exchange(self, request: Mapping[str, Any], facts: CallFacts) -> Mapping[str, Any]:
        """Exchange tokens for a credential.

        Args:
            request: As the engine's JSON.
            facts: What the transport knows.

        Returns:
            What the engine committed, and the `token`.

        Raises:
            ApiError: It is refused.
        """
        self._signing()
        asked = json.dumps(request, allow_nan=False).encode()
        issued = self._asked(Surface.CREDENTIAL_EXCHANGE, asked, facts)
        claims = issued["claims"]
        return {**issued, "claims": json.loads(claims), "token": self._signed(claims)}

    def introspect(self, client: OAuthClient, token: str, facts: CallFacts) -> Mapping[str, Any]:
        """Tell what is known of a credential.

        Args:
            client: Who asks.
            token: The credential.
            facts: What the transport knows.

        Returns:
            `active`, and its claims where it is.

        Raises:
            ApiError: It cannot be told now.
        """
        return self._asked(Surface.CREDENTIAL_INTROSPECT, _of(client, token), facts)

    def revoke(self, client: OAuthClient, token: str, facts: CallFacts) -> None:
        """Revoke a credential; one that is none of the client's stays as it is.

        Args:
            client: Who asks.
            token: The credential.
            facts: What the transport knows.

        Raises:
            ApiError: It cannot be done now.
        """
        self.engine.call(Surface.CREDENTIAL_REVOKE, _of(client, token), facts)

    def _leased(self, issued: Mapping[str, Any], until: float) -> bytes:
        """Make the secret of a lease whose record is committed."""
        if self.leases is None:
            raise ApiError("UNAVAILABLE", _UNAVAILABLE, "no secrets are leased on this node")
        lease = lease_of(issued["lease"])
        # So that the answer leaves in time: a secret that nobody gets is taken back.
        parts = self.leases.make(lease, max(0.0, until - time.monotonic() - _MARGIN))
        return _secret(lease.id, parts, issued)

    def _injected(self, issued: Mapping[str, Any]) -> bytes:
        """Give a standing secret to the enforcer whose permit it is."""
        told = issued["injection"]
        known = self.injections.by_system() if self.injections is not None else {}
        parts = known.get(str(told["system"]), {})
        if any(value is None for value in parts.values()) or not parts:
            what = "the secret that the system is reached with cannot be read"
            raise ApiError("UNAVAILABLE", _UNAVAILABLE, what)
        return _secret(
            str(told["lease"]), {k: v for k, v in parts.items() if v is not None}, issued
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
        # The key is asked for again: it may have been revoked since, and the commit has told this node.
        # Where none signs, what is committed reaches nobody: what was reserved is released when it ends.
        try:
            return mint(claims, self._signing())
        except KeysError as error:
            what = "the signing key cannot be used now"
            raise ApiError("UNAVAILABLE", _UNAVAILABLE, what) from error

    def _signing(self) -> SigningKey:
        key = self.key()
        if key is None:
            raise ApiError("UNAVAILABLE", _UNAVAILABLE, "no key signs credentials on this node now")
        return key

    def _asked(self, surface: Surface, request: bytes, facts: CallFacts) -> dict[str, Any]:
        answered: dict[str, Any] = json.loads(self.engine.call(surface, request, facts))
        return answered


class SigningKeyCalls(Protocol):
    """The engine, as far as signing keys need it."""

    def signing_keys(self) -> list[dict[str, Any]]:
        """Read the keys of all nodes."""

    def put_signing_key(self, record: Mapping[str, Any]) -> None:
        """Write one."""

    def remove_signing_key(self, kid: str) -> None:
        """Remove one."""

    def is_key_revoked(self, kid: str) -> bool:
        """Tell whether a key is revoked."""


@dataclass(frozen=True, slots=True)
class SigningKeyRecords:
    """The published keys in the engine's store, whose times are milliseconds."""

    engine: SigningKeyCalls
    """Has the store."""

    def signing_keys(self) -> tuple[KeyRecord, ...]:
        """Read the keys of all nodes.

        Returns:
            All of them.
        """
        return tuple(
            KeyRecord(
                kid=str(record["kid"]),
                node=str(record["node"]),
                jwk=str(record["jwk"]),
                published_at=record["published_at"] / 1000,
                active_from=record["active_from"] / 1000,
                # Every key of ours has an end; one without would never be let go of.
                expires_at=(record.get("expires_at") or record["active_from"]) / 1000,
            )
            for record in self.engine.signing_keys()
        )

    def put_signing_key(self, record: KeyRecord) -> None:
        """Write one.

        Args:
            record: The key.
        """
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
        """Remove one.

        Args:
            kid: Its name.
        """
        self.engine.remove_signing_key(kid)

    def is_key_revoked(self, kid: str) -> bool:
        """Tell whether a key is revoked, as this node knows it now.

        Args:
            kid: Its name.

        Returns:
            Whether it is.
        """
        return self.engine.is_key_revoked(kid)


def key_families(keys: KeyRing) -> tuple[MetricFamily, ...]:
    """Count the signing keys, for metrics.

    Args:
        keys: The keys.

    Returns:
        The families.
    """
    name = "authz_signing_keys"
    counted = tuple((name, {"state": state}, float(n)) for state, n in keys.counts().items())
    text = "Published keys that sign credentials: of this node by state, and those of other nodes."
    return (MetricFamily(name, text, MetricKind.GAUGE, counted),)


def _of(client: OAuthClient, token: str) -> bytes:
    named = {"spiffe_id": client.spiffe_id, "how": client.how}
    return json.dumps({"client": named, "token": token}).encode()


def _secret(name: str, parts: Mapping[str, str], issued: Mapping[str, Any]) -> bytes:
    answer = credentials_pb2.IssueResponse(
        lease=credentials_pb2.Lease(id=name, parts=parts),
        expires_at=Timestamp(seconds=int(issued["expires_at"])),
        dpop_nonce=issued.get("dpop_nonce") or "",
    )
    return answer.SerializeToString()


def _known(known: Mapping[str, Any]) -> bytes:
    answer = credentials_pb2.IntrospectResponse(active=known.get("active") is True)
    if answer.active:
        claims = {name: value for name, value in known.items() if name != "active"}
        json_format.ParseDict(claims, answer.claims)
    return answer.SerializeToString()
