"""Values of results in reports: which ones, within which bounds, and from whom."""

import asyncio
import enum
import json
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NoReturn

import grpc
import pytest

from authz_client import Authz, Caller, Denied, Report, caller
from authz_client.result_values import McpResult, ResultValues, WrittenNumber
from authz_client.v1 import authorizer_pb2, tasks_pb2
from tests.support.node import NoAnswer, Node, decision

POINTERS = ["/items/*/id", "/items/*/by", "/count"]
ITEMS = {"items": [{"id": 7, "by": "ann"}, {"by": "bob"}, {"id": "9"}], "count": 1.5}
VALUES = [
    ("/items/*/id", 0, "integer", 7),
    ("/items/*/by", 0, "text", "ann"),
    ("/count", 0, "number", "1.5"),
    ("/items/*/by", 1, "text", "bob"),
    ("/items/*/id", 2, "text", "9"),
]
WAYS = ("sync", "async")


def rows(values: Any) -> list[tuple[str, int, str, Any]]:
    """Pointer, item, kind and value."""
    return [
        (one.pointer, one.item, kind, getattr(one, kind))
        for one in values
        if (kind := one.WhichOneof("value"))
    ]


def read(result: object, *pointers: str) -> list[tuple[str, int, str, Any]]:
    """The values of a result, none of which is left out."""
    found = ResultValues.read(result, pointers)
    assert found.left_out == ()
    return rows(found.values)


# --- what is read


class Color(enum.Enum):
    """An enumeration."""

    RED = "red"


@dataclass
class Event:
    """A dataclass."""

    id: object
    tags: list[str] = field(default_factory=list)


def test_objects_of_python() -> None:
    """Each type that has a form in JSON."""
    key = uuid.UUID(int=1)
    for value, kind, written in (
        (True, "flag", True), (2**63 - 1, "integer", 2**63 - 1), (-(2**63), "integer", -(2**63)),
        (2**63, "number", str(2**63)), (0.1, "number", "0.1"), (Decimal("870.00"), "number", "870.00"),
        (Color.RED, "text", "red"), (key, "text", str(key)), (PurePosixPath("/a"), "text", "/a"), ("", "text", ""),
    ):  # fmt: skip
        assert read(Event(value), "/id") == [("/id", 0, kind, written)]
        assert read({"a": (Event(value),)}, "/a/*/id") == [("/a/*/id", 0, kind, written)]
    for other in (None, float("nan"), float("inf"), Decimal("NaN"), [], {}, object(), b"x"):
        assert read(Event(other), "/id") == []
    assert read([Event(1, ["a", "b"]), Event(2, ["c"])], "/*/tags/*", "/1/tags/0") == [
        ("/*/tags/*", 0, "text", "a"), ("/1/tags/0", 0, "text", "c"),
        ("/*/tags/*", 1, "text", "b"), ("/*/tags/*", 2, "text", "c"),
    ]  # fmt: skip


def test_messages_of_protobuf() -> None:
    """By the names of the .proto file; a field that is not set brings no value."""
    task = tasks_pb2.Task(id="t-1")
    assert read(tasks_pb2.StartResponse(task=task), "/task/id", "/task/parent") == [
        ("/task/id", 0, "text", "t-1")
    ]


def test_numbers_of_a_text_stay_as_they_are_written() -> None:
    """Also those that a float cannot hold."""
    text = '{"a": 870.00, "b": 1e999, "c": 12345678901234567890.25, "d": -0, "e": 3}'
    assert read(text, "/a", "/b", "/c", "/d", "/e") == [
        ("/a", 0, "number", "870.00"), ("/b", 0, "number", "1e999"),
        ("/c", 0, "number", "12345678901234567890.25"), ("/d", 0, "integer", 0), ("/e", 0, "integer", 3),
    ]  # fmt: skip
    assert (WrittenNumber("1.50") * 2, WrittenNumber("1.50").text) == (3.0, "1.50")


