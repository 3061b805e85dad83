"""Bundles against the corpus: what is decided reaches the play, and history is what is left out without it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from authz.bundle import compile_bundle, read_folder
from authz.engine import Plan
from authz.errors import BundleError
from authz.model import BundleFiles
from bench.detection import figures, measure, memory
from bench.detection.judge import NOW_MS, Judge, JudgeError
from bench.detection.scenario import (
    DOMAINS,
    FOLDER,
    Scenario,
    digest,
    domain,
    scenarios,
)
from bench.detection.simulate import Asked, play
from bench.detection.static import reads_history, split, static_part
from bench.detection.world import CorpusError
from tests.support.detecting import FACTS, NO_DATA_OUT, PERMITS, READ, bundle, mail, scenario

if TYPE_CHECKING:
    from pathlib import Path


def came(files: BundleFiles, one: Scenario) -> list[tuple[str, str, tuple[str, ...]]]:
    """Outcome, code and policies of each step."""
    run = measure.run(compile_bundle(files, {}, NOW_MS).plan, one)
    return [(answer.outcome, answer.code, answer.policies) for answer in run.answers]


@pytest.mark.parametrize("isolated", ["none", "per_subject", "per_task"])
def test_what_was_read_before_decides_in_a_later_task_as_far_as_it_is_remembered(
    isolated: str,
) -> None:
    """Each task of a scenario has a session of its own; what the agent remembers goes along."""
    one = scenario(
        mail("eve@evil.example"),
        READ,
        mail("eve@evil.example"),
        mail("marta@tidewater.example"),
        mail("eve@evil.example"),
        later=[{"first": 5, "prompt": "Again.", "params": {"mailbox": "dana@tidewater.example"}}],
    )
    permit = ("PERMIT", "PERMITTED", ("assistant-may", "people-may"))
    deny = ("DENY", "FORBIDDEN", ("no-data-out",))
    last = permit if isolated == "per_task" else deny
    files = memory.with_isolation(bundle(PERMITS + NO_DATA_OUT), isolated)
    assert came(files, one) == [permit, permit, deny, permit, last]


def test_what_is_held_or_denied_is_not_executed() -> None:
    """A step-up of the engine is one of the play."""
    held = """@id("ask") @stepup("approve") forbid(principal, action == Action::"mail.send_email", resource)
    unless { context.satisfied.contains(Kind::"approve") };"""
    one = scenario(mail("eve@evil.example"), READ)
    run = measure.run(compile_bundle(bundle(PERMITS + held), {}, NOW_MS).plan, one)
    assert run.played.stepups == (1,)
    assert not run.played.reached
    assert [answer.kinds for answer in run.answers] == [("approve",), ()]
    assert run.answers[0].destination_class == "other"


HELD = """@id("ask") @stepup("confirm") forbid(principal, action == Action::"mail.send_email", resource)
unless { context.destination.trusted } unless { context.satisfied.contains(Kind::"confirm") };
@id("twice") @stepup("approve") forbid(principal, action == Action::"mail.send_email", resource)
when { context.session.labels.contains(Label::"stranger") } unless { context.satisfied.contains(Kind::"approve") };
@id("never") forbid(principal, action == Action::"mail.send_email", resource)
when { context.input.subject == "Never" };"""


def test_a_careless_approver_agrees_to_what_is_held_and_to_nothing_else() -> None:
    """The step runs and is remembered as one that was permitted; what is denied stays denied."""
    read = {"call": "mail.read_email", "with": {"id": "m-bob-date"}}
    never = mail("eve@evil.example")
    never["with"]["subject"] = "Never"
    one = scenario(mail("eve@evil.example"), read, mail("bob@kestrel.example"), never)
    plan = compile_bundle(bundle(PERMITS + HELD), {}, NOW_MS).plan
    run = measure.run(plan, one)
    assert [answer.outcome for answer in run.answers] == ["STEP_UP", "PERMIT", "STEP_UP", "DENY"]
    assert run.played.stepups == (1, 3)
    careless = measure.run(plan, one, careless=True)
    assert [answer.outcome for answer in careless.answers] == ["PERMIT"] * 3 + ["DENY"]
    assert (careless.played.stepups, careless.played.denied_steps) == ((), (4,))
    assert sorted(careless.played.results) == [1, 2, 3]
    held = [answer.held for answer in careless.answers]
    assert [one and (one.kinds, one.policies) for one in held] == [
        (("confirm",), ("ask",)),
        None,
        (("approve",), ("twice",)),
        None,
    ]
    both = measure.run(plan, scenario(read, mail("eve@evil.example")), careless=True)
    assert both.answers[1].outcome == "PERMIT"
    assert both.answers[1].held is not None
    assert both.answers[1].held.kinds == ("approve", "confirm")


def test_a_careless_approver_agrees_to_calls_beyond_the_scope() -> None:
    """Where the template says that they wait for somebody to agree, and beside a policy that holds the call, too."""
    templates = {"mail": {**FACTS["templates"]["mail"], "scope": [{"system": "files"}]}}
    steps = (mail("eve@evil.example"), READ)
    one = scenario(*steps)
    plan = compile_bundle(bundle(PERMITS + HELD, templates=templates), {}, NOW_MS).plan
    assert [answer.code for answer in measure.run(plan, one, careless=True).answers] == [
        "OUT_OF_SCOPE",
        "PERMITTED",
    ]
    templates["mail"]["beyond"] = "step_up"
    plan = compile_bundle(bundle(PERMITS, templates=templates), {}, NOW_MS).plan
    run = measure.run(plan, one)
    assert run.played.stepups == (1,)
    assert [question[1] for question in run.questions()] == ["mail.send_email"]
    careless = measure.run(plan, one, careless=True)
    assert [answer.outcome for answer in careless.answers] == ["PERMIT", "PERMIT"]
    assert careless.questions() == run.questions()
    templates["mail"]["beyond"] = {"step_up": "approve"}
    plan = compile_bundle(bundle(PERMITS + HELD, templates=templates), {}, NOW_MS).plan
    careless = measure.run(plan, one, careless=True)
    assert [answer.outcome for answer in careless.answers] == ["PERMIT", "PERMIT"]
    assert careless.answers[0].held is not None
    assert set(careless.answers[0].held.kinds) == {"approve", "confirm"}


def test_nobody_agrees_to_a_better_credential() -> None:
    """A step-up that a person cannot meet stays a step-up."""
    held = """@id("proof") @stepup("reauth:gold") forbid(principal, action == Action::"mail.send_email", resource)
    unless { context.satisfied.contains(Kind::"reauth:gold") };"""
    plan = compile_bundle(bundle(PERMITS + held), {}, NOW_MS).plan
    run = measure.run(plan, scenario(mail("bob@kestrel.example")), careless=True)
    assert run.played.stepups == (1,)


def test_the_same_question_is_asked_once_a_task() -> None:
    """Other words are the same question; another recipient, another policy or another task is another."""
    first, second = mail("eve@evil.example"), mail("eve@evil.example")
    second["with"]["body"] = "Other words"
    again = {"first": 6, "prompt": "Again.", "params": {"mailbox": "dana@tidewater.example"}}
    one = scenario(
        first,
        second,
        mail("mallory@evil.example"),
        {"call": "mail.read_email", "with": {"id": "m-bob-date"}},
        mail("eve@evil.example"),
        mail("eve@evil.example"),
        later=[again],
    )
    plan = compile_bundle(
        memory.with_isolation(bundle(PERMITS + HELD), "per_task"), {}, NOW_MS
    ).plan
    run = measure.run(plan, one)
    assert run.played.stepups == (1, 2, 3, 5, 6)
    assert sorted(run.questions()) == [
        (0, "mail.send_email", ("ask",), '{"to": ["eve@evil.example"]}'),
        (0, "mail.send_email", ("ask",), '{"to": ["mallory@evil.example"]}'),
        (0, "mail.send_email", ("ask", "twice"), '{"to": ["eve@evil.example"]}'),
        (1, "mail.send_email", ("ask",), '{"to": ["eve@evil.example"]}'),
    ]
    assert measure.run(plan, one, careless=True).questions() == run.questions()


def test_the_prompt_says_which_destinations_are_trusted() -> None:
    """In each task that of its own."""
    named = """@id("named") forbid(principal, action == Action::"mail.send_email", resource)
    unless { context.destination.trusted };"""
    one = scenario(
        mail("bob@kestrel.example"),
        mail("eve@evil.example"),
        mail("eve@evil.example"),
        later=[
            {
                "first": 3,
                "prompt": "Write to eve@evil.example.",
                "params": {"mailbox": "dana@tidewater.example"},
            }
        ],
    )
    assert [outcome for outcome, *_ in came(bundle(PERMITS + named), one)] == [
        "PERMIT",
        "DENY",
        "PERMIT",
    ]


@pytest.mark.parametrize(("isolated", "last"), [("none", "FORBIDDEN"), ("per_task", "PERMITTED")])
def test_the_scenarios_clock_is_the_engines_and_a_task_that_is_over_is_given_again(
    isolated: str, last: str
) -> None:
    """A window ends within the task; past the deadline the session is another, and the agent remembers."""
    budgets = {"mails": {"count": "mail.send_email", "most": 1, "within": "10m"}}
    to = "bob@kestrel.example"
    one = scenario(mail(to), mail(to), mail(to, after="11m"), READ, mail(to, after="2h"))
    files = memory.with_isolation(bundle(PERMITS + NO_DATA_OUT, budgets=budgets), isolated)
    plan = compile_bundle(files, {}, NOW_MS).plan
    codes = [answer.code for answer in measure.run(plan, one).answers]
    assert codes == ["PERMITTED", "BUDGET_EXCEEDED", "PERMITTED", "PERMITTED", last]
    codes = [answer.code for answer in measure.run(plan, one, again=False).answers]
    assert codes == ["PERMITTED", "BUDGET_EXCEEDED", "PERMITTED", "PERMITTED", "TASK_ENDED"]


def test_a_task_that_ends_because_of_denials_stays_ended() -> None:
    """Nobody gives it again; a later task is another."""
    denied = [mail(f"eve{number}@evil.example") for number in range(2)]
    again = {"first": 5, "prompt": "Again.", "params": {"mailbox": "dana@tidewater.example"}}
    one = scenario(READ, *denied, READ, READ, later=[again])
    files = bundle(PERMITS + NO_DATA_OUT, denials={"end_after": 2})
    codes = [code for _, code, _ in came(files, one)]
    assert codes == ["PERMITTED", "FORBIDDEN", "FORBIDDEN", "REVOKED", "PERMITTED"]
    codes = [code for _, code, _ in came(static_part(files), one)]
    assert codes == ["PERMITTED"] * 5


def test_texts_reach_the_engine_as_they_are() -> None:
    """Also what would be a variable in a bundle, or mean something in YAML."""
    text = '${x} $${y} "quoted" \\ \u2028 {a: [b]} # é 🚢\n- :\t'
    only = """@id("other") forbid(principal, action == Action::"notes.save_note", resource)
    unless { context.input.text == "%s" };"""
    spelt = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    call = {"call": "notes.save_note", "with": {"topic": "n", "text": text}}
    policies = PERMITS + only % spelt.replace("${", "$${")
    assert came(bundle(policies), scenario(call))[0][0] == "PERMIT"
    call["with"] = {"topic": "n", "text": text + "x"}
    assert came(bundle(policies), scenario(call))[0][0] == "DENY"


def test_a_bundle_that_does_not_fit_is_told_apart_from_one_that_denies() -> None:
    """A task that cannot be started is a defect, and no denied step."""
    one = scenario(READ)
    started = 'forbid(principal, action == Action::"task:mail", resource);'
    plan = compile_bundle(bundle(f'{PERMITS} @id("none") {started}'), {}, NOW_MS).plan
    with pytest.raises(JudgeError, match=r"mail-tiny: the task cannot be started: .*FORBIDDEN"):
        measure.run(plan, one)
    template = {"template": FACTS["templates"]["mail"]}
    plan = compile_bundle(bundle(PERMITS, templates=template), {}, NOW_MS).plan
    with pytest.raises(JudgeError, match="the task cannot be started"):
        measure.run(plan, one)


def test_an_engine_that_contradicts_itself_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step is judged after all before it, which must come out as they did."""
    plan = compile_bundle(bundle(PERMITS + NO_DATA_OUT), {}, NOW_MS).plan
    one = scenario(READ, mail("eve@evil.example"), mail("eve@evil.example"))
    judge = Judge(plan, domain("mail"), one)
    played = play(one, judge.decide)
    assert played.denied_steps == (2, 3)
    before = [step if "start" in step else {**step, "expect": "PERMIT"} for step in judge._steps]
    monkeypatch.setattr(judge, "_steps", before)
    with pytest.raises(JudgeError, match="step 4: not judged, or earlier steps otherwise"):
        judge.decide(Asked(4, 0, "files.read_file", {"path": "/public/brochure.md"}, 9))


