"""`authz audit report`: its numbers are those of a slow recount, and nobody picks the sample."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import math
import random
import tracemalloc
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from authz.audit import Jwks, Verification, verify
from authz.audit.receipt import Receipt
from authz.audit.receipt_verification import check_receipt
from authz.cli import main
from authz.errors import UnavailableError, UsageError
from authz.model import StandingException
from authz.tools.audit_report import (
    GivenBundle,
    NodeLog,
    ReportFolder,
    ReportInput,
    read_period,
    write_report,
)
from authz_client.jose import public_jwk
from tests.support import receipts as signed
from tests.support.audit_cases import (
    answer,
    dropped,
    entry,
    expired_approval,
    expired_task,
    held,
    loaded,
    moment,
    refused,
    revocation,
    summed,
    used,
    witnessed,
)
from tests.support.audit_log import LogWriter
from tests.support.records import lines, write

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

DAY = 24 * 3600
MADE_AT = datetime(2027, 1, 1, tzinfo=UTC)
# `moment(0)` is at ten in the morning.
FROM, TO = "2026-11-02", "2026-11-04"


def run(*arguments: str | Path) -> int:
    """Run the command and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["audit", "report", *(str(one) for one in arguments)])
    code = ended.value.code
    return code if isinstance(code, int) else 0


def make(
    folder: Path,
    files: Sequence[Path],
    *,
    since: str = FROM,
    until: str = TO,
    sample: int = 5,
    bundles: Sequence[GivenBundle] = (),
    heads: Sequence[str] = (),
    verification: Verification | None = None,
) -> Path:
    """Make a report; return its folder."""
    folder.mkdir()
    given = ReportInput(
        logs=[NodeLog("n1", files, verification or Verification(), heads)],
        period=read_period(since, until),
        keys_given=verification is not None,
        bundles=bundles,
        sample_size=sample,
        version="0.1.0",
        made_at=MADE_AT,
    )
    write_report(ReportFolder(folder), given)
    return folder


def table(folder: Path, name: str) -> list[dict[str, str]]:
    """Read a table of a report."""
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def row(folder: Path, file: str, /, **named: str) -> dict[str, str]:
    """Return the only row of a table with these cells."""
    (found,) = [
        one for one in table(folder, file) if all(one[key] == value for key, value in named.items())
    ]
    return found


def random_log(seed: int) -> list[dict[str, Any]]:
    """Three days of calls, approvals, sums and administration before, in and after the period."""
    chance = random.Random(seed)
    records: list[dict[str, Any]] = []
    for number in range(400):
        at = chance.uniform(-2 * DAY, 4 * DAY)
        name = f"d{number:04}-{chance.randrange(10**6)}"
        kind = chance.choice(
            ["call"] * 6 + ["held"] * 4 + ["sum", "revoke", "probe", "observed", "start", "node"]
        )
        code = chance.choice(["FORBIDDEN", "OUT_OF_SCOPE", "AUDIT_FULL"])
        tier = chance.choice(["low", "standard", "high"])
        grounds = {
            "rules": [
                {"kind": "policy", "name": chance.choice("pq")} for _ in range(chance.randrange(3))
            ],
            "controls": chance.sample(["C1", "C2"], chance.randrange(3)),
            "tier": tier,
        }
        denied = {"outcome": "DENY", "reason_code": code, **grounds}
        revision = chance.choice(["r1", "r2"])
        match kind:
            case "call":
                result = denied if chance.random() < 0.5 else {"tier": tier}
                records.append(entry(name, at, result=result, revision=revision))
            case "observed":
                records.append(entry(name, at, result={**denied, "enforced": False}))
            case "probe":
                records.append(entry(name, at, result=denied, given={"mode": "PROBE"}))
            case "start":
                records.append(entry(name, at, surface="task_start"))
            case "revoke":
                records.append(revocation(name, at, "agent", f"spiffe://x/{number}"))
            case "node":
                records += [loaded(name, at, revision), witnessed(f"{name}-w", at)]
                records.append(expired_task(f"{name}-t", at, "s1", tasks=3))
            case "sum":
                records.append(summed(name, at, chance.randrange(1, 1000)))
            case _:
                records += _approval(chance, name, at, grounds)
    records += list(_repeated(chance, records))
    chance.shuffle(records)
    return records