def test_pointers() -> None:
    """Escapes; and `*`, which stands for elements of arrays alone."""
    result = {"a/b": 1, "m~n": 2, "~1": 3, "*": 4, "": 5, "l": [6, 7], "o": {"0": 8}}
    assert read(result, "/a~1b", "/m~0n", "/~01", "/*", "/", "/l/1", "/l/01", "/l/-", "/l/2", "/o/0") == [
        ("/a~1b", 0, "integer", 1), ("/m~0n", 0, "integer", 2), ("/~01", 0, "integer", 3),
        ("/", 0, "integer", 5), ("/l/1", 0, "integer", 7), ("/o/0", 0, "integer", 8),
    ]  # fmt: skip
    assert read(result, "", "a", "/o/*", "/l/²", "/" + "9" * 500) == []
    assert read(5, "/") == []
    pages = {"pages": [{"items": [{"id": 1}, {}]}, {}, {"items": [{"id": 2}]}]}
    assert read(pages, "/pages/*/items/*/id") == [
        ("/pages/*/items/*/id", 0, "integer", 1),
        ("/pages/*/items/*/id", 2, "integer", 2),
    ]


def test_results_of_mcp() -> None:
    """Structured content wins; otherwise the first text that looks like JSON decides."""

    @dataclass
    class Old:
        content: list[Any]
        structuredContent: Any = None  # noqa: N815 - as the library has it
        isError: bool = False  # noqa: N815 - as the library has it

    @dataclass
    class New:
        content: list[Any]
        structured_content: Any = None
        is_error: bool = False

    @dataclass
    class Text:
        text: str
        type: str = "text"

    def forms(texts: list[str], structured: Any = None, *, is_error: bool = False) -> list[object]:
        blocks = [Text(text) for text in texts]
        result: dict[str, Any] = {"content": [{"type": "text", "text": text} for text in texts]}
        if structured is not None:
            result["structuredContent"] = structured
        if is_error:
            result["isError"] = True
        return [
            McpResult(result),
            Old(blocks, structured, is_error),
            New(blocks, structured, is_error),
        ]

    one, two = [("/id", 0, "integer", 1)], [("/id", 0, "integer", 2)]
    for texts, structured, wanted in (
        (['{"id": 1}'], {"id": 2}, two), (['{"id": 1}'], {"other": 2}, []), (['{"id": 1}'], {}, []), (['{"id": 1}'], "{}", None),
        (["2 rows:", ' \n{"id": 1}', '{"id": 2}'], None, one), (['{"id": 1'], None, None),
        (['{"id": 1, "id": 1}', '{"id": 2}'], None, None), (['{"id": 1}{"id": 2}'], None, None),
        (["made id 1"], None, None), ([], None, None), (["7"], None, None),
    ):  # fmt: skip
        for result in forms(texts, structured):
            found = ResultValues.read(result, ["/id"])
            assert rows(found.values) == (wanted or [])
            assert bool(found.left_out) == (wanted is None)
    for result in forms(['{"id": 1}'], {"id": 2}, is_error=True):
        assert read(result, "/id") == []


# --- bounds


