"""Security events over HTTP: each rule of RFC 8417, RFC 8935, RFC 9493, SSF 1.0 and CAEP 1.0 that is claimed."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import pytest

from authz.config import Config, load
from authz.errors import ApiError, ConfigError
from authz.server.http.endpoints import application
from authz.server.http.shared_signals import SignalReceiver
from authz.server.http.shared_signals.endpoint import TokenBucket
from authz.trust import Document, FetchError, FetchRequest
from tests.support.signals import (
    ABSENT,
    AUDIENCE,
    CAEP,
    ISSUER,
    SSF,
    TYPE,
    Transmitter,
    new_key,
    unsigned,
)
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from authz.model import CallFacts, Surface

SECRET = "Bearer s3cret-of-the-transmitter"
ALICE = {"format": "iss_sub", "iss": "https://idp.example", "sub": "alice"}
REVOKED = CAEP + "session-revoked"
#: Seconds since 1970 at which nothing else happens.
AT = 1_615_304_991

CONFIG = """\
bundle: {path: bundle}
listeners:
  main: {address: "127.0.0.1:0", insecure_dev: true}
  http: {address: "127.0.0.1:0", insecure_dev: true, max_body_bytes: 16384, timeout: 1s}
trust:
  issuers:
    corp:
      issuer: https://idp.example
      audience: [authz]
      algorithms: [ES256]
      jwks: {file: corp.json}
      claims: [email]
    other:
      issuer: https://other.example
      audience: [authz]
      algorithms: [ES256]
      jwks: {file: other.json}
      claims: [email]
audit: {path: audit.jsonl}
"""


class Log:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, **_: self.events.append(event)


@dataclass
class Engine:
    """Keeps what it is asked, and answers as told."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    error: ApiError | None = None
    tasks_ended: int = 1

    def call(self, surface: Surface, request: bytes, facts: CallFacts) -> bytes:
        """Answers a call."""
        assert (surface.value, facts.listener) == ("security_event", "http")
        if self.error is not None:
            raise self.error
        self.asked.append(json.loads(request))
        return json.dumps({"tasks_ended": self.tasks_ended}).encode()


@dataclass
class Keys:
    """The transmitter's JWKS, as it is fetched."""

    document: str = ""

    def get(self, request: FetchRequest) -> Document:
        """Fetches it."""
        assert request.url == "https://signals.corp.example/jwks.json"
        if not self.document:
            raise FetchError("it answers 503")
        return Document(self.document)


def configured(folder: Path, **changes: Any) -> Config:
    """Loads the configuration with one transmitter, `idp`; None removes a key."""
    secret = folder / "authorization"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    transmitter = {
        "issuer": ISSUER,
        "audience": [AUDIENCE],
        "algorithms": ["RS256", "ES256"],
        "jwks": {"file": str(folder / "signals.json")},
        "authorization_file": str(secret),
        "subjects": ["corp"],
        **changes,
    }
    kept = {name: value for name, value in transmitter.items() if value is not None}
    file = folder / "config.yaml"
    signals = json.dumps({"transmitters": {"idp": kept}})
    file.write_text(f"{CONFIG}shared_signals: {signals}\n")
    return load(file, {}, (), working_folder=folder)


