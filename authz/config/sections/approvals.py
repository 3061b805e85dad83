"""`approvals`: people who answer step-ups, and the channels that reach them."""

import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints

from authz.config.document import Path
from authz.config.findings import Finding
from authz.config.sections.enforcers import Enforcer
from authz.config.sections.listeners import Listeners
from authz.config.sections.sources import network_findings
from authz.config.sections.trust import Issuer, SubjectKind
from authz.config.types import FilePath, Name, Strict, Text
from authz.config.urls import host_of, url_defect

__all__ = [
    "ApprovalLogin",
    "ApprovalPerson",
    "ApprovalWebhook",
    "Approvals",
    "Ciba",
    "CibaTier",
    "Passkeys",
    "WebhookFormat",
    "approval_findings",
]

_DOMAIN: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9-]{1,63}")
_QUEUE: Final = re.compile(r"confirm|two_person|approve(?::[A-Za-z0-9_.-]{1,128})?")
_MAX_UID: Final = 4_294_967_294
ClaimValue = str | bool | int | tuple[str, ...]
"""A claim that policies can read."""


class ApprovalLogin(Strict):
    """Login of people at the approvals page by OpenID Connect (authorization code with PKCE)."""

    issuer: Text
    """Alias of the issuer in `trust.issuers` at which people log in."""
    client_id: Text
    """Client id of the approvals page at the issuer. Use a separate client for the page."""
    client_secret_file: FilePath | None = None
    """File that holds the secret of the client. Only its owner may read it, or root's group. Default: a public client, which uses only
    PKCE."""
    scopes: tuple[Text, ...] = Field(default=("openid",), max_length=16)
    """Scopes that the login requests. They must include `openid`."""


class Passkeys(Strict):
    """Passkeys with which people answer (WebAuthn, with user verification)."""

    rp_id: Annotated[str, StringConstraints(pattern=rf"^{_DOMAIN.pattern}$", max_length=253)]
    """Relying party id: the host of `approvals.url`, or a parent domain. A passkey works only with the id that it was made for."""
    name: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "Authz"
    """Name that the browser shows when a passkey is made."""


class ApprovalPerson(Strict):
    """A person who answers over the administration socket."""

    uid: int = Field(ge=0, le=_MAX_UID)
    """User ID of the person's processes. No agent may run under it."""
    issuer: Text
    """Alias of the person's issuer in `trust.issuers`."""
    sub: Text
    """Subject of the person at the issuer: `sub` of its tokens."""
    claims: dict[str, ClaimValue] = Field(default_factory=dict, max_length=32)
    """Claims of the person, as in the tokens of the issuer. The bundle derives the roles of the person from them. By default the person
    has no claims, and only roles that need none."""


class WebhookFormat(StrEnum):
    """Form of a notification."""

    JSON = "json"
    SLACK = "slack"
    MAIL = "mail"


class ApprovalWebhook(Strict):
    """A URL that receives notifications of new and answered approvals."""

    name: Name
    """Name of the webhook in logs and metrics."""
    url: Text
    """URL that takes the notifications by POST: https, or http on loopback."""
    secret_file: FilePath | None = None
    """File that holds the key that signs notifications (HMAC-SHA256, Standard Webhooks). Only its owner may read it, or root's group; required."""
    format: WebhookFormat = WebhookFormat.JSON
    """Form of a notification: `json` (every field), `slack` (blocks of a message) or `mail` (subject and text)."""
    queues: tuple[Text, ...] = Field(default=(), max_length=100)
    """Queues whose approvals are sent, for example `approve:finance`. Default: all queues."""
    show_values: bool = False
    """Whether notifications name destinations and objects of the call. More people may read a chat or a mailbox than the page."""
    ca_file: FilePath | None = None
    """File of the certificate authorities of the URL's server, PEM. Default: the authorities of the system."""
    allow_private: bool = False
    """Whether the host of the URL may have an address of a private network or of loopback."""
    allow_networks: tuple[Text, ...] = Field(default=(), max_length=64)
    """Networks, such as `10.1.0.0/16`, whose addresses the host may have besides public addresses."""


