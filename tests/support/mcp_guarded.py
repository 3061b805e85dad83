"""A small MCP server that checks task credentials: each request as a resource server does, each call by asking Authz."""

import base64
import hashlib
import json
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import jwt
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from authz_client import Authz, Caller, Denied, caller
from tests.support.issuing import verified
from tests.support.waiting import eventually, free_port

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
HEADERS: Final = ("authorization", "authz-credential", "dpop")


@dataclass
class Request:
    """One HTTP request, and what came of the look at its credential."""

    method: str
    path: str
    credential: dict[str, str]
    verdict: str
    jti: str = ""


@dataclass
class GuardedServer:
    """The server; `/mcp` takes messages, `/moved` leads there, `/away` to another origin.

    Attributes:
        authz: Client of an enforcer for the system `crm`.
        issuer: Who issues credentials.
        audience: `aud` of a credential for this server.
        jwks: The issuer's keys.
        elsewhere: Where `/away` leads to.
        seen: All requests, in order.
    """

    authz: Authz
    issuer: str
    audience: str
    jwks: Any
    elsewhere: str = ""
    seen: list[Request] = field(default_factory=list)
    port: int = field(default_factory=free_port)
    _nonce: str = ""
    _proofs: set[str] = field(default_factory=set)

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        config = uvicorn.Config(
            self._guarded(), host="127.0.0.1", port=self.port, log_level="error"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        eventually(lambda: self._server.started, what="the MCP server listens")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    # --- the tool, which asks Authz

    def _tools(self) -> MCPServer:
        server = MCPServer("crm")

        @server.tool()
        async def read(id: str, context: Context[Any, Any]) -> str:  # noqa: A002
            """Read a customer."""
            request: Any = context.request_context.request
            try:
                await self._ask(request.headers, request.method, request.url.path, id)
            except Denied as denied:
                raise ToolError(denied.reason_code) from denied
            return f"customer {id}"

        return server

    async def _ask(self, headers: Any, method: str, path: str, customer: str) -> None:
        who = Caller.from_headers(headers, method=method, url=f"{self.origin}{path}")
        with caller(who):
            await self.authz.acheck("crm.read", {"id": customer})

    async def _renew_nonce(self, request: Request) -> None:
        """Takes the nonce with which Authz refuses the request's proof."""
        try:
            await self._ask(request.credential, request.method, request.path, "acme")
        except Denied as denied:
            self._nonce = denied.dpop_nonce or ""

    # --- the credential of each request

    def _guarded(self) -> Any:
        app = self._tools().streamable_http_app()

        async def guard(scope: Any, receive: Any, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            shown = {name: headers[name] for name in HEADERS if name in headers}
            request = Request(scope["method"], scope["path"], shown, "")
            self.seen.append(request)
            target = {"/moved": "/mcp", "/away": self.elsewhere}.get(request.path)
            if target is not None:
                request.verdict = "redirected"
                await _answer(send, 307, location=target)
                return
            try:
                request.verdict = self._verdict(request)
            except jwt.PyJWTError as error:
                request.verdict = f"bad: {error}"
            if request.verdict == "good":
                await app(scope, receive, send)
                return
            told = {"www-authenticate": "DPoP"}
            if request.verdict == "nonce":
                await self._renew_nonce(request)
                told = {
                    "www-authenticate": 'DPoP error="use_dpop_nonce"',
                    "dpop-nonce": self._nonce,
                }
            await _answer(send, 401, **told)

        return guard

    def _verdict(self, request: Request) -> str:
        """Verifies as RFC 9068 §4 and RFC 9449 §4.3 say."""
        credential = request.credential
        shown = credential.get("authz-credential") or credential.get("authorization") or ""
        scheme, _, token = shown.partition(" ")
        claims = verified(token, self.jwks, self.issuer, self.audience)
        if "cnf" not in claims:
            return "good" if scheme == "Bearer" else "bad: scheme"
        proof = credential.get("dpop", "")
        jwk = jwt.get_unverified_header(proof)["jwk"]
        said = jwt.decode(proof, jwt.PyJWK(jwk), algorithms=["ES256"])
        request.jti = said["jti"]
        if not self._nonce or said.get("nonce") != self._nonce:
            return "nonce"
        canonical = json.dumps(jwk, sort_keys=True, separators=(",", ":"))
        wrong = {
            "scheme": scheme != "DPoP",
            "method": said["htm"] != request.method,
            "URL": said["htu"] != f"{self.origin}{request.path}",
            "token": said["ath"] != _digest(token),
            "key": claims["cnf"] != {"jkt": _digest(canonical)},
            "replay": said["jti"] in self._proofs,
        }
        self._proofs.add(said["jti"])
        names = [name for name, is_wrong in wrong.items() if is_wrong]
        return f"bad: {', '.join(names)}" if names else "good"


async def _answer(send: Send, status: int, **headers: str) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*pairs, (b"content-length", b"0")],
        }
    )
    await send({"type": "http.response.body", "body": b""})


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
