"""Authentication of OAuth clients: a workload, by its X.509-SVID (RFC 8705) or by a JWT-SVID as assertion (RFC 7523).

There are neither client secrets nor public clients. A `client_id` is a SPIFFE ID.
"""

import base64
import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from authz.engine import Trust
from authz.errors import ApiError, AuthzError
from authz.server.http.oauth.defects import Defect, OAuthError

__all__ = ["ASSERTION_TYPES", "ClientAuthenticator", "OAuthClient", "UsedAssertions"]

_JWT_BEARER: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_JWT_SPIFFE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
ASSERTION_TYPES: Final = (_JWT_BEARER, _JWT_SPIFFE)
"""Accepted types of assertion: that of RFC 7523, and that of SPIFFE client authentication."""

_LONGEST_LIFE: Final = 3660.0
_LEEWAY: Final = 60.0
_MAX_JTI: Final = 255


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """An authenticated client."""

    spiffe_id: str
    """Its SPIFFE ID."""
    how: str
    """`x509_svid` or `jwt_svid`."""
    chain: tuple[bytes, ...] = ()
    """Verified certificates of its connection, DER; empty if it showed none."""


class ClientKeys(Protocol):
    """The keys by which clients are verified."""

    @property
    def trust_spec(self) -> bytes:
        """Trust sources in use, as JSON."""

    @property
    def trust(self) -> Trust | None:
        """Keys in use."""


class UsedAssertions:
    """Assertions that were used on this node, each until it ends.

    Args:
        most: Most assertions that are remembered at once.
    """

    def __init__(self, most: int = 65_536) -> None:
        self._most = most
        self._seen: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def first(self, name: bytes, until: float, now: float) -> bool:
        """Note an assertion; return whether it was not used before.

        Args:
            name: Unique name of the assertion.
            until: Unix time at which it ends.
            now: Unix time.

        Raises:
            OAuthError: Too many assertions are remembered to note another.
        """
        with self._lock:
            if name in self._seen:
                return False
            if len(self._seen) >= self._most:
                # Ended assertions are removed only when the memory is full.
                for old in [name for name, end in self._seen.items() if end <= now]:
                    del self._seen[old]
            if len(self._seen) >= self._most:
                raise Defect.ASSERTIONS_FULL.error(headers={"retry-after": "5"})
            self._seen[name] = until
            return True


class ClientAuthenticator:
    """Authenticates clients.

    Args:
        issuer: The issuer, which must be the audience of an assertion.
        token_endpoint: The token endpoint, which may be the audience of an assertion of RFC 7523 instead.
        keys: Returns the keys in use.
        replays: Assertions that were used.
        clock: Unix time.
    """

    def __init__(
        self,
        issuer: str,
        token_endpoint: str,
        keys: Callable[[], ClientKeys],
        *,
        replays: UsedAssertions | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuer = issuer
        self._token_endpoint = token_endpoint
        self._keys = keys
        self._clock = clock
        self._replays = replays or UsedAssertions()
        self._compiled: tuple[bytes, Trust] | None = None

    def authenticate(
        self, form: Mapping[str, str], authorization: str | None, chain: Sequence[bytes]
    ) -> OAuthClient:
        """Authenticate the caller of a request.

        Args:
            form: Parameters of the request.
            authorization: `authorization` header of the request.
            chain: Certificates of the connection, DER, the caller's own first.

        Raises:
            OAuthError: `invalid_client`, or a parameter is missing.
        """
        if authorization is not None:
            scheme = "DPoP" if authorization[:5].lower() == "dpop " else "Basic"
            challenge = {"www-authenticate": f'{scheme} realm="authz"'}
            raise Defect.HEADER_AUTHENTICATION.error(headers=challenge)
        if "client_secret" in form:
            raise Defect.SECRET.error()
        client_id = form.get("client_id")
        assertion, kind = form.get("client_assertion"), form.get("client_assertion_type")
        if (assertion is None) != (kind is None):
            raise Defect.HALF_ASSERTION.error()
        shown = self._peer(chain) if chain else None
        if assertion is not None:
            proved = self._asserted(assertion, kind or "")
            if shown is not None and shown != proved:
                raise Defect.TWO_CLIENTS.error()
        elif shown is not None:
            proved = shown
            if client_id is None:
                raise Defect.NO_CLIENT_ID.error()
        else:
            raise Defect.NO_CLIENT.error()
        if client_id is not None and client_id != proved:
            raise Defect.OTHER_CLIENT_ID.error()
        how = "jwt_svid" if assertion is not None else "x509_svid"
        return OAuthClient(proved, how, tuple(chain))

    def _peer(self, chain: Sequence[bytes]) -> str:
        trust = self._keys().trust
        if trust is None:
            raise _unavailable()
        try:
            return trust.verify_peer(chain, self._clock())
        except ApiError as error:
            raise Defect.CERTIFICATE.error() from error

    def _asserted(self, assertion: str, kind: str) -> str:
        if kind not in ASSERTION_TYPES:
            raise Defect.ASSERTION_TYPE.error()
        now = self._clock()
        try:
            proved = self._trust().verify_svid(assertion, now)
        except ApiError as error:
            # The answer does not say whether signature, time or audience failed: the client's own library knows.
            raise Defect.ASSERTION.error() from error
        # Verified above. Read once more for members that a JWT-SVID does not need.
        claims = _claims(assertion)
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if len(audiences) != 1:
            raise Defect.ASSERTION_AUDIENCES.error()
        if not _number(claims.get("exp")) or claims["exp"] - now > _LONGEST_LIFE:
            raise Defect.ASSERTION_LIFE.error()
        if kind == _JWT_BEARER:
            self._used_once(claims, proved, now)
        elif audiences != [self._issuer]:
            raise Defect.ASSERTION_AUDIENCE.error()
        return proved

    def _used_once(self, claims: Mapping[str, Any], proved: str, now: float) -> None:
        """Check the members that RFC 7523 requires beside those of a JWT-SVID: `iss`, and a new `jti`."""
        if claims.get("iss") != proved:
            raise Defect.ASSERTION_ISSUER.error()
        jti = claims.get("jti")
        if not isinstance(jti, str) or not jti or len(jti) > _MAX_JTI:
            raise Defect.ASSERTION_JTI.error()
        name = hashlib.sha256(f"{proved}\n{jti}".encode(errors="surrogatepass")).digest()
        if not self._replays.first(name, float(claims["exp"]) + _LEEWAY, now):
            raise Defect.ASSERTION_USED.error()

    def _trust(self) -> Trust:
        """Compile the keys of the trust domains for assertions, whose audiences are not those of other credentials."""
        spec = self._keys().trust_spec
        compiled = self._compiled
        if compiled is None or compiled[0] is not spec:
            if not spec:
                raise _unavailable()
            sources = json.loads(spec)
            sources["audiences"] = [self._issuer, self._token_endpoint]
            sources["issuers"] = {}
            sources.pop("own", None)
            try:
                compiled = (spec, Trust.compile(json.dumps(sources).encode()))
            except AuthzError as error:
                raise _unavailable() from error
            self._compiled = compiled
        return compiled[1]


def _claims(token: str) -> dict[str, Any]:
    """Return the claims of a verified token."""
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims if isinstance(claims, dict) else {}


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _unavailable() -> OAuthError:
    return Defect.NO_KEYS.error(headers={"retry-after": "1"})
