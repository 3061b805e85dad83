"""`authz propose`: what is proposed, that nothing of it permits, and that no record breaks out of it."""

from __future__ import annotations

import gzip
import io
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from authz.audit.decision import read_decision
from authz.bundle import read_folder
from authz.cli import main
from authz.engine import Plan
from authz.errors import BundleError
from authz.model import BundleFiles
from authz.tools.propose import BundleNames, Observations, draft
from authz.tools.propose.observations import MOST
from tests.support.records import BOT, MAILER, agent, lines, record, user, write

if TYPE_CHECKING:
    from collections.abc import Iterable

DESK = Path(__file__).parents[1] / "cases" / "bundles" / "desk"
VARIABLES = {"trust_domain": "trust-domain.example", "tenant": "acme"}


def http(
    path: str, method: str = "GET", host: str = "tickets.example", **more: Any
) -> dict[str, Any]:
    """A record of a request that no route matches."""
    return {"asked": {"method": method, "host": host, "path": path, **more}}


def proposed(
    records: Iterable[dict[str, Any]], known: BundleNames | None = None
) -> tuple[Any, str, str]:
    """What comes of records: the YAML as values, its text, and the policies."""
    observed = Observations()
    for one in records:
        observed.add(read_decision(one))
    made = draft(observed, known)
    return yaml.safe_load(made.facts), made.facts, made.policies


def desk() -> tuple[BundleFiles, BundleNames]:
    """The bundle of the cases."""
    files = read_folder(DESK)
    return files, BundleNames.read(Plan.compile(files, VARIABLES).describe())


