"""A shadow bundle is compared decision by decision, and what cannot be compared never counts as equal."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from authz import _native
from authz.engine import ListenerRules, default_settings
from authz.model import CallFacts
from tests.support.minting import Authority
from tests.support.people import People, check
from tests.support.server import trust_spec
from tests.support.surfaces import decision_of, reason_name

NOW_MS = 1_700_000_000_000
FACTS = """
agents: {bot: {match: ["spiffe://a.example/ns/support/sa/*"], subject: optional}}
catalog:
  crm: {kind: http, operations: {get: {}, pay: {}, send: {}}}
classify:
  - {match: crm.get, effects: [read], tier: low}
  - {match: crm.pay, effects: [execute], tier: low}
  - {match: crm.send, effects: [write], tier: low}
"""
WIKI = """
catalog: {wiki: {kind: http, operations: {read: {}}}}
classify: [{match: wiki.read, effects: [read], tier: low}]
"""
BASE = """
@id("may") permit(principal, action in [Action::"crm.get", Action::"crm.send"], resource);
"""
Ask = Callable[
    [str, dict[str, str], dict[str, str]], tuple[str, dict[str, float], dict[str, float]]
]


def compiled(files: dict[str, str]) -> _native.Plan:
    """Compiles a bundle of these files."""
    all_files = {"bundle.yaml": "{name: desk, tasks: optional}", "facts.yaml": FACTS, **files}
    return _native.Plan.compile({k: v.encode() for k, v in all_files.items()}, {}, NOW_MS)


@pytest.fixture
def ask(authority: Authority, tmp_path: Path) -> Ask:
    """Asks an engine for one call; returns the reason, and the counters of results and causes that are not zero."""
    bot = People.of(authority).bot

    def run(
        operation: str, served: dict[str, str], shadow: dict[str, str]
    ) -> tuple[str, dict[str, float], dict[str, float]]:
        engine = _native.Engine(json.dumps(default_settings(str(tmp_path / "audit"))).encode())
        rules = [asdict(ListenerRules("main", insecure_dev=True, surfaces=None))]
        trust = _native.Trust.compile(trust_spec(authority))
        engine.load(
            compiled({"policies/p.cedar": BASE, **served}),
            trust,
            json.dumps(rules).encode(),
            b"[]",
            shadow=compiled({"policies/p.cedar": BASE, **shadow}),
        )
        request = check(operation, b"{}", agent=bot).SerializeToString()
        answer = decision_of(engine.check(request, CallFacts("main")))
        found: dict[str, dict[str, Any]] = {"result": {}, "cause": {}}
        for _, _, _, samples in engine.metrics():
            for name, labels, value in samples:
                for label, counts in found.items():
                    if name.startswith("authz_shadow_") and value and label in dict(labels):
                        counts[dict(labels)[label]] = value
        engine.close()
        return reason_name(answer), found["result"], found["cause"]

    return run


FORBID = '@id("x") forbid(principal, action == Action::"crm.get", resource);'
HOLD = (
    '@id("x") @stepup("approve") forbid(principal, action == Action::"crm.get", resource) '
    'unless { context.satisfied.contains(Kind::"approve") };'
)
PERMIT = '@id("x") permit(principal, action == Action::"crm.pay", resource);'
LABELS = "labels: {pii: {kind: confidentiality}}"
READS_LABELS = (
    '@id("x") forbid(principal, action == Action::"crm.send", resource) '
    'when { context.session.labels.contains(Label::"pii") };'
)
COUNTS = (
    '@id("x") forbid(principal, action == Action::"crm.send", resource) '
    "when { context.session.calls > 3 };"
)
SEQUENCE = "sequences: {look-first: {require: crm.get, before: crm.send, counts: permitted}}"
READS_SEQUENCE = (
    '@id("x") forbid(principal, action == Action::"crm.send", resource) '
    'when { context.sequences.contains(Sequence::"look-first") };'
)


@pytest.mark.parametrize(
    "row",
    [
        ("crm.get", {}, "PERMITTED", "equal", None),
        ("crm.pay", {}, "NOT_PERMITTED", "equal", None),
        ("crm.get", {"policies/x.cedar": FORBID}, "PERMITTED", "newly_denied", None),
        ("crm.get", {"policies/x.cedar": HOLD}, "PERMITTED", "newly_held", None),
        ("crm.pay", {"policies/x.cedar": PERMIT}, "NOT_PERMITTED", "newly_permitted", None),
        (
            "crm.send",
            {"labels.yaml": LABELS, "policies/x.cedar": READS_LABELS},
            "PERMITTED",
            "not_compared",
            "labels",
        ),
        ("crm.send", {"policies/x.cedar": COUNTS}, "PERMITTED", "not_compared", "labels"),
        (
            "crm.send",
            {"sequences.yaml": SEQUENCE, "policies/x.cedar": READS_SEQUENCE},
            "PERMITTED",
            "not_compared",
            "history",
        ),
    ],
)
def test_results(ask: Ask, row: tuple[str, dict[str, str], str, str, str | None]) -> None:
    """Each difference has its result, each gap its cause, and the answer is that of the bundle that serves."""
    operation, shadow, code, result, cause = row
    reason, results, causes = ask(operation, {}, shadow)
    assert (reason, results) == (code, {result: 1.0})
    assert causes == ({cause: 1.0} if cause is not None else {})


def test_a_system_that_the_shadow_bundle_lacks_is_not_compared(ask: Ask) -> None:
    """A call of a removed system is no denial of the shadow bundle."""
    reads = '@id("reads") permit(principal, action == Action::"wiki.read", resource);'
    served = {"wiki.yaml": WIKI, "policies/wiki.cedar": reads}
    reason, results, causes = ask("wiki.read", served, {})
    assert (reason, results, causes) == ("PERMITTED", {"not_compared": 1.0}, {"system": 1.0})
