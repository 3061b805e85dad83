"""What guards report of what they let run, and what becomes of a report that is lost."""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

from authz_client import Authz, Denied, Report, Unavailable
from authz_client.base_errors import UsageError
from authz_client.v1 import authorizer_pb2, credentials_pb2, decision_pb2
from tests.support.node import NoAnswer, Node, decision

OPEN = "open-permit"
FORMS = ("sync", "async", "rows", "stream")


def client(node: Node, **more: Any) -> Authz:
    """A client of a node whose permits are open."""
    if not node.answers.get("Check"):
        node.says("Check", decision("PERMITTED", reservation_id=OPEN, yields=["pii", "vip"]))
    return Authz(transport=node, **{"timeout": 20, **more})


def guarded(authz: Authz, form: str, body: Callable[[Report], Any]) -> Callable[[], Any]:
    """A guarded function of each kind, run to its end; `body` is what it does with its report."""

    @authz.guard("crm.get", report="told")
    def sync(*, told: Report) -> Any:
        return body(told)

    @authz.guard("crm.get", report="told")
    async def coroutine(*, told: Report) -> Any:
        await asyncio.sleep(0)
        return body(told)

    @authz.guard("crm.get", report="told")
    def rows(*, told: Report) -> Iterator[Any]:
        yield body(told)

    @authz.guard("crm.get", report="told")
    async def stream(*, told: Report) -> AsyncIterator[Any]:
        yield body(told)

    async def collect() -> list[Any]:
        return [item async for item in stream()]

    return {
        "sync": sync,
        "async": lambda: asyncio.run(coroutine()),
        "rows": lambda: next(iter(list(rows()))),
        "stream": lambda: asyncio.run(collect())[0],
    }[form]


def reported(node: Node) -> list[tuple[str, str, list[str], dict[str, int]]]:
    """What was reported: id, result, labels, amounts."""
    names = authorizer_pb2.ReportResult
    return [
        (
            one.decision_id,
            names.Name(one.result).removeprefix("REPORT_RESULT_"),
            list(one.labels),
            dict(one.actuals),
        )
        for one in node.requests("Report")
    ]


@pytest.mark.parametrize("form", FORMS)
def test_what_returns_happened(form: str) -> None:
    """All labels that may have come have, where the function does not tell."""
    node = Node()
    assert guarded(client(node), form, lambda _: "done")() == "done"
    assert reported(node) == [(OPEN, "OK", ["pii", "vip"], {})]


@pytest.mark.parametrize("form", FORMS)
def test_what_raises_failed(form: str) -> None:
    """The exception is the function's own."""
    node = Node()

    def fail(told: Report) -> None:
        told.spent("money", 3)
        raise LookupError("no such row")

    with pytest.raises(LookupError, match="no such row"):
        guarded(client(node), form, fail)()
    assert reported(node) == [(OPEN, "FAILED", [], {"money": 3})]


@pytest.mark.parametrize("form", FORMS)
def test_a_function_tells_labels_and_amounts(form: str) -> None:
    """Those that it tells, and no others."""
    node = Node()

    def tell(told: Report) -> str:
        told.carries("vip")
        told.carries()
        told.spent("money", 0)
        return "done"

    assert guarded(client(node), form, tell)() == "done"
    assert reported(node) == [(OPEN, "OK", ["vip"], {"money": 0})]
    node.asked.clear()
    guarded(client(node), form, lambda told: told.carries())()
    assert reported(node) == [(OPEN, "OK", [], {})]
    node.asked.clear()
    guarded(client(node), form, lambda told: told.failed())()
    assert reported(node) == [(OPEN, "FAILED", [], {})]


