"""What an enforcer reports of a call that was executed: the values of its result that the bundle asks for.

The bundle's own facts say what that is: `creates`, `introduces` and `pairs` of an operation, where its system has
`reports: sdk`. The SDK reads the values, as it does in a guard. Labels are reported as if the call had brought all that it can
bring, so that a report changes nothing of them.
"""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final, Self

from authz.model import BundleFiles
from authz_client.result_values import ResultValues
from bench.detection.static import facts_of
from bench.detection.world import Result

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
            result: result of the call.
        """
        if operation.partition(".")[0] not in self._systems:
            return None
        meaning = self._meaning(operation, arguments)
        told: dict[str, Any] = {"result": "ok"}
        labels = _most(meaning.get("yields"))
        if labels:
            told["labels"] = labels
        values = _values(result, sorted(set(_pointers(meaning))))
        if values:
            told["values"] = values
        return told

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


def _values(result: Result, pointers: list[str]) -> dict[str, Any]:
    """What stands under pointers: one value, or for `*` a list with null where an element has none."""
    found: dict[str, Any] = {}
    for one in ResultValues.read(result, pointers).values:
        kind = one.WhichOneof("value")
        value = getattr(one, kind) if kind else None
        if "*" not in one.pointer.split("/"):
            found[one.pointer] = value
            continue
        items = found.setdefault(one.pointer, [])
        items += [None] * (one.item - len(items))
        items.append(value)
    return found


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
