"""Refusals of the OAuth endpoints: one fixed text for each (RFC 6749 §5.2).

A text is about the client's own request, never about policy, tasks of others or the content of the bundle: a refusal by a
decision has the public text of its reason instead. `docs/reference/credentials.md` lists all texts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

__all__ = ["CREDENTIAL_DEFECTS", "Defect", "OAuthError"]

_MAX_NAME: Final = 64
_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type"  # noqa: S105 - a name


class OAuthError(Exception):
    """A refusal in the form of OAuth (RFC 6749 §5.2).

    Args:
        error: Error code.
        description: Text for authors of clients, without policy, other clients or secrets.
        status: HTTP status.
        headers: Further headers.
        more: Further members of the answer.
    """

    def __init__(
        self,
        error: str,
        description: str,
        status: int = 400,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.status = status
        self.headers = dict(headers or {})
        self.more = dict(more or {})


@dataclass(frozen=True, slots=True)
class _Text:
    error: str
    description: str
    status: int = 400


_REQUEST: Final = "invalid_request"
_CLIENT: Final = "invalid_client"
_DETAILS: Final = "invalid_authorization_details"
_PROOF: Final = "invalid_dpop_proof"
_TARGET: Final = "invalid_target"


class Defect(Enum):
    """A refusal and its text. `NAME` stands for the name of a parameter or member."""

    # --- the form
    NO_FORM = _Text(_REQUEST, "the body is not application/x-www-form-urlencoded")
    MALFORMED_FORM = _Text(_REQUEST, "the body is not a valid form")
    LARGE_BODY = _Text(_REQUEST, "the body is too large", 413)
    LATE_BODY = _Text(_REQUEST, "the body did not come in time", 408)
    DUPLICATE = _Text(_REQUEST, "the parameter NAME is given twice")
    DUPLICATE_TARGET = _Text(_TARGET, "the parameter NAME is given twice")
    MISSING = _Text(_REQUEST, "the parameter NAME is missing")
    # --- the client
    HEADER_AUTHENTICATION = _Text(
        _CLIENT, "clients authenticate by X.509-SVID or by an assertion, not by this header", 401
    )
    SECRET = _Text(_CLIENT, "client secrets are not supported", 401)
    HALF_ASSERTION = _Text(_REQUEST, "client_assertion and client_assertion_type belong together")
    TWO_CLIENTS = _Text(_CLIENT, "certificate and assertion name different clients", 401)
    NO_CLIENT_ID = _Text(
        _REQUEST, "the parameter client_id is missing; RFC 8705 needs it beside a certificate"
    )
    NO_CLIENT = _Text(
        _CLIENT, "no client authentication: show an X.509-SVID, or send a JWT-SVID", 401
    )
    OTHER_CLIENT_ID = _Text(_CLIENT, "client_id is not the client that authenticated", 401)
    CERTIFICATE = _Text(_CLIENT, "the certificate is not an X.509-SVID of a trusted domain", 401)
    ASSERTION_TYPE = _Text(_CLIENT, "client_assertion_type is not supported", 401)
    ASSERTION = _Text(_CLIENT, "the assertion is not valid for this server", 401)
    ASSERTION_AUDIENCES = _Text(
        _CLIENT, "the assertion has several audiences, each of which could use it here", 401
    )
    ASSERTION_LIFE = _Text(_CLIENT, "the assertion lives longer than an hour", 401)
    ASSERTION_ISSUER = _Text(_CLIENT, "iss of the assertion is not its sub (RFC 7523 §3)", 401)
    ASSERTION_JTI = _Text(
        _CLIENT, "the assertion has no jti, without which it could be used again", 401
    )
    ASSERTION_USED = _Text(_CLIENT, "the assertion was used before", 401)
    ASSERTION_AUDIENCE = _Text(_CLIENT, "the assertion is not for the issuer", 401)
    # --- token exchange
    GRANT = _Text(
        "unsupported_grant_type",
        "grant_type is not urn:ietf:params:oauth:grant-type:token-exchange",
    )
    SUBJECT_TYPE = _Text(
        _REQUEST,
        f"subject_token_type is not any of {_TOKEN_TYPE}:jwt, {_TOKEN_TYPE}:access_token, "
        f"{_TOKEN_TYPE}:id_token",
    )
    ACTOR_TYPE = _Text(_REQUEST, f"actor_token_type is not {_TOKEN_TYPE}:jwt")
    REQUESTED_TYPE = _Text(
        _REQUEST,
        f"requested_token_type is neither {_TOKEN_TYPE}:jwt nor {_TOKEN_TYPE}:access_token",
    )
    HALF_ACTOR = _Text(_REQUEST, "actor_token and actor_token_type belong together")
    SCOPE = _Text("invalid_scope", "scopes are not supported; send authorization_details")
    RESOURCE = _Text(_TARGET, "resource is not an absolute URI without a fragment")
    AUDIENCES = _Text(_TARGET, "audience and resource differ; a credential is for one audience")
    LIFETIME = _Text(_REQUEST, "requested_lifetime is not a number of seconds from 1 to 86400")
    WITH_TASK = _Text(_REQUEST, "the parameter NAME goes with a new task, not with task")
    NO_TASK = _Text(_REQUEST, "one of the parameters task, template and parent is needed")
    PROMPT_OF_CHILD = _Text(
        _REQUEST, "prompt goes with a new root task; a child has the prompt of its parent"
    )
    PARAMS = _Text(_REQUEST, "template_params is not a valid JSON object")
    # --- authorization details
    DETAILS = _Text(_DETAILS, "authorization_details is not a JSON array of 1 to 16 objects")
    DETAIL_TYPE = _Text(_DETAILS, "an authorization detail is not of the type authz_task")
    DETAIL_MEMBER = _Text(_DETAILS, "an authorization detail has the unknown member NAME")
    DETAIL_VALUE = _Text(
        _DETAILS, "the member NAME of an authorization detail is missing or of another type"
    )
    # --- the tokens of the exchange
    TOKEN = _Text(_REQUEST, "subject_token or actor_token is malformed, forged or of another kind")
    TOKEN_EXPIRED = _Text(_REQUEST, "subject_token or actor_token has expired or is not valid yet")
    TOKEN_ISSUER = _Text(
        _REQUEST, "subject_token or actor_token is of an issuer, or by a key, that is not trusted"
    )
    TOKEN_AUDIENCE = _Text(_REQUEST, "subject_token or actor_token is for another audience")
    TOKEN_UNBOUND = _Text(
        _REQUEST, "subject_token or actor_token is bound to a key that was not proved"
    )
    # --- the audience
    AUDIENCE = _Text(
        _TARGET, "audience or resource is not that of the system of authorization_details"
    )
    # --- the proof of possession
    TWO_PROOFS = _Text(_PROOF, "there is more than one DPoP header")
    PROOF = _Text(_PROOF, "the DPoP proof is not valid for this request")
    PROOF_USED = _Text(_PROOF, "the DPoP proof was used before")
    PROOF_NEEDED = _Text(
        _PROOF, "the credential must be bound: send a DPoP proof or show a certificate"
    )
    NONCE_NEEDED = _Text("use_dpop_nonce", "the DPoP proof needs the nonce of this answer")
    # --- ourselves
    ASSERTIONS_FULL = _Text(
        "temporarily_unavailable", "too many assertions were used in a short time", 503
    )
    NO_KEYS = _Text("temporarily_unavailable", "no keys are loaded", 503)
    BUSY = _Text("temporarily_unavailable", "the server cannot answer now; ask again", 503)
    INTERNAL = _Text("temporarily_unavailable", "internal error", 503)

    def error(
        self,
        name: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> OAuthError:
        """Return the refusal as an exception. `name` is the parameter or member; it is cut to 64 characters."""
        text = self.value
        description = text.description.replace("NAME", name[:_MAX_NAME])
        return OAuthError(text.error, description, text.status, headers, more)


CREDENTIAL_DEFECTS: Final = {
    "NO_CREDENTIAL": Defect.TOKEN,
    "BAD_CREDENTIAL": Defect.TOKEN,
    "EXPIRED_CREDENTIAL": Defect.TOKEN_EXPIRED,
    "UNTRUSTED_ISSUER": Defect.TOKEN_ISSUER,
    "UNBOUND_CREDENTIAL": Defect.TOKEN_UNBOUND,
    "BAD_PROOF": Defect.PROOF,
    "REPLAYED": Defect.PROOF_USED,
    "PROOF_REQUIRED": Defect.PROOF_NEEDED,
}
"""Refusals by the engine that are about tokens and proofs of the client, by reason code."""
