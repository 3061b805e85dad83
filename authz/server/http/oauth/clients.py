"""Who calls the OAuth endpoints: a workload, by its X.509-SVID (RFC 8705) or by a JWT-SVID as assertion (RFC 7523).

Nobody else: there are no secrets and no public clients. A `client_id` is a SPIFFE ID.
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
"""Types of assertion that are taken: that of RFC 7523, and that of SPIFFE client authentication."""

_LONGEST_LIFE: Final = 3660.0
_LEEWAY: Final = 60.0
_MAX_JTI: Final = 255


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """A client that proved who it is."""

    spiffe_id: str
    """Its SPIFFE ID."""
    how: str
    """`x509_svid` or `jwt_svid`."""
    chain: tuple[bytes, ...] = ()
    """The certificates of its connection, DER, verified; none where it showed none."""


class ClientKeys(Protocol):
    """The keys that serve, as far as clients need them."""

    @property
    def trust_spec(self) -> bytes:
        """Trust sources that serve."""

    @property
    def trust(self) -> Trust | None:
        """The keys that serve."""


class UsedAssertions:
    """Assertions that were used, each until it ends; of this node alone.

    Args:
        most: So many at once.
    """

    def __init__(self, most: int = 65_536) -> None:
        self._most = most
        self._seen: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def first(self, name: bytes, until: float, now: float) -> bool:
        """Note an assertion.

        Args:
            name: What tells it from all others.
            until: When it would be refused anyway.
            now: Unix time.

        Returns:
            Whether it is the first time.

        Raises:
            OAuthError: Too many are remembered to be sure of another.
        """
        with self._lock:
            if name in self._seen:
                return False
            if len(self._seen) >= self._most:
                # Only when full is it worth to look for what has ended.
                for old in [one for one, end in self._seen.items() if end <= now]:
                    del self._seen[old]
            if len(self._seen) >= self._most:
                raise Defect.ASSERTIONS_FULL.error(headers={"retry-after": "5"})
            self._seen[name] = until
            return True


class ClientAuthenticator:
    """Authenticates clients.

    Args:
        issuer: Our issuer, which an assertion must be for.
        token_endpoint: The token endpoint, which an assertion of RFC 7523 may be for instead.
        keys: Gives the keys that serve now.
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
        """Find out who calls.

        Args:
            form: The parameters of the request.
            authorization: Its `authorization` header.
            chain: The certificates of its connection, DER, its own first.

        Returns:
            The client.

        Raises:
            OAuthError: `invalid_client`, or a parameter is missing.
        """
        if authorization is not None:
            scheme = "DPoP" if authorization[:5].lower() == "dpop " else "Basic"
            told = {"www-authenticate": f'{scheme} realm="authz"'}
            raise Defect.HEADER_AUTHENTICATION.error(headers=told)
        if "client_secret" in form:
            raise Defect.SECRET.error()
        named = form.get("client_id")
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
            if named is None:
                raise Defect.NO_CLIENT_ID.error()
        else:
            raise Defect.NO_CLIENT.error()
        if named is not None and named != proved:
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
            # Whether signature, time or audience: the client's own library knows, others need not.
            raise Defect.ASSERTION.error() from error
        # Verified above; read here once more for what a JWT-SVID does not need.
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
        """Hold an assertion of RFC 7523 to what it needs beside a JWT-SVID: `iss`, and to be new."""
        if claims.get("iss") != proved:
            raise Defect.ASSERTION_ISSUER.error()
        jti = claims.get("jti")
        if not isinstance(jti, str) or not jti or len(jti) > _MAX_JTI:
            raise Defect.ASSERTION_JTI.error()
        name = hashlib.sha256(f"{proved}\n{jti}".encode(errors="surrogatepass")).digest()
        if not self._replays.first(name, float(claims["exp"]) + _LEEWAY, now):
            raise Defect.ASSERTION_USED.error()

    def _trust(self) -> Trust:
        """Compile the keys of the trust domains for assertions, which are for other audiences than evidence is."""
        spec = self._keys().trust_spec
        known = self._compiled
        if known is None or known[0] is not spec:
            if not spec:
                raise _unavailable()
            told = json.loads(spec)
            told["audiences"] = [self._issuer, self._token_endpoint]
            told["issuers"] = {}
            told.pop("own", None)
            try:
                known = (spec, Trust.compile(json.dumps(told).encode()))
            except AuthzError as error:
                raise _unavailable() from error
            self._compiled = known
        return known[1]


def _claims(token: str) -> dict[str, Any]:
    """Read the claims of a token that is verified."""
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims if isinstance(claims, dict) else {}


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _unavailable() -> OAuthError:
    return Defect.NO_KEYS.error(headers={"retry-after": "1"})
