"""The pages of approvals: list, card and answer, and the files that they load."""

from dataclasses import dataclass
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from authz.approvals import AnswerMethod, AnswerStatement, PasskeyAssertion, Person
from authz.approvals.card import build_card
from authz.errors import ApiError
from authz.server.http.approvals_page.live import TooManyStreamsError
from authz.server.http.approvals_page.login_pages import LoginPages
from authz.server.http.approvals_page.parts import PageParts, json_text, not_allowed
from authz.server.http.approvals_page.passkey_pages import PasskeyPages
from authz.server.http.approvals_page.protection import App, Protection
from authz.server.http.approvals_page.rendering import by_queue
from authz.server.http.approvals_page.requests import PageError, PageRequest
from authz.server.http.approvals_page.sessions import Login, LoginMethod, ShownCard
from authz_client.v1 import approvals_pb2

__all__ = ["ApprovalsPage"]

_PAGE_SIZE: Final = 100
_MAX_COMMENT: Final = 1024
_MAX_ASSERTION: Final = 32_768
_OUTCOMES: Final = {
    "approve": approvals_pb2.APPROVAL_STATUS_APPROVED,
    "endorse": approvals_pb2.APPROVAL_STATUS_APPROVED,
    "reject": approvals_pb2.APPROVAL_STATUS_REJECTED,
}


@dataclass(frozen=True, slots=True)
class _Answer:
    """A filled-in form of a card."""

    statement: AnswerStatement
    reason: str
    comment: str
    queue: str


class ApprovalsPage:
    """The approvals page.

    Args:
        parts: Parts of the page.
    """

    def __init__(self, parts: PageParts) -> None:
        self._parts = parts
        self._login_pages = LoginPages(parts)
        self._passkey_pages = PasskeyPages(parts)

    def close(self) -> None:
        """End the streams of open pages, so that the listener can stop. Any thread may call it."""
        self._parts.live.close()

    def application(self) -> App:
        """Return the ASGI application."""
        route = self._parts.route
        routes = [
            route("/", self._list, name="approvals_list"),
            route("/a/{id}", self._show, name="approvals_card"),
            route("/a/{id}", self._resolve, name="approvals_answer", method="POST"),
            route("/a/{id}/challenge", self._begin, name="approvals_answer", method="POST"),
            route("/done/{id}", self._done, name="approvals_done"),
            route("/events", self._events, name="approvals_events"),
            *self._login_pages.routes(),
            *self._passkey_pages.routes(),
            Route("/static/{name}", self._static),
        ]
        base = self._parts.settings.base
        app = Starlette(routes=[Mount(base, routes=routes)] if base else routes)
        return Protection(app, self._parts.settings.url)

    async def _list(self, request: PageRequest) -> Response:
        parts, asked = self._parts, request.raw.query_params
        listing = approvals_pb2.ApprovalsListRequest(
            page_size=_PAGE_SIZE, page_token=asked.get("page", "")[:256]
        )
        person = _person(request.session.login)
        answer = await parts.on_thread(parts.store.approvals_list, person, listing)
        return parts.page(
            "list",
            request,
            queues=by_queue(answer.approvals),
            count=len(answer.approvals),
            next_page=answer.next_page_token,
        )

    async def _show(self, request: PageRequest) -> Response:
        parts, session = self._parts, request.session
        approval = await self._read(request)
        passkeys = []
        if parts.passkeys is not None:
            login = session.login
            passkeys = await parts.on_thread(parts.passkeys.of, login.issuer, login.sub)
        is_whole = request.raw.query_params.get("whole") == "1"
        # The first card after a reload reads the recipient lists of the bundle.
        references = await parts.on_thread(parts.references, approval)
        card = await parts.on_thread(
            build_card, approval, references, parts.clock(), whole=is_whole
        )
        shown = ShownCard(approval.digest, card.digest, card.can_be_approved)
        if not request.is_live:
            # A card that the script of the page reads by itself does not count as shown to the person.
            session.note_shown(approval.id, shown)
        is_open = approval.status == approvals_pb2.APPROVAL_STATUS_PENDING
        by_passkey = approval.needs_passkey or session.login.method is LoginMethod.PASSKEY
        return parts.page(
            "card",
            request,
            approval=approval,
            card=card,
            is_open=is_open,
            can_answer=is_open and approval.answerable,
            can_approve=card.can_be_approved and not approval.cannot_be_shown,
            by_passkey=by_passkey,
            has_own_passkey=bool(passkeys),
            needs_login=not by_passkey and _is_older(session.login, approval),
            state=f"{approval.status}.{len(approval.answers)}",
        )

    async def _read(self, request: PageRequest) -> approvals_pb2.Approval:
        parts = self._parts
        get = approvals_pb2.ApprovalsGetRequest(approval_id=request.raw.path_params["id"])
        person = _person(request.session.login)
        try:
            answer = await parts.on_thread(parts.store.approval_show, person, get)
        except ApiError as error:
            if error.reason == "APPROVAL_MISMATCH":
                # An approval that the person may not see looks like a missing one.
                raise not_allowed() from error
            raise
        return answer.approval

    # --- answers

    async def _begin(self, request: PageRequest) -> Response:
        """Give the browser the options with which a passkey signs the answer of a form."""
        parts = self._parts
        if parts.passkeys is None:
            raise PageError(404, "No passkeys", "Passkeys are not configured.")
        statement = _read_answer(request).statement
        options = await parts.on_thread(parts.passkeys.begin_answer, request.session, statement)
        return json_text(options)

    async def _resolve(self, request: PageRequest) -> Response:
        parts, session = self._parts, request.session
        answer = _read_answer(request)
        assertion = await self._assertion(request, answer.statement)
        statement = answer.statement
        resolve = approvals_pb2.ResolveRequest(
            approval_id=statement.approval_id,
            status=_OUTCOMES[statement.outcome],
            digest=statement.digest,
            card_digest=statement.card_digest,
            reject_reason=answer.reason,
            comment=answer.comment,
            queue=answer.queue,
            endorse=statement.outcome == "endorse",
        )
        person = _person(session.login, assertion)
        resolved = await parts.on_thread(parts.store.approval_resolve, person, resolve)
        session.last_answer = (statement.outcome, resolved.approval)
        return parts.redirect(f"/done/{statement.approval_id}")

    async def _assertion(
        self, request: PageRequest, statement: AnswerStatement
    ) -> PasskeyAssertion | None:
        """Verify the assertion of a form. Return `None` if the person answers by login."""
        parts = self._parts
        credential = request.text("assertion", _MAX_ASSERTION)
        if credential and parts.passkeys is not None:
            finish = parts.passkeys.finish_answer
            return await parts.on_thread(finish, request.session, statement, credential)
        if request.session.login.method is LoginMethod.PASSKEY:
            raise PageError(
                403,
                "Passkey needed",
                "You logged in by passkey, so each answer needs it too. Allow scripts on this page.",
                f"/a/{statement.approval_id}",
            )
        return None

    async def _done(self, request: PageRequest) -> Response:
        last = request.session.last_answer
        if last is None or last[1].id != request.raw.path_params["id"]:
            return self._parts.redirect("/")
        outcome, approval = last
        waits = approval.status == approvals_pb2.APPROVAL_STATUS_PENDING
        return self._parts.page("done", request, outcome=outcome, approval=approval, waits=waits)

    # --- files and changes

    async def _events(self, request: PageRequest) -> Response:
        approval_id = request.raw.query_params.get("id", "")
        if approval_id and approval_id not in request.session.shown_cards:
            raise PageError(404, "Not allowed", "This approval was not shown to you.")
        try:
            return self._parts.live.stream(request.session, approval_id)
        except TooManyStreamsError:
            # Status 204 tells the browser not to connect again.
            return Response(status_code=204)

    async def _static(self, request: Request) -> Response:
        file = self._parts.renderer.static.get(request.path_params["name"])
        if file is None:
            return PlainTextResponse("no such file\n", 404)
        headers = {"cache-control": "public, max-age=31536000, immutable"}
        return Response(file.content, media_type=file.media_type, headers=headers)