@pytest.mark.parametrize("form", FORMS)
def test_of_a_permit_that_nobody_waits_for_nothing_is_told(form: str) -> None:
    """Of a permit that nobody waits for nothing is told."""
    node = Node().says("Check", decision("PERMITTED"))
    assert guarded(client(node), form, lambda _: "done")() == "done"
    node.says("Check", decision("FORBIDDEN", reservation_id=OPEN))
    with pytest.raises(Denied):
        guarded(client(node), form, lambda _: "done")()
    assert reported(node) == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "answer",
    [
        NoAnswer(grpc.StatusCode.INTERNAL),
        NoAnswer(grpc.StatusCode.FAILED_PRECONDITION, "NOT_PERMITTED"),
        b"\xff",
        OSError("gone"),
    ],
)
def test_a_report_that_is_lost_changes_no_result(
    form: str, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and counted."""
    node = Node().says("Report", answer)
    authz = client(node)
    with caplog.at_level(logging.WARNING, "authz_client"):
        assert guarded(authz, form, lambda _: "done")() == "done"
    assert authz.reports.lost == 1
    assert [OPEN in record.getMessage() for record in caplog.records] == [True]

    def fail(_: Report) -> None:
        raise LookupError("its own")

    with pytest.raises(LookupError, match="its own"):
        guarded(authz, form, fail)()
    assert authz.reports.lost == 2


@pytest.mark.parametrize("form", FORMS)
def test_a_report_is_tried_again_a_few_times(form: str) -> None:
    """Only where the node was not reached."""
    gone = NoAnswer(grpc.StatusCode.UNAVAILABLE)
    node = Node().says("Report", gone, gone, authorizer_pb2.ReportResponse())
    authz = client(node, retries=2)
    guarded(authz, form, lambda _: "done")()
    assert (len(reported(node)), authz.reports.lost) == (3, 0)
    node = Node().says("Report", gone)
    authz = client(node, retries=2)
    guarded(authz, form, lambda _: "done")()
    assert (len(reported(node)), authz.reports.lost) == (3, 1)
    node = Node().says("Report", NoAnswer(grpc.StatusCode.PERMISSION_DENIED, "ENFORCER_REFUSED"))
    guarded(client(node), form, lambda _: "done")()
    assert len(reported(node)) == 1


@pytest.mark.parametrize("way", [0, 1])
def test_what_never_ran_is_given_back(way: int) -> None:
    """An obligation that cannot be done, one that nobody does, and arguments that changed."""

    def fail(*_: Any) -> None:
        raise ValueError("broken")

    ran: list[Any] = []
    for obligations, handled in ((["o"], True), (["p"], False)):
        node = Node().says(
            "Check", decision("PERMITTED", reservation_id=OPEN, obligations=obligations)
        )
        authz = client(node)
        if handled:
            authz.obligations.register("o", before=fail)
        with pytest.raises(Denied):
            guarded(authz, FORMS[way], ran.append)()
        assert reported(node) == [(OPEN, "ABORTED", [], {})]

    node, amounts = Node(), [1]

    def change(_: decision_pb2.CheckRequest) -> decision_pb2.CheckResponse:
        amounts.append(2)
        return decision("PERMITTED", reservation_id=OPEN)

    authz = client(node.says("Check", change))

    @authz.guard("bank.pay")
    def pay(amounts: list[int]) -> None:
        ran.append(amounts)

    with pytest.raises(Denied):
        pay(amounts)
    assert reported(node) == [(OPEN, "ABORTED", [], {})]
    assert ran == []


def test_an_obligation_on_the_result_that_fails_undoes_nothing() -> None:
    """The caller gets nothing, but it happened."""

    def fail(*_: Any) -> None:
        raise ValueError("broken")

    node = Node().says("Check", decision("PERMITTED", reservation_id=OPEN, obligations=["o"]))
    authz = client(node)
    authz.obligations.register("o", after=fail)
    with pytest.raises(Denied):
        guarded(authz, "sync", lambda _: "done")()
    assert reported(node) == [(OPEN, "OK", [], {})]


def test_a_generator_that_is_not_read_to_its_end_happened() -> None:
    """Also what it tells last is told."""
    node = Node()
    authz = client(node)

    @authz.guard("crm.get", report="told")
    def rows(*, told: Report) -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            told.carries("vip")

    @authz.guard("crm.get", report="told")
    async def stream(*, told: Report) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            told.carries("vip")

    assert inspect.isgenerator(rows())
    started = rows()
    assert next(started) == 1
    assert reported(node) == []
    started.close()  # type: ignore[attr-defined]
    assert reported(node) == [(OPEN, "OK", ["vip"], {})]

    async def read() -> None:
        items = stream()
        assert await anext(items) == 1
        await items.aclose()  # type: ignore[attr-defined]

    asyncio.run(read())
    assert reported(node)[1:] == [(OPEN, "OK", ["vip"], {})]


def test_what_is_cancelled_failed() -> None:
    """And stays cancelled."""
    node = Node()
    authz = client(node)

    async def main() -> None:
        begun = asyncio.Event()

        @authz.guard("crm.get")
        async def wait() -> None:
            begun.set()
            await asyncio.sleep(30)

        task = asyncio.create_task(wait())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert reported(node) == [(OPEN, "FAILED", [], {})]


def test_a_report_takes_no_longer_than_a_question() -> None:
    """A report takes no longer than a question."""
    node = Node()
    authz = client(node, timeout=0.2, retries=10)
    asked: list[float] = []

    class Slow:
        def call(self, method: str, request: bytes, timeout: float) -> bytes:
            if method.endswith("/Report"):
                asked.append(timeout)
                raise TimeoutError
            return node.call(method, request, timeout)

        async def acall(self, method: str, request: bytes, timeout: float) -> bytes:  # noqa: ASYNC109 - part of the protocol
            return self.call(method, request, timeout)

        def close(self) -> None:
            """Nothing."""

        async def aclose(self) -> None:
            """Nothing."""

    authz.parts.session.transport = Slow()
    assert guarded(authz, "sync", lambda _: "done")() == "done"
    assert len(asked) == 1
    assert 0 < asked[0] <= 0.2


@pytest.mark.parametrize("way", ["sync", "async"])
def test_what_is_performed_with_a_secret_is_told_once_there_is_one(way: str) -> None:
    """Without it nothing comes of the permit, and the node knows."""
    node = Node()
    authz = client(node)

    @authz.guard("crm.get", secret="key", report="told")
    def sync(*, key: Any, told: Report) -> str:
        told.carries()
        return str(key.parts["header"])

    @authz.guard("crm.get", secret="key", report="told")
    async def coroutine(*, key: Any, told: Report) -> str:
        await asyncio.sleep(0)
        told.carries()
        return str(key.parts["header"])

    def run() -> str:
        return sync() if way == "sync" else asyncio.run(coroutine())

    assert not inspect.signature(sync).parameters
    with pytest.raises(Unavailable):
        run()
    assert reported(node) == []
    lease = credentials_pb2.Lease(id="l", parts={"header": "x-key"})
    node.says("Issue", credentials_pb2.IssueResponse(lease=lease))
    assert run() == "x-key"
    assert reported(node) == [(OPEN, "OK", [], {})]


def test_the_report_is_a_keyword_of_the_function() -> None:
    """The report is a keyword of the function."""
    authz = client(Node())
    for wrong in (lambda told: told, lambda: None):
        with pytest.raises(UsageError, match="told"):
            authz.guard("crm.get", report="told")(wrong)


def test_whoever_asks_reports() -> None:
    """What `check` gave is told by `report`, and there a failure raises."""
    node = Node()
    authz = client(node)
    permit = authz.check("crm.get")
    assert (permit.reservation_id, permit.yields) == (OPEN, ("pii", "vip"))
    authz.report(permit)
    authz.report(permit, "failed")
    asyncio.run(authz.areport(permit, labels=["vip"], actuals={"money": 1}))
    assert reported(node) == [
        (OPEN, "OK", ["pii", "vip"], {}),
        (OPEN, "FAILED", [], {}),
        (OPEN, "OK", ["vip"], {"money": 1}),
    ]
    node.says("Report", NoAnswer(grpc.StatusCode.FAILED_PRECONDITION, "NOT_PERMITTED"))
    with pytest.raises(Denied) as raised:
        authz.report(permit)
    assert raised.value.reason_code == "NOT_PERMITTED"
    assert authz.reports.lost == 0
