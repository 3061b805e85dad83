"""Requests of the page: forms, cookies, paths, and errors for people."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from authz.server.http.approvals_page.sessions import Session

__all__ = ["Cookies", "PageError", "PageRequest", "is_live", "own_path", "read_form"]

_OWN_PATH: Final = re.compile(r"/(?:a/[0-9A-Za-z_-]{1,128}(?:\?whole=1)?|passkeys)?")
_FORM: Final = "application/x-www-form-urlencoded"
_MAX_FIELDS: Final = 16


class PageError(Exception):
    """A request is refused.

    Args:
        status: HTTP status.
        title: Heading of the page.
        text: Cause and fix, in one or two sentences.
        again: Path of the link on the error page.
    """

    def __init__(self, status: int, title: str, text: str, again: str = "/") -> None:
        super().__init__(text)
        self.status = status
        self.title = title
        self.text = text
        self.again = again


@dataclass(slots=True)
class PageRequest:
    """A request whose session and form were checked."""

    raw: Request
    """The request."""
    signed_in: Session | None
    """The session of the browser. `None` if nobody is logged in."""
    form: Mapping[str, str] = field(default_factory=dict)
    """Fields of the form. Empty if the request has no form."""

    @property
    def session(self) -> Session:
        """The session. Only handlers that need a login read it."""
        if self.signed_in is None:
            raise PageError(401, "Log in", "Log in first.")
        return self.signed_in

    @property
    def is_live(self) -> bool:
        """True if the script of the page sent the request by itself, to show changes."""
        return is_live(self.raw)

    @property
    def wants_json(self) -> bool:
        """True if the script of the page sent the request."""
        return self.raw.headers.get("accept") == "application/json"

    def text(self, name: str, most: int = 256) -> str:
        """Return a field of the form, or an empty string if it is missing. Raise PageError if it is too long."""
        value = self.form.get(name, "")
        if len(value.encode(errors="replace")) > most:
            raise PageError(400, "Too long", f"`{name}` has more than {most:,} bytes.")
        return value


def is_live(request: Request) -> bool:
    """Return whether the script of the page sent a request by itself, to show changes."""
    kind = request.headers.get("accept", "")
    return "x-authz-live" in request.headers or kind == "text/event-stream"


def own_path(path: str | None) -> str:
    """Return a path that a link may open, or the path of the list if the text is not such a path."""
    return path if path is not None and _OWN_PATH.fullmatch(path) else "/"


async def read_form(request: Request, max_bytes: int, timeout: float) -> dict[str, str]:  # noqa: ASYNC109 - one deadline for all chunks
    """Read a form.

    Raises:
        PageError: The body is not a form, is too large, or does not arrive in time.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM:
        raise PageError(415, "Not a form", "The request is not a form.")
    body = bytearray()
    try:
        async with asyncio.timeout(timeout):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise PageError(413, "Too large", "The form is too large.")
    except TimeoutError as error:
        raise PageError(408, "Too slow", "The form did not arrive in time.") from error
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict"
        )
    except ValueError as error:
        raise PageError(400, "Not a form", "The form is not valid.") from error
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise PageError(400, "Not a form", "The form has a field twice.")
    return fields


class Cookies:
    """Cookies of the page. Over https their names have the prefix `__Host-`, so that no other host can set them (RFC 6265bis §4.1.3.2).

    Args:
        is_secure: Whether the page is served over https.
    """

    def __init__(self, *, is_secure: bool) -> None:
        prefix = "__Host-" if is_secure else ""
        self._is_secure = is_secure
        self._session = f"{prefix}authz-session"
        self._flow = f"{prefix}authz-login"

    def session(self, request: Request) -> str | None:
        """Return the value of the session's cookie."""
        return request.cookies.get(self._session)

    def flow(self, request: Request) -> str | None:
        """Return the value of the cookie of an open login."""
        return request.cookies.get(self._flow)

    def set_session(self, response: Response, value: str) -> None:
        """Set the cookie of the session. It ends with the browser, unless the node ends the session earlier."""
        self._set(response, self._session, value, None)

    def set_flow(self, response: Response, value: str, seconds: int) -> None:
        """Set the cookie of an open login."""
        self._set(response, self._flow, value, seconds)

    def drop_session(self, response: Response) -> None:
        """Remove the session's cookie."""
        self._set(response, self._session, "", 0)

    def drop_flow(self, response: Response) -> None:
        """Remove the cookie of an open login."""
        self._set(response, self._flow, "", 0)

    def _set(self, response: Response, name: str, value: str, seconds: int | None) -> None:
        # `Lax`, because people follow links in mail, in chat and from the issuer. Other sites cannot post with the cookie.
        response.set_cookie(
            name,
            value,
            max_age=seconds,
            path="/",
            secure=self._is_secure,
            httponly=True,
            samesite="lax",
        )
