"""Proposed origins of values: roles of arguments, ids of results, second forms, and a first set of templates."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz.bundle import read_folder
from authz.cli import main
from authz.engine import Plan
from authz.model import BundleFiles
from authz.tools.catalog.files import flow
from authz.tools.catalog.propose import propose
from authz.tools.catalog.splits import propose_split
from authz.tools.catalog.tool import Tool, read_listing
from authz.tools.catalog.values import VALUE_KEYS, argument_leaves
from authz.tools.catalog.words import common_prefixes
from tests.support import gold

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT: dict[str, Any] = {"type": "string"}
WHOLE: dict[str, Any] = {"type": "integer"}
MAYBE: dict[str, Any] = {"anyOf": [TEXT, {"type": "null"}]}
ID_LIKE = re.compile(
    r"(^|[_-])(id|ids|iid|uuid|key|keys|number)$|[a-z](Id|Ids|Key|Number)$|^id[A-Z]"
)


def tool(tool_name: str, tool_output: dict[str, Any] | None = None, /, **arguments: Any) -> Tool:
    """A tool with required arguments of these schemas."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": arguments,
        "required": list(arguments),
    }
    return Tool(name=tool_name, input=schema, output=tool_output)


def keys(one: Tool, key: str) -> list[dict[str, Any]]:
    """What a proposal says for one key."""
    proposal = propose("x", one)
    assert proposal is not None
    found: list[dict[str, Any]] = proposal.rule().get(key, [])
    return found


def roles(one: Tool) -> dict[str, str]:
    """Role and namespace of each argument, as `role type` or `role collection`."""
    return {
        pointer: " ".join(
            str(entry[part]) for part in ("role", "type", "collection") if part in entry
        )
        for entry in keys(one, "objects")
        for pointer in entry["from"]
    }


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (tool("update_event", event_id=TEXT, title=TEXT), {"/event_id": "target x.events"}),
        (tool("update_event", id=TEXT), {"/id": "target x.events"}),
        (tool("delete_issues", ids={"type": "array", "items": WHOLE}), {"/ids": "target x.issues"}),
        (tool("close_issue", issue_number={"type": "number"}), {"/issue_number": "target x.issues"}),
        (tool("archive_page", pageId={"type": ["string", "null"]}), {"/pageId": "target x.pages"}),
        (tool("move_card", cardId=TEXT, idBoard=MAYBE), {"/cardId": "target x.cards", "/idBoard": "target x.boards"}),
        (tool("set_card_limit", id=TEXT, limit=WHOLE), {"/id": "target x.cards", "/limit": "amount"}),
        (tool("update_page", parent={"type": "object", "properties": {"page_id": TEXT}}), {"/parent/page_id": "target x.pages"}),
        (tool("drop_table", name=TEXT), {"/name": "target x.tables"}),
        (tool("create_table", name=TEXT), {}),
        (tool("create_branch", branch=TEXT, from_branch=TEXT), {"/from_branch": "target x.branches"}),
        (tool("write_file", path=TEXT, content=TEXT), {"/path": "target x.files"}),
        (tool("move_file", source=TEXT, destination=TEXT), {"/source": "target x.files", "/destination": "target x.files"}),
        (tool("transfer", account=TEXT, iban=TEXT, amount=WHOLE), {"/account": "target x.accounts", "/iban": "recipient iban", "/amount": "amount"}),
        (tool("move_money", from_account=TEXT, to_account=TEXT, amount=WHOLE), {"/from_account": "target x.accounts", "/to_account": "recipient account", "/amount": "amount"}),
        (tool("add_attendees", event_id=TEXT, attendees={"type": "array", "items": {"type": "string", "format": "email"}}), {"/event_id": "target x.events", "/attendees": "recipient email"}),
        (tool("grant_role", person=TEXT, role=TEXT), {"/person": "recipient account"}),
        (tool("run_query", sql=TEXT), {"/sql": "command"}),
        (tool("connect", api_key=TEXT, page_token=TEXT, max_tokens=WHOLE), {"/api_key": "credential"}),
        (tool("update_issue", issue_number=WHOLE, page_number=WHOLE, request_id=TEXT, state={"type": "string", "enum": ["open"]}), {"/issue_number": "target x.issues"}),
        (tool("set_flag", id={"type": "boolean"}), {}),
        (tool("set_price", sku=TEXT, price={"type": "number"}), {"/sku": "target x.skus", "/price": "amount"}),
        (tool("update_rows", id={}), {}),
        (tool("update_rows", id={"anyOf": [TEXT, {"type": "object"}]}), {}),
        (tool("list_issues", project_id=TEXT, limit=WHOLE), {}),
        (tool("update_list", list_id=TEXT, limit=WHOLE, cursor=TEXT), {"/list_id": "target x.lists"}),
    ],
)  # fmt: skip
def test_roles_of_arguments(one: Tool, expected: dict[str, str]) -> None:
    """By name and type; also of integers, lists, optional and nullable arguments."""
    assert roles(one) == expected


