"""Notifications of approvals: signed webhooks that tell people where to look.

`messages` writes the body of a notification, `signature` signs it, and `sender` delivers it. People decide at the card: the response
of a webhook never answers an approval.
"""

from authz.approvals.notify.messages import Event, MessageFormat, event_of, write_message
from authz.approvals.notify.sender import Webhook, WebhookSender
from authz.approvals.notify.signature import SigningKey, SigningKeyError

__all__ = [
    "Event",
    "MessageFormat",
    "SigningKey",
    "SigningKeyError",
    "Webhook",
    "WebhookSender",
    "event_of",
    "write_message",
]
