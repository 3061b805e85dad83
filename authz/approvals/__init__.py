"""Approvals: step-ups that people answer.

`people` is the verified human who answers, `store` the approvals that the engine keeps (`engine_store` over the engine), and `changes`
tells watchers of each change. `invitations` lets people without an issuer make a first passkey. The engine alone judges: it works out the
person's roles, refuses an answer that does not count, and writes the record.

`card` builds what a person is shown, of the typed `parts` of a card. It reads `inert` (text that somebody else wrote, made safe to
show), `difference` (the change since the last approved call) and `lookalikes` (values that resemble known ones), which read
`characters`, Unicode's data. `terminal` renders a card. `ciba` lets an issuer ask people at their phone. A caller imports these modules
themselves.
"""

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
    "is_local_person",
]
