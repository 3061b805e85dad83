"""Asks people at their phone: OpenID Connect Client-Initiated Backchannel Authentication 1.0 (CIBA), poll mode.

An approval of the queue `confirm` waits for the subject of its call. The issuer can ask this person on a device of the person. The
device shows one text, `binding_message`: the code that is also on the card and in each message about the approval.

`CibaClient` speaks to the issuer. `CibaChannel` decides which approvals the issuer asks about, polls for the answers on one
thread, and gives the confirmed ones to the engine, which judges them as answers of a login.

INVARIANT (the device does not show the card): Authz asks the issuer only about calls whose ordinary card shows the whole call, has no
flag, and has a tier that needs no passkey. The answer is recorded with the digest of this card. If the card changes, the answer is
dropped.

INVARIANT (who answered): only an ID token of the issuer, for our client and for the subject of the call, confirms a call. An error
response does not prove who answered, so `access_denied` does not reject the call: the approval stays open.
"""

import json
import math
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol
from urllib.parse import urlencode

from authz.approvals.card import Card, CardReferences, build_card
from authz.approvals.people import AnswerMethod, Person
from authz.approvals.store import ApprovalChange, ApprovalStore
from authz.config.urls import url_defect
from authz.errors import AuthzError
from authz.files import PrivateFileError, read_secret
from authz.periodic import PeriodicThread
from authz.trust import (
    Document,
    FetchDocument,
    FetchError,
    FetchRequest,
    described_request,
    read_description,
)
from authz.trust.id_tokens import (
    MAX_CLAIM_TEXT,
    MAX_ID_TOKEN,
    IdTokenError,
    IdTokenRules,
    authenticate_client,
    authentication_time,
    subject_of,
    verify_id_token,
)
from authz_client.v1 import approvals_pb2, decision_pb2

__all__ = [
    "RESULTS",
    "AuthenticationRequest",
    "CibaChannel",
    "CibaClient",
    "CibaError",
    "CibaSettings",
    "Confirmation",
    "PollPause",
]

RESULTS: Final = (
    "asked",
    "confirmed",
    "denied",
    "expired",
    "answered_elsewhere",
    "refused",
    "failed",
    "withheld",
    "dropped",
)
"""Results of requests, as metrics count them."""

_CONFIRM: Final = "confirm"
_GRANT: Final = "urn:openid:params:grant-type:ciba"
_REQUEST_CLAIM: Final = "urn:openid:params:jwt:claim:auth_req_id"
_DETAILS_TYPE: Final = "authz_operation"
_OAUTH_ERRORS: Final = frozenset({400, 401, 403})
_DESCRIPTION_SECONDS: Final = 600.0
_MAX_REQUEST_ID: Final = 4_096

_MOST_OPEN: Final = 64
"""Maximum number of open requests at the issuer."""
_MOST_OF_PERSON: Final = 4
"""Maximum number of open requests of one person, so that an agent cannot tire the person."""
_MOST_SEEN: Final = 4_096
"""Number of approvals that are remembered, so that no person is asked twice about one of them."""
_MOST_WAITING: Final = 1_024
"""Maximum number of changes that wait for the thread."""
_LONGEST: Final = 900.0
"""Longest life of a request, in seconds. Afterwards the person can still answer at the page."""
_SHORTEST: Final = 10.0
"""Shortest remaining life of an approval for which the issuer is asked, in seconds."""
_INTERVAL: Final = 5.0
"""Default pause between two polls, and the increase after `slow_down`, in seconds (CIBA §7.3, §11)."""
_MOST_INTERVAL: Final = 300.0
_PAUSES: Final = (5.0, 15.0, 60.0)
"""Pauses without requests to the issuer after consecutive failed fetches, in seconds."""
_IDLE: Final = 60.0
_PAGE_SIZE: Final = 100


