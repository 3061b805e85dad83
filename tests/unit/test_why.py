"""`authz why`: one decision, and what many have in common."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from authz.audit import RecordedDecision, Span, decisions
from authz.audit.decision import read_decision
from authz.bundle import read_folder
from authz.cli import main
from authz.engine import BundleDescription, Plan, reason_table
from authz.model import BundleFiles
from authz.testing import Kernel, Subject
from authz.tools.why import Groups, changed_policies, explain
from authz.tools.why.groups import MOST
from tests.support.records import BOT, agent, lines, record, user, write
from tests.support.waiting import eventually

BUNDLES = Path(__file__).parents[1] / "cases" / "bundles"
DESK = BUNDLES / "desk"
VARIABLES = {"trust_domain": "trust-domain.example"}
ID = "01930001-0000-7000-8000-000000000000"


def run(*arguments: str | Path) -> int:
    """Run the command and give its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture(scope="module")
def plan() -> Plan:
    """The bundle of the cases."""
    return Plan.compile(read_folder(DESK), VARIABLES)


def told(said: dict[str, Any], plan: Plan | None) -> dict[str, Any]:
    """What is said of a record."""
    if plan is None:
        return explain(read_decision(said)).document()
    return explain(read_decision(said), plan.describe(), plan.digest).document()


@pytest.mark.parametrize("name", ["desk", "tiers", "confirm", "tracker"])
def test_policies_stand_where_the_engine_says(name: str) -> None:
    """By `@id`: the first line of each, its effect and reason."""
    plan = Plan.compile(read_folder(BUNDLES / name), VARIABLES)
    policies = plan.describe().policies
    assert len(policies) == plan.policy_count
    seen = set()
    for operation in (
        "crm.get",
        "mail.send",
        "wiki.read",
        "doc.read",
        "tracker.get_issue",
        "a.read",
    ):
        request = {"as": {"agent": BOT}, "call": operation, "input": {"id": "1"}}
        for judged in plan.eval(request, 1)["trace"]:
            policy = policies[judged["policy_id"]]
            seen.add(policy.id)
            assert (policy.file, policy.line) == (judged["file"], judged["line"])
            assert (policy.effect, policy.reason) == (judged["effect"], judged["reason"])
    assert seen or name in {"tiers", "confirm", "tracker"}


def described(cedar: str) -> BundleDescription:
    """A bundle of two systems with these policies."""
    facts = b"""
catalog:
  crm: {kind: http, operations: {get: {}, search: {}}}
  mail: {kind: http, operations: {send: {}}}
classify:
  - {match: "crm.*", effects: [read]}
  - {match: mail.send, effects: [write]}
agents:
  staff: [spiffe://corp.example/a]
"""
    files = {
        "bundle.yaml": b"name: t\n",
        "facts.yaml": facts,
        "policies/p.cedar": cedar.encode(),
    }
    return Plan.compile(BundleFiles("", files), {}).describe()


def test_what_is_no_policy_does_not_mislead() -> None:
    """Semicolons in texts and comments, escapes, and groups of actions."""
    policies = described("""// @id("none") permit(principal, action, resource);
@id("a:b") @reason("one \\"two\\"; thr\\u{65}e forbid(")
permit(principal in Role::"staff", action in [Action::"crm.get", Action::"system:mail"], resource)
when { context.tier < 2 }; @id("c")
forbid(principal, action in Action::"effect:read", resource);""")
    assert [
        (one.id, one.line, one.effect, one.conditional) for one in policies.policies.values()
    ] == [
        ("a:b", 2, "permit", True),
        ("c", 4, "forbid", False),
    ]
    one = policies.policies["a:b"]
    assert one.reason == 'one "two"; three forbid('
    assert one.principal.text == 'principal in Role::"staff"'
    assert one.principal.ids("Role") == {"staff"}
    assert [policy.id for policy in policies.policies_about("mail.send")] == ["a:b"]
    assert [policy.id for policy in policies.policies_about("crm.get")] == ["a:b", "c"]
    assert [policy.id for policy in policies.policies_about("crm.search")] == ["c"]


def test_layout_and_comments_change_no_policy() -> None:
    """Reason and condition do."""
    head = '@id("a") @reason("r") permit(principal, action, resource) '
    before = described(head + "when { context.tier < 2 };").policies
    same = described("// new\n" + head + "\n  when\n{ context.tier // low\n < 2 };").policies
    other = described(head + "when { context.tier < 1 };").policies
    reason = described(head.replace('"r"', '"s"') + "when { context.tier < 2 };").policies
    assert changed_policies(before, same)["changed"] == []
    assert changed_policies(before, other)["changed"] == ["a"]
    assert changed_policies(before, reason)["changed"] == ["a"]