def _read_answer(request: PageRequest) -> _Answer:
    """Read the form of a card. Refuse it unless it belongs to the card that this session was shown last."""
    approval_id: str = request.raw.path_params["id"]
    again = f"/a/{approval_id}"
    outcome = request.text("outcome")
    if outcome not in _OUTCOMES:
        raise PageError(400, "No answer", "Choose Approve or Reject.", again)
    shown = request.session.shown_cards.get(approval_id)
    given = (request.text("digest"), request.text("card_digest"))
    if shown is None or given != (shown.digest.hex(), shown.card_digest.hex()):
        raise PageError(
            409,
            "The card has changed",
            "The call or its card has changed since you read it. Read the card again, then answer.",
            again,
        )
    if outcome != "reject" and not shown.can_be_approved:
        raise PageError(
            409,
            "Not shown in full",
            "Parts of this call were not shown. Open the whole view before you approve.",
            f"{again}?whole=1",
        )
    reason = request.text("reason")
    if outcome == "reject" and not reason:
        raise PageError(400, "No reason", "Choose a reason for the rejection.", again)
    return _Answer(
        AnswerStatement(approval_id, outcome, shown.digest, shown.card_digest),
        reason if outcome == "reject" else "",
        request.text("comment", _MAX_COMMENT),
        request.text("queue"),
    )


def _person(login: Login, assertion: PasskeyAssertion | None = None) -> Person:
    return Person(
        issuer=login.issuer,
        sub=login.sub,
        method=AnswerMethod.LOGIN if assertion is None else AnswerMethod.PASSKEY,
        authenticated_at_ms=login.authenticated_at_ms,
        claims=login.claims,
        acr=login.acr,
        passkey=assertion,
    )


def _is_older(login: Login, approval: approvals_pb2.Approval) -> bool:
    # Issuers state the time of a login in whole seconds.
    return login.authenticated_at_ms // 1000 < approval.created_at.seconds