SPLIT = """// permit(principal, action, resource) when { context.session };
@id("a;b") permit(principal, action, resource); // context.uncleared_labels;
@id("permit") @reason("; \\" context.budgets ;")
forbid(principal, action, resource)
when { context /* no comment in Cedar */ . /**/ uncleared_labels.isEmpty() };
"""


def test_policies_are_told_apart_by_what_they_read() -> None:
    """Comments and texts are none of it, however a member is named."""
    policies = list(split(SPLIT.replace("/* no comment in Cedar */", "").replace("/**/", "")))
    assert [reads_history(one) for one in policies] == [False, True, False]
    assert "".join(policies) == SPLIT.replace("/* no comment in Cedar */", "").replace("/**/", "")
    for text in ('context["sequences"]', "context has session.labels", "context.budgets"):
        assert reads_history(f"forbid(principal, action, resource) when {{ {text} }};")
    for text in (
        "context.input.session",
        "resource.uncleared_labels",
        "context.tier",
        '"context.session"',
    ):
        assert not reads_history(f"forbid(principal, action, resource) when {{ {text} }};")


def test_without_history_only_that_is_gone() -> None:
    """What a label does to tiers, budgets, sequences, and what reads them; the rest judges as before."""
    history = """
    @id("order") forbid(principal, action, resource)
    when { context.sequences.contains(Sequence::"read-then-mail") };
    @id("labels") forbid(principal, action == Action::"mail.send_email", resource)
    when { context.session.labels.contains(Label::"stranger") };
    @id("never") forbid(principal, action == Action::"files.delete_file", resource);
    @id("tier") forbid(principal, action, resource) when { context.tier >= 2 };
    """
    whole = bundle(
        PERMITS + NO_DATA_OUT + history,
        sequences={"read-then-mail": {"never": "mail.send_email", "after": "files.read_file"}},
        budgets={"mails": {"count": "mail.send_email", "most": 1}},
    )
    steps = (READ, mail("eve@evil.example"), mail("eve@evil.example"))
    delete = {"call": "files.delete_file", "with": {"path": "/public/brochure.md"}}
    one = scenario(*steps, delete)
    assert [outcome for outcome, *_ in came(whole, one)] == ["PERMIT", "DENY", "DENY", "DENY"]
    left = static_part(whole)
    answers = came(left, one)
    assert [outcome for outcome, *_ in answers] == ["PERMIT", "PERMIT", "PERMIT", "DENY"]
    assert answers[3][2] == ("never",)
    kept = {name for name in left.files if left.files[name] != whole.files[name]}
    assert kept == {"facts.yaml", "policies/all.cedar"}
    labels = json.loads(left.files["facts.yaml"])["labels"]
    assert labels == {"inside": {"kind": "confidentiality"}, "stranger": {"kind": "trust"}}


