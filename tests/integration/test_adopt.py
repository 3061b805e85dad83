"""From traffic that a server only observes to a change of its bundle: what the audit of a real server holds is enough."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import yaml

from authz.cli import main
from authz.tools.remote import Remote
from tests.support.people import IDLE, People, check, envoy_search
from tests.support.server import Server, layout
from tests.support.surfaces import decision_of, lanes
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.minting import Authority


def run(*arguments: str | Path) -> int:
    """Run the command and give its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def observed_node(tmp_path: Path, authority: Authority) -> Iterator[tuple[Server, str]]:
    """A running server, and the id of a decision that it only observes."""
    place = layout(tmp_path, authority, "desk")
    until = (datetime.now(UTC) + timedelta(days=30)).date()
    (tmp_path / "bundle" / "mode.yaml").write_text(
        f"mode: {{default: observe, owner: sec@corp.example, until: {until}}}\n"
    )
    request = check("crm.get", b'{"id": "7"}', agent=People.of(authority).idle)
    with Server(place) as server:
        answer = lanes(server)[0].ask("main", request.SerializeToString())
        decision = decision_of(answer)
        eventually(lambda: decision.decision_id in place.audit.read_text())
        yield server, decision.decision_id


@pytest.fixture
def observed(tmp_path: Path, authority: Authority) -> Server:
    """A server that has let through what its bundle does not know."""
    people = People.of(authority)
    place = layout(tmp_path, authority, "desk")
    until = (datetime.now(UTC) + timedelta(days=30)).date()
    (tmp_path / "bundle" / "mode.yaml").write_text(
        f"mode: {{default: observe, owner: sec@corp.example, until: {until}}}\n"
    )
    unknown = check("jira.delete_issue", b'{"key": "A-1"}', agent=people.idle)
    unpermitted = check("crm.get", b'{"id": "7"}', agent=people.idle)
    with Server(place) as server:
        for surface in lanes(server):
            if surface.kind == "check":
                for request in (unknown, unpermitted):
                    surface.ask("main", request.SerializeToString())
            else:
                surface.ask("main", envoy_search(people.idle, "/invoices/4711?limit=3"))
                surface.ask("main", envoy_search(None, "/invoices/4712?limit=3"))
    return server


def test_propose_reads_what_a_server_wrote(
    observed: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """What callers without an identity ask for stands in a comment."""
    folder = observed.place.folder / "change"
    assert run("propose", "--since", "1h", "-c", observed.place.file, "-o", folder) == 0
    said = capsys.readouterr()
    assert "refused" not in said.err, "the bundle takes the change as it is"
    text = (folder / "proposed.yaml").read_text()
    facts = yaml.safe_load(text)
    assert facts["agents"] == {"proposed-idle-bot": [IDLE]}
    assert "delete_issue" in facts["catalog"]["jira"]["operations"]
    assert '{method: GET, host: crm.example, path: "/invoices/{id}"' in text
    assert "4711" not in text
    assert "# GET crm.example/invoices/{id}: 2 times" in text
    assert "callers without a verified identity" in text
    assert "#   GET crm.example/invoices/{digits}: 2 times" in text
    policies = (folder / "policies" / "proposed.cedar").read_text()
    assert 'Action::"crm.get"' in policies


def test_templates_are_proposed_from_what_a_server_wrote(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    """Calls of a pair without a task are one session. A session with a denial shapes nothing."""
    people = People.of(authority)
    place = layout(tmp_path, authority, "desk")
    permitted = check("crm.search", b'{"query": "x"}', agent=people.bot, subject=people.alice)
    denied = check("crm.get", b'{"id": "7"}', agent=people.idle, subject=people.alice)
    with Server(place) as server:
        surface = lanes(server)[0]
        for request in (permitted, permitted, denied):
            surface.ask("main", request.SerializeToString())
    few = ("--min-sessions", "1", "--min-subjects", "1")
    assert run("propose", "--templates", "--format", "json", "-c", place.file, *few) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sessions"]["observed"] == 2
    assert document["sessions"]["with_denials"] == {"NOT_PERMITTED": 1}
    (template,) = document["templates"]
    assert template["name"] == "proposed-read-crm"
    assert template["template"]["scope"] == [{"operation": "crm.search"}]
    assert run("propose", "--templates", "-c", place.file, "-o", tmp_path / "change", *few) == 0
    assert "refused" not in capsys.readouterr().err, "the bundle takes the change as it is"
    assert (tmp_path / "change" / "policies" / "proposed-templates.cedar").exists()


def test_why_asks_the_node_where_its_audit_is(
    observed_node: tuple[Server, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """One decision by its id, over the administration socket, with the bundle that serves."""
    server, decision_id = observed_node
    admin = server.place.config["listeners"]["admin"]["address"]
    assert run("why", decision_id, "--admin", admin, "--var", "trust_domain=a.example") == 0
    said = capsys.readouterr().out
    assert said.startswith("DENY  NOT_PERMITTED  (mode: observe let it through)")
    assert "the bundle that is given is not the one" not in said
    assert "support-agents-may (policies/desk.cedar:8)" in said
    assert "the principal holds no role" in said
    assert run("why", "--observed", "--since", "1h", "--admin", admin) == 0
    assert "NOT_PERMITTED" in capsys.readouterr().out


def test_status_tells_what_stands_where(
    observed_node: tuple[Server, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Files, listeners, the audit's queue, what is only observed; and what a reload came to."""
    server, _ = observed_node
    place = server.place
    admin = place.config["listeners"]["admin"]["address"]
    assert run("status", "--admin", admin) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"main {place.config['listeners']['main']['address']}: anybody is an enforcer" in said
    assert f"{place.audit}, written" in said
    assert "records since the start, 0 wait, 0 refused, 0 dropped" in said
    assert "everything else until" in said
    revision = Remote(admin).status().bundle_revision
    (place.folder / "bundle" / "policies" / "more.cedar").write_text("permit(")
    assert run("status", "--admin", admin, "--reload") == 1
    assert f"reload refused; bundle {revision} stays in service" in capsys.readouterr().err
    (place.folder / "bundle" / "policies" / "more.cedar").unlink()
    assert run("status", "--admin", admin, "--reload", "--format", "json") == 0
    assert f"bundle {revision} is in service" in capsys.readouterr().err
