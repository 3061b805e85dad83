"""From the agent's first call to its permitted retry: a person answers at the page, in a real Chromium, at npm's oidc-provider."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from authz_client import ApprovalStatus, Authz, Denied, StepUp, Tls
from authz_client.approval_code import binding_code
from tests.support.browsing import (
    CLIENT_ID,
    CLIENT_SECRET,
    add_authenticator,
    chromium,
    log_in,
    running_issuer,
)
from tests.support.minting import Authority, Key
from tests.support.mutual import Pki
from tests.support.postgres import Postgres, programs
from tests.support.server import Server, command, layout, merged
from tests.support.waiting import eventually, free_port

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.timeout(300)]

BOT = "spiffe://a.example/ns/desk/sa/bot"
FILES = {
    "bundle.yaml": "name: bank\nrevision: bank-1\ntasks: optional\n",
    "facts.yaml": """\
agents:
  bot: {match: ["spiffe://${trust_domain}/ns/desk/sa/bot"], subject: optional}
subjects:
  employee: [{issuer: staff}]
  manager: [{issuer: staff, claim: groups, contains: managers}, {issuer: local, claim: sub, equals: root}]
resources: {accounts: {}}
catalog:
  bank:
    kind: http
    operations:
      pay:
        input: {type: object, properties: {to: {type: string}, amount: {type: integer}}, required: [to, amount]}
      note:
        input: {type: object, properties: {text: {type: string}}, required: [text]}
      wire:
        input: {type: object, properties: {to: {type: string}, amount: {type: integer}}, required: [to, amount]}
classify:
  - match: bank.pay
    effects: [write]
    tier: standard
    objects: [{from: /to, role: recipient, collection: accounts}, {from: /amount, role: amount}]
  - match: bank.note
    effects: [write]
    tier: standard
  - match: bank.wire
    effects: [write]
    tier: high
    objects: [{from: /to, role: recipient, collection: accounts}, {from: /amount, role: amount}]
templates:
  desk: {purpose: Pay the bills, deadline: 1h, starters: [bot], scope: [{system: bank}], tier_cap: high}
""",
    "policies/bank.cedar": """\
@id("all") permit(principal, action in [Action::"system:bank"], resource);
@id("starts") permit(principal, action == Action::"task:desk", resource);
@id("managers-answer") permit(principal in Role::"manager", action == Action::"authz.approve", resource);
@id("pay") @stepup("approve:manager") @reason("Payments are approved.")
forbid(principal, action in [Action::"bank.pay", Action::"bank.wire"], resource) unless { context.satisfied.contains(Kind::"approve:manager") };
@id("note") @stepup("confirm") @reason("You confirm your notes.")
forbid(principal, action == Action::"bank.note", resource) unless { context.satisfied.contains(Kind::"confirm") };
""",
}


@pytest.fixture(scope="module")
def key() -> Key:
    """Key of the issuer at which people log in, and which signs the tokens that their agents have."""
    return Key.make("staff-1", "RS256")


@pytest.fixture(scope="module")
def server(
    authority: Authority, key: Key, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A node whose page is on loopback, with npm's oidc-provider."""
    with running_node(authority, key, tmp_path_factory.mktemp("page")) as running:
        yield running


