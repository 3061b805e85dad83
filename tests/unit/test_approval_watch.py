"""Approvals over gRPC: streams that wait hold no thread, agents see only their part, and only mapped people answer."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest

from authz.approvals import ApprovalHub
from authz.errors import UnavailableError
from authz.server.grpc.watching import StreamScope, WatchStreams
from authz_client.v1 import approvals_pb2
from tests.support.approval_site import GOOD, Site, Stub
from tests.support.approvals import FakeApprovals, open_approval
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


PENDING = approvals_pb2.APPROVAL_STATUS_PENDING
APPROVED = approvals_pb2.APPROVAL_STATUS_APPROVED
REJECTED = approvals_pb2.APPROVAL_STATUS_REJECTED
EXPIRED = approvals_pb2.APPROVAL_STATUS_EXPIRED


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A server with room for many streams."""
    site = Site(tmp_path)
    yield site
    site.close()
    assert site.errors == []


@pytest.fixture
def agent(site: Site) -> Iterator[Any]:
    """Stub of an agent."""
    with grpc.insecure_channel(f"127.0.0.1:{site.port}") as channel:
        yield Stub(channel)


@pytest.fixture
def admin(site: Site) -> Iterator[Any]:
    """Stub of the administration socket."""
    with grpc.insecure_channel(f"unix:{site.path}") as channel:
        yield Stub(channel)


def watch(approval_id: str, **more: Any) -> approvals_pb2.WatchRequest:
    """A request of the agent of the call."""
    return approvals_pb2.WatchRequest(approval_id=approval_id, evidence=[GOOD], **more)


def threads() -> int:
    """Threads of this process, also those that Python did not start."""
    return len(list(Path("/proc/self/task").iterdir()))


def test_a_thousand_streams_wait_without_a_thread_each_and_all_hear_their_answer(
    tmp_path: Path,
) -> None:
    """Also longer than a call may wait for its caller to take the answer."""
    # Many streams open at once on a busy machine, so a message has more time to arrive than in the other tests.
    timeout = 3.0
    site = Site(tmp_path, timeout=timeout)
    count, batch = 1000, 50
    for number in range(count):
        site.store.put(open_approval(f"a{number}-1", f"t{number // 50}"))
    before = threads()

    async def wait_all() -> tuple[int, list[int]]:
        channels = [
            grpc.aio.insecure_channel(f"127.0.0.1:{site.port}", options=[("x", n)])
            for n in range(4)
        ]
        stubs = [Stub(channel) for channel in channels]
        calls: list[Any] = []
        for start in range(0, count, batch):
            opened = [
                cast("Any", stubs[n % 4]).Watch(watch(f"a{n}-1"), timeout=90)
                for n in range(start, start + batch)
            ]
            firsts = await asyncio.gather(*(call.read() for call in opened))
            assert [one.approval.status for one in firsts] == [PENDING] * batch
            calls.extend(opened)
        await asyncio.sleep(timeout + 1)
        during = threads()
        assert len(site.streams) == count
        for number in range(count):
            site.store.set_status(f"a{number}-1", APPROVED if number % 2 else REJECTED)
        news = await asyncio.gather(*(call.read() for call in calls))
        for call in calls:
            call.cancel()
        for channel in channels:
            await channel.close()
        return during, [one.approval.status for one in news]

    during, statuses = asyncio.run(wait_all())

    assert statuses == [APPROVED if number % 2 else REJECTED for number in range(count)]
    assert during - before < 40, "gRPC's own threads, and none of a stream"
    eventually(lambda: len(site.streams) == 0 and len(site.hub) == 0)
    site.close()
    assert site.errors == []


def test_an_agent_sees_only_its_part(site: Site, agent: Any) -> None:
    """Neither arguments, nor who is asked or answered, nor a comment."""
    site.store.put(open_approval("a-1", decision_id="d", resource="customers/42"))
    stream = agent.Watch(watch("a-1"), timeout=30)
    next(stream)
    site.store.set_status("a-1", REJECTED, reject_reason="wrong_recipient", reject_text="text")

    told = next(stream).approval

    assert {field.name for field, _ in told.ListFields()} == {
        "id",
        "kinds",
        "status",
        "expires_at",
        "reject_reason",
    }
    assert list(stream) == [], "an approval that is decided for good ends its stream"
    assert stream.code() is grpc.StatusCode.OK


