"""Tasks of the client: they start and end with their block, and travel with what is called."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import httpx2
import pytest

from authz_client import (
    Authz,
    Between,
    Denied,
    Ending,
    GrpcTransport,
    OneOf,
    Prefix,
    Refused,
    Scope,
    StepUp,
    TaskOptions,
    TransportError,
    Unavailable,
    current_task,
    default,
    outgoing_task,
    task_headers,
    within_task,
)
from authz_client.base_errors import UsageError
from authz_client.integrations import httpx as for_httpx
from authz_client.integrations import httpx2 as for_httpx2
from authz_client.integrations.grpc import aio_client_interceptors, client_interceptors
from authz_client.v1 import decision_pb2, tasks_pb2
from tests.support.node import NoAnswer, Node

BOT = "spiffe://a.example/ns/support/sa/bot"
PEER = "spiffe://a.example/ns/support/sa/peer"


def client(node: Node, **more: Any) -> Authz:
    """A client of a node in memory."""
    return Authz(transport=node, credentials="svid", **{"timeout": 20, **more})


def test_a_task_starts_and_ends_with_its_block() -> None:
    """A task starts and ends with its block."""
    node = Node()
    authz = client(node)
    start: TaskOptions = {
        "params": {"ticket": "T-1", "urgent": True, "count": 3},
        "subject_token": "alice",
        "prompt": "Answer T-1",
        "assignee": BOT,
        "scope": [
            "crm.search",
            Scope(
                "gmail.send_email",
                collections=["mail"],
                ids=["a"],
                path_prefix="x",
                label_ceiling=["pii"],
                arguments={"/to": OneOf("a", "b"), "/n": Between(1, 3), "/s": Prefix("Re")},
                uses=2,
            ),
        ],
        "deadline": timedelta(minutes=5),
    }

    def here() -> None:
        with authz.task("answer-ticket", **start) as task:
            assert current_task() == outgoing_task() == task.id == "task-1"
            authz.check("crm.search")
        assert current_task() is None

    async def there() -> None:
        async with authz.task("answer-ticket", **start) as task:
            assert current_task() == outgoing_task() == task.id == "task-2"
            await authz.acheck("crm.search")
        assert current_task() is None

    here()
    asyncio.run(there())
    for number, request in enumerate(node.requests("Start"), 1):
        assert request.template == "answer-ticket"
        assert dict(request.params) == {"ticket": "T-1", "urgent": True, "count": 3}
        assert request.prompt == "Answer T-1"
        assert request.assignee == BOT
        assert [(e.role, e.token) for e in request.evidence] == [(1, "svid"), (2, "alice")]
        assert request.idempotency_key
        left = request.deadline.ToDatetime(UTC) - datetime.now(UTC)
        assert timedelta(minutes=4) < left <= timedelta(minutes=5)
        plain, narrow = request.scope
        assert plain == tasks_pb2.ScopeEntry(operation="crm.search")
        assert narrow.uses == 2
        assert narrow.resources.path_prefix == "x"
        assert list(narrow.arguments["/to"].one_of.values) == ["a", "b"]
        assert narrow.arguments["/n"].range == tasks_pb2.IntegerRange(minimum=1, maximum=3)
        assert narrow.arguments["/s"].prefix == "Re"
        assert node.status(f"task-{number}") == "COMPLETED"
    assert [request.task for request in node.requests("Check")] == ["task-1", "task-2"]
    # What runs outside says nothing of a task.
    authz.check("crm.search")
    assert node.requests("Check")[-1].task == ""


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, Denied])
def test_an_exception_aborts_the_task(error: type[BaseException]) -> None:
    """An exception aborts the task."""
    node = Node()
    authz = client(node)
    raised = error("x") if error is not Denied else None

    def fail() -> None:
        if raised is not None:
            raise raised
        node.says("Check", NoAnswer(grpc.StatusCode.PERMISSION_DENIED))
        authz.check("crm.search")

    def here() -> None:
        with authz.task("t"):
            fail()

    async def there() -> None:
        async with authz.task("t"):
            fail()

    with pytest.raises(error):
        here()
    assert node.status("task-1") == "ABORTED"
    if error in {ValueError, Denied}:
        with pytest.raises(error):
            asyncio.run(there())
        assert node.status("task-2") == "ABORTED"
    assert current_task() is None


def test_a_cancelled_block_aborts_the_task() -> None:
    """A cancelled block aborts the task."""
    node = Node()
    authz = client(node)

    entered = asyncio.Event()

    async def work() -> None:
        async with authz.task("t"):
            entered.set()
            await asyncio.sleep(30)

    async def main() -> None:
        working = asyncio.create_task(work())
        await entered.wait()
        assert node.started
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working

    asyncio.run(main())
    assert node.status("task-1") == "ABORTED"


class Held(Node):
    """Answers one method only once it may, and the others at once."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method = method
        self.reached = asyncio.Event()
        self.released = asyncio.Event()

    async def acall(self, method: str, request: bytes, timeout: float) -> bytes:  # noqa: ASYNC109 - part of the protocol
        """Waits, and answers."""
        if method.endswith(self.method):
            self.reached.set()
            await self.released.wait()
        return self.call(method, request, timeout)


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize(("method", "status"), [("Start", "ABORTED"), ("End", "COMPLETED")])
def test_a_block_that_is_cancelled_while_it_starts_or_ends_leaves_no_task(
    method: str, status: str, times: int
) -> None:
    """Also where the cancellation comes again and again, as that of anyio does."""

    async def main() -> None:
        node = Held(method)
        entered = asyncio.Event()

        async def work() -> None:
            async with client(node, timeout=30).task("t"):
                entered.set()

        working = asyncio.create_task(work())
        await node.reached.wait()
        for _ in range(times):
            working.cancel()
            await asyncio.sleep(0)
        node.released.set()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert entered.is_set() == (method == "End")
        async with asyncio.timeout(30):
            while not node.requests("End"):  # noqa: ASYNC110 - what ends the task is nobody's to wait for
                await asyncio.sleep(0.001)
        assert node.status("task-1") == status

    asyncio.run(main())


