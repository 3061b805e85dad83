"""Loading: all or nothing, and the one before goes on serving."""

from __future__ import annotations

import io
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from authz.config import Config, Log, load
from authz.engine import RecipientListEntries, bundle_digest, listener_rules, peer_rules
from authz.errors import BundleError, EngineError, TrustError
from authz.model import RuleChanges
from authz.server.runtime_state import RuntimeState
from authz.server.static_secrets import StaticSecrets
from authz.server.status.mode_reminder import ModeReminder
from authz.server.status.readiness import Readiness
from authz.server.status.recipient_lists import RecipientListStatus
from authz.server.status.trust_sources import TrustSourceStatus
from authz.server.trust_sequences import TrustSequences
from authz.telemetry import Metrics, make_logger
from authz.tools.keys import DevDomain
from authz.trust import Refresher, SourceKey
from tests.support.minting import Key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from authz.engine import ListenerRules, PeerRules, Plan, Trust

POLICY = '@id("{id}") permit(principal in Role::"bot", action in Action::"system:crm", resource);\n'
FACTS = """\
agents: {bot: ["spiffe://a.example/ns/x/sa/*"]}
catalog: {crm: {kind: http, operations: {ping: {}}}}
classify: [{match: crm.ping, effects: [read]}]
"""
TEST = """\
tests:
  - {{case: ping, as: {{agent: "spiffe://a.example/ns/x/sa/y"}}, call: crm.ping, expect: {expect}}}
"""
CONFIG = """\
bundle: {path: bundle}
trust:
  domains: {a.example: {bundle: {file: keys/bundle.json}}}
identity: {audiences: [authz]}
listeners:
  main: {address: "127.0.0.1:0", insecure_dev: true}
  admin: {address: "unix:run/admin.sock"}
audit: {path: audit.jsonl}
"""


class Engine:
    """Keeps what was loaded."""

    def __init__(self) -> None:
        self.loaded: list[tuple[Plan, Trust, Sequence[ListenerRules]]] = []
        self.peers: list[tuple[PeerRules, ...]] = []
        self.credentials: list[Mapping[str, Any] | None] = []
        self.recipient_lists: list[dict[str, float]] = []
        self.fetched: list[dict[str, int]] = []
        self.raises: Exception | None = None
        self.shadows: list[str | None] = []
        self.sequences: dict[str, dict[str, int]] = {}
        self.store_fails = False
        self.refused: list[Mapping[str, Any]] = []
        self.log_is_full = False

    def record_refused_load(self, load: Mapping[str, Any]) -> bool:
        """Keep it."""
        if self.log_is_full:
            return False
        self.refused.append(load)
        return True

    def trust_sequences(self) -> Mapping[str, Mapping[str, int]]:
        """Read which bundles were used."""
        if self.store_fails:
            raise EngineError("the store is down")
        return dict(self.sequences)

    def note_trust_sequences(self, used: Mapping[str, Mapping[str, int]]) -> None:
        """Keep those that are newer."""
        if self.store_fails:
            raise EngineError("the store is down")

        def newness(one: Mapping[str, int]) -> tuple[int, int]:
            return one["epoch"], one["sequence"]

        for name, one in used.items():
            if name not in self.sequences or newness(one) > newness(self.sequences[name]):
                self.sequences[name] = dict(one)

    def load(
        self,
        plan: Plan,
        trust: Trust,
        listeners: Sequence[ListenerRules],
        peers: Sequence[PeerRules],
        credentials: Mapping[str, Any] | None = None,
        *,
        recipient_lists: Mapping[str, float] | None = None,
        fetched: Mapping[str, RecipientListEntries] | None = None,
        shadow: Plan | None = None,
    ) -> None:
        """Keep it."""
        if self.raises is not None:
            raise self.raises
        self.credentials.append(credentials)
        self.recipient_lists.append(dict(recipient_lists or {}))
        self.fetched.append({name: len(entries) for name, entries in (fetched or {}).items()})
        self.loaded.append((plan, trust, listeners))
        self.shadows.append(shadow.digest if shadow is not None else None)
        self.peers.append(tuple(peers))


class Stage:
    """A folder with bundle, keys and configuration, and a world on it."""

    def __init__(self, folder: Path, config: str = CONFIG, engine: Engine | None = None) -> None:
        self.folder = folder
        for name, text in {
            "bundle/bundle.yaml": "name: test\ntasks: optional\n",
            "bundle/facts.yaml": FACTS,
            "bundle/policies/p.cedar": POLICY.format(id="one"),
            "bundle/tests/t.yaml": TEST.format(expect="PERMIT"),
            "config.yaml": config,
        }.items():
            self.write(name, text)
        if engine is None:
            DevDomain.make("a.example", "https://idp").save(folder / "keys")
        self.log = io.StringIO()
        self.logger = make_logger(Log(), self.log)
        self.engine = engine or Engine()
        self.metrics = Metrics()
        self.config: Config = load(folder / "config.yaml", {}, working_folder=folder)
        self.now = 1000.0
        issuing = self.config.credentials
        self.static_secrets = (
            StaticSecrets(issuing.static_secrets, self.logger) if issuing is not None else None
        )
        self.runtime = RuntimeState(
            self.config,
            self.engine,
            listener_rules(self.config),
            peers=peer_rules(self.config),
            secrets=self.static_secrets,
            sequences=TrustSequences(self.config, self.engine, self.logger),
            metrics=self.metrics,
            log=self.logger,
            clock=lambda: self.now,
        )
        self.sources = TrustSourceStatus(
            self.config, self.runtime, Refresher((), self.runtime, self.logger), lambda: self.now
        )

    def restarted(self, config: str | None = None) -> Stage:
        """Start anew on the same files and store."""
        return Stage(self.folder, config or (self.folder / "config.yaml").read_text(), self.engine)

    def write(self, name: str, text: str) -> None:
        """Write a file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def reloads(self, result: str) -> float:
        """Read the counter of loads."""
        value = self.metrics.registry.get_sample_value(
            "authz_policy_reload_total", {"result": result}
        )
        return -1.0 if value is None else value


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A loaded world."""
    made = Stage(tmp_path)
    made.runtime.load()
    return made


def test_a_good_change_is_swapped_in_with_everything(stage: Stage) -> None:
    """Plan, keys and listeners in one call."""
    stage.write("bundle/policies/p.cedar", POLICY.format(id="two"))
    stage.now = 2000.0

    outcome = stage.runtime.reload()

    (first, _, _), (second, _, rules) = stage.engine.loaded
    assert (outcome.changed, outcome.failed) == (True, False)
    assert first.digest != second.digest
    assert [(rule.name, rule.insecure_dev, rule.admin) for rule in rules] == [
        ("main", True, False),
        ("admin", False, True),
    ]
    assert stage.runtime.snapshot.loaded_at == 2000.0
    assert stage.reloads("success") == 2