class Receiver:
    """The receiver under test, and its transmitter."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.transmitter, self.engine, self.log = Transmitter(), Engine(), Log()
        (folder / "signals.json").write_text(self.transmitter.jwks())
        self.waited: list[float] = []
        self.keys = Keys()
        self.now = time.time()
        self.receiver = SignalReceiver(
            configured(folder, **changes),
            self.engine,
            self.keys.get,
            self.log,
            task_ended=self.waited.append,
            clock=lambda: self.now,
        )
        self.unexpected: list[BaseException] = []
        points = self.receiver.endpoints(lambda *_: None, self.unexpected.append)
        self.app = application(points)

    def post(
        self, body: str | bytes, headers: Mapping[str, str] | None = None, path: str = "idp"
    ) -> httpx.Response:
        """Sends a body as the transmitter does; a header of an empty value is left out."""
        whole = {"authorization": SECRET, "content-type": TYPE, **(headers or {})}
        kept = {name: value for name, value in whole.items() if value}

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
                return await client.post(f"/shared-signals/{path}", content=body, headers=kept)

        return asyncio.run(send())

    def send(
        self, event: str, payload: Mapping[str, Any], subject: Any = ALICE, **claims: Any
    ) -> httpx.Response:
        """Sends a token about an event."""
        return self.post(self.transmitter.token(event, payload, subject, **claims))

    def count(self, event: str, result: str) -> float:
        """Returns how many tokens had this result."""
        labels = {"transmitter": "idp", "event": event, "result": result}
        for family in self.receiver.families():
            for _, found, value in family.samples:
                if found == labels:
                    return value
        raise AssertionError(labels)


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    """A receiver with one transmitter."""
    return Receiver(tmp_path)


def refused(answer: httpx.Response, code: str) -> str:
    """Checks that an answer is this error of RFC 8935; returns its description."""
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-language"] == "en"
    body = answer.json()
    assert set(body) == {"err", "description"}
    assert body["err"] == code, body
    description: str = body["description"]
    return description


# --- what is accepted


def test_a_revoked_session_ends_what_the_subject_began(receiver: Receiver) -> None:
    """RFC 8935 §2.2: 202 without a body, once the event is carried out."""
    payload = {"event_timestamp": AT, "reason_admin": {"en": "landspeed"}}
    answer = receiver.send(REVOKED, payload, jti="e-1")
    assert (answer.status_code, answer.content) == (202, b"")
    assert receiver.engine.asked == [
        {
            "transmitter": "idp",
            "jti": "e-1",
            "event": REVOKED,
            "action": "end",
            "reason": "the session was revoked (landspeed)",
            "subject": {"issuer": "corp", "claim": None, "value": "alice"},
            "at_ms": AT * 1000,
            "keep_ms": 31_622_400_000,
        }
    ]
    assert receiver.count("session-revoked", "ended") == 1
    # Leases of tasks that ended are removed at once.
    assert len(receiver.waited) == 1


def test_without_a_time_of_its_own_an_event_is_of_its_token(receiver: Receiver) -> None:
    """`event_timestamp` is optional (CAEP 1.0 §2); also in fractions of a second."""
    issued = int(time.time()) - 7
    assert receiver.send(REVOKED, {}, iat=issued).status_code == 202
    assert receiver.send(REVOKED, {"event_timestamp": AT + 0.25}).status_code == 202
    assert receiver.send(REVOKED, {"event_timestamp": 1e300}).status_code == 202
    assert [one["at_ms"] for one in receiver.engine.asked] == [
        issued * 1000,
        AT * 1000 + 250,
        1 << 52,
    ]


@pytest.mark.parametrize("change", ["create", "revoke", "update", "delete"])
@pytest.mark.parametrize(
    "credential", ["password", "pin", "x509", "fido2-platform", "fido2-roaming", "fido-u2f"]
)
def test_every_change_of_a_credential_is_understood(
    receiver: Receiver, change: str, credential: str
) -> None:
    """CAEP interoperability profile §3.2: a receiver interprets all values of `change_type` and `credential_type`."""
    payload = {"credential_type": credential, "change_type": change, "reason_admin": "lost"}
    assert receiver.send(CAEP + "credential-change", payload).status_code == 202
    expected = "end" if change in {"revoke", "delete"} else "record"
    assert [one["action"] for one in receiver.engine.asked] == [expected]
    assert receiver.engine.asked[0]["reason"] == f"credential change: {change} {credential} (lost)"


LEVEL = {"namespace": "NIST-AAL", "current_level": "nist-aal1"}


@pytest.mark.parametrize(
    ("event", "payload", "action"),
    [
        ("token-claims-change", {"claims": {"role": "ro-admin"}}, "end"),
        (
            "device-compliance-change",
            {"previous_status": "compliant", "current_status": "not-compliant"},
            "end",
        ),
        (
            "device-compliance-change",
            {"previous_status": "not-compliant", "current_status": "compliant"},
            "record",
        ),
        ("assurance-level-change", {**LEVEL, "change_direction": "decrease"}, "end"),
        ("assurance-level-change", LEVEL, "end"),
        ("assurance-level-change", {**LEVEL, "change_direction": "increase"}, "record"),
    ],
)
def test_other_events_of_caep(
    receiver: Receiver, event: str, payload: dict[str, Any], action: str
) -> None:
    """What takes authority away ends tasks; what gives some back is recorded."""
    assert receiver.send(CAEP + event, payload).status_code == 202
    assert [one["action"] for one in receiver.engine.asked] == [action]
    result = {"end": "ended", "record": "recorded"}[action]
    assert receiver.count(event, result) == 1


OWN = "https://idp.example"
CLAIMS_CHANGED = CAEP + "token-claims-change"


@pytest.mark.parametrize(
    ("claims", "action"),
    [
        (("role",), "record"),
        (("nickname", "phone_number"), "record"),
        (("email",), "end"),
        (("EMail",), "end"),
        (("nickname", "email"), "end"),
        (("acr",), "end"),
        (("Sub",), "end"),
        (("scope", "nickname"), "end"),
        (("",), "end"),
        (("realm_access.roles",), "end"),
        (("http://schemas.xmlsoap.org/ws/2005/05/identity/claims/role",), "end"),
        (("r\u043ele",), "end"),
        (("x" * 65,), "end"),
    ],
)
def test_a_change_of_claims_that_nobody_reads_ends_nothing(
    tmp_path: Path, claims: tuple[str, ...], action: str
) -> None:
    """CAEP 1.0 §3.2.1 names the claims. What cannot be decided by their names ends tasks."""
    receiver = Receiver(tmp_path, issuer=OWN)
    payload = {"claims": dict.fromkeys(claims, "x")}
    assert receiver.send(CLAIMS_CHANGED, payload, iss=OWN).status_code == 202
    (asked,) = receiver.engine.asked
    assert asked["action"] == action
    assert asked["subject"] == {"issuer": "corp", "claim": None, "value": "alice"}
    is_unread = asked["reason"] == "Authz reads none of the claims that changed"
    assert is_unread == (action == "record")
    assert receiver.count("token-claims-change", f"{action}ed") == 1


def test_another_issuer_may_mean_claims_of_other_tokens(tmp_path: Path) -> None:
    """Their names say nothing about the subject's tokens here; of one subject of two is enough."""
    receiver = Receiver(tmp_path)
    payload = {"claims": {"nickname": "x"}}
    assert receiver.send(CLAIMS_CHANGED, payload).status_code == 202
    (tmp_path / "two").mkdir()
    both = Receiver(tmp_path / "two", issuer=OWN, subjects=["corp", "other"])
    eve = {"format": "iss_sub", "iss": "https://other.example", "sub": "eve"}
    subjects = {"format": "aliases", "identifiers": [ALICE, eve]}
    assert both.send(CLAIMS_CHANGED, payload, subjects, iss=OWN).status_code == 202
    asked = [*receiver.engine.asked, *both.engine.asked]
    assert [one["action"] for one in asked] == ["end", "end", "end"]