def test_of_an_unpermitted_operation_the_closest_permits_are_told(plan: Plan) -> None:
    """Those for the principal's own roles first, with what they lack; only for whom no permit fired."""
    chain = [user("corp/bob", "staff"), agent("spiffe://x.example/y", "partner-agent")]
    said = told(
        record(
            1,
            "NOT_PERMITTED",
            operation="crm.update",
            chain=chain,
            without_permit=[{"kind": "Agent", "id": "spiffe://x.example/y"}],
            arguments={"id": "sha256:ab", "note": "sha256:cd"},
        ),
        plan,
    )

    permits = {one["id"]: one["lacks"] for one in said["closest_permits"]}
    assert permits == {
        "staff-may": "it is for staff; the principal holds partner-agent",
        "support-agents-may": "it is for support-agent; the principal holds partner-agent",
    }
    assert {one["principal"] for one in said["closest_permits"]} == {
        'Agent::"spiffe://x.example/y"'
    }
    assert said["would_permit"][0] == (
        'a permit for Agent::"spiffe://x.example/y" on Action::"crm.update", for Role::"partner-agent", which it holds'
    )
    assert said["same_bundle"] is False


def test_a_forbid_whose_reason_speaks_of_permits_is_no_permit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only Cedar says what a policy is: a regular expression found `permit (` in the annotation."""
    folder = tmp_path / "bundle"
    shutil.copytree(DESK, folder)
    (folder / "policies" / "no-refunds.cedar").write_text(
        '@id("no-refunds")\n'
        '@reason("managers permit (and log) refunds; bots may not")\n'
        'forbid(principal in Role::"partner-agent", action == Action::"crm.update", resource)\n'
        "when { context.tier > 2 };\n"
    )
    chain = [agent("spiffe://x.example/y", "partner-agent")]
    said = record(1, "NOT_PERMITTED", operation="crm.update", chain=chain)
    log = write(tmp_path / "audit.jsonl", [said])
    variable = f"trust_domain={VARIABLES['trust_domain']}"
    identifier = str(said["decision_id"])
    assert (
        run("why", identifier, "--log", log, "-b", folder, "--var", variable, "--format", "json")
        == 0
    )
    closest = json.loads(capsys.readouterr().out)["closest_permits"]
    assert {permit["id"] for permit in closest} == {"staff-may", "support-agents-may"}


def test_the_record_names_the_principals_without_a_permit() -> None:
    """An id with a quote is not escaped, as it is not in the chain."""
    with Kernel.load(DESK, variables=VARIABLES) as kernel:
        odd = Subject('o"dd', claims={"groups": ["nobody"]})
        kernel.act(BOT, odd).denies("crm.get", {"id": "7"}, code="CHAIN_NOT_PERMITTED")
        kernel.act("spiffe://x.example/y").denies("crm.get", {"id": "7"}, code="NOT_PERMITTED")
        kernel.act(BOT, odd).denies("crm.get", {"nonsense": 1}, code="BAD_INPUT")
        log = kernel._folder / "audit.jsonl"

        def recorded() -> list[RecordedDecision]:
            return list(decisions([log], None, Span(), lambda _: None))

        eventually(lambda: len(recorded()) == 3)
        chained, stranger, bad = recorded()
    assert chained.without_permit == (("User", 'corp/o"dd'),)
    assert [link.id for link in chained.unpermitted] == ['corp/o"dd']
    assert stranger.without_permit == (("Agent", "spiffe://x.example/y"),)
    assert bad.without_permit == ()
    assert bad.unpermitted == bad.chain


def test_a_forbid_is_shown_where_the_bundle_is_the_one_that_judged(plan: Plan) -> None:
    """With file and line of the record, and the text of the bundle."""
    forbidden = record(
        1,
        "FORBIDDEN",
        operation="crm.delete",
        policies=["no-secret-deletes"],
        policies_at=["policies/desk.cedar:31"],
    )
    other = explain(read_decision(forbidden), plan.describe(), plan.digest)
    assert (other.same_bundle, other.source) == (False, "")
    forbidden["bundles"]["desk"]["digest"] = plan.digest
    same = explain(read_decision(forbidden), plan.describe(), plan.digest)
    assert same.same_bundle is True
    assert 'action == Action::"crm.delete"' in same.source
    assert same.policies == (
        ("no-secret-deletes", "policies/desk.cedar:31", "customers under embargo stay"),
    )


@pytest.mark.parametrize("row", reason_table(), ids=lambda row: str(row["name"]))
def test_every_code_has_a_meaning_and_a_page(row: dict[str, Any]) -> None:
    """The page has a heading for it, and a refusal says what would help."""
    said = told(record(1, row["name"], operation="crm.get", outcome="DENY"), None)
    page = (Path(__file__).parents[2] / "docs/reference/reason-codes.md").read_text()

    assert said["meaning"] == row["title"]
    assert f"\n## {row['name']}\n" in page
    assert said["page"].endswith(f"#{row['name'].lower()}")
    assert said["would_permit"]


def test_a_record_of_another_version_is_read_as_far_as_it_goes() -> None:
    """Neither a missing member nor one of another type stops it."""
    for fields in (
        {},
        {"input": 7, "result": []},
        {"result": {"policies": {"a": 1}, "message": 3}},
    ):
        assert explain(read_decision(fields)).document()["outcome"] == ""
    named = read_decision(
        {"input": {"enforcer": {"name": "mesh", "peer": "spiffe://a.example/envoy"}}}
    )
    assert named.enforcer == "mesh"


def test_a_permit_by_an_endorsed_value_names_the_approval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that a reader of the audit finds the person who endorsed the value."""
    permit = record(1, "PERMITTED", operation="mail.send")
    endorsed = {"approval_id": "a1-1", "role": "recipient", "collection": "email"}
    permit["result"]["approval"] = {"id": "a1-1", "event": "relied", "endorsed": [endorsed, 7]}
    log = write(tmp_path / "audit", [permit])

    assert run("why", ID, "--log", log) == 0
    assert "named, endorsed by approval a1-1" in " ".join(capsys.readouterr().out.split())


