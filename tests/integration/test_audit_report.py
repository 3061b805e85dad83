"""The audit of a real node, shown by session and reported for a period."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from authz_client import Authz, Denied, StepUp
from tests.support.audit_log import write_head_key
from tests.support.server import Layout, Server, command, layout

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.minting import Authority

pytestmark = pytest.mark.timeout(180)

AGENTS = "spiffe://a.example/ns/desk/sa"
BOT, HELPER, NIGHTLY = f"{AGENTS}/bot", f"{AGENTS}/helper", f"{AGENTS}/nightly"
FILES = {
    "bundle.yaml": "name: bank\nrevision: bank-1\ntasks: optional\n",
    "facts.yaml": """\
agents:
  bot: {match: ["spiffe://${trust_domain}/ns/desk/sa/bot"], subject: optional}
  helper: {match: ["spiffe://${trust_domain}/ns/desk/sa/helper"], subject: optional}
  nightly: {match: ["spiffe://${trust_domain}/ns/desk/sa/nightly"], subject: optional}
subjects:
  staff: [{issuer: corp}]
  manager: {issuer: corp, claim: groups, contains: managers}
resources: {accounts: {}}
labels: {untrusted: {kind: trust, description: text of a stranger}}
catalog:
  bank:
    kind: http
    operations:
      pay:
        input: {type: object, properties: {to: {type: string}, amount: {type: integer}}, required: [to, amount]}
      read: {effects: [read], tier: low, yields: [untrusted], input: {type: object, properties: {}}}
      close: {effects: [delete], tier: standard, input: {type: object, properties: {}}}
classify:
  - match: bank.pay
    effects: [write]
    tier: standard
    objects: [{from: /to, role: recipient, collection: accounts}, {from: /amount, role: amount}]
templates:
  desk:
    purpose: pay the bills
    deadline: 1h
    max_depth: 1
    starters: [bot]
    scope: [{system: bank}]
exceptions:
  old-job:
    who: nightly
    operations: [bank.read]
    owner: bank-team@corp.example
    reason: the job runs without a user
    ticket: BANK-1
    expires: EXPIRES
""",
    "policies/bank.cedar": """\
@id("all")
permit(principal, action in [Action::"system:bank"], resource) unless { principal in Role::"nightly" };
@id("starts") permit(principal, action == Action::"task:desk", resource);
@id("gives") permit(principal, action == Action::"give:desk", resource);
@id("managers-answer") permit(principal in Role::"manager", action == Action::"authz.approve", resource);
@id("old-job") permit(principal in Role::"nightly", action == Action::"bank.read", resource)
when { context.exception.contains(Exception::"old-job") };
@id("pay") @control("ASI01") @stepup("approve") @reason("payments are approved")
forbid(principal, action == Action::"bank.pay", resource)
unless { [Origin::"named"].containsAll(context.origins.recipient) || context.satisfied.contains(Kind::"approve") };
@id("no-close") @control("ASI02") @reason("accounts stay open")
forbid(principal, action == Action::"bank.close", resource);
""",
}
PAYMENT = {"to": "acme", "amount": 870}


@dataclass
class Case:
    """A node that has stopped, and the ids of the case."""

    place: Layout
    task: str = ""
    child: str = ""
    approval: str = ""
    other_task: str = ""


def _admin(server: Server, *words: str) -> Any:
    line = [*command(), *words, "--format", "json", "--admin", server.address("admin")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout else None


@pytest.fixture(scope="module")
def case(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A payment that a manager approved after a strange mail, with a denial, a delegation and an exception."""
    folder = tmp_path_factory.mktemp("audit-report")
    for name, text in FILES.items():
        file = folder / "bank" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        expires = (datetime.now(UTC) + timedelta(days=30)).date()
        file.write_text(text.replace("EXPIRES", str(expires)))
    bob = {"uid": os.geteuid(), "issuer": "corp", "sub": "bob", "claims": {"groups": ["managers"]}}
    key = write_head_key(folder / "head.pem")
    changes = {
        "audit": {"chain": True, "head_key": str(key), "head_interval": "100ms"},
        "approvals": {"url": "https://authz.corp.example", "people": [bob]},
        "enforcers": [],
        "listeners": {"portal": None},
        "node": "n1",
    }
    place = layout(folder / "server", authority, folder / "bank", changes)
    made = Case(place)
    alice = authority.subject("alice", groups=["employees"])
    with Server(place) as server:
        address = place.config["listeners"]["main"]["address"]

        def client(agent: str) -> Authz:
            return Authz(address, credentials=authority.agent(agent), timeout=20)

        bot = client(BOT)
        with bot.task("desk", subject_token=alice) as task:
            made.task = task.id
            read = bot.check("bank.read", {}, subject_token=alice)
            bot.report(read, "ok", labels=["untrusted"])
            with pytest.raises(StepUp) as held:
                bot.check("bank.pay", PAYMENT, subject_token=alice)
            made.approval = held.value.approval_id
            card = _admin(server, "approval", "show", made.approval)["card_digest"]
            _admin(server, "approval", "approve", made.approval, "--yes", "--digest", card)
            bot.check("bank.pay", PAYMENT, subject_token=alice, approval_id=made.approval)
            with pytest.raises(Denied):
                bot.check("bank.close", {}, subject_token=alice)
            with task.delegate(HELPER) as child:
                made.child = child.id
                client(HELPER).check("bank.read", {}, task=child.id)
        with bot.task("desk", subject_token=alice) as other:
            made.other_task = other.id
            bot.check("bank.read", {}, subject_token=alice)
        client(NIGHTLY).check("bank.read", {})
        _admin(server, "revoke", "agent", HELPER, "--reason", "it is retired")
    return made


