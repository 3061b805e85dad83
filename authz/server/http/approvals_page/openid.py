"""Login at an issuer: OpenID Connect's authorization code flow with PKCE (OpenID Connect Core §3.1, RFC 7636, RFC 9700).

INVARIANT (one browser for each login): the state of a flow stays in an encrypted cookie of the browser that began it. Nobody can
finish a flow in another browser, and open flows use no memory of the node.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from authz.config.urls import url_defect
from authz.files import PrivateFileError, read_secret
from authz.server.http.approvals_page.sessions import LONGEST_SECONDS, Login, LoginMethod
from authz.trust import (
    FetchDocument,
    FetchError,
    FetchRequest,
    described_request,
    discovery_request,
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

__all__ = ["LoginError", "LoginFlow", "OpenIdClient", "OpenIdSettings", "discovery_request"]

_DESCRIPTION_SECONDS: Final = 600.0
_MAX_CODE: Final = 4096


class LoginError(Exception):
    """A login failed. The message is for the person and has no secrets."""


@dataclass(frozen=True, slots=True)
class OpenIdSettings:
    """Settings of the page's client at an issuer."""

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
    client_secret_file: str | None
    """File of the client's secret. `None` for a public client."""
    scopes: tuple[str, ...]
    """Requested scopes."""
    redirect_uri: str
    """URL to which the issuer sends the browser back."""
    description: FetchRequest
    """Request for the metadata of the issuer (its discovery document)."""
    leeway: float = 5.0
    """Accepted difference between the clocks of node and issuer, in seconds."""


