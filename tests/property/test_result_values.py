"""Values of a result against a slow, obvious reading, and results that are made to break the reader."""

import json
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel, field_serializer

from authz_client.result_values import McpResult, ResultValues
from tests.support.effort import effort

NAMES = ("id", "items", "by", "a/b", "m~n", "0", "1", "*", "")
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**64), max_value=2**64),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
)
RESULTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=25,
)
TOKENS = st.sampled_from(["id", "items", "by", "a~1b", "m~0n", "0", "1", "01", "-", "*", "*", ""])
POINTERS = st.lists(TOKENS, min_size=1, max_size=4).map(lambda tokens: "/" + "/".join(tokens))
# Anything that a function can return.
OBJECTS = st.recursive(
    st.one_of(
        LEAVES,
        st.floats(),
        st.decimals(),
        st.uuids(),
        st.binary(max_size=5),
        st.characters(categories=["Cs"]),
        st.just(object()),
        st.just(int),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.sets(st.integers(), max_size=2),
        st.dictionaries(st.one_of(st.sampled_from(NAMES), st.integers()), inner, max_size=3),
    ),
    max_leaves=15,
)


def nodes(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[tuple[object, ...], Any]]:
    """Every node of a document with its path, in the document's order. A name is a string, an index an integer."""
    yield path, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from nodes(inner, (*path, name))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from nodes(inner, (*path, index))


def matches(token: str, step: object) -> bool:
    """Whether a token of a pointer leads over a step."""
    if isinstance(step, int):
        return token in ("*", str(step))
    return token != "*" and step == token.replace("~1", "/").replace("~0", "~")


def expected(result: object, pointer: str) -> list[tuple[str, int, object]]:
    """Pointer, item and value of every scalar under a pointer."""
    tokens = pointer.split("/")[1:]
    stars = [at for at, token in enumerate(tokens) if token == "*"]
    every = list(nodes(result))

    def under(length: int) -> list[tuple[tuple[object, ...], Any]]:
        return [
            (path, value)
            for path, value in every
            if len(path) == length and all(map(matches, tokens, path))
        ]

    counted = stars[-1] + 1 if stars else 0
    numbers = {path: number for number, (path, _) in enumerate(under(counted))}
    return [
        (pointer, numbers[path[:counted]], value)
        for path, value in under(len(tokens))
        if value is not None and not isinstance(value, dict | list)
    ]


def reported(read: ResultValues) -> list[tuple[str, int, object]]:
    """Pointer, item and value of each value; a number as JSON reads it."""
    found: list[tuple[str, int, object]] = []
    for value in read.values:
        kind = value.WhichOneof("value")
        assert kind is not None
        held = getattr(value, kind)
        found.append((value.pointer, value.item, json.loads(held) if kind == "number" else held))
    return found


def typed(values: list[tuple[str, int, object]]) -> list[tuple[str, int, str, str]]:
    """Values in one order, of which `1`, `1.0` and `True` are three."""
    return sorted((at, item, type(value).__name__, repr(value)) for at, item, value in values)


@settings(max_examples=effort(400, 10_000))
@given(RESULTS, st.lists(POINTERS, min_size=1, max_size=3, unique=True))
def test_values_are_those_of_the_slow_reading(result: object, pointers: list[str]) -> None:
    """Of the object itself and of its JSON text."""
    slow = [value for pointer in pointers for value in expected(result, pointer)]
    read = ResultValues.read(result, pointers)
    assert typed(reported(read)) == typed(slow)
    assert [value.item for value in read.values] == sorted(value.item for value in read.values)
    if isinstance(result, dict | list):
        assert ResultValues.read(json.dumps(result), pointers) == read
        in_mcp = {"content": [{"type": "text", "text": json.dumps(result)}]}
        assert ResultValues.read(McpResult(in_mcp), pointers) == read


@settings(max_examples=effort(300, 10_000))
@given(OBJECTS, st.lists(POINTERS, max_size=3))
def test_no_object_raises(result: object, pointers: list[str]) -> None:
    """Every value that is read can be sent."""
    read = ResultValues.read(result, pointers)
    assert all(value.WhichOneof("value") and value.SerializeToString() for value in read.values)


@settings(max_examples=effort(300, 10_000))
@given(
    st.one_of(
        st.text(), st.text('{}[]",:0123456789eE.-+ntruefalsNaI\\d8', max_size=60), st.binary()
    )
)
def test_no_text_raises(text: str | bytes) -> None:
    """Also in the content of a tool, which is of any form."""
    ResultValues.read(text, ["/*", "/a"])
    content = {"content": [{"type": "text", "text": text}]}
    ResultValues.read(McpResult(content), ["/*", "/a"])


@settings(max_examples=effort(200, 5_000))
@given(
    st.fixed_dictionaries(
        {}, optional={"isError": OBJECTS, "structuredContent": OBJECTS, "content": OBJECTS}
    )
)
def test_no_result_of_a_tool_raises(result: dict[str, Any]) -> None:
    """Of a server that does not keep to the protocol."""
    ResultValues.read(McpResult(result), ["/*/id", "/id", "/*"])


class Amount(BaseModel):
    """A model with a serializer of its own."""

    value: Decimal

    @field_serializer("value")
    def _written(self, value: Decimal) -> str:
        return f"{value:.2f}"


class Row(BaseModel):
    """A model with an alias."""

    row_id: int = Field(alias="id")
    amount: Amount


class Rows(BaseModel):
    """A model with models."""

    items: list[Row]


def test_models_are_read_as_they_are_serialized() -> None:
    """By their aliases, and by their own serializers."""
    rows = [Row.model_validate({"id": number, "amount": {"value": number}}) for number in (1, 2)]
    pointers = ["/items/*/id", "/items/*/amount/value", "/items/*/row_id"]
    wanted = [
        ("/items/*/id", 0, 1), ("/items/*/amount/value", 0, "1.00"),
        ("/items/*/id", 1, 2), ("/items/*/amount/value", 1, "2.00"),
    ]  # fmt: skip
    for result in (
        Rows(items=rows),
        {"items": rows},
        RootModel[dict[str, list[Row]]]({"items": rows}),
    ):
        assert reported(ResultValues.read(result, pointers)) == wanted


def test_a_deep_or_large_result_takes_no_time() -> None:
    """Only what the pointers lead to is read, up to the bounds."""
    deep: object = "end"
    for _ in range(200_000):
        deep = [deep]
    wide = [{"id": number, "no": None} for number in range(300_000)]
    texts = ["[" * 1_000_000, '{"a":' * 200_000, "[" + '{"a":1},' * 120_000 + "1]", "9" * 1_000_000]
    before = time.process_time()
    for result in (deep, wide, [wide] * 300, {"a": deep}, *texts):
        for pointers in (["/*/no", "/*/*/no", "/a/*"], ["/*" * 200], ["/0" * 250], ["/*/id"]):
            ResultValues.read(result, pointers)
    assert time.process_time() - before < 20
    while isinstance(deep, list):  # Python itself would end a nesting of this depth by recursion.
        deep = deep.pop()