def test_each_step_alone_was_preceded_by_nothing() -> None:
    """The bundle is whole, and nobody did anything before; what the prompt named stays named."""
    one = scenario(READ, mail("eve@evil.example"), mail("bob@kestrel.example"))
    named = """@id("named") forbid(principal, action == Action::"mail.send_email", resource)
    unless { context.destination.trusted };"""
    plan = compile_bundle(bundle(PERMITS + NO_DATA_OUT + named), {}, NOW_MS).plan
    said = [answer.because() for answer in measure.run(plan, one).answers]
    assert said == ["assistant-may, people-may", "named, no-data-out", "no-data-out"]
    said = [answer.because() for answer in measure.run(plan, one, remember=False).answers]
    assert said == ["assistant-may, people-may", "named", "assistant-may, people-may"]
    rule = {"never": "mail.send_email", "after": "files.read_file", "scope": "subject"}
    policy = """@id("never") forbid(principal, action == Action::"mail.send_email", resource)
    when { context.sequences.contains(Sequence::"never") };"""
    plan = compile_bundle(bundle(PERMITS + policy, sequences={"never": rule}), {}, NOW_MS).plan
    outcomes = [
        [answer.outcome for answer in measure.run(plan, one, remember=remember).answers]
        for remember in (True, False)
    ]
    assert outcomes == [["PERMIT", "DENY", "DENY"], ["PERMIT", "PERMIT", "PERMIT"]]