@dataclass(frozen=True, slots=True)
class LoginFlow:
    """An open login."""

    state: str
    nonce: str
    verifier: str
    """Code verifier of PKCE."""
    path: str
    """Path of the page that opens after the login."""
    forced_at: float | None
    """Unix time of the request, if the issuer must let the person log in anew. `None` if an earlier login suffices."""

    def encode(self) -> bytes:
        """Encode for a cookie."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def decode(text: bytes) -> "LoginFlow":
        """Decode the value of a cookie that this node encrypted."""
        return LoginFlow(**json.loads(text))


class OpenIdClient:
    """Logs people in. Its methods block until the issuer responds: call them on a thread.

    Args:
        settings: The client.
        get: Fetches a document.
        keys: Returns the keys of the issuer in use, as JWKS, or `None` before the first fetch.
        clock: Unix time.
    """

    def __init__(
        self,
        settings: OpenIdSettings,
        get: FetchDocument,
        keys: Callable[[], str | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._get = get
        self._keys = keys
        self._clock = clock
        self._lock = threading.Lock()
        self._description: tuple[float, dict[str, Any]] | None = None

    @property
    def alias(self) -> str:
        """Alias of the issuer."""
        return self._settings.alias

    def begin(self, path: str, *, anew: bool) -> tuple[str, LoginFlow]:
        """Begin a login.

        Args:
            path: Path of the page that opens after the login.
            anew: Whether the person must authenticate again, even if they are logged in at the issuer.

        Returns:
            The URL at the issuer, and the flow.

        Raises:
            LoginError: The issuer cannot be reached, or its metadata is not valid.
        """
        settings = self._settings
        endpoint = self._endpoint("authorization_endpoint").url
        flow = LoginFlow(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            path=path,
            forced_at=self._clock() if anew else None,
        )
        challenge = hashlib.sha256(flow.verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": settings.client_id,
            "redirect_uri": settings.redirect_uri,
            "scope": " ".join(settings.scopes),
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            # With `max_age`, `auth_time` is required in the ID token (OpenID Connect Core §2).
            "max_age": "0" if anew else str(int(LONGEST_SECONDS)),
        }
        if anew:
            query["prompt"] = "login"
        glue = "&" if urlsplit(endpoint).query else "?"
        return f"{endpoint}{glue}{urlencode(query)}", flow

    def finish(self, flow: LoginFlow, answer: Mapping[str, str]) -> Login:
        """Finish a login.

        Args:
            flow: The flow that this browser began.
            answer: Query of the redirect from the issuer.

        Raises:
            LoginError: The login is refused.
        """
        description = self._describe()
        _check_answer(flow, answer, self._settings.issuer, description)
        code = answer.get("code", "")
        if not 0 < len(code) <= _MAX_CODE:
            raise LoginError("The issuer sent no code.")
        claims = self._verify(self._redeem(code, flow, description), flow)
        return self._login(claims, flow)

    def _login(self, claims: Mapping[str, Any], flow: LoginFlow) -> Login:
        sub, authenticated_at = subject_of(claims), authentication_time(claims)
        if sub is None:
            raise LoginError("The ID token has no valid `sub`.")
        if authenticated_at is None:
            raise LoginError(
                "The ID token has no `auth_time`, so it does not say when you logged in. "
                "Configure the issuer to answer `max_age` with `auth_time` (OpenID Connect Core §2)."
            )
        now = self._clock()
        if authenticated_at > now + self._settings.leeway:
            raise LoginError(
                "The time of the login is in the future: the clock of the issuer is ahead."
            )
        at_ms = int(authenticated_at * 1000)
        if flow.forced_at is not None:
            # `auth_time` has whole seconds. The person must have logged in after `forced_at`.
            if authenticated_at < int(flow.forced_at):
                raise LoginError(
                    "The issuer did not let you log in anew, or its clock is behind. "
                    "Log out there, and try again."
                )
            at_ms = max(at_ms, int(flow.forced_at * 1000))
        elif authenticated_at < now - LONGEST_SECONDS - self._settings.leeway:
            raise LoginError("The login at the issuer is older than 8 hours. Log in there again.")
        name = claims.get("name") or claims.get("preferred_username") or ""
        acr = claims.get("acr")
        return Login(
            issuer=self._settings.alias,
            sub=sub,
            method=LoginMethod.LOGIN,
            authenticated_at_ms=min(at_ms, int(now * 1000)),
            name=name[:MAX_CLAIM_TEXT] if isinstance(name, str) else "",
            claims={key: claims[key] for key in self._settings.claims if key in claims},
            acr=acr[:MAX_CLAIM_TEXT] if isinstance(acr, str) else "",
        )

    # --- the issuer's endpoints

    def _describe(self) -> dict[str, Any]:
        settings = self._settings
        with self._lock:
            if self._description is not None and self._description[0] > time.monotonic():
                return self._description[1]
        try:
            description = read_description(self._get(settings.description), settings.issuer)
        except FetchError as error:
            raise LoginError(f"The issuer `{settings.alias}` cannot be asked: {error}.") from error
        methods = description.get("code_challenge_methods_supported")
        if isinstance(methods, list) and "S256" not in methods:
            raise LoginError(f"The issuer `{settings.alias}` does not support PKCE with S256.")
        with self._lock:
            self._description = (time.monotonic() + _DESCRIPTION_SECONDS, description)
        return description

    def _endpoint(self, member: str) -> FetchRequest:
        settings = self._settings
        try:
            request = described_request(self._describe(), member, settings.description)
        except FetchError as error:
            raise LoginError(f"The issuer `{settings.alias}` cannot be used: {error}.") from error
        defect = url_defect(request.url, plain=settings.description.reach.loopback_only)
        if defect is not None:
            raise LoginError(f"The `{member}` of the issuer `{settings.alias}` {defect}.")
        return request

    def _redeem(self, code: str, flow: LoginFlow, description: Mapping[str, Any]) -> str:
        """Redeem a code at the token endpoint (OpenID Connect Core §3.1.3) and return the ID token."""
        settings = self._settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": settings.redirect_uri,
            "code_verifier": flow.verifier,
        }
        authorization = self._authorize(form, description)
        request = replace(
            self._endpoint("token_endpoint"),
            form=urlencode(form).encode(),
            authorization=authorization,
            accept="application/json",
            max_bytes=2 * MAX_ID_TOKEN,
        )
        try:
            answer = json.loads(self._get(request).text)
        except FetchError as error:
            raise LoginError(
                f"The issuer `{settings.alias}` did not redeem the code: {error}. If every login fails like this, check "
                "`approvals.login.client_id`, `client_secret_file` and the redirect URI of the client."
            ) from error
        except (ValueError, RecursionError) as error:
            raise LoginError("The answer of the token endpoint is not JSON.") from error
        token = answer.get("id_token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or len(token) > MAX_ID_TOKEN:
            raise LoginError("The answer of the token endpoint has no ID token.")
        return token

    def _authorize(self, form: dict[str, str], description: Mapping[str, Any]) -> str | None:
        """Authenticate the client: by header, by form, or as a public client (RFC 6749 §2.3.1)."""
        settings = self._settings
        if settings.client_secret_file is None:
            form["client_id"] = settings.client_id
            return None
        try:
            secret = read_secret(settings.client_secret_file)
        except (OSError, PrivateFileError) as error:
            raise LoginError(
                "The node cannot read `approvals.login.client_secret_file`."
            ) from error
        return authenticate_client(form, settings.client_id, secret, description)

    # --- the ID token

    def _verify(self, token: str, flow: LoginFlow) -> dict[str, Any]:
        """Verify an ID token (OpenID Connect Core §3.1.3.7) with the keys that Authz trusts for the issuer."""
        settings = self._settings
        rules = IdTokenRules(
            settings.issuer, settings.client_id, settings.algorithms, settings.leeway
        )
        try:
            claims = verify_id_token(token, self._keys() or "", rules)
        except IdTokenError as error:
            raise LoginError(f"The ID token is refused: {error}.") from error
        nonce = claims.get("nonce")
        if not isinstance(nonce, str) or not secrets.compare_digest(
            nonce.encode(), flow.nonce.encode()
        ):
            raise LoginError("The ID token is refused: it belongs to another login (`nonce`).")
        return claims


def _check_answer(
    flow: LoginFlow, answer: Mapping[str, str], issuer: str, description: Mapping[str, Any]
) -> None:
    if not secrets.compare_digest(answer.get("state", "").encode(), flow.state.encode()):
        raise LoginError("This answer belongs to another login. Begin again.")
    named = answer.get("iss")
    # RFC 9207: the response of another issuer must not reach the token endpoint of this issuer.
    if named != issuer and (
        named is not None or description.get("authorization_response_iss_parameter_supported")
    ):
        raise LoginError("This answer comes from another issuer. Begin again.")
    error = answer.get("error")
    if error is not None:
        known = error if error.isascii() and error.replace("_", "").isalnum() else "error"
        raise LoginError(f"The issuer did not log you in: {known[:MAX_CLAIM_TEXT]}.")