class CibaTier(StrEnum):
    """Highest tier of calls that a person may confirm without the card."""

    LOW = "low"
    STANDARD = "standard"


class Ciba(Strict):
    """A second channel: the issuer asks the subject of a call on the subject's own device (OpenID Connect CIBA, poll mode).

    It serves only approvals of the queue `confirm`. The device shows the code of the card, not the card.
    """

    issuer: Text
    """Alias of the issuer in `trust.issuers` that asks its subjects."""
    client_id: Text
    """Client id at the issuer. The client has the grant type `urn:openid:params:grant-type:ciba` and requires `auth_time`."""
    client_secret_file: FilePath | None = None
    """File that holds the secret of the client. Only its owner may read it, or root's group; required."""
    login_hint: Text = "{sub}"
    """Login hint by which the issuer finds the person. `{sub}` stands for the subject, for example `{sub}@corp.example`. If the hint
    leads to another person, Authz refuses the answer."""
    acr_values: tuple[Text, ...] = Field(default=(), max_length=8)
    """Authentication contexts that Authz requests. The ID token must have one of them as `acr`. Default: every context is accepted."""
    tier_cap: CibaTier = CibaTier.STANDARD
    """Highest tier of the calls about which the issuer asks: `low` or `standard`. Higher calls wait at the page."""


class Approvals(Strict):
    """People who answer step-ups, and the channels that reach them."""

    url: Text | None = None
    """Public base URL of the approvals page, for example `https://authz.corp.example`. Agents get the URL of their approval below it. By
    default, agents get no URL."""
    login: ApprovalLogin | None = None
    """Login of people at the page with an issuer. By default, this login is off."""
    passkeys: Passkeys | None = None
    """Passkeys. By default, the page accepts no passkeys."""
    people: tuple[ApprovalPerson, ...] = Field(default=(), max_length=1000)
    """People who answer over the administration socket. All other users of the socket can only list and show approvals."""
    webhooks: tuple[ApprovalWebhook, ...] = Field(default=(), max_length=16)
    """URLs that receive notifications of new and answered approvals."""
    ciba: Ciba | None = None
    """A second channel for approvals of the queue `confirm`: the issuer asks the subject of the call on the subject's own device. By
    default, this channel is off."""

    @property
    def base_url(self) -> str:
        """`url` without a slash at its end. Empty without a URL."""
        return (self.url or "").rstrip("/")

    def engine_settings(self) -> dict[str, Any]:
        """Return the engine's settings."""
        return {"url": self.base_url}


def approval_findings(
    approvals: Approvals,
    listeners: Listeners,
    issuers: Mapping[str, Issuer],
    enforcers: Sequence[Enforcer],
) -> Iterator[Finding]:
    """Yield errors of `approvals` that the types cannot express."""
    yield from _url(approvals)
    yield from _page(approvals, listeners)
    if approvals.login is not None:
        yield from _login(approvals.login, issuers)
    if approvals.passkeys is not None:
        yield from _passkeys(approvals.passkeys, approvals)
    yield from _people(approvals.people, listeners, issuers, enforcers)
    yield from _webhooks(approvals.webhooks)
    if approvals.ciba is not None:
        yield from _ciba(approvals.ciba, issuers)


def _url(approvals: Approvals) -> Iterator[Finding]:
    if approvals.url is None:
        return
    defect = url_defect(approvals.url, plain=True)
    if defect is None and "?" in approvals.url:
        defect = "has a query"
    if defect is not None:
        yield Finding(
            ("approvals", "url"),
            f"`approvals.url` {defect}. People would answer where others can read and change the answer.",
            "Give the https URL of the approvals page, for example https://authz.corp.example; http is for loopback only.",
        )


