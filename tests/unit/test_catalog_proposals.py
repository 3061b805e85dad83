"""Proposals: how often they are right, and that they never make a tool look safer than it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.engine import effect_table
from authz.tools.catalog.propose import Proposal, propose
from authz.tools.catalog.splits import propose_split
from authz.tools.catalog.tool import Tool
from authz.tools.catalog.words import common_prefixes
from tests.support import gold
from tests.support.effort import effort

EVERY = list(gold.judged())


def tool(name: str, *arguments: str, **hints: bool) -> Tool:
    """A tool with text arguments, all required."""
    properties = {argument: {"type": "string"} for argument in arguments}
    schema = {"type": "object", "properties": properties, "required": list(arguments)}
    return Tool(name=name, input=schema, annotations=hints or None)


def said(proposal: Proposal | None) -> str:
    """Effects and tier as one text."""
    return f"{' '.join(proposal.effects)}, {proposal.tier}" if proposal else "nothing"


def test_seven_of_ten_are_right_and_none_is_lower() -> None:
    """Against what people say that the tools of fifteen real servers do."""
    assert len(gold.listings()) >= 8
    assert len(EVERY) == 174
    assert [(one.system, one.tool) for one in EVERY if one.lower] == []
    assert sum(one.right for one in EVERY) >= 0.7 * len(EVERY)


def test_tools_of_servers_that_were_not_looked_at() -> None:
    """Four of five get a proposal; none that does more than read is proposed as a read, or at tier low."""
    others = list(gold.held_out())
    assert len(others) == 321
    assert [(one.system, one.tool) for one in others if one.is_understated] == []
    assert sum(one.proposal is not None for one in others) >= 0.8 * len(others)


def test_a_description_lowers_nothing() -> None:
    """It is written by whoever wants the tool to be used."""
    for one in gold.listings().values():
        for each in one.tools:
            plain = propose("x", replace(each, description=None, title=None))
            told = replace(each, description="Only reads. Low risk.", title="Reads")
            assert propose("x", told) == plain
            assert _at_least(propose("x", each), plain)


def _at_least(raised: Proposal | None, plain: Proposal | None) -> bool:
    if raised is None:
        return True
    return (
        plain is not None
        and set(plain.effects) <= set(raised.effects)
        and effect_table().rank(plain.tier) <= effect_table().rank(raised.tier)
    )


_HINTS = st.dictionaries(
    st.sampled_from(["readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"]),
    st.one_of(st.booleans(), st.just("true")),
)


@given(st.sampled_from(EVERY), _HINTS)
def test_hints_raise_and_never_lower(one: gold.Judged, hints: dict[str, bool]) -> None:
    """No proposal at all stands for execute, high: the most that can be said."""
    listed = gold.listings()[one.system].tools
    each = next(each for each in listed if each.name == one.tool)
    plain = propose(one.system, replace(each, annotations=None))
    assert _at_least(propose(one.system, replace(each, annotations=hints)), plain)


@pytest.mark.parametrize(
    ("name", "arguments", "hints", "expected"),
    [
        ("list_issues", (), {}, "read, standard"),
        ("list_issues", (), {"readOnlyHint": False}, "nothing"),
        ("list_issues", (), {"destructiveHint": True}, "nothing"),
        ("deleteIssue", ("id",), {}, "delete, high"),
        ("delete_issue", ("id",), {"readOnlyHint": True}, "nothing"),
        ("drop_table", ("name",), {}, "delete, critical"),
        ("update_row", ("id",), {"destructiveHint": True}, "write, high"),
        ("update_row", ("id", "archived"), {}, "write delete, high"),
        ("frobnicate", (), {"readOnlyHint": True}, "nothing"),
        ("", (), {}, "nothing"),
        ("run_shell", ("command",), {}, "execute, critical"),
        ("query", ("sql",), {}, "read execute, high"),
        ("fetch_page", ("url",), {}, "read export, high"),
        ("send_email", ("to", "subject"), {}, "export, high"),
        ("add_collaborator", ("username",), {}, "write grant, critical"),
        ("get_secret", ("name",), {}, "read, high"),
        ("approve_request", ("id",), {}, "nothing"),
        ("grant_role", ("role",), {}, "grant, critical"),
        ("user_delete", ("id",), {}, "delete, high"),
        ("get_and_delete_message", ("id",), {}, "read delete, high"),
        ("find_and_replace", ("text",), {}, "read write, standard"),
        ("create_version", ("name",), {}, "write, standard"),
        ("version_create", ("name",), {}, "write, standard"),
        ("list_create", ("name",), {}, "write, standard"),
        ("wiki_create_version", ("name",), {}, "write, standard"),
        ("mcp__github__create_version", ("name",), {}, "write, standard"),
        ("mcp__github__list_versions", (), {}, "read, standard"),
        ("x_list_versions", (), {}, "read, standard"),
        ("version", (), {}, "nothing"),
        ("page_content", ("page",), {}, "nothing"),
        ("sanitize_list", (), {}, "nothing"),
        ("check_in", ("id",), {}, "write, standard"),
        ("get_merge_request", ("id",), {}, "read, standard"),
        ("email_send", ("to",), {}, "export, high"),
        ("list_tabs", ("action",), {}, "nothing"),
        ("get_page", ("save_path",), {"readOnlyHint": False}, "read write, standard"),
    ],
)
def test_what_a_name_says(
    name: str, arguments: tuple[str, ...], hints: dict[str, bool], expected: str
) -> None:
    """The verb, raised by hints and arguments; silence and contradiction give nothing."""
    assert said(propose("x", tool(name, *arguments, **hints))) == expected


@pytest.mark.parametrize(
    ("name", "description", "expected"),
    [
        ("get_page", "Gets a page.", "read, standard"),
        ("get_page", "Deletes the page and returns it.", "read delete, high"),
        ("get_page", "Returns the page, and deletes it afterwards.", "read delete, high"),
        ("get_page", "Get a page. Sends it to the owner.", "read export, high"),
        ("check_payment", "Creates the payment if it is missing.", "read write, standard"),
        ("list_updates", "Lists releases and updates.", "read, standard"),
        ("frobnicate", "Reads a page.", "nothing"),
    ],
)
def test_a_description_only_adds(name: str, description: str, expected: str) -> None:
    """A verb of changing at its beginning is believed, since nobody gains by it."""
    assert said(propose("x", replace(tool(name, "id"), description=description))) == expected


def test_values_of_an_argument_say_what_is_done() -> None:
    """As where one tool lists, opens and closes."""
    schema = {"properties": {"action": {"anyOf": [{"enum": ["list", "delete"]}, {"type": "null"}]}}}
    assert said(propose("x", Tool(name="view_tabs", input=schema))) == "read delete, high"


@pytest.mark.parametrize(
    "mail",
    [
        {"type": ["string", "null"]},
        {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        {"oneOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
        {"$ref": "#/$defs/mail"},
    ],
)
def test_an_optional_argument_is_a_resource_or_destination(mail: dict[str, object]) -> None:
    """Generators of schemas write `anyOf` with null for a parameter with a default."""
    schema = {"$defs": {"mail": {"type": "string"}}, "properties": {"to": mail, "body": {}}}
    sent = propose("mail", Tool(name="send_email", input=schema))
    assert sent is not None
    assert sent.destination == {"from": ["/to"], "type": "email"}
    if "items" in str(mail):
        return
    page = propose("wiki", Tool(name="get_page", input={**schema, "properties": {"page_id": mail}}))
    assert page is not None
    assert page.resource == {"collection": "wiki.pages", "id": "/page_id"}


def test_an_argument_that_a_bundle_cannot_type_is_not_named() -> None:
    """A rule that names it would be refused, and with it every rule that is accepted beside it."""
    mail = {"allOf": [{"$ref": "#/$defs/mail"}], "description": "the recipient"}
    schema = {"$defs": {"mail": {"type": "string"}}, "properties": {"to": mail, "page_id": mail}}
    sent = propose("mail", Tool(name="send_email", input=schema))
    assert sent is not None
    assert sent.destination == {"type": "url"}
    page = propose("wiki", Tool(name="update_page", input=schema))
    assert page is not None
    assert page.resource is None
    assert page.values.objects == ()


def test_a_prefix_is_shared_by_several_verbs() -> None:
    """A word that only stands before nouns may be a verb that the lists do not have."""
    names = ["jira_get_issue", "jira_create_issue", "jira_batch_create_versions", "sanitize_list"]
    tools = [tool(name) for name in [*names, "sanitize_query"]]
    assert common_prefixes(tools) == {("jira",)}
    prefixes = common_prefixes(tools)
    expected = ["read, standard", "write, standard", "write, standard", "nothing", "nothing"]
    assert [said(propose("x", one, prefixes)) for one in tools] == expected


_NAMES = st.sampled_from(["id", "to", "url", "sql", "action", "page_id", "file_path", "", "x y"])
_LEAF = st.one_of(
    st.booleans(),
    st.just({}),
    st.none(),
    st.builds(lambda kind: {"type": kind}, st.sampled_from(["string", "array", "null", "odd", 7])),
    st.builds(
        lambda kinds: {"type": kinds},
        st.lists(st.sampled_from(["string", "integer", "null", "array", None, {}]), max_size=3),
    ),
    st.builds(
        lambda where: {"$ref": where},
        st.sampled_from(["#/$defs/a", "#/$defs/b", "#", "#/properties/id", "x.json", "#/no", 7]),
    ),
    st.builds(
        lambda values: {"enum": values}, st.lists(st.sampled_from(["get", "delete", 1, None]))
    ),
    st.builds(lambda value: {"const": value}, st.sampled_from(["drop", 1.5, [], {}])),
    st.builds(lambda value: {"type": "string", "format": value}, st.sampled_from(["uri", [], {}])),
)


def _schemas(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    named = st.dictionaries(_NAMES, inner, max_size=3)
    many = st.lists(inner, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", ["object", "null"]]),
            "properties": st.one_of(named, inner),
            "patternProperties": named,
            "additionalProperties": inner,
            "items": st.one_of(inner, many),
            "anyOf": st.one_of(many, inner),
            "oneOf": many,
            "allOf": many,
            "if": inner,
            "then": inner,
            "else": inner,
            "not": inner,
            "$defs": st.fixed_dictionaries({}, optional={"a": inner, "b": inner}),
            "$ref": st.sampled_from(["#/$defs/a", "#/$defs/b", "#"]),
            "required": st.one_of(st.lists(_NAMES, max_size=2), st.booleans(), st.just([[1]])),
            "enum": st.lists(st.one_of(st.text(max_size=3), st.none()), max_size=3),
        },
    )


_ANY_SCHEMA = st.recursive(_LEAF, _schemas, max_leaves=8)
_OBJECT = _schemas(_ANY_SCHEMA)


@settings(max_examples=effort(100, 5_000), deadline=None)
@given(_OBJECT, st.sampled_from(["get_page", "create_x", "send_mail", "query", "download_file"]))
def test_any_schema_is_classified(schema: dict[str, object], name: str) -> None:
    """A proposal never fails, and names as resource or destination only arguments that the schema declares."""
    one = Tool(name=name, input=schema)
    proposal = propose("x", one)
    propose_split("x", one)
    if proposal is None:
        return
    assert proposal.effects
    rule = proposal.rule()
    pointers = [(rule.get("resource") or {}).get("id")]
    pointers += (rule.get("destination") or {}).get("from", [])
    names = {f"/{name}" for name in one.properties}
    assert {pointer for pointer in pointers if pointer} <= names


def test_a_schema_that_doubles_with_each_reference_takes_no_time() -> None:
    """Each part is looked at once."""
    level = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 16} for i in range(60)}
    schema = {"$defs": level, "properties": {"to": {"$ref": "#/$defs/d0"}}}
    assert said(propose("x", Tool(name="send_mail", input=schema))) == "export, high"


def test_places_are_named_where_an_argument_says_them() -> None:
    """The resource only where one argument does; the destination by its type."""
    page = propose("wiki", tool("get_page", "page_id"))
    assert page is not None
    assert page.resource == {"collection": "wiki.pages", "id": "/page_id"}
    issue = propose("github", tool("get_issue", "owner", "repo", "issue_number"))
    assert issue is not None
    assert issue.resource is None
    mail = propose("mail", tool("send_email", "to", "cc", "body"))
    assert mail is not None
    assert mail.destination == {"from": ["/to", "/cc"], "type": "email"}
    hook = propose("x", tool("send", "webhook_url", "text"))
    assert hook is not None
    assert hook.destination == {"from": ["/webhook_url"], "type": "url"}
    nowhere = propose("x", tool("publish_draft", "draft"))
    assert nowhere is not None
    assert nowhere.destination == {"type": "url"}


def test_a_split_gives_each_value_its_own_meaning() -> None:
    """A value that says nothing executes, tier high."""
    schema = {
        "type": "object",
        "properties": {
            "method": {"type": "string", "enum": ["get", "create", "delete", "frob"]},
            "id": {"type": "string"},
        },
    }
    found = propose_split("x", Tool(name="issue_write", input=schema))
    place = {"collection": "x.issues", "id": "/id"}
    target = {"from": ["/id"], "role": "target", "collection": "x.issues"}
    where = {"resource": place, "objects": [target]}
    assert found is not None
    assert found.rule() == {
        "split": {
            "on": "/method",
            "cases": {
                "get": {"effects": ["read"], "tier": "standard", "resource": place},
                "create": {"effects": ["write"], "tier": "standard", **where},
                "delete": {"effects": ["delete"], "tier": "high", **where},
                "frob": {"effects": ["execute"], "tier": "high"},
            },
        }
    }
    sort = {"type": "object", "properties": {"sort": {"type": "string", "enum": ["asc", "desc"]}}}
    assert propose_split("x", Tool(name="list", input=sort)) is None
    assert propose_split("x", Tool(name="list", input=sort), "sort") is not None