def _repeated(chance: random.Random, records: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """A second record of some decisions, and copies of others."""
    for one in chance.sample(records, 40):
        if "result" not in one or chance.random() < 0.5:
            yield dict(one)
            continue
        denial = {"outcome": "DENY", "reason_code": "AUDIT_FULL"}
        replaced = {**one["result"], **denial, "instead_of": one["result"]["outcome"]}
        yield {**one, "result": replaced}


def _approval(
    chance: random.Random, name: str, at: float, grounds: dict[str, Any]
) -> Iterable[dict[str, Any]]:
    """A step-up, with any part of its answers."""
    approval = f"a-{name}"
    if chance.random() < 0.9:
        yield held(name, at, approval, result=grounds)
    event = chance.choice(["", "refused", "answered", "approved", "rejected"])
    if not event:
        if chance.random() < 0.5:
            yield expired_approval(f"{name}-0", at + chance.choice([3600, 86_400]), approval)
        return
    seconds = chance.choice([1, 60, 30 * 3600])
    by = chance.choice(["corp/bob", "corp/eve"])
    yield answer(f"{name}-1", at + seconds, approval, event, by=by, ms=chance.randrange(0, 6000))
    if event == "answered":
        yield answer(
            f"{name}-2", at + seconds + 9, approval, by="corp/zoe", ms=chance.randrange(9000)
        )
    is_approved = event in {"approved", "answered"}
    if is_approved and chance.random() < 0.7:
        yield used(f"{name}-3", at + seconds + 20, approval)
    elif is_approved and chance.random() < 0.5:
        yield expired_approval(f"{name}-4", at + seconds + 30, approval, was_approved=True)


class Recount:
    """The same numbers, counted in memory by the book."""

    def __init__(self, records: Sequence[dict[str, Any]], since: str, until: str) -> None:
        standing: dict[str, dict[str, Any]] = {}
        ends = [one["expired"] for one in records if "expired" in one and one["timestamp"] < until]
        self.ended = {one["approval"]: "was_approved" in one for one in ends if "approval" in one}
        for one in records:
            if "result" not in one:
                continue
            if one["decision_id"] not in standing or "instead_of" in one["result"]:
                standing[one["decision_id"]] = one
        self.known = [one for one in standing.values() if one["timestamp"] < until]
        self.inside = [one for one in self.known if one["timestamp"] >= since]
        self.last = min(until, max(one["timestamp"] for one in records))

    def decisions(self) -> Counter[tuple[str, ...]]:
        """Records by the cells of `decisions.csv`."""
        return Counter(
            (
                one["timestamp"][:10],
                "sum" if "sum" in one else one["labels"]["surface"],
                one["result"]["outcome"],
                one["result"]["reason_code"],
                one["result"].get("tier", ""),
                str(one["result"].get("enforced", True)).lower(),
                str(one.get("input", {}).get("mode") == "PROBE").lower(),
            )
            for one in self.inside
        )

    def calls(self) -> list[dict[str, Any]]:
        """Judged calls of the period."""
        return [
            one
            for one in self.inside
            if "sum" not in one
            and one["labels"]["surface"] == "check"
            and one["input"]["mode"] != "PROBE"
        ]

    def grounds(self, one: dict[str, Any]) -> set[tuple[str, str]]:
        """Controls and rules of a record."""
        result = one["result"]
        rules = {("rule", f"policy {rule['name']}") for rule in result.get("rules", ())}
        return rules | {("control", name) for name in result.get("controls", ())} | {("all", "")}

    def asked(self) -> dict[str, dict[str, Any]]:
        """The call that made each approval."""
        made: dict[str, dict[str, Any]] = {}
        for one in sorted(self.known, key=lambda record: record["timestamp"]):
            note = one["result"].get("approval", {})
            if note.get("event") == "made":
                made.setdefault(note["id"], one)
        return made

    def events(self, approval: str) -> list[dict[str, Any]]:
        """The notes about an approval."""
        notes = (one["result"].get("approval", {}) for one in self.known)
        return [note for note in notes if note.get("id") == approval]

    def group(self, ground: tuple[str, str]) -> dict[str, str]:
        """A row of `approvals.csv`."""
        counts: Counter[str] = Counter()
        times = []
        since_over = datetime.fromisoformat(self.last).timestamp() - DAY
        for approval, one in self.asked().items():
            if one not in self.inside or ground not in self.grounds(one):
                continue
            counts["asked"] += 1
            events = {note["event"] for note in self.events(approval)}
            asked_at = datetime.fromisoformat(one["timestamp"]).timestamp()
            has_end = self.ended.get(approval) is False
            is_open = "open" if asked_at > since_over and not has_end else "expired"
            state = (
                "rejected"
                if "rejected" in events
                else "approved"
                if "approved" in events or self.ended.get(approval)
                else is_open
            )
            counts[state] += 1
            counts["used"] += "consumed" in events
            counts["unused"] += self.ended.get(approval, False)
            counts["expired_recorded"] += state == "expired" and has_end
            times += [
                note["decided_in_ms"]
                for note in self.events(approval)
                if "decided_in_ms" in note and note["event"] != "refused"
            ]
        held_calls = [
            one
            for one in self.calls()
            if one["result"]["outcome"] == "STEP_UP"
            and one["result"]["enforced"]
            and ground in self.grounds(one)
        ]
        final = counts["approved"] + counts["rejected"]
        return {
            "step_ups": str(len(held_calls)),
            **{
                name: str(counts[name])
                for name in (
                    "asked",
                    "approved",
                    "rejected",
                    "expired",
                    "expired_recorded",
                    "open",
                    "used",
                    "unused",
                )
            },
            **_times(times),
            "rejected_share": f"{counts['rejected'] / final:.4f}" if final else "",
        }

    def person(self, person: str, ground: tuple[str, str]) -> dict[str, str]:
        """A row of `approvers.csv`."""
        events: Counter[str] = Counter()
        times = []
        asked = self.asked()
        for one in self.inside:
            note = one["result"].get("approval", {})
            if one["labels"].get("surface") != "approval_resolve" or note.get("by") != [person]:
                continue
            call = asked.get(note["id"])
            grounds = self.grounds(call) if call else {("all", ""), ("rule", "not in these files")}
            if ground in grounds:
                events[note["event"]] += 1
                times += [note["decided_in_ms"]] if note["event"] != "refused" else []
        answers = events["answered"] + events["approved"] + events["rejected"]
        return {
            "answers": str(answers),
            "rejected": str(events["rejected"]),
            "refused": str(events["refused"]),
            **{name: value for name, value in _times(times).items() if name != "answers"},
            "rejected_share": f"{events['rejected'] / answers:.4f}" if answers else "",
        }


def _times(times: list[int]) -> dict[str, str]:
    ordered = sorted(times)

    def rank(share: float) -> str:
        return str(ordered[math.ceil(share * len(ordered)) - 1]) if ordered else ""

    fast = sum(time < 3000 for time in times)
    return {
        "answers": str(len(times)),
        "decided_median_ms": rank(0.5),
        "decided_p95_ms": rank(0.95),
        "decided_under_3s_share": f"{fast / len(times):.4f}" if times else "",
    }


@pytest.mark.parametrize("seed", range(6))
def test_the_numbers_are_those_of_a_recount(tmp_path: Path, seed: int) -> None:
    """Whatever the order of the records and files, with second records and copies."""
    records = random_log(seed)
    half = len(records) // 2
    files = [write(tmp_path / "b", records[half:]), write(tmp_path / "a", records[:half])]
    folder = make(tmp_path / "report", files)
    slow = Recount(records, "2026-11-02T00:00:00.000Z", "2026-11-05T00:00:00.000Z")

    rows = table(folder, "decisions.csv")
    cells = ("day", "surface", "outcome", "reason_code", "tier", "enforced", "probe")
    assert {
        tuple(one[cell] for cell in cells): int(one["records"]) for one in rows
    } == slow.decisions()
    assert sum(int(one["decisions"]) for one in rows) == sum(
        one.get("sum", {}).get("count", 1) for one in slow.inside
    )
    for one in table(folder, "approvals.csv"):
        expected = slow.group((one["group"], one["name"]))
        assert {name: one[name] for name in expected} == expected, one
    people = table(folder, "approvers.csv")
    assert {"corp/bob", "corp/eve", "corp/zoe"} == {one["approver"] for one in people}
    for one in people:
        expected = slow.person(one["approver"], (one["group"], one["name"]))
        assert {name: one[name] for name in expected} == expected, one
    for one in table(folder, "controls.csv"):
        ground = (one["group"], one["name"])
        calls = [
            call
            for call in slow.calls()
            if ground in slow.grounds(call) and call["result"]["outcome"] != "PERMIT"
        ]
        enforced = Counter(
            call["result"]["outcome"] for call in calls if call["result"]["enforced"]
        )
        assert (one["denied"], one["held"]) == (str(enforced["DENY"]), str(enforced["STEP_UP"]))
        assert one["observed"] == str(len(calls) - enforced.total())
    revoked = {
        one["decision_id"] for one in slow.inside if one["labels"].get("surface") == "revoke"
    }
    assert {one["decision_id"] for one in table(folder, "administration.csv")} == revoked
    assert f"| {len(slow.calls())} | judged calls" in (folder / "README.md").read_text()


def test_the_order_of_files_and_packing_change_nothing(tmp_path: Path) -> None:
    """But the names, bytes and digests of the logs."""
    records = random_log(7)
    first, second = lines(records[:200]), lines(records[200:])
    a, b, packed = tmp_path / "a", tmp_path / "b", tmp_path / "b.gz"
    a.write_text(first)
    b.write_text(second)
    packed.write_bytes(gzip.compress(second.encode()))
    one = make(tmp_path / "one", [a, b])
    other = make(tmp_path / "other", [packed, a])
    for name in (
        "decisions.csv",
        "approvals.csv",
        "approvers.csv",
        "bundles.csv",
        "controls.csv",
        "approvals.md",
    ):
        assert (one / name).read_text() == (other / name).read_text()
    picked = [table(folder, "samples.csv") for folder in (one, other)]
    assert [row["decision_id"] for row in picked[0]] == [row["decision_id"] for row in picked[1]]
    assert hashlib.sha256(second.encode()).hexdigest() in (other / "README.md").read_text()


def test_the_sample_follows_from_the_ids(tmp_path: Path) -> None:
    """As the README says, so that an auditor can choose it again. Probes, sums and other records are not in it."""
    records = random_log(3)
    file = write(tmp_path / "audit.jsonl", records)
    folder = make(tmp_path / "report", [file], sample=7)
    slow = Recount(records, "2026-11-02T00:00:00.000Z", "2026-11-05T00:00:00.000Z")
    population = sorted(one["decision_id"] for one in slow.calls())
    seed = hashlib.sha256("".join(f"{name}\n" for name in population).encode()).hexdigest()
    ranks = {hashlib.sha256(f"{seed} {name}".encode()).hexdigest(): name for name in population}

    rows = table(folder, "samples.csv")
    assert [(one["rank"], one["decision_id"]) for one in rows] == sorted(ranks.items())[:7]
    assert f"`{seed}`" in (folder / "README.md").read_text()
    text = file.read_bytes().splitlines(keepends=True)
    for one in rows:
        kept = (folder / one["record"]).read_bytes()
        assert kept == text[int(one["line"]) - 1]
        assert hashlib.sha256(kept).hexdigest() == one["record_sha256"]
        assert json.loads(kept)["decision_id"] == one["decision_id"]


def test_a_sample_of_all_has_all(tmp_path: Path) -> None:
    """Also after an endless line, and by a name that cannot leave the folder."""
    strange = "../../x"
    file = tmp_path / "audit.jsonl"
    file.write_text(
        '{"x": "' + "a" * 2_200_000 + '"}\n' + lines([entry(strange, 1), entry("two", 2)])
    )
    folder = make(tmp_path / "report", [file], sample=10)
    names = {one["decision_id"]: one["record"] for one in table(folder, "samples.csv")}
    assert names["two"] == "samples/two.json"
    assert names[strange] == f"samples/{hashlib.sha256(strange.encode()).hexdigest()}.json"
    assert len(list((folder / "samples").iterdir())) == 2


@pytest.mark.parametrize(
    ("since", "until", "count"),
    [
        ("2026-11-02", "2026-11-02", 2),
        ("2026-11-02", "2026-11-03", 3),
        ("2026-11-01", "2026-11-01", 0),
        ("2026-11-02T10:00:01Z", "2026-11-02T10:00:02Z", 1),
        ("2026-11-02T11:00:00+01:00", "2026-11-02T10:00:01Z", 1),
    ],
)
def test_a_date_is_a_whole_day_and_a_time_is_the_end(
    tmp_path: Path, since: str, until: str, count: int
) -> None:
    """In UTC."""
    file = write(tmp_path / "audit.jsonl", [entry("a", 0), entry("b", 1), entry("c", 14 * 3600)])
    folder = make(tmp_path / "report", [file], since=since, until=until)
    assert f"| {count} | records of decisions of the period" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("yesterday", TO),
        (FROM, "7d"),
        (TO, FROM),
        ("1990-01-01", TO),
        ("2026-11-02T10:00:00Z",) * 2,
        ("", TO),
    ],
)
def test_a_period_of_another_form_is_refused(since: str, until: str) -> None:
    """Before anything is read."""
    with pytest.raises(UsageError):
        read_period(since, until)


