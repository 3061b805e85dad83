"""The second channel of approvals: which calls the issuer asks about, and which of its answers confirm."""

import json
import time
from base64 import b64encode
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest

from authz.approvals import AnswerMethod, ApprovalChange
from authz.approvals.card import CardReferences, build_card
from authz.approvals.ciba import CibaChannel, CibaClient, CibaSettings
from authz.approvals.lookalikes import Reference
from authz.errors import ApiError, GrpcCode
from authz.trust import Document, FetchError, FetchRequest
from authz_client.approval_code import binding_code
from authz_client.v1 import approvals_pb2, decision_pb2
from tests.support.approving import APPROVED, PENDING, Approvals, approval
from tests.support.minting import Key

if TYPE_CHECKING:
    from collections.abc import Callable

ISSUER = "https://id.example"
DENIED = (400, {"error": "access_denied"})
WAITS = (400, {"error": "authorization_pending"})
SLOWER = (400, {"error": "slow_down"})
EXPIRED = (400, {"error": "expired_token"})


@dataclass
class Issuer:
    """An issuer that asks people, without a network. It answers polls in the order of `polls`, and then with ID tokens."""

    now: float
    key: Key = field(default_factory=lambda: Key.make("k1"))
    description: dict[str, Any] = field(default_factory=dict)
    accepted: tuple[int, object] = (200, {"auth_req_id": "r-1", "expires_in": 120, "interval": 5})
    polls: deque[Any] = field(default_factory=deque)
    claims: dict[str, Any] = field(default_factory=dict)
    """Merged into the ID token; None removes a claim."""
    header: dict[str, Any] = field(default_factory=dict)
    is_down: bool = False
    asked: list[dict[str, str]] = field(default_factory=list)
    polled: list[float] = field(default_factory=list)
    authorizations: set[str | None] = field(default_factory=set)

    def get(self, request: FetchRequest) -> Document:
        """Answers."""
        if self.is_down:
            raise FetchError("it cannot be reached: refused")
        path = request.url.removeprefix(ISSUER)
        if request.form is None:
            assert path == "/.well-known/openid-configuration"
            described = {
                "issuer": ISSUER,
                "token_endpoint": f"{ISSUER}/token",
                "backchannel_authentication_endpoint": f"{ISSUER}/ask",
                "backchannel_token_delivery_modes_supported": ["poll", "ping"],
            }
            return Document(json.dumps(described | self.description))
        assert {400, 401, 403} == request.also_accepts
        self.authorizations.add(request.authorization)
        form = {name: value[0] for name, value in parse_qs(request.form.decode()).items()}
        if path == "/ask":
            self.asked.append(form)
            status, answer = self.accepted
            return Document(json.dumps(answer), status=status)
        assert path == "/token"
        assert form == {
            "grant_type": "urn:openid:params:grant-type:ciba",
            "auth_req_id": "r-1",
        }
        self.polled.append(self.now)
        status, answer = self.polls.popleft() if self.polls else (200, {"id_token": self.token()})
        return Document(answer if isinstance(answer, str) else json.dumps(answer), status=status)

    def token(self) -> str:
        """Signs an ID token for the person who was asked."""
        claims = {
            "iss": ISSUER,
            "sub": "bob",
            "aud": "authz-ciba",
            "iat": int(time.time()),
            "exp": int(time.time()) + 300,
            "auth_time": int(self.now),
            "groups": ["clerks"],
            "secret": "no claim of the bundle",
            **self.claims,
        }
        kept = {name: value for name, value in claims.items() if value is not None}
        return self.key.sign(kept, self.header)


