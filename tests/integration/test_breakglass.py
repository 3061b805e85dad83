"""Break-glass: two people put an exception in force with the command, that no bundle lists; it ends everywhere at once.

The administration socket takes its own user and root. So that two people act, the node is started anew for the second one, or
another node of a shared store has another person under the user of the test.
"""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from authz_client import Authz, Denied
from tests.support.postgres import Postgres, programs
from tests.support.server import Server, command, layout
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.minting import Authority

pytestmark = pytest.mark.timeout(180)

BOT = "spiffe://a.example/ns/desk/sa/bot"
FILES = {
    "bundle.yaml": "name: erp\nrevision: erp-1\ntasks: optional\n",
    "facts.yaml": """\
agents: {operator: {match: ["spiffe://${trust_domain}/ns/desk/sa/bot"], subject: optional}}
catalog:
  erp: {kind: http, operations: {post: {effects: [write], tier: standard}, shut: {effects: [write], tier: critical}}}
  hr: {kind: http, operations: {post: {effects: [write], tier: standard}}}
""",
    "policies/erp.cedar": """\
@id("emergency") permit (principal in Role::"operator", action in Action::"system:erp", resource)
when { context.exception.contains(Exception::"breakglass") };
""",
}
OPEN = (
    "breakglass",
    "--system",
    "erp",
    "--for",
    "30m",
    "--ticket",
    "INC-7",
    "--reason",
    "the ledger is down",
)


def bundle(folder: Path) -> Path:
    """An ERP system at which nothing is permitted but in an emergency."""
    for name, text in FILES.items():
        file = folder / "erp" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder / "erp"


def settings(person: str | None, **more: Any) -> dict[str, Any]:
    """The configuration: the user of the test is this person, or nobody."""
    people = [{"uid": os.geteuid(), "issuer": "corp", "sub": person}] if person else []
    alone = {"enforcers": [], "listeners": {"portal": None}}
    return {"approvals": {"people": people}, **alone, **more}


def run(server: Server, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs `authz exception …` against the administration socket."""
    line = [*command(), "exception", *words, "--admin", server.address("admin")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return done


def listed(server: Server) -> dict[str, Any]:
    """The newest request that `authz exception list` shows."""
    entries = json.loads(run(server, "list", "--format", "json").stdout)
    newest: dict[str, Any] = entries[0]
    return newest


def reason(server: Server, authority: Authority, operation: str = "erp.post") -> str:
    """The reason code of a call of the bot."""
    address = server.place.config["listeners"]["main"]["address"]
    with Authz(address, credentials=authority.agent(BOT), timeout=20) as authz:
        try:
            authz.check(operation, {})
        except Denied as denied:
            return denied.public_code
    return "PERMIT"


def test_two_people_put_it_in_force(authority: Authority, tmp_path: Path) -> None:
    """It outlives a restart; each step and each use has a record, and the end takes it away at once."""
    source = bundle(tmp_path)
    place = layout(tmp_path / "node", authority, source, settings("ann"))
    with Server(place) as server:
        assert reason(server, authority) == "DENIED"
        opened = run(server, *OPEN, "--format", "json")
        request = json.loads(opened.stdout)
        assert request["operations"] == ["erp.post", "erp.shut"]
        assert (request["status"], request["opened_by"]) == ("open", "corp/ann")
        refused = run(server, "confirm", request["id"], ok=False)
        assert (
            "the person who opened a request for break-glass does not confirm it" in refused.stderr
        )
        assert reason(server, authority) == "DENIED"
    place = layout(tmp_path / "node", authority, source, settings("bob"))
    with Server(place) as server:
        confirmed = run(server, "confirm", request["id"])
        assert "break-glass is in force at erp for all callers until" in confirmed.stdout
        assert reason(server, authority) == "PERMIT"
        assert {reason(server, authority, one) for one in ("erp.shut", "hr.post")} == {"DENIED"}
        assert server.metric("authz_breakglass_in_force", system="erp") == 1
        assert server.metric("authz_exception_uses_total", exception="breakglass") == 1
        problems = " ".join(server.readiness()["problems"])
        assert "break-glass is in force at erp for all callers until " in problems
        assert "(opened by corp/ann, confirmed by corp/bob, INC-7)" in problems
    with Server(place) as server:
        assert reason(server, authority) == "PERMIT"
        run(server, "end", request["id"])
        assert reason(server, authority) == "DENIED"
        entry = listed(server)
        assert (entry["status"], entry["ended_by"]) == ("ended", "corp/bob")
        assert "corp/ann" in run(server, "list").stdout
        uses = [one for one in server.records() if "breakglass" in one["result"]]
        by = {"opened_by": "corp/ann", "confirmed_by": "corp/bob"}
        assert uses
        assert all(one["result"]["breakglass"].items() >= by.items() for one in uses)
        assert all(one["result"]["own_obligations"] == ["log_full"] for one in uses)


def test_a_user_who_is_no_person_opens_nothing(authority: Authority, tmp_path: Path) -> None:
    """Nor is a time over an hour taken; both say what is wrong."""
    place = layout(tmp_path / "node", authority, bundle(tmp_path), settings(None))
    with Server(place) as server:
        refused = run(server, *OPEN, ok=False)
        assert f"user {os.geteuid()} is not in `approvals.people`" in refused.stderr
        long = run(
            server,
            "breakglass",
            "--system",
            "erp",
            "--for",
            "61m",
            "--ticket",
            "T",
            "--reason",
            "r",
            ok=False,
        )
        assert "at most 60 minutes" in long.stderr
        steps = [
            one["input"]["breakglass"] for one in server.records() if "breakglass" in one["input"]
        ]
        assert [one["action"] for one in steps] == ["open"]


@pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed (Debian: postgresql)")
def test_nodes_of_a_store_share_it(authority: Authority, tmp_path: Path) -> None:
    """What one node opens, another confirms and ends; each node hears of it."""
    source = bundle(tmp_path)
    with Postgres() as database, ExitStack() as stack:
        dsn = f"postgresql://postgres@127.0.0.1:{database.port}/authz"
        state = {"engine": "postgresql", "dsn": dsn}
        ann, bob = (
            stack.enter_context(
                Server(layout(tmp_path / name, authority, source, settings(name, state=state)))
            )
            for name in ("ann", "bob")
        )
        request = json.loads(run(ann, *OPEN, "--format", "json").stdout)
        run(bob, "confirm", request["id"])
        assert reason(bob, authority) == "PERMIT"
        eventually(lambda: reason(ann, authority) == "PERMIT")
        run(ann, "end", request["id"])
        assert reason(ann, authority) == "DENIED"
        eventually(lambda: reason(bob, authority) == "DENIED")