def run(*arguments: str | Path) -> int:
    """Run the command and give its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


def test_a_route_is_proposed_with_its_operation() -> None:
    """Ids are what the record says is no word; a member of the query is an argument."""
    facts, text, _ = proposed(
        record(n, **http("/tickets/{digits}/notes/{uuid}", query=["limit", "id"])) for n in range(3)
    )

    (route,) = facts["routes"]
    assert route == {
        "method": "GET",
        "host": "tickets.example",
        "path": "/tickets/{id}/notes/{id2}",
        "operation": "tickets.get_tickets_id_notes_id",
        "arguments": {
            "id": {"path": "id"},
            "id2": {"path": "id2"},
            "limit": {"query": "limit"},
            "query_id": {"query": "id"},
        },
    }
    entry = facts["catalog"]["tickets"]["operations"]["get_tickets_id_notes_id"]
    assert entry["input"]["required"] == ["id", "id2"]
    assert "3 times, 2026-11-25T10:00:00.000Z to 2026-11-25T10:00:02.000Z" in text


def test_words_are_ids_only_where_there_are_many() -> None:
    """Nine different words are nine routes; ten are one with an id."""
    names = ["ann", "bob", "cid", "dan", "eve", "fay", "gus", "hal", "ian", "joe"]
    few, _, _ = proposed(record(n, **http(f"/u/{name}")) for n, name in enumerate(names[:9]))
    many, text, _ = proposed(record(n, **http(f"/u/{name}")) for n, name in enumerate(names))

    assert len(few["routes"]) == 9
    assert [route["path"] for route in many["routes"]] == ["/u/{id}"]
    assert "taken for an id: 10 different words" in text


def test_of_two_routes_for_one_request_one_is_left_to_the_reviewer() -> None:
    """A bundle with both would be refused."""
    facts, text, _ = proposed(
        [record(1, **http("/tickets/{digits}")), record(2, **http("/tickets/search"))]
    )

    assert [route["path"] for route in facts["routes"]] == ["/tickets/{id}"]
    assert "# GET tickets.example/tickets/search: once" in text


def test_what_the_bundle_has_is_not_proposed_again() -> None:
    """Its agents, operations and routes; a system stands in one place, so its new operations go there by hand."""
    _, known = desk()
    facts, text, _ = proposed(
        [
            record(1, "UNKNOWN_OPERATION", chain=[agent(BOT)], asked={"operation": "crm.search"}),
            record(2, "UNKNOWN_OPERATION", chain=[agent(BOT)], asked={"operation": "crm.wipe"}),
            record(3, **http("/lost/{hex}", host="crm.example")),
            record(4, "UNREVIEWED_OPERATION", operation="crm.merge"),
        ],
        known,
    )

    assert facts is None, "all of it is comment"
    assert "crm.search" not in text
    assert "# The bundle has `crm` already; add under its `operations`:" in text
    assert "#   wipe: {}" in text
    assert '#   - {method: GET, host: crm.example, path: "/lost/{id}"' in text
    assert "crm.merge: UNREVIEWED_OPERATION, once" in text
    assert BOT not in text.split("asked by")[0]


def test_tools_of_an_mcp_server_are_imported_and_not_written() -> None:
    """Their digests come from the server."""
    known = BundleNames()
    known.tools.add("github")
    known.systems["github"] = ""
    facts, text, _ = proposed(
        [record(1, "UNKNOWN_OPERATION", asked={"operation": "github.list_issues"})], known
    )

    assert "catalog" not in facts
    assert "authz catalog import-mcp github; authz catalog review github" in text


def test_missing_permits_are_comments_until_taken_over() -> None:
    """By role where the principal has one, else by the role that is proposed for it."""
    chain = [user("corp/bob", groups=["sha256:aa", "sha256:bb"]), agent(BOT, "support-agent")]
    stranger = [agent(MAILER)]
    records = [
        record(
            1,
            "CHAIN_NOT_PERMITTED",
            operation="crm.get",
            chain=chain,
            without_permit=[{"kind": "User", "id": "corp/bob"}],
        ),
        record(
            2,
            "NOT_PERMITTED",
            operation="crm.get",
            chain=stranger,
            without_permit=[{"kind": "Agent", "id": MAILER}],
        ),
        record(3, "NOT_PERMITTED", operation="crm.search", chain=stranger, enforced=True),
        record(4, "FORBIDDEN", operation="crm.delete", chain=chain),
    ]
    files, known = desk()
    facts, text, policies = proposed(records, known)

    assert all(line.startswith("//") for line in policies.splitlines())
    assert 'permit(principal in Role::"proposed-corp", action in [' in policies
    assert 'permit(principal in Role::"proposed-mail-mailer", action in [' in policies
    assert "crm.search" not in policies, "an enforced denial is no missing permit"
    assert "crm.delete" not in policies, "a forbid is meant"
    assert facts["subjects"] == {"proposed-corp": {"issuer": "corp"}}
    assert "groups (2 values)" in text
    assert "FORBIDDEN crm.delete: once" in text
    reviewed = {"proposed.yaml": text.encode(), "policies/proposed.cedar": uncommented(policies)}
    plan = Plan.compile(BundleFiles("", {**files.files, **reviewed}), VARIABLES)
    request = {"as": {"agent": MAILER}, "call": "crm.get", "input": {"id": "7"}}
    assert plan.eval(request, 1)["outcome"] == "PERMIT", "it is what was asked for"


def uncommented(policies: str) -> bytes:
    """The drafts as a reviewer would take them over."""
    drafts = [line.removeprefix("// ") for line in policies.splitlines()[2:]]
    return "\n".join(line for line in drafts if line != "//").encode()


def test_nothing_permits_before_it_is_reviewed() -> None:
    """The bundle with the change judges every request as without it."""
    chain = [user("corp/bob"), agent(MAILER)]
    operations = ["crm.get", "crm.search", "mail.send", "wiki.read", "bank.quote"]
    records = [
        record(n, "NOT_PERMITTED", operation=operation, chain=chain)
        for n, operation in enumerate(operations)
    ]
    records.append(
        record(9, "UNKNOWN_OPERATION", chain=chain, asked={"operation": "jira.read_all"})
    )
    files, known = desk()
    facts, text, policies = proposed(records, known)
    assert {"agents", "subjects", "catalog", "classify"} == set(facts)
    before = Plan.compile(files, VARIABLES)
    change = {"proposed.yaml": text.encode(), "policies/proposed.cedar": policies.encode()}
    after = Plan.compile(BundleFiles("", {**files.files, **change}), VARIABLES)

    who = {"agent": MAILER, "subject": {"issuer": "corp", "sub": "bob"}}
    inputs: dict[str, dict[str, Any]] = {
        "crm.get": {"id": "1"},
        "crm.search": {"query": "x"},
        "mail.send": {"to": ["a@corp.example"]},
        "wiki.read": {"page": "x"},
        "bank.quote": {"amount": 1},
    }
    for operation, arguments in inputs.items():
        request = {"as": who, "call": operation, "input": arguments}
        assert after.eval(request, 1)["outcome"] == "DENY"
        assert before.eval(request, 1)["reason_code"] == after.eval(request, 1)["reason_code"]
    unreviewed = after.eval({"as": who, "call": "jira.read_all", "input": {}}, 1)
    assert (unreviewed["outcome"], unreviewed["reason_code"]) == ("DENY", "UNREVIEWED_OPERATION")


BREAKERS = [
    "x\nroutes: []",
    "x\r\nmode: enforce",
    "x\u2028agents: {}",
    "x\x85agents: {}",
    '"}\n- {match: "*"',
    "*/ permit(principal, action, resource);",
    '"); permit(principal, action, resource); //',
    "\ud800",
    "\x1b[2J",
    "${trust_domain}",
    "# x",
    "{id}",
    "- a",
    "&a *a",
    "!!python/object:os.system",
]
# Nearly what a bundle can hold.
HOSTS = st.text("a0.-_:", min_size=1, max_size=9)
PATHS = st.text("aB0.-_~/", max_size=9).map("/".__add__)
OPERATIONS = st.text("aB0.-_/", max_size=9).map("crm.".__add__)
HOSTILE = st.one_of(st.sampled_from(BREAKERS), st.text(max_size=40))


@st.composite
def hostile_records(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Records that nobody of ours wrote."""
    made = []

    def text() -> str:
        return draw(HOSTILE)

    for number in range(draw(st.integers(1, 4))):
        near = draw(
            st.sampled_from(
                [BOT, "crm.get", "/tickets/{digits}", "corp/bob", "GET", "tickets.example", ""]
            )
        )
        asked = {
            "method": draw(st.sampled_from(["GET", text()])),
            "host": draw(st.one_of(st.sampled_from(["tickets.example", near + text()]), HOSTS)),
            "path": draw(
                st.one_of(st.sampled_from(["/tickets", "/tickets/" + text(), text()]), PATHS)
            ),
            "query": [text(), "limit"],
            "operation": draw(st.one_of(st.sampled_from(["", near + text()]), OPERATIONS)),
        }
        link = {
            "kind": draw(st.sampled_from(["Agent", "User", text()])),
            "id": near + text(),
            "roles": draw(st.sampled_from([[], [text()], None])),
            "claims": {text(): [text()], "groups": text()},
        }
        code = draw(
            st.sampled_from(["NOT_PERMITTED", "UNKNOWN_OPERATION", "UNREVIEWED_OPERATION", text()])
        )
        operation = draw(st.sampled_from(["", "crm.get", "crm." + text()]))
        more = {"asked": asked} if draw(st.booleans()) else {}
        made.append(record(number, code, chain=[link], operation=operation, message=text(), **more))
    return made