def test_facts_are_read_as_bundles_are() -> None:
    """YAML 1.2: `on` is a text, and so are dates and times."""
    facts = b"budgets: {}\nclassify: [{on: yes, at: 2026-11-25, 12:30: 07:14, n: -3, f: 1.5, t: true, z: ~, e: }]\n"
    left = static_part(BundleFiles("", {"a.yaml": facts}))
    assert json.loads(left.files["a.yaml"]) == {
        "classify": [
            {
                "on": "yes",
                "at": "2026-11-25",
                "12:30": "07:14",
                "n": -3,
                "f": 1.5,
                "t": True,
                "z": None,
                "e": None,
            }
        ]
    }


def test_a_permit_that_reads_history_has_no_static_part() -> None:
    """Nobody could say what is left of it."""
    permit = '@id("x") permit(principal, action, resource) when { context.session.calls < 3 };'
    with pytest.raises(CorpusError, match=r"policies/all.cedar: a permit reads .* @id\("):
        static_part(bundle(PERMITS + permit))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Scenario, ...]]:
    """A third of the domain `mail`: all of it takes a busy machine minutes."""
    kinds = {
        kind: tuple(
            one
            for at, one in enumerate(scenarios("mail", kind))
            if at % 3 == 0 or one.text_alone or one.id == "mail-two-in-one-field"
        )
        for kind in ("honest", "hijacked")
    }
    monkeypatch.setattr(measure, "scenarios", lambda _, kind: kinds[kind])
    return kinds


