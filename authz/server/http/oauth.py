"""Task credentials over HTTP: keys, metadata, token exchange, introspection and revocation.

These are RFC 7517, 8414, 8693 (with 9396 and 9449), 7662 and 7009. Here a request is read and an answer is written. Who calls is found out in `clients`; what is permitted, the engine decides.
"""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, urlsplit

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from authz.engine import accepted_algorithms
from authz.errors import ApiError, AuthzError
from authz.model import CallFacts
from authz.server.http.clients import Client, Clients
from authz.server.http.defects import CREDENTIAL_DEFECTS, Defect, OAuthError
from authz.server.http.server import CLIENT_CHAIN

__all__ = ["Endpoints", "OAuthApp", "Published", "metadata"]

_GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
_ID_TOKEN: Final = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - a name
_SUBJECTS: Final = frozenset({_JWT, _ACCESS_TOKEN, _ID_TOKEN})
_ISSUED: Final = frozenset({_JWT, _ACCESS_TOKEN})
_DETAIL: Final = "authz_task"
_DETAIL_MEMBERS: Final = frozenset({"type", "operation", "resource", "arguments", "destinations"})
_MAX_DETAILS: Final = 16
_MAX_FIELDS: Final = 64
_MAX_LIFETIME: Final = 86_400
_THREADS: Final = 8
_FORM: Final = "application/x-www-form-urlencoded"
_NO_STORE: Final = {"cache-control": "no-store", "pragma": "no-cache"}
_RETRY: Final = {"retry-after": "1"}
_METHODS: Final = ("private_key_jwt", "spiffe_jwt")
_METHODS_TLS: Final = ("tls_client_auth", "spiffe_x509")

# What the agent is told is its own row of the table of reasons; which code it was stays with us.
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


class Published(Protocol):
    """The keys, as far as others see them."""

    @property
    def max_age(self) -> int:
        """Seconds that others may keep them."""

    def jwks(self) -> str:
        """Write them (RFC 7517 §5)."""


class Calls(Protocol):
    """Issues, inspects and revokes."""

    def exchange(self, request: Mapping[str, Any], facts: CallFacts) -> Mapping[str, Any]:
        """Exchange tokens for a credential: its `token` and what is known of it."""

    def introspect(self, client: Client, token: str, facts: CallFacts) -> Mapping[str, Any]:
        """Tell what is known of a credential."""

    def revoke(self, client: Client, token: str, facts: CallFacts) -> None:
        """Revoke a credential."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the endpoints are, by the issuer."""

    issuer: str
    """`credentials.issuer`."""

    @property
    def token(self) -> str:
        """Token exchange."""
        return f"{self.issuer}/token"

    @property
    def introspection(self) -> str:
        """Introspection."""
        return f"{self.issuer}/introspect"

    @property
    def revocation(self) -> str:
        """Revocation."""
        return f"{self.issuer}/revoke"

    @property
    def jwks(self) -> str:
        """Keys."""
        return f"{self.issuer}/jwks"

    @property
    def metadata(self) -> str:
        """Metadata: the well-known name stands before the issuer's own path (RFC 8414 §3.1)."""
        parts = urlsplit(self.issuer)
        return f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{parts.path}"


def metadata(endpoints: Endpoints, *, mutual: bool) -> dict[str, Any]:
    """Describe the server (RFC 8414 §2).

    Args:
        endpoints: Where the endpoints are.
        mutual: Clients may show a certificate.

    Returns:
        The metadata.
    """
    methods = [*_METHODS, *(_METHODS_TLS if mutual else ())]
    accepted = accepted_algorithms()
    described: dict[str, Any] = {
        "issuer": endpoints.issuer,
        "token_endpoint": endpoints.token,
        "introspection_endpoint": endpoints.introspection,
        "revocation_endpoint": endpoints.revocation,
        "jwks_uri": endpoints.jwks,
        "grant_types_supported": [_GRANT],
        "response_types_supported": [],
        "authorization_details_types_supported": [_DETAIL],
        "dpop_signing_alg_values_supported": accepted["proof"],
        "tls_client_certificate_bound_access_tokens": mutual,
    }
    for endpoint in ("token", "introspection", "revocation"):
        described[f"{endpoint}_endpoint_auth_methods_supported"] = methods
        # An assertion is a JWT-SVID, and verified as one.
        described[f"{endpoint}_endpoint_auth_signing_alg_values_supported"] = accepted["jwt_svid"]
    return described