def _authz(case: Case, *words: str) -> str:
    """Run `authz audit …` with the configuration of the node; return its output."""
    line = [*command(), "audit", *words, "--config", str(case.place.file)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _trust_heads(case: Case) -> Path:
    """Write the public half of the key of heads."""
    keys = case.place.folder / "keys.json"
    line = [*command(), "audit", "keys", case.place.config["audit"]["head_key"]]
    keys.write_bytes(subprocess.run(line, capture_output=True, timeout=60, check=True).stdout)
    return keys


def _session(case: Case, task: str) -> str:
    for line in case.place.audit.read_text().splitlines():
        of_task = json.loads(line).get("input", {}).get("task", {})
        if of_task.get("id") == task:
            return str(of_task["session"])
    raise AssertionError(task)


def _table(case: Case, name: str) -> list[dict[str, str]]:
    with (case.place.folder / "november" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_session_of_a_node_is_shown(case: Case) -> None:
    """From the start of the task to its end, with the manager's answer, and without the other session."""
    session = _session(case, case.task)
    told = json.loads(_authz(case, "show", "--session", session, "--format", "json"))

    events = told["events"]
    assert [(one["kind"], one.get("operation", ""), one["outcome"]) for one in events] == [
        ("task start", "task:desk", "PERMIT"),
        ("call", "bank.read", "PERMIT"),
        ("call", "bank.pay", "STEP_UP"),
        ("answer", "authz.approve", "PERMIT"),
        ("call", "bank.pay", "PERMIT"),
        ("call", "bank.close", "DENY"),
        ("delegation", "", "PERMIT"),
        ("call", "bank.read", "PERMIT"),
        ("task end", "", "PERMIT"),
        ("task end", "", "PERMIT"),
        ("revocation", "authz.revoke", "PERMIT"),
    ]
    assert events[2]["origins"] == {"recipient": ["unknown"], "amount": ["unknown"]}
    assert events[2]["controls"] == ["ASI01"]
    assert (events[6]["task"], events[6]["assignee"]) == (case.child, HELPER)
    (label,) = told["labels"]
    assert (label["label"], label["decision_id"]) == ("untrusted", events[1]["decision_id"])
    (approval,) = told["approvals"]
    assert (approval["id"], approval["outcome"]) == (case.approval, "used")
    (given,) = approval["answers"]
    assert (given["approval"]["by"], given["approval"]["method"]) == (["corp/bob"], "socket")
    assert approval["asked_at"] <= approval["seen_at"] <= given["at"] <= events[4]["at"]
    assert approval["used_by"] == [events[4]["decision_id"]]
    assert told["damaged_lines"] == []


def test_a_session_is_a_page_and_lines(case: Case) -> None:
    """The same for a terminal and as one file."""
    session = _session(case, case.task)
    page = case.place.folder / "session.html"
    _authz(case, "show", "--session", session, "--format", "html", "--output", str(page))
    for text in (page.read_text(), _authz(case, "show", "--session", session)):
        assert case.approval in text
        assert "labels join the session: untrusted" in text
        assert f"revoked agent {HELPER} by" in text
        assert case.other_task not in text


def test_a_period_of_a_node_is_reported(case: Case) -> None:
    """With the owner of the exception, the approver, and a sample of the node's own lines."""
    today = datetime.now(UTC)
    # The test may run at midnight.
    since, until = ((today + timedelta(days=days)).date().isoformat() for days in (-1, 1))
    out = case.place.folder / "november"
    keys = _trust_heads(case)
    words = ("--from", since, "--to", until, "--output", str(out), "--sample", "3")
    _authz(
        case,
        "report",
        *words,
        "--bundle",
        str(case.place.folder / "bundle"),
        "--var",
        "trust_domain=a.example",
        "--keys",
        str(keys),
    )

    (bundle,) = _table(case, "bundles.csv")
    assert (bundle["bundle"], bundle["revision"], bundle["node"]) == ("bank", "bank-1", "n1")
    (exception,) = _table(case, "exceptions.csv")
    assert (exception["exception"], exception["permitted"]) == ("old-job", "1")
    assert exception["owner"] == "bank-team@corp.example"
    approvals = {(one["group"], one["name"]): one for one in _table(case, "approvals.csv")}
    for group in (("all", ""), ("control", "ASI01"), ("rule", "policy pay")):
        one = approvals[group]
        assert (one["step_ups"], one["asked"], one["approved"], one["used"]) == ("1", "1", "1", "1")
    controls = {one["name"]: one["denied"] for one in _table(case, "controls.csv")}
    assert controls["ASI02"] == "1"
    assert {one["approver"] for one in _table(case, "approvers.csv")} == {"corp/bob"}
    (act,) = _table(case, "administration.csv")
    assert (act["act"], act["target"], act["value"]) == ("revoke", "agent", HELPER)
    log = case.place.audit.read_bytes().splitlines(keepends=True)
    samples = _table(case, "samples.csv")
    assert len(samples) == 3
    for sample in samples:
        assert (out / sample["record"]).read_bytes() == log[int(sample["line"]) - 1]
        verify = ("--verify", str(out / sample["receipt"]), "--head-key", str(keys))
        assert json.loads(_authz(case, "receipt", *verify, "--format", "json"))["verified"]
    assert "0 findings" in (out / "gaps.md").read_text()
    records = [json.loads(line) for line in log]
    count = sum("result" in one for one in records)
    assert f"| {count} | records of decisions of the period" in (out / "README.md").read_text()
    loads = [one["timestamp"] for one in records if "loaded" in one]
    assert [one["at"] for one in _table(case, "loads.csv")] == loads
    assert bundle["loads"] == str(len(loads))
