"""What the demo asks, by whom, and what must come of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from authz.tools.keys import DevDomain, DevProofKey

__all__ = ["AUDIENCE", "BOT", "CALLS", "REQUESTS", "Call", "Request", "Tokens"]

AUDIENCE: Final = "authz"
"""Our own `aud`, and that of subject tokens."""
BOT: Final = "/ns/support/sa/bot"
"""Path of the support agent."""


class Tokens(StrEnum):
    """Which credentials are sent."""

    GOOD = "the support agent, for alice of staff"
    BOUND = "the support agent with its key, for alice"
    GUEST = "the support agent, for mallory, a guest"
    ALONE = "the support agent, for nobody"
    STRANGER = "an agent without a role, for alice"
    EXPIRED = "an expired SVID"
    AUDIENCE = "an SVID for another audience"
    KEY = "an SVID signed with another key"
    DOMAIN = "an SVID of a domain that nobody trusts"
    SUBJECT = "a subject token that is expired"
    NONE = "no credential"

    def make(
        self, domain: DevDomain, forger: DevDomain, key: DevProofKey | None = None
    ) -> tuple[str | None, str | None]:
        """Make the tokens.

        Args:
            domain: The trusted domain.
            forger: Another domain with other keys.
            key: The support agent's own.

        Returns:
            The agent's and the subject's.
        """
        staff = domain.subject_token("alice", AUDIENCE, {"groups": ["employees"]})
        agent: str | None = {
            Tokens.BOUND: domain.svid(BOT, AUDIENCE, bound_to=key),
            Tokens.STRANGER: domain.svid("/ns/lab/sa/toy", AUDIENCE),
            Tokens.EXPIRED: domain.svid(BOT, AUDIENCE, lifetime=-600),
            Tokens.AUDIENCE: domain.svid(BOT, "billing"),
            Tokens.KEY: domain.forged_svid(forger, BOT, AUDIENCE),
            Tokens.DOMAIN: forger.svid(BOT, AUDIENCE),
        }.get(self, domain.svid(BOT, AUDIENCE))
        subject: str | None = {
            Tokens.GUEST: domain.subject_token("mallory", AUDIENCE, {"groups": ["visitors"]}),
            Tokens.SUBJECT: domain.subject_token(
                "alice", AUDIENCE, {"groups": ["employees"]}, lifetime=-600
            ),
        }.get(self, staff)
        if self is Tokens.ALONE:
            subject = None
        if self is Tokens.NONE:
            agent = subject = None
        return agent, subject


@dataclass(frozen=True, slots=True)
class Call:
    """A decision asked for over gRPC."""

    operation: str
    """Operation id."""
    arguments: str
    """JSON."""
    outcome: str
    """Expected outcome."""
    reason: str
    """Expected reason code."""
    tokens: Tokens = Tokens.GOOD
    """Who asks."""
    obligations: tuple[str, ...] = ()
    """What the caller can carry out."""
    note: str = ""
    """What it shows."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request sent through Envoy."""

    method: str
    """HTTP method."""
    target: str
    """Path and query."""
    status: int
    """Expected status."""
    tokens: Tokens = Tokens.GOOD
    """Who asks."""
    body: str = ""
    """JSON; may be empty."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """More headers."""
    note: str = ""
    """What it shows."""


_SEARCH: Final = ("crm.search", '{"query": "smith"}')
_MAIL: Final = '{"to": ["%s"], "subject": "Re", "body": "hi"}'
_QUERY: Final = "/customers?q=smith"

CALLS: Final = (
    Call(*_SEARCH, "PERMIT", "PERMITTED"),
    Call(
        "crm.get",
        '{"id": "42"}',
        "PERMIT",
        "PERMITTED",
        obligations=("redact:card",),
        note="the caller can redact",
    ),
    Call("crm.get", '{"id": "42"}', "DENY", "ENFORCER_REFUSED", note="the caller cannot redact"),
    Call(
        "crm.delete_ticket",
        '{"id": "7"}',
        "PERMIT",
        "PERMITTED",
        Tokens.BOUND,
        note="tier high: the agent proves to hold its key",
    ),
    Call(
        "crm.delete_ticket",
        '{"id": "7"}',
        "STEP_UP",
        "PROOF_REQUIRED",
        note="whoever has the token is not enough for that",
    ),
    Call("crm.delete", '{"id": "42"}', "DENY", "FORBIDDEN", note="customers are never deleted"),
    Call("crm.refund", '{"id": "42", "amount": 100}', "PERMIT", "PERMITTED", Tokens.BOUND),
    Call("crm.refund", '{"id": "42", "amount": 101}', "DENY", "FORBIDDEN", note="above the limit"),
    Call("crm.refund", '{"id": "42", "amount": "1"}', "DENY", "BAD_INPUT", note="a text"),
    Call("crm.search", '{"query": "a", "query": "b"}', "DENY", "BAD_INPUT", note="a key twice"),
    Call("crm.purge", "{}", "DENY", "UNKNOWN_OPERATION"),
    Call("gmail.send_email", _MAIL % "bob@corp.example", "PERMIT", "PERMITTED", Tokens.BOUND),
    Call(
        "gmail.send_email",
        _MAIL % "eve@evil.example",
        "STEP_UP",
        "APPROVAL_REQUIRED",
        Tokens.BOUND,
        note="mail to a stranger waits for approval",
    ),
    Call(*_SEARCH, "DENY", "CHAIN_NOT_PERMITTED", Tokens.GUEST),
    Call(*_SEARCH, "DENY", "NO_CREDENTIAL", Tokens.ALONE, note="her token left out"),
    Call(*_SEARCH, "DENY", "NO_TASK", Tokens.STRANGER),
    Call(*_SEARCH, "DENY", "EXPIRED_CREDENTIAL", Tokens.EXPIRED),
    Call(*_SEARCH, "DENY", "WRONG_AUDIENCE", Tokens.AUDIENCE),
    Call(*_SEARCH, "DENY", "BAD_CREDENTIAL", Tokens.KEY),
    Call(*_SEARCH, "DENY", "UNTRUSTED_ISSUER", Tokens.DOMAIN),
    Call(*_SEARCH, "DENY", "EXPIRED_CREDENTIAL", Tokens.SUBJECT),
    Call(*_SEARCH, "DENY", "NO_CREDENTIAL", Tokens.NONE),
)
"""Asked on both lanes."""

REQUESTS: Final = (
    Request("GET", _QUERY, 200, note="reaches the API"),
    Request(
        "GET",
        _QUERY,
        200,
        headers={"x-authz-agent": "spiffe://dev.example/ns/root"},
        note="a forged identity header is overwritten",
    ),
    Request(
        "DELETE",
        "/tickets/7",
        200,
        Tokens.BOUND,
        note="tier high: the agent proves to hold its key",
    ),
    Request("DELETE", "/tickets/7", 403, note="whoever has the token is not enough for that"),
    Request("DELETE", "/customers/42", 403, note="customers are never deleted"),
    Request("POST", "/customers/42/refunds", 200, Tokens.BOUND, body='{"amount": 100}'),
    Request("POST", "/customers/42/refunds", 403, body='{"amount": 101}', note="above the limit"),
    Request("GET", "/customers/42", 403, note="Envoy cannot redact the card number"),
    Request("GET", f"{_QUERY}&admin=1", 400, note="a parameter that no route accounts for"),
    Request("GET", "/customers//42", 400, note="a path that two readers read differently"),
    Request("GET", "/secrets", 403, note="no route"),
    Request("GET", _QUERY, 403, Tokens.GUEST, note="a guest lends the agent nothing"),
    Request("GET", _QUERY, 401, Tokens.EXPIRED, note="expired"),
    Request("GET", _QUERY, 401, Tokens.KEY, note="wrong key"),
    Request("GET", _QUERY, 401, Tokens.NONE, note="no credential"),
)
"""Sent through Envoy."""
