"""Approvals: step-ups that people answer.

`people` is the verified human who answers, `store` the approvals that the engine keeps, and `changes` tells watchers of each
change. The engine alone judges: it works out the person's roles, refuses an answer that does not count, and writes the record.
"""

from authz.approvals.changes import ApprovalHub, Subscription
from authz.approvals.people import AnswerMethod, PasskeyAssertion, PeopleByUid, Person
from authz.approvals.store import ApprovalChange, ApprovalChanges, ApprovalStore, StoredPasskey

__all__ = [
    "AnswerMethod",
    "ApprovalChange",
    "ApprovalChanges",
    "ApprovalHub",
    "ApprovalStore",
    "PasskeyAssertion",
    "PeopleByUid",
    "Person",
    "StoredPasskey",
    "Subscription",
]