@pytest.mark.parametrize(
    ("key", "event", "payload"),
    [
        ("session_revoked", "session-revoked", {}),
        (
            "credential_revoked",
            "credential-change",
            {"credential_type": "pin", "change_type": "revoke"},
        ),
        ("token_claims_changed", "token-claims-change", {"claims": {"a": 1}}),
        (
            "device_not_compliant",
            "device-compliance-change",
            {"previous_status": "compliant", "current_status": "not-compliant"},
        ),
        ("assurance_decreased", "assurance-level-change", LEVEL),
    ],
)
def test_a_reaction_is_configured(
    tmp_path: Path, key: str, event: str, payload: dict[str, Any]
) -> None:
    """The operator may only record what ends tasks by default."""
    receiver = Receiver(tmp_path, on={key: "record"})
    assert receiver.send(CAEP + event, payload).status_code == 202
    assert [one["action"] for one in receiver.engine.asked] == ["record"]


def test_a_new_credential_may_end_tasks(tmp_path: Path) -> None:
    """By default it is recorded."""
    receiver = Receiver(tmp_path, on={"credential_changed": "end"})
    payload = {"credential_type": "password", "change_type": "update"}
    assert receiver.send(CAEP + "credential-change", payload).status_code == 202
    assert [one["action"] for one in receiver.engine.asked] == ["end"]


@pytest.mark.parametrize(
    "event",
    [CAEP + "risk-level-change", CAEP + "session-established", "urn:example:x", SSF + "more", "x"],
)
def test_an_event_of_an_unknown_type_is_taken_and_ignored(receiver: Receiver, event: str) -> None:
    """It is acknowledged, so that the transmitter does not send it again, and counted."""
    assert receiver.send(event, {"anything": [1, {}]}).status_code == 202
    assert [one["action"] for one in receiver.engine.asked] == ["ignore"]
    assert receiver.count("other", "ignored") == 1


