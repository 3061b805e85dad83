"""Entries of the bundle's `mode` and policies that only observe: their status, and a reminder in the log before they end."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from authz.engine import Plan
from authz.model import Observing
from authz.telemetry import Logger

__all__ = ["WARNED_DAYS", "ModeReminder", "entry_detail"]

WARNED_DAYS: Final = 7
"""Days before the end of an entry from which it is warned of."""

_DAY: Final = 86_400.0
_TEXTS: Final = {
    True: (
        "observe ends soon; from then on the policy is enforced, a permit excepted",
        "observe: the policy has no part in answers",
        "observe has ended; the policy is enforced, a permit excepted",
    ),
    False: (
        "observe ends soon; from then on denials are enforced",
        "observe: denials are logged, and the calls pass",
        "observe has ended; denials are enforced",
    ),
}


def entry_detail(entry: Observing, now: float) -> dict[str, Any]:
    """Return an entry as JSON values: `active` while it observes, `ends_soon` in its last week."""
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
    """Logs each entry that observes: when it begins, once a day in its last week, and when it ends.

    Args:
        plan: Returns the bundle that serves; `None` before the first load.
        log: The log.
        clock: Unix time.
    """

    def __init__(
        self, plan: Callable[[], Plan | None], log: Logger, clock: Callable[[], float]
    ) -> None:
        self._plan = plan
        self._log = log
        self._clock = clock
        self._logged: dict[tuple[Observing, str], float] = {}

    def remind(self) -> None:
        """Log the entries that are due."""
        plan, now = self._plan(), self._clock()
        entries = plan.observing if plan is not None else ()
        logged = {}
        for entry in entries:
            detail = entry_detail(entry, now)
            soon, active, ended = _TEXTS[entry.scope == "policy"]
            if detail["ends_soon"]:
                kind, again = soon, _DAY
            elif detail["active"]:
                kind, again = active, float("inf")
            else:
                kind, again = ended, float("inf")
            key = (entry, kind)
            before = self._logged.get(key)
            if before is None or now - before >= again:
                values = {name: detail[name] for name in ("scope", "name", "owner", "until")}
                self._log.warning(kind, **values)
                before = now
            logged[key] = before
        self._logged = logged
