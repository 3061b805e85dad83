"""`authz replay`: denominators, categories, damaged and changed logs, and what cannot be replayed."""

import gzip
import json
import shutil
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from authz.cli import main
from tests.support.cases import BUNDLES, VARIABLES
from tests.support.minting import Authority
from tests.support.replaying import compiled, log_of, plan
from tests.support.server import bundle_files

BUNDLE = "desk"
Edit = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Lines of a log of the bundle."""
    return log_of(plan(BUNDLE), BUNDLE, Authority(), tmp_path_factory.mktemp("log") / "node")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundle, to change."""
    made = tmp_path / "new"
    for name, content in bundle_files(BUNDLES / BUNDLE).items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(content)
    return made


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Run the command; return its exit code and its two outputs."""
    values = [f"--var={name}={value}" for name, value in VARIABLES.items()]
    with pytest.raises(SystemExit) as ended:
        main(["replay", *values, *(str(one) for one in arguments)])
    code = ended.value.code
    out = capsys.readouterr()
    return code if isinstance(code, int) else 0, out.out, out.err


def document(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    """Return the result as JSON."""
    code, out, err = run(capsys, "--format", "json", *arguments)
    assert code == 0, err
    read: dict[str, Any] = json.loads(out)
    counts = read["counts"]
    whole = ("node_records", "sums", "repeated", "left_out", "probes", "decisions")
    assert counts["records"] == sum(counts[name] for name in whole)
    assert counts["decisions"] == counts["replayed"] + counts["not_replayed"]
    changes = ("equal", "newly_permitted", "newly_held", "newly_denied", "other_change")
    assert counts["replayed"] == sum(counts[name] for name in changes)
    return read


def written(path: Path, lines: list[bytes]) -> Path:
    """Write a log."""
    path.write_bytes(b"".join(lines))
    return path


def judged(line: bytes) -> bool:
    """Return whether policies judged the call of a record."""
    return b'"facts":' in line


def edited(line: bytes, edit: Edit) -> bytes:
    """Return a line with a change."""
    fields = json.loads(line)
    edit(fields)
    return json.dumps(fields).encode() + b"\n"


def test_the_same_bundle_changes_nothing(
    log: list[bytes], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything is equal, or is listed with the reason for which it was not replayed."""
    path = written(tmp_path / "a.jsonl", log)
    read = document(capsys, "--log", path, "--bundle", folder)
    assert read["changes"] == []
    assert read["counts"]["equal"] > 0
    assert {gap["reason"] for gap in read["not_replayed"]} <= {
        "no_call",
        "not_judged",
        "of_approval",
        "stopped_later",
        "facts_missing",
    }
    assert read["counts"]["decisions"] > read["counts"]["not_replayed"]