RECIPIENT_LISTS = """
recipient_lists:
  customers: {file: data/customers.csv, column: email, max_age: 1h}
  leavers: {file: data/leavers.txt, trusted: false}
destinations:
  customer: {recipient_list: customers, clearance: []}
  leaver: {recipient_list: leavers, clearance: []}
  external: {match: "*", clearance: []}
"""


def with_recipient_lists(stage: Stage, changed: float) -> RecipientListStatus:
    """Give the bundle two recipient lists, whose files were changed at that time."""
    for name, text in {
        "bundle/data/customers.csv": "email\nbob@customer.example\n",
        "bundle/data/leavers.txt": "old@corp.example\neve@corp.example\n",
        "bundle/recipient_lists.yaml": RECIPIENT_LISTS,
    }.items():
        stage.write(name, text)
        os.utime(stage.folder / name, (changed, changed))
    assert not stage.runtime.reload().failed
    return RecipientListStatus(stage.runtime, lambda: stage.now)


def test_the_engine_is_told_when_the_files_of_recipient_lists_were_changed(stage: Stage) -> None:
    """Writing one anew makes it fresh, even where it says the same."""
    stage.now = 5000.0
    told = with_recipient_lists(stage, 2000.0)
    assert stage.engine.recipient_lists[-1] == {"customers": 2000.0, "leavers": 2000.0}
    assert list(told.problems()) == []

    stage.now = 6000.0
    assert list(told.problems()) == [
        "the recipient list `customers` is too old, and trusts nothing: data/customers.csv was changed 4000 s ago"
    ]
    swaps = len(stage.engine.recipient_lists)
    assert not stage.runtime.reload().changed
    assert len(stage.engine.recipient_lists) == swaps

    # A clock that goes wrong makes nothing fresh for longer.
    os.utime(stage.folder / "bundle/data/customers.csv", (9000.0, 9000.0))
    assert not stage.runtime.reload().changed
    assert stage.engine.recipient_lists[-1] == {"customers": 6000.0, "leavers": 2000.0}
    assert list(told.problems()) == []


def test_a_file_from_the_future_grows_old_from_when_it_was_first_seen(stage: Stage) -> None:
    """No reload renews it; a file that is written anew is another."""
    stage.now = 5000.0
    with_recipient_lists(stage, 9000.0)
    assert stage.engine.recipient_lists[-1] == {"customers": 5000.0, "leavers": 5000.0}
    stage.now = 6000.0
    stage.runtime.reload()
    assert stage.engine.recipient_lists[-1] == {"customers": 5000.0, "leavers": 5000.0}
    stage.write("bundle/bundle.yaml", "name: test\ntasks: optional\nrevision: two\n")
    assert stage.runtime.reload().changed
    assert stage.engine.recipient_lists[-1] == {"customers": 5000.0, "leavers": 5000.0}
    os.utime(stage.folder / "bundle/data/customers.csv", (9500.0, 9500.0))
    stage.runtime.reload()
    assert stage.engine.recipient_lists[-1] == {"customers": 6000.0, "leavers": 5000.0}
    stage.now = 9200.0
    stage.runtime.reload()
    assert stage.engine.recipient_lists[-1] == {"customers": 6000.0, "leavers": 5000.0}


def test_readiness_and_metrics_tell_how_recipient_lists_stand(stage: Stage) -> None:
    """The node stays ready: all that does not depend on them is decided."""
    stage.now = 9000.0
    told = with_recipient_lists(stage, 2000.0)
    assert told.detail() == [
        {
            "name": "customers",
            "from": "data/customers.csv",
            "entries": 1,
            "trusted": True,
            "age_seconds": 7000.0,
            "max_age_seconds": 3600,
            "fresh": False,
            "error": "",
        },
        {
            "name": "leavers",
            "from": "data/leavers.txt",
            "entries": 2,
            "trusted": False,
            "age_seconds": 7000.0,
            "max_age_seconds": None,
            "fresh": True,
            "error": "",
        },
    ]
    samples = {family.name: list(family.samples) for family in told.families()}
    assert [value for _, _, value in samples["authz_recipient_list_fresh"]] == [0.0, 1.0]
    assert [value for _, _, value in samples["authz_recipient_list_entries"]] == [1.0, 2.0]
    assert [value for _, _, value in samples["authz_recipient_list_age_seconds"]] == [
        7000.0,
        7000.0,
    ]
    readiness = Readiness(
        "1",
        "debug",
        runtime=stage.runtime,
        sources=stage.sources,
        engine=lambda: {"ready": True, "problems": []},
        insecure=[],
        started_at=0.0,
        more={"recipient_lists": told},
    )
    readiness.serving()
    report = readiness.report()
    assert report.ready
    assert "the recipient list `customers` is too old" in report.problems[0]


BY_URL = RECIPIENT_LISTS.replace("file: data/customers.csv", "url: 'https://people.example/c'")


def test_what_was_fetched_counts_for_the_bundle_that_it_was_fetched_for(stage: Stage) -> None:
    """A reload keeps it, another URL or column does not; and it counts from when it was fetched."""
    stage.now = 5000.0
    followed: list[Plan] = []
    stage.runtime.follow(followed.append)
    told = with_recipient_lists(stage, 2000.0)
    stage.write("bundle/recipient_lists.yaml", BY_URL)
    assert not stage.runtime.reload().failed
    plan = followed[-1]
    recipient_list = next(one for one in plan.recipient_lists if one.url)
    assert (recipient_list.url, recipient_list.column, recipient_list.max_age) == (
        "https://people.example/c",
        "email",
        3600,
    )
    assert stage.engine.recipient_lists[-1] == {"leavers": 2000.0}
    assert list(told.problems()) == [
        "the recipient list `customers` is too old, and trusts nothing: it was not fetched"
    ]

    entries = RecipientListEntries.read("email\na@x.example\nb@x.example\n", "email")
    assert stage.runtime.put_recipient_list(recipient_list, b"1", entries)
    assert stage.engine.recipient_lists[-1] == {"customers": 5000.0, "leavers": 2000.0}
    assert stage.engine.fetched[-1] == {"customers": 2}
    assert list(told.problems()) == []
    stage.now = 6000.0
    assert not stage.runtime.put_recipient_list(recipient_list, b"1", entries), "it says the same"
    assert stage.engine.recipient_lists[-1]["customers"] == 6000.0, "and is known to"

    stage.write("bundle/bundle.yaml", "name: test\ntasks: optional\nrevision: two\n")
    assert stage.runtime.reload().changed
    assert stage.engine.fetched[-1] == {"customers": 2}
    assert stage.engine.recipient_lists[-1]["customers"] == 6000.0
    stage.now = 9700.0
    assert "it was fetched 3700 s ago" in next(iter(told.problems()))

    stage.write("bundle/recipient_lists.yaml", BY_URL.replace("column: email, ", ""))
    assert stage.runtime.reload().changed
    assert stage.engine.fetched[-1] == {}
    assert stage.engine.recipient_lists[-1] == {"leavers": 2000.0}
    assert not stage.runtime.put_recipient_list(recipient_list, b"2", entries), (
        "it was fetched for another"
    )
    assert stage.engine.fetched[-1] == {}


