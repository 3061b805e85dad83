"""Tasks of the SDK on a real server: what agents do in them, hand on, and can do no more once they end."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from authz_client import (
    Authz,
    Caller,
    Denied,
    Ending,
    Scope,
    acting_for,
    caller,
    current_task,
    guard,
    task_headers,
    within_task,
)
from authz_client import default as process
from authz_client.v1 import admin_pb2
from tests.support.minting import Authority
from tests.support.server import Server, layout

AGENTS = "spiffe://a.example/ns/support/sa"
ORCH, PEER = f"{AGENTS}/orch", f"{AGENTS}/peer"
PARAMS = {"customer": "acme", "most": 5}


@pytest.fixture(scope="module")
def server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the bundle of tasks."""
    folder = tmp_path_factory.mktemp("sdk-tasks") / "server"
    with Server(layout(folder, authority, "tasks")) as running:
        yield running


@pytest.fixture
def alice(authority: Authority) -> str:
    """A subject's token."""
    return authority.subject("alice", groups=["employees"])


def client(
    server: Server, listener: str, credentials: str | None = None, *, enforcer: bool = False
) -> Authz:
    """A client with time enough for a busy machine."""
    address = server.place.config["listeners"][listener]["address"]
    return Authz(address, credentials=credentials, enforcer=enforcer, timeout=20)


@guard("crm.read")
async def read(id: str) -> str:  # noqa: A002 - the argument's name in the catalog
    """Reads a customer, where the caller may."""
    await asyncio.sleep(0)
    return f"customer {id}"


@guard("crm.refund")
def refund(id: str, amount: int, reason: str) -> str:  # noqa: A002 - the argument's name in the catalog
    """Refunds, where the caller may."""
    return f"{id} {amount} {reason}"


def code(raised: pytest.ExceptionInfo[Denied]) -> str:
    """The reason code."""
    return raised.value.reason_code


def test_an_agent_works_on_a_task_hands_on_and_ends(
    server: Server, authority: Authority, alice: str
) -> None:
    """Start, guard, delegate, deny, end: with both agents' own clients, and what travels between them."""

    async def main() -> None:
        orch = client(server, "main", authority.agent(ORCH))
        peer = client(server, "main", authority.agent(PEER))
        process.use(orch)
        async with orch.task("answer", params=PARAMS, subject_token=alice, prompt="acme") as task:
            assert task.assignee == ORCH
            assert await read("acme/1") == "customer acme/1"
            with pytest.raises(Denied) as denied:
                await read("other/1")
            assert code(denied) == "OUT_OF_SCOPE"
            assert set(await orch.alist()) >= {"crm.read", "crm.refund"}

            async with task.delegate(
                PEER, scope=["crm.read"], deadline=timedelta(minutes=1)
            ) as child:
                headers = task_headers()
                assert headers == {"authz-task": child.id}
                assert child.depth == 1
                # The other agent gets the id with the request, and does with it what it was given.
                seen = Caller.from_headers(headers).task
                assert seen is not None
                with within_task(seen):
                    await peer.acheck("crm.read", {"id": "acme/1"})
                    assert await peer.alist() == ("crm.read",)
                    with pytest.raises(Denied) as denied:
                        await peer.acheck("mail.send", {"to": ["bob@corp.example"]})
                    assert code(denied) == "OUT_OF_SCOPE"
                # What runs here still works on the parent, which is none of the other's.
                assert await read("acme/2") == "customer acme/2"
                with within_task(task.id), pytest.raises(Denied) as denied:
                    await peer.acheck("crm.read", {"id": "acme/1"})
                assert code(denied) == "NOT_ASSIGNEE"
            with within_task(child.id), pytest.raises(Denied) as denied:
                await peer.acheck("crm.read", {"id": "acme/1"})
            assert code(denied) == "TASK_ENDED"
        assert current_task() is None
        with within_task(task.id), pytest.raises(Denied) as denied:
            await read("acme/1")
        assert code(denied) == "TASK_ENDED"
        with pytest.raises(Denied) as denied:
            await read("acme/1")
        assert code(denied) == "NO_TASK"
        # What only reads, and nothing that counts, needs no task.
        assert await orch.alist() == ("crm.status",)
        await orch.aclose()
        await peer.aclose()

    try:
        asyncio.run(main())
    finally:
        process.use(None)


def test_uses_are_counted_and_an_exception_aborts(
    server: Server, authority: Authority, alice: str
) -> None:
    """The sync form; the node keeps what the block ended."""
    orch = client(server, "main", authority.agent(ORCH))
    block = orch.task("answer", params=PARAMS, subject_token=alice)

    def work() -> None:
        assert refund("acme", 5, reason="late")
        assert refund("acme", 5, reason="late")
        assert "crm.refund" not in orch.list()
        with pytest.raises(Denied) as denied:
            refund("acme", 5, reason="late")
        assert code(denied) == "USES_EXHAUSTED"
        raise ValueError("mine")

    process.use(orch)
    try:
        with pytest.raises(ValueError, match="mine"), block as task:
            work()
    finally:
        process.use(None)
    with within_task(task.id), pytest.raises(Denied) as denied:
        orch.check("crm.read", {"id": "acme/1"})
    assert code(denied) == "TASK_ENDED"
    assert orch.tasks.end(task.id, Ending.COMPLETED) == 0
    orch.close()