def test_an_argument_that_is_a_destination_has_no_second_role() -> None:
    """The destination has a role of its own."""
    one = tool("send_email", to={"type": "array", "items": TEXT}, cc=TEXT, message_id=TEXT)
    proposal = propose("x", one)
    assert proposal is not None
    assert proposal.destination == {"from": ["/to", "/cc"], "type": "email"}
    assert roles(one) == {"/message_id": "target x.messages"}
    paid = propose("x", tool("pay_bill", iban=TEXT, amount=WHOLE))
    assert paid is not None
    assert paid.destination == {"from": ["/iban"], "type": "iban"}


def test_an_amount_has_its_currency_and_its_scale() -> None:
    """Of the same object; hundredths by the name."""
    one = tool("refund_order", order_id=TEXT, amount_cents=WHOLE, currency=TEXT)
    assert keys(one, "objects")[1] == {
        "from": ["/amount_cents"],
        "role": "amount",
        "currency": "/currency",
        "scale": 100,
    }


def test_required_and_optional_arguments_stand_apart() -> None:
    """So that a reviewer sees what `when_absent` would be about."""
    schema = {
        "type": "object",
        "properties": {"page_id": TEXT, "parent_page_id": MAYBE},
        "required": ["page_id"],
    }
    entries = keys(Tool("move_page", schema), "objects")
    assert [entry["from"] for entry in entries] == [["/page_id"], ["/parent_page_id"]]
    both = keys(tool("move_page", page_id=TEXT, parent_page_id=MAYBE), "objects")
    assert [entry["from"] for entry in both] == [["/page_id", "/parent_page_id"]]


def test_a_list_of_objects_is_said_to_be_out_of_reach() -> None:
    """No pointer names a member of each item."""
    items = {"type": "array", "items": {"type": "object", "properties": {"id": TEXT}}}
    proposal = propose("x", tool("update_rows", rows=items))
    assert proposal is not None
    assert proposal.values.objects == ()
    assert "/rows is a list of objects" in proposal.comment


def result(**properties: Any) -> dict[str, Any]:
    """Schema of a result."""
    return {"type": "object", "properties": properties}


EVENT = result(id=TEXT, title=TEXT, organizer={"type": "string", "format": "email"})


def test_what_creates_names_the_new_id() -> None:
    """From the schema of the result, also within one object; never of a tool that only reads."""
    made = tool("create_event", result(id=TEXT), title=TEXT)
    assert keys(made, "creates") == [{"id": "/id", "collection": "x.events"}]
    wrapped = tool("create_event", result(event=EVENT), title=TEXT)
    assert keys(wrapped, "creates") == [{"id": "/event/id", "collection": "x.events"}]
    assert keys(tool("get_event", result(id=TEXT)), "creates") == []
    assert keys(tool("delete_event", result(id=TEXT)), "creates") == []
    without = propose("x", tool("create_event", title=TEXT))
    assert without is not None
    assert "no output schema: if the result has the id" in without.comment


def test_what_reads_introduces_ids_and_addresses_that_lift_nothing() -> None:
    """No proposal says who writes a field: the default is anybody."""
    listed = result(items={"type": "array", "items": EVENT}, next=TEXT)
    one = tool("list_events", listed)
    assert keys(one, "introduces") == [
        {"from": "/items/*/id", "collection": "x.events"},
        {"from": "/items/*/organizer", "type": "email"},
    ]
    assert keys(one, "pairs") == [
        {"id": "/items/*/id", "name": "/items/*/title", "collection": "x.events"}
    ]
    proposal = propose("x", one)
    assert proposal is not None
    assert "say `by: owner`" in proposal.comment
    without = propose("x", tool("list_events"))
    assert without is not None
    assert "no output schema: write `introduces` and `pairs`" in without.comment