def test_what_was_fetched_may_be_dropped(stage: Stage) -> None:
    """Then nothing is known."""
    with_recipient_lists(stage, 2000.0)
    stage.write("bundle/recipient_lists.yaml", BY_URL)
    stage.runtime.reload()
    assert stage.runtime.snapshot.plan is not None
    recipient_list = next(one for one in stage.runtime.snapshot.plan.recipient_lists if one.url)
    stage.runtime.put_recipient_list(
        recipient_list, b"1", RecipientListEntries.read("email\n", "email")
    )
    stage.runtime.drop_recipient_list(recipient_list)
    assert stage.engine.fetched[-1] == {}
    assert "customers" not in stage.engine.recipient_lists[-1]


def test_what_cannot_be_read_whole_is_refused() -> None:
    """And nothing of it is repeated."""
    with pytest.raises(BundleError) as refused:
        RecipientListEntries.read("email\nbob@customer.example,1\n", "email")
    assert "line 2: 2 fields, where the header has 1" in str(refused.value)
    assert "bob" not in str(refused.value)


def test_a_recipient_list_that_cannot_be_read_whole_refuses_the_bundle(stage: Stage) -> None:
    """Half of it would trust half of what it should."""
    with_recipient_lists(stage, 2000.0)
    stage.write("bundle/data/customers.csv", "email\nbob@customer.example,1\n")

    outcome = stage.runtime.reload()

    assert outcome.failed
    assert str(outcome.diagnostics[0]).startswith(
        "data/customers.csv:2: the recipient list `customers`: 2 fields, where the header has 1."
    )


def test_a_reload_tells_what_becomes_of_the_progress_of_rules(stage: Stage) -> None:
    """By name, and of each list no more than may be told."""

    def reloaded(*budgets: str) -> RuleChanges:
        stage.write("bundle/budgets.yaml", f"budgets: {{{', '.join(budgets)}}}\n")
        outcome = stage.runtime.reload()
        assert not outcome.failed, outcome.diagnostics
        assert stage.runtime.reload().rules == RuleChanges(carried=len(budgets)), "nothing changed"
        assert outcome.rules == stage.runtime.snapshot.rules
        return outcome.rules

    assert stage.runtime.snapshot.rules == RuleChanges(), "nothing was before"
    facts = FACTS.replace("{ping: {}}", "{ping: {}, pong: {}}").replace("crm.ping", "crm.*")
    stage.write("bundle/facts.yaml", facts)
    one, two = "one: {count: crm.pong, most: 5}", "two: {count: crm.pong, most: 5}"
    assert reloaded(one, two) == RuleChanges(added=("budgets.one", "budgets.two"))
    two, three = "two: {count: crm.pong, most: 5, within: 1h}", "three: {count: crm.pong, most: 5}"
    one = "one: {count: crm.pong, most: 9}"
    assert reloaded(two, one, three) == RuleChanges(1, ("budgets.two",), ("budgets.three",))
    assert reloaded(one) == RuleChanges(1, removed=("budgets.three", "budgets.two"))
    many = reloaded(one, *(f"n{number}: {{count: crm.pong, most: 5}}" for number in range(150)))
    assert (many.carried, len(many.added), many.omitted) == (1, 100, 50)
    assert '"omitted": 50' in stage.log.getvalue()

    stage.write("bundle/budgets.yaml", "budgets: {one: {count: crm.peng, most: 9}}\n")
    assert stage.runtime.reload().rules == RuleChanges(), "it was refused"
    assert stage.runtime.snapshot.rules == many, "of what serves"


def test_no_change_swaps_nothing(stage: Stage) -> None:
    """A touched file is no change."""
    outcome = stage.runtime.reload()

    assert not outcome.changed
    assert not outcome.failed
    assert len(stage.engine.loaded) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bundle/policies/p.cedar", "permit("),
        ("bundle/policies/p.cedar", POLICY.format(id="x").replace("bot", "bott")),
        ("bundle/facts.yaml", FACTS.replace("agents", "agnets")),
        ("bundle/tests/t.yaml", TEST.format(expect="DENY")),
        ("bundle/tests/t.yaml", "tests: [{}]"),
        ("keys/bundle.json", "no json"),
    ],
)
def test_a_bad_change_leaves_everything_as_it_was(stage: Stage, name: str, text: str) -> None:
    """Also when only a test of the bundle fails, or only the keys are bad."""
    before = stage.runtime.snapshot
    stage.write(name, text)

    outcome = stage.runtime.reload()

    assert outcome.failed
    assert outcome.diagnostics
    assert len(stage.engine.loaded) == 1
    assert stage.runtime.snapshot.plan is before.plan
    assert stage.runtime.snapshot.trust is before.trust
    assert stage.runtime.snapshot.refused == outcome.diagnostics
    assert stage.reloads("failure") == 1
    assert "stays in use" in stage.log.getvalue()


def test_a_missing_key_file_leaves_everything_as_it_was(stage: Stage) -> None:
    """An unmounted secret must not drop the trust that serves."""
    (stage.folder / "keys/bundle.json").unlink()

    assert stage.runtime.reload().failed
    assert len(stage.engine.loaded) == 1


def test_a_world_that_the_engine_refuses_is_not_said_to_serve(stage: Stage) -> None:
    """What is reported is what decides."""
    before = stage.runtime.snapshot
    stage.engine.raises = EngineError("no")
    stage.write("bundle/policies/p.cedar", POLICY.format(id="two"))

    assert stage.runtime.reload().failed
    assert stage.runtime.snapshot.plan is before.plan


