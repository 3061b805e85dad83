"""Notifications of approvals: signed webhooks that tell people where to look.

`messages` writes what a webhook is told, `signature` signs it, and `sender` delivers it. A notification is a hint: a person decides by
the card, and nothing that answers a webhook answers an approval.
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