def test_the_collection_of_a_list_is_named_by_the_list() -> None:
    """A search may return several kinds."""
    both = result(
        issues={"type": "array", "items": result(number=WHOLE, title=TEXT)},
        users={"type": "array", "items": result(id=TEXT, name=TEXT, email=TEXT)},
    )
    assert keys(tool("search", both), "introduces") == [
        {"from": "/issues/*/number", "collection": "x.issues"},
        {"from": "/users/*/id", "collection": "x.users"},
        {"from": "/users/*/email", "type": "email"},
    ]


@pytest.mark.parametrize(
    ("name", "schema", "said", "form"),
    [
        ("amount", WHOLE, "Amount; string or number.", "integer"),
        ("count", WHOLE, "A numeric string is fine, numbers as a string too.", "integer"),
        ("notify", {"type": "boolean"}, 'Notify; "true" or "false".', "boolean"),
        ("url", TEXT, "URL, with or without a scheme.", "url"),
        ("url", TEXT, "https:// is added if missing; protocol optional.", "url"),
        ("folder", TEXT, "Folder. A trailing slash is ignored.", "folder"),
        ("title", TEXT, "With or without a scheme.", None),
        ("amount", WHOLE, "Amount in cents.", None),
        ("amount", TEXT, "string or number", None),
    ],
)
def test_a_description_may_tell_a_second_form(
    name: str, schema: dict[str, Any], said: str, form: str | None
) -> None:
    """Of an argument with that type."""
    one = tool("update_thing", **{name: {**schema, "description": said}})
    assert keys(one, "coerces") == ([{"from": f"/{name}", "to": form}] if form else [])


def test_cases_of_a_split_tool_have_no_second_forms() -> None:
    """Arguments are read before they choose a case."""
    one = tool(
        "issue_write",
        method={"type": "string", "enum": ["create", "delete"]},
        issue_number={**WHOLE, "description": "string or number"},
    )
    split = propose_split("x", one)
    assert split is not None
    cases = split.rule()["split"]["cases"]
    assert all("coerces" not in case for case in cases.values())
    assert cases["delete"]["objects"][0]["collection"] == "x.issues"


def servers() -> Iterator[tuple[str, Tool, dict[str, Any]]]:
    """Each tool of each server, with its proposed rule."""
    for folder in (gold.FOLDER, gold.FOLDER / "held_out"):
        for path in sorted(folder.glob("*.json")):
            listing = read_listing(path.read_text())
            prefixes = common_prefixes(listing.tools)
            for one in listing.tools:
                if (proposal := propose(path.stem, one, prefixes)) is not None:
                    yield path.stem, one, proposal.rule()


def test_ids_of_real_servers_have_roles() -> None:
    """Nineteen of twenty in tools that do more than read; amounts are none of these servers' arguments."""
    seen: Counter[str] = Counter()
    for _, one, rule in servers():
        if rule["effects"] == ["read"]:
            continue
        placed = set((rule.get("destination") or {}).get("from", ()))
        placed |= {pointer for entry in rule.get("objects", ()) for pointer in entry["from"]}
        for leaf in argument_leaves(one)[0]:
            if leaf.types and ID_LIKE.search(leaf.pointer.rpartition("/")[2]):
                seen["all"] += 1
                seen["placed"] += leaf.pointer in placed
    assert seen["all"] > 150
    assert seen["placed"] >= 0.95 * seen["all"]


def test_no_proposal_says_who_writes_a_field() -> None:
    """`by: owner`, `author` and `when_absent` are a reviewer's word."""
    for system, one, rule in servers():
        for key in VALUE_KEYS:
            for entry in rule.get(key, ()):
                assert not {"by", "author", "when_absent"} & entry.keys(), (system, one.name)
        assert not (rule["effects"] == ["read"] and "creates" in rule)


