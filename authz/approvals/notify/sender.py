"""Delivers notifications: a thread and a bounded queue for each webhook, with retries.

A receiver that is down delays and drops only its own messages. Messages are kept in memory only: if one is lost, people still find
the approval on the page.
"""

import heapq
import ipaddress
import itertools
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from authz.approvals.notify.messages import (
    Event,
    MessageFormat,
    event_of,
    message_id,
    write_message,
)
from authz.approvals.notify.signature import SigningKey
from authz.approvals.store import ApprovalChange, ApprovalStore
from authz.errors import AuthzError
from authz.periodic import PeriodicThread
from authz.trust.addresses import Network, Reach
from authz.trust.fetch import Document, FetchError, FetchRequest, Post, WebVerifier
from authz_client.v1 import approvals_pb2

__all__ = ["Webhook", "WebhookSender"]

_MOST_WAITING: Final = 1_024
"""Maximum number of messages of one webhook that wait for an attempt."""
_MOST_SEEN: Final = 4_096
"""Number of messages that are remembered, so that no change is sent twice."""
_PAUSES: Final = (5.0, 30.0, 120.0, 600.0, 1800.0)
"""Pauses after failed attempts, in seconds. After the last one the message is dropped."""
_JITTER: Final = 0.2
_TIMEOUT: Final = 10.0
_MAX_ANSWER: Final = 65_536
_IDLE: Final = 60.0
_PAGE_SIZE: Final = 100


class Log(Protocol):
    """Receives events."""

    def warning(self, event: str, **fields: Any) -> object:
        """Log a warning."""

    def error(self, event: str, **fields: Any) -> object:
        """Log an error."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver of notifications."""

    name: str
    """Name of the webhook in logs and metrics."""
    url: str
    """URL that takes the messages by POST."""
    key: SigningKey
    """Key that signs the messages."""
    form: MessageFormat = MessageFormat.JSON
    queues: frozenset[str] = frozenset()
    """Queues whose approvals are sent. Default: all."""
    has_values: bool = False
    """Whether messages name destinations and objects."""
    allow_private: bool = False
    """Whether the URL may have an address of a private network or of loopback."""
    allow_networks: tuple[str, ...] = ()
    """Further networks whose addresses the URL may have."""
    ca_file: str | None = None
    """File of the certificate authorities of the receiver, PEM. Default: the authorities of the system."""

    @property
    def reach(self) -> Reach:
        """Addresses that the URL may have. Without TLS, only loopback."""
        networks: tuple[Network, ...] = tuple(map(ipaddress.ip_network, self.allow_networks))
        is_plain = urlsplit(self.url).scheme != "https"
        return Reach(self.allow_private or is_plain, networks, is_plain)


@dataclass(frozen=True, slots=True)
class _Message:
    id: str
    body: bytes
    attempts: int = 0


