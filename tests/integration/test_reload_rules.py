"""A reload carries what live sessions did before for rules that are what they were, and says so of each rule."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from authz.cli import main
from authz_client.v1 import admin_pb2, decision_pb2
from tests.support.clerking import Clerk
from tests.support.minting import Authority
from tests.support.server import Server, layout
from tests.support.surfaces import outcome, reason_name
from tests.support.waiting import eventually


class Desk:
    """A clerk at work in one task of the bundle `history`."""

    def __init__(self, server: Server, authority: Authority) -> None:
        self.server = server
        self.clerk = Clerk.of(authority)
        self.task = self.clerk.start(server, "desk")

    def check(self, operation: str, **arguments: Any) -> decision_pb2.Decision:
        """Asks for one call."""
        return self.clerk.check(self.server, self.task, operation, arguments)

    def code(self, operation: str, **arguments: Any) -> str:
        """Asks for one call; returns the reason code."""
        return reason_name(self.check(operation, **arguments))

    def edit(self, *changes: tuple[str, str]) -> None:
        """Replaces words of the bundle's facts."""
        path = self.server.place.folder / "bundle" / "facts.yaml"
        text = path.read_text()
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        aside = path.with_suffix(".new")
        aside.write_text(text)
        aside.replace(path)

    def reload(self) -> admin_pb2.ReloadResponse:
        """Asks for a reload."""
        data = self.server.call("admin", "authz.v1.Admin/Reload", b"")
        return admin_pb2.ReloadResponse.FromString(data)


@pytest.fixture
def desk(authority: Authority, tmp_path: Path) -> Iterator[Desk]:
    """A server of the test's own."""
    with Server(layout(tmp_path, authority, "history")) as running:
        yield Desk(running, authority)


CHANGES = (
    ('after: "denied(files.share)", within: 1h', 'after: "denied(files.share)", within: 2h'),
    ("{count: crm.note, most: 2, within: 5m", "{count: crm.note, most: 2, within: 6m"),
    ("payees: {distinct: /to, of: bank.pay", "looks: {distinct: /id, of: crm.get"),
)


def test_what_did_not_change_goes_on(desk: Desk) -> None:
    """An unchanged rule still denies after a reload; one that was changed forgets, and is named."""
    for operation in ("chat.invite", "chat.admit"):
        assert desk.code(operation, user="eve") == "PERMITTED"
    assert outcome(desk.check("chat.remove", user="eve")) == "STEP_UP"
    assert [desk.code("crm.note", id=f"{one}") for one in range(3)] == [
        "PERMITTED",
        "PERMITTED",
        "BUDGET_EXCEEDED",
    ]
    assert desk.code("bank.pay", to="bob", amount=4000) == "PERMITTED"
    assert desk.code("files.share", **{"id": "vault/1", "with": "eve@evil.example"}) == "FORBIDDEN"
    assert desk.code("mail.send", to=["ann@corp.example"]) == "FORBIDDEN"

    desk.edit(*CHANGES)
    answer = desk.reload()

    assert answer.reloaded, answer.diagnostics
    assert answer.rules == admin_pb2.RuleChanges(
        carried=5,
        changed=["budgets.notes", "sequences.mail-after-denied"],
        added=["budgets.looks"],
        removed=["budgets.payees"],
    )
    assert outcome(desk.check("chat.remove", user="eve")) == "STEP_UP", "unchanged"
    assert desk.code("bank.pay", to="bob", amount=4000) == "BUDGET_EXCEEDED", "unchanged"
    assert desk.code("crm.note", id="4") == "PERMITTED", "changed"
    assert desk.code("mail.send", to=["ann@corp.example"]) == "PERMITTED", "changed"


def test_every_way_to_reload_tells_it(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """The log, `/readyz` and `authz status --reload`; a refused reload tells nothing."""
    assert desk.server.readiness()["bundle"]["rules"]["carried"] == 0, "nothing was before"
    desk.edit(*CHANGES)
    os.kill(desk.server.pid, signal.SIGHUP)
    told = {
        "carried": 5,
        "changed": ["budgets.notes", "sequences.mail-after-denied"],
        "added": ["budgets.looks"],
        "removed": ["budgets.payees"],
        "omitted": 0,
    }
    eventually(
        lambda: desk.server.readiness()["bundle"]["rules"] == told, what="the new bundle serves"
    )

    def logged() -> list[Any]:
        # The last line may not be whole yet.
        *lines, _ = desk.server.log.read_text().split("\n")
        found = [json.loads(line) for line in lines]
        return [line["rules"] for line in found if line.get("event") == "loaded"]

    eventually(lambda: logged()[-1:] == [told], what="the log tells it")

    desk.edit(*[(new, old) for old, new in CHANGES[1:]])
    with pytest.raises(SystemExit) as ended:
        main(["status", "--admin", desk.server.address("admin"), "--reload"])
    said = "".join(capsys.readouterr())
    assert ended.value.code == 0, said
    assert "6 rules are unchanged: their progress goes on" in said
    assert "changed, progress starts anew: budgets.notes" in said
    assert "new: budgets.payees" in said
    assert "removed: budgets.looks" in said

    assert desk.reload().rules == admin_pb2.RuleChanges(carried=8), "nothing changed"
    desk.edit(("count: crm.note", "count: crm.nothing"))
    assert not desk.reload().HasField("rules")