def _page(approvals: Approvals, listeners: Listeners) -> Iterator[Finding]:
    ways = {"login": approvals.login, "passkeys": approvals.passkeys}
    if listeners.approvals is None:
        for key, way in ways.items():
            if way is not None:
                yield Finding(
                    ("approvals", key),
                    f"`approvals.{key}` is given, but `listeners.approvals` is not: there is no page to use it on.",
                    "Add listeners: {approvals: {address: ..., tls: {...}}}, or remove it.",
                )
        return
    if approvals.url is None:
        yield Finding(
            ("listeners", "approvals"),
            "listener `approvals` is given, but `approvals.url` is not: the page would not know its own address.",
            "Add approvals: {url: https://...}.",
        )
    if all(way is None for way in ways.values()):
        yield Finding(
            ("listeners", "approvals"),
            "listener `approvals` is given, but neither `approvals.login` nor `approvals.passkeys` is: nobody could answer on the page.",
            "Add approvals: {login: {issuer: ..., client_id: ...}}, or passkeys: {rp_id: ...}.",
        )


def _login(login: ApprovalLogin, issuers: Mapping[str, Issuer]) -> Iterator[Finding]:
    path: Path = ("approvals", "login")
    yield from _issuer((*path, "issuer"), "`approvals.login`", login.issuer, issuers)
    yield from _client(path, "the page's login", login, issuers)
    if "openid" not in login.scopes:
        yield Finding(
            (*path, "scopes"),
            "`approvals.login.scopes` lacks `openid`: the issuer would not say who logged in.",
            "Add openid.",
        )


def _client(
    path: Path, of: str, client: ApprovalLogin | Ciba, issuers: Mapping[str, Issuer]
) -> Iterator[Finding]:
    issuer = issuers.get(client.issuer)
    if issuer is not None and client.client_id in issuer.audience:
        yield Finding(
            (*path, "client_id"),
            f"the client `{client.client_id}` is also an audience of issuer `{client.issuer}`: a token of {of} would be "
            "accepted from agents.",
            "Register a client that only the approvals page uses.",
        )


def _ciba(ciba: Ciba, issuers: Mapping[str, Issuer]) -> Iterator[Finding]:
    path: Path = ("approvals", "ciba")
    yield from _issuer((*path, "issuer"), "`approvals.ciba`", ciba.issuer, issuers)
    yield from _client(path, "a confirmation", ciba, issuers)
    if ciba.client_secret_file is None:
        yield Finding(
            path,
            "`approvals.ciba` has no `client_secret_file`: anybody could ask the people of the issuer in the name of Authz.",
            "Register a confidential client, and add client_secret_file: a file with its secret.",
        )
    if ciba.login_hint.count("{sub}") != 1 or set("{}") & set(ciba.login_hint.replace("{sub}", "")):
        yield Finding(
            (*path, "login_hint"),
            f"`{ciba.login_hint}` is not a login hint: it must have `{{sub}}` once, and no other braces.",
            "Use {sub}, or for example {sub}@corp.example.",
        )
    for number, value in enumerate(ciba.acr_values):
        if not value or any(one.isspace() for one in value):
            yield Finding(
                (*path, "acr_values", number),
                f"`{value}` is not an authentication context: the issuer gets them separated by spaces.",
                "Give each value as an entry of its own.",
            )


def _issuer(path: Path, of: str, alias: str, issuers: Mapping[str, Issuer]) -> Iterator[Finding]:
    issuer = issuers.get(alias)
    if issuer is None:
        declared = ", ".join(sorted(issuers)) or "none"
        yield Finding(
            path,
            f"{of} names issuer `{alias}`, which is not configured.",
            f"Use an alias of trust.issuers; there: {declared}.",
        )
    elif issuer.subject is not SubjectKind.USER:
        yield Finding(
            path,
            f"{of} names issuer `{alias}`, whose subjects are services. Only a person can answer.",
            "Use an issuer of people (`subject: user`).",
        )


