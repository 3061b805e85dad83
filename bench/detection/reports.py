"""What an enforcer reports of a call that was executed: the values of its result that the bundle asks for.

The bundle's own facts say what that is: `creates`, `introduces` and `pairs` of an operation, where its system has
`reports: sdk`. Labels are reported as if the call had brought all that it can bring, so that a report changes nothing of them.
"""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final, Self

from authz.model import BundleFiles
from bench.detection.static import facts_of
from bench.detection.world import CorpusError, Result

MOST_VALUES: Final = 1024
"""Values of one report; later ones are left out, as the SDK does."""
MOST_BYTES: Final = 60_000
"""Bytes of all values and pointers of a report; later ones are left out."""
LONGEST_TEXT: Final = 1024
"""Bytes of a value; a longer one is left out."""
_MEANING: Final = ("creates", "introduces", "pairs")


class Reports:
    """What is reported of each operation of a bundle.

    Args:
        classify: the rules of the bundle, in order.
        systems: those whose results are reported.
    """

    def __init__(self, classify: list[Mapping[str, Any]], systems: frozenset[str]) -> None:
        self._classify = classify
        self._systems = systems

    def __bool__(self) -> bool:
        """Returns whether anything is reported."""
        return bool(self._systems)

    @classmethod
    def of(cls, bundle: BundleFiles) -> Self:
        """Reads what a bundle wants to be told.

        Args:
            bundle: the bundle, which is known to compile.
        """
        classify: list[Mapping[str, Any]] = []
        systems: set[str] = set()
        for name, content in sorted(bundle.files.items()):
            facts = facts_of(name, content) or {}
            classify += facts.get("classify") or []
            catalog = facts.get("catalog") or {}
            systems |= {name for name, said in catalog.items() if said.get("reports") == "sdk"}
        return cls(classify, frozenset(systems))

    def report(
        self, operation: str, arguments: Mapping[str, Any], result: Result
    ) -> dict[str, Any] | None:
        """Returns a report, as a trace has it; none where nobody reports for the system.

        Args:
            operation: of the call.
            arguments: of the call.
            result: what came of it.

        Raises:
            CorpusError: a pointer leads to something in the result that is no value.
        """
        if operation.partition(".")[0] not in self._systems:
            return None
        meaning = self._meaning(operation, arguments)
        values = {pointer: _values(result, pointer) for pointer in sorted(_pointers(meaning))}
        told: dict[str, Any] = {"result": "ok"}
        labels = _most(meaning.get("yields"))
        if labels:
            told["labels"] = labels
        kept = dict(_within_bounds(values))
        return {**told, "values": kept} if kept else told

    def _meaning(self, operation: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The rule of an operation: an exact id beats a glob, the first glob counts. A case of a split adds its own keys."""
        exact = (rule for rule in self._classify if rule["match"] == operation)
        globs = (rule for rule in self._classify if fnmatchcase(operation, rule["match"]))
        rule = next(exact, None) or next(globs, {})
        split = rule.get("split")
        if not split:
            return rule
        value = _at(arguments, split["on"].split("/")[1:])
        case = split["cases"].get(str(value).lower() if isinstance(value, bool) else str(value), {})
        return {**rule, **case}


def _within_bounds(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    count = size = 0
    for pointer, found in values.items():
        kept: list[Any] = []
        for one in found if isinstance(found, list) else [found]:
            count += 1
            size += len(pointer.encode()) + len(str(one).encode())
            if count > MOST_VALUES or size > MOST_BYTES:
                break
            kept.append(one)
        if any(one is not None for one in kept):
            yield pointer, kept if isinstance(found, list) else kept[0]


def _pointers(meaning: Mapping[str, Any]) -> Iterator[str]:
    """Those whose values count, or decide whether others do: what anybody writes counts for nothing."""
    made, introduced, pairs = (_several(meaning.get(key)) for key in _MEANING)
    yield from (one["id"] for one in made)
    for one in introduced:
        if one.get("author"):
            yield from (one["from"], one["author"])
        elif one.get("by") == "owner":
            yield one["from"]
    for one in pairs:
        if one.get("by") == "owner":
            yield from (one["id"], one["name"])


def _values(result: Result, pointer: str) -> Any:
    """What stands under a pointer: one value, or for `*` a list with null where an element has none."""
    parts = pointer.split("/")[1:]
    if "*" not in parts:
        return _value(_at(result, parts), pointer)
    first = parts.index("*")
    items = _at(result, parts[:first])
    found: list[Any] = []
    for item in items if isinstance(items, list) else []:
        rest = "/".join(["", *parts[first + 1 :]])
        one = _values(item, rest) if rest else _value(item, pointer)
        found += one if isinstance(one, list) else [one]
    return found


def _value(value: Any, pointer: str) -> Any:
    if isinstance(value, str):
        return value if 0 < len(value.encode()) <= LONGEST_TEXT else None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return str(value)
    raise CorpusError(f"`{pointer}` leads to no value: {value}")


def _at(value: Any, parts: list[str]) -> Any:
    for part in parts:
        name = part.replace("~1", "/").replace("~0", "~")
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _several(said: Any) -> list[Any]:
    if said is None:
        return []
    return said if isinstance(said, list) else [said]


def _most(yields: Any) -> list[str]:
    """The labels that a result carries at most."""
    return list((yields.get("maximum") or []) if isinstance(yields, Mapping) else yields or [])