NAMES = st.sampled_from(
    [
        "id",
        "ids",
        "event_id",
        "issue_number",
        "amount",
        "price",
        "currency",
        "total",
        "limit",
        "token",
        "api_key",
        "sql",
        "url",
        "to",
        "email",
        "emails",
        "path",
        "name",
        "parent",
        "items",
        "title",
        "organizer",
        "iban",
        "account",
        "notify",
        "a/b",
        "x~y",
    ]
)
SCALARS = st.sampled_from(
    [
        TEXT,
        WHOLE,
        MAYBE,
        {},
        {"type": "number"},
        {"type": "boolean"},
        {"type": ["string", "null"]},
        {"type": "array", "items": TEXT},
        {"enum": ["a"]},
        {"$ref": "#/$defs/text"},
    ]
)
SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.dictionaries(NAMES, inner, max_size=4).map(
            lambda properties: {"type": "object", "properties": properties}
        ),
        inner.map(lambda items: {"type": "array", "items": items}),
    ),
    max_leaves=8,
)
ROOTS = st.dictionaries(NAMES, SCHEMAS, max_size=6).map(
    lambda properties: {
        "type": "object",
        "properties": properties,
        "$defs": {"text": TEXT},
    }
)
VERBS = st.sampled_from(
    ["create", "update", "delete", "list", "get", "send", "grant", "run", "pay"]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VERBS, st.sampled_from(["event", "issues", "pull_request"]), ROOTS, st.none() | ROOTS)
def test_a_bundle_takes_what_is_proposed(
    verb: str, noun: str, arguments: dict[str, Any], output: dict[str, Any] | None
) -> None:
    """Whatever the schemas: pointers name arguments of the right type, and collections are declared."""
    proposal = propose("x", Tool(f"{verb}_{noun}", arguments, output=output))
    assert proposal is not None
    rule = proposal.rule()
    collections = {
        entry["collection"]
        for key in VALUE_KEYS
        for entry in rule.get(key, ())
        if "collection" in entry
    }
    collections |= {rule["resource"]["collection"]} if "resource" in rule else set()
    operation = {"input": arguments}
    text = "\n".join(
        [
            "catalog: "
            + flow({"x": {"kind": "http", "operations": {f"{verb}_{noun}": operation}}}),
            "classify: " + flow([{"match": f"x.{verb}_{noun}", **rule}]),
            "resources: " + flow({name: {} for name in sorted(collections)}),
            'destinations: {external: {match: "*", clearance: []}}',
        ]
    )
    files = {"bundle.yaml": b"name: t\ntasks: optional\n", "facts.yaml": text.encode()}
    files["policies/none.cedar"] = b'@id("none") permit(principal in Role::"r", action, resource);'
    files["roles.yaml"] = b"agents: {r: ['spiffe://a.example/r']}\n"
    Plan.compile(BundleFiles("t", files), {})


def test_schemas_in_circles_are_left() -> None:
    """Each schema is looked at a bounded number of times."""
    circle: dict[str, Any] = {
        "type": "object",
        "properties": {f"p{n}": {"$ref": "#"} for n in range(200)},
    }
    union = {"properties": {"id": {"anyOf": [{"$ref": "#/properties/id"}] * 200}}, "type": "object"}
    for schema in (circle, union):
        proposal = propose("x", Tool("create_event", schema, output=schema))
        assert proposal is not None
        assert proposal.values.objects == ()


# --- review and templates


def run(*arguments: str | Path) -> int:
    """Run the command and give its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


CALENDAR: list[dict[str, Any]] = [
    {"name": "list_events", "outputSchema": result(items={"type": "array", "items": EVENT})},
    {"name": "create_event", "inputSchema": tool("c", title=TEXT).input, "outputSchema": result(id=TEXT)},
    {
        "name": "update_event",
        "inputSchema": tool(
            "u", event_id=TEXT, minutes={**WHOLE, "description": "string or number"}
        ).input,
    },
    {"name": "delete_event", "inputSchema": tool("d", event_id=TEXT).input},
    {"name": "add_event_comment", "inputSchema": tool("a", event_id=TEXT, text=TEXT).input},
    {"name": "share_calendar", "inputSchema": tool("s", email=TEXT).input},
    {"name": "frobnicate"},
]  # fmt: skip


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with the tools of a calendar."""
    folder = tmp_path / "bundle"
    (folder / "policies").mkdir(parents=True)
    (folder / "bundle.yaml").write_text("name: test\ntasks: optional\n")
    (folder / "facts.yaml").write_text('agents: {bot: ["spiffe://a.example/bot"]}\n')
    policy = '@id("bot") permit(principal in Role::"bot", action, resource);\n'
    (folder / "policies" / "bot.cedar").write_text(policy)
    file = tmp_path / "tools.json"
    whole = [{"inputSchema": {"type": "object"}, **one} for one in CALENDAR]
    file.write_text(json.dumps({"tools": whole}))
    assert run("catalog", "import-mcp", "cal", "--file", file, "-b", folder) == 0
    assert run("catalog", "classify", "cal", "-b", folder) == 0
    return folder


