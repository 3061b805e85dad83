"""Webhooks of a configuration: their keys, the hub that tells them, and metrics."""

import base64
from pathlib import Path
from typing import Any

import pytest

from authz.approvals import ApprovalChange, Subscription
from authz.config import Approvals
from authz.errors import ConfigError
from authz.server.notifications import Notifications
from authz.trust import Document, FetchRequest
from authz_client.v1 import approvals_pb2
from tests.support.waiting import eventually

OPEN = approvals_pb2.Approval(
    id="a-1", status=approvals_pb2.APPROVAL_STATUS_PENDING, waits_for=["confirm"]
)


class Hub:
    """Keeps the subscription of a watcher."""

    def __init__(self) -> None:
        self.subscriptions: list[Subscription] = []

    def subscribe(self, subscription: Subscription) -> None:
        """Add a watcher."""
        self.subscriptions.append(subscription)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a watcher."""
        self.subscriptions.remove(subscription)


class Store:
    """Has one open approval."""

    def approvals_list(self, *_: object) -> approvals_pb2.ApprovalsListResponse:
        """List it."""
        return approvals_pb2.ApprovalsListResponse(approvals=[OPEN])

    def approval_show(self, *_: object) -> approvals_pb2.ApprovalsGetResponse:
        """Show it as answered."""
        made = approvals_pb2.Approval(id="a-1", status=approvals_pb2.APPROVAL_STATUS_APPROVED)
        return approvals_pb2.ApprovalsGetResponse(approval=made)


def notifications(
    secret: Path, posted: list[FetchRequest], hub: Hub, **fields: Any
) -> Notifications:
    """Return the notifications of a configuration with one webhook."""
    webhook = {"name": "chat", "url": "https://chat.corp.example/hook", "secret_file": str(secret)}
    approvals = Approvals.model_validate({"webhooks": ({**webhook, **fields},)})

    def post(request: FetchRequest) -> Document:
        posted.append(request)
        return Document("")

    store: Any = Store()
    changes: Any = hub
    log: Any = None  # nothing fails
    return Notifications(approvals, store, changes, post, log)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A key that only its owner reads."""
    tmp_path.chmod(0o700)
    file = tmp_path / "webhook.key"
    file.write_text(base64.b64encode(b"k" * 32).decode() + "\n")
    file.chmod(0o600)
    return file


def test_open_approvals_are_told_at_the_start_and_changes_after_it(secret: Path) -> None:
    """A notification that a restart lost comes again."""
    posted: list[FetchRequest] = []
    hub = Hub()
    made = notifications(secret, posted, hub)
    made.start()
    try:
        eventually(lambda: len(posted) == 1)
        (subscription,) = hub.subscriptions
        status = approvals_pb2.APPROVAL_STATUS_APPROVED
        subscription.on_change(ApprovalChange("a-1", "", status, ()))
        eventually(lambda: len(posted) == 2)
    finally:
        made.close()
    assert hub.subscriptions == []
    bodies = [request.post.body.decode() for request in posted if request.post is not None]
    assert ["opened" in bodies[0], "approved" in bodies[1]] == [True, True]
    families = {family.name: family for family in made.families()}
    samples = families["authz_approval_notifications"].samples
    assert (
        "authz_approval_notifications_total",
        {"webhook": "chat", "result": "sent"},
        2.0,
    ) in samples


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        ("c2hvcnQ=", 0o600, "5 bytes"),
        ("?", 0o600, "Base64"),
        (base64.b64encode(b"k" * 32).decode(), 0o644, "webhook.key"),
    ],
)
def test_a_key_that_cannot_sign_stops_the_start(
    secret: Path, content: str, mode: int, reason: str
) -> None:
    """The error names webhook, file and fix, and never the key."""
    secret.write_text(content)
    secret.chmod(mode)
    with pytest.raises(ConfigError) as raised:
        notifications(secret, [], Hub())
    (diagnostic,) = raised.value.diagnostics
    assert reason in str(diagnostic)
    assert "`chat`" in diagnostic.what
    assert "openssl rand" in diagnostic.fix
    assert len(content) < 3 or content not in str(diagnostic)


def test_without_webhooks_nothing_runs() -> None:
    """Most nodes have none."""
    hub: Any = Hub()
    nothing: Any = None
    made = Notifications(Approvals(), nothing, hub, nothing, nothing)
    made.start()
    made.close()
    assert hub.subscriptions == []