def test_an_approval_expires_after_its_longest_wait(tmp_path: Path) -> None:
    """Before that it is open, if the log has no record of its end."""
    records = [held("old", 0, "a1"), held("new", 60, "a2"), entry("last", DAY)]
    folder = make(tmp_path / "report", [write(tmp_path / "audit.jsonl", records)])
    whole = row(folder, "approvals.csv", group="all")
    assert (whole["asked"], whole["expired"], whole["open"]) == ("2", "1", "1")
    assert (whole["expired_recorded"], whole["unused"]) == ("0", "0")
    told = (folder / "README.md").read_text()
    assert "0 of the expired approvals have such a record" in told
    assert "the longest wait; 1 of the expired approvals" in told


def test_the_record_of_its_end_tells_that_an_approval_expired(tmp_path: Path) -> None:
    """At once, and after an approval: the call was not made. The README says how many ends are inferred."""
    records = [
        held("early", 0, "a1"),
        held("ended", 60, "a2"),
        expired_approval("end", 120, "a2"),
        held("approved", 60, "a3"),
        answer("yes", 70, "a3"),
        expired_approval("unused", 180, "a3", was_approved=True),
        held("elsewhere", 60, "a4"),
        expired_approval("unused-elsewhere", 180, "a4", was_approved=True),
        held("open", DAY - 60, "a5"),
        expired_approval("after", 3 * DAY, "a5"),
        entry("last", DAY),
    ]
    folder = make(
        tmp_path / "report", [write(tmp_path / "audit.jsonl", records)], until="2026-11-03"
    )
    whole = row(folder, "approvals.csv", group="control", name="ASI01")
    names = ("asked", "approved", "expired", "expired_recorded", "open", "unused")
    assert [whole[name] for name in names] == ["5", "2", "2", "1", "1", "2"]
    told = (folder / "README.md").read_text()
    assert "1 of the expired approvals have such a record" in told
    assert "the longest wait; 1 of the expired approvals" in told


