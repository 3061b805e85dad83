"""Types of a tool's arguments, of any JSON Schema that a server may send."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = [
    "argument_types",
    "enumerated",
    "is_text",
    "resolved",
    "scalar_types",
    "schema_properties",
]

_MAX_SCHEMAS: Final = 2_000
_MAX_ALTERNATIVES: Final = 64
_MAX_REFERENCES: Final = 16
_SCALARS: Final = frozenset({"boolean", "integer", "number", "string"})
_BRANCHES: Final = ("anyOf", "oneOf", "allOf")


def schema_properties(root: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Collect the arguments that a schema declares, also in branches of a union at its root.

    Args:
        root: JSON Schema of all arguments.

    Returns:
        Schema of each argument by name; `{}` for a schema that is `true`, `false` or not a schema.
    """
    properties: dict[str, Mapping[str, Any]] = {}
    pending: list[object] = [root]
    seen: set[int] = set()
    while pending and len(seen) < _MAX_SCHEMAS:
        schema = pending.pop(0)
        if not isinstance(schema, Mapping) or id(schema) in seen:
            continue
        seen.add(id(schema))
        declared = schema.get("properties")
        for name, value in declared.items() if isinstance(declared, Mapping) else ():
            if isinstance(name, str):
                properties.setdefault(name, value if isinstance(value, Mapping) else {})
        for key in (*_BRANCHES, "then", "else"):
            pending += _list(schema.get(key))
        pending.append(_target_of(root, schema))
    return properties


def argument_types(root: Mapping[str, Any], schema: object) -> frozenset[str]:
    """Tell the types that a schema names, without null.

    Args:
        root: JSON Schema of all arguments, for `$ref`.
        schema: Schema of one argument.

    Returns:
        Types of JSON Schema, and `strings` for a list of strings; empty if the schema names no type or is not a schema.
    """
    types: set[str] = set()
    for alternative in _alternatives(root, schema):
        own = _own_types(alternative)
        types |= own
        if "array" in own and any(
            "string" in _own_types(item) for item in _alternatives(root, alternative.get("items"))
        ):
            types.add("strings")
    return frozenset(types - {"null"})


def _own_types(schema: Mapping[str, Any]) -> set[str]:
    types = {word for word in _list(schema.get("type")) if isinstance(word, str)}
    return types or {_type_of(value) for value in _constants(schema)}


def scalar_types(root: Mapping[str, Any], schema: object) -> frozenset[str]:
    """Tell the types of the values of an argument that a rule can give a role.

    These are texts, numbers, booleans, and lists of them, also optional and nullable ones.

    Args:
        root: JSON Schema of all arguments, for `$ref`.
        schema: Schema of one argument.

    Returns:
        Types of JSON Schema, those of the items for a list; empty if the argument can be anything else.
    """
    return _scalars(root, schema, [_MAX_ALTERNATIVES], is_item=False)


def _scalars(
    root: Mapping[str, Any], schema: object, budget: list[int], *, is_item: bool
) -> frozenset[str]:
    """Look at a schema; `budget` holds the number of schemas that may still be looked at, since references can form a circle."""
    own = resolved(root, schema)
    budget[0] -= 1
    if own is None or budget[0] < 0:
        return frozenset()
    for key in ("anyOf", "oneOf"):
        if isinstance(own.get(key), list):
            branches = [
                _scalars(root, one, budget, is_item=is_item)
                for one in own[key][:_MAX_ALTERNATIVES]
                if not _is_null(one)
            ]
            return frozenset().union(*branches) if branches and all(branches) else frozenset()
    types: set[str] = set()
    for word in _list(own.get("type")):
        if word == "array" and not is_item:
            items = _scalars(root, own.get("items"), budget, is_item=True)
            if not items:
                return frozenset()
            types |= items
        elif isinstance(word, str) and word in _SCALARS:
            types.add(word)
        elif word != "null":
            return frozenset()
    return frozenset(types)


def _is_null(schema: object) -> bool:
    return isinstance(schema, Mapping) and (
        schema.get("type") == "null" or ("const" in schema and schema["const"] is None)
    )


def resolved(root: Mapping[str, Any], schema: object) -> Mapping[str, Any] | None:
    """Follow references (`$ref`) to a schema.

    Args:
        root: The whole document.
        schema: The schema, or a reference to it.

    Returns:
        The schema; None if it leads nowhere or in a circle.
    """
    for _ in range(_MAX_REFERENCES):
        if not isinstance(schema, Mapping):
            return None
        if "$ref" not in schema:
            return schema
        schema = _target_of(root, schema)
    return None


def is_text(types: frozenset[str]) -> bool:
    """Tell whether an argument may be a string: also if its schema names no type.

    Args:
        types: Result of `argument_types`.
    """
    return not types or "string" in types


def enumerated(root: Mapping[str, Any], schema: object) -> tuple[str, ...]:
    """Tell the strings that a schema lists for an argument, or for the items of an argument.

    Args:
        root: JSON Schema of all arguments, for `$ref`.
        schema: Schema of one argument.

    Returns:
        The strings; empty if the schema lists none.
    """
    values: dict[str, None] = {}
    for alternative in _alternatives(root, schema):
        for one in (alternative, *_alternatives(root, alternative.get("items"))):
            values.update((value, None) for value in _constants(one) if isinstance(value, str))
    return tuple(values)


def _constants(schema: Mapping[str, Any]) -> list[Any]:
    return [*_list(schema.get("enum")), *([schema["const"]] if "const" in schema else [])]


def _alternatives(root: Mapping[str, Any], schema: object) -> list[Mapping[str, Any]]:
    """A schema, the branches of its unions, and the targets of its references: each once, so circles end."""
    found: list[Mapping[str, Any]] = []
    seen: set[int] = set()
    pending = [schema]
    while pending and len(found) < _MAX_ALTERNATIVES:
        one = pending.pop(0)
        if not isinstance(one, Mapping) or id(one) in seen:
            continue
        seen.add(id(one))
        found.append(one)
        for key in _BRANCHES:
            pending += _list(one.get(key))
        pending.append(_target_of(root, one))
    return found


def _target_of(root: Mapping[str, Any], schema: Mapping[str, Any]) -> object:
    """Follow `$ref: "#/…"`; None if there is none, or it leads nowhere or out of the document."""
    reference = schema.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    return _target(root, reference[1:])


def _target(root: Mapping[str, Any], pointer: str) -> object:
    target: object = root
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(target, Mapping):
            target = target.get(key)
        elif isinstance(target, Sequence) and not isinstance(target, str) and key.isdecimal():
            target = target[int(key)] if len(key) < 6 and int(key) < len(target) else None
        else:
            return None
    return target


def _list(value: object) -> list[Any]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return [] if value is None else [value]


def _type_of(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    names = ((str, "string"), (int, "integer"), (float, "number"), (Mapping, "object"))
    return next((name for kind, name in names if isinstance(value, kind)), "null")
