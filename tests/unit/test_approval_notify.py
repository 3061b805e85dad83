"""Notifications of approvals: their payloads, their signatures, and deliveries to a real receiver."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from authz.approvals import ApprovalChange
from authz.approvals.notify import (
    Event,
    MessageFormat,
    SigningKey,
    SigningKeyError,
    Webhook,
    WebhookSender,
    write_message,
)
from authz.approvals.notify.messages import message_id
from authz.errors import ApiError, GrpcCode
from authz.trust.fetch import Fetcher
from authz_client.v1 import approvals_pb2
from tests.support.waiting import eventually
from tests.support.webhooks import WebhookReceiver

KEY = base64.b64encode(b"k" * 32).decode()
URL = "https://authz.corp.example"
SECRET_VALUE = "ruth@zahlwerk.example"


def approval(id_: str = "0f3a-1", **fields: Any) -> approvals_pb2.Approval:
    """Return an open approval with hostile texts of the agent's side."""
    made = approvals_pb2.Approval(
        id=id_,
        operation="mail.send",
        effects=["export"],
        status=approvals_pb2.APPROVAL_STATUS_PENDING,
        kinds=["approve:finance"],
        waits_for=["approve:finance"],
        subject="corp/iris",
        agents=["spiffe://maple.example/agents/payer"],
        purpose="send\r\nBcc: eve@evil.example <!channel> *bold*",
        arguments_json=json.dumps({"to": SECRET_VALUE}).encode(),
        **fields,
    )
    made.created_at.FromSeconds(1_800_000_000)
    made.expires_at.FromSeconds(1_800_003_600)
    made.destinations.add(value=SECRET_VALUE, destination_class="outside")
    made.objects.add(role="target", pointer="/id", value_json='"m-1"')
    made.reasons.add(kind="approve:finance", policy_id="p", reason="a new payee")
    return made


# Payloads.


@pytest.mark.parametrize("form", MessageFormat)
def test_a_message_has_no_values_unless_asked(form: MessageFormat) -> None:
    """More people read a chat than the page."""
    without = write_message(approval(), Event.OPENED, form, url=URL).decode()
    with_values = write_message(approval(), Event.OPENED, form, url=URL, has_values=True).decode()
    assert SECRET_VALUE not in without
    assert "m-1" not in without
    assert SECRET_VALUE in with_values


def test_a_json_message() -> None:
    """Type, time and data, as Standard Webhooks wants them."""
    message = json.loads(write_message(approval(), Event.OPENED, MessageFormat.JSON, url=URL))
    assert message["type"] == "approval.opened"
    assert message["timestamp"] == "2027-01-15T08:00:00Z"
    data = message["data"]
    code, purpose = data.pop("code"), data.pop("purpose")
    assert len(code) == 6
    assert purpose.startswith("send")
    assert not {"\r", "\n"} & set(purpose)
    assert data == {
        "approval_id": "0f3a-1",
        "title": "send out: mail.send",
        "operation": "mail.send",
        "status": "opened",
        "url": f"{URL}/a/0f3a-1",
        "waits_for": ["approve:finance"],
        "subject": "corp/iris",
        "agent": "spiffe://maple.example/agents/payer",
        "reasons": ["a new payee"],
        "created_at": "2027-01-15T08:00:00Z",
        "expires_at": "2027-01-15T09:00:00Z",
    }


def test_a_message_for_slack_has_no_markup() -> None:
    """Blocks are plain text, and the notification line is escaped, so a text can mention nobody."""
    made = approval()
    made.operation = "mail.<!channel>&"
    message = json.loads(write_message(made, Event.OPENED, MessageFormat.SLACK, url=URL))
    assert message["text"].startswith("Waits for you: send out: mail.&lt;!channel&gt;&amp; (")
    header, section, actions = message["blocks"]
    texts = [header["text"], *section["fields"], actions["elements"][0]["text"]]
    assert {text["type"] for text in texts} == {"plain_text"}
    assert len(header["text"]["text"]) <= 150
    assert len(section["fields"]) <= 10
    assert actions["elements"][0]["url"] == f"{URL}/a/0f3a-1"