class Log(Protocol):
    """Receives events."""

    def info(self, event: str, **fields: Any) -> object:
        """Log an event."""

    def warning(self, event: str, **fields: Any) -> object:
        """Log a warning."""

    def error(self, event: str, **fields: Any) -> object:
        """Log an error."""


class CibaError(Exception):
    """A request ended without a confirmation.

    Attributes:
        result: One of `RESULTS`.
    """

    def __init__(self, message: str, result: str = "refused") -> None:
        super().__init__(message)
        self.result = result


@dataclass(frozen=True, slots=True)
class CibaSettings:
    """Our client at an issuer that asks people."""

    alias: str
    """Alias of the issuer."""
    issuer: str
    """The exact `iss` of its ID tokens."""
    algorithms: tuple[str, ...]
    """Accepted signature algorithms."""
    claims: tuple[str, ...]
    """Claims that the bundle may read."""
    client_id: str
    """Client id."""
    client_secret_file: str
    """File of the client's secret."""
    description: FetchRequest
    """Request for the metadata of the issuer (its discovery document)."""
    login_hint: str = "{sub}"
    """Login hint by which the issuer finds a person. `{sub}` stands for the subject."""
    acr_values: tuple[str, ...] = ()
    """Accepted authentication contexts. Default: all."""
    tiers: frozenset["decision_pb2.Tier.ValueType"] = frozenset(
        {decision_pb2.TIER_LOW, decision_pb2.TIER_STANDARD}
    )
    """Tiers of calls about which the issuer asks."""
    leeway: float = 5.0
    """Accepted difference between the clocks of node and issuer, in seconds."""


@dataclass(frozen=True, slots=True)
class AuthenticationRequest:
    """An accepted request (CIBA §7.3)."""

    id: str
    """`auth_req_id`, which is a secret."""
    expires_in: float
    """Lifetime of the request, in seconds."""
    interval: float
    """Pause between two polls, in seconds."""


@dataclass(frozen=True, slots=True)
class PollPause:
    """The person has not answered yet."""

    is_too_fast: bool
    """True if the issuer requires a longer interval."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A verified answer of a person."""

    sub: str
    """The person."""
    authenticated_at: float
    """Time of the person's proof, in seconds since 1970."""
    acr: str
    """`acr` of the ID token. Empty if it has none."""
    claims: Mapping[str, Any]
    """Claims that the bundle may read."""


