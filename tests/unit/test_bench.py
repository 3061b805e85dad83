"""The measurements measure what they say: workload, percentiles, thresholds, the README's table."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from authz.bundle import read_folder
from authz.engine import Plan
from bench import check, history, reload, shadow, table, tasks
from bench.analysis import bundle as analysis_bundle
from bench.analysis import figures as analysis_figures
from bench.analysis.bundle import Size
from bench.analysis.measure import Watch
from bench.load import bundle, checks, counters, credentials, matrix, remembering, requests
from bench.load.ghz import Load, LoadError, Sample, percentile, summary

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("policies", [16, 100, 1_000])
def test_bundle_holds_exactly_as_many_policies(tmp_path: Path, policies: int) -> None:
    """Operations grow with the policies; the number of policies is exact."""
    written = bundle.write(tmp_path, policies)
    texts = [file.read_text() for file in (tmp_path / "policies").glob("*.cedar")]
    ids = re.findall(r'@id\("([^"]+)"\)', "".join(texts))
    assert len(ids) == len(set(ids)) == policies
    assert len(written.operations) == (policies - 8) // 8


def test_four_of_sixteen_policies_read_principal() -> None:
    """Those that do not are judged once for the whole chain."""
    own = bundle.operation_policies("api000.op0")
    everywhere = bundle._GLOBAL_POLICIES.split("@id")[1:]
    assert len(own) == len(everywhere) == 8
    assert sum("principal in" in text for text in [*own, *everywhere]) == 4


def test_a_reload_is_compared_to_what_is_around_it() -> None:
    """So that a stall of the machine counts for one reload, and what starts too early for none."""
    sent = [Sample(at / 10, 1.0, "OK") for at in range(100)]
    pairs = reload.around([(2.0, 3.0), (5.0, 6.0), (9.5, 10.5)], sent, 1.0)
    spans = [
        [(round(min(times), 1), round(max(times), 1), len(times)) for times in part]
        for part in ([[one.at for one in which] for which in pair] for pair in pairs)
    ]
    assert spans == [
        [(2.0, 3.0, 11), (1.0, 4.9, 29)],
        [(5.0, 6.0, 11), (3.1, 9.4, 53)],
    ]


def _spec(folder: Path) -> checks.Spec:
    return checks.Spec(
        str(folder), policies=200, state="embedded", dsn=None, tasks=4, pairs=2, calls=20
    )


def test_checks_on_a_task_are_held_to_what_they_reserve(tmp_path: Path) -> None:
    """Each pair is a ratio, and a stateful permit on a task reserves where a stateless one does not."""
    found = checks.measure(_spec(tmp_path))
    assert [(row["check"], row["task"]) for row in found["rows"]] == [
        (kind, on_task) for kind in ("stateless", "stateful") for on_task in (False, True)
    ]
    assert [(one["ratio"], one["time"]) for one in found["ratios"]] == [
        (kind, name) for kind in ("stateless", "stateful") for name in checks.TIMES
    ]
    for row in found["rows"]:
        assert row["cpu_us"] > 0 < row["wall_us"]
    for one in found["ratios"]:
        assert len(one["pairs"]) == 2
        assert min(one["pairs"]) <= one["median"] <= max(one["pairs"])


def test_a_check_that_reserves_nothing_is_no_stateful_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is measured under a wrong name is not measured."""
    monkeypatch.setattr(bundle, "_classify", _classified_as_stateless)
    with pytest.raises(checks.CheckError, match="reserved 0, not 16"):
        checks.measure(_spec(tmp_path))


def _classified_as_stateless(systems: list[str], _: frozenset[str]) -> list[dict[str, object]]:
    return _CLASSIFY(systems, frozenset(systems))


_CLASSIFY = bundle._classify