def test_a_start_is_made_once_however_often_it_is_asked() -> None:
    """A start is made once however often it is asked."""
    node = Node()

    def lost(request: tasks_pb2.StartRequest) -> Any:
        # It starts, and the answer does not come.
        node._start("Start", request)
        return NoAnswer(grpc.StatusCode.UNAVAILABLE)

    node.says("Start", lost, lambda request: node._start("Start", request))
    with client(node).task("t") as task:
        assert task.id == "task-1"
    first, second = node.requests("Start")
    assert first.idempotency_key == second.idempotency_key
    assert list(node.started) == ["task-1"]
    with client(node).task("t"):
        pass
    assert node.requests("Start")[-1].idempotency_key != first.idempotency_key


def test_a_start_that_is_refused_runs_nothing() -> None:
    """A start that is refused runs nothing."""
    refusals: list[tuple[Any, type[Refused]]] = [
        (NoAnswer(grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED"), Denied),
        (NoAnswer(grpc.StatusCode.PERMISSION_DENIED, "APPROVAL_REQUIRED"), StepUp),
        (NoAnswer(grpc.StatusCode.UNAUTHENTICATED), Denied),
        (NoAnswer(grpc.StatusCode.UNAVAILABLE, "STATE_UNAVAILABLE"), Unavailable),
        (NoAnswer(grpc.StatusCode.DEADLINE_EXCEEDED), Unavailable),
        (NoAnswer(grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED"), Denied),
        (tasks_pb2.StartResponse(), Unavailable),
        (b"\xff", Unavailable),
    ]
    for answer, kind in refusals:
        node, ran = Node().says("Start", answer), []
        with pytest.raises(kind), client(node).task("t"):
            ran.append(1)
        assert ran == []
        assert current_task() is None
    node = Node().says("Start", NoAnswer(grpc.StatusCode.PERMISSION_DENIED, "OUT_OF_SCOPE"))
    with pytest.raises(Denied) as raised:
        client(node).task("t").__enter__()
    assert raised.value.reason_code == "OUT_OF_SCOPE"
    assert raised.value.message == "told to"
    assert "told to" not in str(raised.value)
    assert len(node.asked) == 1


def test_a_task_that_cannot_be_ended_is_not_overlooked() -> None:
    """A task that cannot be ended is not overlooked."""
    node = Node().says("End", NoAnswer(grpc.StatusCode.INTERNAL))
    with pytest.raises(Unavailable), client(node).task("t"):
        pass
    with pytest.raises(ValueError, match="mine") as raised, client(node).task("t"):
        raise ValueError("mine")
    assert "task-2 could not be ended" in raised.value.__notes__[0]

    async def main() -> None:
        async with client(node).task("t"):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        asyncio.run(main())


def test_a_task_that_ended_before_needs_no_end() -> None:
    """A task that ended before needs no end."""
    node = Node()
    with client(node).task("t") as task:
        node.started[task.id].status = tasks_pb2.TASK_STATUS_REVOKED
    assert client(node).tasks.end("unknown") == 0
    with client(node).task("t") as other:
        pass
    assert node.status(other.id) == "COMPLETED"


def test_a_child_travels_and_the_parent_works_on() -> None:
    """A child travels and the parent works on."""
    node = Node()
    authz = client(node)
    with authz.task("t") as task:
        with task.delegate(PEER, scope=["crm.search"], params={"a": "b"}) as child:
            assert (current_task(), outgoing_task()) == (task.id, child.id)
            assert task_headers() == {"authz-task": child.id}
            authz.check("crm.search")
        assert (current_task(), outgoing_task()) == (task.id, task.id)
        with pytest.raises(ValueError, match="x"), task.delegate(PEER) as aborted:
            raise ValueError("x")
    (first, second) = node.requests("Delegate")
    assert (first.parent, first.assignee) == (task.id, PEER)
    assert [entry.operation for entry in first.scope] == ["crm.search"]
    assert first.idempotency_key != second.idempotency_key
    assert node.requests("Check")[0].task == task.id
    assert node.status(child.id) == "COMPLETED"
    assert node.status(aborted.id) == "ABORTED"


def test_a_child_gets_the_limits_that_its_parent_has() -> None:
    """What is left open is the parent's, since more than that would be refused."""
    node = Node()
    read = Scope("crm.read", path_prefix="acme", label_ceiling=["pii"])
    send = Scope("mail.send", arguments={"/to": OneOf("a", "b"), "/n": Between(1, 3)}, uses=3)
    twice = [Scope("crm.get", ids=["1"]), Scope("crm.get", ids=["2"])]
    with client(node).task("t", scope=[read, send, *twice]) as task:
        narrow: list[Scope | str] = [
            "crm.read",
            Scope("mail.send", arguments={"/to": OneOf("a")}, uses=1),
            Scope("crm.read", ids=["acme/1"]),
            "crm.get",
            Scope("crm.get"),
            "crm.other",
        ]
        task.delegate(PEER, scope=narrow).__enter__()
        task.delegate(PEER).__enter__()
    first, second = node.requests("Delegate")
    assert list(second.scope) == []
    assert list(first.scope) == [
        read.message(),
        Scope("mail.send", arguments={"/to": OneOf("a"), "/n": Between(1, 3)}, uses=1).message(),
        Scope("crm.read", ids=["acme/1"], label_ceiling=["pii"]).message(),
        *[one.message() for one in twice],
        tasks_pb2.ScopeEntry(operation="crm.get"),
        tasks_pb2.ScopeEntry(operation="crm.other"),
    ]


def test_a_child_in_async_code() -> None:
    """A child in async code."""
    node = Node()
    authz = client(node)

    async def main() -> None:
        async with authz.task("t") as task, task.delegate(PEER) as child:
            assert (current_task(), outgoing_task()) == (task.id, child.id)
            await task.aextend("and bob@acme.example too")

    asyncio.run(main())
    assert {node.status(task) for task in node.started} == {"COMPLETED"}
    ends = [request.task for request in node.requests("End")]
    assert ends == ["task-2", "task-1"]
    assert node.requests("Extend")[0].prompt == "and bob@acme.example too"


def test_extend_and_end_by_hand() -> None:
    """Extend and end by hand."""
    node = Node()
    authz = client(node)
    with authz.task("t") as task:
        task.extend("more")
        assert authz.tasks.end(task.id, Ending.ABORTED) == 1
        assert asyncio.run(authz.tasks.aend(task.id)) == 0


def test_a_block_is_entered_once() -> None:
    """A block is entered once."""
    block = client(Node()).task("t")
    with block:
        pass
    with pytest.raises(UsageError, match="once"), block:
        pass
    with pytest.raises(UsageError, match="before"):
        client(Node()).task("t").__exit__(None, None, None)


def test_wrong_options() -> None:
    """Wrong options."""
    authz = client(Node())
    with pytest.raises(UsageError, match="written as JSON"):
        authz.task("t", params={"a": object()})


def test_tasks_do_not_leak_between_threads_and_coroutines() -> None:
    """Tasks do not leak between threads and coroutines."""
    node = Node()
    authz = client(node)
    seen: dict[str, str | None] = {}

    async def one(name: str) -> None:
        async with authz.task("t") as task:
            await asyncio.sleep(0.01)
            seen[name] = current_task()
            assert current_task() == task.id

    async def main() -> None:
        await asyncio.gather(*(one(str(number)) for number in range(5)))

    asyncio.run(main())
    assert len(set(seen.values())) == 5
    with authz.task("t"):
        thread = threading.Thread(target=lambda: seen.update(thread=current_task()))
        thread.start()
        thread.join()
    assert seen["thread"] is None


def test_the_task_of_the_process_client() -> None:
    """The task of the process client."""
    default.use(client(Node()))
    try:
        with default.task("t") as task:
            assert current_task() == task.id
    finally:
        default.use(None)


# --- what travels


@pytest.mark.parametrize(("library", "hooks"), [(httpx, for_httpx), (httpx2, for_httpx2)])
def test_http_requests_carry_the_task(library: Any, hooks: Any) -> None:
    """Of the block that they are made in, unless they name one."""
    seen: list[str | None] = []

    def answer(request: Any) -> Any:
        seen.append(request.headers.get("authz-task"))
        return library.Response(200)

    transport = library.MockTransport(answer)
    with library.Client(transport=transport, event_hooks=hooks.event_hooks()) as http:
        http.get("http://crm.example/")
        with within_task("task-1"):
            http.get("http://crm.example/")
            http.get("http://crm.example/", headers={"Authz-Task": "other"})

    async def main() -> None:
        async with library.AsyncClient(
            transport=transport, event_hooks=hooks.async_event_hooks()
        ) as http:
            with within_task("task-2"):
                await http.get("http://crm.example/")
            await http.get("http://crm.example/")

    asyncio.run(main())
    assert seen == [None, "task-1", "other", "task-2", None]


ECHO = "test.Echo"


class Echo(grpc.GenericRpcHandler):
    """Answers every kind of call with the task that it carries."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Finds the handler."""
        task = dict(handler_call_details.invocation_metadata or ()).get("authz-task", "")
        tasks = [
            str(value)
            for key, value in handler_call_details.invocation_metadata or ()
            if key == "authz-task"
        ]
        assert len(tasks) <= 1
        said = str(task).encode()
        method = handler_call_details.method.rpartition("/")[2]

        def drained(requests: Iterator[bytes]) -> bytes:
            assert list(requests) == [b"1", b"2"]
            return said

        return {
            "UU": grpc.unary_unary_rpc_method_handler(lambda _, __: said),
            "US": grpc.unary_stream_rpc_method_handler(lambda _, __: iter([said])),
            "SU": grpc.stream_unary_rpc_method_handler(lambda r, _: drained(r)),
            "SS": grpc.stream_stream_rpc_method_handler(lambda r, _: iter([drained(r)])),
        }[method]


@pytest.fixture
def echo() -> Iterator[str]:
    """The address of a server that tells which task a call carried."""
    from concurrent import futures  # noqa: PLC0415

    with futures.ThreadPoolExecutor(4) as executor:
        server = grpc.server(executor)
        server.add_generic_rpc_handlers((Echo(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


def test_grpc_carries_the_task(echo: str) -> None:
    """Grpc carries the task."""
    with grpc.insecure_channel(echo) as plain:
        channel = grpc.intercept_channel(plain, *client_interceptors())

        def ask(metadata: Any = None) -> list[bytes]:
            unary: Any = channel.unary_unary(f"/{ECHO}/UU")
            stream: Any = channel.unary_stream(f"/{ECHO}/US")
            up: Any = channel.stream_unary(f"/{ECHO}/SU")
            duplex: Any = channel.stream_stream(f"/{ECHO}/SS")
            more = {"metadata": metadata, "timeout": 10}
            return [
                unary(b"", **more),
                *stream(b"", **more),
                up(iter([b"1", b"2"]), **more),
                *duplex(iter([b"1", b"2"]), **more),
            ]

        assert ask() == [b""] * 4
        with within_task("task-1"):
            assert ask() == [b"task-1"] * 4
            assert ask([("x", "y")]) == [b"task-1"] * 4
            assert ask([("authz-task", "other")]) == [b"other"] * 4


def test_grpc_aio_carries_the_task(echo: str) -> None:
    """Grpc aio carries the task."""

    async def requests() -> AsyncIterator[bytes]:
        for request in (b"1", b"2"):
            yield request

    async def ask(channel: Any, metadata: Any = None) -> list[bytes]:
        more = {"metadata": metadata, "timeout": 10}
        return [
            await channel.unary_unary(f"/{ECHO}/UU")(b"", **more),
            *[one async for one in channel.unary_stream(f"/{ECHO}/US")(b"", **more)],
            await channel.stream_unary(f"/{ECHO}/SU")(requests(), **more),
            *[one async for one in channel.stream_stream(f"/{ECHO}/SS")(requests(), **more)],
        ]

    async def main() -> None:
        hooks = aio_client_interceptors()
        async with grpc.aio.insecure_channel(echo, interceptors=hooks) as channel:
            assert await ask(channel) == [b""] * 4
            with within_task("task-1"):
                assert await ask(channel) == [b"task-1"] * 4
                assert await ask(channel, (("authz-task", "other"),)) == [b"other"] * 4

    asyncio.run(main())


# --- over gRPC


def test_over_grpc(tmp_path: Path) -> None:
    """Over grpc."""
    for address in ("127.0.0.1:0", f"unix:{tmp_path}/node.sock"):
        node = Node()
        with node.served(address) as served:
            where = served.replace("unix:", "unix://")
            with Authz(where, credentials="svid", timeout=10) as authz:
                with authz.task("t") as task:
                    authz.check("crm.search")
                node.says("Check", NoAnswer(grpc.StatusCode.UNAVAILABLE, "STORE_SLOW"))
                with pytest.raises(Unavailable) as raised:
                    authz.check("crm.search")
                assert raised.value.reason_code == "STORE_SLOW"
            assert node.status(task.id) == "COMPLETED"
            assert len(node.requests("Check")) == 4

            async def main(where: str, node: Node) -> None:
                node.says("Check")
                async with Authz(where, credentials="svid", timeout=10) as authz:
                    async with authz.task("t"):
                        await authz.acheck("crm.search")
                    assert await authz.alist() == ()
                    node.says("Check", NoAnswer(grpc.StatusCode.PERMISSION_DENIED, "REVOKED"))
                    with pytest.raises(Denied) as raised:
                        await authz.acheck("crm.search")
                    assert raised.value.reason_code == "REVOKED"

            asyncio.run(main(where, node))


def test_a_client_that_is_closed_under_a_call() -> None:
    """A client that is closed under a call."""
    transport = GrpcTransport("127.0.0.1:1")
    authz = Authz(transport=transport)
    transport._channel().channel.close()
    with pytest.raises(Unavailable):
        authz.check("crm.search")

    async def main() -> None:
        await transport._aio_channel().channel.close()
        with pytest.raises(Unavailable):
            await authz.acheck("crm.search")

    asyncio.run(main())


def test_nobody_answers() -> None:
    """Nobody answers."""
    authz = Authz("127.0.0.1:1", timeout=0.5)
    for way in (0, 1):
        ask = [lambda: authz.check("crm.search"), lambda: asyncio.run(authz.acheck("crm.search"))]
        with pytest.raises(Unavailable) as raised:
            ask[way]()
        assert raised.value.decision_id == ""
    authz.close()


def test_a_node_that_does_not_answer_in_time() -> None:
    """A node that does not answer in time."""
    node = Node(delay=0.5)
    with node.served() as where:
        authz = Authz(where, timeout=0.1)
        with pytest.raises(Unavailable):
            authz.check("crm.search")

        async def main() -> None:
            async with Authz(where, timeout=0.1) as there:
                with pytest.raises(Unavailable):
                    await there.acheck("crm.search")

        asyncio.run(main())
        authz.close()


def test_transport_errors_without_a_readable_status() -> None:
    """Transport errors without a readable status."""
    assert TransportError(14, "x", b"\xff\xff").reason == ""
    assert decision_pb2.CheckRequest().task == ""
