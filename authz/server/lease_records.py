"""Leases of a node: its brokers, and the lease records of its engine."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from authz.config import Credentials
from authz.leases import Lease, LeaseState, PostgresqlBroker, SecretBroker

__all__ = ["EngineLeases", "brokers_of", "lease_of"]


class LeaseCalls(Protocol):
    """The part of the engine that stores leases."""

    def leases(
        self, *, broker: str | None = None, session: str | None = None
    ) -> list[dict[str, Any]]:
        """Return records."""

    def put_lease(self, record: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
        """Change a record."""


class EngineLeases:
    """Lease records in the engine's store, whose times are milliseconds.

    Args:
        engine: Has the store.
    """

    def __init__(self, engine: LeaseCalls) -> None:
        self._engine = engine

    def leases(self, session: str | None = None) -> Iterator[Lease]:
        """Yield leases with the current state of their tasks. `session`: only leases of this session."""
        return (lease_of(record) for record in self._engine.leases(session=session))

    def put_lease(self, lease: Lease, before: Lease) -> bool:
        """Change a lease, or remove it (state `ended`), if it did not change meanwhile.

        Args:
            lease: The new record.
            before: The record that must be stored still.

        Returns:
            Whether the lease was changed. A lease becomes `live` only while its task is.
        """
        record = {name: value for name, value in lease.record.items() if name != "live"}
        record |= {
            "state": lease.state.value,
            "attempts": lease.attempts,
            "name": lease.name,
            "last_error": lease.last_error,
            "next_try": round(lease.next_try * 1000) if lease.next_try is not None else None,
        }
        was = {"state": before.state.value, "attempts": before.attempts}
        return self._engine.put_lease(record, was)


def lease_of(record: Mapping[str, Any]) -> Lease:
    """Return the lease in a record of the engine."""
    next_try = record.get("next_try")
    return Lease(
        id=str(record["id"]),
        broker=str(record["broker"]),
        state=LeaseState(record["state"]),
        expires_at=record["expires_at"] / 1000,
        operation=str(record["operation"]),
        attempts=int(record.get("attempts", 0)),
        next_try=next_try / 1000 if next_try is not None else None,
        live=bool(record.get("live", True)),
        last_error=str(record.get("last_error", "")),
        name=str(record.get("name", "")),
        record=record,
    )


def brokers_of(settings: Credentials) -> dict[str, SecretBroker]:
    """Make the configured brokers, by name; raises ConfigError if one needs an extra that is not installed."""
    return {
        name: PostgresqlBroker(name, broker, settings.issuer)
        for name, broker in settings.brokers.items()
    }