def test_checks_that_are_denied_are_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A denial is cheaper than a permit."""
    refuses = '@id("none") forbid(principal, action in Action::"effect:read", resource);\n'
    monkeypatch.setattr(bundle, "_TASK_POLICIES", bundle._TASK_POLICIES + refuses)
    with pytest.raises(checks.CheckError, match="not permitted"):
        checks.measure(_spec(tmp_path))


def test_only_a_bundle_with_tasks_has_a_template(tmp_path: Path) -> None:
    """The servers' bundle is the same as ever; with tasks, every second system is stateless."""
    plain = bundle.write(tmp_path / "plain", 200)
    with_tasks = bundle.write(tmp_path / "tasks", 200, tasks=True)
    assert not plain.stateless
    assert not (tmp_path / "plain" / "templates.yaml").exists()
    assert with_tasks.operations == plain.operations
    assert {one.partition(".")[0] for one in with_tasks.stateless} == {"api001"}


def _remembering(folder: Path) -> checks.Spec:
    return checks.Spec(
        str(folder), policies=480, state="embedded", dsn=None, tasks=4, pairs=2, calls=20
    )


def test_checks_that_remember_are_held_to_what_they_change(tmp_path: Path) -> None:
    """Only what changes the session reserves; each kind is measured, alone and in a crowd."""
    found = remembering.measure(_remembering(tmp_path))
    assert [row["check"] for row in found["rows"]] == list(remembering.KINDS)
    assert {(one["ratio"], one["time"]) for one in found["ratios"]} == {
        (kind, name) for kind in ("reads", "changes") for name in remembering.TIMES
    }
    for row in found["rows"]:
        assert all(row[f"{name}_us"] > 0 for name in remembering.TIMES)


def test_a_check_that_changes_nothing_is_not_taken_for_one_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without labels and rules of its own an operation leaves nothing behind."""
    monkeypatch.setattr(remembering, "_LABELS", ())
    monkeypatch.setattr(remembering, "_SEQUENCES", {})
    conditions = dict.fromkeys(remembering.KINDS, "context.chain.depth > 8")
    monkeypatch.setattr(remembering, "_CONDITIONS", conditions)
    with pytest.raises(checks.CheckError, match="reserved 0, not 16"):
        remembering.measure(_remembering(tmp_path))


def test_what_rules_take_is_the_worse_of_both_sessions() -> None:
    """Of the same decision without rules nothing counts."""
    medians = {
        "0 rules, none completed": 10.0,
        "0 rules, ten completed": 11.0,
        "20 rules, none completed": 99.0,
        "1000 rules, none completed": 12.5,
        "1000 rules, ten completed": 13.0,
    }
    rows = [{"name": name, "median_us": median} for name, median in medians.items()]
    assert history.rules_us(rows) == 2.5


def test_the_extents_are_what_is_promised() -> None:
    """At least five pairs of 2,000 calls each."""
    assert tasks.WHOLE.pairs >= 5
    assert tasks.WHOLE.calls >= 2_000
    assert history.WHOLE.rounds >= 5
    assert history.WHOLE.sessions == (100_000, 1_000_000)


@pytest.mark.parametrize(("ratio", "met"), [(1.15, True), (1.16, False)])
def test_the_goal_of_a_ratio_is_of_its_state_only(ratio: float, met: bool) -> None:  # noqa: FBT001
    """What PostgreSQL costs is no miss of the embedded store's, and the worse of both times counts."""
    ratios = [
        {"ratio": "stateless", "state": state, "time": name, "median": median}
        for state, name, median in (
            ("embedded", "cpu", 1.0),
            ("embedded", "wall", ratio),
            ("postgresql", "wall", 9.0),
        )
    ]
    results = {"tasks": {"ratios": ratios, "memory_mb": 251.0}}
    verdicts = {one.id: one for one in check.judge(check.thresholds(ROOT / "bench"), results)}
    assert verdicts["task-stateless"].met is met
    assert verdicts["task-stateless"].where == "embedded wall"
    assert verdicts["state-memory"].met is False
    assert verdicts["state-open"].met is None