@pytest.fixture(scope="module")
def before() -> Plan:
    """The bundle without a change."""
    return Plan.compile(desk()[0], VARIABLES)


@settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(hostile_records())
def test_no_record_breaks_out(before: Plan, records: list[dict[str, Any]]) -> None:
    """Neither of a value, nor of a comment: the bundle compiles, with no more keys, rules or policies than were proposed."""
    files, known = desk()
    facts, text, policies = proposed(records, known)

    assert set(facts or {}) <= {"agents", "subjects", "catalog", "classify", "routes"}
    assert all(rule["proposed"] is True for rule in (facts or {}).get("classify", ()))
    assert all(role.startswith("proposed-") for role in (facts or {}).get("agents", ()))
    assert all(role.startswith("proposed-") for role in (facts or {}).get("subjects", ()))
    assert all(
        line.startswith("//")
        for line in re.split(r"[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", policies)
        if line
    )
    change = {"policies/proposed.cedar": policies.encode()}
    if facts:
        change["proposed.yaml"] = text.encode()
    try:
        plan = Plan.compile(BundleFiles("", {**files.files, **change}), VARIABLES, before)
    except BundleError as error:
        pytest.fail(str(error))
    assert plan.policy_count == before.policy_count


def test_the_order_of_records_does_not_matter() -> None:
    """The same traffic gives the same text."""
    records = [
        record(n, **http(f"/t/{word}", method=method))
        for n, (word, method) in enumerate(
            [("b", "GET"), ("a", "PUT"), ("a", "GET"), ("{hex}", "GET")]
        )
    ]
    records += [record(9, "UNKNOWN_OPERATION", asked={"operation": f"z.op{n}"}) for n in (2, 1)]

    assert proposed(records)[1] == proposed(reversed(records))[1]


