"""Issuing on the Python side: what is signed, and what happens where it cannot be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

from authz.config import SigningAlgorithm
from authz.errors import ApiError, KeysError
from authz.model import CallFacts, Surface
from authz.server.grpc.errors import abort
from authz.server.http.oauth.clients import OAuthClient
from authz.server.issuing import CredentialIssuer, SigningKeyRecords
from authz.signing import FolderKeys, KeyRecord, SigningKey
from authz_client.v1 import credentials_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import grpc

FACTS = CallFacts("main")
CLAIMS = {
    "iss": "https://authz.example",
    "aud": "crm",
    "iat": 1_700_000_000,
    "exp": 1_900_000_060,
    "task": "t",
    "authorization_details": [{"type": "authz_task", "uses": 1}],
}
COMMITTED = {"claims": json.dumps(CLAIMS), "expires_at": CLAIMS["exp"]}


class Engine:
    """Answers what a test says; keeps what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[Surface, bytes]] = []
        self.records: dict[str, dict[str, Any]] = {}
        self.revoked: set[str] = set()

    def call(self, surface: Surface, request: bytes, facts: CallFacts) -> bytes:
        """Answer."""
        assert facts is FACTS
        self.asked.append((surface, request))
        return json.dumps(self.answers[surface.value]).encode()

    def signing_keys(self) -> list[dict[str, Any]]:
        """Read keys."""
        return list(self.records.values())

    def put_signing_key(self, record: Mapping[str, Any]) -> None:
        """Write one."""
        self.records[record["kid"]] = dict(record)

    def remove_signing_key(self, kid: str) -> None:
        """Remove one."""
        del self.records[kid]

    def is_key_revoked(self, kid: str) -> bool:
        """Tell whether one is revoked."""
        return kid in self.revoked


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    """A key."""
    return FolderKeys(tmp_path / "keys").generate(SigningAlgorithm.ES256)


def test_what_the_engine_committed_is_signed(key: SigningKey) -> None:
    """The claims as they are, and nothing else."""
    answer = {**COMMITTED, "token_type": "DPoP", "dpop_nonce": "n"}
    engine = Engine(credential_issue=answer)

    issued = credentials_pb2.IssueResponse.FromString(
        CredentialIssuer(engine, lambda: key).call(Surface.CREDENTIAL_ISSUE, b"request", FACTS)
    )

    assert engine.asked == [(Surface.CREDENTIAL_ISSUE, b"request")]
    read = jwt.decode(issued.token, jwt.PyJWK(key.jwk), algorithms=["ES256"], audience="crm")
    assert read == CLAIMS
    assert issued.expires_at.seconds == CLAIMS["exp"]
    assert (issued.token_type, issued.dpop_nonce) == ("DPoP", "n")


def test_without_a_key_nothing_is_committed() -> None:
    """Neither at Issue nor in an exchange is the engine asked."""
    engine = Engine()
    issuing = CredentialIssuer(engine, lambda: None)

    with pytest.raises(ApiError, match="no key signs"):
        issuing.call(Surface.CREDENTIAL_ISSUE, b"", FACTS)
    with pytest.raises(ApiError, match="no key signs"):
        issuing.exchange({}, FACTS)

    assert engine.asked == []


@pytest.mark.parametrize("exchanges", [False, True])
def test_a_key_that_is_revoked_meanwhile_signs_nothing(key: SigningKey, *, exchanges: bool) -> None:
    """What is committed reaches nobody; another key that may sign takes its place."""
    engine = Engine(credential_issue=COMMITTED, credential_exchange=COMMITTED)

    def issue(keys: list[SigningKey | None]) -> object:
        issuing = CredentialIssuer(engine, lambda: keys.pop(0))
        if exchanges:
            return issuing.exchange({}, FACTS)
        return issuing.call(Surface.CREDENTIAL_ISSUE, b"", FACTS)

    with pytest.raises(ApiError, match="no key signs") as refused:
        issue([key, None])
    assert refused.value.reason == "UNAVAILABLE"
    assert len(engine.asked) == 1
    assert issue([key, key])


