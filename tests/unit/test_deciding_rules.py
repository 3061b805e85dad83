"""Every denial and step-up names the rule that made it, with its place in the bundle."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from authz.bundle import read_folder
from authz.engine import Plan
from authz.errors import BundleError
from tests.support.cases import BUNDLES, CASES, VARIABLES

NOW: Final = 1_800_000_000_000
FILES: Final = sorted(path for path in CASES.glob("*.yaml"))
# Rules that stand in no file: checks of Authz, and requirements that no bundle states.
WITHOUT_PLACE: Final = frozenset({"check", "tier_requirement"})
QUICKSTART: Final = Path(__file__).parents[2] / "examples" / "quickstart" / "bundle"
BOT: Final = "spiffe://dev.example/ns/support/sa/bot"
ALICE: Final = {"issuer": "corp", "sub": "alice", "claims": {"groups": ["employees"]}}


@cache
def plan_of(name: str) -> Plan:
    """Compile a bundle of the cases."""
    return Plan.compile(read_folder(BUNDLES / name), VARIABLES)


def requests(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each call of a case file as a request of `authz eval`, in a task that has just started."""
    agents = document.get("fixtures", {}).get("agents", {})
    subjects = document.get("fixtures", {}).get("subjects", {})

    def caller(said: dict[str, Any]) -> dict[str, Any]:
        who: dict[str, Any] = {}
        if name := said.get("agent"):
            who["agent"] = agents.get(name, name)
        if (name := said.get("subject")) in subjects:
            fixture = subjects[name]
            who["subject"] = {
                "issuer": fixture.get("issuer", "corp"),
                "sub": fixture.get("sub", name),
                "kind": fixture.get("kind", "user"),
                "claims": fixture.get("claims", {}),
            }
        return who

    for test in document.get("tests", ()):
        task = test.get("task") if isinstance(test.get("task"), dict) else None
        for step in test.get("steps", [test]):
            if "call" not in step:
                continue
            said = step.get("as") or test.get("as") or task or {}
            who = caller(said)
            if not who:
                continue
            request: dict[str, Any] = {
                "as": who,
                "call": step["call"],
                "input": step.get("input") or {},
            }
            if task is not None and "agent" in who:
                request["task"] = {
                    "template": task.get("template", ""),
                    "params": task.get("params", {}),
                    "prompt": str(task.get("prompt", "")),
                }
            yield request


def decisions(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the decision about each call that can be stated."""
    document = yaml.safe_load(file.read_text())
    plan = plan_of(document["bundle"])
    for request in requests(document):
        try:
            yield plan.eval(request, NOW)
        except BundleError:
            continue  # A task that does not start, or claims that cannot be stated.


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_denial_without_a_rule(file: Path) -> None:
    """Of all calls of all cases, each that is not permitted names a rule with a line that is there."""
    document = yaml.safe_load(file.read_text())
    folder = BUNDLES / document["bundle"]
    for decision in decisions(file):
        if decision["outcome"] == "PERMIT":
            assert decision["rules"] == []
            continue
        assert decision["rules"], decision
        for rule in decision["rules"]:
            if not rule["file"]:
                is_own = rule["kind"] == "default_deny" and rule["name"].startswith("authz.")
                assert is_own or rule["kind"] in WITHOUT_PLACE, rule
                continue
            lines = (folder / rule["file"]).read_text().splitlines()
            assert 1 <= rule["line"] <= len(lines), rule


def test_the_cases_have_rules_of_many_kinds() -> None:
    """The test above is about rules that are not Cedar, too."""
    kinds: Counter[str] = Counter()
    for file in FILES:
        kinds.update(rule["kind"] for decision in decisions(file) for rule in decision["rules"])
    assert kinds.total() > 300
    assert set(kinds) >= {
        "policy",
        "default_deny",
        "tier_requirement",
        "tier",
        "tier_cap",
        "scope",
        "tasks",
        "catalog",
        "input",
        "check",
    }


def judged(call: str, changes: dict[str, tuple[str, str]], **given: Any) -> dict[str, Any]:
    """Judge a call under the quickstart's bundle with a change."""
    bundle = read_folder(QUICKSTART)
    files = dict(bundle.files)
    for path, (old, new) in changes.items():
        text = files[path].decode()
        assert old in text
        files[path] = text.replace(old, new, 1).encode()
    changed = type(bundle)(bundle.root, files)
    plan = Plan.compile(changed, {"trust_domain": "dev.example"})
    return plan.eval({"as": {"agent": BOT, "subject": ALICE}, "call": call, **given}, NOW)


def places(decision: dict[str, Any]) -> list[str]:
    """Return kind, name and place of each rule."""
    return [f"{r['kind']} {r['name']} {r['file']}:{r['line']}" for r in decision["rules"]]


def test_a_cap_names_both_tiers_and_their_lines() -> None:
    """The cap of `implicit_tasks`, and the rule that gave the operation its tier."""
    cap = {"bundle.yaml": ("tier_cap: high", "tier_cap: standard")}
    decision = judged("crm.refund", cap, input={"id": "1", "amount": 5})
    assert decision["reason_code"] == "OUT_OF_SCOPE"
    assert places(decision) == [
        "tier_cap implicit_tasks bundle.yaml:5",
        "tier crm.refund meaning.yaml:21",
    ]
    assert decision["message"] == (
        "tier_cap: tier high of `crm.refund` (meaning.yaml:21) is above standard of `implicit_tasks` (bundle.yaml:5): "
        "beyond what the task allows"
    )


def test_a_requirement_of_a_tier_has_a_line() -> None:
    """The entry of `tiers`, and what gave the call its tier."""
    decision = judged("crm.refund", {}, input={"id": "1", "amount": 5})
    assert decision["reason_code"] == "PROOF_REQUIRED"
    assert places(decision) == [
        "tier_requirement high meaning.yaml:26",
        "tier crm.refund meaning.yaml:21",
    ]


def test_an_entry_of_a_scope_has_a_line() -> None:
    """The entry that names the operation and does not fit."""
    scope = {
        "tasks.yaml": (
            "      - {system: crm}\n",
            "      - {operation: crm.get, arguments: {/id: {one_of: ['1']}}}\n",
        )
    }
    decision = judged("crm.get", scope, input={"id": "2"}, supported_obligations=["redact:card"])
    assert decision["reason_code"] == "OUT_OF_SCOPE"
    assert places(decision) == ["scope desk tasks.yaml:9"]


def test_a_budget_has_a_line() -> None:
    """A budget of nothing is exceeded at once."""
    budget = {"history.yaml": ("most: 50", "most: 0")}
    decision = judged("crm.get", budget, input={"id": "2"}, supported_obligations=["redact:card"])
    assert decision["reason_code"] == "BUDGET_EXCEEDED"
    assert places(decision) == ["budget customers history.yaml:7"]


def test_mode_has_a_line() -> None:
    """A call that is only observed names the rule that would refuse it, and the entry of `mode`."""
    mode = {
        "bundle.yaml": ("show_reason", "show_reason"),
        "tasks.yaml": (
            "templates:",
            "mode: {default: observe, owner: sec@corp.example, until: 2027-02-01}\ntemplates:",
        ),
    }
    decision = judged("crm.delete", mode, input={"id": "2"})
    assert (decision["outcome"], decision["enforced"]) == ("DENY", False)
    assert places(decision) == [
        "policy only-tickets-are-deleted policies/guard.cedar:2",
        "mode default tasks.yaml:2",
    ]
