"""URLs of the OAuth endpoints, and the description of the server (RFC 8414)."""

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from authz.engine import accepted_algorithms
from authz.server.http.oauth.forms import DETAIL_TYPE, TOKEN_EXCHANGE

__all__ = ["OAuthUrls", "server_metadata"]

_METHODS: Final = ("private_key_jwt", "spiffe_jwt")
_METHODS_TLS: Final = ("tls_client_auth", "spiffe_x509")


@dataclass(frozen=True, slots=True)
class OAuthUrls:
    """URLs of the endpoints, below the issuer."""

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
        """Metadata: the well-known name is in front of the issuer's own path (RFC 8414 §3.1)."""
        parts = urlsplit(self.issuer)
        return f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{parts.path}"


def server_metadata(urls: OAuthUrls, *, mutual: bool) -> dict[str, Any]:
    """Describe the server (RFC 8414 §2).

    Args:
        urls: URLs of the urls.
        mutual: Clients may show a certificate.
    """
    methods = [*_METHODS, *(_METHODS_TLS if mutual else ())]
    accepted = accepted_algorithms()
    described: dict[str, Any] = {
        "issuer": urls.issuer,
        "token_endpoint": urls.token,
        "introspection_endpoint": urls.introspection,
        "revocation_endpoint": urls.revocation,
        "jwks_uri": urls.jwks,
        "grant_types_supported": [TOKEN_EXCHANGE],
        "response_types_supported": [],
        "authorization_details_types_supported": [DETAIL_TYPE],
        "dpop_signing_alg_values_supported": accepted["proof"],
        "tls_client_certificate_bound_access_tokens": mutual,
    }
    for endpoint in ("token", "introspection", "revocation"):
        described[f"{endpoint}_endpoint_auth_methods_supported"] = methods
        # An assertion is a JWT-SVID, and verified as one.
        described[f"{endpoint}_endpoint_auth_signing_alg_values_supported"] = accepted["jwt_svid"]
    return described
