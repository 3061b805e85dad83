"""The interface of a broker: it makes secrets for leases, and removes them."""

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
    """A secret cannot be made or removed. The message names no secret."""


class NothingMadeError(BrokerError):
    """A secret was not made, and it is certain that none is there."""


class UnreachableError(BrokerError):
    """The system does not let the broker in: no secret of it can be made or removed now."""


class NotRemovedError(BrokerError):
    """A secret gives no access any more, but something of it is left."""


@dataclass(frozen=True, slots=True)
class LeaseOrder:
    """An order for the secret of a lease."""

    lease: str
    """Id of the lease."""
    operation: str
    """The permitted operation."""
    expires_at: float
    """Unix time at which the lease ends at the latest."""
    holder: str = ""
    """The agent that gets the secret. The secrets of one agent must not use up the capacity of the system."""


class SecretBroker(Protocol):
    """Makes a secret for each lease, and removes it.

    The record of a lease is committed before `make`, and removed after `end`, so that a record exists as long as the secret may.
    """

    @property
    def name(self) -> str:
        """Name of the broker in the configuration."""

    def serves(self, operation: str) -> bool:
        """Return whether an operation has grants."""

    def name_of(self, lease: str) -> str:
        """Return the name of the secret in the system, such as the role's. It follows from the lease's id alone, and may be shown."""

    def make(self, order: LeaseOrder, within: float) -> Mapping[str, str]:
        """Make the secret of a lease.

        Args:
            order: The order.
            within: Seconds that it may take.

        Returns:
            The secret in named parts.

        Raises:
            NothingMadeError: No secret was made.
            BrokerError: A secret may have been made; `end` removes it.
        """

    def stop(self, lease: str, within: float) -> None:
        """End the access of a secret: it opens no new session, and sessions that it opened are closed.

        No action of a holder of any secret can delay this. Succeeds for a secret that does not exist.

        Args:
            lease: Id of the lease.
            within: Seconds that it may take.

        Raises:
            UnreachableError: The system does not let the broker in.
            BrokerError: The secret may still give access.
        """

    def end(self, lease: str, within: float) -> None:
        """Stop a secret, then remove it with everything that it created. Succeeds for a secret that does not exist.

        Args:
            lease: Id of the lease.
            within: Seconds that it may take.

        Raises:
            NotRemovedError: The secret gives no access, but still exists.
            UnreachableError: The system does not let the broker in.
            BrokerError: The secret may still give access.
        """

    def end_orphans(self, known: Callable[[], frozenset[str]], within: float) -> int:
        """Remove secrets of this broker that have no lease.

        Args:
            known: Returns the ids of all leases. It is called after the secrets were listed.
            within: Seconds that it may take.

        Returns:
            The number of removed secrets.

        Raises:
            BrokerError: The secrets cannot be listed, or one of them may still exist.
        """

    def inspect(self, within: float) -> tuple[str, ...]:
        """Return problems of the system's settings: leases get more access than granted, or cannot be made.

        Args:
            within: Seconds that it may take.

        Returns:
            One line for each problem, with its fix.

        Raises:
            BrokerError: The settings cannot be read.
        """

    def close(self) -> None:
        """Close open connections. Secrets stay as they are."""