def test_a_new_forbid_flips_what_it_forbids(
    log: list[bytes], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Permits become denials by the new policy; `--fail-on` says so with exit code 2, and only for its category."""
    permits = [line for line in log if b'"outcome":"PERMIT"' in line and judged(line)]
    path = written(tmp_path / "a.jsonl", log)
    (folder / "policies" / "added.cedar").write_text(
        '@id("nothing") forbid(principal, action, resource);'
    )
    read = document(capsys, "--log", path, "--bundle", folder, "--against", BUNDLES / BUNDLE)
    assert read["counts"]["newly_denied"] >= len(permits) > 0
    assert read["counts"]["newly_permitted"] == 0
    assert {
        one["after"]["policies"][0] for one in read["changes"] if one["category"] == "newly_denied"
    } == {"nothing"}
    options = ("--log", path, "--bundle", folder, "--against", BUNDLES / BUNDLE)
    assert run(capsys, *options, "--fail-on", "newly-denied")[0] == 2
    assert run(capsys, *options, "--fail-on", "newly-permitted")[0] == 0
    assert (
        run(capsys, *options, "--fail-on", "newly-permitted", "--fail-on", "newly-denied")[0] == 2
    )
    assert run(capsys, *options, "--fail-on", "everything")[0] == 1


def test_diff_of_two_bundles(
    log: list[bytes], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`authz diff` has the same result as a replay against the old bundle."""
    path = written(tmp_path / "a.jsonl", log)
    (folder / "policies" / "added.cedar").write_text(
        '@id("nothing") forbid(principal, action, resource);'
    )
    read = document(capsys, "--log", path, "--bundle", folder, "--against", BUNDLES / BUNDLE)
    values = [f"--var={name}={value}" for name, value in VARIABLES.items()]
    words = ["diff", *values, str(BUNDLES / BUNDLE), str(folder), "--log", str(path), "--no-proof"]
    for more, code in (
        ([], 0),
        (["--fail-on", "newly-denied"], 2),
        (["--fail-on", "not-replayed"], 2),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--format", "json", *more])
        assert (ended.value.code or 0) == code
        assert json.loads(capsys.readouterr().out) == {"replay": read}
    for wrong in (["--no-proof"], ["--fail-on", "not-replayed"]):
        with pytest.raises(SystemExit) as ended:
            main(["diff", str(folder), str(folder), *wrong])
        assert ended.value.code == 1


NOTHING = "forbid(principal, action, resource);"
UNTIL = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
OBSERVED = f'@id("nothing") @mode("observe; owner=ops; until={UNTIL}") {NOTHING}'
ENFORCED = f'@id("nothing") {NOTHING}'


def with_policy(text: str) -> dict[str, bytes]:
    """Return the files of the bundle, with one more policy."""
    return {**bundle_files(BUNDLES / BUNDLE), "policies/added.cedar": text.encode()}


@pytest.fixture(scope="module")
def observed_log(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Lines of a log of the bundle with an observed forbid of every call."""
    folder = tmp_path_factory.mktemp("observed") / "node"
    return log_of(compiled(with_policy(OBSERVED)), BUNDLE, Authority(), folder)


def outcomes(lines: list[bytes], member: str = "result") -> Counter[str]:
    """Count the outcomes of judged calls, of the answer or of a member of the result."""
    results = [json.loads(line)["result"] for line in lines if judged(line)]
    if member != "result":
        results = [one[member] for one in results if member in one]
    return Counter(one["outcome"] for one in results)


def test_an_observed_policy_changes_nothing(
    observed_log: list[bytes], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither where it was recorded, nor where the new bundle has it."""
    assert outcomes(observed_log)["PERMIT"] > 0
    assert any(b'"observed":' in line for line in observed_log)
    path = written(tmp_path / "a.jsonl", observed_log)
    without = document(capsys, "--log", path, "--bundle", folder)
    assert without["changes"] == []
    (folder / "policies" / "added.cedar").write_text(OBSERVED)
    read = document(capsys, "--log", path, "--bundle", folder)
    assert read["changes"] == []
    assert read["counts"]["equal"] == without["counts"]["equal"] > 0


def test_an_observed_policy_that_is_enforced_denies(
    observed_log: list[bytes], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each recorded permit that the policy would have denied is newly denied, by that policy."""
    before = folder.with_name("before")
    shutil.copytree(folder, before)
    (before / "policies" / "added.cedar").write_text(OBSERVED)
    (folder / "policies" / "added.cedar").write_text(ENFORCED)
    path = written(tmp_path / "a.jsonl", observed_log)
    read = document(capsys, "--log", path, "--bundle", folder, "--against", before)
    assert read["counts"]["newly_denied"] >= outcomes(observed_log)["PERMIT"] > 0
    assert read["counts"]["newly_permitted"] == read["counts"]["newly_held"] == 0
    denied = [one for one in read["changes"] if one["category"] == "newly_denied"]
    assert {policy for one in denied for policy in one["after"]["policies"]} == {"nothing"}


def test_a_shadow_bundle_of_the_node_has_no_part(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recorded answers are those of the bundle that served. A replay by the shadow bundle finds what its node counted."""
    shadow = compiled(with_policy(ENFORCED))
    lines = log_of(plan(BUNDLE), BUNDLE, Authority(), tmp_path / "node", shadow)
    permits = outcomes(lines)["PERMIT"]
    assert outcomes(lines, "shadow")["DENY"] >= permits > 0
    path = written(tmp_path / "a.jsonl", lines)
    served = document(capsys, "--log", path, "--bundle", folder)
    assert served["changes"] == []
    assert served["counts"]["equal"] > 0
    (folder / "policies" / "added.cedar").write_text(ENFORCED)
    read = document(capsys, "--log", path, "--bundle", folder, "--against", BUNDLES / BUNDLE)
    not_found = outcomes(lines, "shadow")["DENY"] - read["counts"]["newly_denied"]
    assert 0 <= not_found <= read["counts"]["not_replayed"]
    assert read["counts"]["newly_denied"] >= permits
    assert read["counts"]["newly_permitted"] == 0


def test_formats(
    log: list[bytes], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Text and Markdown have the counts and the tables."""
    path = written(tmp_path / "a.jsonl", log)
    (folder / "policies" / "added.cedar").write_text(
        '@id("nothing") forbid(principal, action, resource);'
    )
    text = run(capsys, "--log", path, "--bundle", folder)[1]
    assert "newly denied" in text
    assert "not replayed" in text
    markdown = run(capsys, "--log", path, "--bundle", folder, "--format", "markdown")[1]
    assert markdown.startswith("### Replay: 0 newly permitted")
    assert "\n|---|" in markdown
    assert run(capsys, "--log", path, "--bundle", folder, "--format", "csv")[0] == 1


def test_damaged_and_huge_lines_are_told(
    log: list[bytes], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are counted and named; the records around them are replayed."""
    good = [line for line in log if judged(line)][:2]
    lines = [
        good[0],
        b"{ this is not JSON\n",
        b'{"pad": "' + b"x" * 1_100_000 + b'"}\n',
        b"[]\n",
        good[1],
        good[0][:40],
    ]
    path = written(tmp_path / "a.jsonl", lines)
    code, out, err = run(capsys, "--log", path, "--bundle", folder, "--format", "json")
    counts = json.loads(out)["counts"]
    assert (code, counts["records"], counts["decisions"], counts["damaged_lines"]) == (0, 2, 2, 4)
    for number in (2, 3, 4, 6):
        assert f"a.jsonl:{number}" in err


def test_records_that_are_no_calls_are_left_out(
    log: list[bytes], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records of the node, sums, repeated records, probes and filtered decisions are counted apart."""
    good = [line for line in log if judged(line)][:3]

    def probe(fields: dict[str, Any]) -> None:
        fields["input"]["mode"] = "PROBE"
        fields["decision_id"] = "other"

    node = json.dumps({"decision_id": "n", "loaded": {}}).encode() + b"\n"
    sums = json.dumps({"decision_id": "s", "sum": {"count": 7}, "result": {}}).encode() + b"\n"
    lines = [*good, good[0], node, sums, edited(good[0], probe)]
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(lines)))
    counts = document(capsys, "--log", path, "--bundle", folder)["counts"]
    assert (counts["node_records"], counts["sums"], counts["repeated"], counts["probes"]) == (
        1,
        1,
        1,
        1,
    )
    assert counts["decisions"] == 3
    none = document(capsys, "--log", path, "--bundle", folder, "--operation", "nothing.*")["counts"]
    assert (none["decisions"], none["left_out"]) == (0, 4)
    early = document(capsys, "--log", path, "--bundle", folder, "--until", "2020-01-01")["counts"]
    # Decisions outside the span are not compared with each other.
    assert (early["decisions"], early["left_out"]) == (0, 6)


def set_member(pointer: str, value: Any) -> Edit:
    """Return what sets a member of a record."""

    def edit(fields: dict[str, Any]) -> None:
        *path, last = pointer.split("/")
        part: Any = fields
        for name in path:
            part = part.setdefault(name, {})
        part[last] = value

    return edit


def drop(pointer: str) -> Edit:
    """Return what removes a member of a record."""

    def edit(fields: dict[str, Any]) -> None:
        *path, last = pointer.split("/")
        part: Any = fields
        for name in path:
            part = part[name]
        part.pop(last, None)

    return edit


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (set_member("result/outcome", "DENY"), "not_reproduced"),
        (set_member("result/policies", ["other"]), "not_reproduced"),
        (set_member("result/reason_code", "LATER_CODE"), "unknown_code"),
        (set_member("result/outcome", "PERHAPS"), "unknown_code"),
        (set_member("result/step", "record"), "stopped_later"),
        (set_member("result/reason_code", "APPROVAL_REJECTED"), "of_approval"),
        (set_member("result/tier", "colossal"), "facts_unreadable"),
        (set_member("input/chain", "bot"), "facts_unreadable"),
        (set_member("input/chain", [{"kind": "Robot", "id": "x"}]), "facts_unreadable"),
        (set_member("input/checks", []), "facts_unreadable"),
        (set_member("input/checks", {"refused": "LATER"}), "facts_unreadable"),
        (set_member("input/facts/destination", "far"), "facts_unreadable"),
        (set_member("input/facts/origins", {"recipient": ["later"]}), "facts_unreadable"),
        (set_member("input/resource", "sha256:00"), "resource_changed"),
        (set_member("input/operation", "bank.pay"), "operation_missing"),
        (set_member("timestamp", "yesterday"), "facts_unreadable"),
        (drop("input/facts"), "no_facts"),
    ],
)
def test_changed_records_are_never_unchanged(
    edit: Edit,
    reason: str,
    log: list[bytes],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A record that somebody changed, or that another version wrote, is listed with the reason."""
    good = next(line for line in log if judged(line) and b'"outcome":"PERMIT"' in line)
    path = written(folder.with_name("a.jsonl"), [edited(good, edit)])
    read = document(capsys, "--log", path, "--bundle", folder)
    assert [gap["reason"] for gap in read["not_replayed"]] == [reason]
    assert read["counts"]["equal"] == 0


def test_unknown_members_do_not_matter(
    log: list[bytes], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A later version may write more members than this one knows."""
    good = next(line for line in log if judged(line) and b'"outcome":"PERMIT"' in line)

    def more(fields: dict[str, Any]) -> None:
        fields["later"] = {"x": 1}
        fields["input"]["later"] = [1]
        fields["input"]["facts"]["later"] = {"y": True}

    path = written(tmp_path / "a.jsonl", [edited(good, more)])
    assert document(capsys, "--log", path, "--bundle", folder)["counts"]["equal"] == 1


def erased(value: Any) -> Any:
    """Return a value with each text and each digest of a text erased."""
    if isinstance(value, dict):
        return {name: erased(member) for name, member in value.items()}
    if isinstance(value, list):
        return [erased(item) for item in value]
    return f"salted:{'0' * 64}" if isinstance(value, str) else value


def test_erased_texts_are_missing(
    log: list[bytes], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The digest of an erased text is no text: a policy that reads it is open, and every other answer is equal."""

    def erase(fields: dict[str, Any]) -> None:
        fields["input"]["arguments"] = erased(fields["input"]["arguments"])
        if "destination" in fields["input"]["facts"]:
            fields["input"]["facts"]["destination"]["host"] = f"salted:{'0' * 64}"

    lines = [edited(line, erase) for line in log if judged(line)]
    read = document(capsys, "--log", written(tmp_path / "a.jsonl", lines), "--bundle", folder)
    assert read["changes"] == []
    assert read["counts"]["equal"] > 0
    assert {gap["reason"] for gap in read["not_replayed"]} <= {"facts_missing", "of_approval"}


def test_records_of_a_version_without_checks_are_not_guessed(
    log: list[bytes], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A permit of a tier that asks for a proof is open where the record does not have the proof."""
    lines = [edited(line, drop("input/checks")) for line in log if judged(line)]
    read = document(capsys, "--log", written(tmp_path / "a.jsonl", lines), "--bundle", folder)
    assert read["changes"] == []
    missing = [gap for gap in read["not_replayed"] if gap["reason"] == "facts_missing"]
    assert all(gap["may_admit"] + gap["never_admits"] == gap["times"] for gap in missing)


def test_a_bundle_of_other_systems_says_nothing(
    log: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Decisions about systems that the bundle lacks are listed, and none counts as newly denied."""
    path = written(tmp_path / "a.jsonl", [line for line in log if judged(line)])
    other = Path(__file__).parents[2] / "examples" / "cookbook" / "read-only-agent"
    read = document(capsys, "--log", path, "--bundle", other)
    missing = [gap for gap in read["not_replayed"] if gap["reason"] == "operation_missing"]
    assert sum(gap["times"] for gap in missing) > 0
    assert all("the bundle has no operation" in gap["message"] for gap in missing)
    lacking = {name for gap in missing for name in gap["operations"]}
    assert lacking.isdisjoint(one["operation"] for one in read["changes"])


def test_definitions_that_changed_are_unknown_without_the_old_bundle(
    log: list[bytes], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A policy that reads what the bundle defines anew is open; with the old bundle, unchanged parts are known."""
    path = written(tmp_path / "a.jsonl", [line for line in log if judged(line)])
    manifest = folder / "bundle.yaml"
    manifest.write_text(manifest.read_text() + "\n# changed\n")
    alone = document(capsys, "--log", path, "--bundle", folder)["counts"]
    compared = document(capsys, "--log", path, "--bundle", folder, "--against", BUNDLES / BUNDLE)[
        "counts"
    ]
    assert alone["equal"] <= compared["equal"]
    assert compared["newly_permitted"] == compared["newly_denied"] == 0