def test_figures_are_those_of_the_plays(few: dict[str, tuple[Scenario, ...]]) -> None:
    """Everything permitted: all attacks reach their goal. No mail at all: some do not, and honest tasks fail."""
    free = measure.measure("mail", bundle(PERMITS))
    honest, hijacked = few["honest"], few["hijacked"]
    assert (free["attacks"], free["attacks_reached"]) == (len(hijacked), len(hijacked))
    assert free["reached"] == [one.id for one in hijacked]
    assert (free["honest_tasks"], free["honest_reached"]) == (len(honest), len(honest))
    assert (free["honest_steps_denied"], free["step_ups"], free["honest_denied"]) == (0, 0, [])
    assert free["stopped_without_history"] == []
    policy = '@id("still") forbid(principal, action == Action::"mail.send_email", resource);'
    mute = measure.measure("mail", bundle(PERMITS + policy))
    assert 0 < mute["attacks_reached"] < len(hijacked)
    assert mute["attacks_reached_without_history"] == mute["attacks_reached"]
    assert mute["attacks_reached_each_step_alone"] == mute["attacks_reached"]
    sent = [step for one in honest for step in one.steps if step.call == "mail.send_email"]
    assert 0 < mute["honest_steps_denied"] <= len(sent)
    assert {one["operation"] for one in mute["honest_denied"]} == {"mail.send_email"}
    assert all(one["policies"] == ["still"] for one in mute["honest_denied"])
    assert mute["honest_reached"] < len(honest)
    # An attack writes to two addresses in one, which is no mailbox.
    assert set(mute["refusals_of_attacks"]) == {"still", "BAD_INPUT"}
    summed = figures.total([free, mute])
    assert summed["attacks"] == 2 * len(hijacked)
    assert summed["attacks_reached_share"] == round(
        (len(hijacked) + mute["attacks_reached"]) / (2 * len(hijacked)), 4
    )
    assert list(figures.table([free, mute]))[-1].startswith(f"| **all** | {2 * len(hijacked)} |")
    exfiltrating = [one for one in hijacked if "exfiltration" in one.classes]
    left = [one for one in exfiltrating if one.id in mute["reached"]]
    assert dict(figures.classes([free, mute]))["exfiltration"] == {
        "attacks": 2 * len(exfiltrating),
        "reached": len(exfiltrating) + len(left),
    }
    told = "\n".join(figures.told(mute))
    assert f"{len(mute['honest_denied'])} honest steps are denied" in told
    assert "mail.send_email: still" in told


