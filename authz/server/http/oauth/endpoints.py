"""The endpoints: a request is read, its client authenticated, and the answer of the issuer written."""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from authz.errors import ApiError, AuthzError
from authz.model import CallFacts
from authz.server.http.endpoints import Endpoint
from authz.server.http.oauth.clients import ClientAuthenticator, OAuthClient
from authz.server.http.oauth.defects import CREDENTIAL_DEFECTS, Defect, OAuthError
from authz.server.http.oauth.forms import ACCESS_TOKEN, parse_form, read_exchange, required
from authz.server.http.oauth.metadata import OAuthUrls, server_metadata
from authz.server.http.server import CLIENT_CHAIN

__all__ = ["IssuerCalls", "OAuthApp", "OAuthSettings", "PublishedKeys"]

_THREADS: Final = 8
_FORM: Final = "application/x-www-form-urlencoded"
_NO_STORE: Final = {"cache-control": "no-store", "pragma": "no-cache"}
_RETRY: Final = {"retry-after": "1"}
# The agent gets the public row of the reason code; the code itself is only in the audit.
_TASKS: Final = frozenset(
    {
        "REVOKED",
        "UNKNOWN_TASK",
        "TASK_ENDED",
        "NOT_ASSIGNEE",
        "TASK_CONFLICT",
        "NO_TASK",
        "TOO_DEEP",
    }
)
_CLIENT: Final = frozenset({"ENFORCER_REFUSED", "CHAIN_NOT_PERMITTED"})
_BUSY: Final = frozenset(
    {"UNAVAILABLE", "STATE_UNAVAILABLE", "STORE_SLOW", "DEADLINE", "OVERLOADED", "AUDIT_FULL"}
)


class PublishedKeys(Protocol):
    """The keys by which others verify credentials."""

    @property
    def max_age(self) -> int:
        """Seconds that others may cache the keys."""

    def jwks(self) -> str:
        """Return them as a JWKS (RFC 7517 §5)."""


class IssuerCalls(Protocol):
    """Issues, inspects and revokes credentials."""

    def exchange(self, request: Mapping[str, Any], facts: CallFacts) -> Mapping[str, Any]:
        """Exchange tokens for a credential; return its `token` and claims."""

    def introspect(self, client: OAuthClient, token: str, facts: CallFacts) -> Mapping[str, Any]:
        """Return whether a credential is active, and its claims."""

    def revoke(self, client: OAuthClient, token: str, facts: CallFacts) -> None:
        """Revoke a credential."""


@dataclass(frozen=True, slots=True)
class OAuthSettings:
    """Limits of the endpoints."""

    mutual: bool
    """Clients may show a certificate."""
    max_body: int
    """Most bytes of a body."""
    timeout: float
    """Seconds that a body may take to arrive."""
    deadline: float
    """Seconds that an answer may take."""