def test_bundles_name_their_loads_by_node(tmp_path: Path) -> None:
    """Also loads before the period, and bundles that judged nothing; none after the period."""
    records = [
        loaded("l0", -3 * DAY, "r0"),
        loaded("l1", -2 * DAY, "r1"),
        entry("a", 0),
        loaded("l2", 60, "r1", trust="t2"),
        loaded("l3", 70, "r1", node="n2"),
        loaded("l3", 70, "r1", node="n2"),
        loaded("l4", 80, "r2"),
        refused("f1", 75),
        refused("f1", 75),
        refused("f2", 9 * DAY),
        {**refused("f3", 76), "refused": {"errors": "x"}},
        entry("b", 90, revision="r3"),
        loaded("l5", 9 * DAY, "r3"),
    ]
    file = write(tmp_path / "audit.jsonl", records)
    folder = make(tmp_path / "report", [file])
    names = ("revision", "node", "first_load", "last_load", "loads", "first_record", "records")
    assert [tuple(one[name] for name in names) for one in table(folder, "bundles.csv")] == [
        ("r1", "n1", moment(-2 * DAY), moment(60), "2", moment(0), "1"),
        ("r1", "n2", moment(70), moment(70), "1", "", "0"),
        ("r2", "n1", moment(80), moment(80), "1", "", "0"),
        ("r3", "n1", "", "", "0", moment(90), "1"),
    ]
    loads = table(folder, "loads.csv")
    assert [(one["record"], one["trust"], one["line"]) for one in loads] == [
        ("l2", "t2", "4"),
        ("l3", "t1", "5"),
        ("l4", "t1", "7"),
    ]
    assert loads[0]["file"] == str(file)
    first, odd = table(folder, "refused_loads.csv")
    assert (first["record"], first["digest"], first["in_use"], first["errors"]) == (
        "f1",
        "d1",
        "d0",
        "6",
    )
    assert (first["place"], first["error"]) == ("tasks.yaml:3", "`…` is not a key.")
    assert (first["unrecorded_before"], first["line"]) == ("2", "8")
    assert (odd["record"], odd["digest"], odd["errors"]) == ("f3", "", "0")
    assert (
        "| 2 | records of the period that a node refused a load"
        in (folder / "README.md").read_text()
    )


