"""The parts that all handlers share, and the steps of a request around a handler."""

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from cryptography.fernet import Fernet
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from authz.approvals import ApprovalStore, Invitations
from authz.approvals.card import CardReferences
from authz.errors import ApiError, AuthzError, GrpcCode
from authz.server.http.approvals_page.live import LiveChanges
from authz.server.http.approvals_page.openid import LoginError, OpenIdClient
from authz.server.http.approvals_page.passkeys import PasskeyError, Passkeys
from authz.server.http.approvals_page.rendering import Renderer
from authz.server.http.approvals_page.requests import (
    Cookies,
    PageError,
    PageRequest,
    is_live,
    own_path,
    read_form,
)
from authz.server.http.approvals_page.sessions import Session, Sessions
from authz.telemetry import Logger
from authz_client.v1 import approvals_pb2

__all__ = [
    "FRESH_SECONDS",
    "Handler",
    "PageParts",
    "PageSettings",
    "as_json",
    "json_text",
    "not_allowed",
]

FRESH_SECONDS: Final = 300.0
"""Longest time between a login and a change of passkeys, in seconds."""
_STORE_THREADS: Final = 8
# Anybody can begin a login, and an issuer may be slow, so logins have threads of their own: they must not delay logged-in people.
_LOGIN_THREADS: Final = 4
_BUSY: Final = frozenset(
    {GrpcCode.RESOURCE_EXHAUSTED, GrpcCode.UNAVAILABLE, GrpcCode.DEADLINE_EXCEEDED}
)
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

Handler = Callable[[PageRequest], Awaitable[Response]]
"""Handler of a request whose session and form were checked."""


@dataclass(frozen=True, slots=True)
class PageSettings:
    """Settings of the page."""

    url: str
    """Public base URL, without a slash at its end."""
    base: str
    """Path of `url`, without a slash at its end."""
    max_body: int = 262_144
    """Largest size of a form, in bytes."""
    timeout: float = 5.0
    """Longest time for a form to arrive, in seconds."""