def test_a_watch_of_another_agent_is_refused(site: Site, agent: Any) -> None:
    """As is one that names no approval, or none that exists."""
    site.store.put(open_approval("a-1"))
    for request, code, text in (
        (approvals_pb2.WatchRequest(approval_id="a-1"), "PERMISSION_DENIED", "not the agent"),
        (
            approvals_pb2.WatchRequest(evidence=[GOOD]),
            "INVALID_ARGUMENT",
            "`approval_id` is missing",
        ),
        (watch("b-1"), "NOT_FOUND", "there is no approval"),
        (watch("a-1", task="t2"), "INVALID_ARGUMENT", "not the task of the approval"),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            list(agent.Watch(request, timeout=30))
        error = cast("Any", refused.value)
        assert (error.code().name, text in error.details()) == (code, True), error.details()
    assert len(site.streams) == len(site.hub) == 0


@pytest.mark.parametrize("method", ["List", "Resolve"])
def test_no_agent_lists_or_answers(site: Site, agent: Any, method: str) -> None:
    """Whatever its evidence is."""
    kinds = {"List": approvals_pb2.ApprovalsListRequest, "Resolve": approvals_pb2.ResolveRequest}
    with pytest.raises(grpc.RpcError) as refused:
        getattr(agent, method)(kinds[method](evidence=[GOOD]), timeout=30)
    assert cast("Any", refused.value).code() is grpc.StatusCode.UNIMPLEMENTED
    assert "over the administration socket" in cast("Any", refused.value).details()
    assert site.store.answered_by == []


def test_streams_of_one_task_are_bounded(tmp_path: Path) -> None:
    """One more is OVERLOADED, and a place that is given back can be taken again."""
    site = Site(tmp_path, most_of_task=2)
    site.store.put(open_approval("a-1"))
    with grpc.insecure_channel(f"127.0.0.1:{site.port}") as channel:
        stub: Any = Stub(channel)
        streams = [stub.Watch(watch("a-1"), timeout=30) for _ in range(2)]
        for stream in streams:
            next(stream)
        with pytest.raises(grpc.RpcError, match="too many watchers of approvals of this task"):
            next(stub.Watch(watch("a-1"), timeout=30))
        streams[0].cancel()
        eventually(lambda: len(site.streams) == 1)
        assert next(stub.Watch(watch("a-1"), timeout=30)).approval.status == PENDING
    site.close()


def test_time_alone_ends_a_watched_approval(site: Site, agent: Any) -> None:
    """No event tells of it, so the stream reads again."""
    approval = open_approval("a-1")
    approval.expires_at.FromMilliseconds(round(time.time() * 1000) + 700)
    site.store.put(approval)
    stream = agent.Watch(watch("a-1"), timeout=30)
    next(stream)

    # The engine derives the status from the time; it tells of no change.
    site.store._approvals["a-1"].status = EXPIRED

    assert next(stream).approval.status == EXPIRED
    assert list(stream) == []


def test_a_server_that_stops_ends_its_streams(site: Site, agent: Any) -> None:
    """With an error that says to go elsewhere."""
    site.store.put(open_approval("a-1"))
    stream = agent.Watch(watch("a-1"), timeout=30)
    next(stream)

    site.streams.drain()

    with pytest.raises(grpc.RpcError) as ended:
        next(stream)
    assert cast("Any", ended.value).code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(grpc.RpcError):
        next(agent.Watch(watch("a-1"), timeout=30))


def test_the_socket_lists_watches_and_answers_for_its_person(site: Site, admin: Any) -> None:
    """The user of the connection is the person; reading starts the clock in that name."""
    site.store.put(open_approval("a-1"))
    site.store.put(open_approval("b-1", "t2"))
    everything = admin.Watch(approvals_pb2.WatchRequest(), timeout=30)
    assert {next(everything).approval.id for _ in range(2)} == {"a-1", "b-1"}
    of_task = admin.Watch(approvals_pb2.WatchRequest(task="t2"), timeout=30)
    assert next(of_task).approval.id == "b-1"
    listed = admin.List(approvals_pb2.ApprovalsListRequest(), timeout=30)
    assert [one.id for one in listed.approvals] == ["a-1", "b-1"]

    shown = admin.Get(approvals_pb2.ApprovalsGetRequest(approval_id="a-1"), timeout=30).approval
    answer = approvals_pb2.ResolveRequest(approval_id="a-1", status=APPROVED, digest=shown.digest)
    admin.Resolve(answer, timeout=30)

    assert shown.arguments_json == b'{"id":"42"}'
    assert site.store.shown_to == [("corp/alice", "a-1")]
    (person,) = site.store.answered_by
    assert (person.name, person.method, person.uid) == ("corp/alice", "socket", os.geteuid())
    assert next(everything).approval.status == APPROVED
    assert not of_task.done()


@pytest.mark.parametrize(
    ("users", "text"),
    [
        ({4711}, "user 4711 is not a person of `approvals.people`"),
        ({0, os.geteuid()} | {4711}, "several users are connected"),
        (set(), "the user of this connection is not a person"),
    ],
)
def test_a_user_that_is_nobody_lists_and_shows_only(
    site: Site, admin: Any, users: set[int], text: str
) -> None:
    """While two users are connected, Authz cannot tell who answers."""
    site.store.put(open_approval("a-1"))
    site.users = lambda: frozenset(users)
    wanted = approvals_pb2.ApprovalsGetRequest(approval_id="a-1")
    shown = admin.Get(wanted, timeout=30).approval
    assert admin.List(approvals_pb2.ApprovalsListRequest(), timeout=30).approvals

    with pytest.raises(grpc.RpcError) as refused:
        admin.Resolve(
            approvals_pb2.ResolveRequest(approval_id="a-1", status=APPROVED, digest=shown.digest),
            timeout=30,
        )

    error = cast("Any", refused.value)
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert text in error.details()
    assert (site.store.answered_by, site.store.shown_to) == ([], [])


class Caller:
    """A caller that takes nothing until its gate opens, or its call is cancelled."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.sent: list[approvals_pb2.Approval | None] = []
        self.cancelled = False
        self._over: list[Callable[[], object]] = []
        self.status: list[object] = []

    def add_callback(self, callback: Callable[[], object]) -> bool:
        """Run it at the end."""
        self._over.append(callback)
        return True

    def cancel(self) -> None:
        """End the call."""
        self.cancelled = True
        self.gate.set()
        for callback in self._over:
            callback()

    def set_code(self, code: grpc.StatusCode) -> None:
        """Note a part of the status."""
        self.status.append(code)

    set_details = set_trailing_metadata = set_code

    def send(self, response: bytes | None) -> None:
        """Wait for the gate, as the transport waits for a reader."""
        self.gate.wait(20)
        if not self.cancelled:
            told = approvals_pb2.WatchResponse.FromString(response) if response else None
            self.sent.append(told.approval if told else None)


@pytest.fixture
def send_seconds() -> float:
    """Time that a reader has."""
    return 0.5


@pytest.fixture
def slow(send_seconds: float) -> Iterator[tuple[FakeApprovals, WatchStreams]]:
    """Streams with two senders."""
    store = FakeApprovals([open_approval("a-1"), open_approval("b-1", "t2")])
    errors: list[BaseException] = []
    hub = ApprovalHub(store, errors.append)
    streams = WatchStreams(hub, store, errors.append, senders=2, send_seconds=send_seconds)
    hub.start()
    streams.start()
    yield store, streams
    streams.close()
    hub.close()
    assert errors == []


def opened(streams: WatchStreams, scope: StreamScope) -> Caller:
    """A stream of a caller that takes nothing yet."""
    caller = Caller()
    streams.open(cast("Any", caller), caller.send, scope)
    return caller


def scope_of(approval_id: str = "", *first: str) -> StreamScope:
    """A stream that shows approvals whole."""
    return StreamScope(lambda whole: whole, approval_id, first=first)


@pytest.mark.parametrize("send_seconds", [60.0])
def test_a_slow_reader_gets_the_newest_state(slow: tuple[FakeApprovals, WatchStreams]) -> None:
    """What happened between two reads is not kept."""
    store, streams = slow
    caller = opened(streams, scope_of("a-1", "a-1"))
    eventually(lambda: any(stream.busy_since for stream in streams._streams))
    for number in range(50):
        store.set_status("a-1", PENDING, resource=f"r{number}")
    eventually(lambda: any(stream.pending for stream in streams._streams))
    caller.gate.set()

    eventually(lambda: len(caller.sent) == 2)

    assert [one.resource for one in caller.sent if one] == ["", "r49"]


def test_readers_that_read_nothing_keep_nobody_from_the_news(
    slow: tuple[FakeApprovals, WatchStreams],
) -> None:
    """More of them than senders: each is cancelled after its time."""
    store, streams = slow
    stuck = [opened(streams, scope_of("a-1", "a-1")) for _ in range(6)]
    reader = opened(streams, scope_of("b-1", "b-1"))
    reader.gate.set()

    store.set_status("b-1", APPROVED)

    eventually(lambda: [one.status for one in reader.sent if one][-1:] == [APPROVED])
    eventually(lambda: all(caller.cancelled for caller in stuck))
    assert not reader.cancelled
    assert len(streams) == 1


def test_a_stream_whose_changes_were_lost_is_ended_or_read_again(
    slow: tuple[FakeApprovals, WatchStreams],
) -> None:
    """A stream over one approval reads it; one over all cannot know what it missed."""
    _, streams = slow
    one, everything = opened(streams, scope_of("a-1", "a-1")), opened(streams, scope_of())
    one.gate.set()
    everything.gate.set()
    eventually(lambda: len(one.sent) == 1)

    for subscription in streams._hub._all():
        subscription.on_change(None)

    eventually(lambda: grpc.StatusCode.RESOURCE_EXHAUSTED in everything.status)
    assert not one.status


def test_a_status_that_is_not_taken_is_cancelled(slow: tuple[FakeApprovals, WatchStreams]) -> None:
    """The call of a caller that is silent would stay for good."""
    store, streams = slow
    caller = opened(streams, scope_of("a-1", "a-1"))
    caller.gate.set()
    store.set_status("a-1", REJECTED)

    eventually(lambda: caller.cancelled)

    assert [one.status if one else None for one in caller.sent][-2:] == [REJECTED, None]
    eventually(lambda: len(streams) == 0)


def test_a_store_that_fails_ends_the_stream_with_its_error(
    slow: tuple[FakeApprovals, WatchStreams],
) -> None:
    """The caller asks again, of this node or another."""
    store, streams = slow
    store.fails = UnavailableError("the store is down")
    caller = opened(streams, scope_of("a-1", "a-1"))
    caller.gate.set()

    eventually(lambda: caller.status)

    assert grpc.StatusCode.UNAVAILABLE in caller.status
    assert "the store is down" in caller.status
    assert caller.sent == [None]
