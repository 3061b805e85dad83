"""Holds what a framework understood of a request against what the audit says was judged."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import yaml

from tests.support.received.frameworks import Framework

_NUMBER: Final = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")
#: What `policies/received.cedar` says of money, said once more.
_MOST_MONEY: Final = 100
_PAYEE: Final = "acme"
#: Up to where a double holds every integer, and how many decimal digits it always holds.
_LARGEST: Final = 2**53
_DIGITS: Final = 15


@dataclass(frozen=True)
class Argument:
    """An argument of an operation, and where its route takes it from."""

    name: str
    kind: str
    place: str
    schema: Mapping[str, Any]

    @property
    def is_list(self) -> bool:
        """True where a member of the query may be repeated."""
        return self.kind == "query" and self.schema["type"] == "array"

    def typed(self, value: object) -> object:
        """Returns a text as the declared type; another value, and a text of another form, as it is."""
        if isinstance(value, str) and self.schema["type"] in {"integer", "number"}:
            return _plain(json.loads(value)) if _NUMBER.fullmatch(value) else value
        if isinstance(value, str) and self.schema["type"] == "boolean":
            return {"true": True, "false": False}.get(value, value)
        if self.is_list:
            return list(value) if isinstance(value, list | tuple) else [value]
        return _plain(value)


@dataclass(frozen=True)
class Operation:
    """An operation with its one route."""

    id: str
    host: str
    method: str
    template: str
    arguments: tuple[Argument, ...]
    resource: Mapping[str, str] | None


@dataclass(frozen=True)
class Catalog:
    """The operations of a bundle, by host, method and template of their routes."""

    operations: Mapping[tuple[str, str, str], Operation]

    @classmethod
    def read(cls, bundle: Path) -> Self:
        """Reads the facts of a bundle."""
        facts = yaml.safe_load((bundle / "facts.yaml").read_text())
        resources = {rule["match"]: rule.get("resource") for rule in facts["classify"]}
        found = {}
        for route in facts["routes"]:
            system, _, name = route["operation"].partition(".")
            schemas = facts["catalog"][system]["operations"][name]["input"]["properties"]
            arguments = tuple(
                Argument(argument, kind, place, schemas[argument])
                for argument, source in route["arguments"].items()
                for kind, place in source.items()
            )
            key = (route["host"], route["method"], route["path"])
            resource = resources.get(route["operation"])
            found[key] = Operation(route["operation"], *key, arguments, resource)
        return cls(found)

    @property
    def templates(self) -> list[tuple[str, str]]:
        """Method and template of each route."""
        return [(method, template) for _, method, template in self.operations]


def differences(
    catalog: Catalog, framework: Framework, understood: dict[str, Any], record: dict[str, Any]
) -> list[str]:
    """Compares one framework's understanding of a permitted request with the record of the decision.

    Args:
        catalog: Of the bundle that judged.
        framework: Which framework.
        understood: Its answer.
        record: The audit's.

    Returns:
        One line for each difference.
    """
    judged = record["input"]
    key = (understood["host"].lower(), understood["method"], understood["template"])
    operation = catalog.operations.get(key)
    if operation is None or operation.id != judged["operation"]:
        return [f"judged {judged['operation']}, received {operation.id if operation else key}"]
    lines = []
    received: dict[str, object] = {}
    for argument in operation.arguments:
        readings = list(_distinct(_readings(argument, framework, understood)))
        masked = [_masked(reading) for reading in readings]
        wanted = [
            _plain(value) for name, value in judged["arguments"].items() if name == argument.name
        ]
        if json.dumps(masked) != json.dumps(wanted):
            lines.append(f"{operation.id}: judged {argument.name} = {wanted}, received {readings}")
        lines += [
            f"{operation.id}: no policy permits {argument.name} = {reading!r}"
            for reading in readings
            if not _is_permitted(operation.id, argument.name, reading)
        ]
        if readings:
            received[argument.name] = readings[0]
    if operation.id == "crm.delete":
        lines.append("no policy permits a deletion")
    if not lines:
        lines += _whole(operation, received, judged)
    return lines


def judgement(operation: Operation, arguments: Mapping[str, object]) -> dict[str, Any]:
    """Returns what the audit's `input` says of an operation and its arguments.

    Args:
        operation: Permitted, so that its destination is a partner where it has one.
        arguments: By name.
    """
    resource = f'System::"{operation.id.partition(".")[0]}"'
    if operation.resource is not None:
        identifier = arguments[operation.resource["id"].removeprefix("/")]
        resource = f'Resource::"{operation.resource["collection"]}/{identifier}"'
    return {
        "operation": operation.id,
        "arguments": {name: _masked(value) for name, value in arguments.items()},
        "arguments_digest": f"sha256:{hashlib.sha256(_canonical(arguments)).hexdigest()}",
        "resource": resource,
        "destination_class": "partner" if operation.id == "bank.transfer" else "",
    }


def _whole(
    operation: Operation, received: Mapping[str, object], judged: Mapping[str, Any]
) -> Iterator[str]:
    expected = judgement(operation, received)
    found = {**judged, "resource": _unescaped(judged["resource"])}
    for name in ("resource", "destination_class", "arguments_digest"):
        # The digest of a number that no double holds is of its text.
        if name == "arguments_digest" and not all(map(_is_exact, received.values())):
            continue
        if expected[name] != found[name]:
            yield f"{operation.id}: judged {name} {found[name]}, received {expected[name]}"


def _readings(
    argument: Argument, framework: Framework, understood: dict[str, Any]
) -> Iterator[object]:
    sources: dict[str, Any] = understood["sources"]
    if argument.kind == "path":
        yield sources["path"][argument.place]
        return
    if argument.kind == "header":
        yield from (value for name, value in understood["headers"] if name == argument.place)
        return
    is_query = argument.kind == "query"
    tokens = [argument.place] if is_query else argument.place.split("/")[1:]
    if argument.is_list and argument.place in understood["lists"]:
        yield argument.typed(understood["lists"][argument.place])
    for name, tree in sources.items():
        of_query = name in {"query", "values", "params"}
        if name == "path" or (argument.is_list and of_query):
            continue
        if not framework.merges and of_query != is_query:
            continue
        for value in _at(tree, tokens):
            yield argument.typed(value)


def _at(tree: object, tokens: list[str]) -> Iterator[object]:
    for token in tokens:
        if not isinstance(tree, dict) or token not in tree:
            return
        tree = tree[token]
    yield tree


def _distinct(values: Iterator[object]) -> Iterator[object]:
    seen = set()
    for value in values:
        text = json.dumps(value)
        if text not in seen:
            seen.add(text)
            yield value


def _is_permitted(operation: str, argument: str, value: object) -> bool:
    match operation.partition(".")[0], argument:
        case "bank", "amount":
            return isinstance(value, int) and value < _MOST_MONEY
        case "bank", "to":
            return value == _PAYEE
        case "files", "folder":
            return value == "public"
    return True


def _masked(value: object) -> object:
    """Returns a value as the audit writes it: texts as their digests."""
    if isinstance(value, str):
        return f"sha256:{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()}"
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return value


def _plain(value: object) -> object:
    """Returns a number as the double that it is (RFC 8785 §3.2.2.3): frameworks differ in whether they tell 4.0 and 4 apart."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    double = float(value)
    return int(double) if double.is_integer() and abs(double) <= _LARGEST else double


def _is_exact(value: object) -> bool:
    """Tells whether a double holds every digit of a number: any of 15 digits, and other values."""
    digits = re.sub(r"e.*|\D", "", repr(value))
    return not isinstance(value, float | int) or len(digits) <= _DIGITS


def _canonical(value: object) -> bytes:
    """Returns canonical JSON (RFC 8785) of values whose names are ASCII."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # Of a number, Python writes two digits of the exponent at least, and JavaScript as few as there are.
    return re.sub(r"(?<=\de-)0(?=\d[,}])", "", text).encode()


def _unescaped(name: str) -> str:
    """Returns the name of a Cedar entity without Cedar's escapes."""
    wide = re.sub(r"\\u\{(\w+)\}", lambda found: chr(int(found[1], 16)), name)
    return re.sub(r"\\([\"'\\])", r"\1", wide)