@contextmanager
def running_node(
    authority: Authority, key: Key, folder: Path, more: Mapping[str, Any] | None = None
) -> Iterator[Server]:
    """Starts a node with a page and its issuer; `more` is merged into the configuration."""
    for name, text in FILES.items():
        file = folder / "bank" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    secret = folder / "secret"
    secret.write_text(CLIENT_SECRET)
    secret.chmod(0o600)
    port, issuer_port = free_port(), free_port()
    pki, url = Pki(folder), f"http://localhost:{port}"
    mutual = {**pki.tls, "client_ca_file": str(pki.clients)}
    groups = json.dumps({"dana": ["managers"], "rita": ["managers"], "eve": ["clerks"]})
    assert isinstance(key.private, rsa.RSAPrivateKey)
    private = RSAAlgorithm.to_jwk(key.private, as_dict=True)
    del private["key_ops"]
    keys = json.dumps({"keys": [{**private, "kid": key.kid, "use": "sig", "alg": key.algorithm}]})
    devices = folder / "devices"
    devices.mkdir()
    callback = f"{url}/login/callback"
    with running_issuer(issuer_port, callback, groups, keys, str(devices)) as issuer:
        staff = {
            "issuer": issuer,
            "audience": ["authz"],
            "algorithms": ["RS256"],
            "jwks": {"discovery": True, "insecure_dev": True},
            "claims": ["groups"],
        }
        settings = {
            "trust": {"issuers": {"staff": staff}},
            "listeners": {
                "approvals": {"address": f"127.0.0.1:{port}", "insecure_dev": True},
                # A call of tier high needs a caller that proves a key.
                "mutual": {"address": f"127.0.0.1:{free_port()}", "tls": mutual},
            },
            "approvals": {
                "url": url,
                "login": {
                    "issuer": "staff",
                    "client_id": CLIENT_ID,
                    "client_secret_file": str(secret),
                    "scopes": ["openid", "profile"],
                },
                "passkeys": {"rp_id": "localhost"},
            },
        }
        changed = merged(settings, more or {})
        place = layout(folder / "server", authority, folder / "bank", changed)
        pki.trust(place)
        svid = pki.a.svid(BOT)
        (folder / "svid.pem").write_bytes(svid.pem)
        (folder / "svid.key").write_bytes(svid.key_pem)
        with Server(place) as running:
            yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium."""
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page of a browser that nobody used before."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture
def authz(server: Server) -> Authz:
    """The agent."""
    return agent_at(server)


def agent_at(server: Server) -> Authz:
    """Returns the agent, with its X.509-SVID. It never polls within the time of a test."""
    folder = server.place.folder.parent
    tls = Tls(folder / "root.pem", folder / "svid.pem", folder / "svid.key")
    address = server.place.config["listeners"]["mutual"]["address"]
    return Authz(address, tls=tls, timeout=20, approval_poll=600)


@contextmanager
def waiting(
    authz: Authz, operation: str, arguments: dict[str, Any], **more: Any
) -> Iterator[tuple[StepUp, Any]]:
    """Makes a call that a person must approve; yields the step-up and the status that the waiting agent hears."""
    with pytest.raises(StepUp) as raised:
        authz.check(operation, arguments, **more)
    heard: list[ApprovalStatus] = []
    thread = threading.Thread(target=lambda: heard.append(raised.value.wait(120)))
    thread.start()
    yield raised.value, heard
    thread.join(60)


def test_a_login_approves_a_call_that_runs_once(page: Any, authz: Authz) -> None:
    """The agent sends the link, waits, hears the answer, and makes the call."""
    payment = {"to": "acme", "amount": 870}
    with authz.task("desk"), waiting(authz, "bank.pay", payment) as (step_up, heard):
        page.goto(step_up.url)
        page.click("text=Log in at staff")
        log_in(page, "dana")
        page.wait_for_url(step_up.url)
        text = page.inner_text("main")
        for shown in ("bank.pay", "acme", "870", "Payments are approved.", "Pay the bills"):
            assert shown in text
        page.click("button:has-text('Approve this call')")
        page.wait_for_selector("text=You approved")
        eventually(lambda: heard == [ApprovalStatus.APPROVED])

        assert authz.check("bank.pay", payment, approval_id=step_up.approval_id).decision_id
        with pytest.raises(StepUp) as again:
            authz.check("bank.pay", payment)
        assert again.value.approval_id != step_up.approval_id


def test_a_call_of_tier_high_is_approved_with_a_passkey(page: Any, authz: Authz) -> None:
    """A login does not suffice. The passkey is made on the way."""
    wire = {"to": "acme", "amount": 87_000}
    add_authenticator(page)
    with authz.task("desk"), waiting(authz, "bank.wire", wire) as (step_up, heard):
        page.goto(step_up.url)
        page.click("text=Log in at staff")
        log_in(page, "dana")
        page.click("main a:has-text('Add a passkey')")
        page.click("button:has-text('Add a passkey')")
        page.wait_for_selector("main li h2")
        page.goto(step_up.url)
        page.click("button:has-text('Approve this call')")
        page.wait_for_selector("text=You approved")
        eventually(lambda: heard == [ApprovalStatus.APPROVED])
        assert authz.check("bank.wire", wire, approval_id=step_up.approval_id).decision_id


def test_a_rejected_call_is_denied_with_its_reason(page: Any, authz: Authz) -> None:
    """Nobody is asked again about the same call."""
    payment = {"to": "mallory", "amount": 9}
    with authz.task("desk"), waiting(authz, "bank.pay", payment) as (step_up, heard):
        page.goto(step_up.url)
        page.click("text=Log in at staff")
        log_in(page, "dana")
        page.select_option("#reason", index=1)
        page.click("button:has-text('Reject')")
        page.wait_for_selector("text=You rejected")
        eventually(lambda: heard == [ApprovalStatus.REJECTED])
        with pytest.raises(Denied) as denied:
            authz.check("bank.pay", payment)
        assert not isinstance(denied.value, StepUp)


def test_a_user_confirms_a_call_of_their_own_agent(
    browser: Any, authz: Authz, server: Server, key: Key
) -> None:
    """Nobody else does, not even a manager; and nobody approves what their own agent does."""
    issuer = server.place.config["trust"]["issuers"]["staff"]["issuer"]
    claims = {"iss": issuer, "sub": "dana", "aud": "authz", "groups": ["managers"]}
    subject = key.sign({**claims, "iat": int(time.time()), "exp": int(time.time()) + 600})
    pages = {name: browser.new_context().new_page() for name in ("dana", "rita")}
    note, payment = {"text": "hello"}, {"to": "umbrella", "amount": 3}
    with authz.task("desk", subject_token=subject):
        with waiting(authz, "bank.note", note, subject_token=subject) as (step_up, heard):
            for name, page in pages.items():
                page.goto(step_up.url)
                page.click("text=Log in at staff")
                log_in(page, name)
            pages["rita"].wait_for_selector("h1:has-text('Not allowed')")
            pages["dana"].wait_for_selector("text=You confirm your notes.")
            pages["dana"].click("button:has-text('Approve this call')")
            pages["dana"].wait_for_selector("text=You approved")
            eventually(lambda: heard == [ApprovalStatus.APPROVED])
            permit = authz.check(
                "bank.note", note, subject_token=subject, approval_id=step_up.approval_id
            )
            assert permit.decision_id
        with waiting(authz, "bank.pay", payment, subject_token=subject) as (step_up, heard):
            pages["dana"].goto(step_up.url)
            pages["dana"].wait_for_selector("h1:has-text('Not allowed')")
            renew_login(pages["rita"], step_up.url, "rita")
            pages["rita"].click("button:has-text('Approve this call')")
            pages["rita"].wait_for_selector("text=You approved")
            eventually(lambda: heard == [ApprovalStatus.APPROVED])
    for page in pages.values():
        page.context.close()


def test_a_user_confirms_at_the_phone(authority: Authority, key: Key, tmp_path: Path) -> None:
    """The phone shows the code of the approval; a denial there leaves the approval open, as nobody is proved by it."""
    ciba = {
        "issuer": "staff",
        "client_id": "authz-phone",
        "client_secret_file": str(tmp_path / "secret"),
    }
    devices = tmp_path / "devices"
    with running_node(authority, key, tmp_path, {"approvals": {"ciba": ciba}}) as server:
        authz = agent_at(server)
        issuer = server.place.config["trust"]["issuers"]["staff"]["issuer"]
        claims = {"iss": issuer, "sub": "dana", "aud": "authz", "exp": int(time.time()) + 600}
        subject = key.sign({**claims, "iat": int(time.time())})
        note, other, payment = {"text": "hello"}, {"text": "again"}, {"to": "acme", "amount": 4}
        with authz.task("desk", subject_token=subject):
            with waiting(authz, "bank.note", note, subject_token=subject) as (step_up, heard):
                device = devices / binding_code(step_up.approval_id)
                eventually(device.exists)
                asked = json.loads(device.read_text())
                assert (asked["account"], int(asked["expiry"]) <= 900) == ("dana", True)
                assert heard == []
                device.with_suffix(".yes").touch()
                eventually(lambda: heard == [ApprovalStatus.APPROVED])
            permit = authz.check(
                "bank.note", note, subject_token=subject, approval_id=step_up.approval_id
            )
            assert permit.decision_id

            with pytest.raises(StepUp) as denied:
                authz.check("bank.note", other, subject_token=subject)
            device = devices / binding_code(denied.value.approval_id)
            eventually(device.exists)
            device.with_suffix(".no").touch()
            eventually(lambda: "denied" in results(server))
            with pytest.raises(StepUp) as again:
                authz.check("bank.note", other, subject_token=subject)
            assert again.value.approval_id == denied.value.approval_id

            with pytest.raises(StepUp) as approved_by_others:
                authz.check("bank.pay", payment, subject_token=subject)
            assert results(server) == {"asked": 2, "confirmed": 1, "denied": 1}
            assert not (devices / binding_code(approved_by_others.value.approval_id)).exists()


def results(server: Server) -> dict[str, int]:
    """Returns what became of the questions at the phone, by the node's metrics."""
    return {
        labels["result"]: int(value)
        for name, labels, value in server.samples()
        if name == "authz_approval_ciba_total" and value
    }