def accepted(bundle: Path) -> dict[str, dict[str, Any]]:
    """Accepted rules by operation."""
    document = yaml.safe_load((bundle / "catalog" / "cal.accepted.yaml").read_text())
    return {rule["match"]: rule for rule in document["classify"]}


def test_a_proposal_says_why_and_what_is_missing(bundle: Path) -> None:
    """Above its rule."""
    text = (bundle / "catalog" / "cal.proposed.yaml").read_text()
    assert "# verb `create`\n" in text
    assert "# verb `delete`\n" in text
    assert "`coerces` is from the description: try it, then review" in text
    assert "say `by: owner` where outsiders cannot write them" in text


def test_accepting_unseen_leaves_second_forms_out(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A review that shows the rule keeps them. Collections of all keys are declared."""
    assert run("catalog", "accept", "cal", "--all", "-b", bundle) == 0
    assert "cal.update_event: accepted without its proposed `coerces`" in capsys.readouterr().err
    rules = accepted(bundle)
    assert "coerces" not in rules["cal.update_event"]
    assert rules["cal.update_event"]["objects"][0]["collection"] == "cal.events"
    assert rules["cal.create_event"]["creates"] == [{"id": "/id", "collection": "cal.events"}]
    Plan.compile(read_folder(bundle), {})


def test_a_review_that_shows_the_rule_takes_all_of_it(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the tool has no proposal at all and is accepted as one that executes."""
    monkeypatch.setattr("typer.prompt", lambda *_, **__: "a")
    assert run("catalog", "review", "cal", "-b", bundle) == 0
    assert "coerces: [{from: /minutes, to: integer}]" in capsys.readouterr().out
    rules = accepted(bundle)
    assert rules["cal.update_event"]["coerces"] == [{"from": "/minutes", "to": "integer"}]


def test_rules_from_before_get_values_by_a_review(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is shown before and after; the rest of the rule stays."""
    assert run("catalog", "accept", "cal", "--all", "-b", bundle) == 0
    path = bundle / "catalog" / "cal.accepted.yaml"
    document = yaml.safe_load(path.read_text())
    for rule in document["classify"]:
        for key in VALUE_KEYS:
            rule.pop(key, None)
    path.write_text(yaml.safe_dump(document))
    monkeypatch.setattr("typer.prompt", lambda *_, **__: "a")
    capsys.readouterr()
    assert run("catalog", "review", "cal", "--values", "-b", bundle) == 0
    said = capsys.readouterr().out
    assert "before: {effects: [delete]" in said
    assert "after:  {effects: [delete]" in said
    assert accepted(bundle)["cal.delete_event"]["objects"][0]["from"] == ["/event_id"]
    assert run("catalog", "review", "cal", "--values", "-b", bundle) == 0
    assert "0 accepted, 0 left" in capsys.readouterr().out
    assert run("catalog", "review", "cal", "--values", "--csv-out", "x", "-b", bundle) == 1


def test_a_first_set_of_templates_is_small_and_starts_nothing(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that reads; for each kind of object one that changes it; removing and sharing stand apart."""
    capsys.readouterr()
    assert run("catalog", "templates", "cal", "-b", bundle) == 0
    text = capsys.readouterr().out
    templates = yaml.safe_load(text)["templates"]
    assert {name: one["scope"] for name, one in templates.items()} == {
        "proposed-read-cal": [{"operations": ["cal.list_events"]}],
        "proposed-change-cal-events": [
            {"operations": ["cal.list_events"]},
            {"operation": "cal.add_event_comment", "uses": 10},
            {"operation": "cal.create_event", "uses": 10},
            {"operation": "cal.update_event", "uses": 10},
        ],
        "proposed-remove-cal-events": [
            {"operations": ["cal.list_events"]},
            {"operation": "cal.delete_event", "uses": 1},
        ],
        "proposed-change-cal-calendars": [{"operation": "cal.share_calendar", "uses": 10}],
    }
    assert "Not reviewed: 6 of these tools." in text
    assert "In no template, since nobody said what they do: cal.frobnicate." in text
    target = bundle / "cal-templates.yaml"
    assert run("catalog", "templates", "cal", "-b", bundle, "-o", target) == 0
    assert run("catalog", "templates", "cal", "-b", bundle, "-o", target) == 1
    assert "is there already" in capsys.readouterr().err
    Plan.compile(read_folder(bundle), {})


def test_the_cases_of_a_split_tool_stand_in_templates_of_their_own(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once the split is accepted; before, the tool is in none."""
    method = {"type": "string", "enum": ["get", "create", "delete"]}
    schema = tool("t", method=method, issue_number=WHOLE).input
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"tools": [{"name": "issue_write", "inputSchema": schema}]}))
    assert run("catalog", "import-mcp", "w", "--file", file, "-b", bundle) == 0
    assert run("catalog", "split", "w", "-b", bundle) == 0
    capsys.readouterr()
    assert run("catalog", "templates", "w", "-b", bundle) == 0
    text = capsys.readouterr().out
    assert "# In no template until their split is accepted: w.issue_write." in text
    assert yaml.safe_load(text) is None
    assert run("catalog", "accept", "w", "--all", "-b", bundle) == 0
    assert run("catalog", "templates", "w", "-b", bundle, "-o", bundle / "w.yaml") == 0
    templates = yaml.safe_load((bundle / "w.yaml").read_text())["templates"]
    assert templates.keys() == {
        "proposed-read-w",
        "proposed-change-w-issues",
        "proposed-remove-w-issues",
    }
    reading, removed = templates["proposed-remove-w-issues"]["scope"]
    assert reading["operations"] == templates["proposed-read-w"]["scope"][0]["operations"]
    assert removed["uses"] == 1
    Plan.compile(read_folder(bundle), {})


def test_a_changed_tool_shows_its_values_before_and_after(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The rule stays as it is; the reviewer sees what it no longer names."""
    assert run("catalog", "accept", "cal", "--all", "-b", bundle) == 0
    changed = [{"inputSchema": {"type": "object"}, **one} for one in CALENDAR]
    changed[3] = {
        "name": "delete_event",
        "inputSchema": tool("d", event_id=TEXT, calendar_id=TEXT).input,
    }
    file = tmp_path / "changed.json"
    file.write_text(json.dumps({"tools": changed}))
    assert run("catalog", "import-mcp", "cal", "--file", file, "-b", bundle) == 0
    monkeypatch.setattr("typer.prompt", lambda *_, **__: "")
    capsys.readouterr()
    assert run("catalog", "review", "cal", "-b", bundle) == 0
    said = " ".join(capsys.readouterr().out.split())
    target = "{from: [/event_id], role: target, collection: cal.events}"
    calendar = "{from: [/calendar_id], role: target, collection: cal.calendars}"
    assert f"objects in your rule: [{target}]" in said
    assert f"objects proposed now: [{target}, {calendar}]" in said


@pytest.mark.parametrize("system", ["filesystem", "github", "memory", "mongodb", "notion"])
def test_a_bundle_takes_the_templates_of_real_servers(
    bundle: Path, system: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also before anything is reviewed; each is smaller than the whole server, but for the one that reads."""
    file = gold.FOLDER / f"{system}.json"
    assert run("catalog", "import-mcp", system, "--file", file, "-b", bundle) == 0
    assert run("catalog", "classify", system, "-b", bundle) == 0
    capsys.readouterr()
    assert run("catalog", "templates", system, "-b", bundle) == 0
    text = capsys.readouterr().out
    (bundle / "templates.yaml").write_text(text)
    Plan.compile(read_folder(bundle), {})
    reads = {
        f"{name}.{one.name}"
        for name, one, rule in servers()
        if name == system and rule["effects"] == ["read"]
    }
    for name, one in yaml.safe_load(text)["templates"].items():
        changes = [entry for entry in one["scope"] if "operation" in entry]
        assert all("uses" in entry for entry in changes)
        listed = {operation for entry in one["scope"] for operation in entry.get("operations", ())}
        assert listed <= reads
        assert bool(changes) is not name.startswith("proposed-read-")