def test_what_people_are_asked_and_agree_to_is_counted(
    few: dict[str, tuple[Scenario, ...]],
) -> None:
    """Nobody is asked, everything is denied, or every mail waits for somebody to agree."""
    free = measure.measure("mail", bundle(PERMITS))
    honest, hijacked = few["honest"], few["hijacked"]
    policy = '@id("still") forbid(principal, action == Action::"mail.send_email", resource);'
    mute = measure.measure("mail", bundle(PERMITS + policy))
    alone = [one.id for one in hijacked if one.text_alone]
    assert (free["attacks_undecidable"], free["attacks_decidable"]) == (
        alone,
        len(hijacked) - len(alone),
    )
    assert free["attacks_reached_decidable"] == len(hijacked) - len(alone)
    assert (free["questions"], free["honest_tasks_held"]) == (0, 0)
    assert mute["without_reports"] == {key: mute[key] for key in figures.OF_MODE}
    assert "without_reports" not in measure.measure("mail", bundle(PERMITS), reported=False)
    assert mute["careless"]["attacks_reached"] == mute["attacks_reached"]
    assert mute["careless"]["honest_steps_denied"] == mute["honest_steps_denied"]
    policy = """@id("ask") @stepup("confirm") forbid(principal, action == Action::"mail.send_email", resource)
    unless { context.satisfied.contains(Kind::"confirm") };"""
    asking = measure.measure("mail", bundle(PERMITS + policy))
    assert asking["attacks_reached"] == mute["attacks_reached"]
    assert asking["honest_tasks_held"] == len({one["scenario"] for one in asking["honest_held"]})
    assert 0 < asking["honest_tasks_held"] <= asking["questions"] <= asking["step_ups"]
    careless = asking["careless"]
    assert careless["reached"] == free["reached"]
    assert careless["attacks_reached_decidable"] == free["attacks_reached_decidable"]
    assert (careless["honest_reached"], careless["honest_steps_denied"]) == (len(honest), 0)
    assert careless["questions"] >= asking["questions"]
    row = list(figures.questions_table([free, asking]))[-1]
    assert row.startswith(f"| **all** | {2 * len(hijacked)} | {2 * (len(hijacked) - len(alone))} |")
    assert figures.total([free, asking])["attacks_undecidable"] == alone * 2
    assert figures.total([free, mute])["without_reports"]["attacks_reached"] == (
        free["attacks_reached"] + mute["attacks_reached"]
    )


