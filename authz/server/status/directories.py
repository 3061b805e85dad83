"""Status of the bundle's directories, for readiness, metrics and `authz status`."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from authz.config.urls import shown
from authz.model import Directory, MetricFamily, MetricKind
from authz.server.runtime_state import RuntimeState
from authz.trust import SourceStatus

__all__ = ["DirectoryStatus"]

_MAX_SHOWN: Final = 100


class DirectoryStatus:
    """Reports the age of each directory. The entries of a stale directory are not trusted.

    Args:
        runtime: Has the bundle that serves.
        clock: Unix time.
        fetched: Returns the status of each directory that is fetched, by name.
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
        """Return one line for each directory that is stale or could not be fetched."""
        return tuple(self._problems())[:_MAX_SHOWN]

    def _problems(self) -> Iterator[str]:
        fetched = self._fetched()
        for directory, age in self._aged():
            error = fetched[directory.name].error if directory.name in fetched else ""
            reason = f" ({error})" if error else ""
            if not _is_fresh(directory, age):
                why = _why(directory, age)
                yield f"the directory `{directory.name}` is too old, and trusts nothing: {why}{reason}"
            elif error:
                yield f"the directory `{directory.name}` was not refreshed{reason}"

    def detail(self) -> list[dict[str, Any]]:
        """Return each directory as JSON values."""
        fetched = self._fetched()
        return [
            {
                "name": directory.name,
                "from": directory.file or shown(directory.url),
                "entries": self._entries(directory),
                "trusted": directory.trusted,
                "age_seconds": round(age, 3) if age is not None else None,
                "max_age_seconds": directory.max_age,
                "fresh": _is_fresh(directory, age),
                "error": fetched[directory.name].error if directory.name in fetched else "",
            }
            for directory, age in self._aged()
        ]

    def _entries(self, directory: Directory) -> int:
        if directory.entries is not None:
            return directory.entries
        fetched = self._runtime.snapshot.fetched.get(directory.name)
        return len(fetched.entries) if fetched is not None else 0

    def families(self) -> Iterator[MetricFamily]:
        """Yield every metric; labels are names of the bundle."""
        aged = self._aged()

        def gauge(name: str, text: str, values: Iterable[tuple[str, float]]) -> MetricFamily:
            samples = tuple((name, {"directory": directory}, value) for directory, value in values)
            return MetricFamily(name, text, MetricKind.GAUGE, samples)

        yield gauge(
            "authz_directory_entries",
            "Entries of a directory.",
            [(directory.name, float(self._entries(directory))) for directory, _ in aged],
        )
        yield gauge(
            "authz_directory_fresh",
            "1 where a directory is fresh, else 0: then it trusts nothing.",
            [(directory.name, float(_is_fresh(directory, age))) for directory, age in aged],
        )
        yield gauge(
            "authz_directory_age_seconds",
            "Time since the file of a directory was last changed, or it was fetched.",
            [(directory.name, age) for directory, age in aged if age is not None],
        )
        yield MetricFamily(
            "authz_directory_refresh",
            "Attempts to fetch a directory.",
            MetricKind.COUNTER,
            tuple(
                (
                    "authz_directory_refresh_total",
                    {"directory": name, "result": str(outcome)},
                    float(count),
                )
                for name, status in self._fetched().items()
                for outcome, count in status.counts.items()
            ),
        )

    def _aged(self) -> list[tuple[Directory, float | None]]:
        snapshot, now = self._runtime.snapshot, self._clock()
        if snapshot.plan is None:
            return []
        changed = snapshot.directories
        return [
            (
                directory,
                max(0.0, now - changed[directory.name]) if directory.name in changed else None,
            )
            for directory in snapshot.plan.directories
        ]


def _why(directory: Directory, age: float | None) -> str:
    """Return why a directory is stale."""
    if directory.url:
        return f"it was fetched {age:.0f} s ago" if age is not None else "it was not fetched"
    if age is None:
        return "its file is gone"
    return f"{directory.file} was changed {age:.0f} s ago"


def _is_fresh(directory: Directory, age: float | None) -> bool:
    return directory.max_age is None or (age is not None and age < directory.max_age)