@dataclass
class Log:
    """Keeps events."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def info(self, event: str, **fields: Any) -> None:
        """Keeps one."""
        self.events.append((event, fields))

    warning = error = info


class Site:
    """A channel with its issuer, on a clock that a test moves."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.issuer = Issuer(float(int(time.time())))
        self.store = Approvals()
        self.log = Log()
        self.references = CardReferences()
        self.keys: Callable[[], str | None] = lambda: json.dumps(
            {"keys": [self.issuer.key.jwk("sig")]}
        )
        secret = folder / "secret"
        secret.write_text("s3cret")
        secret.chmod(0o600)
        limits = {
            name: settings.pop(name) for name in ("most_open", "most_of_person") if name in settings
        }
        given = {
            "alias": "corp",
            "issuer": ISSUER,
            "algorithms": ("ES256",),
            "claims": ("groups",),
            "client_id": "authz-ciba",
            "client_secret_file": str(secret),
            "description": FetchRequest(f"{ISSUER}/.well-known/openid-configuration"),
        }
        self.settings = CibaSettings(**{**given, **settings})
        # A test replaces `keys`.
        keys = lambda: self.keys()  # noqa: E731, PLW0108
        client = CibaClient(self.settings, self.issuer.get, keys, self.clock)
        self.channel = CibaChannel(
            self.settings,
            client,
            self.store,
            lambda _: self.references,
            self.log,
            clock=self.clock,
            **limits,
        )

    def clock(self) -> float:
        """The time of the test."""
        return self.issuer.now

    def make(self, name: str = "a1-0", **changes: Any) -> approvals_pb2.Approval:
        """Makes an approval that waits for its subject, and tells the channel."""
        made = confirm(name, int(self.issuer.now), **changes)
        self.store.add(made)
        self.tell(made)
        return made

    def tell(self, made: approvals_pb2.Approval) -> None:
        """Tells the channel of an approval."""
        queues = tuple(made.waits_for)
        self.channel.changed(ApprovalChange(made.id, made.task, made.status, queues))

    def go(self, seconds: float = 0.0) -> float:
        """Moves the clock, and does what is due."""
        self.issuer.now += seconds
        return self.channel.advance()

    def told(self) -> dict[str, int]:
        """The results so far."""
        return {name: number for name, number in self.channel.counts().items() if number}


def confirm(name: str, now: int, **changes: Any) -> approvals_pb2.Approval:
    """An approval that waits for its subject."""
    made = approval(name)
    del made.kinds[:], made.waits_for[:], made.reasons[:]
    made.kinds.append("confirm")
    made.waits_for.append("confirm")
    made.created_at.FromSeconds(now)
    made.expires_at.FromSeconds(now + 3600)
    for name_, value in changes.items():
        if isinstance(value, (list, tuple)):
            del getattr(made, name_)[:]
            getattr(made, name_).extend(value)
        else:
            setattr(made, name_, value)
    return made


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A channel."""
    return Site(tmp_path)


def test_a_person_confirms_at_the_device(site: Site) -> None:
    """The device shows the code of the card; the answer is that of a login, about the card that stands on the page."""
    made = site.make()
    site.issuer.polls.extend([WAITS, WAITS])

    assert site.go() == 5
    assert site.issuer.asked == [
        {
            "scope": "openid",
            "login_hint": "bob",
            "binding_message": binding_code("a1-0"),
            "requested_expiry": "900",
        }
    ]
    for _ in range(3):
        site.go(5)

    ((person, answer),) = site.store.answers
    assert (person.name, person.method) == ("corp/bob", AnswerMethod.LOGIN)
    assert person.authenticated_at_ms == int(site.clock() * 1000)
    assert person.claims == {"groups": ["clerks"]}
    assert (answer.status, answer.queue, answer.digest) == (APPROVED, "confirm", made.digest)
    card = build_card(made, CardReferences(), 0.0)
    assert answer.card_digest == card.digest
    assert card.code == site.issuer.asked[0]["binding_message"]
    assert site.told() == {"asked": 1, "confirmed": 1}
    assert site.channel.open() == 0
    assert site.issuer.authorizations == {f"Basic {b64encode(b'authz-ciba:s3cret').decode()}"}
    # Nobody read the approval in the person's name: its clock starts when a person opens the card.
    assert set(site.store.shown) == {None}


@pytest.mark.parametrize(
    "changes",
    [
        {"tier": decision_pb2.TIER_HIGH},
        {"tier": decision_pb2.TIER_CRITICAL},
        {"tier": decision_pb2.TIER_UNSPECIFIED},
        {"needs_passkey": True},
        {"waits_for": ["approve:finance"]},
        {"waits_for": ["two_person"]},
        {"status": APPROVED},
        {"subject": "other/bob"},
        {"subject": ""},
        {"subject": "corp/"},
    ],
)
def test_the_issuer_is_not_asked_about_other_calls(site: Site, changes: dict[str, Any]) -> None:
    """High tiers need a passkey; other queues wait for people whom nobody knows yet."""
    site.make(**changes)
    site.go()

    assert (site.issuer.asked, site.channel.open()) == ([], 0)


def test_the_cap_of_tiers_is_obeyed(tmp_path: Path) -> None:
    """With `tier_cap: low`, a call of tier standard is left to the page."""
    site = Site(tmp_path, tiers=frozenset({decision_pb2.TIER_LOW}))
    site.make("a1-0")
    site.make("a2-0", tier=decision_pb2.TIER_LOW)
    site.go()

    assert [one["binding_message"] for one in site.issuer.asked] == [binding_code("a2-0")]


@pytest.mark.parametrize(
    "changes",
    [
        {"cannot_be_shown": "its arguments are not JSON"},
        {"arguments_json": json.dumps({"text": "x" * 200_000}).encode()},
        {"arguments_json": '{"text": "abc\u202edef"}'.encode()},
    ],
)
def test_a_card_that_must_be_read_is_left_to_the_page(site: Site, changes: dict[str, Any]) -> None:
    """A flag, or a call that does not fit: the device shows neither."""
    site.make(**changes)
    site.go()

    assert site.issuer.asked == []
    assert site.told() == {"withheld": 1}


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "another-client"}, "Audience doesn't match"),
        ({"aud": ["authz-ciba", "x"]}, "another client (`azp`)"),
        ({"iss": "https://evil.example"}, "Invalid issuer"),
        ({"exp": 1_000_000_000}, "expired"),
        ({"sub": "alice"}, "another person's"),
        ({"sub": None}, "sub"),
        ({"auth_time": None}, "no `auth_time`"),
        ({"auth_time": "now"}, "no `auth_time`"),
        ({"auth_time": True}, "no `auth_time`"),
        ({"auth_time": float("inf")}, "no `auth_time`"),
        ({"auth_time": int(time.time()) - 3600}, "older than the request"),
        ({"auth_time": int(time.time()) + 3600}, "lies in the future"),
        ({"urn:openid:params:jwt:claim:auth_req_id": "r-2"}, "belongs to another request"),
        ({"urn:openid:params:jwt:claim:auth_req_id": None, "acr": "x"}, None),
        ({"urn:openid:params:jwt:claim:auth_req_id": "r-1"}, None),
    ],
)
def test_only_the_right_id_token_confirms(
    site: Site, claims: dict[str, Any], reason: str | None
) -> None:
    """Another client's, person's, request's or an old one leaves the approval open."""
    site.make()
    site.issuer.claims = claims
    site.go()
    site.go(5)

    assert bool(site.store.answers) == (reason is None)
    if reason is not None:
        assert site.told() == {"asked": 1, "refused": 1}
        assert reason in site.log.events[-1][1]["reason"]
        assert site.store.approvals["a1-0"].status == PENDING


