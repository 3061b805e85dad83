"""Task credentials through a real Envoy: what was permitted reaches the upstream, once, and only with the key."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from authz_client import ProofKey
from authz_client.v1 import credentials_pb2, decision_pb2, tasks_pb2
from tests.support.envoy import Answer, Envoy
from tests.support.fixtures import issuing
from tests.support.minting import Authority
from tests.support.server import ISSUER, Server, layout
from tests.support.surfaces import CHECK, decision_of, outcome
from tests.support.upstream import Upstream
from tests.support.working import evidence

pytestmark = pytest.mark.envoy

ORCH = "spiffe://a.example/ns/support/sa/orch"
TARGET = "/customers?id=acme/1"
URL = "https://crm.example/customers"


@pytest.fixture(scope="module")
def server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that issues task credentials."""
    folder = tmp_path_factory.mktemp("credentials")
    with Server(layout(folder / "node", authority, "tasks", issuing(folder))) as running:
        yield running


@pytest.fixture(params=["main", "main-fast"])
def envoy(
    request: pytest.FixtureRequest, server: Server, upstream: Upstream, tmp_path: Path
) -> Iterator[Envoy]:
    """An Envoy before each lane."""
    with ExitStack() as stack:
        yield stack.enter_context(Envoy(tmp_path, server.port(request.param), upstream.port))


@dataclass
class Holder:
    """An agent with a task, a key, and what was issued to it."""

    server: Server
    agent: decision_pb2.Evidence
    task: str
    key: ProofKey

    @classmethod
    def of(cls, server: Server, authority: Authority) -> "Holder":
        """Starts Alice's task of the agent."""
        subject = evidence(authority.alone("alice", groups=["employees"]), of_subject=True)
        request = tasks_pb2.StartRequest(evidence=[subject], template="answer", assignee=ORCH)
        request.params.update({"customer": "acme", "most": 5})
        data = server.call("main", "authz.v1.Tasks/Start", request.SerializeToString())
        task = tasks_pb2.StartResponse.FromString(data).task.id
        return cls(server, evidence(authority.agent(ORCH)), task, ProofKey())

    def issue(self) -> str:
        """Has a permit turned into a credential."""
        check = decision_pb2.CheckRequest(
            evidence=[self.agent],
            task=self.task,
            operation="crm.read",
            arguments_json=b'{"id": "acme/1"}',
            wants_credential=True,
        )
        decision = decision_of(self.server.call("main", CHECK, check.SerializeToString()))
        assert outcome(decision) == "PERMIT"
        request = credentials_pb2.IssueRequest(
            evidence=[self.agent],
            decision_id=decision.decision_id,
            proof=self.key.proof("POST", f"{ISSUER}/authz.v1.Credentials/Issue"),
        )
        data = self.server.call("main", "authz.v1.Credentials/Issue", request.SerializeToString())
        return credentials_pb2.IssueResponse.FromString(data).token

    def end(self) -> None:
        """Ends the task."""
        request = tasks_pb2.EndRequest(
            evidence=[self.agent], task=self.task, status=tasks_pb2.TASK_STATUS_COMPLETED
        )
        self.server.call("main", "authz.v1.Tasks/End", request.SerializeToString())


def show(envoy: Envoy, token: str, proof: str, target: str = TARGET) -> Answer:
    """Sends a request with a credential and, where there is one, its proof."""
    headers = [("authz-credential", token), *([("dpop", proof)] if proof else [])]
    return envoy.request("GET", target, headers)


def test_a_credential_opens_what_it_is_for_once(
    envoy: Envoy, server: Server, authority: Authority, upstream: Upstream
) -> None:
    """The upstream sees who acts for whom, and neither the credential nor anything that is refused."""
    holder = Holder.of(server, authority)
    token = holder.issue()
    before = len(upstream.seen)
    assert (
        show(envoy, token, holder.key.proof("GET", URL, token=token), "/customers?id=acme/2").status
        == 403
    )
    assert len(upstream.seen) == before
    answer = show(envoy, token, holder.key.proof("GET", URL, token=token))
    assert answer.status == 200
    assert answer.echo["x-authz-agent"] == [ORCH]
    assert answer.echo["x-authz-subject"] == ["corp/alice"]
    assert "authz-credential" not in answer.echo
    assert show(envoy, token, holder.key.proof("GET", URL, token=token)).status == 403
    assert len(upstream.seen) == before + 1


def test_a_stolen_credential_is_worth_nothing(
    envoy: Envoy, server: Server, authority: Authority, upstream: Upstream
) -> None:
    """By another key, as a bearer token, with a proof of another request, and with one that was seen."""
    holder = Holder.of(server, authority)
    token = holder.issue()
    before = len(upstream.seen)
    proofs = {
        "another key": ProofKey().proof("GET", URL, token=token),
        "no proof": "",
        "another method": holder.key.proof("DELETE", URL, token=token),
        "another path": holder.key.proof("GET", f"{URL}/1", token=token),
        "another host": holder.key.proof("GET", "https://mail.example/customers", token=token),
        "another token": holder.key.proof("GET", URL, token=f"{token}x"),
    }
    assert {
        name: show(envoy, token, proof).status for name, proof in proofs.items()
    } == dict.fromkeys(proofs, 401)
    assert len(upstream.seen) == before
    proof = holder.key.proof("GET", URL, token=token)
    assert [show(envoy, token, proof).status for _ in range(2)] == [200, 401]
    assert len(upstream.seen) == before + 1


@pytest.mark.parametrize("lane", ["main", "main-fast"])
def test_a_proof_is_made_again_with_our_nonce(
    lane: str, authority: Authority, upstream: Upstream, tmp_path: Path
) -> None:
    """Where nonces are required the refusal says so, and brings one."""
    changes = issuing(tmp_path)
    changes["credentials"]["dpop"] = {"require_nonce": True}
    key = ProofKey()
    bound = authority.agent(ORCH, cnf={"jkt": key.thumbprint})
    with ExitStack() as stack:
        server = stack.enter_context(Server(layout(tmp_path / "node", authority, "tasks", changes)))
        envoy = stack.enter_context(Envoy(tmp_path / "envoy", server.port(lane), upstream.port))
        task = Holder.of(server, authority).task

        def ask(nonce: str = "") -> Answer:
            proof = key.proof("GET", URL, token=bound, nonce=nonce)
            headers = [("authorization", f"DPoP {bound}"), ("dpop", proof), ("authz-task", task)]
            return envoy.request("GET", TARGET, headers)

        refused = ask()
        assert refused.status == 401
        challenge = 'DPoP realm="authz", error="use_dpop_nonce"'
        assert refused.header("www-authenticate") == [challenge]
        (nonce,) = refused.header("dpop-nonce")
        assert ask("invented").status == 401
        assert ask(nonce).status == 200


def test_nothing_outlives_the_task(envoy: Envoy, server: Server, authority: Authority) -> None:
    """A credential that nobody used ends with it."""
    holder = Holder.of(server, authority)
    token = holder.issue()
    holder.end()
    assert show(envoy, token, holder.key.proof("GET", URL, token=token)).status == 403
