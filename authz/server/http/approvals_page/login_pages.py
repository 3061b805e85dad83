"""The pages of login and logout."""

import json
from collections.abc import Mapping
from typing import Any, Final

from cryptography.fernet import InvalidToken
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from authz.server.http.approvals_page.openid import LoginError, LoginFlow
from authz.server.http.approvals_page.parts import PageParts, as_json, json_text
from authz.server.http.approvals_page.passkeys import Passkeys
from authz.server.http.approvals_page.requests import PageError, PageRequest, own_path
from authz.server.http.approvals_page.sessions import Login, LoginMethod

__all__ = ["LoginPages"]

_FLOW_SECONDS: Final = 600
_MAX_ASSERTION: Final = 32_768
_MAX_ANSWER: Final = 8192


class LoginPages:
    """Login at the issuer, login by passkey, and logout.

    Args:
        parts: Parts of the page.
    """

    def __init__(self, parts: PageParts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        """Return the routes."""
        route = self._parts.route
        routes = [
            route("/login", self._choose, name="approvals_login", needs_login=False),
            route("/logout", self._logout, name="approvals_logout", method="POST"),
            route("/logged-out", self._logged_out, name="approvals_logout", needs_login=False),
        ]
        if self._parts.openid is not None:
            routes += [
                route("/login/start", self._start, name="approvals_login", needs_login=False),
                route("/login/callback", self._callback, name="approvals_login", needs_login=False),
            ]
        if self._parts.passkeys is not None:
            for path, handle in (
                ("/login/passkey/options", self._passkey_options),
                ("/login/passkey", self._passkey),
            ):
                routes.append(
                    route(path, handle, name="approvals_login", method="POST", needs_login=False)
                )
        return routes

    async def _choose(self, request: PageRequest) -> Response:
        """Let the person choose how to log in. If only one way is configured, begin it at once."""
        parts, path = self._parts, own_path(request.raw.query_params.get("to"))
        if parts.passkeys is None and parts.openid is not None:
            return await self._start(request)
        issuer = parts.openid.alias if parts.openid is not None else ""
        return parts.page("login", request, to=path, issuer=issuer)

    # --- at the issuer

    async def _start(self, request: PageRequest) -> Response:
        parts, query = self._parts, request.raw.query_params
        if parts.openid is None:
            raise PageError(404, "No login", "No login at an issuer is configured.")
        path, anew = own_path(query.get("to")), query.get("anew") == "1"
        url, flow = await parts.on_login_thread(parts.openid.begin, path, anew=anew)
        response = RedirectResponse(url, 303)
        self._set_flow(response, flow.encode())
        return response

    async def _callback(self, request: PageRequest) -> Response:
        parts = self._parts
        if parts.openid is None:
            raise PageError(404, "No login", "No login at an issuer is configured.")
        if len(request.raw.url.query) > _MAX_ANSWER:
            raise LoginError("The answer of the issuer is too long.")
        flow = LoginFlow.decode(self._read_flow(request))
        answer = _single_values(request)
        login = await parts.on_login_thread(parts.openid.finish, flow, answer)
        return self._log_in(request, login, parts.redirect(flow.path))

    # --- by passkey

    async def _passkey_options(self, request: PageRequest) -> Response:
        options, challenge = self._passkeys().begin_login()
        response = json_text(options)
        flow = {"challenge": challenge.hex(), "path": own_path(request.form.get("to"))}
        self._set_flow(response, json.dumps(flow).encode())
        return response

    async def _passkey(self, request: PageRequest) -> Response:
        parts, flow = self._parts, json.loads(self._read_flow(request))
        if "challenge" not in flow:
            raise LoginError("This answer belongs to another login. Begin again.")
        credential = request.text("assertion", _MAX_ASSERTION)
        challenge = bytes.fromhex(flow["challenge"])
        finish = self._passkeys().finish_login
        issuer, sub = await parts.on_login_thread(finish, challenge, credential)
        login = Login(issuer, sub, LoginMethod.PASSKEY, int(parts.clock() * 1000))
        return self._log_in(request, login, as_json({"to": parts.settings.base + flow["path"]}))

    def _passkeys(self) -> Passkeys:
        if self._parts.passkeys is None:
            raise PageError(404, "No passkeys", "Passkeys are not configured.")
        return self._parts.passkeys

    # ---

    def _log_in(self, request: PageRequest, login: Login, response: Response) -> Response:
        """Open a new session and end the old one, which an attacker could have planted in the browser."""
        parts = self._parts
        parts.sessions.close(parts.cookies.session(request.raw))
        cookie, _ = parts.sessions.open(login)
        parts.cookies.set_session(response, cookie)
        parts.cookies.drop_flow(response)
        parts.log.info("a person logged in", person=login.person, method=login.method.value)
        return response

    async def _logout(self, request: PageRequest) -> Response:
        parts = self._parts
        parts.sessions.close(parts.cookies.session(request.raw))
        response = parts.redirect("/logged-out")
        parts.cookies.drop_session(response)
        return response

    async def _logged_out(self, request: PageRequest) -> Response:
        return self._parts.page("logged_out", request)

    def _set_flow(self, response: Response, flow: bytes) -> None:
        text = self._parts.cipher.encrypt(flow).decode()
        self._parts.cookies.set_flow(response, text, _FLOW_SECONDS)

    def _read_flow(self, request: PageRequest) -> bytes:
        cookie = self._parts.cookies.flow(request.raw) or ""
        try:
            return self._parts.cipher.decrypt(cookie.encode(errors="replace"), ttl=_FLOW_SECONDS)
        except InvalidToken as error:
            raise PageError(
                400,
                "Log in again",
                "This login was begun in another browser or by another node, or took longer than 10 minutes.",
            ) from error


def _single_values(request: PageRequest) -> Mapping[str, str]:
    pairs: list[tuple[str, Any]] = request.raw.query_params.multi_items()
    answer = dict(pairs)
    if len(answer) != len(pairs):
        raise LoginError("The answer of the issuer has a parameter twice.")
    return answer