def test_a_person_without_the_role_sees_and_answers_nothing(page: Any, authz: Authz) -> None:
    """An approval of others looks as a missing one, and the list is empty."""
    payment = {"to": "acme", "amount": 1}
    with authz.task("desk"), pytest.raises(StepUp) as raised:
        authz.check("bank.pay", payment)
    page.goto(raised.value.url)
    page.click("text=Log in at staff")
    log_in(page, "eve")
    page.wait_for_selector("h1:has-text('Not allowed')")
    page.goto(raised.value.url.partition("/a/")[0])
    page.wait_for_selector("text=No call waits for you")


def test_an_invited_person_approves(page: Any, authz: Authz, server: Server) -> None:
    """`authz approval invite` makes the link; the bundle gives the role by the name."""
    add_authenticator(page)
    page.goto(invite(server, "local/root"))
    page.click("button:has-text('Make a passkey')")
    page.click("button:has-text('Log in with a passkey')")
    page.wait_for_selector("h1:has-text('Open approvals')")
    payment = {"to": "globex", "amount": 12}
    with authz.task("desk"), waiting(authz, "bank.pay", payment) as (step_up, heard):
        page.goto(step_up.url)
        page.click("button:has-text('Approve this call')")
        page.wait_for_selector("text=You approved")
        eventually(lambda: heard == [ApprovalStatus.APPROVED])
        assert authz.check("bank.pay", payment, approval_id=step_up.approval_id).decision_id
    listed = run(server, "passkeys", "local/root")
    assert [one["name"] for one in listed["passkeys"]] == ["First passkey"]
    assert listed["passkeys"][0]["used"] != "never"
    assert run(server, "remove-passkey", "local/root", "--all") == {"removed": 1}


