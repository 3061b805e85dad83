"""`authz approval`: lists, shows, and answers for the user who runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from authz.cli import main
from authz.cli.render import Terminal
from authz_client.v1 import approvals_pb2
from tests.support.approval_site import Site
from tests.support.approvals import open_approval
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPROVED = approvals_pb2.APPROVAL_STATUS_APPROVED
REJECTED = approvals_pb2.APPROVAL_STATUS_REJECTED
ID = f"{'a1' * 16}-1"
OTHER = f"{'b2' * 16}-3"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A node with two open approvals."""
    site = Site(tmp_path)
    site.store.put(approval(ID, operation="crm.delete", subject="corp/bob"))
    site.store.put(approval(OTHER, operation="mail.send"))
    yield site
    site.close()


def approval(approval_id: str, **more: Any) -> approvals_pb2.Approval:
    """An approval that the user may answer."""
    made = open_approval(approval_id, answerable=True, **more)
    made.agents.append("spiffe://corp.example/bot")
    made.reject_reasons.update({"not_needed": "It is not needed.", "wrong": "It is wrong."})
    return made


@pytest.fixture
def run(site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command; with `typed`, on a terminal at which that is typed."""

    def run(*words: str, typed: str | None = None) -> tuple[int, str, str]:
        if typed is not None:
            lines = iter(typed.splitlines())
            monkeypatch.setattr("typer.confirm", lambda *_, **__: next(lines) == "y")
            monkeypatch.setattr("typer.prompt", lambda *_, **__: next(lines))
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: typed is not None))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["approval", *words, "--admin", f"unix:{site.path}"])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def card_digest(run: Any, *words: str) -> str:
    """The digest of the card of the first approval, as JSON says it."""
    _, out, _ = run("show", ID, *words, "--format", "json")
    digest: str = json.loads(out)["card_digest"]
    return digest


def test_open_approvals_are_listed(run: Any) -> None:
    """By queue, as a table or as JSON."""
    code, out, _ = run("list")
    assert code == 0
    for word in (ID, OTHER, "crm.delete", "corp/bob", "spiffe://corp.example/bot", "approve"):
        assert word in out
    assert out.count("may answer") == 2
    _, out, _ = run("list", "--format", "json")
    listed = json.loads(out)["approvals"]
    assert [one["id"] for one in listed] == [ID, OTHER]
    assert listed[0]["arguments"] == {"id": "42"}
    assert listed[0]["digest"] == "01" * 32
    assert listed[0]["status"] == "open"
    assert listed[0]["answerable"] is True
    assert run("list", "--queue", "confirm")[1] == "No call waits for a person.\n"
    assert len(json.loads(run("list", "--most", "1", "--format", "json")[1])["approvals"]) == 1


def test_the_list_says_what_the_user_may_answer(site: Site, run: Any) -> None:
    """Nothing for a user without a person."""
    site.store.put(approval(ID, needs_passkey=True))
    changed = approval(OTHER)
    changed.answerable = False
    site.store.put(changed)
    out = run("list")[1]
    assert "by passkey" in out
    assert "may answer" not in out

    site.users = lambda: frozenset({4711})
    assert "by passkey" not in run("list")[1]


def test_a_card_is_shown_and_its_clock_starts(site: Site, run: Any) -> None:
    """Also by the start of the id. The digest of the text is that of the JSON."""
    code, out, _ = run("show", ID[:6])
    assert code == 0
    assert "crm.delete" in out
    assert "42" in out
    _, whole, _ = run("show", ID, "--whole")
    assert card_digest(run) in whole
    assert ("corp/alice", ID) in site.store.shown_to


@pytest.mark.parametrize(
    ("start", "words"), [("c", "no open approval begins"), ("", "several open")]
)
def test_a_start_that_names_no_approval_or_several_is_refused(
    run: Any, start: str, words: str
) -> None:
    """No approval is guessed."""
    code, _, err = run("show", start)
    assert code == 1
    assert words in err


def test_y_approves_what_the_card_shows(site: Site, run: Any) -> None:
    """The answer has the digests of the call and of the card, and is the person's."""
    code, out, _ = run("approve", ID, "--comment", "ok", "--queue", "approve", typed="y")

    assert code == 0
    assert "crm.delete" in out
    assert out.endswith(f"{ID} is approved\n")
    (answer,) = site.store.answers
    assert (answer.status, answer.digest, answer.queue) == (APPROVED, b"\1" * 32, "approve")
    assert answer.card_digest.hex() == card_digest(run)
    assert answer.comment == "ok"
    assert site.store.answered_by[0].name == "corp/alice"


def test_values_are_endorsed_only_where_that_is_asked_for(site: Site, run: Any) -> None:
    """`--endorse` needs an approval that offers it."""
    code, _, err = run("approve", ID, "--endorse", typed="y")
    assert code == 1
    assert "let nobody endorse its values" in err
    offer = approvals_pb2.ApprovalEndorsement(operations=["crm.delete"], uses=2, within_seconds=60)
    offer.values.add(role="target", collection="customers", value="42")
    offered = approval(ID, operation="crm.delete")
    offered.endorses.CopyFrom(offer)
    site.store.put(offered)
    code, out, _ = run("approve", ID, "--endorse", typed="y")
    assert code == 0
    assert "What you may endorse" in out
    (answer,) = site.store.answers
    assert (answer.status, answer.endorse) == (APPROVED, True)


@pytest.mark.parametrize("typed", ["n", ""])
def test_anything_else_answers_nothing(site: Site, run: Any, typed: str) -> None:
    """The default is no."""
    code, _, err = run("approve", ID, typed=f"{typed}\n")
    assert (code, site.store.answers) == (1, [])
    assert "the approval was not answered" in err


def test_a_program_approves_only_the_card_that_was_seen(site: Site, run: Any) -> None:
    """By its digest; a call that changed meanwhile is another one."""
    for words, message in (
        ((), "the command cannot ask without a terminal"),
        (("--yes",), "--yes needs --digest"),
        (("--yes", "--digest", "abc"), "--digest is the SHA-256"),
        (("--yes", "--digest", "ab" * 32), "the call or its card is another one"),
    ):
        code, _, err = run("approve", ID, *words)
        assert code == 1
        assert message in err
    assert site.store.answers == []

    seen = card_digest(run)
    code, out, _ = run("approve", ID, "--yes", "--digest", seen, "--format", "json")

    assert code == 0
    assert json.loads(out)["status"] == "approved"


def test_a_card_that_leaves_something_out_does_not_suffice(site: Site, run: Any) -> None:
    """Its digest says so, and the whole card is shown before the question."""
    text = "x" * 5000
    site.store.put(approval(ID, arguments_json=json.dumps({"text": f"{text}END"}).encode()))
    brief = re.findall(r"[0-9a-f]{64}", run("show", ID)[1])[-1]

    code, _, err = run("approve", ID, "--yes", "--digest", brief)
    assert code == 1
    assert "bytes of the call are not on the card" in err
    assert site.store.answers == []

    assert run("approve", ID, typed="y")[0] == 0
    assert site.store.answers[0].card_digest.hex() == card_digest(run) != brief


def test_a_rejection_has_a_reason_of_the_bundle(site: Site, run: Any) -> None:
    """Which is asked for on a terminal."""
    for words, message in (
        (("--yes",), "give --reason, one of these (the agent may see it): not_needed, wrong"),
        (("--reason", "other"), "the bundle has no such reason. It has: not_needed, wrong"),
    ):
        code, _, err = run("reject", ID, *words)
        assert code == 1
        assert message in err
    assert site.store.answers == []

    assert run("reject", ID, typed="not_needed\ny")[0] == 0
    assert run("reject", OTHER, "--reason", "wrong", "--yes")[0] == 0

    assert [(one.status, one.reject_reason) for one in site.store.answers] == [
        (REJECTED, "not_needed"),
        (REJECTED, "wrong"),
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"answerable": False},
            "`approvals.people` does not map your user to a person who may answer",
        ),
        ({"needs_passkey": True}, "it needs a passkey, so answer it at the approvals page"),
        ({"status": APPROVED}, "does not wait for an answer: it is approved"),
        ({"cannot_be_shown": "too long"}, "you can only reject it: too long"),
    ],
)
def test_what_cannot_be_approved_here_says_why(
    site: Site, run: Any, more: dict[str, Any], message: str
) -> None:
    """Before the question."""
    changed = approval(ID)
    for name, value in more.items():
        setattr(changed, name, value)
    site.store.put(changed)

    code, _, err = run("approve", ID, typed="y")

    assert code == 1
    assert message in re.sub(r"\s+", " ", err)
    assert site.store.answers == []


