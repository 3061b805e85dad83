"""Days of honest work: how they are made up, and how questions in them are counted."""

import json
from collections import Counter
from typing import Any

import pytest

from authz.errors import BundleError
from authz.model import BundleFiles
from bench.detection import figures, memory
from bench.detection.judge import JudgeError
from bench.detection.memory import Day, Work
from bench.detection.scenario import DOMAINS, Scenario, domain, scenarios
from tests.support.detecting import NO_DATA_OUT, PERMITS, READ, bundle, mail, scenario

STRANGER = """@id("no-mail") @stepup("confirm") forbid(principal, action == Action::"mail.send_email", resource)
when { context.session.labels.contains(Label::"stranger") }
unless { context.satisfied.contains(Kind::"confirm") };"""
READS_MAIL = {"call": "mail.read_email", "with": {"id": "m-bob-survey"}}


def days(*works: tuple[str, Scenario], apart: int = 3600, open_for: int = 0) -> Day:
    """A day of tasks, each on behalf of a subject, one after the other."""
    made = [
        Work(subject, one, at * apart, at * apart + len(one.steps) + open_for)
        for at, (subject, one) in enumerate(works)
    ]
    return Day("mail", {subject: "dana" for subject, _ in works}, tuple(made))


@pytest.fixture
def honest(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Scenarios of a test's own, which are found by their ids."""
    known: dict[str, Scenario] = {}

    def add(identifier: str, *steps: Any) -> Scenario:
        known[identifier] = scenario(*steps, id=f"mail-{identifier}")
        return known[identifier]

    monkeypatch.setattr(memory, "scenarios", lambda *_: tuple(known.values()))
    monkeypatch.setattr(memory, "_played", memory._played.__wrapped__)
    return add


# --- how days are made up


@pytest.mark.parametrize("name", DOMAINS)
def test_a_day_is_eight_tasks_of_one_user_in_turn(name: str) -> None:
    """Different tasks, each after the one before has ended; the same for the same seed."""
    made = [memory.day(name, seed) for seed in range(memory.SEEDS)]
    for one in made:
        assert len(one.works) == memory.TASKS_A_DAY == len({work.scenario.id for work in one.works})
        (user,) = one.users
        assert {(work.subject, work.scenario.user) for work in one.works} == {(user, user)}
        for before, after in zip(one.works, one.works[1:], strict=False):
            assert before.at <= before.ends_at < after.at
        assert one.works[-1].ends_at < 24 * 3600
    assert made == [memory.day(name, seed) for seed in range(memory.SEEDS)]
    assert len({tuple(work.scenario.id for work in one.works) for one in made}) == len(made)


def test_a_fleet_is_many_users_of_whom_few_read_personal_data() -> None:
    """Everyone has a task; tasks of several users are open at any time; nobody else reads personal data."""
    made = memory.fleet(300)
    per_user = Counter(work.subject for work in made.works)
    readers = {work.subject for work in made.works if memory.reads(work.scenario, memory.PERSONAL)}
    others = [work.scenario for work in made.works if work.scenario.id != "mail-salary-letter"]
    assert not any(memory.reads(one, memory.RESTRICTED) for one in others)
    assert len(readers) == 3
    assert made.users.keys() == per_user.keys()
    assert {user: per_user[user] for user in readers} == dict.fromkeys(readers, 2)
    assert set(per_user.values()) == {1, 2}
    assert all(made.users[work.subject] == work.scenario.user for work in made.works)
    times = [work.at for work in made.works]
    assert times == sorted(times)
    middle = times[len(times) // 2]
    assert sum(work.at <= middle < work.ends_at for work in made.works) > 3
    assert made == memory.fleet(300)


def test_what_a_task_reads_is_known_by_where_it_lies() -> None:
    """The corpus has tasks that read personal data."""
    found = {one.id for one in scenarios("mail", "honest") if memory.reads(one, memory.PERSONAL)}
    assert "mail-salary-letter" in found
    assert "mail-answer-customer" not in found


def test_a_bundle_says_how_its_agents_are_isolated() -> None:
    """In either form of `agents`; all else stays, but for the tests."""
    agents: dict[str, Any] = {
        "assistant": ["spiffe://tidewater.example/agents/assistant"],
        "other": {"match": ["spiffe://tidewater.example/agents/other"]},
    }
    files = bundle(PERMITS, agents=agents).files
    before = BundleFiles("", {**files, "tests/own.yaml": b"tests: []"})

    after = memory.with_isolation(before, "per_task")

    assert json.loads(after.files["facts.yaml"])["agents"] == {
        "assistant": {"match": agents["assistant"], "isolated": "per_task"},
        "other": {"match": agents["other"]["match"], "isolated": "per_task"},
    }
    changed = {name for name in before.files if after.files.get(name) != before.files[name]}
    assert changed == {"facts.yaml", "tests/own.yaml"}
    assert "tests/own.yaml" not in after.files


# --- how they are judged


@pytest.mark.parametrize(
    ("kind", "own", "others"), [("none", 1, 1), ("per_subject", 1, 0), ("per_task", 0, 0)]
)
@pytest.mark.parametrize("open_for", [0, 600])
def test_what_a_task_read_counts_as_far_as_it_is_remembered(
    honest: Any, kind: str, own: int, others: int, open_for: int
) -> None:
    """In a later task of the same user, and of another user, whether it has ended or not."""
    reads = honest("reads", {"call": "files.read_file", "with": {"path": "/it/vpn.md"}})
    sends = honest("sends", mail("eve@elsewhere.example"))
    facts = bundle(PERMITS + NO_DATA_OUT)
    times = {"apart": 60, "open_for": open_for}

    same = memory.cost(facts, kind, [days(("dana", reads), ("dana", sends), **times)])
    other = memory.cost(facts, kind, [days(("dana", reads), ("rosa", sends), **times)])

    assert (same.denied, other.denied) == (own, others)
    assert (same.user_days, other.user_days) == (1, 2)
    assert same.told()["questions_per_user_day"] == own


def test_each_day_begins_without_a_history(honest: Any) -> None:
    """And their figures add up."""
    reads = honest("reads", {"call": "files.read_file", "with": {"path": "/it/vpn.md"}})
    sends = honest("sends", mail("eve@elsewhere.example"))
    facts = bundle(PERMITS + NO_DATA_OUT)

    found = memory.cost(facts, "none", [days(("dana", reads)), days(("dana", sends))])

    assert found == memory.Cost(user_days=2, tasks=2, steps=2)


def test_a_step_that_needs_a_refused_one_is_not_asked(honest: Any) -> None:
    """Nor one that needs that one; a step that is held is a question."""
    chain = honest(
        "chain",
        READS_MAIL,
        mail("bob@kestrel.example"),
        {"call": "mail.read_email", "with": {"id": "${2.id}"}},
        {"call": "notes.save_note", "with": {"topic": "a", "text": "${3.body}"}},
        READ,
    )

    found = memory.cost(bundle(PERMITS + STRANGER), "per_task", [days(("dana", chain))])

    assert (found.steps, found.step_ups, found.denied, found.not_asked) == (5, 1, 0, 2)
    assert found.codes == {"CONFIRM_REQUIRED": 1}


def test_more_refusals_are_counted_than_a_run_lists(honest: Any) -> None:
    """The engine lists two hundred."""
    sends = honest("sends", *[mail("bob@kestrel.example")] * 70)
    never = '@id("x") forbid(principal, action == Action::"mail.send_email", resource);'
    works = [("dana", sends)] * 4

    found = memory.cost(bundle(PERMITS + never), "per_task", [days(*works)])

    assert (found.denied, found.steps) == (280, 280)
    assert found.codes == {"FORBIDDEN": 280}


def test_a_task_that_ends_because_of_denials_is_counted_as_it_is(honest: Any) -> None:
    """Its later steps are denied, and its end finds it ended."""
    tries = honest("tries", *[mail(f"a{number}@kestrel.example") for number in range(4)])
    never = '@id("x") forbid(principal, action == Action::"mail.send_email", resource);'
    facts = bundle(PERMITS + never, denials={"end_after": 2})

    found = memory.cost(facts, "per_task", [days(("dana", tries))])

    assert found.denied == 4
    assert found.codes["FORBIDDEN"] == 2
    assert sum(found.codes.values()) == 4


def test_a_bundle_that_does_not_fit_is_told() -> None:
    """One that starts no task of the kind, and one that is refused."""
    one = Day("mail", {"dana": "dana"}, (Work("dana", scenarios("mail", "honest")[0], 0, 9),))
    other = {"other": {"purpose": "x", "deadline": "1h", "scope": [{"system": "mail"}]}}
    with pytest.raises(JudgeError, match="start 0"):
        memory.cost(bundle(PERMITS, templates=other), "per_task", [one])
    with pytest.raises(BundleError):
        memory.cost(bundle("permit(principal, action, resource);"), "per_task", [one])


def test_a_day_that_never_settles_is_an_error(honest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than that it runs for ever."""
    sends = honest("sends", mail("bob@kestrel.example"))
    monkeypatch.setattr(memory, "_MOST_RUNS", 3)
    monkeypatch.setattr(memory._Judged, "_run", lambda *_: True)
    with pytest.raises(JudgeError, match="each of 3 runs"):
        memory.cost(bundle(PERMITS), "per_task", [days(("dana", sends))])


def test_figures_of_all_domains_and_of_the_fleet_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row for each kind; the fleet where its domain is there."""
    monkeypatch.setattr(memory, "SEEDS", 1)
    monkeypatch.setattr(memory, "FLEET_USERS", 20)
    never = '@id("x") forbid(principal, action == Action::"mail.send_email", resource);'

    found = memory.measure({"mail": bundle(PERMITS + never)})

    assert found["days"] == found["domains"]["mail"]
    assert found["days"].keys() == found["fleet"].keys() == {*memory.KINDS}
    assert found["fleet"]["none"]["user_days"] == 20
    assert found["fleet"]["none"]["denied"] > 0
    lines = list(figures.memory_table(found))
    assert lines[0] == "| `isolated` | mail | all | 20 users |"
    assert [line.split(" ")[1] for line in lines[2:]] == [f"`{kind}`" for kind in memory.KINDS]


def test_users_of_a_domain_have_enough_tasks_for_a_day() -> None:
    """At least one has; the choice is among these."""
    for name in DOMAINS:
        assert memory.day(name, 0).users.keys() <= domain(name).users.keys()
