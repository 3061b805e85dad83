"""`authz can`: who can do what, as the kernel answers it."""

import io
import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
from rich.console import Console

from authz.bundle import read_folder
from authz.cli import main
from authz.cli.render import Terminal
from authz.cli.render.can import print_can
from authz.engine import Plan
from authz.errors import BundleError
from tests.support.cases import VARIABLES

ROOT: Final = Path(__file__).parents[2]
QUICKSTART: Final = ROOT / "examples" / "quickstart" / "bundle"
MAIL: Final = ROOT / "bench" / "detection" / "mail" / "bundle"
NOW: Final = 1_800_000_000_000


def table(folder: Path, **query: Any) -> dict[str, Any]:
    """Ask who can do what."""
    plan = Plan.compile(read_folder(folder), {"trust_domain": "dev.example"})
    return plan.can(query, NOW)


def row(chain: dict[str, Any], operation: str) -> dict[str, Any]:
    """Return the row of an operation."""
    found: dict[str, Any] = next(r for r in chain["rows"] if r["operation"] == operation)
    return found


def test_a_forbid_that_always_fires_denies_and_is_named() -> None:
    """Customers are never deleted; tickets may be, unless mail was read before."""
    chain = table(QUICKSTART, agents=["support-agent"], subject_roles=["staff"])["chains"][0]
    delete = row(chain, "crm.delete")
    assert (delete["outcome"], delete["reason_code"]) == ("DENY", "FORBIDDEN")
    (rule,) = delete["rules"]
    assert (rule["kind"], rule["name"]) == ("policy", "only-tickets-are-deleted")
    assert (QUICKSTART / rule["file"]).read_text().splitlines()[rule["line"] - 1] == (
        '@id("only-tickets-are-deleted")'
    )
    ticket = row(chain, "crm.delete_ticket")
    assert ticket["outcome"] == "PERMIT"
    assert ticket["proofs"] == ["bound_token"]
    assert [one["rule"]["name"] for one in ticket["conditions"]] == ["no-delete-after-mail"]


def test_conditions_are_those_that_the_operation_can_meet() -> None:
    """A read has no destination, so no rule over recipients is listed for it."""
    chain = table(QUICKSTART, agents=["support-agent"], subject_roles=["staff"])["chains"][0]
    assert row(chain, "crm.search")["conditions"] == []
    send = row(chain, "gmail.send_email")
    assert {one["rule"]["name"]: one["step_up_kind"] for one in send["conditions"]} == {
        "ask-before-mail-leaves": "approve",
        "named-recipients-only": "confirm",
        "no-customer-data-out": "approve",
    }
    (budget,) = row(chain, "crm.get")["conditions"]
    assert (budget["rule"]["kind"], budget["rule"]["name"]) == ("budget", "customers")
    assert budget["rule"]["line"] > 0


def test_a_stranger_can_do_nothing_and_the_answer_says_why() -> None:
    """An agent without a role has no task, and a person without a role lends it nothing."""
    stranger = "spiffe://dev.example/ns/billing/sa/bot"
    chain = table(QUICKSTART, agents=[stranger], subject_roles=["staff"])["chains"][0]
    assert {r["outcome"] for r in chain["rows"]} == {"DENY"}
    guest = {"issuer": "corp", "sub": "guest", "claims": {"groups": ["visitors"]}}
    chain = table(QUICKSTART, agents=["support-agent"], subjects=[guest])["chains"][0]
    search = row(chain, "crm.search")
    assert (search["outcome"], search["reason_code"]) == ("DENY", "CHAIN_NOT_PERMITTED")
    assert [rule["kind"] for rule in search["rules"]] == ["default_deny"]