def test_the_last_record_of_a_decision_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An earlier one with another outcome was not answered."""
    later = record(1, "AUDIT_FULL", step="record")
    later["result"]["instead_of"] = "PERMIT"
    log = write(tmp_path / "audit", [record(1, "PERMITTED"), later])

    assert run("why", ID, "--log", log) == 0
    assert "DENY  AUDIT_FULL" in capsys.readouterr().out


def test_decisions_are_grouped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By code, operation, policies, agent and revision; with what changed between revisions."""
    records = [
        *(
            record(n, "FORBIDDEN", operation="crm.delete", policies=["old"], at=n)
            for n in (1, 2, 3)
        ),
        record(4, "NOT_PERMITTED", operation="crm.get", enforced=True),
        record(5, "PERMITTED", operation="crm.get", revision="r2"),
        record(6, "FORBIDDEN", operation="crm.delete", policies=["new"], revision="r2"),
        record(7, "FORBIDDEN", operation="crm.delete", policies=["new"], mode="PROBE"),
    ]
    log = write(tmp_path / "audit", records)
    assert run("why", "--log", log, "--format", "json") == 0
    said = json.loads(capsys.readouterr().out)

    assert [
        (one["times"], one["observed"], one["reason_code"], one["policies"], one["revision"])
        for one in said["groups"]
    ] == [
        (3, 3, "FORBIDDEN", ["old"], "r1"),
        (1, 1, "FORBIDDEN", ["new"], "r2"),
        (1, 0, "NOT_PERMITTED", [], "r1"),
    ]
    first = said["groups"][0]
    assert (first["first"], first["last"]) == (
        "2026-11-25T10:00:01.000Z",
        "2026-11-25T10:00:03.000Z",
    )
    later = said["revisions"][1]
    assert (later["new_policies"], later["gone_policies"]) == (["new"], ["old"])
    assert later["gone_reason_codes"] == ["NOT_PERMITTED"]
    assert (later["permitted"], later["refused"]) == (1, 1)


@pytest.mark.parametrize(
    ("filters", "times"),
    [
        ((), 4),
        (("--observed",), 3),
        (("--code", "NO_ROUTE"), 1),
        (("--operation", "crm.*"), 2),
        (("--agent", "spiffe://x.example/*"), 1),
        (("--since", "2026-11-25T10:00:02Z", "--until", "2026-11-25T10:00:04Z"), 2),
    ],
)
def test_filters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], filters: tuple[str, ...], times: int
) -> None:
    """Each alone."""
    log = write(
        tmp_path / "audit",
        [
            record(1, "NOT_PERMITTED", operation="crm.get"),
            record(2, "NOT_PERMITTED", operation="crm.delete", enforced=True),
            record(3, "NO_ROUTE", asked={"method": "GET", "host": "x", "path": "/a"}),
            record(
                4, "NOT_PERMITTED", operation="mail.send", chain=[agent("spiffe://x.example/b")]
            ),
        ],
    )
    assert run("why", "--log", log, "--format", "json", *filters) == 0
    assert sum(one["times"] for one in json.loads(capsys.readouterr().out)["groups"]) == times