def test_however_much_was_seen_little_is_kept() -> None:
    """And what is left out is explanation."""
    records = (
        record(n % 50, "UNKNOWN_OPERATION", asked={"operation": f"s.op{n}"})
        for n in range(MOST + 7)
    )
    facts, text, _ = proposed(records)

    assert len(facts["classify"]) == MOST // 2
    assert f"too many unknown operations: {MOST // 2 + 7} decisions" in text


def test_no_agent_takes_the_room_of_the_others() -> None:
    """One agent has half of what the others leave, so what another asks for afterwards is proposed, too."""
    flood = [
        record(n % 50, "UNKNOWN_OPERATION", asked={"operation": f"s.op{n}"})
        for n in range(2 * MOST)
    ]
    late = record(1, "UNKNOWN_OPERATION", chain=[agent(MAILER)], asked={"operation": "mail.late"})

    facts, _, _ = proposed([*flood, late])

    assert "late" in facts["catalog"]["mail"]["operations"]


STRANGE = [
    {"asked": {"operation": "tickets.anything"}},
    {"asked": {"operation": "jira.delete_issue"}},
    http("/x", host="a..b"),
    http("/x", host="web.example:65536"),
    http("/x", host="tickets.example"),
    *(http(f"/tickets/{word}") for word in ("a", "b", "c", "d", "e", "f", "g", "h", "i", "j")),
    http("/tickets/{digits}", method="DELETE", query=["all"]),
    *(http(f"/w{n}", host=f"web{n}.example") for n in range(MOST + 100)),
]


def test_strangers_change_nothing_of_what_is_proposed_for_others() -> None:
    """One request with a host that no bundle can hold, and thousands of requests, spoil the file for nobody."""
    known = [record(n, **http(f"/tickets/{name}")) for n, name in enumerate(["one", "two"])]
    strange = [record(n % 60, chain=[], **one) for n, one in enumerate(STRANGE)]

    alone, _, _ = proposed(known)
    for mixed in ([*strange, *known], [*known, *strange]):
        facts, text, _ = proposed(mixed)
        assert facts == alone
        assert "#   GET tickets.example/x: once" in text
        assert "#   tickets.anything: once" in text
        assert "too many requests of strangers" in text


@pytest.mark.parametrize("path", ["/..", "/a/./b", "/" + "/".join(["x" * 200] * 12)])
def test_an_agent_that_no_bundle_can_name_is_left_out(path: str) -> None:
    """Its id is good as a name of a certificate, and refused in a bundle."""
    facts, _, _ = proposed([record(1, chain=[agent("spiffe://a.example" + path)], **http("/good"))])

    assert set(facts) == {"catalog", "classify", "routes"}


def test_the_longest_names_fit_into_a_bundle() -> None:
    """Those of operations are made from hosts and paths."""
    host = "x" * 63 + ".example"
    facts, text, _ = proposed([record(1, **http("/" + "/".join(["y" * 32] * 16), host=host))])

    assert len(facts["routes"]) == 1
    files, _ = desk()
    Plan.compile(BundleFiles("", {**files.files, "proposed.yaml": text.encode()}), VARIABLES)