def test_a_start_that_is_refused_runs_nothing(
    server: Server, authority: Authority, alice: str
) -> None:
    """No such template, wrong parameters, more than the template gives, no credential."""
    orch = client(server, "main", authority.agent(ORCH))
    ran: list[str] = []
    for template, options, reason in (
        ("nothing", {}, ""),
        ("answer", {"params": {"customer": "acme"}}, "BAD_INPUT"),
        ("answer", {"params": PARAMS, "scope": ["crm.delete"]}, "OUT_OF_SCOPE"),
        ("answer", {"params": PARAMS, "scope": [Scope("crm.refund", uses=99)]}, "OUT_OF_SCOPE"),
    ):
        with (
            pytest.raises(Denied) as denied,
            orch.task(template, subject_token=alice, **options),
        ):
            ran.append(template)
        assert not reason or code(denied) == reason
    with (
        pytest.raises(Denied) as denied,
        client(server, "main").task("answer", params=PARAMS),
    ):
        ran.append("nobody")
    assert code(denied) == "NO_CREDENTIAL"
    assert ran == []


def test_a_tool_server_sees_the_task_of_its_caller(
    server: Server, authority: Authority, alice: str
) -> None:
    """The id that travelled holds for its assignee, and for nobody else that names it."""
    orch = client(server, "main", authority.agent(ORCH))
    tool = client(server, "main-fast", enforcer=True)

    @tool.guard("crm.read")
    def get(id: str) -> str:  # noqa: A002 - the argument's name in the catalog
        return id

    with orch.task("answer", params=PARAMS, subject_token=alice):
        headers = {"authorization": f"Bearer {authority.agent(ORCH)}", **task_headers()}
        with caller(Caller.from_headers(headers)):
            assert get("acme/1") == "acme/1"
        thief = {"authorization": f"Bearer {authority.agent(PEER)}", **task_headers()}
        with caller(Caller.from_headers(thief)), pytest.raises(Denied) as denied:
            get("acme/1")
        assert code(denied) == "NOT_ASSIGNEE"
    with caller(Caller.from_headers(headers)), pytest.raises(Denied) as denied:
        get("acme/1")
    assert code(denied) == "TASK_ENDED"
    orch.close()
    tool.close()


def test_the_list_follows_tasks_and_revocations(
    authority: Authority, alice: str, tmp_path: Path
) -> None:
    """A task that ended, one of another agent, one that is not there; and what is revoked."""
    with (
        Server(layout(tmp_path / "server", authority, "tasks")) as running,
        client(running, "main", authority.agent(ORCH)) as orch,
        client(running, "main", authority.agent(PEER)) as peer,
    ):
        with orch.task("answer", params=PARAMS, subject_token=alice) as task:
            assert {"crm.read", "crm.refund", "mail.send"} <= set(orch.list())
            assert orch.list("mail", task=task.id) == ("mail.send",)
            for who, named, reason in (
                (peer, task.id, "NOT_ASSIGNEE"),
                (orch, "0" * 36, "UNKNOWN_TASK"),
            ):
                with pytest.raises(Denied) as denied:
                    who.list(task=named)
                assert code(denied) == reason
            revoke = admin_pb2.AdminRevokeRequest(operation="mail.send")
            running.call("admin", "authz.v1.Admin/Revoke", revoke.SerializeToString())
            assert "mail.send" not in orch.list()
            assert "crm.read" in orch.list()
        with pytest.raises(Denied) as denied:
            orch.list(task=task.id)
        assert code(denied) == "TASK_ENDED"


def test_the_list_of_an_agent_that_knows_no_tasks(
    authority: Authority, alice: str, tmp_path: Path
) -> None:
    """It is that of its session with the subject; what is permitted in it was listed."""
    place = layout(tmp_path / "server", authority, "tasks")
    bundle = place.folder / "bundle/bundle.yaml"
    rule = "implicit_tasks: {agents: [mailer], template: read, tier_cap: standard}\n"
    bundle.write_text(bundle.read_text() + rule)
    with (
        Server(place) as running,
        client(running, "main", authority.agent(PEER)) as peer,
        acting_for(alice),
    ):
        listed = peer.list()
        assert {"crm.read", "crm.status"} <= set(listed)
        assert "crm.refund" not in listed
        peer.check("crm.read", {"id": "acme/1"})
        with pytest.raises(Denied):
            peer.check("crm.refund", {"id": "acme", "amount": 5})
        # Once the session has begun, too.
        assert peer.list() == listed
