"""What the server counted: read before and after a load."""

from collections.abc import Mapping
from itertools import pairwise

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def decisions(before: Samples, after: Samples) -> dict[str, int]:
    """Returns how many decisions were made between two readings, by decision and reason.

    Args:
        before: the earlier reading.
        after: the later one.
    """
    made: dict[str, int] = {}
    for (name, labels), value in after.items():
        if name != "authz_decisions_total":
            continue
        count = int(value - before.get((name, labels), 0))
        if count:
            named = dict(labels)
            key = f"{named.get('decision', '?')} {named.get('reason_code', '?')}"
            made[key] = made.get(key, 0) + count
    return made


def quantile(before: Samples, after: Samples, name: str, share: float) -> float:
    """Returns a quantile of a histogram between two readings, in the histogram's unit.

    The true value lies in one bucket; within it the observations are taken to be spread evenly, as Prometheus does.

    Args:
        before: the earlier reading.
        after: the later one.
        name: of the histogram, without suffix.
        share: above 0, at most 1.

    Raises:
        ValueError: no observation between the two, or the quantile lies beyond the last bound.
    """
    counts: dict[float, float] = {}
    for (sample, labels), value in after.items():
        if sample == f"{name}_bucket":
            bound = float(dict(labels)["le"])
            counts[bound] = counts.get(bound, 0) + value - before.get((sample, labels), 0)
    bounds = sorted(counts.items())
    if not bounds or bounds[-1][1] <= 0:
        raise ValueError(f"`{name}` counted nothing")
    wanted = share * bounds[-1][1]
    for (low, under), (high, up_to) in pairwise([(0.0, 0.0), *bounds]):
        if up_to >= wanted:
            if high == float("inf"):
                raise ValueError(f"{share} of `{name}` lies above its last bound, {low}")
            return low + (high - low) * (wanted - under) / (up_to - under)
    raise ValueError(f"`{name}` has no bound +Inf")
