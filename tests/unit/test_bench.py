"""The measurements measure what they say: workload, percentiles, thresholds, the README's table."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench import check, table
from bench.load import bundle, counters, credentials, requests
from bench.load.ghz import Sample, percentile, summary

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


def test_the_readme_says_what_was_measured() -> None:
    """The table is written from the results, never by hand."""
    results = check.results(ROOT / "bench" / "results")
    if "load" not in results:
        pytest.skip("nothing measured yet")
    text = (ROOT / "README.md").read_text()
    assert table.replaced(text, table.render(check.thresholds(ROOT / "bench"), results)) == text


def test_every_threshold_can_be_measured() -> None:
    """A threshold whose figure no result holds would never be missed."""
    results = check.results(ROOT / "bench" / "results")
    if set(results) != {"load", "micro", "reload"}:
        pytest.skip("nothing measured yet")
    for verdict in check.judge(check.thresholds(ROOT / "bench"), results):
        assert verdict.met is not None, verdict.line()
    json.dumps(results)
