"""A call waits for a person, who answers with the command; then exactly that call runs, once."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import os
import subprocess
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from authz_client import ApprovalStatus, Authz, Denied, StepUp
from authz_client.v1 import approvals_pb2, approvals_pb2_grpc
from tests.support.postgres import Postgres, programs
from tests.support.server import Server, command, layout
from tests.support.waiting import eventually
from tests.support.webhooks import WebhookReceiver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.minting import Authority

pytestmark = pytest.mark.timeout(180)

BOT = "spiffe://a.example/ns/desk/sa/bot"
FILES = {
    "bundle.yaml": "name: bank\nrevision: bank-1\ntasks: optional\n",
    "facts.yaml": """\
agents:
  bot: {match: ["spiffe://${trust_domain}/ns/desk/sa/bot"], subject: optional}
subjects:
  staff: [{issuer: corp}]
  manager: {issuer: corp, claim: groups, contains: managers}
resources: {accounts: {}}
catalog:
  bank:
    kind: http
    operations:
      pay:
        input: {type: object, properties: {to: {type: string}, amount: {type: integer}}, required: [to, amount]}
classify:
  - match: bank.pay
    effects: [write]
    tier: standard
    objects: [{from: /to, role: recipient, collection: accounts}, {from: /amount, role: amount}]
templates:
  desk: {purpose: pay the bills, deadline: 1h, starters: [bot], scope: [{system: bank}]}
""",
    "policies/bank.cedar": """\
@id("all") permit(principal, action in [Action::"system:bank"], resource);
@id("starts") permit(principal, action == Action::"task:desk", resource);
@id("managers-answer") permit(principal in Role::"manager", action == Action::"authz.approve", resource);
@id("pay") @stepup("approve") @reason("payments are approved")
forbid(principal, action == Action::"bank.pay", resource) unless { context.satisfied.contains(Kind::"approve") };
""",
}
PAYMENT = {"to": "acme", "amount": 870}


def bundle(folder: Path) -> Path:
    """A bank whose payments a manager approves."""
    for name, text in FILES.items():
        file = folder / "bank" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder / "bank"


def settings(**more: Any) -> dict[str, Any]:
    """The configuration: the user of the test is the manager Bob."""
    bob = {"uid": os.geteuid(), "issuer": "corp", "sub": "bob", "claims": {"groups": ["managers"]}}
    # The enforcer of the portal would run under the user of the person.
    alone = {"enforcers": [], "listeners": {"portal": None}}
    return {"approvals": {"url": "https://authz.corp.example", "people": [bob]}, **alone, **more}


@pytest.fixture(scope="module")
def server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A node."""
    folder = tmp_path_factory.mktemp("approvals")
    with Server(layout(folder / "server", authority, bundle(folder), settings())) as running:
        yield running


@pytest.fixture
def alice(authority: Authority) -> str:
    """Token of the subject."""
    return authority.subject("alice", groups=["employees"])


def client(server: Server, authority: Authority) -> Authz:
    """The agent. It never polls within the time of a test."""
    address = server.place.config["listeners"]["main"]["address"]
    return Authz(address, credentials=authority.agent(BOT), timeout=20, approval_poll=600)


def approval(server: Server, *words: str, check: bool = True) -> Any:
    """Runs `authz approval …` against the administration socket; returns its JSON."""
    words = ("approval", *words, "--format", "json", "--admin", server.address("admin"))
    done = subprocess.run(
        [*command(), *words], capture_output=True, text=True, timeout=60, check=False
    )
    if not check:
        return done.stderr
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def approve(server: Server, approval_id: str) -> Any:
    """Approves what the card shows."""
    card = approval(server, "show", approval_id)["card_digest"]
    return approval(server, "approve", approval_id, "--yes", "--digest", card)


def step_up_of(authz: Authz, subject: str, **payment: Any) -> StepUp:
    """The step-up of a payment."""
    with pytest.raises(StepUp) as raised:
        authz.check("bank.pay", {**PAYMENT, **payment}, subject_token=subject)
    return raised.value


