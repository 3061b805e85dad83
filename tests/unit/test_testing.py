"""Bundles in users' unit tests: the real engine in this process."""

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.errors import BundleError, UsageError
from authz.testing import Actor, Kernel, Subject
from authz_client import Authz, Denied, Part, SaidBy, StepUp, Unavailable, caller, guard

DESK = Path(__file__).parents[1] / "cases/bundles/desk"
TASKS = Path(__file__).parents[1] / "cases/bundles/tasks"
BOT = "spiffe://a.example/ns/support/sa/bot"
STRANGER = "spiffe://elsewhere.example/ns/x/sa/y"
ALICE = Subject("alice", claims={"groups": ["employees"]})
MAIL = {"to": ["bob@corp.example"], "subject": "Re", "body": "hi"}
OUT = {**MAIL, "to": ["eve@elsewhere.example"]}


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    """The engine over the bundle of the desk."""
    with Kernel.load(DESK, variables={"trust_domain": "a.example"}) as made:
        yield made


@pytest.fixture(scope="module")
def bot(kernel: Kernel) -> Actor:
    """The support agent, for alice."""
    return kernel.act(BOT, ALICE)


def test_assertions_that_hold(kernel: Kernel, bot: Actor) -> None:
    """Assertions that hold."""
    bot.permits("crm.search", {"query": "T-1"})
    bot.permits("mail.send", MAIL)
    stepped = bot.steps_up("mail.send", OUT, kinds=["confirm"], policy="confirm-outside-mail")
    assert stepped.reason_code == "CONFIRM_REQUIRED"
    assert stepped.policy_ids == ("confirm-outside-mail",)
    kernel.act(STRANGER, ALICE).denies("crm.search", {"query": "T-1"}, code="NOT_PERMITTED")
    kernel.act(BOT, Subject("eve")).denies(
        "crm.search", {"query": "T-1"}, code="CHAIN_NOT_PERMITTED"
    )
    bot.denies("crm.search", {"nonsense": 1}, code="BAD_INPUT")
    bot.denies("crm.nonsense", code="UNKNOWN_OPERATION")
    bot.denies("crm.nonsense")


@pytest.mark.parametrize(
    ("assertion", "arguments", "options", "said"),
    [
        ("permits", OUT, {}, "expected PERMIT; got STEP_UP CONFIRM_REQUIRED confirm because of"),
        ("denies", MAIL, {}, "expected DENY; got PERMIT"),
        ("denies", OUT, {}, "expected DENY; got STEP_UP"),
        ("denies", {}, {"code": "FORBIDDEN"}, "expected DENY FORBIDDEN; got DENY BAD_INPUT"),
        ("denies", {}, {"policy": "p"}, "expected DENY p; got DENY BAD_INPUT"),
        ("steps_up", MAIL, {}, "expected STEP_UP; got PERMIT"),
        ("steps_up", OUT, {"kinds": ["approve"]}, "expected STEP_UP approve; got STEP_UP"),
        ("steps_up", OUT, {"code": "APPROVAL_REQUIRED"}, "expected STEP_UP APPROVAL_REQUIRED"),
        ("steps_up", OUT, {"policy": "other"}, "expected STEP_UP other"),
        ("steps_up", {}, {}, "got DENY BAD_INPUT"),
    ],
)
def test_assertions_that_do_not_hold(
    bot: Actor, assertion: str, arguments: dict[str, object], options: dict[str, object], said: str
) -> None:
    """Assertions that do not hold."""
    with pytest.raises(AssertionError) as raised:
        getattr(bot, assertion)("mail.send", arguments, **options)
    assert said in str(raised.value)


def test_a_failure_is_no_denial_unless_it_is_named(kernel: Kernel) -> None:
    """A failure is no denial unless it is named."""
    with Kernel.load(DESK, variables={"trust_domain": "a.example"}) as other:
        actor = other.act(BOT, ALICE)
    with pytest.raises(AssertionError, match="got UNAVAILABLE AUDIT_FULL"):
        actor.denies("crm.search")
    actor.denies("crm.search", code="AUDIT_FULL")
    kernel.act(BOT, ALICE).permits("crm.search", {"query": "T-1"})


