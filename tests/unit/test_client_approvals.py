"""Step-ups that a person lifts: the client waits by a stream, and asks again only where there is none."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from authz_client import ApprovalStatus, Authz, Denied, Refused, StepUp
from authz_client.base_errors import UsageError
from authz_client.v1 import approvals_pb2, decision_pb2
from tests.support.approval_site import Site
from tests.support.node import NoAnswer, Node, decision
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from authz_client.permit import Permit

APPROVED = approvals_pb2.APPROVAL_STATUS_APPROVED
REJECTED = approvals_pb2.APPROVAL_STATUS_REJECTED
EXPIRED = approvals_pb2.APPROVAL_STATUS_EXPIRED
WAYS = ("thread", "loop")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A server."""
    site = Site(tmp_path)
    yield site
    site.close()


def client(site: Site, **more: Any) -> Authz:
    """A client of its listener of decisions; it never asks twice within the time of a test."""
    settings = {"credentials": "agent", "timeout": 20, "approval_poll": 600, **more}
    return Authz(f"127.0.0.1:{site.port}", **settings)


def step_up_of(authz: Authz, way: str) -> StepUp:
    """The step-up of a call."""
    with pytest.raises(StepUp) as raised:
        check(authz, way)
    return raised.value


def check(authz: Authz, way: str, **more: Any) -> Permit:
    """Ask on a thread, or on an event loop."""
    if way == "thread":
        return authz.check("crm.delete", {"id": "42"}, **more)
    return asyncio.run(authz.acheck("crm.delete", {"id": "42"}, **more))


def wait(step_up: StepUp, way: str, timeout: float | None = 60) -> ApprovalStatus:
    """Wait on a thread, or on an event loop."""
    if way == "thread":
        return step_up.wait(timeout)
    return asyncio.run(step_up.wait_async(timeout))


def later(site: Site, action: Callable[[], object]) -> None:
    """Do it once somebody waits."""

    def act() -> None:
        eventually(lambda: len(site.streams) == 1)
        action()

    threading.Thread(target=act, daemon=True).start()


@pytest.mark.parametrize("way", WAYS)
def test_a_call_waits_for_its_person_and_then_runs_once(site: Site, way: str) -> None:
    """The step-up says where the person answers, and until when."""
    authz = client(site)
    step_up = step_up_of(authz, way)
    assert (step_up.approval_id, step_up.kinds) == ("a-1", ("approve",))
    assert step_up.url == "https://authz.example/a/a-1"
    assert step_up.expires_at is not None
    assert step_up.expires_at - dt.datetime.now(dt.UTC) > dt.timedelta(minutes=59)
    later(site, lambda: site.store.set_status("a-1", APPROVED))

    assert wait(step_up, way) is ApprovalStatus.APPROVED
    check(authz, way, approval_id=step_up.approval_id)

    assert [request.approval_id for request in site.asked] == ["", "a-1"]
    eventually(lambda: len(site.streams) == 0)


@pytest.mark.parametrize("way", WAYS)
def test_a_rejection_is_a_status_with_its_reason(site: Site, way: str) -> None:
    """Nothing raises; the node would deny the call."""
    step_up = step_up_of(client(site), way)
    later(site, lambda: site.store.set_status("a-1", REJECTED, reject_reason="wrong_recipient"))

    assert wait(step_up, way) is ApprovalStatus.REJECTED
    assert step_up.reject_reason == "wrong_recipient"


def test_an_approval_that_ends_is_a_status(site: Site) -> None:
    """As is one that was answered before anybody waited."""
    step_up = step_up_of(client(site), "thread")
    later(site, lambda: site.store.set_status("a-1", EXPIRED))

    assert step_up.wait(60) is ApprovalStatus.EXPIRED
    assert step_up.wait(60) is ApprovalStatus.EXPIRED


@pytest.mark.parametrize("way", WAYS)
def test_a_wait_that_is_over_is_still_pending(site: Site, way: str) -> None:
    """The approval stays open."""
    step_up = step_up_of(client(site), way)
    began = time.monotonic()

    assert wait(step_up, way, 0.3) is ApprovalStatus.PENDING

    assert 0.25 < time.monotonic() - began < 30
    eventually(lambda: len(site.streams) == 0)


def test_many_tasks_of_one_loop_wait_at_once(site: Site) -> None:
    """On one channel."""
    authz = client(site)
    step_up = step_up_of(authz, "thread")

    async def wait_all() -> list[ApprovalStatus]:
        waits = [asyncio.create_task(step_up.wait_async(60)) for _ in range(50)]
        await asyncio.to_thread(eventually, lambda: len(site.streams) == 50)
        site.store.set_status("a-1", APPROVED)
        answers = await asyncio.gather(*waits)
        await authz.aclose()
        return list(answers)

    assert set(asyncio.run(wait_all())) == {ApprovalStatus.APPROVED}