def test_verification_shows_in_status_and_metrics(tmp_path: Path) -> None:
    """SSF 1.0 §8.1.4: `state` is shown, and a transmitter that is silent for too long is reported."""
    receiver = Receiver(tmp_path, verification_within="1h")

    def overdue() -> float:
        families = {one.name: one for one in receiver.receiver.families()}
        ((_, labels, value),) = families["authz_security_verification_overdue"].samples
        assert labels == {"transmitter": "idp"}
        return value

    assert overdue() == 0
    receiver.now += 3601
    assert overdue() == 1
    stream = {"format": "opaque", "id": "stream-1"}
    answer = receiver.send(
        SSF + "verification", {"state": "VGhpcyBp"}, stream, iat=int(receiver.now)
    )
    assert answer.status_code == 202
    assert overdue() == 0
    detail = receiver.receiver.detail()["idp"]
    assert (detail["verification_state"], detail["verification_overdue"]) == ("VGhpcyBp", False)
    assert detail["last_verification_at"] is not None
    assert receiver.count("verification", "recorded") == 1


def test_a_stopped_stream_is_a_problem(receiver: Receiver) -> None:
    """SSF 1.0 §8.1.5: while it is paused or disabled, events are missing."""
    stream = {"format": "opaque", "id": "stream-1"}
    for status in ("paused", "disabled"):
        assert receiver.send(SSF + "stream-updated", {"status": status}, stream).status_code == 202
        (problem,) = receiver.receiver.problems()
        assert status in problem
    assert receiver.send(SSF + "stream-updated", {"status": "enabled"}, ABSENT).status_code == 202
    assert not list(receiver.receiver.problems())
    # Another node may hear that the stream goes on: its next event shows it.
    assert receiver.send(SSF + "stream-updated", {"status": "paused"}, stream).status_code == 202
    assert list(receiver.receiver.problems())
    assert receiver.send(REVOKED, {}).status_code == 202
    assert not list(receiver.receiver.problems())


# --- subjects


@pytest.mark.parametrize(
    "subject",
    [
        ALICE,
        {"format": "complex", "user": ALICE},
        {
            "format": "complex",
            "user": ALICE,
            "session": {"format": "opaque", "id": "dMTlD|1600802906337.16"},
            "tenant": {"format": "opaque", "id": "1"},
            "device": {"format": "iss_sub", "iss": "https://idp.example", "sub": "d-1"},
        },
        {"format": "aliases", "identifiers": [{"format": "email", "email": "a@b.example"}, ALICE]},
    ],
)
def test_a_subject_of_an_issuer_is_found(receiver: Receiver, subject: dict[str, Any]) -> None:
    """RFC 9493 §3.2.3, §3.2.8, and complex subjects of SSF with a user."""
    assert receiver.send(REVOKED, {}, subject).status_code == 202
    assert [one["subject"]["value"] for one in receiver.engine.asked] == ["alice"]


@pytest.mark.parametrize(
    "subject",
    [
        {**ALICE, "iss": "https://other.example"},
        {**ALICE, "iss": "https://idp.example/"},
        {"format": "email", "email": "alice@corp.example"},
        {"format": "opaque", "id": "1"},
        {"format": "phone_number", "phone_number": "+12065550100"},
        {"format": "account", "uri": "acct:alice@corp.example"},
        {"format": "did", "url": "did:example:123"},
        {"format": "jwt_id", "iss": "https://idp.example", "jti": "j"},
        {"format": "x-own", "anything": 1},
        {"format": "complex", "session": {"format": "opaque", "id": "1"}},
    ],
)
def test_a_subject_of_nobody_here_is_ignored(receiver: Receiver, subject: dict[str, Any]) -> None:
    """The event is acknowledged, and recorded as one that concerns nobody. No transmitter speaks of another issuer's subjects."""
    assert receiver.send(REVOKED, {}, subject).status_code == 202
    assert [(one["action"], one["subject"]) for one in receiver.engine.asked] == [("ignore", None)]
    assert receiver.count("session-revoked", "ignored") == 1


def test_a_subject_by_email(tmp_path: Path) -> None:
    """An address is looked up in the configured claim, at each issuer of the transmitter."""
    receiver = Receiver(tmp_path, email_claim="email", subjects=["corp", "other"])
    subject = {"format": "email", "email": "alice@corp.example"}
    assert receiver.send(REVOKED, {}, subject).status_code == 202
    assert [one["subject"] for one in receiver.engine.asked] == [
        {"issuer": alias, "claim": "email", "value": "alice@corp.example"}
        for alias in ("corp", "other")
    ]