def test_a_message_for_slack_stays_within_its_limits() -> None:
    """Slack refuses longer texts, and people would hear nothing."""
    made = approval()
    made.operation = "m." + "x" * 5000
    made.purpose = "y" * 5000
    for number in range(40):
        made.destinations.add(value=f"{'z' * 300}{number}@corp.example")
    body = write_message(made, Event.OPENED, MessageFormat.SLACK, url=URL, has_values=True)
    header, section, _ = json.loads(body)["blocks"]
    assert len(header["text"]["text"]) <= 150
    assert len(section["fields"]) <= 10
    assert all(0 < len(field["text"]) <= 2000 for field in section["fields"])


def test_a_message_for_mail_has_one_line_of_subject() -> None:
    """A line break in a subject would be a header of the agent's."""
    made = approval()
    made.operation = "mail.send\r\nBcc: eve@evil.example"
    message = json.loads(write_message(made, Event.OPENED, MessageFormat.MAIL, url=URL))
    assert set(message) == {"subject", "text"}
    assert "\n" not in message["subject"]
    assert "\r" not in message["text"]
    assert f"Look at it: {URL}/a/0f3a-1" in message["text"]
    assert not [line for line in message["text"].splitlines() if line.startswith("Bcc")]


def test_an_answered_approval_names_who_answered_and_when() -> None:
    """The time is that of the answer."""
    made = approval()
    made.status = approvals_pb2.APPROVAL_STATUS_APPROVED
    made.resolved_by.append("corp/paul")
    made.answers.add(person="corp/paul").answered_at.FromSeconds(1_800_000_060)
    message = json.loads(write_message(made, Event.APPROVED, MessageFormat.JSON, url=""))
    assert message["timestamp"] == "2027-01-15T08:01:00Z"
    assert message["data"]["answered_by"] == ["corp/paul"]
    assert "url" not in message["data"]


# Signatures.


