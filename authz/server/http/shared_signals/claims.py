"""Tells whether Authz reads one of the claims that changed (CAEP 1.0 §3.2)."""

import re
from collections.abc import Collection, Iterable
from typing import Final

__all__ = ["are_unread"]

_ALWAYS_READ: Final = frozenset(
    {
        *("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "auth_time", "acr", "amr", "azp"),
        *("act", "may_act", "client_id", "cnf", "scope", "sid", "nonce", "typ"),
    }
)
"""Claims that Authz reads of each token without configuration, or that belong to the login itself."""
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def are_unread(changed: Collection[str], read: Iterable[str]) -> bool:
    """Return whether Authz surely reads none of the changed claims.

    A name that is not a plain word, for example the URI of a SAML attribute or a path, may stand for a claim that Authz reads.

    Args:
        changed: Names of the changed claims.
        read: Claims of the subject's tokens that the bundle may read.
    """
    used = _ALWAYS_READ | {name.lower() for name in read}
    return bool(changed) and all(
        _PLAIN_NAME.fullmatch(name) and name.lower() not in used for name in changed
    )