class CibaClient:
    """Sends requests to the issuer. Its methods block until the issuer responds: call them on a thread.

    Args:
        settings: The client.
        get: Fetches a document.
        keys: Returns the keys of the issuer in use, as JWKS, or `None` before the first fetch.
        clock: Unix time.
    """

    def __init__(
        self,
        settings: CibaSettings,
        get: FetchDocument,
        keys: Callable[[], str | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._get = get
        self._keys = keys
        self._clock = clock
        self._description: tuple[float, dict[str, Any]] | None = None

    def ask(self, sub: str, code: str, operation: str, expiry: int) -> AuthenticationRequest:
        """Let the issuer ask a person (CIBA §7.1).

        Args:
            sub: The person.
            code: Code of the card. The device shows it.
            operation: Id of the operation.
            expiry: Requested lifetime of the request, in seconds.

        Raises:
            FetchError: The issuer cannot be reached; a later attempt may succeed.
            CibaError: The issuer refuses.
        """
        settings, description = self._settings, self._describe()
        form = {
            "scope": "openid",
            "login_hint": settings.login_hint.replace("{sub}", sub),
            "binding_message": code,
            "requested_expiry": str(expiry),
        }
        if settings.acr_values:
            form["acr_values"] = " ".join(settings.acr_values)
        types = description.get("authorization_details_types_supported")
        if isinstance(types, list) and _DETAILS_TYPE in types:
            details = [{"type": _DETAILS_TYPE, "actions": [operation], "identifier": code}]
            form["authorization_details"] = json.dumps(details, separators=(",", ":"))
        answer = self._post("backchannel_authentication_endpoint", form)
        if isinstance(answer, str):
            raise CibaError(f"the issuer does not ask the person: {answer}")
        return _read_request(answer)

    def poll(self, request_id: str, sub: str, asked_at: float) -> Confirmation | PollPause:
        """Ask for the answer of a person (CIBA §10.1).

        Args:
            request_id: `auth_req_id`.
            sub: The person who was asked.
            asked_at: Unix time of the request. Older proofs of the person do not count.

        Raises:
            FetchError: The issuer cannot be reached; a later attempt may succeed.
            CibaError: The request ended without a confirmation.
        """
        answer = self._post("token_endpoint", {"grant_type": _GRANT, "auth_req_id": request_id})
        match answer:
            case "authorization_pending" | "slow_down":
                return PollPause(answer == "slow_down")
            case "access_denied":
                raise CibaError("it was denied at the device", "denied")
            case "expired_token":
                raise CibaError("the person did not answer in time", "expired")
            case str():
                raise CibaError(f"the issuer answers {answer}")
        token = answer.get("id_token")
        if not isinstance(token, str) or len(token) > MAX_ID_TOKEN:
            raise CibaError("the answer of the token endpoint has no ID token")
        return self._confirm(token, request_id, sub, asked_at)

    def _confirm(self, token: str, request_id: str, sub: str, asked_at: float) -> Confirmation:
        settings = self._settings
        rules = IdTokenRules(
            settings.issuer, settings.client_id, settings.algorithms, settings.leeway
        )
        try:
            claims = verify_id_token(token, self._keys() or "", rules)
        except IdTokenError as error:
            raise CibaError(f"the ID token is refused: {error}") from error
        if subject_of(claims) != sub:
            raise CibaError("the ID token is refused: it is another person's")
        if claims.get(_REQUEST_CLAIM, request_id) != request_id:
            raise CibaError("the ID token is refused: it belongs to another request")
        authenticated_at = authentication_time(claims)
        if authenticated_at is None:
            raise CibaError(
                "the ID token has no `auth_time`; let the client require it (`require_auth_time`)"
            )
        # `auth_time` has whole seconds.
        if authenticated_at < math.floor(asked_at):
            raise CibaError(
                "the ID token is refused: the person's proof is older than the request; "
                "the issuer must let the person prove who they are for each request"
            )
        now = self._clock()
        if authenticated_at > now + settings.leeway:
            raise CibaError("the ID token is refused: its `auth_time` lies in the future")
        acr = claims.get("acr")
        acr = acr[:MAX_CLAIM_TEXT] if isinstance(acr, str) else ""
        if settings.acr_values and acr not in settings.acr_values:
            raise CibaError("the ID token is refused: its `acr` is not one of `acr_values`")
        return Confirmation(
            sub=sub,
            authenticated_at=min(max(authenticated_at, asked_at), now),
            acr=acr,
            claims={name: claims[name] for name in settings.claims if name in claims},
        )

    # --- the issuer's endpoints

    def _describe(self) -> dict[str, Any]:
        if self._description is not None and self._description[0] > time.monotonic():
            return self._description[1]
        settings = self._settings
        description = read_description(self._get(settings.description), settings.issuer)
        modes = description.get("backchannel_token_delivery_modes_supported")
        if isinstance(modes, list) and "poll" not in modes:
            raise FetchError("it does not support the token delivery mode `poll`")
        self._description = (time.monotonic() + _DESCRIPTION_SECONDS, description)
        return description

    def _post(self, member: str, form: dict[str, str]) -> dict[str, Any] | str:
        """Post a form to an endpoint of the issuer. Return the response, or the name of an OAuth error."""
        settings, description = self._settings, self._describe()
        endpoint = described_request(description, member, settings.description)
        defect = url_defect(endpoint.url, plain=settings.description.reach.loopback_only)
        if defect is not None:
            raise FetchError(f"its `{member}` {defect}")
        try:
            secret = read_secret(settings.client_secret_file)
        except (OSError, PrivateFileError) as error:
            raise FetchError("the node cannot read `approvals.ciba.client_secret_file`") from error
        authorization = authenticate_client(form, settings.client_id, secret, description)
        request = replace(
            endpoint,
            form=urlencode(form).encode(),
            authorization=authorization,
            accept="application/json",
            max_bytes=2 * MAX_ID_TOKEN,
            also_accepts=_OAUTH_ERRORS,
        )
        return _read_answer(self._get(request))


def _read_answer(document: Document) -> dict[str, Any] | str:
    try:
        answer = json.loads(document.text)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise CibaError(f"the issuer answers {document.status} without a JSON object")
    if document.status not in _OAUTH_ERRORS:
        return answer
    error = answer.get("error")
    if isinstance(error, str) and error.isascii() and error.replace("_", "").isalnum():
        return error[:MAX_CLAIM_TEXT]
    return "no error code"


def _read_request(answer: Mapping[str, Any]) -> AuthenticationRequest:
    request_id = answer.get("auth_req_id")
    if not isinstance(request_id, str) or not 0 < len(request_id) <= _MAX_REQUEST_ID:
        raise CibaError("the answer of the issuer has no valid `auth_req_id`")
    expires_in = _seconds(answer.get("expires_in"))
    if expires_in is None:
        raise CibaError("the answer of the issuer has no valid `expires_in`")
    interval = _seconds(answer.get("interval", _INTERVAL))
    if interval is None:
        raise CibaError("the answer of the issuer has no valid `interval`")
    return AuthenticationRequest(request_id, expires_in, min(max(interval, 1.0), _MOST_INTERVAL))


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return min(float(value), _LONGEST) if math.isfinite(value) and value > 0 else None


@dataclass(slots=True)
class _Question:
    """An approval about which the issuer asks, or will ask."""

    approval_id: str
    sub: str
    digest: bytes
    card_digest: bytes
    operation: str
    code: str
    ends_at: float
    due_at: float
    """Unix time of the next step."""
    request_id: str = ""
    """`auth_req_id`. Empty before the issuer is asked."""
    interval: float = _INTERVAL
    asked_at: float = 0.0


class CibaChannel:
    """Confirms approvals with the answers that the issuer gets from people.

    People answer approvals from before the start at the page, because an earlier run of the node has probably asked about them.

    Args:
        settings: The client.
        client: Sends requests to the issuer.
        store: Reads and answers approvals.
        references: Returns the values with which a card compares the values of a call.
        log: Receives the ends of requests.
        clock: Unix time.
        most_open: Maximum number of open requests.
        most_of_person: Maximum number of open requests of one person.
    """

    def __init__(
        self,
        settings: CibaSettings,
        client: CibaClient,
        store: ApprovalStore,
        references: Callable[[approvals_pb2.Approval], CardReferences],
        log: Log,
        *,
        clock: Callable[[], float] = time.time,
        most_open: int = _MOST_OPEN,
        most_of_person: int = _MOST_OF_PERSON,
    ) -> None:
        self._settings = settings
        self._client = client
        self._store = store
        self._references = references
        self._log = log
        self._clock = clock
        self._most_open = most_open
        self._most_of_person = most_of_person
        self._started_at = clock()
        self._lock = threading.Lock()
        self._changes: list[ApprovalChange] = []
        self._has_gap = False
        self._counts = Counter(dict.fromkeys(RESULTS, 0))
        # Only the thread uses the following members.
        self._open: dict[str, _Question] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._failures = 0
        self._rests_until = 0.0
        self._thread = PeriodicThread("ciba", self.advance, _IDLE, self._broken)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and forget open requests. They time out at the issuer."""
        self._thread.close()

    def changed(self, change: ApprovalChange | None) -> None:
        """Queue a change without blocking. `None` means that changes were lost: open approvals are then read again."""
        with self._lock:
            if change is None or len(self._changes) >= _MOST_WAITING:
                self._has_gap = True
            else:
                self._changes.append(change)
        self._thread.wake()

    def counts(self) -> Mapping[str, int]:
        """Return the number of requests by result, one of `RESULTS`."""
        with self._lock:
            return dict(self._counts)

    def open(self) -> int:
        """Return the number of open requests."""
        return len(self._open)

    def advance(self) -> float:
        """Perform the steps that are due. Return the seconds until the next step."""
        while not self._thread.is_closing:
            self._read_changes()
            if not self._open:
                break
            question = min(self._open.values(), key=lambda one: one.due_at)
            pause = max(question.due_at, self._rests_until) - self._clock()
            if pause > 0:
                return min(pause, _IDLE)
            self._step(question)
        return _IDLE

    # --- selection of approvals

    def _read_changes(self) -> None:
        with self._lock:
            changes, self._changes = self._changes, []
            has_gap, self._has_gap = self._has_gap, False
        if has_gap:
            self._read_open()
        for change in changes:
            waits = change.status == approvals_pb2.APPROVAL_STATUS_PENDING
            if not waits or _CONFIRM not in change.queues:
                self._end_elsewhere(change.approval_id)
            elif not self._is_seen(change.approval_id):
                # A deleted approval or a failing store must not delay the other approvals.
                with suppress(AuthzError):
                    self._consider(self._read(change.approval_id))

    def _read_open(self) -> None:
        request = approvals_pb2.ApprovalsListRequest(page_size=_PAGE_SIZE, queue=_CONFIRM)
        waiting = set()
        while True:
            answer = self._store.approvals_list(None, request)
            for approval in answer.approvals:
                waiting.add(approval.id)
                is_old = approval.created_at.ToMilliseconds() / 1000 < self._started_at
                if not self._is_seen(approval.id) and not is_old:
                    self._consider(approval)
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
        for approval_id in [one for one in self._open if one not in waiting]:
            self._end_elsewhere(approval_id)

    def _end_elsewhere(self, approval_id: str) -> None:
        if self._open.pop(approval_id, None) is not None:
            self._count("answered_elsewhere")

    def _is_seen(self, approval_id: str) -> bool:
        if approval_id in self._seen:
            return True
        self._seen[approval_id] = None
        if len(self._seen) > _MOST_SEEN:
            self._seen.popitem(last=False)
        return False

    def _consider(self, approval: approvals_pb2.Approval) -> None:
        """Add an approval if the issuer may ask about it."""
        now = self._clock()
        left = min(approval.expires_at.ToMilliseconds() / 1000 - now, _LONGEST)
        sub = self._person_of(approval)
        if sub is None or left < _SHORTEST:
            return
        card = self._card(approval)
        if not _is_plain(card):
            self._count("withheld")
            self._log.info(
                "an approval is left to the page: its card must be read", approval=approval.id
            )
            return
        of_person = sum(one.sub == sub for one in self._open.values())
        if len(self._open) >= self._most_open or of_person >= self._most_of_person:
            self._count("dropped")
            self._log.warning(
                "an approval is left to the page: too many requests are open at the issuer",
                approval=approval.id,
            )
            return
        self._open[approval.id] = _Question(
            approval_id=approval.id,
            sub=sub,
            digest=approval.digest,
            card_digest=card.digest,
            operation=approval.operation,
            code=card.code,
            ends_at=now + left,
            due_at=now,
        )

    def _person_of(self, approval: approvals_pb2.Approval) -> str | None:
        """Return the subject that the issuer may ask about an approval, or `None`."""
        alias, _, sub = approval.subject.partition("/")
        may_ask = (
            approval.status == approvals_pb2.APPROVAL_STATUS_PENDING
            and _CONFIRM in approval.waits_for
            and approval.tier in self._settings.tiers
            and not approval.needs_passkey
            and alias == self._settings.alias
        )
        return sub or None if may_ask else None

    def _read(self, approval_id: str) -> approvals_pb2.Approval:
        request = approvals_pb2.ApprovalsGetRequest(approval_id=approval_id)
        return self._store.approval_show(None, request).approval

    def _card(self, approval: approvals_pb2.Approval) -> Card:
        return build_card(approval, self._references(approval), self._clock())

    # --- steps of one approval

    def _step(self, question: _Question) -> None:
        try:
            if self._clock() >= question.ends_at:
                raise CibaError("the person did not answer in time", "expired")  # noqa: TRY301 - the handlers below end requests
            if question.request_id:
                self._poll(question)
            else:
                self._ask(question)
            self._failures = 0
        except FetchError as error:
            self._rest(question, error)
        except CibaError as error:
            self._end(question, error.result, str(error))
        except AuthzError as error:
            # The engine refused the answer, or the store failed. The approval is unchanged.
            self._end(question, "refused", str(error))
        except Exception:
            # Without this end, a defect would repeat at every step.
            self._end(question, "failed", "an unexpected error")
            raise

    def _ask(self, question: _Question) -> None:
        now = self._clock()
        expiry = max(1, int(question.ends_at - now))
        request = self._client.ask(question.sub, question.code, question.operation, expiry)
        question.request_id, question.interval = request.id, request.interval
        question.asked_at = now
        question.ends_at = min(question.ends_at, now + request.expires_in)
        question.due_at = self._clock() + request.interval
        self._count("asked")

    def _poll(self, question: _Question) -> None:
        answer = self._client.poll(question.request_id, question.sub, question.asked_at)
        if isinstance(answer, PollPause):
            if answer.is_too_fast:
                question.interval = min(question.interval + _INTERVAL, _MOST_INTERVAL)
            question.due_at = self._clock() + question.interval
            return
        self._resolve(question, answer)
        del self._open[question.approval_id]
        self._count("confirmed")

    def _resolve(self, question: _Question, answer: Confirmation) -> None:
        approval = self._read(question.approval_id)
        if self._person_of(approval) != question.sub:
            raise CibaError("the approval was answered elsewhere", "answered_elsewhere")
        card = self._card(approval)
        is_same = (approval.digest, card.digest) == (question.digest, question.card_digest)
        if not is_same or not _is_plain(card):
            raise CibaError("the card changed after the person was asked")
        person = Person(
            issuer=self._settings.alias,
            sub=answer.sub,
            method=AnswerMethod.LOGIN,
            authenticated_at_ms=int(answer.authenticated_at * 1000),
            claims=answer.claims,
            acr=answer.acr,
        )
        self._store.approval_resolve(
            person,
            approvals_pb2.ResolveRequest(
                approval_id=question.approval_id,
                status=approvals_pb2.APPROVAL_STATUS_APPROVED,
                digest=question.digest,
                card_digest=question.card_digest,
                queue=_CONFIRM,
            ),
        )

    def _rest(self, question: _Question, error: FetchError) -> None:
        """Stop all requests for a while, because they all go to the same issuer."""
        pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
        self._failures += 1
        self._rests_until = self._clock() + pause
        # Other requests may be due as well; this request must not always be the first.
        question.due_at = self._rests_until
        self._count("failed")
        self._log.warning(
            "the issuer of `approvals.ciba` cannot be used",
            issuer=self._settings.alias,
            reason=str(error),
            retry_in=round(pause),
        )

    def _end(self, question: _Question, result: str, reason: str) -> None:
        self._open.pop(question.approval_id, None)
        self._count(result)
        self._log.warning(
            "an approval was not confirmed by `approvals.ciba`, so it stays open",
            approval=question.approval_id,
            result=result,
            reason=reason,
        )

    def _count(self, result: str) -> None:
        with self._lock:
            self._counts[result] += 1

    def _broken(self, error: BaseException) -> None:
        self._log.error("approvals could not be confirmed by `approvals.ciba`", error=str(error))


def _is_plain(card: Card) -> bool:
    """Return whether the card shows the whole call and has no flags."""
    return card.can_be_approved and not card.flags
