"""Leases of a configuration as the analyzer reads them: each right with the effects of operations that need it."""

from collections.abc import Iterator
from typing import Any, Final

from authz.config import Config, Grant, Privilege

__all__ = ["lease_documents"]

_EFFECTS: Final = {
    ("table", Privilege.SELECT): ("read", "export"),
    ("table", Privilege.INSERT): ("write",),
    ("table", Privilege.UPDATE): ("write",),
    ("table", Privilege.DELETE): ("delete",),
    ("table", Privilege.TRUNCATE): ("delete",),
    ("sequence", Privilege.SELECT): ("read", "export"),
    # `nextval` and `setval` change the sequence.
    ("sequence", Privilege.USAGE): ("write",),
    ("sequence", Privilege.UPDATE): ("write",),
    ("schema", Privilege.CREATE): ("write", "execute"),
}
"""Effects of which an operation has one if it needs a privilege of PostgreSQL, the usual one first. Other privileges have no effect."""


def lease_documents(config: Config) -> list[dict[str, Any]]:
    """Return the leases of a configuration, in the form of the analyzer's request.

    Args:
        config: A checked configuration. No broker is contacted, and no file that it names is read.

    Returns:
        One document for each operation of each broker, with the members `operation`, `broker`, `place` and `rights`.
    """
    brokers = {} if config.credentials is None else config.credentials.brokers
    return [
        {
            "operation": operation,
            "broker": name,
            "place": f"credentials.brokers.{name}.systems.{system}.operations.{operation}",
            "rights": [right for grant in grants for right in _rights(grant)],
        }
        for name, broker in brokers.items()
        for system, brokered in broker.systems.items()
        for operation, grants in brokered.operations.items()
    ]


def _rights(grant: Grant) -> Iterator[dict[str, Any]]:
    objects = (("table", grant.tables), ("sequence", grant.sequences), ("schema", grant.schemas))
    for kind, names in objects:
        for name in names:
            for privilege in grant.privileges:
                yield {
                    "privilege": privilege.value,
                    "effects": list(_EFFECTS.get((kind, privilege), ())),
                    "kind": kind,
                    "database": grant.database,
                    "name": name,
                    "columns": list(grant.columns),
                }