class Panic(BaseException):
    """As the extension's panics, which are no `Exception`."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error", "/x"),
        RecursionError("too deep"),
        MemoryError(),
        RuntimeError("Symlink loop"),
        UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"),
        ValueError("\udcff"),
        Panic("at the disco"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("part", ["read_folder", "read_trust", "compile_bundle"])
def test_whatever_goes_wrong_leaves_everything_as_it_was(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, part: str, error: BaseException
) -> None:
    """What nobody foresaw is a refused reload as well, and is told."""
    before = stage.runtime.snapshot

    def fail(*_args: object, **_named: object) -> None:
        raise error

    stage.write("bundle/policies/p.cedar", POLICY.format(id="two"))
    with monkeypatch.context() as patched:
        patched.setattr(f"authz.server.runtime_state.{part}", fail)
        outcome = stage.runtime.reload()

    assert (outcome.changed, outcome.failed) == (False, True)
    (told,) = outcome.diagnostics
    assert type(error).__name__ in str(told)
    assert str(told).encode(), "it goes into messages of the API"
    assert stage.runtime.snapshot.plan is before.plan
    assert stage.runtime.snapshot.refused == outcome.diagnostics
    assert stage.reloads("failure") == 1
    assert "stays in use" in stage.log.getvalue()
    assert stage.runtime.reload().changed


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_wish_to_stop_is_not_held_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    """It is no failure."""

    def leave(*_args: object, **_named: object) -> None:
        raise stop

    monkeypatch.setattr("authz.server.runtime_state.read_folder", leave)

    with pytest.raises(stop):
        stage.runtime.reload()


def test_an_odd_file_in_the_bundle_leaves_everything_as_it_was(stage: Stage) -> None:
    """A link that leads to itself, and a name that is not UTF-8."""
    loop = stage.folder / "bundle/loop"
    loop.symlink_to("loop")
    assert stage.runtime.reload().failed
    assert "`loop` leads in a circle" in str(stage.runtime.snapshot.refused[0])
    loop.unlink()
    with open(os.fsencode(stage.folder / "bundle") + b"/\xff.yaml", "wb"):  # noqa: PTH123
        pass

    assert stage.runtime.reload().failed
    assert stage.reloads("failure") == 2
    assert len(stage.engine.loaded) == 1


def test_a_world_that_serves_is_said_to_serve_though_telling_failed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is reported is what decides."""

    def fail(*_args: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(stage.metrics, "bundle", fail)
    stage.write("bundle/policies/p.cedar", POLICY.format(id="two"))

    outcome = stage.runtime.reload()

    assert (outcome.changed, outcome.failed) == (True, False)
    assert stage.runtime.snapshot.plan is stage.engine.loaded[-1][0]
    assert len(stage.engine.loaded) == 2


def test_after_a_refusal_the_fixed_one_is_swapped_in(stage: Stage) -> None:
    """And the refusal is forgotten."""
    stage.write("bundle/policies/p.cedar", "permit(")
    assert stage.runtime.reload().failed
    stage.write("bundle/policies/p.cedar", POLICY.format(id="three"))

    assert stage.runtime.reload().changed
    assert stage.runtime.snapshot.refused == ()


CHAINED = CONFIG.replace("audit: {path: audit.jsonl}", "audit: {path: audit.jsonl, chain: true}")


@pytest.fixture
def chained(tmp_path: Path) -> Stage:
    """A loaded world whose audit is chained."""
    made = Stage(tmp_path, CHAINED)
    made.runtime.load()
    return made


def refuse(stage: Stage, text: str) -> None:
    """Make the bundle a bad one, and reload it."""
    stage.write("bundle/policies/p.cedar", text)
    assert stage.runtime.reload().failed


def test_a_refusal_is_recorded_once(chained: Stage) -> None:
    """Each bundle and error once until a load succeeds; the next record counts the others."""
    for _ in range(3):
        refuse(chained, "permit(")
    refuse(chained, "forbid(")
    for _ in range(3):
        refuse(chained, "permit(")
    first, second = chained.engine.refused
    assert first["digest"] != second["digest"]
    assert [load["unrecorded"] for load in (first, second)] == [0, 2]
    assert first["errors"][0]["at"] == "policies/p.cedar:1"
    serving = chained.engine.loaded[0][0].digest
    chained.write("bundle/policies/p.cedar", POLICY.format(id="one"))
    assert not chained.runtime.reload().failed
    files = chained.runtime.snapshot.bundle_files
    assert files is not None
    assert bundle_digest(files) == serving

    refuse(chained, "permit(")
    third = chained.engine.refused[2]
    assert third == {**first, "unrecorded": 3}


def test_a_record_names_the_digest_that_the_bundle_would_have_had(chained: Stage) -> None:
    """So that a reader finds the refused bundle: also if its tests fail. A folder that cannot be read has none."""
    chained.write("bundle/tests/t.yaml", TEST.format(expect="DENY"))
    assert chained.runtime.reload().failed
    chained.write("bundle/bundle.yaml", "name: test\ntasks: optional\nrequire: [\n")
    assert chained.runtime.reload().failed
    (chained.folder / "bundle" / "bundle.yaml").unlink()
    (chained.folder / "bundle" / "bundle.yaml").symlink_to("/etc/passwd")
    assert chained.runtime.reload().failed
    digests = [load["digest"] for load in chained.engine.refused]
    assert len(set(digests)) == 3
    assert digests[2] == ""
    assert {len(digest) for digest in digests[:2]} == {64}


def test_a_record_repeats_no_word_of_a_file(chained: Stage) -> None:
    """A secret that stands in a bundle by mistake would stay in the log for good."""
    chained.write("bundle/bundle.yaml", "name: test\ntasks: optional\nhunter2-password: 1\n")
    outcome = chained.runtime.reload()
    assert "hunter2-password" in str(outcome.diagnostics)
    assert "hunter2-password" not in str(chained.engine.refused)
    chained.engine.raises = RuntimeError("hunter2-password")
    chained.write("bundle/bundle.yaml", "name: test\ntasks: optional\n")
    refuse(chained, POLICY.format(id="two"))
    assert "hunter2-password" not in str(chained.engine.refused)
    assert chained.engine.refused[1]["errors"][0]["message"].endswith(": RuntimeError")


def test_refusals_that_find_no_room_are_counted(chained: Stage) -> None:
    """A full log gets the record later; any number of different refusals gets a bounded number of records."""
    chained.engine.log_is_full = True
    refuse(chained, "permit(")
    chained.engine.log_is_full = False
    refuse(chained, "permit(")
    assert [load["unrecorded"] for load in chained.engine.refused] == [1]
    for number in range(70):
        refuse(chained, f"permit( // {number}")
    assert len(chained.engine.refused) == 64


def test_a_log_without_a_chain_has_no_record_of_a_refusal(stage: Stage) -> None:
    """As of a load."""
    refuse(stage, "permit(")
    assert stage.engine.refused == []


def test_the_first_load_refuses_to_start(tmp_path: Path) -> None:
    """There is nothing that could go on serving."""
    stage = Stage(tmp_path)
    stage.write("bundle/policies/p.cedar", "permit(")

    with pytest.raises(BundleError):
        stage.runtime.load()
    assert stage.runtime.snapshot.plan is None


def test_the_first_load_without_keys_refuses_to_start(tmp_path: Path) -> None:
    """With the file that is missing."""
    stage = Stage(tmp_path)
    (stage.folder / "keys/bundle.json").unlink()

    with pytest.raises(TrustError, match=r"keys/bundle\.json"):
        stage.runtime.load()


def test_readiness_tells_a_refused_reload_and_insecure_dev(stage: Stage) -> None:
    """It stays ready, for the one before serves."""
    readiness = Readiness(
        "1",
        "debug",
        runtime=stage.runtime,
        sources=stage.sources,
        engine=lambda: {"ready": True, "problems": []},
        insecure=["main"],
        started_at=0.0,
    )
    assert not readiness.report().ready
    readiness.serving()
    stage.write("bundle/policies/p.cedar", "permit(")
    stage.runtime.reload()

    report = readiness.report()

    assert report.ready
    assert list(report.problems) == ["the last reload was refused", "insecure_dev: main"]
    assert json.loads(json.dumps(report.detail))["last_reload_refused"]
    readiness.stopping()
    assert not readiness.report().ready


def test_an_engine_that_is_not_ready_makes_the_node_not_ready(stage: Stage) -> None:
    """For example because the audit cannot be written."""
    readiness = Readiness(
        "1",
        "debug",
        runtime=stage.runtime,
        sources=stage.sources,
        engine=lambda: {"ready": False, "problems": ["audit"]},
        insecure=[],
        started_at=0.0,
    )
    readiness.serving()

    assert not readiness.report().ready
    assert list(readiness.report().problems) == ["audit"]


MESH = SourceKey("domain", "b.example")
FETCHED = "{a.example: {bundle: {file: keys/bundle.json}}, b.example: {bundle: {url: https://b.example/b}}}"
MUTUAL = 'main: {address: "127.0.0.1:0", tls: {cert_file: c, key_file: k, client_ca_file: ca}}'


@pytest.fixture
def fetching(tmp_path: Path) -> Stage:
    """A loaded world, of which one trust domain is fetched."""
    made = Stage(
        tmp_path, CONFIG.replace("{a.example: {bundle: {file: keys/bundle.json}}}", FETCHED)
    )
    made.runtime.load()
    return made


def bundle(sequence: int, kid: str = "one") -> str:
    """A SPIFFE bundle with one key."""
    key = Key.make(kid).jwk("jwt-svid")
    return json.dumps({"keys": [key], "spiffe_sequence": sequence})


def usable(stage: Stage, name: str = "b.example") -> int:
    """Counts the usable keys of a trust domain, as the engine was given them last."""
    _, trust, _ = stage.engine.loaded[-1]
    return next(domain.keys for domain in trust.domains if domain.name == name)


def test_fetched_keys_are_swapped_in_under_the_bundle_that_serves(fetching: Stage) -> None:
    """Until they come there are none; the others stay."""
    assert usable(fetching) == 0
    plan = fetching.runtime.snapshot.plan

    assert fetching.runtime.renew(MESH, bundle(1))

    assert usable(fetching) == 1
    assert usable(fetching, "a.example") == 1
    assert fetching.engine.loaded[-1][0] is plan
    assert fetching.runtime.snapshot.trust is fetching.engine.loaded[-1][1]


def test_every_swap_keeps_the_enforcers(tmp_path: Path) -> None:
    """New keys must not make an enforcer an agent that asks about itself."""
    text = CONFIG.replace("{a.example: {bundle: {file: keys/bundle.json}}}", FETCHED)
    text = text.replace('main: {address: "127.0.0.1:0", insecure_dev: true}', MUTUAL)
    text += 'enforcers: [{name: crm, match: "spiffe://a.example/crm", asks: ["system:crm"]}]\n'
    made = Stage(tmp_path, text)
    made.runtime.load()
    made.runtime.renew(MESH, bundle(1))
    made.runtime.drop(MESH)
    made.write("bundle/policies/p.cedar", POLICY.format(id="two"))
    assert made.runtime.reload().changed

    names = [[peer.name for peer in peers] for peers in made.engine.peers]
    assert names == [["crm"]] * 4


def test_the_same_keys_again_swap_nothing(fetching: Stage) -> None:
    """Else each fetch would empty the caches."""
    document = bundle(1)
    fetching.runtime.renew(MESH, document)
    loaded = len(fetching.engine.loaded)

    assert not fetching.runtime.renew(MESH, document)
    assert len(fetching.engine.loaded) == loaded


@pytest.mark.parametrize("document", ["{", "{}", '{"keys": [7]}', bundle(4)])
def test_bad_keys_leave_those_before(fetching: Stage, document: str) -> None:
    """An earlier bundle is bad as well."""
    fetching.runtime.renew(MESH, bundle(5))
    before, loaded = fetching.runtime.snapshot, len(fetching.engine.loaded)

    with pytest.raises(TrustError):
        fetching.runtime.renew(MESH, document)

    assert fetching.runtime.snapshot is before
    assert len(fetching.engine.loaded) == loaded


def test_an_empty_bundle_takes_every_key_away(fetching: Stage) -> None:
    """Whatever it says of its sequence; and none leads back past it."""
    fetching.runtime.renew(MESH, bundle(5))

    assert fetching.runtime.renew(MESH, '{"keys":[]}')

    assert usable(fetching) == 0
    with pytest.raises(TrustError, match="lower `spiffe_sequence`"):
        fetching.runtime.renew(MESH, bundle(4))
    assert usable(fetching) == 0
    assert fetching.runtime.renew(MESH, bundle(6))
    assert usable(fetching) == 1


def test_a_reload_keeps_what_was_fetched(fetching: Stage) -> None:
    """Also what was dropped stays away."""
    fetching.runtime.renew(MESH, bundle(5))
    fetching.write("bundle/policies/p.cedar", POLICY.format(id="two"))
    assert fetching.runtime.reload().changed
    assert usable(fetching) == 1

    fetching.runtime.drop(MESH)

    assert usable(fetching) == 0
    fetching.write("bundle/policies/p.cedar", POLICY.format(id="three"))
    assert fetching.runtime.reload().changed
    assert usable(fetching) == 0
    with pytest.raises(TrustError, match="lower `spiffe_sequence`"):
        fetching.runtime.renew(MESH, bundle(4))
    assert fetching.runtime.renew(MESH, bundle(5))
    assert usable(fetching) == 1


def test_keys_that_the_engine_refuses_are_not_said_to_serve(fetching: Stage) -> None:
    """What is reported is what decides."""
    before = fetching.runtime.snapshot
    fetching.engine.raises = EngineError("no")

    with pytest.raises(EngineError):
        fetching.runtime.renew(MESH, bundle(1))
    assert fetching.runtime.snapshot is before


def test_an_earlier_bundle_in_a_file_does_not_replace_the_one_in_use(stage: Stage) -> None:
    """Nor does it hold up the rest of a reload."""
    stage.write("keys/bundle.json", bundle(5))
    assert stage.runtime.reload().changed
    revision = stage.engine.loaded[-1][1].revision
    stage.write("keys/bundle.json", bundle(4, "two"))
    assert stage.runtime.reload().changed

    _, trust, _ = stage.engine.loaded[-1]
    assert trust.revision == revision
    assert [domain.sequence for domain in trust.domains] == [5]
    assert "goes" not in stage.log.getvalue()
    assert any("spiffe_sequence" in warning for warning in trust.warnings)


def served(stage: Stage) -> list[tuple[str, int | None, int]]:
    """The bundle of each trust domain that the engine was given last: name, sequence, usable keys."""
    _, trust, _ = stage.engine.loaded[-1]
    return [(one.name, one.sequence, one.keys) for one in trust.domains]


def test_an_earlier_bundle_that_is_refused_is_used_for_nothing(stage: Stage) -> None:
    """Not for assertions of OAuth clients either, whose keys are compiled of the sources that serve."""
    stage.write("keys/bundle.json", bundle(5))
    stage.runtime.reload()
    used = stage.runtime.snapshot.trust_spec
    stage.write("keys/bundle.json", bundle(4, "two"))
    stage.runtime.reload()

    assert stage.runtime.snapshot.trust_spec == used
    assert '"spiffe_sequence": 5' in str(stage.runtime.current(SourceKey("domain", "a.example")))
    assert any("is older than an earlier one" in problem for problem in stage.sources.problems())
    assert any("one serves" in problem for problem in stage.sources.problems())
    stage.write("keys/bundle.json", bundle(6))
    stage.runtime.reload()
    assert list(stage.sources.problems()) == []


def test_new_keys_of_an_issuer_say_nothing_of_a_domain_with_the_same_name(tmp_path: Path) -> None:
    """The refusal of the domain's bundle stays shown."""
    issuer = "{issuer: 'https://idp', audience: [authz], algorithms: [ES256], jwks: {url: 'https://idp/keys'}}"
    domains = (
        "{a.example: {bundle: {file: keys/bundle.json}}, corp: {bundle: {file: keys/corp.json}}}"
    )
    text = CONFIG.replace("{a.example: {bundle: {file: keys/bundle.json}}}", domains)
    text = text.replace("identity:", f"  issuers: {{corp: {issuer}}}\nidentity:")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/corp.json").write_text(bundle(5))
    stage = Stage(tmp_path, text)
    stage.runtime.load()
    stage.write("keys/corp.json", bundle(4, "two"))
    stage.runtime.reload()
    assert any(
        "`corp` is older than an earlier one" in problem for problem in stage.sources.problems()
    )

    keys = json.dumps({"keys": [Key.make("x").jwk("sig")]})
    assert stage.runtime.renew(SourceKey("issuer", "corp"), keys)
    assert any(
        "`corp` is older than an earlier one" in problem for problem in stage.sources.problems()
    )
    assert stage.runtime.renew(SourceKey("domain", "corp"), bundle(6))
    assert not any(
        "is older than an earlier one" in problem for problem in stage.sources.problems()
    )


@pytest.mark.parametrize(
    "document", [bundle(4, "two"), json.dumps({"keys": [Key.make("x").jwk("jwt-svid")]})]
)
def test_an_earlier_bundle_is_refused_after_a_restart(stage: Stage, document: str) -> None:
    """One without a sequence too: none of its keys is used, until a newer one comes."""
    stage.write("keys/bundle.json", bundle(5))
    stage.runtime.reload()
    assert stage.engine.sequences == {"a.example": {"epoch": 0, "sequence": 5}}
    stage.write("keys/bundle.json", document)

    again = stage.restarted()
    again.runtime.load()

    assert served(again) == [("a.example", 5, 0)]
    assert any("none serves" in problem for problem in again.sources.problems())
    assert stage.engine.sequences["a.example"]["sequence"] == 5
    again.write("keys/bundle.json", bundle(5, "same"))
    assert again.runtime.reload().changed
    assert served(again) == [("a.example", 5, 1)]
    assert list(again.sources.problems()) == []


def test_an_earlier_bundle_is_not_fetched_after_a_restart(fetching: Stage) -> None:
    """It is refused as while the server ran, and says what to do where counting began anew."""
    fetching.runtime.renew(MESH, bundle(5))
    again = fetching.restarted()
    again.runtime.load()

    with pytest.raises(TrustError, match=r"b\.example\.bundle\.sequence_epoch"):
        again.runtime.renew(MESH, bundle(4))
    assert usable(again) == 0
    assert again.runtime.renew(MESH, bundle(6))
    assert usable(again) == 1


def test_an_operator_accepts_that_counting_began_anew(stage: Stage) -> None:
    """By `sequence_epoch`: once, and what follows is measured by the new count."""
    stage.write("keys/bundle.json", bundle(5))
    stage.runtime.reload()
    stage.write("keys/bundle.json", bundle(2))
    raised = CONFIG.replace("keys/bundle.json", "keys/bundle.json, sequence_epoch: 1")

    again = stage.restarted(raised)
    again.runtime.load()

    assert served(again) == [("a.example", 2, 1)]
    assert stage.engine.sequences == {"a.example": {"epoch": 1, "sequence": 2}}
    stage.write("keys/bundle.json", bundle(1))
    third = stage.restarted()
    third.runtime.load()
    assert served(third) == [("a.example", 2, 0)]


def test_no_bundle_is_used_before_it_is_known_which_is_the_newest(stage: Stage) -> None:
    """A store that cannot be read at the start lets no earlier bundle in; it is tried again."""
    stage.write("keys/bundle.json", bundle(5))
    stage.runtime.reload()
    stage.engine.store_fails = True
    stage.write("keys/bundle.json", bundle(4))
    again = stage.restarted()
    again.runtime.load()
    assert [keys for _, _, keys in served(again)] == [0]
    assert any("the store is down" in problem for problem in again.sources.problems())
    again.runtime.keep_sequences()
    assert [keys for _, _, keys in served(again)] == [0]
    readiness = Readiness(
        "1",
        "debug",
        runtime=again.runtime,
        sources=again.sources,
        engine=lambda: {"ready": True, "problems": []},
        insecure=[],
        started_at=0.0,
    )
    readiness.serving()
    assert not readiness.report().ready

    stage.engine.store_fails = False
    again.runtime.keep_sequences()

    assert readiness.report().ready
    assert served(again) == [("a.example", 5, 0)]
    again.write("keys/bundle.json", bundle(7))
    again.runtime.reload()
    assert served(again) == [("a.example", 7, 1)]
    assert list(again.sources.problems()) == []


def test_a_bundle_is_used_once_it_is_known_that_none_is_newer(stage: Stage) -> None:
    """Without another reload."""
    stage.engine.store_fails = True
    again = stage.restarted()
    again.runtime.load()
    assert [keys for _, _, keys in served(again)] == [0]

    stage.engine.store_fails = False
    again.runtime.keep_sequences()

    assert [keys for _, _, keys in served(again)] == [1]
    assert not again.runtime.reload().changed


def test_what_the_store_does_not_take_is_noted_later(stage: Stage) -> None:
    """The bundle serves meanwhile, and readiness says that it is not kept."""
    stage.engine.store_fails = True
    stage.write("keys/bundle.json", bundle(5))
    stage.runtime.reload()
    assert served(stage) == [("a.example", 5, 1)]
    assert stage.engine.sequences == {"a.example": {"epoch": 0, "sequence": 1}}
    assert any("the store is down" in problem for problem in stage.sources.problems())

    stage.engine.store_fails = False
    stage.runtime.keep_sequences()

    assert stage.engine.sequences == {"a.example": {"epoch": 0, "sequence": 5}}
    assert list(stage.sources.problems()) == []


class Keys:
    """Signing keys of a node that may join others."""

    is_joining = True

    def problems(self) -> Sequence[str]:
        """What is wrong."""
        return ("no key signs credentials; one will in 300 s",) if self.is_joining else ()

    def detail(self) -> list[dict[str, Any]]:
        """None."""
        return []


def test_a_node_that_joins_others_is_not_ready_until_it_can_issue(stage: Stage) -> None:
    """Later it stays ready without a key: decisions are made without one."""
    keys = Keys()
    readiness = Readiness(
        "1",
        "debug",
        runtime=stage.runtime,
        sources=stage.sources,
        engine=lambda: {"ready": True, "problems": []},
        insecure=[],
        started_at=0.0,
        keys=keys,
    )
    readiness.serving()

    assert not readiness.report().ready
    assert readiness.report().problems == tuple(keys.problems())
    keys.is_joining = False
    assert readiness.report().ready


OBSERVE = "mode: {{default: observe, owner: sec@corp.example, until: {until}}}\n"
DAY = 86_400.0


def test_a_mode_that_observes_for_too_long_is_refused(stage: Stage) -> None:
    """Seen from the time of loading: 90 days, whole days."""
    stage.write("bundle/mode.yaml", OBSERVE.format(until="1970-04-02"))
    assert "more than 90 days ahead. Say `until: 1970-04-01`" in str(
        stage.runtime.reload().diagnostics[0]
    )
    stage.write("bundle/mode.yaml", OBSERVE.format(until="1970-04-01"))
    assert stage.runtime.reload().changed


def test_what_is_observed_is_told_once_then_daily_in_the_last_week(stage: Stage) -> None:
    """By readiness too, and not once it has ended."""
    stage.write("bundle/mode.yaml", OBSERVE.format(until="1970-01-31T00:00:00Z"))
    assert stage.runtime.reload().changed
    reminder = ModeReminder(lambda: stage.runtime.snapshot.plan, stage.logger, lambda: stage.now)
    readiness = Readiness(
        "1",
        "debug",
        runtime=stage.runtime,
        sources=stage.sources,
        engine=lambda: {"ready": True, "problems": []},
        insecure=[],
        started_at=0.0,
        clock=lambda: stage.now,
    )
    readiness.serving()
    soon = (
        "mode: default observes until 1970-01-31T00:00:00Z, then denials are enforced "
        "(sec@corp.example)"
    )
    for day, said, problems, active in [
        (0.1, "the calls pass", [], True),
        (0.2, "", [], True),
        (22.9, "", [], True),
        (23.1, "observe ends soon", [soon], True),
        (23.2, "", [soon], True),
        (24.2, "observe ends soon", [soon], True),
        (30.0, "observe has ended", [], False),
        (40.0, "", [], False),
    ]:
        stage.now = day * DAY
        before = len(stage.log.getvalue())
        reminder.remind()
        log = stage.log.getvalue()[before:]
        assert said in log if said else not log, (day, log)
        report = readiness.report()
        assert list(report.problems) == problems
        assert report.detail["observing"][0]["active"] is active
    assert "1970-01-31T00:00:00Z" in stage.log.getvalue()
    assert readiness.report().detail["harnesses"] == []
    harness = "agents: {cli: {match: 'spiffe://a.example/ns/cli/sa/*', harness: true}}\n"
    stage.write("bundle/harness.yaml", harness)
    assert stage.runtime.reload().changed
    assert readiness.report().detail["harnesses"] == ["cli"]


def test_a_token_never_reaches_the_log() -> None:
    """Whatever is logged."""
    stream = io.StringIO()
    token = DevDomain.make("a.example", "https://idp").svid("/x", "authz")

    make_logger(Log(), stream).error(f"bad {token}", detail=token, error=f"({token})")

    assert token not in stream.getvalue()
    assert "eyJ" not in stream.getvalue()


SECRET = "s3cret-key-of-the-crm"
INJECTING = (
    CONFIG
    + """\
credentials:
  issuer: https://authz.example
  lifetime: {high: 30s}
  brokers:
    warehouse:
      kind: postgresql
      dsn_file: dsn
      systems: {dwh: {operations: {dwh.read: [{privileges: [SELECT], tables: [sales.orders]}]}}}
  static_secrets:
    legacy: {systems: [crm, erp], header: x-api-key, secret_file: secret}
"""
)


def write_secret(stage: Stage, text: str | None) -> None:
    """Writes the standing secret, or removes it."""
    file = stage.folder / "secret"
    if text is None:
        file.unlink()
        return
    file.touch(0o600)
    file.write_text(text)


@pytest.fixture
def injecting(tmp_path: Path) -> Stage:
    """A loaded world with a standing secret."""
    made = Stage(tmp_path, INJECTING)
    write_secret(made, SECRET)
    made.runtime.load()
    return made


def value(stage: Stage) -> str | None:
    """What the engine was told last of the secret."""
    told = stage.engine.credentials[-1]
    assert told is not None
    assert told["static_secrets"]["crm"] == told["static_secrets"]["erp"]
    found: str | None = told["static_secrets"]["crm"]["value"]
    return found


def test_the_engine_is_told_of_task_credentials_with_everything_else(injecting: Stage) -> None:
    """Every member, in seconds, whatever the configuration's unit."""
    (told,) = injecting.engine.credentials
    assert told == {
        "issuer": "https://authz.example",
        "audiences": {},
        "lifetime": {"low": 900, "standard": 300, "high": 30, "critical": 60},
        "dpop": {"window": 60, "max_proofs_per_key": 4096, "require_nonce": False},
        "static_secrets": {
            system: {"header": "x-api-key", "value": SECRET} for system in ("crm", "erp")
        },
        "leases": {"dwh": "warehouse"},
    }


def test_without_credentials_the_engine_is_told_of_none(stage: Stage) -> None:
    """As before there were any."""
    assert stage.engine.credentials == [None]


def test_a_secret_that_changes_is_loaded_again(injecting: Stage) -> None:
    """And only then."""
    assert not injecting.runtime.reload().changed
    assert len(injecting.engine.credentials) == 1
    write_secret(injecting, "another-key")
    assert injecting.runtime.reload().changed
    assert value(injecting) == "another-key"
    assert injecting.folder / "secret" in injecting.runtime.watched


@pytest.mark.parametrize("spoil", [None, "", "two\nlines\n"])
def test_a_secret_that_cannot_be_read_is_none(injecting: Stage, spoil: str | None) -> None:
    """Never the one before: whoever takes it away wants it gone."""
    write_secret(injecting, spoil)
    injecting.runtime.reload()
    assert value(injecting) is None
    assert injecting.static_secrets is not None
    (problem,) = injecting.static_secrets.problems()
    assert "secret" in problem
    write_secret(injecting, "another-key")
    injecting.runtime.reload()
    assert value(injecting) == "another-key"
    assert injecting.static_secrets.problems() == ()


def test_a_secret_that_others_can_read_is_none(injecting: Stage) -> None:
    """It says what to do."""
    (injecting.folder / "secret").chmod(0o644)
    injecting.runtime.reload()
    assert value(injecting) is None
    assert "chmod" in injecting.log.getvalue()


def test_a_secret_does_not_wait_for_a_bundle_that_is_refused(injecting: Stage) -> None:
    """A key that leaked goes at once."""
    injecting.write("bundle/policies/p.cedar", "no policy")
    write_secret(injecting, None)
    assert injecting.runtime.reload().failed
    assert value(injecting) is None


def test_a_secret_that_the_engine_did_not_take_is_handed_over_again(injecting: Stage) -> None:
    """What it was told last counts, not what was read last."""
    write_secret(injecting, "another-key")
    injecting.engine.raises = EngineError("not now")
    assert injecting.runtime.reload().failed
    injecting.engine.raises = None
    injecting.runtime.reload()
    assert value(injecting) == "another-key"


def test_a_node_starts_without_its_secret(tmp_path: Path) -> None:
    """The other systems are in reach."""
    made = Stage(tmp_path, INJECTING)
    made.runtime.load()
    assert value(made) is None


def test_no_secret_is_shown(injecting: Stage) -> None:
    """Neither in the log, nor in what tells how the node stands."""
    write_secret(injecting, "another-key")
    injecting.runtime.reload()
    assert injecting.static_secrets is not None
    shown = (
        injecting.log.getvalue(),
        repr(injecting.runtime.snapshot),
        repr(injecting.static_secrets.detail()),
        repr(list(injecting.static_secrets.families())),
    )
    for text in shown:
        assert SECRET not in text
        assert "another-key" not in text


SHADOWED = CONFIG + "shadow: {bundle: next}\n"


def shadowed(folder: Path) -> Stage:
    """Make a world whose configuration names a shadow bundle."""
    made = Stage(folder, SHADOWED)
    for name in ("bundle.yaml", "facts.yaml", "policies/p.cedar", "tests/t.yaml"):
        made.write(f"next/{name}", (folder / "bundle" / name).read_text())
    made.write("next/policies/p.cedar", POLICY.format(id="next"))
    return made


def shadow_loads(stage: Stage, result: str) -> float | None:
    """Read the counter of loads of the shadow bundle."""
    return stage.metrics.registry.get_sample_value("authz_shadow_load_total", {"result": result})


def test_a_shadow_bundle_is_given_to_the_engine_and_loaded_again_when_it_changes(
    tmp_path: Path,
) -> None:
    """Its change alone is a load, and what serves stays."""
    stage = shadowed(tmp_path)
    stage.runtime.load()
    (first,) = stage.engine.shadows
    assert first is not None
    assert stage.runtime.watched[1] == tmp_path / "next"

    stage.write("next/policies/p.cedar", POLICY.format(id="later"))
    assert stage.runtime.reload().changed
    first_plan, second_plan = (plan.digest for plan, _, _ in stage.engine.loaded)
    assert first_plan == second_plan
    assert stage.engine.shadows[1] not in {None, first}
    assert (shadow_loads(stage, "success"), shadow_loads(stage, "failure")) == (2, 0)
    assert not stage.runtime.reload().changed


def test_a_refused_shadow_bundle_disturbs_nothing_and_is_told(tmp_path: Path) -> None:
    """The bundle that serves is loaded as ever, and the shadow bundle before stays."""
    stage = shadowed(tmp_path)
    stage.write("next/policies/p.cedar", "this is no policy")
    stage.runtime.load()
    assert stage.engine.shadows == [None]
    (problem,) = stage.runtime.shadow.problems()
    assert problem.startswith("shadow bundle refused, there is none: policies/p.cedar:1")
    assert shadow_loads(stage, "failure") == 1

    stage.write("next/policies/p.cedar", POLICY.format(id="next"))
    assert stage.runtime.reload().changed
    good = stage.engine.shadows[-1]
    assert good is not None
    assert list(stage.runtime.shadow.problems()) == []

    # Its own tests count, too.
    stage.write("next/tests/t.yaml", TEST.format(expect="DENY"))
    stage.write("bundle/policies/p.cedar", POLICY.format(id="two"))
    assert stage.runtime.reload().changed
    assert stage.engine.shadows[-1] == good
    (problem,) = stage.runtime.shadow.problems()
    assert "the one before stays" in problem
    assert stage.runtime.shadow.detail()["digest"] == good
    assert stage.runtime.shadow.detail()["refused"]


def test_without_a_shadow_bundle_nothing_is_counted(stage: Stage) -> None:
    """A node without `shadow` shows no loads of it."""
    assert stage.engine.shadows == [None]
    assert shadow_loads(stage, "failure") is None