def test_two_people_answer_one_call_at_once(browser: Any, authz: Authz) -> None:
    """The page of the second says that somebody answered."""
    payment = {"to": "initech", "amount": 5}
    pages = [browser.new_context().new_page() for _ in range(2)]
    with authz.task("desk"), waiting(authz, "bank.pay", payment) as (step_up, heard):
        for one in pages:
            one.goto(step_up.url)
            one.click("text=Log in at staff")
            log_in(one, "dana")
            one.wait_for_url(step_up.url)
        pages[0].click("button:has-text('Approve this call')")
        pages[1].wait_for_selector("text=It is now approved.")
        eventually(lambda: heard == [ApprovalStatus.APPROVED])
    for one in pages:
        one.context.close()


@pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed (Debian: postgresql)")
def test_pages_of_two_nodes_follow_each_other(
    browser: Any, authority: Authority, key: Key, tmp_path: Path
) -> None:
    """The agent waits at the first node; its page hears of the answer at the page of the second node."""
    payment = {"to": "hooli", "amount": 11}
    with Postgres() as database, ExitStack() as stack:
        dsn = f"postgresql://postgres@127.0.0.1:{database.port}/authz"
        state = {"state": {"engine": "postgresql", "dsn": dsn}}
        first, second = (
            stack.enter_context(running_node(authority, key, tmp_path / name, state))
            for name in ("one", "two")
        )
        authz = agent_at(first)
        pages = [stack.enter_context(browser.new_context()).new_page() for _ in range(2)]
        with authz.task("desk"), waiting(authz, "bank.pay", payment) as (step_up, heard):
            at_first = step_up.url
            at_second = second.place.config["approvals"]["url"] + f"/a/{step_up.approval_id}"
            for page, url, name in zip(pages, (at_first, at_second), ("dana", "rita"), strict=True):
                page.goto(url)
                page.click("text=Log in at staff")
                log_in(page, name)
                page.wait_for_url(url)
            pages[1].click("button:has-text('Approve this call')")
            pages[1].wait_for_selector("text=You approved")
            pages[0].wait_for_selector("text=It is now approved.")
            eventually(lambda: heard == [ApprovalStatus.APPROVED])
            assert authz.check("bank.pay", payment, approval_id=step_up.approval_id).decision_id


def renew_login(page: Any, url: str, name: str) -> None:
    """Opens a card, and logs in again if the login is of an earlier second than the call."""
    again = "main a:has-text('Log in again')"
    page.goto(url)
    page.wait_for_selector(f"{again}, button:has-text('Approve this call')")
    if page.locator(again).count() == 1:
        page.click(again)
        page.wait_for_selector("input[name=login]")
        log_in(page, name)
        page.wait_for_url(url)


def run(server: Server, *words: str) -> Any:
    """Runs `authz approval …` against the administration socket; returns its JSON."""
    words = ("approval", *words, "--format", "json", "--admin", server.address("admin"))
    done = subprocess.run(
        [*command(), *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def invite(server: Server, person: str) -> str:
    """Makes an invitation, and returns its link."""
    url: str = run(server, "invite", person)["url"]
    return url