def test_what_the_agent_wrote_controls_no_terminal(site: Site, run: Any) -> None:
    """Neither in the table nor on the card."""
    site.store.put(
        approval(ID, resource="a\x1b[2Jb", arguments_json=b'{"id":"\\u001b[31m\\u202e"}')
    )

    for words in (("list",), ("show", ID), ("show", ID, "--whole")):
        out = run(*words)[1]
        assert "\x1b" not in out
        assert "\u202e" not in out


def test_two_people_are_told_that_another_is_needed(site: Site, run: Any) -> None:
    """The first answer leaves the approval open."""
    site.store.needs = 2
    out = run("approve", ID, typed="y")[1]
    assert out.endswith(f"{ID} is open\nIt still waits for approve.\n")


def test_a_card_of_the_command_says_what_it_was_not_compared_with(site: Site, run: Any) -> None:
    """The command has no bundle: neither recipient lists nor units of amounts."""
    made = approval(ID, operation="bank.pay")
    out = run("show", ID)[1]
    assert "Not compared" in out
    assert "Recipient lists" in out
    assert "Units of amounts" not in out
    made.objects.add(role="amount", pointer="/amount", value_json="5")
    site.store.put(made)
    assert "Units of amounts" in run("show", ID)[1]


def watching(site: Site, *words: str) -> subprocess.Popen[str]:
    """A process of `authz approval watch`."""
    command = [sys.executable, "-m", "authz", "approval", "watch", *words]
    return subprocess.Popen(
        [*command, "--admin", f"unix:{site.path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_changes_are_printed_as_they_come(site: Site, number: signal.Signals) -> None:
    """Each at once, in a process of its own that one signal ends without an error."""
    with watching(site, "--format", "json") as process:
        assert process.stdout is not None
        first = [json.loads(process.stdout.readline()) for _ in range(2)]
        site.store.set_status(OTHER, REJECTED)
        change = json.loads(process.stdout.readline())
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")
    assert {one["id"] for one in first} == {ID, OTHER}
    assert (change["id"], change["status"]) == (OTHER, "rejected")
    eventually(lambda: len(site.streams) == 0)


def test_a_signal_during_a_finalizer_ends_a_watch(
    site: Site, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python drops an exception there, so a handler that raises would be without effect."""
    del site

    class Freed:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def print_and_free(_: Terminal, __: object) -> None:
        Freed()

    monkeypatch.setattr(Terminal, "json_line", print_and_free)
    assert run("watch", "--format", "json") == (0, "", "")


def test_a_node_that_stops_ends_a_watch_with_an_error(site: Site) -> None:
    """A program that reads the changes learns that it must begin again."""
    with watching(site) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        site.close()
        err = process.communicate(timeout=20)[1]
    assert process.returncode == 1
    # The node may end the stream, or the connection, first.
    assert "the server stops" in err or "cannot be reached" in err
