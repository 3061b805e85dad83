"""Calls of the demo, their callers and their expected results."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from authz.tools.keys import DevDomain, DevProofKey

__all__ = [
    "AUDIENCE",
    "BOT",
    "CALLS",
    "HEADLINES",
    "REQUESTS",
    "DemoCall",
    "Headline",
    "Request",
    "Tokens",
]

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
class DemoCall:
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
    """Tokens of the caller."""
    obligations: tuple[str, ...] = ()
    """Obligations that the caller can carry out."""
    note: str = ""
    """Point that the call shows."""


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
    """Tokens of the caller."""
    body: str = ""
    """JSON; may be empty."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """More headers."""
    note: str = ""
    """Point that the call shows."""


@dataclass(frozen=True, slots=True)
class Headline:
    """A call of the short table."""

    tried: str
    """What the agent tries, in words."""
    call: DemoCall | Request
    """The call."""
    why: str
    """Why the expected result is right."""


_SEARCH: Final = ("crm.search", '{"query": "smith"}')
_MAIL: Final = '{"to": ["%s"], "subject": "Re", "body": "hi"}'
_QUERY: Final = "/customers?q=smith"

CALLS: Final = (
    DemoCall(*_SEARCH, "PERMIT", "PERMITTED"),
    DemoCall(
        "crm.get",
        '{"id": "42"}',
        "PERMIT",
        "PERMITTED",
        obligations=("redact:card",),
        note="the caller can redact",
    ),
    DemoCall(
        "crm.get", '{"id": "42"}', "DENY", "ENFORCER_REFUSED", note="the caller cannot redact"
    ),
    DemoCall(
        "crm.delete_ticket",
        '{"id": "7"}',
        "PERMIT",
        "PERMITTED",
        Tokens.BOUND,
        note="tier high: the agent proves to hold its key",
    ),
    DemoCall(
        "crm.delete_ticket",
        '{"id": "7"}',
        "STEP_UP",
        "PROOF_REQUIRED",
        note="a token alone is not enough: the agent must prove its key",
    ),
    DemoCall("crm.delete", '{"id": "42"}', "DENY", "FORBIDDEN", note="customers are never deleted"),
    DemoCall("crm.refund", '{"id": "42", "amount": 100}', "PERMIT", "PERMITTED", Tokens.BOUND),
    DemoCall(
        "crm.refund", '{"id": "42", "amount": 101}', "DENY", "FORBIDDEN", note="above the limit"
    ),
    DemoCall("crm.refund", '{"id": "42", "amount": "1"}', "DENY", "BAD_INPUT", note="a text"),
    DemoCall("crm.search", '{"query": "a", "query": "b"}', "DENY", "BAD_INPUT", note="a key twice"),
    DemoCall("crm.purge", "{}", "DENY", "UNKNOWN_OPERATION"),
    DemoCall("gmail.send_email", _MAIL % "bob@corp.example", "PERMIT", "PERMITTED", Tokens.BOUND),
    DemoCall(
        "gmail.send_email",
        _MAIL % "eve@evil.example",
        "STEP_UP",
        "APPROVAL_REQUIRED",
        Tokens.BOUND,
        note="mail to a stranger waits for approval",
    ),
    DemoCall(*_SEARCH, "DENY", "CHAIN_NOT_PERMITTED", Tokens.GUEST),
    DemoCall(*_SEARCH, "DENY", "NO_CREDENTIAL", Tokens.ALONE, note="her token left out"),
    DemoCall(*_SEARCH, "DENY", "NO_TASK", Tokens.STRANGER),
    DemoCall(*_SEARCH, "DENY", "EXPIRED_CREDENTIAL", Tokens.EXPIRED),
    DemoCall(*_SEARCH, "DENY", "WRONG_AUDIENCE", Tokens.AUDIENCE),
    DemoCall(*_SEARCH, "DENY", "BAD_CREDENTIAL", Tokens.KEY),
    DemoCall(*_SEARCH, "DENY", "UNTRUSTED_ISSUER", Tokens.DOMAIN),
    DemoCall(*_SEARCH, "DENY", "EXPIRED_CREDENTIAL", Tokens.SUBJECT),
    DemoCall(*_SEARCH, "DENY", "NO_CREDENTIAL", Tokens.NONE),
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
    Request(
        "DELETE",
        "/tickets/7",
        403,
        note="a token alone is not enough: the agent must prove its key",
    ),
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

HEADLINES: Final = (
    Headline(
        "search customers for Alice of staff",
        DemoCall(*_SEARCH, "PERMIT", "PERMITTED"),
        "both she and the agent may",
    ),
    Headline(
        "mail a colleague",
        DemoCall(
            "gmail.send_email", _MAIL % "bob@corp.example", "PERMIT", "PERMITTED", Tokens.BOUND
        ),
        "the mail stays in the company",
    ),
    Headline(
        "mail a stranger",
        DemoCall(
            "gmail.send_email",
            _MAIL % "eve@evil.example",
            "STEP_UP",
            "APPROVAL_REQUIRED",
            Tokens.BOUND,
        ),
        "held until a person approves it",
    ),
    Headline(
        "refund 101",
        DemoCall("crm.refund", '{"id": "42", "amount": 101}', "DENY", "FORBIDDEN", Tokens.BOUND),
        "a policy permits 100 at most",
    ),
    Headline(
        "search customers for a guest",
        DemoCall(*_SEARCH, "DENY", "CHAIN_NOT_PERMITTED", Tokens.GUEST),
        "the guest may not, so the agent may not",
    ),
    Headline(
        "search with a forged identity",
        DemoCall(*_SEARCH, "DENY", "BAD_CREDENTIAL", Tokens.KEY),
        "no trusted key signed its SVID",
    ),
    Headline(
        "GET /customers through Envoy",
        Request("GET", _QUERY, 200),
        "Envoy asked Authz; the API answered",
    ),
    Headline(
        "DELETE /customers/42 through Envoy",
        Request("DELETE", "/customers/42", 403, Tokens.BOUND),
        "Envoy did not call the API",
    ),
)
"""The short table: calls over gRPC, then requests through Envoy."""