@dataclass(slots=True)
class PageParts:
    """The parts of the page."""

    settings: PageSettings
    store: ApprovalStore
    sessions: Sessions
    live: LiveChanges
    renderer: Renderer
    cookies: Cookies
    invitations: Invitations
    openid: OpenIdClient | None
    """Logs people in at their issuer. `None` if not configured."""
    passkeys: Passkeys | None
    """Passkeys. `None` if not configured."""
    counted: Callable[[str, int], None]
    """Called with the name of the handler and the HTTP status of each response."""
    failed: Callable[[BaseException], None]
    """Receives every unexpected exception."""
    log: Logger
    """Receives logins, and changes of passkeys."""
    references: Callable[[approvals_pb2.Approval], CardReferences] = lambda _: CardReferences()
    """Returns the values with which a card compares the values of a call."""
    clock: Callable[[], float] = time.time
    """Unix time."""
    cipher: Fernet = field(default_factory=lambda: Fernet(Fernet.generate_key()))
    """Encrypts the state of open logins."""
    _store_limiter: CapacityLimiter | None = None
    _login_limiter: CapacityLimiter | None = None

    async def on_thread(
        self,
        work: Callable[_Arguments, _Result],
        *arguments: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> _Result:
        """Run a blocking function on a thread."""
        if self._store_limiter is None:
            self._store_limiter = CapacityLimiter(_STORE_THREADS)
        call = partial(work, *arguments, **named)
        return await to_thread.run_sync(call, limiter=self._store_limiter)

    async def on_login_thread(
        self,
        work: Callable[_Arguments, _Result],
        *arguments: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> _Result:
        """Run a blocking function of a login on a thread of the pool for logins."""
        if self._login_limiter is None:
            self._login_limiter = CapacityLimiter(_LOGIN_THREADS)
        call = partial(work, *arguments, **named)
        return await to_thread.run_sync(call, limiter=self._login_limiter)

    def is_fresh(self, session: Session) -> bool:
        """Return whether a session's login is recent enough to change passkeys."""
        age = self.clock() - session.login.authenticated_at_ms / 1000
        return age <= FRESH_SECONDS

    def page(
        self, template: str, request: PageRequest, status: int = 200, **context: Any
    ) -> Response:
        """Render a template with the variables that every page has."""
        session = request.signed_in
        common = {
            "session": session,
            "csrf": session.csrf_token if session is not None else "",
            "has_passkeys": self.passkeys is not None,
            "path": request.raw.url.path,
        }
        return self.renderer.page(template, {**common, **context}, status)

    def redirect(self, path: str) -> Response:
        """Send the browser to a path of the page, by GET."""
        return RedirectResponse(self.settings.base + path, 303)

    def route(
        self,
        path: str,
        handle: Handler,
        *,
        name: str,
        method: str = "GET",
        needs_login: bool = True,
    ) -> Route:
        """Return the route of a handler.

        Args:
            path: Path below the base.
            handle: The handler.
            name: Name in metrics.
            method: HTTP method.
            needs_login: Whether the handler needs a session. Without one, the person must log in. Forms must have the token of the session.
        """

        async def endpoint(raw: Request) -> Response:
            session = self.sessions.find(self.cookies.session(raw), is_use=not is_live(raw))
            request = PageRequest(raw, session)
            try:
                response = await self._answer(request, handle, needs_login=needs_login)
            except ClientDisconnect:
                response = Response(status_code=400)
            except BaseException as unexpected:
                if isinstance(unexpected, (asyncio.CancelledError, KeyboardInterrupt, SystemExit)):
                    raise
                self.failed(unexpected)
                text = "An unexpected error occurred. The log of the node has the details."
                response = self._refuse(request, PageError(500, "Error", text))
            self.counted(name, response.status_code)
            return response

        return Route(path, endpoint, methods=[method], name=name)

    async def _answer(
        self, request: PageRequest, handle: Handler, *, needs_login: bool
    ) -> Response:
        try:
            is_form = request.raw.method == "POST"
            if needs_login and request.signed_in is None:
                if is_form:
                    ended = PageError(401, "Log in again", "Your session has ended.", "/login")
                    return self._refuse(request, ended)
                return self.redirect(f"/login?to={_path_below(request.raw, self.settings.base)}")
            if is_form:
                limits = self.settings
                request.form = await read_form(request.raw, limits.max_body, limits.timeout)
                if needs_login:
                    _check_token(request)
            return await handle(request)
        except PageError as error:
            return self._refuse(request, error)
        except (LoginError, PasskeyError) as error:
            return self._refuse(request, PageError(403, "Refused", str(error)))
        except AuthzError as error:
            return self._refuse(request, _refusal_of(error))

    def _refuse(self, request: PageRequest, error: PageError) -> Response:
        if request.wants_json:
            return JSONResponse({"error": error.text}, error.status)
        return self.page(
            "error", request, error.status, title=error.title, text=error.text, again=error.again
        )


def json_text(text: str) -> Response:
    """Answer the script of the page with JSON."""
    return Response(text, media_type="application/json")


def _path_below(raw: Request, base: str) -> str:
    path = raw.url.path.removeprefix(base)
    return own_path(f"{path}?{raw.url.query}" if raw.url.query else path)


def _check_token(request: PageRequest) -> None:
    given = request.form.get("csrf", "").encode(errors="replace")
    if not secrets.compare_digest(given, request.session.csrf_token.encode()):
        raise PageError(403, "Old page", "This page is of an earlier session. Load it again.")


def not_allowed() -> PageError:
    """Return the error for an approval that does not exist or that the person may not see. Both look the same."""
    return PageError(404, "Not allowed", "There is no such approval, or you may not answer it.")


def _refusal_of(error: AuthzError) -> PageError:
    """Return the page of an error of the engine."""
    code = error.grpc_code
    if code in {GrpcCode.NOT_FOUND, GrpcCode.PERMISSION_DENIED}:
        return not_allowed()
    if isinstance(error, ApiError) and code not in _BUSY:
        return PageError(409, "Not possible", f"{error}.".replace("..", "."))
    return PageError(503, "Busy", "The node cannot answer now. Try again in a moment.")


def as_json(value: object) -> Response:
    """Answer the script of the page with a value."""
    return json_text(json.dumps(value))
