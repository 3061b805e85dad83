"""What makes and takes back secrets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from authz.errors import UnavailableError

__all__ = [
    "BrokerError",
    "LeaseOrder",
    "NotRemovedError",
    "NothingMadeError",
    "SecretBroker",
    "UnreachableError",
]


class BrokerError(UnavailableError):
    """A secret cannot be made or taken back; what it says names no secret."""


class NothingMadeError(BrokerError):
    """A secret was not made, and it is certain that none is there."""


class UnreachableError(BrokerError):
    """The system does not let the broker in: no secret of it can be made or taken back now."""


class NotRemovedError(BrokerError):
    """A secret opens nothing any more, but something of it is still there."""


@dataclass(frozen=True, slots=True)
class LeaseOrder:
    """A secret that a lease needs."""

    lease: str
    """Id of the lease."""
    operation: str
    """The operation that was permitted."""
    expires_at: float
    """When it ends at the latest, Unix time."""
    holder: str = ""
    """The agent that gets it: one agent's secrets never use up all that the system can take."""


class SecretBroker(Protocol):
    """Makes a secret for each lease, and takes it back.

    The record of a lease is committed before `make`, and removed after `end`: whatever happens between the two, somebody
    knows that the secret may exist.
    """

    @property
    def name(self) -> str:
        """Its name in the configuration."""

    def serves(self, operation: str) -> bool:
        """Tell whether a lease for an operation can be had.

        Args:
            operation: The operation's id.

        Returns:
            Whether something is granted for it.
        """

    def name_of(self, lease: str) -> str:
        """Name what is made for a lease.

        Args:
            lease: The lease's id.

        Returns:
            A name that follows from the id alone, such as the role's; no secret.
        """

    def make(self, order: LeaseOrder, within: float) -> Mapping[str, str]:
        """Make the secret of a lease.

        Args:
            order: What is needed.
            within: Seconds that it may take.

        Returns:
            The secret in named parts.

        Raises:
            NothingMadeError: It was not made.
            BrokerError: Nobody can tell; `end` takes back what may be there.
        """

    def stop(self, lease: str, within: float) -> None:
        """End the access that a secret gives: nobody gets in with it, and nobody who got in is in any more.

        Nothing that the holder of any secret does can hold this up. Succeeds where there is no such secret.

        Args:
            lease: The lease's id.
            within: Seconds that it may take.

        Raises:
            UnreachableError: The system does not let the broker in.
            BrokerError: The secret may still give access.
        """

    def end(self, lease: str, within: float) -> None:
        """Stop a secret, then remove it with all that was made by it. Succeeds where there is no such secret.

        Args:
            lease: The lease's id.
            within: Seconds that it may take.

        Raises:
            NotRemovedError: It gives no access, but is still there.
            UnreachableError: The system does not let the broker in.
            BrokerError: It may still give access.
        """

    def end_orphans(self, known: Callable[[], frozenset[str]], within: float) -> int:
        """Take back what was made by us for leases that nobody knows any more.

        Args:
            known: Gives the ids of the leases that there are; asked after it was seen what there is.
            within: Seconds that it may take.

        Returns:
            How many were taken back.

        Raises:
            BrokerError: It cannot be told, or one of them may still be there.
        """

    def inspect(self, within: float) -> tuple[str, ...]:
        """Look for settings of the system by which leases get more than they should, or cannot be made.

        Args:
            within: Seconds that it may take.

        Returns:
            What is wrong, a line each, with the remedy.

        Raises:
            BrokerError: It cannot be told.
        """

    def close(self) -> None:
        """Close what is kept open. Secrets stay as they are."""
