"""Approvals in memory, and an issuer at which people log in, for tests of the page."""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from authz.approvals import ApprovalChange, ApprovalChanges, Person, StoredPasskey
from authz.errors import ApiError, GrpcCode
from authz.trust import Document, FetchError, FetchRequest
from authz_client.v1 import approvals_pb2, decision_pb2
from tests.support.minting import Claims, Key

PENDING = approvals_pb2.APPROVAL_STATUS_PENDING
APPROVED = approvals_pb2.APPROVAL_STATUS_APPROVED
REJECTED = approvals_pb2.APPROVAL_STATUS_REJECTED


def approval(name: str = "a1-0", **changes: Any) -> approvals_pb2.Approval:
    """Makes an open approval."""
    made = approvals_pb2.Approval(
        id=name,
        decision_id="d-1",
        operation="bank.transfer",
        digest=b"\x01" * 32,
        kinds=["approve:finance"],
        status=PENDING,
        arguments_json=b'{"iban":"DE89370400440532013000","amount":1200}',
        subject="corp/bob",
        agents=["spiffe://a.example/bot"],
        template="pay",
        purpose="Pay invoices",
        effects=["export"],
        tier=decision_pb2.TIER_STANDARD,
        resource="accounts/7",
        waits_for=["approve:finance"],
        reject_reasons={"wrong_recipient": "The recipient is wrong."},
        answerable=True,
    )
    made.reasons.add(kind="approve:finance", policy_id="pay-big", reason="Above 1,000 EUR.")
    made.created_at.FromSeconds(int(time.time()) - 5)
    made.expires_at.FromSeconds(int(time.time()) + 3600)
    made.MergeFrom(approvals_pb2.Approval(**changes))
    return made


@dataclass
class Approvals:
    """Keeps approvals and passkeys, and judges nothing but what a test sets."""

    approvals: dict[str, approvals_pb2.Approval] = field(default_factory=dict)
    answers: list[tuple[Person, approvals_pb2.ResolveRequest]] = field(default_factory=list)
    shown: list[Person | None] = field(default_factory=list)
    keys: dict[tuple[str, str], dict[str, StoredPasskey]] = field(default_factory=dict)
    refusal: ApiError | None = None
    changes: list[ApprovalChange] = field(default_factory=list)
    _arrived: threading.Condition = field(default_factory=threading.Condition)

    def add(self, one: approvals_pb2.Approval) -> None:
        """Adds or replaces an approval, and tells watchers."""
        with self._arrived:
            self.approvals[one.id] = one
            self.changes.append(ApprovalChange(one.id, one.task, one.status, ()))
            self._arrived.notify_all()

    def approvals_list(
        self, person: Person | None, request: approvals_pb2.ApprovalsListRequest
    ) -> approvals_pb2.ApprovalsListResponse:
        """Lists open ones."""
        del person, request
        found = [one for one in self.approvals.values() if one.status == PENDING]
        return approvals_pb2.ApprovalsListResponse(approvals=found)

    def approval_show(
        self, person: Person | None, request: approvals_pb2.ApprovalsGetRequest
    ) -> approvals_pb2.ApprovalsGetResponse:
        """Reads one."""
        self.shown.append(person)
        return approvals_pb2.ApprovalsGetResponse(approval=self._find(request.approval_id))

    def approval_resolve(
        self, person: Person | None, request: approvals_pb2.ResolveRequest
    ) -> approvals_pb2.ResolveResponse:
        """Answers one."""
        if self.refusal is not None:
            raise self.refusal
        found = self._find(request.approval_id)
        assert person is not None
        self.answers.append((person, request))
        found.status = request.status
        self.add(found)
        return approvals_pb2.ResolveResponse(approval=found)

    def _find(self, name: str) -> approvals_pb2.Approval:
        if name not in self.approvals:
            what = "there is no such approval"
            raise ApiError("APPROVAL_MISMATCH", GrpcCode.FAILED_PRECONDITION, what)
        return self.approvals[name]

    def approval_changes(self, after: int, wait_ms: int) -> ApprovalChanges:
        """Waits for changes."""
        with self._arrived:
            if len(self.changes) <= after:
                self._arrived.wait(min(wait_ms, 50) / 1000)
            return ApprovalChanges(len(self.changes), tuple(self.changes[after:]))

    def passkeys(self, issuer: str, sub: str) -> list[StoredPasskey]:
        """Returns passkeys."""
        return list(self.keys.get((issuer, sub), {}).values())

    def put_passkey(self, issuer: str, sub: str, passkey: StoredPasskey) -> None:
        """Writes a passkey."""
        self.keys.setdefault((issuer, sub), {})[str(passkey["credential_id"])] = passkey

    def remove_passkey(self, issuer: str, sub: str, credential_id: str) -> None:
        """Removes a passkey."""
        self.keys.get((issuer, sub), {}).pop(credential_id, None)


@dataclass
class LoginIssuer:
    """An issuer without a network: it answers what the page fetches, and says who logged in."""

    issuer: str = "https://id.example"
    client_id: str = "authz-page"
    key: Key = field(default_factory=lambda: Key.make("k1"))
    description: dict[str, Any] = field(default_factory=dict)
    claims: Claims = field(default_factory=dict)
    """Merged into the next ID token; a value of None removes a claim."""
    header: Mapping[str, Any] = field(default_factory=dict)
    fetched: list[FetchRequest] = field(default_factory=list)
    asked: dict[str, str] = field(default_factory=dict)
    """Parameters of the last authorization request."""

    def jwks(self) -> str:
        """Returns its keys."""
        return json.dumps({"keys": [self.key.jwk("sig")]})

    def get(self, request: FetchRequest) -> Document:
        """Answers what the page fetches."""
        self.fetched.append(request)
        if request.url == f"{self.issuer}/.well-known/openid-configuration":
            described = {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/auth",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
            }
            return Document(json.dumps(described | self.description))
        if request.url == f"{self.issuer}/token" and request.form is not None:
            return Document(json.dumps({"access_token": "x", "id_token": self.id_token()}))
        raise FetchError("it answers 404")

    def authorize(self, url: str) -> dict[str, str]:
        """Lets the person log in; returns the query of the redirect."""
        self.asked = {key: value[0] for key, value in parse_qs(urlsplit(url).query).items()}
        return {"code": "c-1", "state": self.asked["state"], "iss": self.issuer}

    def id_token(self) -> str:
        """Signs the ID token of the last authorization request."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": "alice",
            "aud": self.client_id,
            "iat": now,
            "exp": now + 300,
            "auth_time": now,
            "nonce": self.asked.get("nonce"),
            "name": "Alice Example",
            "groups": ["finance"],
            **self.claims,
        }
        kept = {name: value for name, value in claims.items() if value is not None}
        return self.key.sign(kept, self.header)
