"""Notifications of approvals: passes changes from the hub to the webhooks of the configuration."""

from collections.abc import Callable, Iterator

from authz.approvals import ApprovalHub, ApprovalStore, Subscription
from authz.approvals.notify import (
    MessageFormat,
    SigningKey,
    SigningKeyError,
    Webhook,
    WebhookSender,
)
from authz.config import Approvals, ApprovalWebhook
from authz.errors import ConfigError
from authz.files import PrivateFileError, read_secret
from authz.model import Diagnostic, MetricFamily, MetricKind
from authz.telemetry import Logger
from authz.trust import Document, FetchRequest

__all__ = ["Notifications"]

_RESULTS = ("sent", "failed", "dropped")


class Notifications:
    """Sends notifications of approvals to the configured webhooks.

    Args:
        approvals: The configuration.
        store: Reads approvals.
        hub: Source of changes of approvals.
        post: Posts a message.
        log: Receives failed attempts.

    Raises:
        ConfigError: The key of a webhook cannot be read, or is not valid.
    """

    def __init__(
        self,
        approvals: Approvals,
        store: ApprovalStore,
        hub: ApprovalHub,
        post: Callable[[FetchRequest], Document],
        log: Logger,
    ) -> None:
        webhooks = [_webhook(one) for one in approvals.webhooks]
        self._hub = hub
        self._sender = WebhookSender(webhooks, store, post, approvals.base_url, log)
        self._subscription = Subscription(self._sender.changed)
        self._is_used = bool(webhooks)

    def start(self) -> None:
        """Start the threads, and read the approvals that are open already."""
        if not self._is_used:
            return
        self._sender.start()
        self._hub.subscribe(self._subscription)
        # After a restart, receivers of JSON get the messages of open approvals again. They drop copies by their ids.
        self._sender.changed(None)

    def close(self) -> None:
        """Stop the threads."""
        if self._is_used:
            self._hub.unsubscribe(self._subscription)
            self._sender.close()

    def families(self) -> Iterator[MetricFamily]:
        """Yield every metric. Labels are the names of webhooks in the configuration."""
        counts = self._sender.counts()
        results = tuple(
            (
                "authz_approval_notifications_total",
                {"webhook": webhook, "result": result},
                float(numbers[result]),
            )
            for webhook, numbers in counts.items()
            for result in _RESULTS
        )
        waiting = tuple(
            (
                "authz_approval_notifications_waiting",
                {"webhook": webhook},
                float(numbers["waiting"]),
            )
            for webhook, numbers in counts.items()
        )
        yield MetricFamily(
            "authz_approval_notifications",
            "Notifications of approvals.",
            MetricKind.COUNTER,
            results,
        )
        yield MetricFamily(
            "authz_approval_notifications_waiting",
            "Notifications that wait for an attempt.",
            MetricKind.GAUGE,
            waiting,
        )


def _webhook(settings: ApprovalWebhook) -> Webhook:
    return Webhook(
        name=settings.name,
        url=settings.url,
        key=_read_key(settings),
        form=MessageFormat(settings.format.value),
        queues=frozenset(settings.queues),
        has_values=settings.show_values,
        allow_private=settings.allow_private,
        allow_networks=settings.allow_networks,
        ca_file=settings.ca_file,
    )


def _read_key(settings: ApprovalWebhook) -> SigningKey:
    file = settings.secret_file or ""
    try:
        return SigningKey.read(read_secret(file))
    except (PrivateFileError, SigningKeyError) as error:
        what = f"the key of webhook `{settings.name}` {error}."
        if isinstance(error, PrivateFileError):
            what = f"the key of webhook `{settings.name}` cannot be used: {error}"
        fix = "Write one with `openssl rand -base64 32`, readable for its owner only."
        raise ConfigError((Diagnostic(what, str(file), fix=fix),)) from error