def test_a_token_of_another_key_confirms_nothing(site: Site) -> None:
    """Neither does one without trusted keys."""
    site.make("a1-0")
    site.go()
    site.issuer.key = Key.make("k1")
    trusted = json.dumps({"keys": [Key.make("k1").jwk("sig")]})
    site.keys = lambda: trusted
    site.go(5)
    site.keys = lambda: None
    site.make("a2-0")
    site.go()
    site.go(5)

    assert site.store.answers == []
    assert site.told() == {"asked": 2, "refused": 2}


def test_the_authentication_context_must_be_a_wanted_one(tmp_path: Path) -> None:
    """`acr_values` is a wish (OpenID Connect Core §3.1.2.1), so the ID token must show that it was met."""
    site = Site(tmp_path, acr_values=("phr", "phrh"), login_hint="{sub}@corp.example")
    site.make("a1-0")
    site.go()
    site.go(5)
    site.issuer.claims = {"acr": "phrh"}
    site.make("a2-0")
    site.go()
    site.go(5)

    assert site.issuer.asked[0]["acr_values"] == "phr phrh"
    assert site.issuer.asked[0]["login_hint"] == "bob@corp.example"
    ((person, answer),) = site.store.answers
    assert (person.acr, answer.approval_id) == ("phrh", "a2-0")


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (DENIED, "denied"),
        (EXPIRED, "expired"),
        ((400, {"error": "invalid_grant"}), "refused"),
        ((401, {"error": "invalid_client"}), "refused"),
        ((400, {"error": "<b>\n"}), "refused"),
        ((400, "<html>"), "refused"),
        ((200, {"access_token": "x"}), "refused"),
        ((200, []), "refused"),
        # An error that has a token is an error.
        ((400, {"error": "access_denied", "id_token": "x"}), "denied"),
    ],
)
def test_an_error_leaves_the_approval_open(
    site: Site, answer: tuple[int, Any], result: str
) -> None:
    """Without an ID token nobody is proved, so nothing is rejected either; and nobody is asked twice."""
    made = site.make()
    site.issuer.polls.append(answer)
    site.go()
    site.go(5)
    site.tell(made)
    site.go(5)

    assert site.store.answers == []
    assert site.store.approvals["a1-0"].status == PENDING
    assert site.told() == {"asked": 1, result: 1}
    assert len(site.issuer.asked) == len(site.issuer.polled) == 1
    event, fields = site.log.events[-1]
    assert "stays open" in event
    assert fields["approval"] == "a1-0"
    assert "r-1" not in str(site.log.events)
    assert "<" not in str(fields)