class WebhookSender:
    """Sends changes of approvals to webhooks.

    Args:
        webhooks: The receivers.
        store: Reads approvals.
        post: Posts a message.
        url: Public base URL of the approvals page. Empty without a page.
        log: Receives failed attempts and dropped messages.
        clock: Unix time.
        pauses: Pauses after failed attempts, in seconds.
        most_waiting: Maximum number of messages of one webhook that wait for an attempt.
    """

    def __init__(
        self,
        webhooks: Iterable[Webhook],
        store: ApprovalStore,
        post: Callable[[FetchRequest], Document],
        url: str,
        log: Log,
        *,
        clock: Callable[[], float] = time.time,
        pauses: tuple[float, ...] = _PAUSES,
        most_waiting: int = _MOST_WAITING,
    ) -> None:
        self._store = store
        self._url = url
        self._log = log
        self._started_at = clock()
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._lock = threading.Lock()
        self._changes: list[ApprovalChange] = []
        self._has_gap = False
        self._most_waiting = most_waiting
        self._receivers = [
            _Receiver(one, post, log, clock=clock, pauses=pauses, most_waiting=most_waiting)
            for one in webhooks
        ]
        self._thread = PeriodicThread("notify", self._read_changes, _IDLE, self._failed)

    def start(self) -> None:
        """Start the threads."""
        self._thread.start()
        for receiver in self._receivers:
            receiver.thread.start()

    def close(self) -> None:
        """Stop the threads. Waiting messages are lost."""
        self._thread.close()
        for receiver in self._receivers:
            receiver.thread.close()

    def changed(self, change: ApprovalChange | None) -> None:
        """Queue a change without blocking. `None` means that changes were lost: open approvals are then read again."""
        with self._lock:
            if change is None or len(self._changes) >= self._most_waiting:
                self._has_gap = True
            else:
                self._changes.append(change)
        self._thread.wake()

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Return the numbers of messages of each webhook: `sent`, `failed` (attempts), `dropped` and `waiting`."""
        return {receiver.webhook.name: receiver.counts() for receiver in self._receivers}

    # --- on the thread of changes

    def _read_changes(self) -> None:
        with self._lock:
            changes, self._changes = self._changes, []
            has_gap, self._has_gap = self._has_gap, False
        if has_gap:
            self._read_open()
        for change in changes:
            # A deleted approval or a failing store must not delay the other messages.
            with suppress(AuthzError):
                request = approvals_pb2.ApprovalsGetRequest(approval_id=change.approval_id)
                self._tell(self._store.approval_show(None, request).approval)

    def _read_open(self) -> None:
        request = approvals_pb2.ApprovalsListRequest(page_size=_PAGE_SIZE)
        while True:
            answer = self._store.approvals_list(None, request)
            for approval in answer.approvals:
                is_old = approval.created_at.ToMilliseconds() / 1000 < self._started_at
                self._tell(approval, is_repeated=is_old)
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    def _tell(self, approval: approvals_pb2.Approval, *, is_repeated: bool = False) -> None:
        """Queue the message of an approval's status.

        Args:
            approval: The approval.
            is_repeated: An earlier run of the node has probably sent the message. Chats and mailboxes do not drop copies, so they
                do not get it again.
        """
        event = event_of(approval.status)
        if event is None:
            return
        id_ = message_id(approval, event)
        for receiver in self._receivers:
            if is_repeated and receiver.webhook.form is not MessageFormat.JSON:
                continue
            if not _is_of_queues(approval, event, receiver.webhook) or self._is_seen(receiver, id_):
                continue
            webhook = receiver.webhook
            write = partial(write_message, url=self._url, has_values=webhook.has_values)
            receiver.add(_Message(id_, write(approval, event, webhook.form)))

    def _is_seen(self, receiver: "_Receiver", id_: str) -> bool:
        key = (receiver.webhook.name, id_)
        if key in self._seen:
            return True
        self._seen[key] = None
        if len(self._seen) > _MOST_SEEN:
            self._seen.popitem(last=False)
        return False

    def _failed(self, error: BaseException) -> None:
        self._log.error(
            "changes of approvals could not be read for notifications", error=str(error)
        )


def _is_of_queues(approval: approvals_pb2.Approval, event: Event, webhook: Webhook) -> bool:
    if not webhook.queues:
        return True
    # An answered approval no longer waits for a queue, so the kinds of the step-up are compared.
    queues = approval.waits_for if event is Event.OPENED else approval.kinds
    return bool(webhook.queues & set(queues))


class _Receiver:
    """One webhook, its queue and its thread."""

    def __init__(
        self,
        webhook: Webhook,
        post: Callable[[FetchRequest], Document],
        log: Log,
        *,
        clock: Callable[[], float],
        pauses: tuple[float, ...],
        most_waiting: int,
    ) -> None:
        self.webhook = webhook
        self._post = post
        self._log = log
        self._clock = clock
        self._pauses = pauses
        self._most_waiting = most_waiting
        self._lock = threading.Lock()
        self._order = itertools.count()
        # Messages by the time of their next attempt.
        self._due: list[tuple[float, int, _Message]] = []
        self._sent = self._failures = self._dropped = 0
        self.thread = PeriodicThread(f"webhook-{webhook.name}", self._send_due, _IDLE, self._broken)

    def add(self, message: _Message, pause: float = 0.0) -> None:
        """Queue a message. If the queue is full, drop the message and log an error."""
        with self._lock:
            is_full = len(self._due) >= self._most_waiting
            if is_full:
                self._dropped += 1
            else:
                heapq.heappush(self._due, (self._clock() + pause, next(self._order), message))
        if is_full:
            self._log.error(
                "a notification was dropped: too many wait for the webhook",
                webhook=self.webhook.name,
                message=message.id,
            )
        self.thread.wake()

    def counts(self) -> Mapping[str, int]:
        """Return the numbers of messages."""
        with self._lock:
            return {
                "sent": self._sent,
                "failed": self._failures,
                "dropped": self._dropped,
                "waiting": len(self._due),
            }

    def _send_due(self) -> float:
        while not self.thread.is_closing:
            with self._lock:
                if not self._due:
                    return _IDLE
                due = self._due[0][0] - self._clock()
                if due > 0:
                    return min(due, _IDLE)
                message = heapq.heappop(self._due)[2]
            self._send(message)
        return _IDLE

    def _send(self, message: _Message) -> None:
        webhook = self.webhook
        headers = webhook.key.headers(message.id, int(self._clock()), message.body)
        request = FetchRequest(
            webhook.url,
            webhook.reach,
            WebVerifier(webhook.ca_file),
            _TIMEOUT,
            _MAX_ANSWER,
            "*/*",
            post=Post(message.body, "application/json", headers),
        )
        try:
            self._post(request)
        except FetchError as error:
            self._retry(message, str(error))
            return
        with self._lock:
            self._sent += 1

    def _retry(self, message: _Message, reason: str) -> None:
        with self._lock:
            self._failures += 1
        fields = {"webhook": self.webhook.name, "message": message.id, "reason": reason}
        if message.attempts >= len(self._pauses):
            with self._lock:
                self._dropped += 1
            self._log.error("a notification was given up", **fields)
            return
        pause = self._pauses[message.attempts]
        # The random part spreads the retries of messages that failed together.
        pause *= 1 + random.uniform(0, _JITTER)  # noqa: S311 - no secret depends on it
        self._log.warning("a notification was not delivered", retry_in=round(pause), **fields)
        self.add(_Message(message.id, message.body, message.attempts + 1), pause)

    def _broken(self, error: BaseException) -> None:
        self._log.error("a notification failed", webhook=self.webhook.name, error=str(error))
