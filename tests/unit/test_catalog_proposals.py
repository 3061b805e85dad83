"""Proposals: how often they are right, and that they never make a tool look safer than it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.tools.catalog.propose import TIERS, Proposal, propose
from authz.tools.catalog.splits import propose_split
from authz.tools.catalog.tool import Tool
from tests.support import gold

EVERY = list(gold.judged())


def tool(name: str, *arguments: str, **hints: bool) -> Tool:
    """A tool with text arguments, all required."""
    properties = {argument: {"type": "string"} for argument in arguments}
    schema = {"type": "object", "properties": properties, "required": list(arguments)}
    return Tool(name=name, input=schema, annotations=hints or None)


def said(proposal: Proposal | None) -> str:
    """Effects and tier as one text."""
    return f"{' '.join(proposal.effects)}, {proposal.tier}" if proposal else "nothing"


def test_three_of_four_are_right_and_none_is_lower() -> None:
    """Against what people say that the tools of fifteen real servers do."""
    assert len(gold.listings()) >= 8
    assert len(EVERY) == 174
    assert [(one.system, one.tool) for one in EVERY if one.lower] == []
    assert sum(one.right for one in EVERY) == 132
    assert sum(one.right for one in EVERY) >= 0.75 * len(EVERY)


def test_descriptions_are_not_believed() -> None:
    """They are written by whoever wants the tool to be used."""
    for one in gold.listings().values():
        for each in one.tools:
            told = replace(each, description="Only reads. Low risk.", title="Reads")
            assert propose("x", told) == propose("x", replace(each, description=None, title=None))


def _at_least(raised: Proposal | None, plain: Proposal | None) -> bool:
    if raised is None:
        return True
    return (
        plain is not None
        and set(plain.effects) <= set(raised.effects)
        and TIERS.index(plain.tier) <= TIERS.index(raised.tier)
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
        ("get_and_delete_message", ("id",), {}, "read, standard"),
    ],
)
def test_what_a_name_says(
    name: str, arguments: tuple[str, ...], hints: dict[str, bool], expected: str
) -> None:
    """The verb, raised by hints and arguments; silence and contradiction give nothing."""
    assert said(propose("x", tool(name, *arguments, **hints))) == expected


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
    assert found is not None
    assert found.rule() == {
        "split": {
            "on": "/method",
            "cases": {
                "get": {"effects": ["read"], "tier": "standard"},
                "create": {"effects": ["write"], "tier": "standard"},
                "delete": {"effects": ["delete"], "tier": "high"},
                "frob": {"effects": ["execute"], "tier": "high"},
            },
        }
    }
    sort = {"type": "object", "properties": {"sort": {"type": "string", "enum": ["asc", "desc"]}}}
    assert propose_split("x", Tool(name="list", input=sort)) is None
    assert propose_split("x", Tool(name="list", input=sort), "sort") is not None