def test_slow_down_is_obeyed(site: Site) -> None:
    """Each adds 5 seconds to the interval (CIBA §11)."""
    site.issuer.accepted = (200, {"auth_req_id": "r-1", "expires_in": 600, "interval": 2})
    site.issuer.polls.extend([WAITS, SLOWER, WAITS, SLOWER])
    site.make()
    start, pause = site.clock(), site.go()
    while site.channel.open():
        pause = site.go(pause)

    assert [at - start for at in site.issuer.polled] == [2, 4, 11, 18, 30]
    assert len(site.store.answers) == 1


def test_a_request_ends_by_the_shortest_of_the_times(site: Site) -> None:
    """Its own end, that of the approval, and 15 minutes."""
    site.issuer.polls.extend([WAITS] * 1000)
    soon = site.make()
    soon.expires_at.FromSeconds(int(site.clock()) + 40)
    pause, start = site.go(), site.clock()
    while site.channel.open():
        pause = site.go(pause)

    assert site.issuer.asked[0]["requested_expiry"] == "40"
    assert site.clock() - start <= 45
    assert site.told() == {"asked": 1, "expired": 1}

    late = confirm("a2-0", int(site.clock()))
    late.expires_at.FromSeconds(int(site.clock()) + 5)
    site.store.add(late)
    site.tell(late)
    site.go()
    assert len(site.issuer.asked) == 1, "nobody can answer within 5 seconds"


@pytest.mark.parametrize(
    "accepted",
    [
        (400, {"error": "unknown_user_id"}),
        (401, {"error": "invalid_client"}),
        (200, {"expires_in": 120}),
        (200, {"auth_req_id": "r" * 5000, "expires_in": 120}),
        (200, {"auth_req_id": "r-1"}),
        (200, {"auth_req_id": "r-1", "expires_in": -1}),
        (200, {"auth_req_id": "r-1", "expires_in": True}),
        (200, {"auth_req_id": "r-1", "expires_in": 120, "interval": "5"}),
        (200, "nothing"),
    ],
)
def test_an_issuer_that_does_not_ask_is_not_polled(site: Site, accepted: Any) -> None:
    """An error, or an answer that is not valid."""
    site.issuer.accepted = accepted
    site.make()
    site.go()
    site.go(60)

    assert site.issuer.polled == []
    assert site.told() == {"refused": 1}
    assert site.channel.open() == 0


def test_an_issuer_that_cannot_be_reached_is_left_alone_for_a_while(site: Site) -> None:
    """Longer each time, for all requests together; then the person is asked after all."""
    site.issuer.is_down = True
    site.make("a1-0")
    site.make("a2-0")

    pauses = [site.go()]
    for _ in range(3):
        pauses.append(site.go(pauses[-1]))
    assert pauses == [5, 15, 60, 60]
    assert site.told() == {"failed": 4}
    site.issuer.is_down = False
    site.go(60)
    assert len(site.issuer.asked) == 2
    site.issuer.is_down = True
    site.go(5)
    site.issuer.is_down = False
    site.go(10)
    assert len(site.store.answers) == 2


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        ({"issuer": "https://evil.example"}, "another issuer"),
        ({"backchannel_authentication_endpoint": None}, "no `backchannel_authentication_endpoint`"),
        ({"backchannel_authentication_endpoint": "http://id.example/ask"}, "is not https"),
        ({"backchannel_token_delivery_modes_supported": ["push"]}, "`poll`"),
    ],
)
def test_an_issuer_that_describes_no_such_endpoint_is_told(
    site: Site, described: dict[str, Any], reason: str
) -> None:
    """The log says why nobody is asked."""
    site.issuer.description = described
    site.make()
    site.go()

    assert site.issuer.asked == []
    assert reason in site.log.events[0][1]["reason"]