@pytest.mark.parametrize(
    "subject",
    [
        {},
        {"iss": "https://idp.example", "sub": "alice"},
        {"format": 1},
        {"format": "iss_sub", "iss": "https://idp.example"},
        {**ALICE, "email": "alice@corp.example"},
        {**ALICE, "sub": ""},
        {**ALICE, "sub": 7},
        {**ALICE, "sub": "a\nb"},
        {**ALICE, "sub": "a" * 256},
        {"format": "email"},
        {"format": "complex"},
        {"format": "complex", "user": "alice"},
        {"format": "complex", "user": {"sub": "alice"}},
        {"format": "complex", "user": {"format": "complex", "user": ALICE}},
        {"format": "complex", "user": ALICE, "session": {"format": "opaque"}},
        {"format": "aliases", "identifiers": []},
        {"format": "aliases", "identifiers": [ALICE] * 9},
        {"format": "aliases", "identifiers": [{"format": "aliases", "identifiers": [ALICE]}]},
        {"format": "aliases", "identifiers": ["alice"]},
        {"format": "aliases"},
        "alice",
        [ALICE],
        None,
        ABSENT,
    ],
)
def test_a_subject_without_its_form_is_refused(receiver: Receiver, subject: Any) -> None:
    """RFC 9493 §3: an identifier has exactly the members of its format."""
    refused(receiver.send(REVOKED, {}, subject), "invalid_request")
    assert not receiver.engine.asked
    assert receiver.count("unread", "refused") == 1


# --- tokens


@pytest.mark.parametrize(
    ("code", "claims"),
    [
        ("invalid_issuer", {"iss": "https://other.example"}),
        ("invalid_issuer", {"iss": ISSUER + "/"}),
        ("invalid_issuer", {"iss": ABSENT}),
        ("invalid_issuer", {"iss": [ISSUER]}),
        ("invalid_audience", {"aud": "https://other.example"}),
        ("invalid_audience", {"aud": []}),
        ("invalid_audience", {"aud": ABSENT}),
        ("invalid_audience", {"aud": [[AUDIENCE]]}),
        ("invalid_request", {"jti": ABSENT}),
        ("invalid_request", {"jti": ""}),
        ("invalid_request", {"jti": 7}),
        ("invalid_request", {"jti": "a" * 256}),
        ("invalid_request", {"iat": ABSENT}),
        ("invalid_request", {"iat": "now"}),
        ("invalid_request", {"iat": True}),
        ("invalid_request", {"iat": -1}),
        ("invalid_request", {"iat": int(time.time()) + 3600}),
        ("invalid_request", {"iat": int(time.time()) - 8 * 86_400}),
        ("invalid_request", {"exp": int(time.time()) + 3600}),
        ("invalid_request", {"sub": "alice"}),
        ("invalid_request", {"events": ABSENT}),
        ("invalid_request", {"events": {}}),
        ("invalid_request", {"events": [REVOKED]}),
        ("invalid_request", {"events": {REVOKED: None}}),
        ("invalid_request", {"events": {REVOKED: "x"}}),
        ("invalid_request", {"events": {REVOKED: {}, CAEP + "credential-change": {}}}),
    ],
)
def test_claims_that_are_refused(receiver: Receiver, code: str, claims: dict[str, Any]) -> None:
    """RFC 8417 §2.2, SSF 1.0 §4.1.2 (`sub`) and §4.1.7 (`exp`), and one event a token."""
    refused(receiver.send(REVOKED, {}, **claims), code)
    assert not receiver.engine.asked
    assert receiver.count("unread", "refused") == 1


def test_one_audience_of_several_is_enough(receiver: Receiver) -> None:
    """RFC 7519 §4.1.3."""
    assert receiver.send(REVOKED, {}, aud=["https://other.example", AUDIENCE]).status_code == 202


@pytest.mark.parametrize("kind", ["secevent+jwt", "SecEvent+JWT", "application/secevent+jwt"])
def test_types_that_are_accepted(receiver: Receiver, kind: str) -> None:
    """RFC 8417 §2.3; media types have no case (RFC 2045 §5.1)."""
    assert receiver.send(REVOKED, {}, header={"typ": kind}).status_code == 202