@pytest.mark.parametrize("as_text", [False, True])
def test_a_report_is_bounded(as_text: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """The first elements are reported, and of each all values."""

    def bounded(result: object, *pointers: str) -> tuple[list[tuple[str, int, str, Any]], str]:
        given = json.dumps(result) if as_text else result
        found = ResultValues.read(given, pointers)
        assert len(found.left_out) <= 2
        return rows(found.values), "; ".join(found.left_out)

    many = [{"id": number, "by": "ann"} for number in range(2_000)]
    found, why = bounded(many, "/*/id", "/*/by")
    assert [row[1] for row in found] == [number // 2 for number in range(1_024)]
    assert why == "more than 1024 values"
    assert bounded(many[:512], "/*/id", "/*/by")[1] == ""

    long = [{"id": "x" * 1_000} for _ in range(100)]
    found, why = bounded(long, "/*/id")
    assert sum(len(row[0]) + len(row[3]) for row in found) == 65 * 1_005
    assert why == "more than 65536 bytes"

    exact = {"a": "é" * 512, "b": "é" * 512 + "a", "c": "x" * 70_000, "d": "\ud800", "e": "ok"}
    found, why = bounded(exact, "/a", "/b", "/c", "/d", "/e")
    assert [row[0] for row in found] == ["/a", "/e"]
    assert why == "a value is longer than 1024 bytes; a text holds half of a character"

    found, why = bounded([{"no": None}] * 20_000 + [{"no": 1}], "/*/no")
    assert (found, why) == ([], "more than 10000 elements under one pointer")
    found, why = bounded({"a": 10**1_023, "b": 10**1_024, "c": -(10**1_023)}, "/a", "/b", "/c")
    assert [len(row[3]) for row in found] == [1_024]
    assert why == "a value is longer than 1024 bytes"
    assert bounded(["é" * 513], "/0") == ([], "a value is longer than 1024 bytes")


def test_an_integer_of_any_size_is_bounded() -> None:
    """Python refuses to write one of more than 4,300 digits, and takes long for it."""
    found = ResultValues.read({"a": 10**5_000, "b": 1}, ["/a", "/b"])
    assert rows(found.values) == [("/b", 0, "integer", 1)]
    assert found.left_out == ("a value is longer than 1024 bytes",)


def test_a_text_is_bounded() -> None:
    """It is read up to a length, and never by recursion."""
    for text in (
        '{"a": 1}' + " " * 1_048_576,
        "[" * 100_000,
        '{"a": NaN}',
        "\ufeff{}",
        b"\xff",
        "9" * 5_000,
    ):
        found = ResultValues.read(text, ["/a"])
        assert (found.values, len(found.left_out)) == ((), 1)


class Broken(Mapping[str, object]):
    """A mapping that does not work."""

    def __getitem__(self, name: str) -> NoReturn:
        raise MemoryError(name)

    def __iter__(self) -> Iterator[str]:
        raise ValueError("secret")

    def __len__(self) -> int:
        return 1


class Model:
    """A model that cannot be written."""

    def model_dump(self, **_: object) -> NoReturn:
        """Raise."""
        raise RuntimeError("secret")


@pytest.mark.parametrize("result", [Broken(), Model(), [{"a": Model()}]])
def test_an_object_that_raises_is_not_read(result: object) -> None:
    """The reason quotes nothing of it."""
    found = ResultValues.read(result, ["/id", "/*/a/id"])
    assert found.values == ()
    assert found.left_out[0].startswith("the result cannot be read: ")
    assert "secret" not in found.left_out[0]


# --- who reports them


def node() -> Node:
    """A node whose permits ask for values."""
    permit = decision("PERMITTED", reservation_id="r", yields=["pii"], report_values=POINTERS)
    return Node().says("Check", permit)


def enforcer(node: Node) -> Authz:
    """A client that asks about its callers."""
    return Authz(transport=node, enforcer=True, timeout=20)


def reported(node: Node) -> list[tuple[str, list[tuple[str, int, str, Any]]]]:
    """Result and values of each report."""
    names = authorizer_pb2.ReportResult
    return [
        (names.Name(one.result).removeprefix("REPORT_RESULT_"), rows(one.values))
        for one in node.requests("Report")
    ]


def run(authz: Authz, way: str, body: Callable[[Report], Any]) -> Any:
    """Runs a guarded function of either kind for a caller."""

    @authz.guard("crm.get", report="told")
    def sync(*, told: Report) -> Any:
        return body(told)

    @authz.guard("crm.get", report="told")
    async def coroutine(*, told: Report) -> Any:
        await asyncio.sleep(0)
        return body(told)

    with caller(Caller(agent_token="svid")):
        return sync() if way == "sync" else asyncio.run(coroutine())


def _given(result: object, _: Report) -> object:
    return result


@pytest.mark.parametrize("way", WAYS)
def test_a_guard_reports_values(way: str) -> None:
    """Beside labels and result, and before its caller has the result."""
    place = node()
    assert run(enforcer(place), way, lambda _: ITEMS) is ITEMS
    assert reported(place) == [("OK", VALUES)]
    (request,) = place.requests("Report")
    assert (request.decision_id, list(request.labels)) == ("r", ["pii"])


@pytest.mark.parametrize("way", WAYS)
def test_a_function_can_set_the_result(way: str) -> None:
    """For example if it returns a sentence."""
    place = node()

    def tell(told: Report) -> str:
        told.returned(ITEMS)
        return "3 rows"

    assert run(enforcer(place), way, tell) == "3 rows"
    assert reported(place) == [("OK", VALUES)]

    authz = enforcer(place)

    @authz.guard("crm.get", report="told")
    def stream(*, told: Report) -> Iterator[int]:
        yield 1
        told.returned(ITEMS)

    with caller(Caller(agent_token="svid")):
        assert list(stream()) == [1]
    assert reported(place)[1:] == [("OK", VALUES)]


@pytest.mark.parametrize("way", WAYS)
def test_an_agent_reports_no_values(way: str) -> None:
    """It acts for itself, so the node would refuse the report."""
    place = node()
    assert run(Authz(transport=place, timeout=20), way, lambda _: ITEMS) is ITEMS
    assert reported(place) == [("OK", [])]


@pytest.mark.parametrize("way", WAYS)
def test_values_that_nobody_asks_for_are_not_reported(way: str) -> None:
    """Also of a server that does not know of values."""
    place = Node().says("Check", decision("PERMITTED", reservation_id="r"))
    run(enforcer(place), way, lambda _: ITEMS)
    assert reported(place) == [("OK", [])]


@pytest.mark.parametrize("way", WAYS)
def test_a_failure_has_no_values(way: str) -> None:
    """Whoever says so: an exception, the function, or an obligation on the result, after which the caller gets nothing."""
    place = node()

    def fail(told: Report) -> None:
        told.returned(ITEMS)
        raise LookupError("no such row")

    def say(told: Report) -> object:
        told.failed()
        return ITEMS

    with pytest.raises(LookupError, match="no such row"):
        run(enforcer(place), way, fail)
    run(enforcer(place), way, say)
    assert reported(place) == [("FAILED", []), ("FAILED", [])]

    permit = decision("PERMITTED", reservation_id="r", report_values=POINTERS, obligations=["o"])
    place = Node().says("Check", permit)
    authz = enforcer(place)
    authz.obligations.register("o", after=lambda *_: fail(Report()))
    with pytest.raises(Denied):
        run(authz, way, lambda _: ITEMS)
    assert reported(place) == [("OK", [])]


@pytest.mark.parametrize("way", WAYS)
def test_values_are_those_that_the_caller_gets(way: str) -> None:
    """After the obligations on the result."""
    permit = decision("PERMITTED", reservation_id="r", report_values=POINTERS, obligations=["o"])
    place = Node().says("Check", permit)
    authz = enforcer(place)
    authz.obligations.register("o", after=lambda _, result: {"count": len(result["items"])})
    assert run(authz, way, lambda _: ITEMS) == {"count": 3}
    assert reported(place) == [("OK", [("/count", 0, "integer", 3)])]


@pytest.mark.parametrize("way", WAYS)
def test_values_that_are_left_out_are_logged_once(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With no value in the log; the rest of the report stands, and the result is the function's own."""
    place = node()
    result = {"items": [{"id": "secret" * 1_000}, {"id": "\ud800secret"}, {"id": 1}]}
    with caplog.at_level(logging.WARNING, "authz_client"):
        assert run(enforcer(place), way, lambda _: result) is result
    assert reported(place) == [("OK", [("/items/*/id", 2, "integer", 1)])]
    assert [record.getMessage() for record in caplog.records] == [
        "the report of decision r lacks values: a value is longer than 1024 bytes; a text holds half of a character"
    ]
    caplog.clear()
    results: list[object] = [Broken(), Model(), "done", object()]
    for broken in results:
        assert run(enforcer(place), way, partial(_given, broken)) is broken
    assert len(caplog.records) == 3
    assert [one for one in reported(place)[1:] if one != ("OK", [])] == []


@pytest.mark.parametrize("way", WAYS)
def test_a_lost_report_changes_no_result(way: str) -> None:
    """As without values."""
    place = node().says("Report", NoAnswer(grpc.StatusCode.INVALID_ARGUMENT, "BAD_INPUT"))
    authz = enforcer(place)
    assert run(authz, way, lambda _: ITEMS) is ITEMS
    assert authz.reports.lost == 1


def test_whoever_asks_reports_values() -> None:
    """By `report` and `areport`, of the result that it gives."""
    place = node()
    authz = enforcer(place)
    with caller(Caller(agent_token="svid")):
        permit = authz.check("crm.get")
    assert permit.report_values == tuple(POINTERS)
    authz.report(permit, returned=ITEMS)
    asyncio.run(authz.areport(permit, returned=ITEMS))
    authz.report(permit)
    authz.report(permit, "failed", returned=ITEMS)
    assert reported(place) == [("OK", VALUES), ("OK", VALUES), ("OK", []), ("FAILED", [])]
