"""The log of every case file is replayed by its own bundle: the facts of a record are enough to decide it again."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.audit import Record
from authz.engine import Plan
from authz.errors import BundleError
from authz.tools.replay import judge_record
from tests.conformance.test_case_traces import OUTLIVING, TRACES, Run
from tests.support.cases import BUNDLES
from tests.support.fixtures import Servers
from tests.support.minting import Authority
from tests.support.replaying import CASES, compiled, log_of, plan
from tests.support.server import bundle_files
from tests.support.waiting import eventually

#: Reasons for which a record need not be replayed by its own bundle.
ALLOWED = frozenset({"no_call", "not_judged", "of_approval", "stopped_later"})


def records(lines: list[bytes]) -> Iterator[Record]:
    """Yields records of judged calls."""
    for number, line in enumerate(lines, 1):
        fields = json.loads(line)
        is_call = "result" in fields and "sum" not in fields
        if is_call and fields["input"]["mode"] != "PROBE":
            yield Record(number, fields, line)


def hold_equal(bundle: str, lines: list[bytes]) -> Counter[str]:
    """Replays records by the bundle that judged, and returns the number of records by what became of them."""
    seen: Counter[str] = Counter()
    for record in records(lines):
        judgement = judge_record(record, plan(bundle), None)
        about = (record.text[:3_000], judgement)
        if judgement.gap is None:
            assert judgement.category == "equal", about
            assert judgement.before is not None, about
            seen["equal"] += 1
            seen[judgement.before.outcome] += 1
            facts = record.fields["input"]["facts"]
            seen.update(list(facts))
            continue
        seen[judgement.gap.reason] += 1
        if record.fields["input"].get("replayable"):
            assert judgement.gap.reason in ALLOWED, about
        else:
            assert judgement.gap.reason in ALLOWED | {"facts_missing"}, about
    return seen


CASE_BUNDLES = sorted({case.bundle for case in CASES})


@pytest.mark.parametrize("bundle", CASE_BUNDLES)
def test_calls_are_replayed_equal(bundle: str, authority: Authority, tmp_path: Path) -> None:
    """Every judged call of the case files is decided again as it was: permits, holds and denials."""
    seen = hold_equal(bundle, log_of(plan(bundle), bundle, authority, tmp_path / "log"))
    assert seen


#: Policies that a bundle is given, one at a time.
ADDED = (
    'forbid(principal, action in Action::"effect:export", resource) when { context.destination.class == DestinationClass::"external" };',
    "forbid(principal, action, resource) when { context.tier > 1 && context.session.calls >= 0 };",
    "permit(principal, action, resource);",
    'forbid(principal, action in Action::"effect:export", resource) when { context.destination.host == "evil.example" || context.tier > 2 };',
    'forbid(principal, action in Action::"effect:export", resource) when { context.tier > 0 && context.destination.host like "*.example" };',
    '@stepup("approve") forbid(principal is Agent, action in Action::"effect:write", resource) when { context.chain.depth > 1 };',
)


def changed_plans(bundle: str) -> Iterator[tuple[str, Plan]]:
    """Yields the bundle without one of its policies, and with one more."""
    files = bundle_files(BUNDLES / bundle)
    for policy in list(plan(bundle).describe().policies.values())[:8]:
        left = files[policy.file].replace(policy.text.encode(), b"")
        if left == files[policy.file]:
            continue
        try:
            yield f"without {policy.id}", compiled(files | {policy.file: left})
        except BundleError:
            continue
    for number, text in enumerate(ADDED):
        name = f"policies/added-{number}.cedar"
        try:
            changed = compiled(files | {name: f'@id("added-{number}") {text}'.encode()})
        except BundleError:
            continue
        yield name, changed


@pytest.mark.parametrize("bundle", CASE_BUNDLES)
def test_a_change_flips_what_it_flips_on_an_engine(
    bundle: str, authority: Authority, tmp_path: Path
) -> None:
    """Every answer of a replay by a changed bundle is the answer of an engine with that bundle to the same call."""
    before = log_of(plan(bundle), bundle, authority, tmp_path / "before")
    seen: Counter[str] = Counter()
    for number, (name, changed) in enumerate(changed_plans(bundle)):
        after = log_of(changed, bundle, authority, tmp_path / f"after-{number}")
        assert len(before) == len(after)
        for record, truth in zip(records(before), records(after), strict=True):
            judgement = judge_record(record, changed, plan(bundle))
            result = truth.fields["result"]
            effect = result["outcome"] if result["enforced"] else "PERMIT"
            about = (name, judgement, record.text[:3_000], truth.text[:3_000])
            if judgement.gap is not None:
                seen[judgement.gap.reason] += 1
                assert (judgement.gap.claim, effect) != ("never_admits", "PERMIT"), about
                assert judgement.gap.reason != "not_reproduced", about
                continue
            assert judgement.after is not None, about
            seen[judgement.category] += 1
            assert (judgement.after.effect, judgement.after.outcome) == (
                effect,
                result["outcome"],
            ), about
            if judgement.category != "equal" and judgement.after.code:
                assert judgement.after.code == result["reason_code"], about
                assert list(judgement.after.policies) == result["policies"], about
    assert seen


@pytest.mark.parametrize("bundle", sorted({file.bundle for _, file, _ in TRACES}))
def test_sessions_are_replayed_equal(bundle: str, authority: Authority, servers: Servers) -> None:
    """So are calls in tasks, with histories, labels, budgets and approvals, on a real node."""
    own = [(file, case) for _, file, case in TRACES if file.bundle == bundle]
    server = servers.of(bundle, "")
    for file, case in own[:3]:
        if bundle not in OUTLIVING:
            assert Run(server, authority, file, case, "").go() == []
        else:
            Run(server, authority, file, case, "").go()
    eventually(server.records, what="a record")
    seen = hold_equal(bundle, server.place.audit.read_bytes().splitlines(keepends=True))
    assert sum(seen.values()) > 0
