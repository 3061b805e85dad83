"""Protects the page: sets headers of every response, and refuses requests that another site sent."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

__all__ = ["Protection", "origin_of"]

_POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
# With `no-referrer`, browsers send `Origin: null` with forms (Fetch §3.2), so that forged forms would look like real ones.
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "publickey-credentials-get=(self), publickey-credentials-create=(self)",
}
_SAFE: Final = frozenset({"GET", "HEAD"})

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def origin_of(url: str) -> str:
    """Return the origin of a URL as browsers write it (RFC 6454 §6.2)."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    default = {"https": 443, "http": 80}.get(parts.scheme)
    port = "" if parts.port in {None, default} else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


class Protection:
    """ASGI middleware.

    Args:
        app: The application.
        url: Public base URL of the page.
    """

    def __init__(self, app: App, url: str) -> None:
        self._app = app
        self._origin = origin_of(url)
        self._headers: Mapping[str, str] = dict(_HEADERS)
        if url.startswith("https:"):
            self._headers = {**_HEADERS, "strict-transport-security": "max-age=31536000"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def protected_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        if scope["method"] not in _SAFE and not self._is_own(Headers(scope=scope)):
            refusal = PlainTextResponse(
                "This request was not sent by the page itself. Is `approvals.url` the address in your browser?\n",
                status_code=403,
            )
            await refusal(scope, receive, protected_send)
            return
        await self._app(scope, receive, protected_send)

    def _is_own(self, headers: Headers) -> bool:
        """Return whether the page itself sent a request. All browsers that have passkeys send both headers."""
        origins = headers.getlist("origin")
        sites = headers.getlist("sec-fetch-site")
        return origins == [self._origin] and sites in ([], ["same-origin"])
