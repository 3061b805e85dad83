"""The SDK against a real server: both lanes, sockets, mutual TLS, and the list."""

import asyncio
import json
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz_client import (
    Authz,
    Caller,
    Denied,
    Obligation,
    StepUp,
    Tls,
    TokenFile,
    TransportError,
    Unavailable,
    acting_for,
    caller,
    filter_tools,
)
from authz_client.errors import public_text, row_of
from authz_client.v1 import authorizer_pb2, decision_pb2
from tests.support.minting import Authority
from tests.support.mutual import CRM_SERVER, Pki, mutual_layout
from tests.support.people import BOT, People
from tests.support.server import Server, code_of
from tests.support.svid import Svid
from tests.support.tools import mcp_peers

BAD = decision_pb2.Evidence(
    role=decision_pb2.EVIDENCE_ROLE_AGENT,
    scheme=decision_pb2.EVIDENCE_SCHEME_BEARER,
    token="x.y.z",
)
LIST = "authz.v1.Authorizer/List"
PARTNER = "spiffe://b.example/ns/partner/sa/x"


@pytest.fixture(scope="module")
def people(authority: Authority) -> People:
    """Good credentials."""
    return People.of(authority)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Authorities that the server's TLS library knows."""
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def server(
    authority: Authority, pki: Pki, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with listeners of every kind."""
    with Server(
        mutual_layout(tmp_path_factory.mktemp("sdk") / "server", authority, pki)
    ) as running:
        yield running


def where(server: Server, listener: str) -> str:
    """The address of a listener, as users write it."""
    address: str = server.place.config["listeners"][listener]["address"]
    return address


def client(
    server: Server, listener: str, credentials: str | None = None, *, enforcer: bool = False
) -> Authz:
    """A client with time enough for a busy machine."""
    return Authz(where(server, listener), credentials=credentials, enforcer=enforcer, timeout=20)


@pytest.mark.parametrize("listener", ["main", "main-fast", "none", "none-fast"])
def test_guarded_functions_by_every_way(server: Server, people: People, listener: str) -> None:
    """Guarded functions by every way: about others, and about oneself, on both lanes."""
    about_itself = listener.startswith("none")
    ran: list[str] = []
    with client(server, listener, people.bot) as authz, acting_for(people.alice):

        @authz.guard("crm.search")
        def search(query: str) -> None:
            ran.append(query)

        @authz.guard("bank.transfer")
        async def transfer(amount: int) -> None:
            await asyncio.sleep(0)
            ran.append(str(amount))

        @authz.guard("wiki.archive")
        def archive(page: str) -> None:
            ran.append(page)

        search("T-1")
        with pytest.raises(Denied) as denied:
            archive("home")

        async def main() -> None:
            with pytest.raises(StepUp) as step_up:
                await transfer(5000)
            assert step_up.value.kinds == ("approve",)
            await authz.aclose()

        asyncio.run(main())
        assert denied.value.reason_code == ("" if about_itself else "FORBIDDEN")
        assert denied.value.decision_id
        assert server.record(denied.value.decision_id)["result"]["reason_code"] == "FORBIDDEN"
    assert ran == ["T-1"]


def test_a_tool_server_asks_about_its_callers(
    server: Server, people: People, authority: Authority
) -> None:
    """Also one whose permit obliges: without a handler it is denied."""
    with client(server, "crm-only", enforcer=True) as tool:
        got: list[str] = []

        @tool.guard("crm.get", arguments={"id": "customer"})
        def get(customer: str) -> str:
            got.append(customer)
            return f"pii of {customer}"

        headers = {"authorization": f"Bearer {people.bot}", "authz-subject": people.alice}
        with caller(Caller.from_headers(headers)):
            assert get("7") == "pii of 7"
            with pytest.raises(Denied) as denied:
                tool.check("wiki.archive")
            assert denied.value.reason_code == "ENFORCER_REFUSED"
        partner = {"authorization": f"Bearer {authority.agent(PARTNER)}"}
        with caller(Caller.from_headers(partner)):
            with pytest.raises(Denied) as denied:
                get("8")
            assert denied.value.reason_code == "ENFORCER_REFUSED"
            tool.obligations.register("redact:pii", after=redact)
            assert get("9") == "*** of 9"
        with caller(Caller()), pytest.raises(Denied) as denied:
            get("10")
        assert denied.value.reason_code == "NO_CREDENTIAL"
        assert got == ["7", "9"]


def redact(obligation: Obligation, result: str) -> str:
    """Hides what may not be seen."""
    assert obligation.arguments == {"id": "9"}
    return result.replace("pii", "***")


def test_by_certificate(server: Server, people: People, pki: Pki, tmp_path: Path) -> None:
    """An agent is its certificate, a tool server too; a certificate that is renewed is used from then on."""

    def write(svid: Svid) -> None:
        # As helpers of SPIRE do: the new files take the place of the old.
        for name, content in (("new.pem", svid.pem), ("new.key", svid.key_pem)):
            (tmp_path / name).write_bytes(content)
            shutil.move(tmp_path / name, tmp_path / name.replace("new", "svid"))

    tls = Tls(pki.folder / "root.pem", tmp_path / "svid.pem", tmp_path / "svid.key")
    with pytest.raises(Unavailable):
        Authz(where(server, "mutual"), tls=tls).check("crm.search")
    write(pki.a.svid(BOT))
    with Authz(where(server, "mutual"), tls=tls, timeout=20) as authz:
        with acting_for(people.alice):
            authz.check("crm.search", {"query": "T-1"})

            async def main() -> None:
                await authz.acheck("crm.search", {"query": "T-1"})
                await authz.aclose()

            asyncio.run(main())
        write(pki.a.svid(CRM_SERVER))
        transport = authz.transport
        opened = transport._sync  # type: ignore[attr-defined]
        if opened is not None:
            opened.looked = 0.0
        # It is now the tool server, which may ask about others and not about itself.
        with pytest.raises(Denied) as denied:
            authz.check("crm.search", {"query": "T-1"})
        assert denied.value.reason_code == "NO_CREDENTIAL"
    with (
        Authz(where(server, "mutual"), tls=tls, timeout=20, enforcer=True) as tool,
        caller(Caller(agent_token=people.bot, subject_token=people.alice)),
    ):
        tool.check("crm.search", {"query": "T-1"})
    ca = Tls(pki.folder / "root.pem")
    with (
        Authz(where(server, "mutual"), tls=ca, timeout=5) as stranger,
        pytest.raises((Denied, Unavailable)),
    ):
        stranger.check("crm.search", {"query": "T-1"})


def test_a_token_file_is_read_again(
    server: Server, people: People, authority: Authority, tmp_path: Path
) -> None:
    """What held a moment ago and no longer does is refused."""
    file = tmp_path / "svid.jwt"
    file.write_text(authority.agent("spiffe://a.example/ns/idle/sa/bot"))
    authz = Authz(where(server, "main"), credentials=TokenFile(file), timeout=20)
    with authz, acting_for(people.alice):
        with pytest.raises(Denied):
            authz.check("crm.search", {"query": "T-1"})
        file.write_text(people.bot)
        authz.check("crm.search", {"query": "T-1"})


# --- the list


def test_the_list_by_every_way(server: Server, people: People) -> None:
    """Whoever asks sees the same of one chain; an enforcer only of its systems."""
    with client(server, "main", people.bot) as authz, acting_for(people.alice):
        listed = authz.list()
        assert {"crm.search", "mail.send", "bank.transfer"} <= set(listed)
        # Forbidden whatever the arguments, and never permitted to this chain.
        assert "wiki.archive" not in listed
        assert listed == tuple(sorted(listed))
        assert authz.list("crm") == tuple(name for name in listed if name.startswith("crm."))
        assert authz.list("nonsense") == ()
        assert asyncio.run(_listed(authz)) == listed
    with client(server, "none", people.bot) as itself, acting_for(people.alice):
        assert itself.list() == listed
    with (
        client(server, "crm-only", enforcer=True) as tool,
        caller(Caller(agent_token=people.bot, subject_token=people.alice)),
    ):
        assert tool.list() == tuple(name for name in listed if name.startswith("crm."))
        tools = [{"name": "search"}, {"name": "nonsense"}]
        assert filter_tools(tools, tool.list("crm"), "crm") == [{"name": "search"}]
    with client(server, "main", people.idle) as idle:
        assert idle.list() == ()


async def _listed(authz: Authz) -> tuple[str, ...]:
    listed = await authz.alist()
    await authz.aclose()
    return listed


def test_what_is_permitted_was_listed(server: Server, people: People) -> None:
    """And what is not listed is not permitted, whatever is sent along."""
    with client(server, "main", people.bot) as authz, acting_for(people.alice):
        listed = authz.list()
        for operation in ("wiki.archive", "authz.explain"):
            assert operation not in listed
            with pytest.raises(Denied):
                authz.check(operation)


def pages(server: Server, people: People, size: int) -> list[list[str]]:
    """Every page of the agent's list."""
    token, found = "", []
    while True:
        request = authorizer_pb2.ListRequest(page_size=size, page_token=token)
        bearer = decision_pb2.EVIDENCE_SCHEME_BEARER
        request.evidence.add(role=decision_pb2.EVIDENCE_ROLE_AGENT, scheme=bearer, token=people.bot)
        request.evidence.add(
            role=decision_pb2.EVIDENCE_ROLE_SUBJECT, scheme=bearer, token=people.alice
        )
        answer = authorizer_pb2.ListResponse.FromString(
            server.call("main", LIST, request.SerializeToString())
        )
        found.append(list(answer.operations))
        token = answer.next_page_token
        if not token:
            return found


def test_pages(server: Server, people: People) -> None:
    """Pages are full but for the last, and hold each operation once."""
    (whole,) = pages(server, people, 0)
    for size in (1, 2, len(whole) - 1, len(whole), 5000):
        found = pages(server, people, size)
        assert [name for page in found for name in page] == whole
        assert all(len(page) == min(size, len(whole)) for page in found[:-1])
        assert 0 < len(found[-1]) <= size


@pytest.mark.parametrize(
    ("request_bytes", "code", "reason"),
    [
        (b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, "BAD_INPUT"),
        (
            authorizer_pb2.ListRequest(page_size=-1).SerializeToString(),
            grpc.StatusCode.INVALID_ARGUMENT,
            "BAD_INPUT",
        ),
        (
            authorizer_pb2.ListRequest(page_token="x" * 513).SerializeToString(),
            grpc.StatusCode.INVALID_ARGUMENT,
            "BAD_INPUT",
        ),
        (
            authorizer_pb2.ListRequest(system="x" * 513).SerializeToString(),
            grpc.StatusCode.INVALID_ARGUMENT,
            "BAD_INPUT",
        ),
        (
            authorizer_pb2.ListRequest(evidence=[BAD]).SerializeToString(),
            grpc.StatusCode.UNAUTHENTICATED,
            "BAD_CREDENTIAL",
        ),
        (b"", grpc.StatusCode.UNAUTHENTICATED, "NO_CREDENTIAL"),
    ],
)
def test_a_list_that_is_refused(
    server: Server, request_bytes: bytes, code: grpc.StatusCode, reason: str
) -> None:
    """With an RPC error and its reason; about oneself with the fixed text alone."""
    before = server.metric("grpc_server_handled_total", grpc_method="List", grpc_code=code.name)
    for listener in ("main", "none"):
        with pytest.raises(grpc.RpcError) as raised:
            server.call(listener, LIST, request_bytes)
        assert code_of(raised.value) is code
        call: Any = raised.value
        status = dict(call.trailing_metadata())["grpc-status-details-bin"]
        assert TransportError(0, "", status).reason == reason
        if listener == "none":
            assert call.details() == public_text(row_of(reason))
    after = server.metric("grpc_server_handled_total", grpc_method="List", grpc_code=code.name)
    assert after == before + 2


def test_the_list_has_a_rate(authority: Authority, people: People, tmp_path: Path) -> None:
    """It tells much and costs much, so a caller gets no more of it than of probes."""
    del people
    changes = {"limits": {"probe_rate": 0, "probe_burst": 2}}
    place = mutual_layout(tmp_path / "server", authority, Pki(tmp_path / "pki"), changes)
    with Server(place) as server, client(server, "main", authority.agent(BOT)) as authz:
        authz.list()
        authz.list()
        with pytest.raises(Unavailable) as raised:
            Authz(where(server, "main"), credentials=authority.agent(BOT), retries=0).list()
        assert raised.value.reason_code == "OVERLOADED"


def test_the_fast_lane_lists_nothing(server: Server, people: People) -> None:
    """It answers decisions only."""
    with client(server, "main-fast", people.bot) as authz, pytest.raises(Denied):
        authz.list()


@pytest.mark.peers
def test_the_task_travels_with_the_older_mcp_library() -> None:
    """By the same hook as with the newer one."""
    python = mcp_peers() / "python/bin/python"
    root = Path(__file__).parents[2]
    folders = [str(root / "client/src"), sysconfig.get_path("purelib")]
    script = root / "tests/support/mcp_task.py"
    done = subprocess.run(
        [python, script, *folders], capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [None, "task-1", 1]
