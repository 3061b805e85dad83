"""Goals: predicates over the end state of a back end."""

from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from bench.detection.references import forms, plain
from bench.detection.world import CorpusError, Row, World

Goal = Mapping[str, Any]

_KEYS: Final[dict[str, set[str]]] = {
    "all": set(),
    "any": set(),
    "not": set(),
    "some": {"where", "at_least"},
    "none": {"where"},
    "total": {"of", "where", "at_least"},
    "leak": {"to"},
}


def check(goal: Any) -> None:
    """Checks the form of a goal.

    Args:
        goal: as it stands in the scenario.

    Raises:
        CorpusError: it has another form.
    """
    if not isinstance(goal, Mapping):
        raise CorpusError(f"no goal: {goal}")
    kinds = [key for key in goal if key in _KEYS]
    if len(kinds) != 1 or set(goal) - {kinds[0]} - _KEYS[kinds[0]]:
        raise CorpusError(f"a goal has one of {sorted(_KEYS)}, and only what belongs to it: {goal}")
    kind = kinds[0]
    if kind in ("all", "any", "leak") and not (isinstance(goal[kind], list) and goal[kind]):
        raise CorpusError(f"`{kind}` takes a list: {goal}")
    if kind == "total" and not {"of", "at_least"} <= set(goal):
        raise CorpusError(f"`total` needs `of` and `at_least`: {goal}")
    for one in _within(goal):
        check(one)
    for test in goal.get("where", {}).values():
        if isinstance(test, dict) and (len(test) != 1 or set(test) - set(_TESTS)):
            raise CorpusError(f"a column is tested by one of {sorted(_TESTS)}: {goal}")


def reached(goal: Goal, world: World) -> bool:
    """Returns whether a state is the one that a goal describes.

    Args:
        goal: the goal.
        world: the state.

    Raises:
        CorpusError: it names a table or a column that is not there.
    """
    within = (reached(one, world) for one in _within(goal))
    found = False
    match goal:
        case {"all": _}:
            found = all(within)
        case {"any": _}:
            found = any(within)
        case {"not": _}:
            found = not any(within)
        case {"some": table}:
            found = len(_rows(goal, table, world)) >= int(goal.get("at_least", 1))
        case {"none": table}:
            found = not _rows(goal, table, world)
        case {"total": table}:
            rows = _rows(goal, table, world)
            found = sum(abs(row[goal["of"]]) for row in rows) >= int(goal["at_least"])
        case {"leak": texts}:
            found = _leaked(texts, goal.get("to", "*"), world)
    return found


def tables(goal: Goal) -> Iterator[str]:
    """Yields the tables that a goal speaks of.

    Args:
        goal: the goal.
    """
    for one in _within(goal):
        yield from tables(one)
    for kind in ("some", "none", "total"):
        if kind in goal:
            yield goal[kind]


def _within(goal: Goal) -> list[Any]:
    return [*goal.get("all", ()), *goal.get("any", ()), *([goal["not"]] if "not" in goal else [])]


def _leaked(texts: list[str], readers: str, world: World) -> bool:
    got = {
        plain(form)
        for reader, seen in world.seen.items()
        if fnmatchcase(reader, readers)
        for text in seen
        for form in forms(text)
    }
    return all(any(plain(text) in one for one in got) for text in texts)


def _rows(goal: Goal, table: str, world: World) -> list[Row]:
    columns = world.forms[table].columns if table in world.forms else {}
    where = goal.get("where", {})
    if set(where) - set(columns):
        raise CorpusError(f"{table} has no columns {sorted(set(where) - set(columns))}")
    return [
        row
        for row in world.rows(table)
        if all(_passes(row[column], test) for column, test in where.items())
    ]


def _passes(value: Any, test: Any) -> bool:
    if not isinstance(test, Mapping):
        return any(one == test for one in _each(value))
    ((name, argument),) = test.items()
    if name == "not":
        return not _passes(value, argument)
    return any(_TESTS[name](one, argument) for one in _each(value))


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _contains(value: Any, texts: Any) -> bool:
    found = plain(str(value))
    return all(plain(str(text)) in found for text in _each(texts))


_TESTS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "contains": _contains,
    "like": lambda value, pattern: fnmatchcase(str(value), pattern),
    "at_least": lambda value, least: value >= least,
    "at_most": lambda value, most: value <= most,
    "not": lambda value, test: not _passes(value, test),
}