class OAuthApp:
    """The application.

    Args:
        endpoints: Where the endpoints are.
        clients: Authenticates callers.
        keys: The keys that are published.
        calls: Issues, inspects and revokes.
        public: What an agent is told, by reason code: `public_code`, `next_action`, `retry`.
        mutual: Clients may show a certificate.
        max_body: Bytes of a body at most.
        timeout: Seconds that a body may take to come.
        deadline: Seconds that an answer may take.
        counted: Told endpoint and status of each answer.
        failed: Told of every unexpected exception.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        clients: Clients,
        keys: Published,
        calls: Calls,
        *,
        public: Mapping[str, Mapping[str, str]],
        mutual: bool,
        max_body: int,
        timeout: float,
        deadline: float,
        counted: Callable[[str, int], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._endpoints = endpoints
        self._clients = clients
        self._keys = keys
        self._calls = calls
        self._public = public
        self._described = json.dumps(metadata(endpoints, mutual=mutual)).encode()
        self._max_body = max_body
        self._timeout = timeout
        self._deadline = deadline
        self._counted = counted
        self._failed = failed
        self._limiter: CapacityLimiter | None = None

    def asgi(self) -> Starlette:
        """Make the application.

        Returns:
            ASGI.
        """
        at = self._endpoints

        def path(url: str) -> str:
            return urlsplit(url).path

        return Starlette(
            routes=[
                Route(path(at.metadata), self._read("metadata", self._metadata), methods=["GET"]),
                Route(path(at.jwks), self._read("jwks", self._jwks), methods=["GET"]),
                Route(path(at.token), self._form("token", self._token), methods=["POST"]),
                Route(
                    path(at.introspection),
                    self._form("introspect", self._introspect),
                    methods=["POST"],
                ),
                Route(path(at.revocation), self._form("revoke", self._revoke), methods=["POST"]),
            ]
        )

    # --- what anyone may read

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
        # Without a key there is nothing to keep: the first one signs at once.
        kept = f"public, max-age={age}" if age else "no-store"
        return Response(
            self._keys.jwks(),
            media_type="application/jwk-set+json",
            headers={"cache-control": kept},
        )

    # --- what clients ask

    def _form(
        self, name: str, answer: Callable[[dict[str, str], Client, Request], Response]
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
                form = _parameters(await self._body(request))
                response = await to_thread.run_sync(answered, form, request, limiter=self._limiter)
            except OAuthError as refused:
                response = _refusal(refused)
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
        said = _one(request, "content-length")
        too_large = Defect.LARGE_BODY.error()
        if said is not None and (not said.isdecimal() or int(said) > self._max_body):
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._timeout):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self._max_body:
                        raise too_large
        except TimeoutError as error:
            raise Defect.LATE_BODY.error(headers={"connection": "close"}) from error
        return bytes(body)

    def _facts(self, request: Request, client: Client) -> CallFacts:
        pem = [ssl.DER_cert_to_PEM_cert(one).encode() for one in client.chain]
        peer = request.client
        return CallFacts(
            "http",
            self._deadline,
            _one(request, "traceparent"),
            peer=f"{peer.host}:{peer.port}" if peer is not None else None,
            tracestate=_one(request, "tracestate"),
            certificate=pem[0] if pem else None,
            intermediates=b"".join(pem[1:]) or None,
        )

    def _token(self, form: dict[str, str], client: Client, request: Request) -> Response:
        asked = _exchange(form, client)
        proofs = request.headers.getlist("dpop")
        if len(proofs) > 1:
            raise Defect.TWO_PROOFS.error()
        asked["proof"] = proofs[0] if proofs else None
        asked["http_uri"] = self._endpoints.token
        issued = self._calls.exchange(asked, self._facts(request, client))
        claims = issued["claims"]
        answer = {
            "access_token": issued["token"],
            "issued_token_type": form.get("requested_token_type", _ACCESS_TOKEN),
            "token_type": issued["token_type"],
            "expires_in": max(0, int(claims["exp"]) - int(claims["iat"])),
            "authorization_details": claims["authorization_details"],
            "task": claims["task"],
        }
        nonce = issued.get("dpop_nonce")
        return _json(answer, headers={"dpop-nonce": nonce} if nonce else {})

    def _introspect(self, form: dict[str, str], client: Client, request: Request) -> Response:
        token = _required(form, "token")
        known = self._calls.introspect(client, token, self._facts(request, client))
        # Of one that is not active nothing is said, not even why (RFC 7662 §2.2).
        return _json(known if known.get("active") is True else {"active": False})

    def _revoke(self, form: dict[str, str], client: Client, request: Request) -> Response:
        self._calls.revoke(client, _required(form, "token"), self._facts(request, client))
        return Response(status_code=200, headers=_NO_STORE)

    # --- refusals

    def _refused(self, error: AuthzError) -> OAuthError:
        """Say a refusal of the engine as OAuth does: what is wrong with what the client sent, and of policy its public row."""
        reason = error.reason
        if not isinstance(error, ApiError) or reason in _BUSY:
            return Defect.BUSY.error(headers=_RETRY)
        if error.dpop_nonce:
            return Defect.NONCE_NEEDED.error(headers={"dpop-nonce": error.dpop_nonce})
        public = dict(self._public.get(reason, {"public_code": "DENIED"}))
        message = public.pop("public_message", "Refused.")
        defect = CREDENTIAL_DEFECTS.get(reason)
        if reason == "WRONG_AUDIENCE":
            # Of a token it is said before anything is looked up; after that it is the parameter.
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


def _exchange(form: dict[str, str], client: Client) -> dict[str, Any]:
    """Read a token exchange (RFC 8693 §2.1), with what it is for (RFC 9396)."""
    if _required(form, "grant_type") != _GRANT:
        raise Defect.GRANT.error()
    return {
        "client": {"spiffe_id": client.spiffe_id, "how": client.how},
        **_tokens(form),
        "audience": _audience(form.get("audience"), form.get("resource")),
        "lifetime_seconds": _lifetime(form.get("requested_lifetime")),
        "details": _details(_required(form, "authorization_details")),
        **_task(form),
    }


def _tokens(form: Mapping[str, str]) -> dict[str, Any]:
    subject, kind = _required(form, "subject_token"), _required(form, "subject_token_type")
    actor, actor_kind = form.get("actor_token"), form.get("actor_token_type")
    if (actor is None) != (actor_kind is None):
        raise Defect.HALF_ACTOR.error()
    for defect, said, accepted in (
        (Defect.SUBJECT_TYPE, kind, _SUBJECTS),
        (Defect.ACTOR_TYPE, actor_kind or _JWT, {_JWT}),
        (Defect.REQUESTED_TYPE, form.get("requested_token_type", _JWT), _ISSUED),
    ):
        if said not in accepted:
            raise defect.error()
    if "scope" in form:
        raise Defect.SCOPE.error()
    return {"subject_token": subject, "actor_token": actor}


def _audience(audience: str | None, resource: str | None) -> str | None:
    if resource is not None:
        parts = _split(resource)
        if parts is None or not parts.scheme or "#" in resource:
            raise Defect.RESOURCE.error()
        if audience not in {None, resource}:
            raise Defect.AUDIENCES.error()
    return audience if audience is not None else resource


def _task(form: Mapping[str, str]) -> dict[str, Any]:
    """Read which task the credential is of: one that there is, or a new one."""
    task, template, parent = form.get("task"), form.get("template"), form.get("parent")
    if task is not None:
        for beside in ("template", "template_params", "prompt", "parent"):
            if beside in form:
                raise Defect.WITH_TASK.error(beside)
        return {"task": task}
    if template is None and parent is None:
        raise Defect.NO_TASK.error()
    if parent is not None and "prompt" in form:
        raise Defect.PROMPT_OF_CHILD.error()
    params = _parsed(form.get("template_params", "{}"), Defect.PARAMS)
    if not isinstance(params, dict):
        raise Defect.PARAMS.error()
    new = {"template": template, "params": params}
    return {**new, "prompt": form.get("prompt"), "parent": parent}


def _details(text: str) -> list[dict[str, Any]]:
    """Read what the credential shall be for (RFC 9396 §5: whatever is not known is refused)."""
    said = _parsed(text, Defect.DETAILS)
    if not isinstance(said, list) or not 1 <= len(said) <= _MAX_DETAILS:
        raise Defect.DETAILS.error()
    read = []
    for entry in said:
        if not isinstance(entry, dict) or entry.get("type") != _DETAIL:
            raise Defect.DETAIL_TYPE.error()
        if unknown := sorted(entry.keys() - _DETAIL_MEMBERS):
            raise Defect.DETAIL_MEMBER.error(unknown[0])
        if not isinstance(entry.get("operation"), str) or not entry["operation"]:
            raise Defect.DETAIL_VALUE.error("operation")
        if not isinstance(entry.get("arguments", {}), dict):
            raise Defect.DETAIL_VALUE.error("arguments")
        if not isinstance(entry.get("resource", ""), str):
            raise Defect.DETAIL_VALUE.error("resource")
        destinations = entry.get("destinations", [])
        if not isinstance(destinations, list) or not all(
            isinstance(one, str) for one in destinations
        ):
            raise Defect.DETAIL_VALUE.error("destinations")
        read.append(
            {"arguments": {}, **{name: value for name, value in entry.items() if name != "type"}}
        )
    return read


def _parsed(text: str, defect: Defect) -> Any:
    """Read JSON that no two readers could take for different things."""

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(members)
        if len(made) != len(members):
            message = "a member is there twice"
            raise ValueError(message)
        return made

    def exact(number: str) -> float:
        read = float(number)
        if Decimal(repr(read)) != Decimal(number):
            message = "a number has more digits than are read"
            raise ValueError(message)
        return read

    def never(number: str) -> float:
        message = f"{number} is no JSON"
        raise ValueError(message)

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_float=exact, parse_constant=never)
    except (ValueError, RecursionError, ArithmeticError) as error:
        raise defect.error() from error


def _lifetime(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:9]) <= _MAX_LIFETIME:
        raise Defect.LIFETIME.error()
    return int(text)


def _parameters(body: bytes) -> dict[str, str]:
    """Read a form: a parameter without a value is not there, and none may be there twice (RFC 6749 §3.2)."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError as error:
        raise Defect.MALFORMED_FORM.error() from error
    form: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in pairs:
        if name in seen:
            is_target = name in {"audience", "resource"}
            raise (Defect.DUPLICATE_TARGET if is_target else Defect.DUPLICATE).error(name)
        seen.add(name)
        if value:
            form[name] = value
    return form


def _required(form: Mapping[str, str], name: str) -> str:
    value = form.get(name)
    if value is None:
        raise Defect.MISSING.error(name)
    return value


def _split(url: str) -> Any:
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _one(request: Request, name: str) -> str | None:
    """Read a header; of several none could be believed, so that they are joined."""
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
