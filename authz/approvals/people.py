"""Verified people who answer approvals."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from authz.config import ApprovalPerson

__all__ = ["AnswerMethod", "PasskeyAssertion", "PeopleByUid", "Person"]


class AnswerMethod(StrEnum):
    """Way in which a person proved who answers."""

    LOGIN = "login"
    PASSKEY = "passkey"
    SOCKET = "socket"


@dataclass(frozen=True, slots=True)
class PasskeyAssertion:
    """Assertion of a passkey (WebAuthn §6.3.3). Its fields are base64url without padding, as the browser gave them."""

    credential_id: str
    """Id of the passkey."""
    signature: str
    """The signature."""
    authenticator_data: str
    """Authenticator data."""
    client_data_json: str
    """Client data, which hold the challenge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A verified human who reads or answers approvals."""

    issuer: str
    """Alias of the issuer."""
    sub: str
    """Subject at the issuer."""
    method: AnswerMethod
    """Way in which the person proved who answers."""
    authenticated_at_ms: int
    """Time of the proof, in milliseconds since 1970."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    """Claims of the person that the bundle may read."""
    acr: str = ""
    """`acr` of the login. Default: the login has none."""
    uid: int | None = None
    """User ID of the process at the administration socket."""
    passkey: PasskeyAssertion | None = None
    """Assertion over the answer. Required for an approval with `needs_passkey`."""

    @property
    def name(self) -> str:
        """`<issuer>/<sub>`."""
        return f"{self.issuer}/{self.sub}"


class PeopleByUid:
    """People who answer over the administration socket, by the user ID of their process.

    Args:
        people: `approvals.people`.
        clock: Seconds since 1970.
    """

    def __init__(
        self, people: Sequence[ApprovalPerson], clock: Callable[[], float] = time.time
    ) -> None:
        self._people = {person.uid: person for person in people}
        self._clock = clock

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self._people)

    def find(self, uid: int) -> Person | None:
        """Return the person of a user ID, authenticated now, or `None` if no person is configured for it."""
        person = self._people.get(uid)
        if person is None:
            return None
        return Person(
            issuer=person.issuer,
            sub=person.sub,
            method=AnswerMethod.SOCKET,
            authenticated_at_ms=round(self._clock() * 1000),
            claims=dict(person.claims),
            uid=uid,
        )
