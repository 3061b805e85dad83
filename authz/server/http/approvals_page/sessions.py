"""Sessions of the page: the logged-in person, and the cards that the person was shown. One node keeps them in memory."""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

__all__ = ["Login", "LoginMethod", "Session", "Sessions", "ShownCard"]

LONGEST_SECONDS: Final = 8 * 3600.0
"""Longest time from the login to the end of a session."""
IDLE_SECONDS: Final = 30 * 60.0
"""Longest time from the last request to the end of a session."""
_MAX_SESSIONS: Final = 10_000
_MAX_OF_A_PERSON: Final = 20
_MAX_SHOWN: Final = 200


class LoginMethod(StrEnum):
    """Way in which a person logged in."""

    LOGIN = "login"
    PASSKEY = "passkey"


@dataclass(frozen=True, slots=True)
class Login:
    """A verified login of a person."""

    issuer: str
    """Alias of the issuer."""
    sub: str
    """Subject at the issuer."""
    method: LoginMethod
    """Way of the login."""
    authenticated_at_ms: int
    """Unix time of the authentication, in milliseconds."""
    name: str = ""
    """Name to show. Default: `sub`."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    """Claims that the bundle may read."""
    acr: str = ""
    """`acr` of the ID token. Empty if it has none."""

    @property
    def person(self) -> str:
        """The person as `<issuer>/<sub>`."""
        return f"{self.issuer}/{self.sub}"

    @property
    def shown_name(self) -> str:
        """Name of the person on the page."""
        return self.name or self.sub


@dataclass(frozen=True, slots=True)
class ShownCard:
    """A card that was shown in a session."""

    digest: bytes
    """Digest of the call."""
    card_digest: bytes
    """SHA-256 of the card."""
    can_be_approved: bool
    """True if the card showed everything that a person must see before approving."""


@dataclass(slots=True)
class Session:
    """One logged-in browser."""

    login: Login
    """The person."""
    csrf_token: str
    """Token that every form of the session carries."""
    started_at: float
    """Monotonic time of the login."""
    used_at: float
    """Monotonic time of the last request."""
    streams: int = 0
    """Open streams of live changes."""
    shown_cards: OrderedDict[str, ShownCard] = field(default_factory=OrderedDict)
    """The card of each approval that was shown last, by the id of the approval."""
    ceremonies: OrderedDict[bytes, Any] = field(default_factory=OrderedDict)
    """Open WebAuthn ceremonies, by challenge."""

    last_answer: tuple[str, Any] | None = None
    """Outcome and approval of the last answer. `None` before the first."""

    def note_shown(self, approval_id: str, card: ShownCard) -> None:
        """Record the card that the person sees."""
        self.shown_cards.pop(approval_id, None)
        self.shown_cards[approval_id] = card
        while len(self.shown_cards) > _MAX_SHOWN:
            self.shown_cards.popitem(last=False)


class Sessions:
    """All sessions of a node. Only the event loop of the listener uses them.

    Args:
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_key: OrderedDict[bytes, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_key)

    def open(self, login: Login) -> tuple[str, Session]:
        """Open a session. Return the value of its cookie; the node keeps only a hash of it."""
        now = self._clock()
        cookie = secrets.token_urlsafe(32)
        session = Session(login, secrets.token_urlsafe(32), now, now)
        own = [key for key, other in self._by_key.items() if other.login.person == login.person]
        for key in own[: max(0, len(own) - _MAX_OF_A_PERSON + 1)]:
            del self._by_key[key]
        if len(self._by_key) >= _MAX_SESSIONS:
            self._drop_ended(now)
        while len(self._by_key) >= _MAX_SESSIONS:
            self._by_key.popitem(last=False)
        self._by_key[_key(cookie)] = session
        return cookie, session

    def find(self, cookie: str | None, *, is_use: bool = True) -> Session | None:
        """Return the session of a cookie, unless it ended.

        Args:
            cookie: Value of the cookie.
            is_use: Whether the request counts as the last use.
        """
        if not cookie:
            return None
        key = _key(cookie)
        session = self._by_key.get(key)
        if session is None:
            return None
        now = self._clock()
        if self._is_over(session, now):
            del self._by_key[key]
            return None
        if is_use:
            session.used_at = now
        return session

    def is_live(self, session: Session) -> bool:
        """Return whether a session is still open. The check does not count as a use."""
        return any(other is session for other in self._by_key.values()) and not self._is_over(
            session, self._clock()
        )

    def close(self, cookie: str | None) -> None:
        """End the session of a cookie."""
        if cookie:
            self._by_key.pop(_key(cookie), None)

    def close_all_of(self, person: str, but: Session | None = None) -> None:
        """End the sessions of a person.

        Args:
            person: `<issuer>/<sub>`.
            but: Session that stays open.
        """
        for key, session in list(self._by_key.items()):
            if session.login.person == person and session is not but:
                del self._by_key[key]

    def _drop_ended(self, now: float) -> None:
        for key in [key for key, session in self._by_key.items() if self._is_over(session, now)]:
            del self._by_key[key]

    @staticmethod
    def _is_over(session: Session, now: float) -> bool:
        return now - session.started_at >= LONGEST_SECONDS or now - session.used_at >= IDLE_SECONDS


def _key(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode()).digest()
