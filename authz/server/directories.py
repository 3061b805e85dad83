"""How the directories of the bundle stand, for readiness, metrics and `authz status`."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from authz.model import Directory, MetricFamily, MetricKind
from authz.server.world import World

__all__ = ["Directories"]

_MAX_SHOWN: Final = 100


class Directories:
    """Tells how old each is; what is too old trusts nothing.

    Args:
        world: The bundle that serves.
        clock: Unix time.
    """

    def __init__(self, world: World, clock: Callable[[], float] = time.time) -> None:
        self._world = world
        self._clock = clock

    def problems(self) -> Iterable[str]:
        """Tell what is wrong.

        Returns:
            One line for each directory that is too old.
        """
        return tuple(
            f"the directory `{directory.name}` is too old, and trusts nothing: "
            + (
                f"{directory.file} was changed {age:.0f} s ago"
                if age is not None
                else "its file is gone"
            )
            for directory, age in self._aged()
            if not _is_fresh(directory, age)
        )[:_MAX_SHOWN]

    def detail(self) -> list[dict[str, Any]]:
        """Tell how each directory stands.

        Returns:
            JSON values.
        """
        return [
            {
                "name": directory.name,
                "from": directory.file,
                "entries": directory.entries,
                "trusted": directory.trusted,
                "age_seconds": round(age, 3) if age is not None else None,
                "max_age_seconds": directory.max_age,
                "fresh": _is_fresh(directory, age),
            }
            for directory, age in self._aged()
        ]

    def families(self) -> Iterator[MetricFamily]:
        """Give the metrics.

        Yields:
            Every family; labels are the names of the bundle.
        """
        aged = self._aged()

        def gauge(name: str, text: str, values: Iterable[tuple[str, float]]) -> MetricFamily:
            samples = tuple((name, {"directory": directory}, value) for directory, value in values)
            return MetricFamily(name, text, MetricKind.GAUGE, samples)

        yield gauge(
            "authz_directory_entries",
            "Entries of a directory.",
            [(directory.name, float(directory.entries)) for directory, _ in aged],
        )
        yield gauge(
            "authz_directory_fresh",
            "1 where a directory is fresh, else 0: then it trusts nothing.",
            [(directory.name, float(_is_fresh(directory, age))) for directory, age in aged],
        )
        yield gauge(
            "authz_directory_age_seconds",
            "Time since the file of a directory was last changed.",
            [(directory.name, age) for directory, age in aged if age is not None],
        )

    def _aged(self) -> list[tuple[Directory, float | None]]:
        stands, now = self._world.stands, self._clock()
        if stands.plan is None:
            return []
        changed = stands.directories
        return [
            (one, max(0.0, now - changed[one.name]) if one.name in changed else None)
            for one in stands.plan.directories
        ]


def _is_fresh(directory: Directory, age: float | None) -> bool:
    return directory.max_age is None or (age is not None and age < directory.max_age)