def test_an_approved_call_runs_once(server: Server, authority: Authority, alice: str) -> None:
    """The agent waits, the manager approves with the command, and the next call asks anew."""
    authz = client(server, authority)
    with authz.task("desk", subject_token=alice):
        step_up = step_up_of(authz, alice)
        assert step_up.kinds == ("approve",)
        assert step_up.url == f"https://authz.corp.example/a/{step_up.approval_id}"
        labels = {"queue": "approve", "rule": "pay"}
        eventually(lambda: server.metric("authz_approvals_open", **labels) >= 1)
        statuses: list[ApprovalStatus] = []
        waiting = threading.Thread(target=lambda: statuses.append(step_up.wait(60)))
        waiting.start()
        eventually(lambda: server.metric("authz_approval_streams") == 1)

        # Other tests leave approvals of their own.
        by_id = {one["id"]: one for one in approval(server, "list")["approvals"]}
        listed = by_id[step_up.approval_id]
        answered = approve(server, step_up.approval_id)
        waiting.join(60)

        assert listed["arguments"] == PAYMENT
        assert listed["subject"] == "corp/alice"
        assert listed["answerable"] is True
        assert answered["status"] == "approved"
        assert [one["person"] for one in answered["answers"]] == ["corp/bob"]
        assert statuses == [ApprovalStatus.APPROVED]
        permit = authz.check(
            "bank.pay", PAYMENT, subject_token=alice, approval_id=step_up.approval_id
        )
        assert permit.decision_id
        again = step_up_of(authz, alice)
        assert again.approval_id != step_up.approval_id
    eventually(lambda: server.metric("authz_approval_streams") == 0)


def test_a_webhook_hears_of_a_call_that_waits_and_of_its_answer(
    authority: Authority, tmp_path: Path, alice: str
) -> None:
    """Signed, and without the values of the call."""
    receiver = WebhookReceiver()
    key = tmp_path / "webhook.key"
    key.write_text(base64.b64encode(b"k" * 32).decode())
    key.chmod(0o600)
    hook = {"name": "chat", "url": receiver.url, "secret_file": str(key), "queues": ["approve"]}
    told = settings()
    told["approvals"]["webhooks"] = [hook]
    with (
        closing(receiver),
        Server(layout(tmp_path / "server", authority, bundle(tmp_path), told)) as server,
    ):
        authz = client(server, authority)
        with authz.task("desk", subject_token=alice):
            step_up = step_up_of(authz, alice)
            eventually(lambda: len(receiver.received) == 1)
            approve(server, step_up.approval_id)
            eventually(lambda: len(receiver.received) == 2)
            authz.check("bank.pay", PAYMENT, subject_token=alice, approval_id=step_up.approval_id)
            eventually(lambda: len(receiver.received) == 3)
        sent = server.metric("authz_approval_notifications_total", webhook="chat", result="sent")
    messages = [json.loads(body) for _, body in receiver.received]
    types = [message["type"] for message in messages]
    assert types == ["approval.opened", "approval.approved", "approval.used"]
    assert messages[0]["data"]["url"] == step_up.url
    assert messages[0]["data"]["waits_for"] == ["approve"]
    assert messages[1]["data"]["answered_by"] == ["corp/bob"]
    assert "acme" not in str(messages)
    assert sent == 3
    for headers, body in receiver.received:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        mac = hmac.digest(b"k" * 32, signed, "sha256")
        assert headers["webhook-signature"] == f"v1,{base64.b64encode(mac).decode()}"


def test_another_call_is_not_the_approved_one(
    server: Server, authority: Authority, alice: str
) -> None:
    """Not even with the id of the approval."""
    authz = client(server, authority)
    with authz.task("desk", subject_token=alice):
        step_up = step_up_of(authz, alice)
        approve(server, step_up.approval_id)
        with pytest.raises(Denied) as refused:
            authz.check(
                "bank.pay",
                {**PAYMENT, "amount": 8700},
                subject_token=alice,
                approval_id=step_up.approval_id,
            )
        assert refused.value.reason_code in {"APPROVAL_MISMATCH", ""}
        assert step_up_of(authz, alice, amount=8700).approval_id != step_up.approval_id