@pytest.mark.parametrize(
    "header",
    [
        {"typ": ABSENT},
        {"typ": "JWT"},
        {"typ": "at+jwt"},
        {"typ": 7},
        {"crit": ["x"], "x": 1},
        {"b64": False, "crit": ["b64"]},
    ],
)
def test_headers_that_are_refused(receiver: Receiver, header: dict[str, Any]) -> None:
    """Another token of the same issuer, such as an access token, is no event."""
    refused(receiver.send(REVOKED, {}, header=header), "invalid_request")
    assert not receiver.engine.asked


def test_keys_that_are_refused(receiver: Receiver) -> None:
    """Another key, an unknown key, an unsigned token, and a key that everybody has as a secret."""
    good = receiver.transmitter.token(REVOKED, {}, ALICE)
    claims = jwt.decode(good, options={"verify_signature": False})
    other = Transmitter(new_key()).token(REVOKED, {}, ALICE)
    unknown = Transmitter(kid="signals-2").token(REVOKED, {}, ALICE)
    shared = jwt.encode(claims, "s" * 64, "HS256", {"typ": "secevent+jwt", "kid": "signals-1"})
    head, body, signature = good.split(".")
    changed = "A" if signature[5] != "A" else "B"
    for token in (
        other,
        unknown,
        unsigned(claims),
        shared,
        f"{head}.{body}.{signature[:5]}{changed}{signature[6:]}",
        f"{head}.{body}.",
    ):
        refused(receiver.post(token), "invalid_key")
    assert not receiver.engine.asked


def test_an_algorithm_that_is_not_configured_is_refused(tmp_path: Path) -> None:
    """The token does not choose."""
    receiver = Receiver(tmp_path, algorithms=["ES256"])
    refused(receiver.send(REVOKED, {}), "invalid_key")


def test_without_keys_no_token_is_believed(tmp_path: Path) -> None:
    """The first fetch is still to come, or failed."""
    receiver = Receiver(tmp_path, jwks={"url": "https://signals.corp.example/jwks.json"})
    refused(receiver.send(REVOKED, {}), "invalid_key")


def test_fetched_keys(tmp_path: Path) -> None:
    """A token that names an unknown key has them fetched at once."""
    receiver = Receiver(tmp_path, jwks={"url": "https://signals.corp.example/jwks.json"})
    receiver.keys.document = receiver.transmitter.jwks()
    receiver.receiver.start()
    try:
        eventually(lambda: receiver.log.events, what="the keys")
        assert receiver.log.events == ["keys of a transmitter were refreshed"]
        assert receiver.send(REVOKED, {}).status_code == 202
        newer = Transmitter(new_key(), "signals-2")
        receiver.keys.document = newer.jwks()
        refused(receiver.post(newer.token(REVOKED, {}, ALICE)), "invalid_key")
        eventually(lambda: len(receiver.log.events) == 2, what="the newer keys")
        assert receiver.post(newer.token(REVOKED, {}, ALICE)).status_code == 202
        # The key that is gone counts no more.
        refused(receiver.send(REVOKED, {}), "invalid_key")
    finally:
        receiver.receiver.close()


def test_keys_that_cannot_be_read_refuse_every_token(receiver: Receiver, tmp_path: Path) -> None:
    """Without keys nothing is believed; the file is read again for the next token."""
    text = (tmp_path / "signals.json").read_text()
    (tmp_path / "signals.json").unlink()
    refused(receiver.send(REVOKED, {}), "invalid_key")
    assert receiver.log.events == ["keys of a transmitter cannot be read"]
    (tmp_path / "signals.json").write_text(text)
    assert receiver.send(REVOKED, {}).status_code == 202


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"a.b",
        b"a.b.c",
        b"....",
        b"\xff.\xff.\xff",
        b"eyJhbGciOiJSUzI1NiJ9.e30.",
        b'{"iss": "https://idp.example"}',
    ],
)
def test_bodies_that_are_no_token(receiver: Receiver, body: bytes) -> None:
    """RFC 8935 §2.4: what cannot be parsed is an invalid request."""
    refused(receiver.post(body), "invalid_request")
    assert not receiver.engine.asked


@pytest.mark.parametrize(
    "content", [b"[]", b"{", b'{"iss": 1, "iss": 2}', b'{"iat": NaN}', b"\xff"]
)
def test_contents_that_are_no_claims(receiver: Receiver, content: bytes) -> None:
    """Signed, and yet not what two readers understand alike."""
    refused(receiver.post(receiver.transmitter.sign(content)), "invalid_request")


