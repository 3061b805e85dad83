"""What must be true of answers that were given at once, by when each was asked and answered."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

__all__ = ["REPORT", "TOLD", "Answer", "Limit", "Pair", "violations"]

PERMITTED = "PERMITTED"
FORBIDDEN = "FORBIDDEN"
#: A report that was taken.
TOLD = "TOLD"
#: With its result, the operation of a report.
REPORT = "report"


@dataclass(frozen=True)
class Answer:
    """One call and what came of it; no code: nobody answered, so that it may have been done or not."""

    operation: str
    task: str
    begun: float
    ended: float
    code: str


@dataclass(frozen=True)
class Limit:
    """What may be permitted so often, over all the calls that it is of."""

    name: str
    most: int
    #: What is answered beyond it.
    code: str
    of: Callable[[Answer], bool]
    #: What gives one back.
    back: Callable[[Answer], bool] = lambda _: False


@dataclass(frozen=True)
class Pair:
    """What must not be done after something else, by the tasks of each."""

    name: str
    before: tuple[str, str]
    after: tuple[str, str]


def violations(
    answers: Iterable[Answer], limits: Iterable[Limit], pairs: Iterable[Pair]
) -> Iterator[str]:
    """Holds answers against the rules.

    Args:
        answers: All of them.
        limits: Of the bundle.
        pairs: What must not follow what.

    Yields:
        One line for each thing that is not as it must be.
    """
    known = list(answers)
    by_call: dict[tuple[str, str], list[Answer]] = {}
    for one in known:
        by_call.setdefault((one.operation, one.task), []).append(one)
    expected = {PERMITTED, FORBIDDEN, TOLD, ""}
    for limit in limits:
        expected.add(limit.code)
        back = [one for one in known if limit.back(one)]
        yield from _limited(limit, [one for one in known if limit.of(one)], back)
    for pair in pairs:
        yield from _ordered(pair, by_call.get(pair.before, []), by_call.get(pair.after, []))
    for one in known:
        if one.code not in expected:
            yield f"{one.operation} in {one.task} was answered {one.code}"


def _limited(limit: Limit, answers: list[Answer], back: list[Answer]) -> Iterator[str]:
    permits = [one for one in answers if one.code == PERMITTED]
    for last in permits:
        until = sum(one.ended <= last.ended for one in permits)
        most = limit.most + sum(one.begun < last.ended for one in back)
        if until > most:
            yield f"{limit.name}: {until} were permitted, at most {most} may be"
            break
    denied = [one for one in answers if one.code not in {PERMITTED, ""}]
    for one in denied:
        # Whatever was asked before this was answered may have taken the room, also where nobody heard of it.
        taken = sum(other.begun < one.ended for other in answers if other.code in {PERMITTED, ""})
        taken -= sum(other.ended < one.begun for other in back if other.code == TOLD)
        if taken < limit.most:
            yield (
                f"{limit.name}: {one.operation} in {one.task} was answered {one.code} with room "
                f"left: {taken} of {limit.most} were taken"
            )
    heard = all(one.code for one in answers)
    if denied and heard and not back and len(permits) != limit.most:
        yield f"{limit.name}: {len(permits)} of {limit.most} were permitted, and then no more"


def _ordered(pair: Pair, before: list[Answer], after: list[Answer]) -> Iterator[str]:
    permitted = [one for one in before if one.code == PERMITTED]
    surely = min((one.ended for one in permitted), default=float("inf"))
    perhaps = min(
        (one.begun for one in before if one.code in {PERMITTED, ""}), default=float("inf")
    )
    for one in after:
        if one.code == PERMITTED and one.begun > surely:
            yield f"{pair.name}: {one.operation} in {one.task} was permitted after {pair.before[0]}"
        if one.code == FORBIDDEN and one.ended < perhaps:
            yield f"{pair.name}: {one.operation} in {one.task} was denied before {pair.before[0]}"
