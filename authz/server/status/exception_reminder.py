"""Standing exceptions of the bundle that have expired or expire soon."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["WARNED_DAYS", "expiring"]

WARNED_DAYS: Final = 14
"""Number of days before the end of an exception in which readiness warns. `authz check` warns in the same days."""

_DAY: Final = 86_400.0


def expiring(exceptions: Iterable[Mapping[str, Any]], now: float) -> Iterator[str]:
    """Yield one line for each exception that has expired, or expires soon.

    Args:
        exceptions: Exceptions, as the engine returns them.
        now: Unix time.
    """
    for entry in exceptions:
        expires = int(entry["expires_ms"]) / 1000
        if expires - now > WARNED_DAYS * _DAY:
            continue
        end = datetime.fromtimestamp(expires, UTC).isoformat().replace("+00:00", "Z")
        word = "expires" if now < expires else "expired"
        yield f"exception {entry['name']} {word} at {end} ({entry['owner']}, {entry['ticket']})"