def test_bundles_are_compared_by_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Policies that were added, removed and changed; wrapping is no change."""
    shutil.copytree(DESK, tmp_path / "new")
    file = tmp_path / "new" / "policies" / "desk.cedar"
    text = file.read_text()
    text = text.replace('@id("reports-read")', '@id("reports-look")')
    text = text.replace(
        'principal, action == Action::"crm.delete"', 'principal, action in [Action::"crm.delete"]'
    )
    file.write_text(text.replace("permit(\n  principal", "permit(principal"))
    facts = tmp_path / "new" / "facts.yaml"
    facts.write_text(facts.read_text().replace("purge", "wipe"))
    log = write(tmp_path / "audit", [record(1, "NOT_PERMITTED", operation="crm.get")])

    assert run("why", "--log", log, "-b", DESK, "-b", tmp_path / "new", "--format", "json") == 0
    (change,) = json.loads(capsys.readouterr().out)["bundles"]
    assert change["policies"] == {
        "added": ["reports-look"],
        "removed": ["reports-read"],
        "changed": ["no-secret-deletes"],
    }
    assert change["operations"] == {"added": ["mail.wipe"], "removed": ["mail.purge"]}
    assert change["agents"] == {"added": [], "removed": []}
    assert changed_policies({}, {}) == {"added": [], "removed": [], "changed": []}


def test_however_many_kinds_there_are_some_are_kept() -> None:
    """And the others are counted."""
    groups = Groups()
    for number in range(MOST + 5):
        groups.add(read_decision(record(number % 50, "NOT_PERMITTED", operation=f"s.op{number}")))
    assert (len(groups.groups), groups.left_out, groups.decisions) == (MOST, 5, MOST + 5)


def test_no_record_writes_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escapes, line breaks and half characters of a record stay out of it."""
    evil = "x\x1b[2J\u202ey\n  policy: forged (a:1)\ud800<script>alert(1)</script>"
    said = record(
        1,
        "NOT_PERMITTED",
        operation=evil,
        message=evil,
        tier=evil,
        resource=evil,
        policies=[evil],
        policies_at=[evil],
        chain=[agent(evil, evil)],
        arguments={evil: evil},
        step_up_kinds=[evil],
    )
    log = tmp_path / "audit"
    log.write_text(lines([said]))
    for arguments in (("why", ID), ("why",)):
        for style in ("text", "json"):
            assert run(*arguments, "--log", log, "-b", DESK, "--format", style) == 0
    out = capsys.readouterr().out
    assert not {"\x1b", "\u202e", "\ud800"} & set(out)
    assert "\n  policy: forged" not in out
    for arguments in (("why", ID), ("why",)):
        assert run(*arguments, "--log", log, "-b", DESK, "--format", "html") == 0
    out = capsys.readouterr().out
    assert not {"\x1b", "\u202e", "\ud800"} & set(out)
    assert "<script" not in out.lower()
    assert "&lt;script&gt;" in out


def test_a_page_to_send_tells_of_one_decision(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One file that loads nothing: code, operation, caller and what would permit it."""
    log = write(tmp_path / "audit", [record(1, "NOT_PERMITTED", operation="crm.get")])
    assert run("why", ID, "--log", log, "-b", DESK, "--format", "html") == 0
    page = capsys.readouterr().out
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    for part in ("NOT_PERMITTED", "crm.get", ID):
        assert part in page
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//|@import|url\(", page)


def test_a_page_to_send_lists_what_observing_let_through(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report of the calls that would be refused, with the times of each kind."""
    records = [record(n, "FORBIDDEN", operation="crm.delete", policies=["old"]) for n in (1, 2)]
    log = write(tmp_path / "audit", [*records, record(3, "NO_ROUTE", enforced=True)])
    assert run("why", "--observed", "--log", log, "-b", DESK, "--format", "html") == 0
    page = capsys.readouterr().out
    assert "crm.delete" in page
    assert "old" in page
    assert "NO_ROUTE" not in page


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nope", "--log", "LOG"), "no record of nope in"),
        (("--log", "LOG", "--code", "FORBIDEN"), "did you mean FORBIDDEN?"),
        (("--log", "LOG", "--format", "xml"), "is not one of"),
        (("--log", "/nowhere"), "cannot be read"),
        (("--admin", "unix:///nowhere.sock"), "cannot be reached"),
    ],
)
def test_wrong_use(
    tmp_path: Path, arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Says what is wrong."""
    log = write(tmp_path / "audit", [record(1, "NO_ROUTE")])
    assert run("why", *(str(log) if one == "LOG" else one for one in arguments)) == 1
    assert says in capsys.readouterr().err
