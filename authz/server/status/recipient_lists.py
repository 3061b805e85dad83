"""Status of the bundle's recipient lists, for readiness, metrics and `authz status`."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from authz.config.urls import shown
from authz.model import MetricFamily, MetricKind, RecipientList
from authz.server.runtime_state import RuntimeState
from authz.trust import SourceStatus

__all__ = ["RecipientListStatus"]

_MAX_SHOWN: Final = 100


class RecipientListStatus:
    """Reports the age of each recipient list. The entries of a stale recipient list are not trusted.

    Args:
        runtime: Has the bundle that serves.
        clock: Unix time.
        fetched: Returns the status of each recipient list that is fetched, by name.
    """

    def __init__(
        self,
        runtime: RuntimeState,
        clock: Callable[[], float] = time.time,
        fetched: Callable[[], Mapping[str, SourceStatus]] = dict,
    ) -> None:
        self._runtime = runtime
        self._clock = clock
        self._fetched = fetched

    def problems(self) -> Iterable[str]:
        """Return one line for each recipient list that is stale or could not be fetched."""
        return tuple(self._problems())[:_MAX_SHOWN]

    def _problems(self) -> Iterator[str]:
        fetched = self._fetched()
        for recipient_list, age in self._aged():
            error = fetched[recipient_list.name].error if recipient_list.name in fetched else ""
            reason = f" ({error})" if error else ""
            if not _is_fresh(recipient_list, age):
                why = _why(recipient_list, age)
                yield f"the recipient list `{recipient_list.name}` is too old, and trusts nothing: {why}{reason}"
            elif error:
                yield f"the recipient list `{recipient_list.name}` was not refreshed{reason}"

    def detail(self) -> list[dict[str, Any]]:
        """Return each recipient list as JSON values."""
        fetched = self._fetched()
        return [
            {
                "name": recipient_list.name,
                "from": recipient_list.file or shown(recipient_list.url),
                "entries": self._entries(recipient_list),
                "trusted": recipient_list.trusted,
                "age_seconds": round(age, 3) if age is not None else None,
                "max_age_seconds": recipient_list.max_age,
                "fresh": _is_fresh(recipient_list, age),
                "error": fetched[recipient_list.name].error
                if recipient_list.name in fetched
                else "",
            }
            for recipient_list, age in self._aged()
        ]

    def _entries(self, recipient_list: RecipientList) -> int:
        if recipient_list.entries is not None:
            return recipient_list.entries
        fetched = self._runtime.snapshot.fetched.get(recipient_list.name)
        return len(fetched.entries) if fetched is not None else 0

    def families(self) -> Iterator[MetricFamily]:
        """Yield every metric; labels are names of the bundle."""
        aged = self._aged()

        def gauge(name: str, text: str, values: Iterable[tuple[str, float]]) -> MetricFamily:
            samples = tuple(
                (name, {"recipient_list": recipient_list}, value)
                for recipient_list, value in values
            )
            return MetricFamily(name, text, MetricKind.GAUGE, samples)

        yield gauge(
            "authz_recipient_list_entries",
            "Entries of a recipient list.",
            [
                (recipient_list.name, float(self._entries(recipient_list)))
                for recipient_list, _ in aged
            ],
        )
        yield gauge(
            "authz_recipient_list_fresh",
            "1 where a recipient list is fresh, else 0: then it trusts nothing.",
            [
                (recipient_list.name, float(_is_fresh(recipient_list, age)))
                for recipient_list, age in aged
            ],
        )
        yield gauge(
            "authz_recipient_list_age_seconds",
            "Time since the file of a recipient list was last changed, or it was fetched.",
            [(recipient_list.name, age) for recipient_list, age in aged if age is not None],
        )
        yield MetricFamily(
            "authz_recipient_list_refresh",
            "Attempts to fetch a recipient list.",
            MetricKind.COUNTER,
            tuple(
                (
                    "authz_recipient_list_refresh_total",
                    {"recipient_list": name, "result": str(outcome)},
                    float(count),
                )
                for name, status in self._fetched().items()
                for outcome, count in status.counts.items()
            ),
        )

    def _aged(self) -> list[tuple[RecipientList, float | None]]:
        snapshot, now = self._runtime.snapshot, self._clock()
        if snapshot.plan is None:
            return []
        changed = snapshot.recipient_lists
        return [
            (
                recipient_list,
                max(0.0, now - changed[recipient_list.name])
                if recipient_list.name in changed
                else None,
            )
            for recipient_list in snapshot.plan.recipient_lists
        ]


def _why(recipient_list: RecipientList, age: float | None) -> str:
    """Return why a recipient list is stale."""
    if recipient_list.url:
        return f"it was fetched {age:.0f} s ago" if age is not None else "it was not fetched"
    if age is None:
        return "its file is gone"
    return f"{recipient_list.file} was changed {age:.0f} s ago"


def _is_fresh(recipient_list: RecipientList, age: float | None) -> bool:
    return recipient_list.max_age is None or (age is not None and age < recipient_list.max_age)