def test_records_of_the_node_are_counted_apart(tmp_path: Path) -> None:
    """No number of decisions counts them, but a day with one is not silent."""
    records = [
        entry("a", 0),
        expired_task("t1", 1, "s1", tasks=3),
        expired_task("t2", 2, "s2"),
        expired_task("t3", DAY, "s3", node="n2"),
        expired_task("odd", 3, "s4", tasks=-1),
        expired_approval("e1", 4, "a1"),
        loaded("l1", 5),
        loaded("l1", 5),
        witnessed("w1", DAY),
        {**witnessed("later", 6), "heads": None},
        {"decision_id": "new", "timestamp": moment(7), "labels": {"id": "n1"}, "kind": 1},
        dropped("d1", 8, 40),
        dropped("d1", 8, 40),
        dropped("d2", 9, 2),
        dropped("d3", 9 * DAY, 5),
        expired_task("after", 9 * DAY, "s5"),
    ]
    folder = make(tmp_path / "report", [write(tmp_path / "audit.jsonl", records)])
    assert [one["records"] for one in table(folder, "decisions.csv")] == ["1"]
    assert [one["decision_id"] for one in table(folder, "samples.csv")] == ["a"]
    told = (folder / "README.md").read_text()
    for line in (
        "| 16 | records of all files",
        "| 2 | records outside the period",
        "| 2 | records of the period that stand twice",
        "| 1 | records of decisions of the period",
        "| 1 | records of the period that a node loaded",
        "| 5 | records of the period that a task or an approval",
        "| 6 | tasks that ended so",
        "| 2 | records of the period with heads",
        "| 2 | records of the period that a node dropped",
        "| 42 | decisions that were answered without a record so",
        "| 1 | records of the period of other kinds",
        f"| n1 | 1 | 10 | {moment(0)} | {moment(DAY)} |",
        f"| n2 | 0 | 1 | {moment(DAY)} | {moment(DAY)} |",
    ):
        assert line in told
    rows = [tuple(one.values()) for one in table(folder, "expired_tasks.csv")]
    assert rows == [
        ("2026-11-02", "n1", "3", "5"),
        ("2026-11-03", "n2", "1", "1"),
    ]
    gaps = (folder / "gaps.md").read_text()
    assert "- 42 decisions answered without a record" in gaps
    assert "without a record of node n1: 2026-11-04" in gaps
    assert "without a record of node n2: 2026-11-02, 2026-11-04" in gaps


def test_an_answer_after_the_period_does_not_count(tmp_path: Path) -> None:
    """The report of a period does not change when the log goes on."""
    records = [held("ask", 0, "a1"), entry("last", DAY - 1), answer("late", 3 * DAY, "a1")]
    folder = make(
        tmp_path / "report", [write(tmp_path / "audit.jsonl", records)], until="2026-11-03"
    )
    whole = row(folder, "approvals.csv", group="all")
    assert (whole["approved"], whole["expired"]) == ("0", "1")
    assert table(folder, "approvers.csv") == []


def test_an_answer_to_an_earlier_question_counts_for_the_person(tmp_path: Path) -> None:
    """By the rule of the earlier call, if its record is in the files."""
    records = [
        held("before", -2 * DAY, "a1"),
        answer("one", 5, "a1"),
        answer("two", 6, "unknown", "rejected"),
    ]
    folder = make(tmp_path / "report", [write(tmp_path / "audit.jsonl", records)])
    assert table(folder, "approvals.csv") == []
    assert row(folder, "approvers.csv", name="policy pay")["answers"] == "1"
    assert row(folder, "approvers.csv", name="not in these files")["rejected"] == "1"
    assert row(folder, "approvers.csv", group="all")["answers"] == "2"


def exception(name: str) -> StandingException:
    """An exception of a bundle."""
    return StandingException(
        name=name,
        who="nightly",
        operations=("crm.get",),
        tier_cap="standard",
        owner="crm-team@corp.example",
        reason="no user",
        ticket="CRM-1",
        obligations=(),
        expires_ms=1_798_761_600_000,
        at="facts.yaml:1",
    )