@pytest.mark.parametrize(("shadowed", "met"), [(1_600, True), (1_611, False)])
def test_the_goal_of_a_shadow_bundle_leaves_hashing_out(shadowed: int, met: bool) -> None:  # noqa: FBT001
    """Callgrind counts SHA-256 in software, which a server does not pay."""
    counted = {
        "plain": {"all": 1_500, "hashing": 500},
        "shadow": {"all": shadowed + 900, "hashing": 900},
    }
    figures = {"shadow": {"check_over_plain": shadow.ratio(counted)}}
    verdicts = {one.id: one for one in check.judge(check.thresholds(ROOT / "bench"), figures)}
    assert verdicts["shadow-check"].met is met
    assert verdicts["shadow-ext-authz"].met is None


@pytest.mark.parametrize("surface", list(requests.METHODS))
def test_requests_are_distinct(tmp_path: Path, surface: str) -> None:
    """No cache of whole requests could look good."""
    protos = requests.compile_protos(ROOT, tmp_path / "protos.binpb")
    creds = credentials.mint(tmp_path, 4)
    written = bundle.write(tmp_path / "bundle", 100)
    built = list(requests.messages(protos, surface, written, creds, 300))
    assert len(set(built)) == 300


def test_percentile_is_the_nearest_rank() -> None:
    """The p99 of 100 values is the 99th of them."""
    values = [float(value) for value in range(1, 101)]
    assert percentile(values, 0.99) == 99
    assert percentile(values, 0.5) == 50
    with pytest.raises(ValueError, match="no percentile"):
        percentile([], 0.5)


def test_summary_counts_failures() -> None:
    """A failed request is no answer."""
    seen = summary([Sample(0.0, 1.0, "OK"), Sample(1.0, 3.0, "Unavailable")])
    assert seen.errors == {"Unavailable": 1}
    assert seen.count == 2


def test_what_starts_while_connections_are_opened_is_no_percentile() -> None:
    """It counts in the rate alone."""
    sent = [Sample(5.0, 900.0, "OK"), Sample(5.05, 800.0, "OK"), Sample(5.1, 3.0, "OK")]
    assert summary(sent).p99_ms == 900
    seen = summary([*sent, Sample(6.0, 1_000.0, "OK")], warm_up=0.09)
    assert (seen.count, seen.p50_ms, seen.p99_ms) == (4, 3, 1_000)
    assert seen.rps == pytest.approx(2)


def _loaded(counted: list[dict[str, int]], monkeypatch: pytest.MonkeyPatch) -> matrix.Bench:
    """Two requests at a time, of which the server then counts what is said."""
    ghz: Any = SimpleNamespace(samples=lambda *_: [Sample(0.0, 1.0, "OK"), Sample(1.0, 3.0, "OK")])
    usage = SimpleNamespace(cpu_seconds=0.0, rss_mb=1.0)
    target: Any = SimpleNamespace(
        metrics="there", ports={"fast": 1}, process=SimpleNamespace(usage=lambda: usage)
    )
    monkeypatch.setattr(matrix, "scrape", lambda _: {})
    monkeypatch.setattr(counters, "decisions", lambda *_: counted.pop(0))
    monkeypatch.setattr(counters, "quantile", lambda *_: 0.001)
    return matrix.Bench(
        ghz,
        {},
        {(100, "check"): Path("data")},
        {100: target},
        {},
        lambda _: None,
    )


def test_the_saturation_is_that_of_now() -> None:
    """Half of what a machine took before it slowed down is more than half of what it takes."""
    case = matrix._Case("python", "check", [9_000.0] * 20 + [5_000.0, 5_200.0, 4_800.0])
    assert case.saturation() == 5_200.0
    case.rates.extend([5_000.0] * 2)
    assert case.saturation() == 5_000.0