def test_what_strangers_ask_for_alone_is_a_comment() -> None:
    """The reviewer is told of it, and no bundle takes it for facts."""
    facts, text, policies = proposed([record(1, chain=[], **http("/x"))])

    assert facts is None
    assert "#   GET tickets.example/x: once" in text
    assert policies == ""


@pytest.mark.parametrize(
    "asked",
    [
        http("/x", host="a..b"),
        http("/x", host="a.b."),
        http("/x", host="-a.b"),
        http("/x", host="x" * 64 + ".example"),
        http("/x", host=".".join(["x" * 60] * 5)),
        http("/x", host="a.example:0"),
        http("/x", host="a.example:65536"),
        http("/x", host="a.example:\u0661"),
        http("/x", host="a.example\n"),
        http("/a./b"),
        http("/.."),
        http("/x\n"),
        {"asked": {"operation": "crm.x\n"}},
        {"asked": {"operation": "s" * 100 + "." + "x" * 160}},
    ],
    ids=lambda asked: str(asked["asked"])[-40:],
)
def test_what_no_bundle_can_hold_is_not_proposed(asked: dict[str, Any]) -> None:
    """Also of a caller that is known: the file would be refused whole."""
    _, text, _ = proposed([record(1, **asked), record(2, **http("/good"))])

    assert "Of a form that no bundle could have: once" in text
    files, known = desk()
    facts, text, _ = proposed([record(1, **asked), record(2, **http("/good"))], known)
    assert [route["path"] for route in facts["routes"]] == ["/good"]
    Plan.compile(BundleFiles("", {**files.files, "proposed.yaml": text.encode()}), VARIABLES)


def test_what_a_probe_asks_is_no_traffic() -> None:
    """Nothing was to be done."""
    assert proposed([record(1, mode="PROBE", **http("/x"))])[1] == ""


def test_files_and_standard_input_are_read_in_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed ones too; a record that stands in two of them counts once."""
    first = tmp_path / "audit.1.gz"
    first.write_bytes(
        gzip.compress(lines([record(1, **http("/a")), record(2, **http("/a"))]).encode())
    )
    second = write(tmp_path / "audit", [record(2, **http("/a")), record(3, **http("/a"))])
    stdin = lines([record(4, **http("/a"))]).encode() + b"broken"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))

    assert run("propose", "--log", first, "--log", second, "--log", "-") == 0
    said = capsys.readouterr()
    assert "from 4 decisions, 2026-11-25T10:00:01.000Z to 2026-11-25T10:00:04.000Z." in said.out
    assert "standard input:2: the last record was not written whole." in said.err


def test_the_node_names_its_audit_and_its_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what was rotated away; only the span that is asked for."""
    shutil.copytree(DESK, tmp_path / "bundle")
    config = tmp_path / "config.yaml"
    config.write_text(
        "bundle: {path: bundle}\nvars: {trust_domain: trust-domain.example, tenant: acme}\naudit: {path: audit.jsonl}\n"
        'listeners: {main: {address: "127.0.0.1:0", insecure_dev: true}}\n'
    )
    write(tmp_path / "audit.jsonl-20261125", [record(1, **http("/a")), record(2, **http("/b"))])
    write(tmp_path / "audit.jsonl", [record(3, **http("/c")), record(4, **http("/d"))])
    write(tmp_path / "audit.jsonl.torn-1", [record(5, **http("/e"))])
    span = ("--since", "2026-11-25T10:00:02Z", "--until", "2026-11-25T11:00:04+01:00")

    assert run("propose", "-c", config, *span, "-o", tmp_path / "new") == 0
    facts = yaml.safe_load((tmp_path / "new" / "proposed.yaml").read_text())
    assert [route["path"] for route in facts["routes"]] == ["/b", "/c"]
    assert run("propose", "-c", config, *span, "-o", tmp_path / "new") == 1
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--log", "/nowhere/audit.jsonl"),
        ("--log", "-", "--since", "yesterday"),
        ("--log", "-", "--since", "2026-11-25", "--until", "2026-11-24"),
        ("--log", "-", "--log", "-"),
    ],
)
def test_wrong_use(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Says what is missing."""
    assert run("propose", *arguments) == 1
    assert "error: " in capsys.readouterr().err