# --- payloads


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ("session-revoked", {"event_timestamp": "now"}),
        ("session-revoked", {"event_timestamp": True}),
        ("session-revoked", {"event_timestamp": None}),
        ("session-revoked", {"event_timestamp": -1}),
        ("session-revoked", {"reason_admin": {}}),
        ("session-revoked", {"reason_admin": {"en": 7}}),
        ("session-revoked", {"reason_admin": 7}),
        ("credential-change", {"change_type": "revoke"}),
        ("credential-change", {"credential_type": "pin"}),
        ("credential-change", {"credential_type": "pin", "change_type": "lost"}),
        ("credential-change", {"credential_type": "", "change_type": "revoke"}),
        ("token-claims-change", {}),
        ("token-claims-change", {"claims": {}}),
        ("token-claims-change", {"claims": ["role"]}),
        ("device-compliance-change", {"current_status": "not-compliant"}),
        ("device-compliance-change", {"previous_status": "compliant"}),
        (
            "device-compliance-change",
            {"previous_status": "compliant", "current_status": "unknown"},
        ),
        ("assurance-level-change", {"namespace": "NIST-AAL"}),
        ("assurance-level-change", {"current_level": "nist-aal1"}),
        ("assurance-level-change", {**LEVEL, "change_direction": "sideways"}),
        ("assurance-level-change", {**LEVEL, "previous_level": 1}),
    ],
)
def test_payloads_that_are_refused(receiver: Receiver, event: str, payload: dict[str, Any]) -> None:
    """RFC 8935 §2.4: a payload that does not conform to the definition of its event is an invalid request."""
    refused(receiver.send(CAEP + event, payload), "invalid_request")
    assert not receiver.engine.asked


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ("verification", {"state": 7}),
        ("verification", {"state": "x" * 1025}),
        ("stream-updated", {}),
        ("stream-updated", {"status": "broken"}),
    ],
)
def test_events_of_the_stream_that_are_refused(
    receiver: Receiver, event: str, payload: dict[str, Any]
) -> None:
    """They change no status."""
    refused(receiver.send(SSF + event, payload, {"format": "opaque", "id": "1"}), "invalid_request")
    assert receiver.receiver.detail()["idp"]["stream"] == "enabled"


# --- the endpoint


@pytest.mark.parametrize(
    "value", ["", "Bearer other", SECRET + "x", SECRET.lower(), SECRET.removeprefix("Bearer ")]
)
def test_another_sender_is_refused(receiver: Receiver, value: str) -> None:
    """RFC 8935 §2.4, before the token is read."""
    token = receiver.transmitter.token(REVOKED, {}, ALICE)
    refused(receiver.post(token, {"authorization": value}), "authentication_failed")
    assert not receiver.engine.asked


