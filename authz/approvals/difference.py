"""Arguments of a call as a list of values, and the difference between the arguments of two calls."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

__all__ = ["ArgumentsError", "Change", "Leaf", "compare", "read_arguments"]

_MAX_DEPTH: Final = 64

_Json: TypeAlias = Any
"""A JSON value, as `_DECODER` reads it: a number is a `_Number`."""


class ArgumentsError(ValueError):
    """Arguments cannot be read, so a card cannot show them."""


class _Number(str):
    """A number as written in the text, so that no digit is lost."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value of the arguments: a scalar, or an object or list without members."""

    pointer: str
    """JSON pointer (RFC 6901); may hold any character."""
    kind: str
    """`text`, `number`, `boolean`, `null`, `empty list` or `empty object`."""
    text: str
    """Text without quotation marks; number or boolean as written."""


@dataclass(frozen=True, slots=True)
class Change:
    """A value that differs between two calls."""

    pointer: str
    before: Leaf | None
    """`None` if the value is new."""
    after: Leaf | None
    """`None` if the value was removed."""


def read_arguments(text: bytes) -> tuple[Leaf, ...]:
    """Read the arguments of a call.

    Args:
        text: JSON. Empty if the call has no arguments.

    Returns:
        The values in the order of the text.

    Raises:
        ArgumentsError: The text is not UTF-8 or not valid JSON, has a member twice, or is nested too deeply.
    """
    if not text:
        return ()
    try:
        value = _DECODER.decode(text.decode("utf-8"))
    except UnicodeDecodeError:
        raise ArgumentsError("the arguments are not UTF-8") from None
    except RecursionError:
        raise ArgumentsError(f"the arguments are nested deeper than {_MAX_DEPTH} levels") from None
    except ValueError:
        raise ArgumentsError("the arguments are not valid JSON, or have a member twice") from None
    return tuple(_leaves(value, "", 0))


def compare(before: Sequence[Leaf], after: Sequence[Leaf]) -> tuple[Change, ...]:
    """Return the values that differ: changed values first, then new values, then removed values.

    If elements of a list were added or removed, the elements that only moved are left out.

    Args:
        before: Values of the earlier call.
        after: Values of the later call.
    """
    moved = _moved(before, after)
    old = {leaf.pointer: leaf for leaf in before if leaf not in moved.before}
    new = {leaf.pointer: leaf for leaf in after if leaf not in moved.after}
    changed = [
        Change(pointer, old[pointer], leaf)
        for pointer, leaf in new.items()
        if pointer in old and old[pointer] != leaf
    ]
    added = [Change(pointer, None, leaf) for pointer, leaf in new.items() if pointer not in old]
    gone = [Change(pointer, leaf, None) for pointer, leaf in old.items() if pointer not in new]
    return (*changed, *added, *gone)


@dataclass(frozen=True, slots=True)
class _Moved:
    """Elements of lists that both calls have, at any index."""

    before: frozenset[Leaf]
    after: frozenset[Leaf]


def _moved(before: Sequence[Leaf], after: Sequence[Leaf]) -> _Moved:
    old, new = _elements(before), _elements(after)
    kept_before: set[Leaf] = set()
    kept_after: set[Leaf] = set()
    for parent in old.keys() & new.keys():
        both = _values(old[parent]) & _values(new[parent])
        if both == _values(old[parent]) == _values(new[parent]):
            continue  # both lists have the same elements, so a difference in their order is the change
        kept_before |= set(_pick(old[parent], both))
        kept_after |= set(_pick(new[parent], both))
    return _Moved(frozenset(kept_before), frozenset(kept_after))


def _elements(leaves: Iterable[Leaf]) -> Mapping[str, list[Leaf]]:
    """Return the scalar elements of each list, by the pointer of the list."""
    found: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        parent, _, name = leaf.pointer.rpartition("/")
        if name.isdecimal() and leaf.kind in ("text", "number"):
            found.setdefault(parent, []).append(leaf)
    return found


def _values(leaves: Iterable[Leaf]) -> Counter[tuple[str, str]]:
    return Counter((leaf.kind, leaf.text) for leaf in leaves)


def _pick(leaves: Iterable[Leaf], wanted: Counter[tuple[str, str]]) -> Iterator[Leaf]:
    left = Counter(wanted)
    for leaf in leaves:
        if left[leaf.kind, leaf.text] > 0:
            left[leaf.kind, leaf.text] -= 1
            yield leaf


def _leaves(value: _Json, pointer: str, depth: int) -> Iterator[Leaf]:
    if depth > _MAX_DEPTH:
        raise ArgumentsError(f"the arguments are nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, dict | list) and value:
        members = value.items() if isinstance(value, dict) else enumerate(value)
        for name, member in members:
            escaped = str(name).replace("~", "~0").replace("/", "~1")
            yield from _leaves(member, f"{pointer}/{escaped}", depth + 1)
    else:
        yield _leaf(value, pointer)


def _leaf(value: _Json, pointer: str) -> Leaf:
    match value:
        case dict() | list():
            return Leaf(pointer, "empty object" if isinstance(value, dict) else "empty list", "")
        case bool():
            return Leaf(pointer, "boolean", "true" if value else "false")
        case _Number():
            return Leaf(pointer, "number", str(value))
        case str():
            return Leaf(pointer, "text", value)
        case _:
            return Leaf(pointer, "null", "")


def _unique(pairs: list[tuple[str, _Json]]) -> dict[str, _Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member occurs twice in one object")
    return members


def _no_number(constant: str) -> _Json:
    raise ValueError(f"{constant} is not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_constant=_no_number,
    parse_float=_Number,
    parse_int=_Number,
)