def test_exceptions_have_owners_and_uses(tmp_path: Path) -> None:
    """By bundle; declared ones without uses stand there, too, and others have no owner."""
    denied = {"outcome": "DENY", "reason_code": "FORBIDDEN"}
    records = [
        entry("a", 0, result={"exceptions": ["job"]}),
        entry("b", 1, result={"exceptions": ["job", "other"]}),
        entry("c", 2, result={"exceptions": ["job"], **denied}),
        entry("d", 3, result={"exceptions": ["job"]}, revision="r2"),
        entry("probe", 4, result={"exceptions": ["job"]}, given={"mode": "PROBE"}),
        entry("late", 9 * DAY, result={"exceptions": ["job"]}),
    ]
    given = [
        GivenBundle(tmp_path / "bundle", "r1" * 4, "r1", (exception("job"), exception("unused"))),
        GivenBundle(tmp_path / "never", "r9" * 4, "r9", (exception("never"),)),
    ]
    folder = make(tmp_path / "report", [write(tmp_path / "audit.jsonl", records)], bundles=given)
    rows = {
        (one["exception"], one["bundle_revision"]): one for one in table(folder, "exceptions.csv")
    }
    assert sorted(rows) == [("job", "r1"), ("job", "r2"), ("other", "r1"), ("unused", "r1")]
    job = rows["job", "r1"]
    assert (job["permitted"], job["not_permitted"], job["owner"]) == (
        "2",
        "1",
        "crm-team@corp.example",
    )
    assert (job["first_use"], job["last_use"]) == (moment(0), moment(2))
    assert job["expires"] == "2027-01-01T00:00:00.000Z"
    assert (rows["unused", "r1"]["permitted"], rows["job", "r2"]["owner"]) == ("0", "")
    assert {one["revision"]: one["records"] for one in table(folder, "bundles.csv")} == {
        "r1": "4",
        "r2": "1",
    }


def _breakglass(name: str, at: float, action: str, **more: Any) -> dict[str, Any]:
    refused = more.pop("refused", False)
    note = {
        "action": action,
        "id": "bg1",
        "system": "erp",
        "ticket": "INC-7",
        "reason": "down",
        "opened_by": "corp/ann",
        **more,
    }
    result = {"outcome": "DENY", "reason_code": "NOT_PERMITTED"} if refused else {}
    chain = [{"kind": "User", "id": "corp/who"}]
    return entry(
        name,
        at,
        surface=f"breakglass_{action}",
        given={"breakglass": note, "chain": chain},
        result=result,
    )


def test_break_glass_is_told_from_opening_to_end(tmp_path: Path) -> None:
    """With refused attempts and uses; each act stands in the table of acts."""
    use = {
        "breakglass": {
            "id": "bg1",
            "ticket": "INC-7",
            "opened_by": "corp/ann",
            "confirmed_by": "corp/bob",
        }
    }
    confirmed = {"confirmed_by": "corp/bob", "ends_at": moment(900)}
    records = [
        _breakglass("open", 0, "open"),
        _breakglass("self", 1, "confirm", refused=True),
        _breakglass("confirm", 2, "confirm", **confirmed),
        entry("use", 3, result=use),
        entry("no", 4, result={**use, "outcome": "DENY"}),
        _breakglass("end", 5, "end", **confirmed, ended_by="corp/ann"),
    ]
    folder = make(tmp_path / "report", [write(tmp_path / "audit.jsonl", records)])
    (one,) = table(folder, "breakglass.csv")
    assert (one["opened_at"], one["confirmed_at"], one["ended_at"]) == (
        moment(0),
        moment(2),
        moment(5),
    )
    assert (one["opened_by"], one["confirmed_by"], one["ended_by"]) == (
        "corp/ann",
        "corp/bob",
        "corp/ann",
    )
    assert (one["refused_attempts"], one["permitted"], one["not_permitted"]) == ("1", "1", "1")
    acts = {act["decision_id"]: act for act in table(folder, "administration.csv")}
    assert [acts[name]["by"] for name in ("open", "self", "confirm", "end")] == [
        "corp/ann",
        "corp/who",
        "corp/bob",
        "corp/ann",
    ]
    assert acts["self"]["outcome"] == "DENY"


def test_security_events_and_erasures_are_acts(tmp_path: Path) -> None:
    """Both name who acted and why, as acts on the administration socket do."""
    event = {
        "transmitter": "okta",
        "jti": "j1",
        "event": "session-revoked",
        "action": "end",
        "reason": "policy",
        "subject": "corp/alice",
        "at": moment(0),
    }
    erasure = {"selection": "subject=corp/alice", "texts": 4, "records": 2, "by": "ann"}
    records = [
        entry("event", 0, given={"security_event": event}),
        entry("erased", 1, given={"erasure": {**erasure, "reason": "request 4711"}}),
    ]
    for record, surface in zip(records, ("security_event", "record_erasure"), strict=True):
        record["labels"]["surface"] = surface
    folder = make(tmp_path / "report", [write(tmp_path / "audit.jsonl", records)])
    first, second = table(folder, "administration.csv")
    columns = ("act", "target", "value", "by", "reason")
    assert [first[name] for name in columns] == [
        "security_event",
        "subject",
        "corp/alice",
        "okta",
        "end session-revoked policy",
    ]
    assert [second[name] for name in columns] == [
        "record_erasure",
        "texts",
        "subject=corp/alice",
        "ann",
        "request 4711",
    ]