def _passkeys(passkeys: Passkeys, approvals: Approvals) -> Iterator[Finding]:
    if approvals.url is None or url_defect(approvals.url, plain=True) is not None:
        return
    path: Path = ("approvals", "passkeys", "rp_id")
    host = host_of(approvals.url)
    if _is_ip(host):
        yield Finding(
            path,
            f"`approvals.url` has the IP address `{host}`: browsers make no passkey for an address.",
            "Use a host name; on loopback `localhost`.",
        )
    elif host != passkeys.rp_id and not host.endswith(f".{passkeys.rp_id}"):
        yield Finding(
            path,
            f"the relying party id `{passkeys.rp_id}` is not the host of `approvals.url`, or a domain above it: browsers would refuse every passkey.",
            f"Use {host}.",
        )


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _people(
    people: Sequence[ApprovalPerson],
    listeners: Listeners,
    issuers: Mapping[str, Issuer],
    enforcers: Sequence[Enforcer],
) -> Iterator[Finding]:
    if people and listeners.admin is None:
        yield Finding(
            ("approvals", "people"),
            "`approvals.people` is given, but `listeners.admin` is not: there is no socket over which they could answer.",
            "Add listeners: {admin: {address: 'unix:///run/authz/admin.sock'}}, or remove it.",
        )
    by_uid: dict[int, str] = {}
    agents = {uid: enforcer.name for enforcer in enforcers for uid in enforcer.uids}
    for index, person in enumerate(people):
        path: Path = ("approvals", "people", index)
        name = f"{person.issuer}/{person.sub}"
        yield from _issuer((*path, "issuer"), f"`{name}`", person.issuer, issuers)
        yield from _claims((*path, "claims"), name, person, issuers.get(person.issuer))
        if person.uid in by_uid:
            yield Finding(
                (*path, "uid"),
                f"user {person.uid} is both `{by_uid[person.uid]}` and `{name}`. Authz could not tell who answered.",
                "Give each person a separate user.",
            )
        by_uid.setdefault(person.uid, name)
        if person.uid in agents:
            yield Finding(
                (*path, "uid"),
                f"user {person.uid} answers as `{name}` and also runs enforcer `{agents[person.uid]}`. Software would answer for the person.",
                "Use a user under which only the person works.",
            )


def _claims(
    path: Path, name: str, person: ApprovalPerson, issuer: Issuer | None
) -> Iterator[Finding]:
    for claim in person.claims:
        if issuer is not None and claim not in issuer.claims:
            yield Finding(
                (*path, claim),
                f"`{name}` has the claim `{claim}`, which the bundle may not read.",
                f"Add it to trust.issuers.{person.issuer}.claims, or remove it.",
            )


def _webhooks(webhooks: Collection[ApprovalWebhook]) -> Iterator[Finding]:
    names: set[str] = set()
    for index, webhook in enumerate(webhooks):
        path: Path = ("approvals", "webhooks", index)
        if webhook.name in names:
            yield Finding(path, f"webhook `{webhook.name}` is named twice.", "Rename one.")
        names.add(webhook.name)
        defect = url_defect(webhook.url, plain=True)
        if defect is not None:
            yield Finding(
                (*path, "url"),
                f"the URL of webhook `{webhook.name}` {defect}.",
                "Give an https URL; http is for loopback only.",
            )
        if webhook.secret_file is None:
            yield Finding(
                path,
                f"webhook `{webhook.name}` has no `secret_file`: its receiver could not tell a notification from a forgery.",
                "Add secret_file: a file with a random key, for example of `openssl rand -base64 32`.",
            )
        yield from network_findings(path, webhook.allow_networks)
        for number, queue in enumerate(webhook.queues):
            if not _QUEUE.fullmatch(queue):
                yield Finding(
                    (*path, "queues", number),
                    f"`{queue}` is not a queue.",
                    "Use confirm, approve, approve:<role> or two_person.",
                )