def test_a_load_without_room_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said how often that was, and it may not be often."""
    full = {"permit PERMITTED": 1, "deny AUDIT_FULL": 1}
    bench = _loaded([full, {"permit PERMITTED": 2}], monkeypatch)
    assert bench.window("fast", "check", 100, Load(1, 0, 1.0)).seen.count == 2
    assert len(bench.retaken) == 1
    assert "AUDIT_FULL" in bench.retaken[0]
    with pytest.raises(LoadError, match="AUDIT_FULL"):
        _loaded([full] * 9, monkeypatch).window("fast", "check", 100, Load(1, 0, 1.0))


@pytest.mark.parametrize(
    "counted",
    [
        {"permit PERMITTED": 1, "deny NOT_PERMITTED": 1},
        {"permit PERMITTED": 1},
        {"deny AUDIT_FULL": 1, "deny NOT_PERMITTED": 1},
        {"permit PERMITTED": 2, "deny OVERLOADED": 1},
    ],
)
def test_a_wrong_answer_ends_the_run(
    counted: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does one that is lost."""
    bench = _loaded([counted, {"permit PERMITTED": 2}], monkeypatch)
    with pytest.raises(LoadError, match="all to be permitted"):
        bench.window("fast", "check", 100, Load(1, 0, 1.0))
    assert not bench.retaken


def _bucket(bound: str, value: float) -> tuple[tuple[str, frozenset[tuple[str, str]]], float]:
    return ("d_bucket", frozenset({("le", bound)})), value


def test_quantile_lies_in_its_bucket() -> None:
    """Half of a bucket's observations lie in its lower half."""
    before = dict([_bucket("1.0", 5), _bucket("2.0", 5), _bucket("+Inf", 5)])
    after = dict([_bucket("1.0", 55), _bucket("2.0", 105), _bucket("+Inf", 105)])
    assert counters.quantile(before, after, "d", 0.75) == pytest.approx(1.5)
    with pytest.raises(ValueError, match="counted nothing"):
        counters.quantile(after, after, "d", 0.99)


def test_quantile_beyond_the_last_bound_is_no_number() -> None:
    """Interpolation cannot make a slow server look fast."""
    after = dict([_bucket("1.0", 1), _bucket("+Inf", 100)])
    with pytest.raises(ValueError, match="last bound"):
        counters.quantile({}, after, "d", 0.99)


def _load(ratio: float, profile: str = "release") -> dict[str, Any]:
    machine = {
        "cpu": "x",
        "cores": 2,
        "kernel": "6",
        "date": "2026-01-01",
        "revision": "abc",
        "build_profile": profile,
        "versions": {"grpcio": "1", "python": "3"},
    }
    one = {"ratio": "cpu_to_floor", "lane": "python", "surface": "check", "median": ratio}
    return {"load": {"machine": machine, "rows": [], "ratios": [one]}}


@pytest.mark.parametrize(("ratio", "met"), [(1.35, True), (1.36, False)])
def test_a_miss_is_a_miss(ratio: float, met: bool) -> None:  # noqa: FBT001
    """The worst value counts, and what was not measured is not met."""
    verdicts = {one.id: one for one in check.judge(check.thresholds(ROOT / "bench"), _load(ratio))}
    assert verdicts["python-cpu"].met is met
    assert verdicts["fast-cpu"].met is None


def test_a_development_build_is_not_published() -> None:
    """Its figures say nothing."""
    with pytest.raises(table.TableError, match="dev build"):
        table.render([], _load(1.0, "dev"))