def test_gaps_are_told(tmp_path: Path) -> None:
    """Damaged lines with their places, days without a record, sums, and records without a time."""
    file = tmp_path / "audit.jsonl"
    records = [
        entry("a", 0),
        entry("a", 0),
        summed("s", 60, 51_234),
        {**entry("u", 0), "timestamp": "x"},
    ]
    full = entry(
        "full", 3, result={"outcome": "DENY", "reason_code": "AUDIT_FULL", "instead_of": "PERMIT"}
    )
    file.write_text("nothing\n" + lines([*records, entry("full", 3), full]) + "{")
    folder = make(tmp_path / "report", [file])
    gaps = (folder / "gaps.md").read_text()
    assert "has no chain" in gaps
    assert "- 2 lines are not records" in gaps
    assert "- 1 records without a valid timestamp" in gaps
    assert "- 1 records of the period stand twice" in gaps
    assert "- 1 decisions have a second record" in gaps
    assert "- 1 calls denied because they could not be recorded" in gaps
    assert "- 51234 refusals without records of their own, in 1 sums" in gaps
    assert "days of the period without a record of node n1: 2026-11-03, 2026-11-04" in gaps
    damaged = [(one["file"], one["line"]) for one in table(folder, "damaged_lines.csv")]
    assert damaged == [(str(file), "1"), (str(file), "8")]
    assert row(folder, "refusal_sums.csv")["refusals"] == "51234"


def test_logs_of_several_nodes_are_verified_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each node has a chain of its own; an approval can be asked for at one node and answered at another."""
    words = []
    for node, records in (
        ("n1", [held("ask", 0, "a1"), entry("x", 1)]),
        ("n2", [answer("yes", 5, "a1"), entry("y", DAY)]),
    ):
        (tmp_path / node).mkdir()
        named = [{**one, "labels": {**one["labels"], "id": node}} for one in records]
        log = LogWriter(tmp_path / node)
        kept = log.write(named)
        (tmp_path / node / "audit.jsonl.head").write_text(log.newest)
        words += ["--log", str(kept)]
    out = tmp_path / "report"
    assert run("--from", FROM, "--to", TO, "--output", out, *words) == 0
    documents = json.loads((out / "verification.json").read_text())
    assert [(one["node"], one["findings"], one["proved"]) for one in documents] == [
        ("n1", [], 2),
        ("n2", [], 2),
    ]
    assert row(out, "approvals.csv", group="all")["approved"] == "1"
    gaps = (out / "gaps.md").read_text()
    assert "without a record of node n1: 2026-11-03, 2026-11-04" in gaps
    assert "without a record of node n2: 2026-11-04" in gaps
    assert (
        run("--from", FROM, "--to", TO, "--output", tmp_path / "x", "--heads", words[1], *words)
        == 1
    )
    assert "--heads is for the log of one node" in capsys.readouterr().err


def test_unfinished_lines_of_a_crash_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the report and by a session: a node moves them to files of their own, which are no logs."""
    file = write(tmp_path / "audit.jsonl", [entry("a", 0, session="s1")])
    torn = tmp_path / "audit.jsonl.torn-1"
    torn.write_text('{"decision_id": "b"')
    (tmp_path / "other.torn-1").write_text("x")
    assert run("--from", FROM, "--to", TO, "--log", file, "--output", tmp_path / "report") == 0
    told = (tmp_path / "report" / "gaps.md").read_text()
    assert "- 1 files with a line that a crash left unfinished: " in told
    assert "torn-1" in told
    with pytest.raises(SystemExit):
        main(["audit", "show", "--session", "s1", "--log", str(file)])
    assert f"{torn}:1: a crash left this line unfinished." in capsys.readouterr().out


def test_a_changed_record_is_found(tmp_path: Path) -> None:
    """The report repeats what the verification of the whole log found."""
    log = LogWriter(tmp_path)
    log.write([entry("a", 0), entry("b", 1)], sealed=True)
    kept = log.write([entry("c", 2), entry("d", 3)])
    kept.write_text(kept.read_text().replace('"standard"', '"critical"', 1))
    files = [tmp_path / "audit.jsonl.00000001", kept]
    result = verify(files, log.heads, [log.newest])
    folder = make(tmp_path / "report", files, verification=result)
    assert "this line or the line before it was changed" in (folder / "gaps.md").read_text()
    (document,) = json.loads((folder / "verification.json").read_text())
    assert (document["node"], document["lines"]) == ("n1", 4)
    assert document["findings"]


def test_sampled_decisions_have_receipts(tmp_path: Path) -> None:
    """With the policies of the given bundle, and with the answer that a call used, which stands in another segment."""
    key = Ed25519PrivateKey.generate()
    log = LogWriter(tmp_path, key=key)
    permit, judged = (
        signed.decision(approved_by=["local/ann"]),
        signed.decision("plain", policies={}),
    )
    first = log.write([signed.answer(signed.Passkey()), judged], sealed=True)
    last = log.write([permit, entry("unnamed", 0), entry("tail", 0)])
    heads = [*log.heads.read_text().splitlines(), log.newest]
    digest = next(iter(permit["bundles"].values()))["digest"]
    bundle = GivenBundle(tmp_path / "b", digest, "r1", (), signed.POLICIES)
    files = [last, first]
    folder = make(
        tmp_path / "report",
        files,
        since="2026-11-01",
        until="2026-12-31",
        bundles=[bundle],
        heads=heads,
        verification=verify(files, log.heads, [log.newest]),
    )
    keys = Jwks.trusted([json.dumps(public_jwk(key.public_key())).encode()])
    rows = {one["decision_id"]: one for one in table(folder, "samples.csv")}
    assert len(rows) == 4
    for name, one in rows.items():
        content = (folder / one["receipt"]).read_bytes()
        verified = check_receipt(Receipt.read(content), keys)
        assert verified.decision.decision_id == name
        record = (folder / one["record"]).read_bytes()
        assert json.loads(content)["record"].encode() + b"\n" == record
        assert verified.has_texts == (name == signed.DECISION)
        assert len(verified.answers) == (name == signed.DECISION)
    assert "4 of the decisions have a receipt" in (folder / "README.md").read_text()