def test_a_secret_that_others_can_read_is_not_used(site: Site) -> None:
    """The log names the key."""
    Path(site.settings.client_secret_file).chmod(0o644)
    site.make()
    site.go()

    assert site.issuer.asked == []
    assert "client_secret_file" in site.log.events[0][1]["reason"]


def test_an_issuer_with_types_of_details_gets_the_operation(site: Site) -> None:
    """And no value of an argument (RFC 9396)."""
    site.issuer.description = {"authorization_details_types_supported": ["authz_operation"]}
    site.make()
    site.go()

    assert json.loads(site.issuer.asked[0]["authorization_details"]) == [
        {
            "type": "authz_operation",
            "actions": ["bank.transfer"],
            "identifier": binding_code("a1-0"),
        }
    ]


def test_open_requests_are_bounded(tmp_path: Path) -> None:
    """For the node, and for each person: an agent cannot wear a person out."""
    site = Site(tmp_path, most_open=3, most_of_person=2)
    site.issuer.polls.extend([WAITS] * 100)
    for number in range(4):
        site.make(f"a{number}-0")
    site.make("b-0", subject="corp/eve")
    site.make("c-0", subject="corp/dana")
    site.go()

    assert [one["login_hint"] for one in site.issuer.asked] == ["bob", "bob", "eve"]
    assert site.told() == {"asked": 3, "dropped": 3}


@pytest.mark.parametrize("is_told", [True, False])
def test_an_answer_at_the_page_ends_the_request(site: Site, *, is_told: bool) -> None:
    """Whether the change is told before the next poll, or not."""
    made = site.make()
    site.go()
    made.status = APPROVED
    if is_told:
        site.tell(made)
    site.go(5)

    assert site.store.answers == []
    assert len(site.issuer.polled) == (0 if is_told else 1)
    assert site.told() == {"asked": 1, "answered_elsewhere": 1}


def test_a_card_that_changed_since_is_not_confirmed(site: Site) -> None:
    """The person saw the code of another card."""
    made = site.make()
    site.go()
    made.purpose = "Pay somebody else"
    site.go(5)

    assert site.store.answers == []
    assert site.told() == {"asked": 1, "refused": 1}


def test_a_flag_that_came_since_is_not_confirmed(site: Site) -> None:
    """For example, after a reload of the bundle that lists a similar recipient."""
    made = confirm("a1-0", int(site.clock()))
    made.destinations.add(value="pay@acrne.example", host="acrne.example")
    site.store.add(made)
    site.tell(made)
    site.go()
    assert len(site.issuer.asked) == 1
    site.references = CardReferences(recipients=(Reference("pay@acme.example", "list"),))
    site.go(5)

    assert site.store.answers == []


def test_a_refusal_of_the_engine_leaves_the_approval_open(site: Site) -> None:
    """The engine alone judges whether an answer counts."""
    what = "a call of this tier is answered with a passkey"
    site.store.refusal = ApiError("NOT_PERMITTED", GrpcCode.PERMISSION_DENIED, what)
    site.make()
    site.go()
    site.go(5)

    assert site.told() == {"asked": 1, "refused": 1}
    assert what in site.log.events[-1][1]["reason"]


def test_lost_changes_are_read_again(site: Site) -> None:
    """Calls before the start are left to the page: an earlier run has probably asked about them."""
    old = confirm("a1-0", int(site.clock()) - 60)
    site.store.add(old)
    site.issuer.now += 1
    site.store.add(confirm("a2-0", int(site.clock())))
    site.channel.changed(None)
    site.go()

    assert [one["binding_message"] for one in site.issuer.asked] == [binding_code("a2-0")]
    site.store.approvals["a2-0"].status = APPROVED
    site.channel.changed(None)
    site.go()
    assert site.channel.open() == 0


def test_a_defect_is_not_repeated_without_end(site: Site) -> None:
    """The thread reports it, and goes on with the others."""
    site.make("a1-0")
    site.go()
    site.references = None  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        site.go(5)

    assert site.channel.open() == 0
    assert site.told() == {"asked": 1, "failed": 1}
