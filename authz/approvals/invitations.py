"""Invitations: one-time links with which a person without an issuer makes a first passkey."""

import hashlib
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["Invitation", "Invitations", "InvitationsFullError", "is_local_person"]

LIFETIME_SECONDS: Final = 600.0
"""Lifetime of an invitation."""
_MOST: Final = 100
_MAX_HANDLE: Final = 64
_LOCAL_ISSUER: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")


def is_local_person(issuer: str, sub: str) -> bool:
    """Return whether a person can log in by passkey alone: issuer and subject must fit into a user handle (64 bytes, WebAuthn §5.4.3)."""
    return (
        _LOCAL_ISSUER.fullmatch(issuer) is not None
        and bool(sub)
        and sub.isprintable()
        and len(f"{issuer}/{sub}".encode()) <= _MAX_HANDLE
    )


class InvitationsFullError(Exception):
    """Too many invitations are open."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """An open invitation."""

    issuer: str
    """Name in the place of an issuer, for example `local`."""
    sub: str
    """Subject."""
    expires_at: float
    """Unix time."""


class Invitations:
    """Open invitations of a node.

    Args:
        clock: Unix time.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[bytes, Invitation] = {}

    def make(self, issuer: str, sub: str) -> tuple[str, Invitation]:
        """Make an invitation. It replaces an open invitation of the same person.

        Returns:
            The secret of the invitation, and the invitation.

        Raises:
            InvitationsFullError: 100 invitations are open.
        """
        secret = secrets.token_urlsafe(32)
        with self._lock:
            now = self._clock()
            self._open = {
                key: one
                for key, one in self._open.items()
                if one.expires_at > now and (one.issuer, one.sub) != (issuer, sub)
            }
            if len(self._open) >= _MOST:
                raise InvitationsFullError(f"{_MOST} invitations are open; wait until one ends")
            invitation = Invitation(issuer, sub, now + LIFETIME_SECONDS)
            self._open[_key(secret)] = invitation
        return secret, invitation

    def find(self, secret: str) -> Invitation | None:
        """Return the open invitation of a secret, or `None` if it has ended or does not exist."""
        with self._lock:
            invitation = self._open.get(_key(secret))
        return self._if_open(invitation)

    def use(self, secret: str) -> Invitation | None:
        """Use an invitation up and return it, or return `None` if it has ended or was used."""
        with self._lock:
            invitation = self._open.pop(_key(secret), None)
        return self._if_open(invitation)

    def _if_open(self, invitation: Invitation | None) -> Invitation | None:
        is_open = invitation is not None and invitation.expires_at > self._clock()
        return invitation if is_open else None


def _key(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="replace")).digest()