def test_a_sample_says_why_it_has_no_receipt(tmp_path: Path) -> None:
    """Without a chain, and after the newest head."""
    log = LogWriter(tmp_path, key=Ed25519PrivateKey.generate())
    kept = log.write([entry("one", 0)])
    head = log.newest
    text = kept.read_text()
    log.write([entry("one", 0), entry("two", 1)])
    loose = write(tmp_path / "loose", [entry("loose", 2)])
    assert kept.read_text().startswith(text)
    folder = make(tmp_path / "report", [kept, loose], heads=[head])
    reasons = {one["decision_id"]: one["no_receipt"] for one in table(folder, "samples.csv")}
    assert reasons["one"] == ""
    assert "no head stands above the record" in reasons["two"]
    assert "is not in a chain" in reasons["loose"]
    assert sorted(path.name for path in (folder / "samples").iterdir()) == [
        "loose.json",
        "one.json",
        "one.receipt.json",
        "two.json",
    ]


def test_texts_of_a_stranger_stay_texts(tmp_path: Path) -> None:
    """No formula of a spreadsheet, no markup of a page, no control characters."""
    formula, markup = '=HYPERLINK("http://x.example")', "|<img src=x>[a](b)\x1b[31m\n# Title"
    records = [
        revocation("r1", 0, "agent", formula, by="@cmd", reason="+1"),
        revocation("r2", 1, "agent", markup, by="-x", reason="fine"),
        answer("yes", 2, "a1", by=markup),
        entry("bundle", 3, revision=markup + "\ud800"),
    ]
    folder = make(tmp_path / "report", [write(tmp_path / "audit.jsonl", records)])
    first, second = table(folder, "administration.csv")
    assert (first["value"], first["by"], first["reason"]) == (f"'{formula}", "'@cmd", "'+1")
    assert (second["by"], second["reason"]) == ("'-x", "fine")
    for page in folder.glob("*.md"):
        text = page.read_text()
        assert "<img" not in text
        assert "\x1b" not in text
        assert "\n# Title" not in text
    assert "\\|&lt;img" in (folder / "approvals.md").read_text()


def test_members_of_other_types_do_not_stop_a_report(tmp_path: Path) -> None:
    """Another version, or somebody else, may have written them."""
    strange: list[Any] = [None, 7, "x", [], {}, [7], {"a": 7}, True, {"id": 7, "event": []}, -1]
    records = []
    for number, value in enumerate(strange):
        one = entry(f"n{number}", number, given=dict.fromkeys(("breakglass", "revoked"), value))
        one["result"].update(
            dict.fromkeys(("approval", "rules", "exceptions", "breakglass", "controls"), value)
        )
        one["labels"] = {"surface": "revoke"} if number % 2 else value
        records += [one, {**one, "decision_id": value, "sum": {"count": value}, "bundles": value}]
        named = {"decision_id": f"node{number}", "timestamp": moment(number), "labels": value}
        records += [
            {**named, "loaded": value},
            {**named, "expired": value, "decision_id": value},
            {**named, "expired": {"task": "t", "tasks": value, "approval": value}},
        ]
    folder = make(tmp_path / "report", [write(tmp_path / "audit.jsonl", records)])
    assert (folder / "README.md").exists()


def test_sums_that_cannot_be_added_are_an_error(tmp_path: Path) -> None:
    """Not a wrong number."""
    records = [summed(f"s{number}", 0, 2**53 - 1) for number in range(1_100)]
    with pytest.raises(UnavailableError, match="cannot be counted"):
        make(tmp_path / "report", [write(tmp_path / "audit.jsonl", records)])
    assert not (tmp_path / "report" / "README.md").exists()


def test_the_command_writes_a_private_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of its files nobody else can read one, and a folder with files is refused."""
    file = write(tmp_path / "audit.jsonl", [entry("a", 0), held("b", 1, "a1")])
    out = tmp_path / "november"
    words = ("--from", FROM, "--to", TO, "--log", file, "--output", out)
    assert run(*words) == 0
    assert "2 records from 2026-11-02T00:00:00.000Z to 2026-11-05T00:00:00.000Z, 2 sampled" in (
        capsys.readouterr().out
    )
    assert out.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()} == {0o600}
    assert run(*words) == 1
    assert "is not empty" in capsys.readouterr().err


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    """Decisions are kept on disk."""
    file = tmp_path / "audit.jsonl"
    with file.open("w") as out:
        for number in range(8_000):
            out.write(
                json.dumps(entry(f"d{number}", number / 100, given={"x": "y" * 2_000})) + "\n"
            )
    tracemalloc.start()
    try:
        make(tmp_path / "report", [file])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 1_048_576