def test_two_values_of_a_header_are_none(receiver: Receiver) -> None:
    """No reader may choose one of them."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(receiver.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
            headers = [("authorization", SECRET), ("authorization", SECRET), ("content-type", TYPE)]
            token = receiver.transmitter.token(REVOKED, {}, ALICE)
            return await client.post("/shared-signals/idp", content=token, headers=headers)

    refused(asyncio.run(send()), "authentication_failed")


def test_without_its_secret_nobody_is_the_transmitter(receiver: Receiver, tmp_path: Path) -> None:
    """A secret that others can read counts as none."""
    (tmp_path / "authorization").chmod(0o644)
    refused(receiver.send(REVOKED, {}), "authentication_failed")
    assert receiver.log.events == ["the secret of a transmitter cannot be read"]


@pytest.mark.parametrize("kind", ["", "application/jwt", "application/json", "text/plain"])
def test_another_content_type_is_refused(receiver: Receiver, kind: str) -> None:
    """RFC 8935 §2.1."""
    token = receiver.transmitter.token(REVOKED, {}, ALICE)
    refused(receiver.post(token, {"content-type": kind}), "invalid_request")
    assert receiver.post(token, {"content-type": TYPE + "; charset=utf-8"}).status_code == 202


def test_bodies_are_bounded(receiver: Receiver) -> None:
    """Also without a length, and compressed ones are not read."""
    refused(receiver.post("x" * 16_385), "invalid_request")
    token = receiver.transmitter.token(REVOKED, {}, ALICE)
    refused(receiver.post(token, {"content-encoding": "gzip"}), "invalid_request")
    assert not receiver.engine.asked


def test_only_post_and_only_known_transmitters(receiver: Receiver) -> None:
    """RFC 8935 §2: events are posted."""
    assert receiver.post("x", path="other").status_code == 404

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(receiver.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
            return await client.get("/shared-signals/idp")

    assert asyncio.run(get()).status_code == 405


def test_the_rate_is_bounded(tmp_path: Path) -> None:
    """A transmitter that sends too much is told to come again; others without the secret do not use its share up."""
    receiver = Receiver(tmp_path, rate=0.1, burst=2)
    for _ in range(3):
        refused(receiver.post("x", {"authorization": "Bearer other"}), "authentication_failed")
    answers = [receiver.send(REVOKED, {}) for _ in range(3)]
    assert [one.status_code for one in answers] == [202, 202, 429]
    assert answers[2].headers["retry-after"] == "1"


def test_a_bucket_fills_again() -> None:
    """To its size, and not beyond."""
    now = [0.0]
    bucket = TokenBucket(2.0, 3, lambda: now[0])
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now[0] = 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]
    now[0] = 100.0
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("reason", ["STATE_UNAVAILABLE", "STORE_SLOW", "AUDIT_FULL", "OVERLOADED"])
def test_an_event_that_is_not_carried_out_is_not_acknowledged(
    receiver: Receiver, reason: str
) -> None:
    """The transmitter sends it again (RFC 8935 §2)."""
    receiver.engine.error = ApiError(reason, 14, "the store")
    answer = receiver.send(REVOKED, {})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert receiver.count("session-revoked", "failed") == 1
    receiver.engine.error = None
    assert receiver.send(REVOKED, {}).status_code == 202


def test_an_event_that_the_engine_refuses_is_an_invalid_request(receiver: Receiver) -> None:
    """Sending it again would not help."""
    receiver.engine.error = ApiError("BAD_INPUT", 3, "the subject is too long")
    refused(receiver.send(REVOKED, {}), "invalid_request")


def test_an_unexpected_error_is_answered_without_its_text(receiver: Receiver) -> None:
    """It is logged."""

    def fail(*_: object) -> bytes:
        raise RuntimeError("secret")

    receiver.engine.call = fail  # type: ignore[assignment,method-assign]
    answer = receiver.send(REVOKED, {})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert [str(one) for one in receiver.unexpected] == ["secret"]


# --- the configuration


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audience": None}, "has no audience"),
        ({"algorithms": None}, "has no algorithms"),
        ({"algorithms": ["HS256"]}, "`HS256` is not an accepted signature algorithm"),
        ({"algorithms": ["none"]}, "`none` is not an accepted signature algorithm"),
        ({"jwks": None}, "has no keys"),
        ({"jwks": {"file": "a", "url": "https://a.example"}}, "has `file` and `url`"),
        ({"jwks": {"url": "http://a.example"}}, "cannot be fetched"),
        ({"authorization_file": None}, "has no `authorization_file`"),
        ({"subjects": None}, "has no subjects"),
        ({"subjects": ["nobody"]}, "`nobody` is not an issuer"),
        ({"email_claim": "mail"}, "`mail` is not one of the `claims` of issuer `corp`"),
    ],
)
def test_half_configured_transmitters_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    """Nothing that believes too much starts."""
    with pytest.raises(ConfigError, match=message):
        configured(tmp_path, **changes)


def test_the_lifetime_of_tokens_bounds_how_long_they_are_refused(tmp_path: Path) -> None:
    """`trust.max_lifetime` is the default, and a shorter time is refused."""
    config = configured(tmp_path)
    assert config.shared_signals.kept(config.trust) == 31_622_400.0
    file = tmp_path / "config.yaml"
    text = file.read_text().replace("trust:\n", "trust:\n  max_lifetime: 1h\n")
    file.write_text(text)
    config = load(file, {}, (), working_folder=tmp_path)
    assert config.shared_signals.kept(config.trust) == 3600.0
    file.write_text(text.replace('{"transmitters"', '{"token_lifetime": "30m", "transmitters"'))
    with pytest.raises(ConfigError, match=r"shorter than `trust\.max_lifetime`"):
        load(file, {}, (), working_folder=tmp_path)
    file.write_text(text.replace("  http:", "  approvals:"))
    with pytest.raises(ConfigError, match="needs the listener `http`"):
        load(file, {}, (), working_folder=tmp_path)
