"""The administration socket: Explain, Status, Reload; and that nothing of it is elsewhere."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from authz.cli import main
from authz_client.v1 import admin_pb2, authorizer_pb2, decision_pb2
from tests.support.fixtures import Servers
from tests.support.minting import Authority
from tests.support.people import BOT, People, check
from tests.support.server import Server, code_of
from tests.support.surfaces import EXPLAIN, outcome, reason_name

NOT_YET = (
    "Credentials/Issue",
    "Credentials/Introspect",
    "Approvals/List",
    "Approvals/Resolve",
)


@pytest.fixture(scope="module")
def people(authority: Authority) -> People:
    """Good credentials."""
    return People.of(authority)


@pytest.fixture
def server(servers: Servers) -> Iterator[Server]:
    """The shared server."""
    yield servers.of("desk")  # noqa: PT022 - tests must not close it


def explain(
    server: Server, token: str | None, request: decision_pb2.CheckRequest
) -> authorizer_pb2.ExplainResponse:
    """Asks for an explanation."""
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    data = authorizer_pb2.ExplainRequest(check=request).SerializeToString()
    return authorizer_pb2.ExplainResponse.FromString(
        server.call("admin", EXPLAIN, data, metadata=metadata)
    )


def failure(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    """Returns code and ErrorInfo reason of an RPC error."""
    call: Any = error
    trailing = dict(call.trailing_metadata() or ())
    details = trailing["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    status = status_pb2.Status.FromString(details)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain
    return code_of(error), info.reason


def test_an_operator_sees_everything(server: Server, people: People) -> None:
    """Each policy for each principal, with its place, and the facts, without values of texts."""
    request = check(
        "mail.send",
        b'{"to": ["eve@evil.example"], "body": "secret words"}',
        agent=people.bot,
        subject=people.alice,
    )
    decision = explain(server, people.root, request).decision
    assert outcome(decision) == "STEP_UP"
    assert decision.detail.chain == ["corp/alice", BOT]
    assert decision.detail.destination_class == "external"
    judged = {(policy.policy_id, policy.principal): policy for policy in decision.detail.policies}
    fired = {
        name
        for (name, _), policy in judged.items()
        if policy.result == decision_pb2.POLICY_RESULT_FIRED
    }
    assert fired == {"staff-may", "support-agents-may", "confirm-outside-mail"}
    policy = next(
        policy for policy in judged.values() if policy.policy_id == "confirm-outside-mail"
    )
    assert policy.file == "policies/desk.cedar"
    lines = (server.place.folder / "bundle" / policy.file).read_text().splitlines()
    assert "confirm-outside-mail" in "\n".join(lines[policy.line - 1 : policy.line + 1])
    facts = json.loads(decision.detail.facts_json)
    assert facts
    assert b"secret words" not in decision.detail.facts_json


def test_a_failing_policy_is_explained(server: Server, people: People) -> None:
    """The error of the policy is told, to the operator alone."""
    request = check("bank.quote", b'{"amount": 5}', agent=people.bot)
    decision = explain(server, people.root, request).decision
    failed = [
        policy
        for policy in decision.detail.policies
        if policy.result == decision_pb2.POLICY_RESULT_FAILED
    ]
    assert {policy.policy_id for policy in failed} == {"quote-limit"}
    assert all(policy.error for policy in failed)


def test_a_bad_token_is_explained(server: Server, authority: Authority, people: People) -> None:
    """The rule that it breaks is named; its bytes are not."""
    token = authority.bad_agent("jku", BOT)
    decision = explain(server, people.root, check("crm.search", b"{}", agent=token)).decision
    assert reason_name(decision) == "BAD_CREDENTIAL"
    assert decision.message
    assert token.encode() not in decision.SerializeToString()


@pytest.mark.parametrize("who", ["bot", "boss", None])
def test_others_see_nothing(server: Server, people: People, who: str | None) -> None:
    """Explain is a decision about somebody else's authority: it needs a permit of its own."""
    token = getattr(people, who) if who else None
    with pytest.raises(grpc.RpcError) as raised:
        explain(server, token, check("crm.search", b'{"query": "x"}', agent=people.bot))
    code, reason = failure(raised.value)
    assert code in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}
    wanted = {"NOT_PERMITTED"} if who else {"NO_CREDENTIAL"}
    assert reason in wanted


def test_explain_changes_nothing_and_is_no_permit(server: Server, people: People) -> None:
    """It is recorded as what it is, and counts as no decision of the operation."""
    request = check("crm.search", b'{"query": "x"}', agent=people.bot)
    decision = explain(server, people.root, request).decision
    record = server.record(decision.decision_id)
    assert record["path"] == "authz.v1.Authorizer/Explain"