@pytest.mark.usefixtures("few")
def test_results_are_written_for_all_domains_and_told_in_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle that is refused is a failure and leaves no result, and so is none; else a domain without one is left out."""
    file = tmp_path / "detection.json"
    monkeypatch.setattr(measure, "DOMAINS", ("mail",))
    monkeypatch.setattr(memory, "SEEDS", 1)
    monkeypatch.setattr(memory, "FLEET_USERS", 20)
    monkeypatch.setattr(measure, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["measure", "--results", str(file)])
    assert measure.main() == 1
    assert "mail has no bundle yet" in capsys.readouterr().err
    for path, content in bundle("permit(principal, action, resource);").files.items():
        target = tmp_path / "mail" / "bundle" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    assert measure.main() == 1
    assert "policies/all.cedar:1" in capsys.readouterr().err
    assert not file.exists()
    after = """@id("after-mail") forbid(principal, action, resource)
    when { context.session.labels.contains(Label::"stranger") };"""
    (tmp_path / "mail" / "bundle" / "policies" / "all.cedar").write_text(PERMITS + after)
    monkeypatch.setattr(measure, "DOMAINS", ("mail", "chat"))
    assert measure.main() == 0
    printed, told = capsys.readouterr()
    assert "chat has no bundle yet" in told
    assert f"results: {file}" in printed
    found = json.loads(file.read_text())
    assert found["corpus"] == digest()
    assert found["machine"]["revision"]
    assert found["memory"]["fleet"]["per_task"]["user_days"] == 20
    assert "| `isolated` | mail | all | 20 users |" in printed
    attacks, reached = found["attacks"], found["attacks_reached"]
    assert 0 < reached < found["attacks_reached_without_history"] == attacks
    assert found["attacks_reached_each_step_alone"] == attacks
    section = "\n".join(figures.section(found))
    assert "| `per_task` |" in section
    assert "**Questions, and what comes of a careless answer**" in section
    assert f"Without reports of what came of a call, {reached} attacks reach" in section
    assert "`mail-false-promise`" in section.partition("by words alone")[2].splitlines()[0]
    old = {key: value for key, value in found.items() if key != "careless"}
    assert "careless answer" not in "\n".join(figures.section(old))
    assert f"| **all** | {attacks} | {reached} | {attacks} | {attacks} |" in section
    first = found["domains"][0]["honest_denied"][0]
    assert f"- `after-mail`: `{first['scenario']}` {first['step']}" in section
    assert all(f"`{one}`" in section for one in found["domains"][0]["reached"])


@pytest.mark.parametrize("name", DOMAINS)
def test_the_bundle_of_a_domain_fits_what_it_is_played_with(name: str) -> None:
    """It compiles, its tests pass, its static part compiles, and a scenario can be played."""
    folder = FOLDER / name / "bundle"
    if not folder.is_dir():
        pytest.skip(f"{name} has no bundle yet")
    files = read_folder(folder)
    try:
        plans = [
            compile_bundle(files, {}, NOW_MS).plan,
            Plan.compile(static_part(files), {}, now_ms=NOW_MS),
        ]
    except BundleError as error:
        pytest.fail("\n".join(map(str, error.diagnostics)))
    assert plans[1].policy_count < plans[0].policy_count
    for plan in plans:
        for one in scenarios(name, "honest")[:1]:
            assert measure.run(plan, one).answers
