"""Receipts of a real node: a person answers at its page with a passkey, and somebody else verifies the call."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx2
import pytest

from authz_client import Authz, StepUp
from tests.support.audit_log import write_head_key
from tests.support.authenticator import Authenticator
from tests.support.cases import VARIABLES
from tests.support.minting import Authority
from tests.support.server import Server, command, layout
from tests.support.waiting import eventually, free_port

pytestmark = pytest.mark.timeout(180)

BOT = "spiffe://a.example/ns/desk/sa/bot"
PAYMENT = {"to": "acme", "amount": 870}
FILES = {
    "bundle.yaml": "name: bank\nrevision: bank-1\ntasks: optional\n",
    "facts.yaml": """\
agents:
  bot: {match: ["spiffe://${trust_domain}/ns/desk/sa/bot"], subject: optional}
subjects:
  manager: {issuer: local, claim: sub, equals: root}
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
  desk: {purpose: Pay the bills, deadline: 1h, starters: [bot], scope: [{system: bank}]}
""",
    "policies/bank.cedar": """\
// Not part of a policy.
@id("all") permit(principal, action in [Action::"system:bank"], resource); // nor this
@id("starts") permit(principal, action == Action::"task:desk", resource);
@id("managers-answer") permit(principal in Role::"manager", action == Action::"authz.approve", resource);
@id("pay") @stepup("approve") @reason("Payments of ${trust_domain} are approved.")
forbid(principal, action == Action::"bank.pay", resource) unless { context.satisfied.contains(Kind::"approve") };
""",
}


class _Fields(HTMLParser):
    """Hidden fields of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a hidden field."""
        found = dict(attrs)
        if tag == "input" and found.get("type") == "hidden":
            self.fields[str(found["name"])] = found.get("value") or ""


@dataclass
class Manager:
    """A person with a passkey in software, logged in at the page."""

    client: httpx2.Client
    passkey: Authenticator

    def post(self, path: str, fields: dict[str, str]) -> httpx2.Response:
        """Send a form as the script of the page does."""
        headers = {
            "origin": str(self.client.base_url).rstrip("/"),
            "sec-fetch-site": "same-origin",
            "accept": "application/json",
        }
        answer = self.client.post(path, data=fields, headers=headers)
        assert answer.status_code in {200, 303}, answer.text
        return answer

    def log_in(self, secret: str) -> None:
        """Make the passkey of an invitation, and log in with it."""
        options = self.post("/invite/options", {"secret": secret})
        created = self.passkey.create(options.text)
        self.post("/invite/add", {"secret": secret, "credential": created})
        options = self.post("/login/passkey/options", {"to": "/"})
        self.post("/login/passkey", {"assertion": self.passkey.get(options.text)})

    def approve(self, approval_id: str) -> None:
        """Approve a call on its card."""
        form = _Fields(self.client.get(f"/a/{approval_id}").text).fields
        form["outcome"] = "approve"
        options = self.post(f"/a/{approval_id}/challenge", form)
        self.post(f"/a/{approval_id}", {**form, "assertion": self.passkey.get(options.text)})


def _authz(*words: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*command(), *map(str, words)], capture_output=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A node with a chained audit and a page for passkeys."""
    folder = tmp_path_factory.mktemp("receipts")
    for name, text in FILES.items():
        file = folder / "bank" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    key = write_head_key(folder / "head.pem")
    port = free_port()
    changes = {
        "node": "n1",
        "audit": {"chain": True, "head_key": str(key), "head_interval": "100ms"},
        "listeners": {"approvals": {"address": f"127.0.0.1:{port}", "insecure_dev": True}},
        "approvals": {
            "url": f"http://localhost:{port}",
            "passkeys": {"rp_id": "localhost"},
        },
    }
    place = layout(folder / "server", authority, folder / "bank", changes)
    (folder / "keys.json").write_bytes(_authz("audit", "keys", key).stdout)
    with Server(place) as running:
        yield running


@pytest.fixture(scope="module")
def manager(server: Server) -> Iterator[Manager]:
    """The manager `local/root`."""
    url = server.place.config["approvals"]["url"]
    invite = ["invite", "local/root", "--format", "json", "--admin", server.address("admin")]
    secret = json.loads(_authz("approval", *invite).stdout)["url"].partition("#")[2]
    with closing(httpx2.Client(base_url=url)) as client:
        person = Manager(client, Authenticator("localhost", url))
        person.log_in(secret)
        yield person


@pytest.fixture(scope="module")
def authz(server: Server, authority: Authority) -> Authz:
    """The agent."""
    address = server.place.config["listeners"]["main"]["address"]
    return Authz(address, credentials=authority.agent(BOT), timeout=20)


@pytest.fixture(scope="module")
def paid(manager: Manager, authz: Authz) -> str:
    """Id of the decision of a payment that the manager approved."""
    with authz.task("desk"):
        with pytest.raises(StepUp) as raised:
            authz.check("bank.pay", PAYMENT)
        manager.approve(raised.value.approval_id)
        permit = authz.check("bank.pay", PAYMENT, approval_id=raised.value.approval_id)
    return permit.decision_id


def _make(server: Server, decision_id: str, out: Path, *words: object) -> None:
    """Make a receipt as soon as a head stands above the record."""
    given = [
        "audit",
        "receipt",
        decision_id,
        "--config",
        server.place.file,
        "--output",
        out,
        *words,
    ]

    def made() -> subprocess.CompletedProcess[bytes]:
        done = _authz(*given)
        assert b"no head stands above the record yet" not in done.stderr
        return done

    done = eventually(made)
    assert done.returncode == 0, done.stderr


def _account(server: Server, receipt: Path, *, code: int = 0) -> Any:
    keys = server.place.folder.parent / "keys.json"
    given = ["audit", "receipt", "--verify", receipt, "--head-key", keys, "--format", "json"]
    done = _authz(*given)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_receipt_of_a_node_proves_policies_and_the_passkey(
    server: Server, manager: Manager, paid: str, tmp_path: Path
) -> None:
    """The record has the hashes of the policies, the approval and the assertion."""
    receipt = tmp_path / "receipt.json"
    folder = server.place.folder / "bundle"
    variables = [word for name, value in VARIABLES.items() for word in ("--var", f"{name}={value}")]
    _make(server, paid, receipt, "--bundle", folder, *variables)
    account = _account(server, receipt)
    assert (account["outcome"], account["operation"], account["node"]) == (
        "PERMIT",
        "bank.pay",
        "n1",
    )
    assert account["policy_texts"] is True
    texts = json.loads(receipt.read_bytes())["policies"]
    assert texts["all"] == FILES["policies/bank.cedar"].splitlines()[1].removesuffix(" // nor this")
    (answer,) = account["answers"]
    assert (answer["by"], answer["method"], answer["algorithm"]) == (
        "local/root",
        "passkey",
        "ES256",
    )
    assert answer["signed_at_origin"] == manager.passkey.origin
    assert not any("the record names the approval, not" in one for one in account["not_proved"])


def test_a_receipt_of_another_call_is_refused(server: Server, paid: str, tmp_path: Path) -> None:
    """The amount of the payment was changed in the receipt."""
    receipt = tmp_path / "receipt.json"
    _make(server, paid, receipt)
    content = receipt.read_bytes()
    assert b'\\"amount\\":870' in content
    receipt.write_bytes(content.replace(b'\\"amount\\":870', b'\\"amount\\":871'))
    assert _account(server, receipt, code=2)["code"] == "path"
