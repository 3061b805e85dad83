"""What a bundle only observes: how it is told, and a reminder before it ends."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from authz.engine import Plan
from authz.model import Observing
from authz.telemetry import Logger

__all__ = ["WARNED_DAYS", "ModeReminder", "told"]

WARNED_DAYS: Final = 7
"""Days before its end from which an entry is warned of."""

_DAY: Final = 86_400.0


def told(entry: Observing, now: float) -> dict[str, Any]:
    """Tell of an entry.

    Args:
        entry: The entry.
        now: Unix time.

    Returns:
        It as JSON values: `active` while it observes, `ends_soon` in its last week.
    """
    left = entry.until - now
    return {
        "scope": entry.scope,
        "name": entry.name,
        "owner": entry.owner,
        "until": datetime.fromtimestamp(entry.until, UTC).isoformat().replace("+00:00", "Z"),
        "active": left > 0,
        "ends_soon": 0 < left <= WARNED_DAYS * _DAY,
    }


class ModeReminder:
    """Says in the log what is not enforced: when it begins, once a day in its last week, and when it ends.

    Args:
        plan: The bundle that serves; none before the first.
        log: Where it is said.
        clock: Unix time.
    """

    def __init__(
        self, plan: Callable[[], Plan | None], log: Logger, clock: Callable[[], float]
    ) -> None:
        self._plan = plan
        self._log = log
        self._clock = clock
        self._said: dict[tuple[Observing, str], float] = {}

    def remind(self) -> None:
        """Say what is due."""
        plan, now = self._plan(), self._clock()
        entries = plan.observing if plan is not None else ()
        said = {}
        for entry in entries:
            detail = told(entry, now)
            if detail["ends_soon"]:
                kind, again = "observe ends soon; from then on denials are enforced", _DAY
            elif detail["active"]:
                kind, again = "observe: denials are noted, and the calls let through", float("inf")
            else:
                kind, again = "observe has ended; denials are enforced", float("inf")
            key = (entry, kind)
            before = self._said.get(key)
            if before is None or now - before >= again:
                of = {name: detail[name] for name in ("scope", "name", "owner", "until")}
                self._log.warning(kind, **of)
                before = now
            said[key] = before
        self._said = said
