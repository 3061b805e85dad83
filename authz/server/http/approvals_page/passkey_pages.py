"""The pages of passkeys: list, add, rename and remove, and the page of an invitation."""

import hashlib
from typing import Final

from starlette.responses import Response
from starlette.routing import Route

from authz.server.http.approvals_page.parts import Handler, PageParts, as_json, json_text
from authz.server.http.approvals_page.passkeys import Passkeys
from authz.server.http.approvals_page.requests import PageError, PageRequest

__all__ = ["PasskeyPages"]

_MAX_CREDENTIAL: Final = 65_536
_ENDED: Final = "This invitation was used or has ended. Ask for a new one."


class PasskeyPages:
    """Handlers of the passkeys of the logged-in person, and of the first passkey of an invited person.

    Args:
        parts: Parts of the page.
    """

    def __init__(self, parts: PageParts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        """Return the routes. The list is empty if passkeys are not configured."""
        if self._parts.passkeys is None:
            return []
        route = self._parts.route

        def post(path: str, handle: Handler, *, needs_login: bool = True) -> Route:
            return route(
                path, handle, name="approvals_passkeys", method="POST", needs_login=needs_login
            )

        return [
            route("/passkeys", self._list, name="approvals_passkeys"),
            post("/passkeys/options", self._options),
            post("/passkeys/add", self._add),
            post("/passkeys/rename", self._rename),
            post("/passkeys/remove", self._remove),
            route("/invite", self._invited, name="approvals_invite", needs_login=False),
            post("/invite/options", self._invite_options, needs_login=False),
            post("/invite/add", self._invite_add, needs_login=False),
        ]

    async def _list(self, request: PageRequest) -> Response:
        parts, session = self._parts, request.session
        login = session.login
        passkeys = await parts.on_thread(self._passkeys().of, login.issuer, login.sub)
        return parts.page(
            "passkeys",
            request,
            passkeys=passkeys,
            is_fresh=parts.is_fresh(session),
            is_local=self._passkeys().is_local(login.issuer),
        )

    async def _options(self, request: PageRequest) -> Response:
        self._need_fresh(request)
        begin = self._passkeys().begin_registration
        return json_text(await self._parts.on_thread(begin, request.session))

    async def _add(self, request: PageRequest) -> Response:
        self._need_fresh(request)
        credential = request.text("credential", _MAX_CREDENTIAL)
        name = request.text("name")
        finish = self._passkeys().finish_registration
        await self._parts.on_thread(finish, request.session, credential, name)
        self._parts.log.info("a person added a passkey", person=request.session.login.person)
        return as_json({"to": f"{self._parts.settings.base}/passkeys"})

    async def _rename(self, request: PageRequest) -> Response:
        login = request.session.login
        rename = self._passkeys().rename
        await self._parts.on_thread(
            rename, login.issuer, login.sub, request.text("id", 2048), request.text("name")
        )
        return self._parts.redirect("/passkeys")

    async def _remove(self, request: PageRequest) -> Response:
        self._need_fresh(request)
        parts, login = self._parts, request.session.login
        remove = self._passkeys().remove
        await parts.on_thread(remove, login.issuer, login.sub, request.text("id", 2048))
        parts.log.info("a person removed a passkey", person=login.person)
        # Another person may hold a browser with a session of this person.
        parts.sessions.close_all_of(login.person, but=request.session)
        return parts.redirect("/passkeys")

    # --- invitations

    async def _invited(self, request: PageRequest) -> Response:
        # The secret stands behind `#`. Browsers do not send this part; the script of the page posts it.
        return self._parts.page("invite", request)

    async def _invite_options(self, request: PageRequest) -> Response:
        parts, secret = self._parts, request.text("secret")
        invitation = parts.invitations.find(secret)
        if invitation is None:
            raise PageError(404, "No invitation", _ENDED)
        options = await parts.on_thread(
            self._passkeys().registration_options,
            invitation.issuer,
            invitation.sub,
            invitation.sub,
            _invitation_challenge(secret),
        )
        return json_text(options)

    async def _invite_add(self, request: PageRequest) -> Response:
        parts, secret = self._parts, request.text("secret")
        invitation = parts.invitations.use(secret)
        if invitation is None:
            raise PageError(404, "No invitation", _ENDED)
        await parts.on_thread(
            self._passkeys().register,
            invitation.issuer,
            invitation.sub,
            request.text("credential", _MAX_CREDENTIAL),
            "First passkey",
            _invitation_challenge(secret),
        )
        person = f"{invitation.issuer}/{invitation.sub}"
        parts.log.info("an invited person added a passkey", person=person)
        return as_json({"to": f"{parts.settings.base}/login"})

    # ---

    def _passkeys(self) -> Passkeys:
        if self._parts.passkeys is None:
            raise PageError(404, "No passkeys", "Passkeys are not configured.")
        return self._parts.passkeys

    def _need_fresh(self, request: PageRequest) -> None:
        if not self._parts.is_fresh(request.session):
            raise PageError(
                403,
                "Log in again",
                "Passkeys are added and removed within 5 minutes of a login. Log in again.",
                "/passkeys",
            )


def _invitation_challenge(secret: str) -> bytes:
    """Return the challenge of an invitation. Like the invitation, it can be used once."""
    return hashlib.sha256(b"authz invitation 1" + secret.encode()).digest()