class OAuthApp:
    """The endpoints of one issuer.

    Args:
        urls: URLs of the endpoints.
        clients: Authenticates callers.
        keys: The keys that are published.
        issuer: Issues, inspects and revokes.
        settings: Limits.
        public: Public members of each reason code: `public_code`, `next_action`, `retry`, `public_message`.
        counted: Called with endpoint and status of each answer.
        failed: Receives every unexpected exception.
    """

    def __init__(
        self,
        urls: OAuthUrls,
        clients: ClientAuthenticator,
        keys: PublishedKeys,
        issuer: IssuerCalls,
        settings: OAuthSettings,
        *,
        public: Mapping[str, Mapping[str, str]],
        counted: Callable[[str, int], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._urls = urls
        self._clients = clients
        self._keys = keys
        self._issuer = issuer
        self._public = public
        self._described = json.dumps(server_metadata(urls, mutual=settings.mutual)).encode()
        self._settings = settings
        self._counted = counted
        self._failed = failed
        self._limiter: CapacityLimiter | None = None

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return each endpoint."""
        urls = self._urls

        def form(
            url: str, name: str, answer: Callable[[dict[str, str], OAuthClient, Request], Response]
        ) -> Endpoint:
            return Endpoint(urlsplit(url).path, self._form(name, answer), "POST")

        def read(url: str, name: str, answer: Callable[[], Response]) -> Endpoint:
            return Endpoint(urlsplit(url).path, self._read(name, answer))

        return (
            read(urls.metadata, "metadata", self._metadata),
            read(urls.jwks, "jwks", self._jwks),
            form(urls.token, "token", self._token),
            form(urls.introspection, "introspect", self._introspect),
            form(urls.revocation, "revoke", self._revoke),
        )

    # --- for everybody

    def _read(
        self, name: str, answer: Callable[[], Response]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def handle(_request: Request) -> Response:
            response = answer()
            self._counted(name, response.status_code)
            return response

        return handle

    def _metadata(self) -> Response:
        headers = {"cache-control": f"public, max-age={max(self._keys.max_age, 60)}"}
        return Response(self._described, media_type="application/json", headers=headers)

    def _jwks(self) -> Response:
        age = self._keys.max_age
        # An empty JWKS is not cached: the first key signs at once.
        cache_control = f"public, max-age={age}" if age else "no-store"
        return Response(
            self._keys.jwks(),
            media_type="application/jwk-set+json",
            headers={"cache-control": cache_control},
        )

    # --- for clients

    def _form(
        self, name: str, answer: Callable[[dict[str, str], OAuthClient, Request], Response]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Read a form, authenticate its client, and answer on a thread: the engine waits for the disk."""

        def answered(form: dict[str, str], request: Request) -> Response:
            chain = request.scope.get("extensions", {}).get("tls", {}).get(CLIENT_CHAIN, ())
            client = self._clients.authenticate(form, _one(request, "authorization"), chain)
            return answer(form, client, request)

        async def handle(request: Request) -> Response:
            if self._limiter is None:
                self._limiter = CapacityLimiter(_THREADS)
            try:
                form = parse_form(await self._body(request))
                response = await to_thread.run_sync(answered, form, request, limiter=self._limiter)
            except OAuthError as refusal:
                response = _refusal(refusal)
            except AuthzError as error:
                response = _refusal(self._refused(error))
            except ClientDisconnect:
                response = Response(status_code=400)
            except BaseException as unexpected:
                if isinstance(unexpected, (asyncio.CancelledError, KeyboardInterrupt, SystemExit)):
                    raise
                self._failed(unexpected)
                response = _refusal(Defect.INTERNAL.error(headers=_RETRY))
            self._counted(name, response.status_code)
            return response

        return handle

    async def _body(self, request: Request) -> bytes:
        kind = _one(request, "content-type") or ""
        if kind.partition(";")[0].strip().lower() != _FORM:
            raise Defect.NO_FORM.error()
        length = _one(request, "content-length")
        too_large = Defect.LARGE_BODY.error()
        if length is not None and (not length.isdecimal() or int(length) > self._settings.max_body):
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._settings.timeout):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self._settings.max_body:
                        raise too_large
        except TimeoutError as error:
            raise Defect.LATE_BODY.error(headers={"connection": "close"}) from error
        return bytes(body)

    def _facts(self, request: Request, client: OAuthClient) -> CallFacts:
        pem = [ssl.DER_cert_to_PEM_cert(certificate).encode() for certificate in client.chain]
        peer = request.client
        return CallFacts(
            "http",
            self._settings.deadline,
            _one(request, "traceparent"),
            peer=f"{peer.host}:{peer.port}" if peer is not None else None,
            tracestate=_one(request, "tracestate"),
            certificate=pem[0] if pem else None,
            intermediates=b"".join(pem[1:]) or None,
        )

    def _token(self, form: dict[str, str], client: OAuthClient, request: Request) -> Response:
        exchange = read_exchange(form, client)
        proofs = request.headers.getlist("dpop")
        if len(proofs) > 1:
            raise Defect.TWO_PROOFS.error()
        exchange["proof"] = proofs[0] if proofs else None
        exchange["http_uri"] = self._urls.token
        issued = self._issuer.exchange(exchange, self._facts(request, client))
        claims = issued["claims"]
        answer = {
            "access_token": issued["token"],
            "issued_token_type": form.get("requested_token_type", ACCESS_TOKEN),
            "token_type": issued["token_type"],
            "expires_in": max(0, int(claims["exp"]) - int(claims["iat"])),
            "authorization_details": claims["authorization_details"],
            "task": claims["task"],
        }
        nonce = issued.get("dpop_nonce")
        return _json(answer, headers={"dpop-nonce": nonce} if nonce else {})

    def _introspect(self, form: dict[str, str], client: OAuthClient, request: Request) -> Response:
        token = required(form, "token")
        state = self._issuer.introspect(client, token, self._facts(request, client))
        # An inactive credential has no other members, not even a reason (RFC 7662 §2.2).
        return _json(state if state.get("active") is True else {"active": False})

    def _revoke(self, form: dict[str, str], client: OAuthClient, request: Request) -> Response:
        self._issuer.revoke(client, required(form, "token"), self._facts(request, client))
        return Response(status_code=200, headers=_NO_STORE)

    # --- refusals

    def _refused(self, error: AuthzError) -> OAuthError:
        """Return a refusal of the engine in the form of OAuth: an error of the client's request by its text, a denial by its public row."""
        reason = error.reason
        if not isinstance(error, ApiError) or reason in _BUSY:
            return Defect.BUSY.error(headers=_RETRY)
        if error.dpop_nonce:
            return Defect.NONCE_NEEDED.error(headers={"dpop-nonce": error.dpop_nonce})
        public = dict(self._public.get(reason, {"public_code": "DENIED"}))
        message = public.pop("public_message", "Refused.")
        defect = CREDENTIAL_DEFECTS.get(reason)
        if reason == "WRONG_AUDIENCE":
            # In the step `identify` a token has the wrong audience, later the parameter has.
            defect = Defect.TOKEN_AUDIENCE if error.step == "identify" else Defect.AUDIENCE
        if defect is not None:
            return defect.error(more={"authz": public})
        if reason in _TASKS:
            code = "invalid_request"
        elif reason in _CLIENT:
            code = "unauthorized_client"
        else:
            code = "invalid_authorization_details"
        return OAuthError(code, message, more={"authz": public})


def _one(request: Request, name: str) -> str | None:
    """Return a header. Several values are joined, so that no verifier accepts them."""
    values: Sequence[str] = request.headers.getlist(name)
    return ",".join(values) if values else None


def _refusal(refused: OAuthError) -> Response:
    described = "".join(
        char if " " <= char <= "~" and char not in '"\\' else "?" for char in refused.description
    )
    body = {"error": refused.error, "error_description": described, **refused.more}
    return _json(body, refused.status, refused.headers)


def _json(
    body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(
        json.dumps(body, ensure_ascii=False),
        status,
        {**_NO_STORE, **(headers or {})},
        media_type="application/json",
    )