def test_code_under_test_acts_as_somebody(kernel: Kernel, bot: Actor) -> None:
    """Code under test acts as somebody."""
    sent: list[str] = []

    @guard("mail.send")
    def send(to: list[str], subject: str, body: str) -> None:
        sent.append(f"{to} {subject} {body}")

    @guard("crm.search")
    async def search(query: str) -> str:
        await asyncio.sleep(0)
        return query

    with bot.working() as client:
        assert isinstance(client, Authz)
        send(["bob@corp.example"], "Re", "hi")
        assert asyncio.run(search("T-1")) == "T-1"
        with pytest.raises(StepUp):
            send(["eve@evil.example"], "Re", "hi")
    with kernel.act(STRANGER).working(), pytest.raises(Denied):
        send(["bob@corp.example"], "Re", "hi")
    with pytest.raises(Unavailable):
        send(["bob@corp.example"], "Re", "hi")
    assert len(sent) == 1


def test_a_tool_server_under_test_asks_about_its_callers(kernel: Kernel, bot: Actor) -> None:
    """A tool server under test asks about its callers."""
    server = kernel.client(enforcer=True)
    with caller(bot.caller):
        server.check("crm.search", {"query": "T-1"})
    with caller(kernel.act(STRANGER).caller), pytest.raises(Denied):
        server.check("crm.search", {"query": "T-1"})


def test_what_could_be_permitted(kernel: Kernel, bot: Actor) -> None:
    """What could be permitted."""
    could = bot.could()
    assert "mail.send" in could
    assert "crm.search" in could
    assert set(bot.could("crm")) == {name for name in could if name.startswith("crm.")}
    assert kernel.act(STRANGER, ALICE).could() == ()
    assert kernel.act(None, ALICE).could() != ()


def test_the_list_is_refused_like_a_question(kernel: Kernel) -> None:
    """The list is refused like a question."""
    with pytest.raises(Denied) as raised:
        kernel.client(credentials="no.token.this").list()
    assert raised.value.reason_code == "BAD_CREDENTIAL"
    with pytest.raises(Denied) as raised:
        kernel.client().list()
    assert raised.value.reason_code == "NO_CREDENTIAL"
    with pytest.raises(Denied):
        kernel.act(BOT).client.list("x" * 600)


def test_subjects_of_every_kind() -> None:
    """Subjects of every kind."""
    files: dict[str, str | bytes] = {
        "bundle.yaml": "name: b\ntasks: optional\n",
        "facts.yaml": textwrap.dedent("""
            subjects:
              boss: {issuer: corp, claim: level, equals: high}
              reports: {issuer: machines, claim: team, equals: reports}
            catalog: {crm: {kind: http, origin: "https://crm.example", operations: {search: {input: {type: object}}}}}
            classify: [{match: crm.search, effects: [read]}]
        """),
        "policies/p.cedar": b'@id("b") @reason("r") permit(principal in Role::"boss", action, resource);\n'
        b'@id("s") @reason("r") permit(principal is Service in Role::"reports", action, resource);\n',
    }
    with Kernel.load(files) as kernel:
        kernel.act(None, Subject("ann", claims={"level": "high"})).permits("crm.search")
        kernel.act(
            None, Subject("ann", claims={"level": "low", "other": True, "number": 3, "set": {"a"}})
        ).denies("crm.search")
        machine = Subject("m", issuer="machines", claims={"team": "reports"}, service=True)
        kernel.act(None, machine).permits("crm.search")
        with pytest.raises(UsageError, match="not both"):
            kernel.act(None, Subject("x", issuer="machines"))


def test_wrong_use(kernel: Kernel) -> None:
    """Wrong use."""
    with pytest.raises(UsageError, match="name an agent"):
        kernel.act()
    for wrong in ("bot", "https://a.example/x", "spiffe://a.example", "spiffe:///x"):
        with pytest.raises(UsageError, match="SPIFFE"):
            kernel.act(wrong)
    with pytest.raises(BundleError):
        Kernel.load({"bundle.yaml": "nonsense: 1"})