def test_a_guard_waits_for_its_person(server: Server, authority: Authority, alice: str) -> None:
    """Approved: the function runs. Rejected: it does not, and the reason is the bundle's."""
    authz = client(server, authority)
    ran: list[int] = []

    @authz.guard("bank.pay", wait_for_approval=60)
    def pay(to: str, amount: int) -> str:
        ran.append(amount)
        return f"paid {to}"

    def answer(verb: str, *words: str) -> None:
        eventually(lambda: server.metric("authz_approval_streams") == 1)
        (waiting,) = (
            one
            for one in approval(server, "list")["approvals"]
            if one["arguments"]["to"] == f"{verb}-account"
        )
        if verb == "approve":
            approve(server, waiting["id"])
        else:
            reason = min(waiting["reject_reasons"])
            approval(server, "reject", waiting["id"], "--yes", "--reason", reason, *words)

    for verb in ("approve", "reject"):
        answering = threading.Thread(target=answer, args=(verb,))
        answering.start()
        with authz.task("desk", subject_token=alice):
            if verb == "approve":
                assert pay(f"{verb}-account", 1) == f"paid {verb}-account"
            else:
                with pytest.raises(Denied) as refused:
                    pay(f"{verb}-account", 2)
                assert refused.value.reason_code == "APPROVAL_REJECTED"
        answering.join(60)
    assert ran == [1]


def test_metrics_name_queue_and_rule(server: Server, authority: Authority, alice: str) -> None:
    """Of what people answered, and how fast."""
    waiting = {"queue": "approve", "rule": "pay"}

    def read() -> dict[str, float]:
        return {
            "approved": server.metric("authz_approvals_total", event="approved", **waiting),
            "answers": server.metric("authz_approval_decision_seconds_count", **waiting),
            "buckets": server.metric(
                "authz_approval_decision_seconds_bucket", le="+Inf", **waiting
            ),
        }

    before = read()
    authz = client(server, authority)
    with authz.task("desk", subject_token=alice):
        step_up = step_up_of(authz, alice, to="umbra")
        eventually(
            lambda: any(
                name == "authz_approvals_oldest_seconds" and waiting.items() <= labels.items()
                for name, labels, _ in server.samples()
            )
        )
        approve(server, step_up.approval_id)
        payment = {**PAYMENT, "to": "umbra"}
        authz.check("bank.pay", payment, subject_token=alice)
        assert read() == {name: value + 1 for name, value in before.items()}
        shown = approval(server, "show", step_up_of(authz, alice, amount=1).approval_id)
        assert shown["earlier_values"] == ["umbra"]