def test_the_pages_have_the_measured_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures are written from the results, never by hand."""
    results = check.results(ROOT / "bench" / "results")
    if "load" not in results:
        pytest.skip("nothing measured yet")
    text = table.PERFORMANCE.read_text()
    assert table.replaced(text, table.render(check.thresholds(ROOT / "bench"), results)) == text
    text = (ROOT / "README.md").read_text()
    line = table.render_line(results)
    assert table.replaced(text, line) == text
    assert line.count("\n") == 1
    monkeypatch.setattr("sys.argv", ["table", "--check"])
    assert table.main() == 0, capsys.readouterr().err


def test_the_line_of_the_readme_has_both_lanes_with_a_thousand_policies() -> None:
    """Other rows are not in it, and without those rows there is no line."""
    measured = _load(1.0)
    row = {"lane": "fast", "surface": "check", "policies": 1_000, "rps": 12_345.6, "p50_ms": 0.147}
    python = [{**row, "concurrency": calls, "rps": 777.7, "lane": "python"} for calls in (1, 64)]
    other = {**row, "concurrency": 64, "rps": 1.0, "policies": 100}
    measured["load"]["machine"]["cores"] = 2
    measured["load"]["rows"] = [{**row, "concurrency": 1}, *python, other]
    with pytest.raises(table.TableError, match="no rows of both lanes"):
        table.render_line(measured)
    measured["load"]["rows"].append({**row, "concurrency": 64})
    line = table.render_line(measured)
    assert "778 decisions a second" in line
    assert "fast lane 12,346 decisions a second and 0.15 ms" in line


def test_every_threshold_can_be_measured() -> None:
    """A threshold whose figure no result holds would never be missed."""
    results = check.results(ROOT / "bench" / "results")
    if not {"credentials", "history", "load", "micro", "reload", "tasks"} <= set(results):
        pytest.skip("nothing measured yet")
    for verdict in check.judge(check.thresholds(ROOT / "bench"), results):
        assert verdict.met is not None, verdict.line()
    json.dumps(results)


@pytest.mark.parametrize(
    ("goal", "profiles"),
    [("wheel", []), ("wheel-guided", ["profile-generate", "profile-use"]), ("bench-build", [])],
)
def test_only_the_guided_wheel_reads_a_profile(goal: str, profiles: list[str]) -> None:
    """A profile belongs to one rustc and one state of the sources, so the default build does without."""
    recipe = subprocess.run(
        ("make", "--dry-run", "--always-make", goal),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "maturin build" in recipe
    assert sorted(set(re.findall(r"-C(profile-\w+)=", recipe))) == profiles


@pytest.mark.parametrize("size", [Size(12, 60, 24), Size(25, 120, 50)])
def test_a_bundle_for_the_analyzer_has_its_size(tmp_path: Path, size: Size) -> None:
    """And one policy differs between the two that are compared."""
    analysis_bundle.write(tmp_path / "before", size)
    analysis_bundle.write(tmp_path / "after", size, changed=True)
    before = Plan.compile(read_folder(tmp_path / "before"), {})
    after = Plan.compile(read_folder(tmp_path / "after"), {})
    assert (before.policy_count, before.operation_count) == (size.policies, size.operations)
    texts = [
        {name: one.text for name, one in plan.describe().policies.items()}
        for plan in (before, after)
    ]
    assert [one for one in texts[0] if texts[0][one] != texts[1][one]] == ["agent-1"]


def test_figures_of_the_analyzer_stand_in_table_and_plot() -> None:
    """One point and one row for each size and run. Missing decisions stand beside the time that they saved."""
    run = {"questions": 1_000, "questions_cached": 0, "not_decided": 7}
    figures = {"cpu_seconds": 12.34, "seconds": 50.0, "peak_mb": 99}
    runs = {
        "cold": run | figures,
        "one_policy_changed": run | figures | {"questions_cached": 990},
        "diff": run | figures | {"cpu_seconds": 0.5},
    }
    sizes = [{"agents": agents, "operations": 60, "policies": 24, **runs} for agents in (12, 100)]
    facts = {"cores": 2, "cpu": "one", "date": "2026-12-01", "revision": "abc"}
    measured = {"machine": facts | {"build_profile": "release"}, "load": 9.5, "rows": sizes}
    written = analysis_figures.table(measured)
    assert (
        "| 12, 60, 24 | analysis, nothing kept | 1,000 | 7 | 12.3 s | 50.0 s | 99 MB |" in written
    )
    assert written.count("of which 10 are new") == 2
    picture = ET.fromstring(analysis_figures.plot(measured))
    name = "{http://www.w3.org/2000/svg}"
    assert len(picture.findall(f"{name}polyline")) == 3
    points = picture.findall(f"{name}circle")
    assert len(points) == 6
    heights = [float(point.attrib["cy"]) for point in points]
    assert heights[0] < heights[-1], "the longer run stands higher"


def test_the_memory_of_a_process_and_its_children_is_watched() -> None:
    """This one has a child that holds memory of its own."""
    code = "held = bytes(50_000_000); print('ready', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        watch = Watch(os.getpid())
        watch.sample()
        child.communicate(b"\n")
    assert watch.peak_bytes > 50_000_000
    assert watch.cpu_seconds > 0