def test_the_plugin(tmp_path: Path) -> None:
    """The plugin."""

    def run() -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.stdout

    (tmp_path / "conftest.py").write_text('pytest_plugins = ["authz.testing.plugin"]')
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\nauthz_bundle = {DESK}\nauthz_vars =\n  trust_domain=a.example\n"
    )
    (tmp_path / "test_bundle.py").write_text(f"""
from authz.testing import Subject

def test_search(authz_kernel):
    alice = Subject("alice", claims={{"groups": ["employees"]}})
    authz_kernel.act("{BOT}", alice).permits("crm.search", {{"query": "T-1"}})

def test_wrong(authz_kernel):
    authz_kernel.act("{BOT}").denies("crm.search", code="FORBIDDEN")
""")
    said = run()
    assert "1 failed, 1 passed" in said
    assert "expected DENY FORBIDDEN; got" in said
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    said = run()
    assert "names no bundle" in said
    assert "2 errors" in said


def test_tasks_under_test() -> None:
    """Start, guard, delegate, end: in this process, by the same engine."""
    agents = "spiffe://a.example/ns/support/sa"
    read = guard("crm.read")(read_customer)
    with Kernel.load(TASKS, variables={"trust_domain": "a.example"}) as kernel:
        alice = Subject("alice", claims={"groups": ["employees"]})
        orch = kernel.act(f"{agents}/orch", alice)
        peer = kernel.act(f"{agents}/peer")
        orch.denies("crm.read", {"id": "acme/1"}, code="NO_TASK")
        with orch.working() as client:
            start = client.task(
                "answer",
                params={"customer": "acme", "most": 5},
                subject_token=orch.subject_token or "",
                prompt="Answer bob@customer.example",
            )
            with start as task:
                assert read("acme/1") == "customer acme/1"
                with pytest.raises(Denied):
                    read("other/1")
                assert "crm.refund" in orch.could()
                with task.delegate(f"{agents}/peer", scope=["crm.read"]) as child:
                    peer.permits("crm.read", {"id": "acme/1"}, task=child.id)
                    body = {"to": ["bob@customer.example"]}
                    peer.denies("mail.send", body, task=child.id, code="OUT_OF_SCOPE")
                    peer.denies("crm.read", {"id": "acme/1"}, task=task.id, code="NOT_ASSIGNEE")
                # The agent's word names nobody.
                orch.steps_up("mail.send", {"to": ["bob@customer.example"]}, task=task.id)
                task.extend("and eve@evil.example")
                assert (task.named, task.claimed) == (0, 2)
                orch.steps_up("mail.send", {"to": ["eve@evil.example"]}, task=task.id)
        orch.denies("crm.read", {"id": "acme/1"}, task=task.id, code="TASK_ENDED")


def test_the_subject_alone_names_recipients_under_test() -> None:
    """The user's own words count, and neither a quoted mail nor what the program says."""
    agents = "spiffe://a.example/ns/support/sa"
    with Kernel.load(TASKS, variables={"trust_domain": "a.example"}) as kernel:
        alice = Subject("alice", claims={"groups": ["employees"]})
        orch, alone = kernel.act(f"{agents}/orch", alice), kernel.act(None, alice)
        own = alone.subject_token or ""
        task = alone.client.tasks.start(
            "answer",
            params={"customer": "acme", "most": 5},
            subject_token=own,
            assignee=f"{agents}/orch",
            prompt=[
                Part("Answer bob@customer.example"),
                Part("ask eve@evil.example", said_by=SaidBy.QUOTED),
                Part("copy ann@evil.example", said_by=SaidBy.OTHER),
            ],
        )
        assert (task.named, task.claimed) == (1, 0)
        orch.permits("mail.send", {"to": ["bob@customer.example"]}, task=task.id)
        orch.steps_up("mail.send", {"to": ["eve@evil.example"]}, task=task.id)
        task.extend("and ann@evil.example", subject_token=own)
        orch.permits("mail.send", {"to": ["ann@evil.example"]}, task=task.id)
        with alone.working() as client:
            assert client.tasks.end(task.id) == 1


def read_customer(id: str) -> str:  # noqa: A002 - the argument's name in the catalog
    """Reads a customer."""
    return f"customer {id}"
