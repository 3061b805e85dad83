"""Holds results against `bench/thresholds.json`."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Results = Mapping[str, Mapping[str, Any]]
# What tells ratios of one name apart.
_SIDES = ("lane", "surface", "state", "time")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure against its threshold.

    Attributes:
        id: of the threshold.
        what: what it is about.
        value: the worst value measured; None: not measured.
        where: of which lane and surface, or state and time, that was; empty where there is only one.
        at_most: the threshold.
    """

    id: str
    what: str
    value: float | None
    where: str
    at_most: float

    @property
    def met(self) -> bool | None:
        """Whether the threshold is met; None: not measured."""
        return None if self.value is None else self.value <= self.at_most

    def line(self) -> str:
        """Returns it as a line for people."""
        word = {True: "met", False: "MISSED", None: "not measured"}[self.met]
        value = "" if self.value is None else f" {self.value:g}"
        where = f" ({self.where})" if self.where else ""
        return f"{word:12} {self.what}: at most {self.at_most:g},{value}{where}"


def thresholds(folder: Path) -> list[dict[str, Any]]:
    """Reads the thresholds.

    Args:
        folder: `bench/`.
    """
    read: list[dict[str, Any]] = json.loads((folder / "thresholds.json").read_text())
    return read


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """Reads the results that exist, by file name without suffix.

    Args:
        folder: `bench/results/`.
    """
    return {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}


def judge(limits: list[dict[str, Any]], measured: Results) -> list[Verdict]:
    """Returns a verdict for each threshold: the worst of the values that it speaks of.

    Args:
        limits: of `thresholds`.
        measured: of `results`.
    """
    verdicts = []
    for limit in limits:
        values = list(_values(limit, measured.get(limit["from"], {})))
        value, where = max(values) if values else (None, "")
        verdicts.append(Verdict(limit["id"], limit["what"], value, where, limit["at_most"]))
    return verdicts


def _values(limit: dict[str, Any], found: Mapping[str, Any]) -> Iterator[tuple[float, str]]:
    if "ratio" in limit:
        for one in found.get("ratios", ()):
            named = all(limit[side] == one.get(side) for side in _SIDES if side in limit)
            meant = one.get("time") in limit.get("times", [one.get("time")])
            if one["ratio"] == limit["ratio"] and named and meant:
                yield one["median"], " ".join(one[side] for side in _SIDES if side in one)
    elif "half" in limit:
        for row in found.get("rows", ()):
            # The rate of the open loop that is not a round number is half of the saturation.
            if row["half"] and row[limit["half"]] is not None:
                yield row[limit["half"]], f"{row['lane']} {row['surface']}, {row['policies']}"
    elif "key" in limit:
        if limit["key"] in found:
            yield found[limit["key"]], ""
    else:
        by_name = {row["name"]: row["median_us"] for row in found.get("rows", ())}
        over = by_name.get(limit.get("over", ""), 1.0 if "over" not in limit else None)
        if limit["name"] in by_name and over is not None:
            yield round(by_name[limit["name"]] / over, 3), ""
