"""Task credentials of two servers on one PostgreSQL: what ends on one is over on the other in that moment."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from authz_client.v1 import (
    authorizer_pb2_grpc,
    credentials_pb2,
    credentials_pb2_grpc,
    decision_pb2,
)
from tests.support.minting import Authority
from tests.support.postgres import Postgres, programs
from tests.support.server import Server, code_of, layout
from tests.support.waiting import eventually
from tests.support.working import BUNDLE, PLANNER, WORKERS, Crew, evidence

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        programs() is None, reason="PostgreSQL is not installed (Debian: postgresql)"
    ),
]


class Site:
    """Two servers and who works there."""

    def __init__(self, one: Server, other: Server, crew: Crew) -> None:
        self.one = one
        self.other = other
        self.crew = crew

    def permit(self, server: Server, task: str, holder: str) -> str:
        """Asks for a permit that is kept for a credential; returns its id."""
        request = decision_pb2.CheckRequest(
            evidence=[evidence(self.crew.tokens[holder])],
            task=task,
            operation="desk.look",
            arguments_json=b'{"id": "n-1"}',
            wants_credential=True,
        )
        stub: Any = authorizer_pb2_grpc.AuthorizerStub(server.channel("main"))
        decision = stub.Check(request, timeout=30, wait_for_ready=True).decision
        assert decision.outcome == decision_pb2.OUTCOME_PERMIT, decision
        permitted: str = decision.decision_id
        return permitted

    def issue(self, server: Server, decision: str, holder: str) -> str:
        """Has the credential issued; returns the token."""
        request = credentials_pb2.IssueRequest(
            evidence=[evidence(self.crew.tokens[holder])], decision_id=decision
        )
        made: list[str] = []

        def is_made() -> bool:
            # A node signs once its first key has been published.
            try:
                made.append(self.stub(server).Issue(request, timeout=30).token)
            except grpc.RpcError as error:
                if code_of(error) is not grpc.StatusCode.UNAVAILABLE:
                    raise
            return bool(made)

        eventually(is_made, what="the server has a key that signs")
        return made[0]

    def is_active(self, server: Server, token: str, holder: str) -> bool:
        """Tells what a server says of a token to its agent."""
        request = credentials_pb2.IntrospectRequest(
            evidence=[evidence(self.crew.tokens[holder])], token=token
        )
        active: bool = self.stub(server).Introspect(request, timeout=30).active
        return active

    def live(self, task: str, holder: str) -> str:
        """Has a credential issued on one server; returns it once the other knows the key that signed it."""
        token = self.issue(self.one, self.permit(self.one, task, holder), holder)
        assert self.is_active(self.one, token, holder)
        eventually(
            lambda: self.is_active(self.other, token, holder),
            within=15,
            what="the other server knows the key",
        )
        return token

    @staticmethod
    def stub(server: Server) -> Any:
        """Returns the service of a server."""
        return credentials_pb2_grpc.CredentialsStub(server.channel("main"))


@pytest.fixture(scope="module")
def site(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Starts them."""
    folder = tmp_path_factory.mktemp("shared-credentials")
    with Postgres() as database, ExitStack() as stack:
        state = {
            "engine": "postgresql",
            "dsn": f"postgresql://postgres@127.0.0.1:{database.port}/authz",
        }
        credentials = {"issuer": "https://authz.example", "keys": {"jwks_max_age": "1s"}}
        more = {"state": state, "credentials": credentials}
        one, other = (
            stack.enter_context(Server(layout(folder / name, authority, BUNDLE, more)))
            for name in ("one", "other")
        )
        yield Site(one, other, Crew.of(authority))


def test_permitted_here_issued_there(site: Site) -> None:
    """A permit is kept for whichever server is asked, and taken once."""
    task = site.crew.start(site.one)
    decision = site.permit(site.one, task, PLANNER)
    assert site.issue(site.other, decision, PLANNER)
    with pytest.raises(grpc.RpcError, match="before") as refused:
        site.issue(site.one, decision, PLANNER)
    assert code_of(refused.value) is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("how", ["end", "end above", "revoke agent", "revoke token"])
def test_over_everywhere_at_once(site: Site, how: str) -> None:
    """Whatever ends it on one server, the other tells nobody any more that it is active."""
    crew, holder = site.crew, WORKERS[0] if how != "revoke agent" else WORKERS[3]
    root = crew.start(site.one)
    child = crew.delegate(site.one, root, PLANNER, holder)
    token = site.live(child, holder)
    match how:
        case "end":
            assert crew.end(site.one, child, holder) == 1
        case "end above":
            assert crew.end(site.one, root) == 2
        case "revoke agent":
            crew.revoke(site.one, agent=holder)
        case _:
            asked = credentials_pb2.CredentialsRevokeRequest(
                evidence=[evidence(crew.tokens[PLANNER])], token=token
            )
            site.stub(site.one).Revoke(asked, timeout=30)
    try:
        assert not site.is_active(site.other, token, holder)
    except grpc.RpcError as refused:
        # It may know by now that the agent is nobody any more.
        if how != "revoke agent" or "revoked" not in str(refused):
            raise
    if how == "revoke agent":
        # On its own node it is told nothing at all.
        with pytest.raises(grpc.RpcError, match="revoked"):
            site.is_active(site.one, token, holder)
        return
    assert not site.is_active(site.one, token, holder)
    ended = how.startswith("end")
    assert (crew.status(site.other, child) == "COMPLETED") is ended