def test_who_starts_tasks_is_a_row_of_the_person() -> None:
    """A person starts tasks of the template; the row has the policy that lets it."""
    chain = next(c for c in table(MAIL)["chains"] if c["agent"] is None)
    start = row(chain, "task:mail")
    assert start["outcome"] == "PERMIT"
    assert [rule["name"] for rule in start["rules"]] == ["employee-starts"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"agents": ["suport-agent"]}, "Did you mean `support-agent`?"),
        ({"subject_roles": ["stafff"]}, "Did you mean `staff`?"),
        ({"template": "desc"}, "Did you mean `desk`?"),
    ],
)
def test_an_unknown_name_is_refused_with_a_guess(query: dict[str, Any], words: str) -> None:
    """The message says what was probably meant."""
    with pytest.raises(BundleError) as refused:
        table(QUICKSTART, **query)
    assert words in str(refused.value.diagnostics[0])


def test_every_denial_and_step_up_names_a_rule() -> None:
    """In all bundles of the cases, for every pair of roles."""
    counted = 0
    for folder in sorted((ROOT / "tests" / "cases" / "bundles").iterdir()):
        plan = Plan.compile(read_folder(folder), VARIABLES)
        for chain in plan.can({}, NOW)["chains"]:
            for one in chain["rows"]:
                if one["outcome"] != "PERMIT":
                    counted += 1
                    assert one["rules"], (folder.name, one)
    assert counted > 100


def test_json_and_html_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Both hold each operation; the page loads nothing and has no script."""
    words = ["can", str(QUICKSTART), "--var", "trust_domain=dev.example"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--format", "json", "--operation", "crm"])
    assert ended.value.code == 0
    chains = json.loads(capsys.readouterr().out)["chains"]
    assert {r["system"] for chain in chains for r in chain["rows"]} == {"crm"}
    with pytest.raises(SystemExit):
        main([*words, "--format", "html"])
    page = capsys.readouterr().out
    tags = set(re.findall(r"<([a-z0-9]+)", page))
    assert "td" in tags
    assert not tags & {"script", "link", "img", "iframe", "a"}
    assert "gmail.send_email" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_table_fits_80_columns() -> None:
    """No line is longer, and no operation is cut."""
    terminal = Terminal()
    terminal.out = Console(width=80, record=True, file=io.StringIO())
    answer = table(QUICKSTART)
    print_can(terminal, answer)
    text = terminal.out.export_text()
    assert all(len(line) <= 80 for line in text.splitlines() if "│" in line)
    for one in answer["chains"][0]["rows"]:
        assert one["operation"] in text


def test_a_caller_without_a_task_is_remembered_where_tasks_are_optional(tmp_path: Path) -> None:
    """The first bundle has labels and optional tasks; its history is not known, and refuses nothing."""
    with pytest.raises(SystemExit, match="0"):
        main(["init", "--enforce", str(tmp_path / "first")])
    for chain in table(tmp_path / "first")["chains"]:
        told = {r["operation"]: (r["outcome"], r["reason_code"]) for r in chain["rows"]}
        assert "STATE_UNAVAILABLE" not in {reason for _, reason in told.values()}
        assert told["crm.search"] == ("PERMIT", "PERMITTED")
        assert told["crm.delete"] == ("STEP_UP", "APPROVAL_REQUIRED")
        send = row(chain, "mail.send")
        assert {one["rule"]["name"]: one["outcome"] for one in send["conditions"]} == {
            "ask-before-mail-leaves": "STEP_UP",
            "customer-data-stays": "DENY",
        }


@pytest.mark.parametrize(
    "agent", ["support-agent", "spiffe://dev.example/ns/support/sa/bot"], ids=["role", "id"]
)
def test_an_agent_that_needs_a_subject_never_acts_alone(agent: str, tmp_path: Path) -> None:
    """Named by its role, or by its id."""
    with pytest.raises(SystemExit, match="0"):
        main(["init", "--enforce", str(tmp_path / "first")])
    people = tmp_path / "first" / "people.yaml"
    open_rule = 'support-agent: ["spiffe://${trust_domain}/ns/support/sa/*"]'
    strict = (
        'support-agent: {match: ["spiffe://${trust_domain}/ns/support/sa/*"], subject: required}'
    )
    assert open_rule in people.read_text()
    people.write_text(people.read_text().replace(open_rule, strict))
    chains = table(tmp_path / "first", agents=[agent])["chains"]
    assert chains
    assert all(chain["subject"] for chain in chains)
