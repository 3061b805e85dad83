"""Guarded methods of a gRPC server, on threads and on an event loop: which calls run, and how the others end."""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
import grpc.aio
import pytest

from authz_client import Authz, Obligation
from authz_client.base_errors import UsageError
from authz_client.integrations.grpc import (
    GuardedMethod,
    aio_server_interceptor,
    server_interceptor,
)
from authz_client.v1 import authorizer_pb2, authorizer_pb2_grpc, decision_pb2
from tests.support.node import NoAnswer, Node, decision
from tests.support.waiting import eventually

Request = authorizer_pb2.ListRequest
Answer = authorizer_pb2.ListResponse
SERVICE = "crm.Crm"
CALLER = (("authorization", "Bearer agent"), ("authz-task", "task-9"))
METHODS = {
    f"/{SERVICE}/Get": "crm.get",
    f"/{SERVICE}/Rows": "crm.rows",
    f"/{SERVICE}/Written": "crm.rows",
    f"/{SERVICE}/Put": "crm.put",
    f"/{SERVICE}/Chat": "crm.put",
    f"/{SERVICE}/Open": None,
}


@dataclass
class Crm:
    """Methods of every kind; each notes that it ran, and asks about the caller a second time."""

    authz: Authz
    ran: list[str] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)

    def get(self, request: Any, context: Any) -> Any:
        """Answers once."""
        del context
        self.ran.append(f"Get {request.system}")
        if request.system == "nested":
            self.authz.check("crm.nested")
        return Answer(operations=[request.system])

    def rows(self, request: Any, context: Any) -> Iterator[Any]:
        """Answers thrice, or without end."""
        del context
        self.ran.append("Rows")
        try:
            left = 10_000 if request.system == "endless" else 3
            for number in range(left):
                if request.system == "nested":
                    self.authz.check("crm.nested")
                yield Answer(operations=[str(number)])
        finally:
            self.closed.set()

    async def aget(self, request: Any, context: Any) -> Any:
        """As `get`."""
        del context
        self.ran.append(f"Get {request.system}")
        if request.system == "nested":
            await self.authz.acheck("crm.nested")
        return Answer(operations=[request.system])

    async def arows(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """As `rows`."""
        del context
        self.ran.append("Rows")
        try:
            left = 10_000 if request.system == "endless" else 3
            for number in range(left):
                if request.system == "nested":
                    await self.authz.acheck("crm.nested")
                yield Answer(operations=[str(number)])
        finally:
            self.closed.set()

    async def written(self, request: Any, context: Any) -> None:
        """Writes its answers itself."""
        del request
        self.ran.append("Written")
        for number in range(3):
            await context.write(Answer(operations=[str(number)]))

    def never(self, requests: Any, context: Any) -> Any:
        """Takes a stream."""
        del requests, context
        self.ran.append("stream")
        return Answer()

    def handlers(self, kind: str) -> Any:
        """The generic handler of the service, with functions or with coroutines."""
        is_async = kind == "coroutines"
        codec: Any = {
            "request_deserializer": Request.FromString,
            "response_serializer": Answer.SerializeToString,
        }
        get: Any = self.aget if is_async else self.get
        rows: Any = self.arows if is_async else self.rows
        written: Any = self.written if is_async else self.rows
        unary = grpc.unary_unary_rpc_method_handler(get, **codec)
        made = {
            "Get": unary,
            "Open": unary,
            "Unlisted": unary,
            "Rows": grpc.unary_stream_rpc_method_handler(rows, **codec),
            "UnlistedRows": grpc.unary_stream_rpc_method_handler(rows, **codec),
            "Written": grpc.unary_stream_rpc_method_handler(written, **codec),
            "Put": grpc.stream_unary_rpc_method_handler(self.never, **codec),
            "Chat": grpc.stream_stream_rpc_method_handler(self.never, **codec),
        }
        return grpc.method_handlers_generic_handler(SERVICE, made)


@dataclass
class Site:
    """A served `Crm`, and the node that its interceptor asks."""

    node: Node
    crm: Crm
    channel: grpc.Channel

    def call(self, method: str, system: str = "x", metadata: Any = CALLER) -> list[str]:
        """Calls a method; returns the operations that it answers."""
        return [
            text for answer in self.answers(method, system, metadata) for text in answer.operations
        ]

    def answers(
        self, method: str, system: str = "x", metadata: Any = CALLER
    ) -> Generator[Any, None, None]:
        """The answers of a call, as they come."""
        codec: Any = {
            "request_serializer": Request.SerializeToString,
            "response_deserializer": Answer.FromString,
        }
        request, path = Request(system=system), f"/{SERVICE}/{method}"
        more = {"metadata": metadata, "timeout": 20}
        if method == "Put":
            put: Any = self.channel.stream_unary(path, **codec)
            yield put(iter([request]), **more)
        elif method == "Chat":
            chat: Any = self.channel.stream_stream(path, **codec)
            yield from chat(iter([request]), **more)
        elif method.endswith(("Rows", "Written")):
            rows: Any = self.channel.unary_stream(path, **codec)
            yield from rows(request, **more)
        else:
            get: Any = self.channel.unary_unary(path, **codec)
            yield get(request, **more)

    def refused(self, method: str, **options: Any) -> Any:
        """Calls a method that is refused; returns the error."""
        with pytest.raises(grpc.RpcError) as raised:
            self.call(method, **options)
        return raised.value

    def checks(self) -> Sequence[Any]:
        """The questions that were asked."""
        return self.node.requests("Check")


@contextmanager
def served(kind: str, methods: Any, origin: str = "") -> Iterator[Site]:
    """A server with an interceptor: on threads (`threads`), or on a loop with functions or coroutines."""
    node = Node()
    authz = Authz(transport=node, enforcer=True, timeout=20, retries=0)
    crm = Crm(authz)

    def register(server: Any) -> None:
        server.add_generic_rpc_handlers((crm.handlers(kind),))

    with (
        running(kind, register, authz, methods, origin) as port,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield Site(node, crm, channel)


@contextmanager
def running(
    kind: str, register: Callable[[Any], None], authz: Authz, methods: Any, origin: str
) -> Iterator[int]:
    """Runs a server; yields its port."""
    if kind == "threads":
        with futures.ThreadPoolExecutor(4) as executor:
            interceptor = server_interceptor(authz, methods, origin=origin)
            server = grpc.server(executor, interceptors=[interceptor])
            register(server)
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            yield port
            server.stop(None).wait()
        return
    ready: futures.Future[tuple[int, Callable[[], Any]]] = futures.Future()

    async def main() -> None:
        interceptor = aio_server_interceptor(authz, methods, origin=origin)
        executor = futures.ThreadPoolExecutor(4)
        server = grpc.aio.server(executor, interceptors=[interceptor])
        register(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        ready.set_result((port, partial(loop.call_soon_threadsafe, done.set)))
        await done.wait()
        await server.stop(None)
        # Its threads hand the ends of streams to this loop.
        await asyncio.to_thread(executor.shutdown)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    port, stop = ready.result(20)
    try:
        yield port
    finally:
        stop()
        thread.join(20)


@pytest.fixture(params=["threads", "functions", "coroutines"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A server of each kind."""
    with served(request.param, METHODS) as made:
        yield made


def test_a_permitted_method_runs(site: Site) -> None:
    """The question is about the caller, its task and the message."""
    assert site.call("Get", "T-1") == ["T-1"]
    (asked,) = site.checks()
    assert (asked.operation, asked.task) == ("crm.get", "task-9")
    assert [(one.token, one.role) for one in asked.evidence] == [
        ("agent", decision_pb2.EVIDENCE_ROLE_AGENT)
    ]
    assert json.loads(asked.arguments_json)["system"] == "T-1"


def test_fields_that_are_not_set_are_judged(site: Site) -> None:
    """The default of a field is what the method gets, so policies see it."""
    site.call("Get", "")
    (asked,) = site.checks()
    assert json.loads(asked.arguments_json) == {
        "evidence": [], "task": "", "system": "", "page_token": "", "page_size": 0,
        "wants_tools": False,
    }  # fmt: skip


def test_values_of_an_answer_are_reported(site: Site) -> None:
    """Fields of the message, by their names in the .proto file. A stream of answers brings none."""
    asked_for = ["/operations/*", "/next_page_token"]
    permit = decision("PERMITTED", reservation_id="r", report_values=asked_for)
    site.node.says("Check", permit)
    site.call("Get", "T-1")
    site.call("Rows")
    eventually(lambda: len(site.node.requests("Report")) == 2, what="both calls are reported")
    first, second = site.node.requests("Report")
    found = [(one.pointer, one.item, one.text) for one in first.values]
    assert found == [("/operations/*", 0, "T-1")]
    assert not second.values


@pytest.mark.parametrize("method", ["Get", "Rows", "Written"])
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (decision("FORBIDDEN"), grpc.StatusCode.PERMISSION_DENIED),
        (
            decision("APPROVAL_REQUIRED", step_up_kinds=["approve"]),
            grpc.StatusCode.PERMISSION_DENIED,
        ),
        (decision("NO_CREDENTIAL"), grpc.StatusCode.UNAUTHENTICATED),
        (decision("BAD_INPUT"), grpc.StatusCode.INVALID_ARGUMENT),
        (decision("OVERLOADED"), grpc.StatusCode.UNAVAILABLE),
        (NoAnswer(grpc.StatusCode.UNAVAILABLE), grpc.StatusCode.UNAVAILABLE),
        (b"no answer", grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_a_method_that_is_not_permitted_does_not_run(
    site: Site, method: str, answer: Any, code: grpc.StatusCode
) -> None:
    """The status says why, in words that an agent may see."""
    site.node.says("Check", answer)
    error = site.refused(method)
    assert error.code() is code
    assert "may not be performed" in error.details() or code is not grpc.StatusCode.UNAVAILABLE
    assert site.crm.ran == []


def test_a_method_without_an_operation_is_refused(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names it once."""
    with caplog.at_level(logging.WARNING, "authz_client"):
        for _ in range(2):
            assert site.refused("Unlisted").code() is grpc.StatusCode.PERMISSION_DENIED
        assert site.refused("UnlistedRows").code() is grpc.StatusCode.PERMISSION_DENIED
    assert site.crm.ran == []
    assert site.checks() == []
    assert [record.args[0] for record in caplog.records if isinstance(record.args, tuple)] == [
        f"/{SERVICE}/Unlisted",
        f"/{SERVICE}/UnlistedRows",
    ]


@pytest.mark.parametrize("method", ["Put", "Chat"])
def test_a_stream_of_requests_is_refused(site: Site, method: str) -> None:
    """Its messages come after the question."""
    assert site.refused(method).code() is grpc.StatusCode.PERMISSION_DENIED
    assert site.crm.ran == []
    assert site.checks() == []


def test_an_open_method_asks_nothing(site: Site) -> None:
    """Also without a caller."""
    assert site.call("Open", metadata=()) == ["x"]
    assert site.checks() == []


def test_a_method_that_the_server_lacks(site: Site) -> None:
    """Is unknown, as without the interceptor."""
    assert site.refused("Lacking").code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", ["Rows", "Written"])
def test_a_permitted_stream_of_answers(site: Site, method: str) -> None:
    """One question, before the first answer."""
    assert site.call(method) == ["0", "1", "2"]
    (asked,) = site.checks()
    assert asked.operation == "crm.rows"


@pytest.mark.parametrize("method", ["Get", "Rows"])
def test_within_a_method_the_caller_is_the_same(site: Site, method: str) -> None:
    """Guarded functions that it calls ask about the agent, not about the server."""
    site.call(method, "nested")
    asked = site.checks()
    assert len(asked) == {"Get": 2, "Rows": 4}[method]
    assert {one.operation for one in asked[1:]} == {"crm.nested"}
    assert {one.evidence[0].token for one in asked} == {"agent"}
    site.node.says("Check", decision("PERMITTED"), decision("FORBIDDEN"))
    assert site.refused(method, system="nested").code() is grpc.StatusCode.PERMISSION_DENIED


def test_callers_do_not_mix(site: Site) -> None:
    """Each call in flight has its own, also while another one's stream is read."""
    other = (("authorization", "Bearer other"),)
    first, second = site.answers("Rows", "nested"), site.answers("Rows", "nested", other)
    for _ in range(3):
        next(first)
        next(second)
    site.call("Get", "nested", (("authorization", "Bearer third"),))
    tokens = [one.evidence[0].token for one in site.checks()]
    assert {token: tokens.count(token) for token in tokens} == {"agent": 4, "other": 4, "third": 2}


def test_a_request_that_contradicts_itself_is_refused(site: Site) -> None:
    """Nothing is asked about it."""
    twice = (*CALLER, ("authorization", "Bearer other"))
    assert site.refused("Get", metadata=twice).code() is grpc.StatusCode.INVALID_ARGUMENT
    assert site.checks() == []
    assert site.crm.ran == []


def test_reports_follow_the_method(site: Site) -> None:
    """When an answer is made, or when the last one is."""
    site.node.says("Check", decision("PERMITTED", reservation_id="open", yields=["pii"]))
    site.call("Get")
    site.call("Rows")
    told = [(one.result, list(one.labels)) for one in site.node.requests("Report")]
    assert told == [(authorizer_pb2.REPORT_RESULT_OK, ["pii"])] * 2


@pytest.mark.parametrize("kind", ["threads", "coroutines"])
def test_a_stream_that_nobody_reads_any_more_is_ended(kind: str) -> None:
    """The method's generator is closed."""
    # Not with functions on a loop: grpc.aio runs their generators on threads, and leaves a coroutine behind when its loop ends.
    with served(kind, METHODS) as site:
        answers = site.answers("Rows", "endless")
        next(answers)
        answers.close()
        assert site.crm.closed.wait(20)


def test_obligations(site: Site) -> None:
    """One on the result is carried out for a single answer; a stream with it does not run."""

    def redact(obligation: Obligation, answer: Any) -> Any:
        del obligation
        return Answer(operations=["**" for _ in answer.operations])

    site.crm.authz.obligations.register("redact:pii", after=redact)
    site.node.says("Check", decision("PERMITTED", obligations=["redact:pii"]))
    assert site.call("Get") == ["**"]
    for method in ("Rows", "Written"):
        assert site.refused(method).code() is grpc.StatusCode.PERMISSION_DENIED
    assert site.crm.ran == ["Get x"]


@pytest.mark.parametrize("kind", ["threads", "functions", "coroutines"])
def test_proofs_and_own_arguments(kind: str) -> None:
    """A proof is for the method's URL; the next nonce comes in the trailers."""
    method = GuardedMethod("crm.get", arguments=lambda request: {"query": request.system})
    proved = (("authorization", "DPoP agent"), ("dpop", "a.b.c"))
    with served(kind, {f"/{SERVICE}/Get": method}, origin="https://crm.example/") as site:
        site.call("Get", "T-1", proved)
        (asked,) = site.checks()
        assert (asked.http_method, asked.http_uri) == ("POST", f"https://crm.example/{SERVICE}/Get")
        assert asked.evidence[0].proof == "a.b.c"
        assert json.loads(asked.arguments_json) == {"query": "T-1"}
        answer = decision("BAD_CREDENTIAL")
        answer.dpop_nonce = "n-1"
        site.node.says("Check", answer)
        error = site.refused("Get", metadata=proved)
        assert dict(error.trailing_metadata())["dpop-nonce"] == "n-1"


class Listing(authorizer_pb2_grpc.AuthorizerServicer):
    """A servicer of generated code, which registers its methods in a second way beside generic handlers."""

    def List(self, request: Any, context: Any) -> Any:  # noqa: N802 - of the proto
        """Answers."""
        del context
        return Answer(operations=[request.system])


@pytest.mark.parametrize("kind", ["threads", "functions"])
def test_methods_of_generated_code_are_guarded(kind: str) -> None:
    """Listed ones ask first; the others are refused."""
    node = Node()
    authz = Authz(transport=node, enforcer=True, timeout=20, retries=0)
    methods = {"/authz.v1.Authorizer/List": "crm.list"}

    servicer: Any = Listing

    def register(server: Any) -> None:
        authorizer_pb2_grpc.add_AuthorizerServicer_to_server(servicer(), server)

    with (
        running(kind, register, authz, methods, "") as port,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = authorizer_pb2_grpc.AuthorizerStub(channel)
        answer = stub.List(Request(system="x"), metadata=CALLER, timeout=20)
        assert list(answer.operations) == ["x"]
        assert [one.operation for one in node.requests("Check")] == ["crm.list"]
        node.says("Check", decision("FORBIDDEN"))
        ask: Any
        for ask in (
            lambda: stub.List(Request(), metadata=CALLER, timeout=20),
            lambda: stub.Check(decision_pb2.CheckRequest(), metadata=CALLER, timeout=20),
        ):
            with pytest.raises(grpc.RpcError) as raised:
                ask()
            error: Any = raised.value
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert len(node.requests("Check")) == 2


@pytest.mark.parametrize("make", [server_interceptor, aio_server_interceptor])
def test_mistakes_are_told_when_the_interceptor_is_made(make: Any) -> None:
    """Each names what is wrong with it."""
    enforcer = Authz(transport=Node(), enforcer=True)
    with pytest.raises(UsageError, match=r"enforcer=True"):
        make(Authz(transport=Node()), METHODS)
    for name in ("crm.Crm/Get", "/crm.Crm", "/crm.Crm/", "", "/crm.Crm/Get "):
        with pytest.raises(UsageError, match=r"write /package\.Service/Method"):
            make(enforcer, {name: "crm.get"})
    wrong: list[Any] = ["", 3, GuardedMethod("")]
    for operation in wrong:
        with pytest.raises(UsageError, match=r"/crm\.Crm/Get: give an operation id"):
            make(enforcer, {"/crm.Crm/Get": operation})