def test_explaining_the_past_is_not_in_this_version(server: Server, people: People) -> None:
    """It says so, as an RPC error."""
    data = authorizer_pb2.ExplainRequest(decision_id="0" * 36).SerializeToString()
    with pytest.raises(grpc.RpcError) as raised:
        server.call("admin", EXPLAIN, data, metadata=(("authorization", f"Bearer {people.root}"),))
    assert failure(raised.value)[0] is not grpc.StatusCode.OK


def test_bytes_that_are_no_request(server: Server, people: People) -> None:
    """An API method answers an error, not an explanation."""
    with pytest.raises(grpc.RpcError) as raised:
        server.call(
            "admin",
            EXPLAIN,
            b"\xff\xff\xff",
            metadata=(("authorization", f"Bearer {people.root}"),),
        )
    assert failure(raised.value) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_INPUT")


def test_status(server: Server) -> None:
    """The owner of the socket sees how the node stands."""
    answer = admin_pb2.StatusResponse.FromString(server.call("admin", "authz.v1.Admin/Status", b""))
    assert answer.ready
    assert (answer.bundle_name, answer.bundle_revision) == ("desk", "desk-1")
    assert len(answer.bundle_digest) == 64
    assert json.loads(answer.detail_json)["bundle"]["digest"] == answer.bundle_digest


def test_standing_exceptions_are_listed(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """With owner, end and uses; readiness warns of the expired one, and the node stays ready."""
    admin = server.address("admin")
    with pytest.raises(SystemExit) as ended:
        main(["exception", "list", "--admin", admin])
    assert ended.value.code in {None, 0}
    shown = " ".join(capsys.readouterr().out.split())
    assert "│ late-sync │" in shown
    assert "│ crm-team │ CRM-1 │ expired │ 0 │ never │" in shown
    with pytest.raises(SystemExit) as ended:
        main(["exception", "list", "--admin", admin, "--format", "json"])
    assert ended.value.code in {None, 0}
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["name"], entry["uses"], entry["last_used_ms"]) == ("late-sync", 0, None)
    with pytest.raises(SystemExit) as ended:
        main(["status", "--admin", admin])
    assert ended.value.code in {None, 0}
    shown = " ".join(capsys.readouterr().out.split())
    assert "late-sync: expired, 0 uses since the start (crm-team, CRM-1)" in shown
    assert "exception late-sync expired at 2020-01-02T00:00:00Z (crm-team, CRM-1)" in shown


def test_the_socket_is_its_owners_alone(server: Server) -> None:
    """Nobody else may open it."""
    path = Path(server.address("admin").removeprefix("unix:"))
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("listener", ["main", "crm-only", "none", "main-fast"])
@pytest.mark.parametrize(
    "method", ["authz.v1.Admin/Status", "authz.v1.Admin/Reload", "authz.v1.Admin/Revoke", EXPLAIN]
)
def test_not_on_other_listeners(server: Server, people: People, listener: str, method: str) -> None:
    """Administration is on its own listener only, whoever asks."""
    with pytest.raises(grpc.RpcError) as raised:
        server.call(listener, method, b"", metadata=(("authorization", f"Bearer {people.root}"),))
    assert code_of(raised.value) is grpc.StatusCode.UNIMPLEMENTED


def test_no_decisions_on_the_administration_socket(server: Server, people: People) -> None:
    """Its owner is no enforcer."""
    with pytest.raises(grpc.RpcError) as raised:
        server.call("admin", "authz.v1.Authorizer/Check", b"")
    assert code_of(raised.value) is grpc.StatusCode.UNIMPLEMENTED
    del people


@pytest.mark.parametrize("method", NOT_YET)
def test_methods_of_later_versions(server: Server, method: str) -> None:
    """They say so, with the reason where tools look for it."""
    with pytest.raises(grpc.RpcError) as raised:
        server.call("main", f"authz.v1.{method}", b"")
    assert failure(raised.value) == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")


@pytest.mark.parametrize(
    "arguments",
    [
        ("agent", BOT),
        ("pair", BOT, "corp/alice", "--denials"),
        ("collection", "tickets"),
        ("object", "tickets", "7"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_command_forgets(
    server: Server, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each target is named, and a reason is needed."""
    verb = ["forget", *arguments, "--admin", server.address("admin")]
    with pytest.raises(SystemExit) as refused:
        main(verb)
    assert refused.value.code not in {0, None}
    capsys.readouterr()

    with pytest.raises(SystemExit) as done:
        main([*verb, "--reason", "reviewed", "--format", "json"])

    assert done.value.code in {0, None}
    answer = json.loads(capsys.readouterr().out)
    assert answer["target"].startswith(arguments[0])
    assert answer["records"] >= 0


def test_only_the_administration_listener_forgets(server: Server) -> None:
    """Elsewhere the method is not there."""
    request = admin_pb2.ForgetRequest(agent=BOT, reason="reviewed").SerializeToString()

    with pytest.raises(grpc.RpcError) as refused:
        server.call("main", "authz.v1.Admin/Forget", request)

    assert code_of(refused.value) == grpc.StatusCode.UNIMPLEMENTED
