"""The record of a lease, and the store of these records."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

__all__ = ["Lease", "LeaseState", "LeaseStore", "error_text"]

_MAX_ERROR: Final = 300
"""Most characters of an error in a record, the log or a status."""


class LeaseState(StrEnum):
    """State of a lease."""

    WANTED = "wanted"
    LIVE = "live"
    ENDING = "ending"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Lease:
    """The record of a lease."""

    id: str
    """`<session>/<uuid>`."""
    broker: str
    """Name of the broker."""
    state: LeaseState
    """State of the lease."""
    expires_at: float
    """Unix time at which the lease ends at the latest."""
    operation: str = ""
    """The permitted operation."""
    attempts: int = 0
    """Number of attempts to remove the secret."""
    next_try: float | None = None
    """Unix time of the next attempt."""
    live: bool = True
    """The task and its ancestors are live, and none of them is revoked."""
    last_error: str = ""
    """Error of the last attempt to remove the secret."""
    name: str = ""
    """Name of the secret in the system, such as the role's."""
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The full record of the store."""

    @property
    def session(self) -> str:
        """Session of the lease."""
        return self.id.partition("/")[0]

    def is_due(self, now: float) -> bool:
        """Return whether the secret must be removed: the task has ended, the lease has expired, or its removal has begun."""
        return self.state is LeaseState.ENDING or not self.live or self.expires_at <= now


class LeaseStore(Protocol):
    """Has the records."""

    def leases(self, session: str | None = None) -> Iterable[Lease]:
        """Return leases, with the current state of their tasks. `session`: only leases of this session."""

    def put_lease(self, lease: Lease, before: Lease) -> bool:
        """Change a lease, or remove it (state `ended`), if it did not change meanwhile.

        Args:
            lease: The new record.
            before: The record that must be stored still.

        Returns:
            Whether the lease was changed. A lease becomes `live` only while its task is.
        """


def error_text(error: BaseException) -> str:
    """Return the text of an error in at most 300 characters; of one without a text, its type."""
    return str(error)[:_MAX_ERROR] or type(error).__name__