def test_a_cancelled_wait_ends_its_stream(site: Site) -> None:
    """On an event loop, where the task that waits is cancelled."""
    step_up = step_up_of(client(site), "thread")

    async def give_up() -> None:
        waiting = asyncio.create_task(step_up.wait_async(60))
        await asyncio.to_thread(eventually, lambda: len(site.streams) == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(give_up())
    eventually(lambda: len(site.streams) == 0)


def test_a_client_that_is_refused_does_not_wait(site: Site) -> None:
    """Another agent than that of the call."""
    step_up = step_up_of(client(site), "thread")
    other = client(site, credentials="other")
    stranger = step_up_of(other, "thread")

    with pytest.raises(Denied) as refused:
        stranger.wait(60)
    assert refused.value.reason_code == "BAD_CREDENTIAL"
    assert step_up.wait(0.1) is ApprovalStatus.PENDING


def test_a_stream_that_breaks_is_opened_again(site: Site) -> None:
    """As when a node stops: the wait goes on elsewhere."""
    step_up = step_up_of(client(site), "thread")

    def restart() -> None:
        site.streams.drain()
        eventually(lambda: len(site.streams) == 0)
        site.store.set_status("a-1", APPROVED)
        site.streams._stopping = False

    later(site, restart)

    assert step_up.wait(60) is ApprovalStatus.APPROVED


def test_without_streams_the_client_asks_again(tmp_path: Path) -> None:
    """By `Get`, with the pause that was set; a listener without approvals at all is an error."""
    site = Site(tmp_path, watches=False)
    step_up = step_up_of(client(site, approval_poll=1), "thread")

    def answer() -> None:
        eventually(lambda: site.gets == 2)
        site.store.set_status("a-1", APPROVED)

    threading.Thread(target=answer, daemon=True).start()

    assert step_up.wait(60) is ApprovalStatus.APPROVED
    assert site.gets == 3
    site.close()


def test_a_listener_without_approvals_is_an_error() -> None:
    """The fast lane serves none; a wait that cannot succeed does not begin."""
    node = Node()
    challenge = decision_pb2.Challenge(approval_id="a-1")
    node.says("Check", decision("APPROVAL_REQUIRED", challenge=challenge))
    node.says("Get", NoAnswer(grpc.StatusCode.UNIMPLEMENTED))
    step_up = step_up_of(Authz(transport=node, credentials="agent", timeout=20), "thread")

    with pytest.raises(Refused):
        step_up.wait(60)


def test_a_step_up_that_no_person_lifts_has_nobody_to_wait_for() -> None:
    """Its kinds say what to show."""
    node = Node()
    node.says("Check", decision("REAUTH_REQUIRED", step_up_kinds=["reauth:urn:mfa"]))
    step_up = step_up_of(Authz(transport=node, credentials="agent", timeout=20), "thread")

    assert (step_up.approval_id, step_up.expires_at) == ("", None)
    with pytest.raises(UsageError, match="show reauth:urn:mfa, and make the call again"):
        step_up.wait()


@pytest.mark.parametrize("way", WAYS)
def test_a_guard_waits_and_asks_once_more(site: Site, way: str) -> None:
    """With the approval of the call; without `wait_for_approval` it raises at once."""
    delete = guarded(client(site), way, wait_for_approval=60)
    with pytest.raises(StepUp):
        guarded(client(site), way)("42")
    later(site, lambda: site.store.set_status("a-1", APPROVED))

    assert delete("42") == "deleted 42"
    assert [request.approval_id for request in site.asked] == ["", "", "a-1"]


@pytest.mark.parametrize(
    ("status", "seconds", "error"),
    [(REJECTED, 60, Denied), (EXPIRED, 60, StepUp), (None, 0.3, StepUp)],
)
@pytest.mark.parametrize("way", WAYS)
def test_a_guard_whose_call_was_not_approved_does_not_run(
    site: Site, way: str, status: Any, seconds: float, error: type[Refused]
) -> None:
    """Nor does it ask again: that would be a new request to people."""
    if status is not None:
        later(site, lambda: site.store.set_status("a-1", status, reject_reason="not_needed"))

    with pytest.raises(error) as raised:
        guarded(client(site), way, wait_for_approval=seconds)("42")

    reasons = {Denied: "APPROVAL_REJECTED", StepUp: "APPROVAL_REQUIRED"}
    assert raised.value.reason_code == reasons[error]
    assert len(site.asked) == 1


def guarded(authz: Authz, way: str, **more: Any) -> Callable[[str], str]:
    """A guarded function of either kind."""
    guard: Any = authz.guard("crm.delete", **more)

    def delete(customer: str) -> str:
        return f"deleted {customer}"

    async def delete_async(customer: str) -> str:
        await asyncio.sleep(0)
        return f"deleted {customer}"

    here, there = guard(delete), guard(delete_async)
    return here if way == "thread" else lambda customer: asyncio.run(there(customer))


@pytest.mark.parametrize("wrong", [-1.0, float("inf"), float("nan")])
def test_times_that_cannot_be_are_refused(site: Site, wrong: float) -> None:
    """When the guard or the client is made."""
    with pytest.raises(UsageError, match="wait_for_approval"):
        guarded(client(site), "thread", wait_for_approval=wrong)
    with pytest.raises(UsageError, match="approval_poll"):
        client(site, approval_poll=wrong)