def test_a_signature_is_that_of_standard_webhooks() -> None:
    """The example of the specification's reference libraries."""
    key = SigningKey.read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = dict(key.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'))
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize("secret", ["", "no base64!", base64.b64encode(b"short").decode()])
def test_a_weak_key_is_refused_without_being_named(secret: str) -> None:
    """Neither an error nor a representation shows it."""
    with pytest.raises(SigningKeyError, match=r"Base64|bytes") as raised:
        SigningKey.read(secret)
    assert not secret or secret not in str(raised.value)
    assert "kkk" not in repr(SigningKey.read(KEY))


# Deliveries.


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """A receiver on loopback."""
    made = WebhookReceiver()
    yield made
    made.close()


class Store:
    """The part of the store that a sender asks."""

    def __init__(self) -> None:
        self.approvals: dict[str, approvals_pb2.Approval] = {}

    def approval_show(
        self, _: object, request: approvals_pb2.ApprovalsGetRequest
    ) -> approvals_pb2.ApprovalsGetResponse:
        """Return an approval."""
        if request.approval_id not in self.approvals:
            raise ApiError("NOT_FOUND", GrpcCode.NOT_FOUND, "no such approval")
        return approvals_pb2.ApprovalsGetResponse(approval=self.approvals[request.approval_id])

    def approvals_list(
        self, _: object, request: approvals_pb2.ApprovalsListRequest
    ) -> approvals_pb2.ApprovalsListResponse:
        """Return one approval a page."""
        place = int(request.page_token or 0)
        rest = list(self.approvals.values())[place:]
        following = str(place + 1) if len(rest) > 1 else ""
        return approvals_pb2.ApprovalsListResponse(approvals=rest[:1], next_page_token=following)


class Log:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        """Keep a warning."""
        self.events.append((event, fields))

    error = warning


class Sending:
    """A sender with its store and log."""

    def __init__(
        self,
        *webhooks: Webhook,
        pauses: tuple[float, ...] = (0.01, 0.01),
        most_waiting: int = 100,
        now: float = 1_700_000_000.0,
    ) -> None:
        self.store, self.log = Store(), Log()
        started = time.monotonic()
        self.sender = WebhookSender(
            webhooks,
            self.store,  # type: ignore[arg-type]  # the part that is used
            Fetcher().get,
            URL,
            self.log,
            clock=lambda: now + time.monotonic() - started,
            pauses=pauses,
            most_waiting=most_waiting,
        )
        self.sender.start()

    def change(self, made: approvals_pb2.Approval) -> None:
        """Tell of a change."""
        self.store.approvals[made.id] = made
        self.sender.changed(ApprovalChange(made.id, made.task, made.status, tuple(made.waits_for)))

    def count(self, name: str, of: str = "hook") -> int:
        """Return a number of a webhook."""
        return self.sender.counts()[of][name]


@pytest.fixture
def sendings() -> Iterator[list[Sending]]:
    """Senders that are closed at the end."""
    made: list[Sending] = []
    yield made
    for one in made:
        one.sender.close()


def hook(receiver: WebhookReceiver, **fields: Any) -> Webhook:
    """Return a webhook of a receiver."""
    return Webhook(fields.pop("name", "hook"), receiver.url, SigningKey.read(KEY), **fields)


def test_a_receiver_gets_a_message_that_it_can_verify(
    receiver: WebhookReceiver, sendings: list[Sending]
) -> None:
    """The signature is over the very bytes of the body."""
    sendings.append(sending := Sending(hook(receiver)))
    sending.change(approval())
    eventually(lambda: receiver.received)
    headers, body = receiver.received[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(b"k" * 32, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["data"]["approval_id"] == "0f3a-1"


def test_a_failed_attempt_is_repeated_with_the_same_id(
    receiver: WebhookReceiver, sendings: list[Sending]
) -> None:
    """A receiver drops copies by the id."""
    receiver.statuses = [500, 429]
    sendings.append(sending := Sending(hook(receiver)))
    sending.change(approval())
    eventually(lambda: sending.count("sent") == 1)
    assert len(receiver.received) == 3
    assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1
    assert sending.count("failed") == 2


def test_a_message_is_given_up_after_the_last_attempt(
    receiver: WebhookReceiver, sendings: list[Sending]
) -> None:
    """The log says which one, and why."""
    receiver.statuses = [500] * 3
    sendings.append(sending := Sending(hook(receiver)))
    sending.change(approval())
    eventually(lambda: sending.count("dropped") == 1)
    event, fields = sending.log.events[-1]
    assert event == "a notification was given up"
    assert fields["webhook"] == "hook"
    assert "500" in fields["reason"]


def test_a_change_is_told_once(receiver: WebhookReceiver, sendings: list[Sending]) -> None:
    """Also if changes were lost and all open approvals are read again."""
    sendings.append(sending := Sending(hook(receiver)))
    first, second = approval("a-1"), approval("b-1")
    sending.change(first)
    eventually(lambda: sending.count("sent") == 1)
    sending.store.approvals["b-1"] = second
    sending.sender.changed(None)
    eventually(lambda: sending.count("sent") == 2)
    sending.change(first)
    sending.change(approval("missing"))
    first.status = approvals_pb2.APPROVAL_STATUS_APPROVED
    del first.waits_for[:]
    sending.change(first)
    eventually(lambda: sending.count("sent") == 4)
    types = [json.loads(body)["type"] for _, body in receiver.received]
    assert types.count("approval.opened") == 3
    assert types.count("approval.approved") == 1


def test_chats_get_no_second_message_after_a_restart(
    receiver: WebhookReceiver, sendings: list[Sending]
) -> None:
    """They drop no copies. A receiver of JSON does, so it is told again."""
    chat = hook(receiver, name="chat", form=MessageFormat.SLACK)
    sendings.append(sending := Sending(hook(receiver), chat, now=1_800_000_100.0))
    before, after = approval("a-1"), approval("b-1")
    after.created_at.FromSeconds(1_800_000_200)
    sending.store.approvals = {"a-1": before, "b-1": after}
    sending.sender.changed(None)
    eventually(lambda: sending.count("sent") == 2)
    eventually(lambda: sending.count("sent", "chat") == 1)
    (message,) = (json.loads(body) for _, body in receiver.received if b"blocks" in body)
    assert message["blocks"][-1]["elements"][0]["url"].endswith("/a/b-1")


def test_a_webhook_hears_of_its_queues_only(
    receiver: WebhookReceiver, sendings: list[Sending]
) -> None:
    """Also of their answers, when nobody is waited for any more."""
    finance = hook(receiver, name="finance", queues=frozenset({"approve:finance"}))
    legal = hook(receiver, name="legal", queues=frozenset({"approve:legal"}))
    sendings.append(sending := Sending(finance, legal))
    made = approval()
    sending.change(made)
    eventually(lambda: sending.count("sent", "finance") == 1)
    made.status = approvals_pb2.APPROVAL_STATUS_REJECTED
    del made.waits_for[:]
    sending.change(made)
    eventually(lambda: sending.count("sent", "finance") == 2)
    assert sending.count("sent", "legal") == sending.count("waiting", "legal") == 0


def test_a_receiver_that_is_down_keeps_no_other_back(
    receiver: WebhookReceiver, sendings: list[Sending]
) -> None:
    """Each webhook has a thread and a queue."""
    down = Webhook("down", "http://127.0.0.1:9/", SigningKey.read(KEY))
    sendings.append(sending := Sending(down, hook(receiver), pauses=(60.0,)))
    for number in range(20):
        sending.change(approval(f"a{number}-1"))
    eventually(lambda: sending.count("sent") == 20)
    eventually(lambda: sending.count("failed", "down") == 20)
    assert sending.count("waiting", "down") == 20


def test_a_full_queue_drops_and_counts(receiver: WebhookReceiver, sendings: list[Sending]) -> None:
    """The queue of a receiver that is down is bounded."""
    down = Webhook("down", "http://127.0.0.1:9/", SigningKey.read(KEY))
    sendings.append(sending := Sending(down, hook(receiver), pauses=(600.0,), most_waiting=4))
    for number in range(12):
        sending.change(approval(f"a{number}-1"))
        eventually(lambda: sending.count("sent") > number)  # noqa: B023 - called at once
    eventually(lambda: sending.count("dropped", "down") == 8)
    assert sending.count("waiting", "down") == 4


@pytest.mark.parametrize(
    ("url", "fields", "reason"),
    [
        ("https://127.0.0.1:9/", {}, "loopback"),
        ("https://10.0.0.1/", {}, "a private address"),
        ("https://169.254.169.254/", {"allow_private": True}, "a metadata service"),
        ("http://192.0.2.1/", {}, "URL"),
    ],
)
def test_internal_addresses_are_not_asked(
    url: str, fields: dict[str, Any], reason: str, sendings: list[Sending]
) -> None:
    """A webhook must not become a way to the services beside a node."""
    webhook = Webhook("hook", url, SigningKey.read(KEY), **fields)
    sendings.append(sending := Sending(webhook, pauses=()))
    sending.change(approval())
    eventually(lambda: sending.count("dropped") == 1)
    assert reason in sending.log.events[-1][1]["reason"]


def test_redirects_are_not_followed(receiver: WebhookReceiver, sendings: list[Sending]) -> None:
    """The signature would reach another server."""
    receiver.statuses = [302]
    receiver.redirect = f"{receiver.url}/elsewhere"
    sendings.append(sending := Sending(hook(receiver), pauses=()))
    sending.change(approval())
    eventually(lambda: sending.count("dropped") == 1)
    assert len(receiver.received) == 1
    assert "redirects are not followed" in sending.log.events[-1][1]["reason"]


def test_ids_of_messages() -> None:
    """Two nodes give one id; an approval that then waits for another queue has another message."""
    made = approval()
    assert message_id(made, Event.OPENED) == message_id(approval(), Event.OPENED)
    assert message_id(made, Event.OPENED) != message_id(made, Event.EXPIRED)
    made.waits_for[0] = "approve:legal"
    assert message_id(made, Event.OPENED) != message_id(approval(), Event.OPENED)
