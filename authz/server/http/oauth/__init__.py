"""Task credentials over HTTP: keys, metadata, token exchange, introspection and revocation.

These are RFC 7517, 8414, 8693 (with 9396 and 9449), 7662 and 7009. A request passes `endpoints` (body, client, answer),
`clients` (which workload calls) and `forms` (parameters), then the issuer of credentials. `defects` has the text of each
refusal, `metadata` the URLs and the description of the server.
"""

from authz.server.http.oauth.clients import ClientAuthenticator
from authz.server.http.oauth.endpoints import OAuthApp, OAuthSettings
from authz.server.http.oauth.metadata import OAuthUrls

__all__ = ["ClientAuthenticator", "OAuthApp", "OAuthSettings", "OAuthUrls"]
