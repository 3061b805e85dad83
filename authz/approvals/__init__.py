"""Approvals: step-ups that people answer.

An approval passes these parts in this order:

* `store` is the interface of the approvals that the engine keeps; `engine_store` implements it over the engine.
* `changes` passes each change of an approval to its watchers.
* `card` builds the card that a person reads, from the typed `parts` of a card. It reads `inert` (text of others, made safe to
  show), `difference` (the change since the last approved call) and `lookalikes` (values that resemble known values). These three
  read `characters`, the data of Unicode. `terminal` renders a card.
* `notify` sends webhooks, and `ciba` lets an issuer ask people at their phone. `invitations` lets people without an issuer make a
  first passkey.
* `people` is the verified human who answers, and `answer` the statement that a passkey of the human signs.

Only the engine decides whether an answer counts: it works out the roles of the person, refuses invalid answers, and writes the
record. This package exports what most callers need; import the other modules by their own names.
"""

from authz.approvals.answer import AnswerStatement, answer_challenge, read_challenge
from authz.approvals.changes import ApprovalHub, Subscription
from authz.approvals.engine_store import EngineApprovals
from authz.approvals.invitations import (
    Invitation,
    Invitations,
    InvitationsFullError,
    is_local_person,
)
from authz.approvals.people import AnswerMethod, PasskeyAssertion, PeopleByUid, Person
from authz.approvals.store import ApprovalChange, ApprovalChanges, ApprovalStore, StoredPasskey

__all__ = [
    "AnswerMethod",
    "AnswerStatement",
    "ApprovalChange",
    "ApprovalChanges",
    "ApprovalHub",
    "ApprovalStore",
    "EngineApprovals",
    "Invitation",
    "Invitations",
    "InvitationsFullError",
    "PasskeyAssertion",
    "PeopleByUid",
    "Person",
    "StoredPasskey",
    "Subscription",
    "answer_challenge",
    "is_local_person",
    "read_challenge",
]