def test_a_key_that_fails_is_unavailable_and_not_told(
    key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own words, which may name an HSM, stay in the log."""

    def fails(*_: object) -> str:
        raise KeysError("the PKCS#11 token fails: DeviceRemoved")

    monkeypatch.setattr("authz.server.issuing.mint", fails)
    issuing = CredentialIssuer(Engine(credential_issue=COMMITTED), lambda: key)

    with pytest.raises(ApiError) as refused:
        issuing.call(Surface.CREDENTIAL_ISSUE, b"", FACTS)

    assert (refused.value.reason, refused.value.grpc_code) == ("UNAVAILABLE", 14)
    assert "PKCS" not in str(refused.value)


def test_an_exchange_is_the_engines_answer_and_the_token(key: SigningKey) -> None:
    """The request crosses as JSON."""
    engine = Engine(credential_exchange={**COMMITTED, "token_type": "Bearer"})

    issued = CredentialIssuer(engine, lambda: key).exchange({"task": "t", "prompt": "ä"}, FACTS)

    assert json.loads(engine.asked[0][1]) == {"task": "t", "prompt": "ä"}
    assert issued["token"].count(".") == 2
    assert issued["claims"] == CLAIMS


@pytest.mark.parametrize("known", [{"active": False, "sub": "x"}, {}, {"active": "yes"}])
def test_of_an_inactive_credential_nothing_is_told(key: SigningKey, known: dict[str, Any]) -> None:
    """Over gRPC as over HTTP."""
    engine = Engine(credential_introspect=known)

    told = credentials_pb2.IntrospectResponse.FromString(
        CredentialIssuer(engine, lambda: key).call(Surface.CREDENTIAL_INTROSPECT, b"", FACTS)
    )

    assert not told.active
    assert not told.claims.fields


def test_claims_of_an_active_credential_are_told(key: SigningKey) -> None:
    """Lists and numbers too."""
    engine = Engine(credential_introspect={"active": True, **CLAIMS})

    told = credentials_pb2.IntrospectResponse.FromString(
        CredentialIssuer(engine, lambda: key).call(Surface.CREDENTIAL_INTROSPECT, b"", FACTS)
    )

    assert told.active
    assert json_format.MessageToDict(told.claims) == CLAIMS


def test_a_client_over_http_is_named_to_the_engine(key: SigningKey) -> None:
    """By its SPIFFE ID, and how it proved that."""
    engine = Engine(credential_introspect={"active": False}, credential_revoke={})
    issuing, client = CredentialIssuer(engine, lambda: key), OAuthClient("spiffe://a/b", "jwt_svid")

    issuing.introspect(client, "t1", FACTS)
    issuing.revoke(client, "t2", FACTS)

    assert [(surface.value, json.loads(raw)) for surface, raw in engine.asked] == [
        (
            f"credential_{verb}",
            {"client": {"spiffe_id": "spiffe://a/b", "how": "jwt_svid"}, "token": t},
        )
        for verb, t in (("introspect", "t1"), ("revoke", "t2"))
    ]


def test_records_of_keys_are_kept_in_milliseconds() -> None:
    """And come back as they were."""
    stored = SigningKeyRecords(Engine())
    record = KeyRecord("k", "a", "{}", 1_700_000_000.125, 1_700_000_300.5, 1_700_086_400.0)

    stored.put_signing_key(record)
    assert stored.signing_keys() == (record,)
    stored.remove_signing_key("k")

    assert stored.signing_keys() == ()


def test_a_nonce_goes_with_the_error() -> None:
    """In the metadata of ErrorInfo, where a client finds it."""
    sent: dict[str, bytes] = {}

    class Context:
        def set_trailing_metadata(self, pairs: tuple[tuple[str, bytes], ...]) -> None:
            sent.update(pairs)

        def abort(self, code: grpc.StatusCode, details: str) -> None:
            raise RuntimeError(code, details)

    context: Any = Context()
    with pytest.raises(RuntimeError):
        abort(context, ApiError("BAD_PROOF", 16, "use_dpop_nonce: x", "n-1"))

    status = status_pb2.Status.FromString(sent["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, dict(info.metadata)) == ("BAD_PROOF", {"dpop_nonce": "n-1"})