def test_a_user_without_a_person_is_told_who_answers(
    authority: Authority, alice: str, tmp_path: Path
) -> None:
    """It lists and shows; `authz status` shows what waits."""
    place = layout(tmp_path / "server", authority, bundle(tmp_path), {"approvals": {}})
    with Server(place) as server:
        authz = client(server, authority)
        with authz.task("desk", subject_token=alice):
            step_up = step_up_of(authz, alice)
            assert step_up.url == ""
            card = approval(server, "show", step_up.approval_id)["card_digest"]
            words = ("approve", step_up.approval_id, "--yes", "--digest", card)
            assert "`approvals.people` does not map your user" in approval(
                server, *words, check=False
            )
            done = subprocess.run(
                [*command(), "status", "--admin", server.address("admin")],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            assert "1 open, the oldest for" in done.stdout
            assert step_up.wait(0.1) is ApprovalStatus.PENDING


def test_a_thousand_agents_wait_and_hold_no_thread(
    authority: Authority, alice: str, tmp_path: Path
) -> None:
    """Each hears its own answer, from a node whose threads are as many as before."""
    count, tasks = 1000, 20
    source = bundle(tmp_path)
    (source / "approvals.yaml").write_text(
        "approvals:\n"
        "  limits: {open_per_task: 2000, open_per_agent: 2000}\n"
        "  queues: {approve: {max_open: 2000, max_hourly: 5000}}\n"
    )
    with Server(layout(tmp_path / "server", authority, source, settings())) as server:
        authz = client(server, authority)
        started = [authz.tasks.start("desk", subject_token=alice).id for _ in range(tasks)]

        async def wait_all() -> dict[str, ApprovalStatus]:
            steps = [await step_up(number) for number in range(count)]
            before = threads_of(server)
            waits = [asyncio.create_task(step.wait_async(120)) for step in steps]
            await asyncio.to_thread(
                eventually, lambda: server.metric("authz_approval_streams") == count
            )
            assert threads_of(server) - before < 10
            await asyncio.to_thread(answer_all, server, [step.approval_id for step in steps])
            statuses = await asyncio.gather(*waits)
            await authz.aclose()
            return {step.approval_id: status for step, status in zip(steps, statuses, strict=True)}

        async def step_up(number: int) -> StepUp:
            with pytest.raises(StepUp) as raised:
                await authz.acheck(
                    "bank.pay",
                    {"to": f"account-{number}", "amount": number},
                    task=started[number % tasks],
                    subject_token=alice,
                )
            return raised.value

        statuses = asyncio.run(wait_all())

        assert len(statuses) == count
        assert set(statuses.values()) == {ApprovalStatus.APPROVED}
        eventually(lambda: server.metric("authz_approval_streams") == 0)


def threads_of(server: Server) -> int:
    """Threads of a node."""
    return len(list(Path(f"/proc/{server.pid}/task").iterdir()))


def answer_all(server: Server, approvals: list[str]) -> None:
    """Approve, over the administration socket, as the command does."""
    channel = server.channel("admin")
    stub: Any = approvals_pb2_grpc.ApprovalsStub(channel)
    for approval_id in approvals:
        wanted = approvals_pb2.ApprovalsGetRequest(approval_id=approval_id)
        shown = stub.Get(wanted, timeout=20).approval
        assert shown.answerable
        answer = approvals_pb2.ResolveRequest(
            approval_id=approval_id,
            status=approvals_pb2.APPROVAL_STATUS_APPROVED,
            digest=shown.digest,
            card_digest=bytes(32),
        )
        stub.Resolve(answer, timeout=20)


@pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed (Debian: postgresql)")
def test_a_person_answers_at_another_node(authority: Authority, alice: str, tmp_path: Path) -> None:
    """The agent waits at one node, and hears the answer that was given at the other; the call runs once on both."""
    source = bundle(tmp_path)
    with Postgres() as database, ExitStack() as stack:
        dsn = f"postgresql://postgres@127.0.0.1:{database.port}/authz"
        state = {"engine": "postgresql", "dsn": dsn}
        one, other = (
            stack.enter_context(
                Server(layout(tmp_path / name, authority, source, settings(state=state)))
            )
            for name in ("one", "other")
        )
        authz, elsewhere = client(one, authority), client(other, authority)
        with authz.task("desk", subject_token=alice):
            step_up = step_up_of(authz, alice)
            statuses: list[ApprovalStatus] = []
            waiting = threading.Thread(target=lambda: statuses.append(step_up.wait(60)))
            waiting.start()
            eventually(lambda: one.metric("authz_approval_streams") == 1)

            approve(other, step_up.approval_id)
            waiting.join(60)

            assert statuses == [ApprovalStatus.APPROVED]
            permit = elsewhere.check(
                "bank.pay", PAYMENT, subject_token=alice, approval_id=step_up.approval_id
            )
            assert permit.decision_id
            assert step_up_of(authz, alice).approval_id != step_up.approval_id
