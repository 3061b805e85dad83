"""Redaction of results: what an obligation names is gone, and a result that cannot be searched is not returned."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_client.obligations import Obligation, Obligations, is_supported
from authz_client.redaction import (
    REDACTED,
    RedactionError,
    redact,
    redact_mcp,
    redact_mcp_resource,
    redactions,
)

CARD = "4111 1111 1111 1111"
IBAN = "DE89 3704 0044 0532 0130 00"


@pytest.mark.parametrize(
    ("pointer", "value", "expected"),
    [
        ("/a", {"a": 1, "b": 2}, {"a": REDACTED, "b": 2}),
        ("/a/b", {"a": {"b": [1, 2], "c": 3}}, {"a": {"b": REDACTED, "c": 3}}),
        ("/*/b", [{"b": 1}, {"c": 2}, 3], [{"b": REDACTED}, {"c": 2}, 3]),
        ("/1", ["x", "y"], ["x", REDACTED]),
        ("/a/*", {"a": {"b": 1, "c": 2}}, {"a": {"b": REDACTED, "c": REDACTED}}),
        ("/a~1b/c~0d", {"a/b": {"c~d": 1}}, {"a/b": {"c~d": REDACTED}}),
        ("/missing", {"a": 1}, {"a": 1}),
        ("/a/b", {"a": None}, {"a": None}),
        ("/a", '{"a": "x", "b": "é"}', '{"a": "[redacted]", "b": "é"}'),
    ],
)
def test_a_pointer(pointer: str, value: Any, expected: Any) -> None:
    """Removes one value, and nothing else."""
    before = json.dumps(value)
    assert redact(value, f"redact:{pointer}") == expected
    assert json.dumps(value) == before


@dataclass
class Customer:
    """A result that is no JSON."""

    email: str = "a@corp.example"


@pytest.mark.parametrize(
    ("obligation", "value"),
    [
        ("redact:/email", Customer()),
        ("redact:/a/b", {"a": "text with b"}),
        ("redact:/a", "no JSON at all"),
        ("redact:/a", '"a"'),
        ("redact:/a", "[" * 100_000),
        ("redact:email", Customer()),
        ("redact:email", {"a": [Customer()]}),
        ("redact:email", b"a@corp.example"),
        ("redact:pii", {"a": 1}),
        ("mask:/a", {"a": 1}),
    ],
)
def test_what_cannot_be_searched_is_not_returned(obligation: str, value: Any) -> None:
    """A caller gets no result rather than one with the value."""
    with pytest.raises(RedactionError):
        redact(value, obligation)


def test_a_deep_result_is_not_returned() -> None:
    """A search has an end."""
    value: Any = "a@corp.example"
    for _ in range(100):
        value = [value]
    with pytest.raises(RedactionError):
        redact(value, "redact:email")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("card", f"pay {CARD}, please", f"pay {REDACTED}, please"),
        ("card", "4111-1111-1111-1111", REDACTED),
        ("card", "4111111111111112 is no card", "4111111111111112 is no card"),
        ("card", "order 123456", "order 123456"),
        ("email", "to Ann <ann.lee+x@mail.corp.example>!", f"to Ann <{REDACTED}>!"),
        ("email", "a@b, @corp", "a@b, @corp"),
        ("iban", f"{IBAN} is ours", f"{REDACTED} is ours"),
        ("iban", "de89370400440532013000", REDACTED),
        ("iban", "DE89370400440532013001", "DE89370400440532013001"),
        ("iban", "NL91 ABNA 0417 1643 00", REDACTED),
    ],
)
def test_a_pattern(name: str, text: str, expected: str) -> None:
    """Removes values of one kind, wherever they stand."""
    obligation = f"redact:{name}"
    assert redact(text, obligation) == expected
    assert redact({"a": [text], text: 1}, obligation) == {"a": [expected], expected: 1}


def test_a_number_may_be_a_card() -> None:
    """An agent reads it as well as a text."""
    assert redact({"card": 4111111111111111, "n": 3.5}, "redact:card") == {
        "card": REDACTED,
        "n": 3.5,
    }


@given(before=st.text(max_size=40), after=st.text(max_size=40))
def test_no_text_around_it_hides_a_mailbox(before: str, after: str) -> None:
    """The mailbox is gone, whatever stands beside it."""
    found = redact(f"{before} ann@corp.example {after}", "redact:email")
    assert "ann@corp.example" not in found


# --- MCP


def text_block(text: str) -> dict[str, Any]:
    """A block of text."""
    return {"type": "text", "text": text}


def test_a_pointer_leads_into_all_forms_of_a_tool_result() -> None:
    """Structured content, and the text that repeats it; a text that could repeat it goes as a whole."""
    value = {"customer": {"email": "ann@corp.example", "id": 7}}
    result = {
        "structuredContent": value,
        "content": [
            text_block(json.dumps(value)),
            text_block("Ann's address is ann@corp.example."),
            {"type": "image", "data": "aaaa", "mimeType": "image/png"},
        ],
        "isError": False,
    }
    cleaned = redact_mcp(result, "redact:/customer/email")
    assert "ann@corp.example" not in json.dumps(cleaned)
    assert cleaned["structuredContent"] == {"customer": {"email": REDACTED, "id": 7}}
    assert json.loads(cleaned["content"][0]["text"]) == cleaned["structuredContent"]
    assert cleaned["content"][1:] == [text_block(REDACTED), text_block(REDACTED)]
    assert cleaned["isError"] is False


def test_a_pattern_leaves_the_rest_of_a_text() -> None:
    """Only the values go; other members of the result are searched, too."""
    result = {"content": [text_block(f"paid by {CARD}")], "_meta": {"note": CARD}}
    assert redact_mcp(result, "redact:card") == {
        "content": [text_block(f"paid by {REDACTED}")],
        "_meta": {"note": REDACTED},
    }


def test_a_result_of_another_form_is_not_returned() -> None:
    """As everything that cannot be searched."""
    with pytest.raises(RedactionError):
        redact_mcp({"content": "ann@corp.example"}, "redact:email")


@dataclass
class Block:
    """A block of content as a library has it."""

    type: str
    text: str


@dataclass
class ToolResult:
    """The result of a tool as FastMCP has it."""

    content: list[Block]
    structured_content: dict[str, Any] | None = None


def test_the_result_of_a_library() -> None:
    """Is redacted as its JSON would be, and the original stays."""
    result = ToolResult([Block("text", '{"a": 1}')], {"a": 1})
    cleaned = redact(result, "redact:/a")
    assert cleaned == ToolResult([Block("text", f'{{"a": "{REDACTED}"}}')], {"a": REDACTED})
    assert result.structured_content == {"a": 1}
    with pytest.raises(RedactionError):
        redact(ToolResult([Block("image", "")]), "redact:/a")


# --- the registry


def test_redaction_is_stated_once_it_is_enabled() -> None:
    """And only for calls whose results a handler sees."""
    obligations = Obligations()
    assert obligations.supported() == ()
    obligations.register("redact:card", after=lambda _, result: f"own {result}")
    obligations.enable_redaction()
    assert set(obligations.supported()) == set(redactions())
    assert obligations.supported(results=False) == ()
    due = [Obligation(name, "crm.get", {}, "d") for name in ("redact:/email", "redact:card")]
    obligations.before(due)
    assert obligations.after(due[:1], {"email": "x", "id": 1}) == {"email": REDACTED, "id": 1}
    assert obligations.after(due[1:], "x") == "own x"


def test_any_pointer_is_supported_by_its_family() -> None:
    """And nothing else is."""
    assert is_supported("redact:/a/b", ["redact:/"])
    assert not is_supported("redact:pii", ["redact:/"])
    assert not is_supported("custom:a", redactions())


@pytest.mark.parametrize(
    ("obligation", "one", "expected"),
    [
        ("redact:/a", {"text": '{"a":1,"b":2}'}, {"text": '{"a": "[redacted]", "b": 2}'}),
        ("redact:/a", {"text": "a is 1"}, {"text": REDACTED}),
        ("redact:/a", {"uri": "x://a/1", "text": "{}"}, {"uri": "about:redacted", "text": "{}"}),
        ("redact:/a", {"blob": "YQ=="}, {"text": REDACTED}),
        ("redact:/a", {"blob": "YQ==", "text": "{}"}, {"text": REDACTED}),
        ("redact:/a", {"mimeType": "a is 1", "text": "{}"}, {"text": "{}"}),
        ("redact:card", {"text": f"card {CARD}."}, {"text": "card [redacted]."}),
        ("redact:card", {"uri": "x://b/2", "text": "b"}, {"uri": "x://b/2", "text": "b"}),
        (
            "redact:email",
            {"uri": "x://a@b.example", "text": ""},
            {"uri": "about:redacted", "text": ""},
        ),
        ("redact:card", {"blob": "YQ=="}, {"text": REDACTED}),
    ],
)
def test_the_contents_of_a_resource(obligation: str, one: Any, expected: Any) -> None:
    """Texts are searched; what cannot be searched is removed."""
    result = {"contents": [{"uri": "x://asked", **one}], "_meta": {"n": CARD}}
    cleaned = redact_mcp_resource(result, obligation, "x://asked")
    assert cleaned["contents"] == [{"uri": "x://asked", **expected}]
    assert cleaned["_meta"]["n"] == (REDACTED if obligation == "redact:card" else CARD)


@pytest.mark.parametrize("result", ["x", [], {"contents": "x"}, {"contents": ["x"]}])
def test_contents_that_cannot_be_searched(result: Any) -> None:
    """They are not returned."""
    with pytest.raises(RedactionError):
        redact_mcp_resource(result, "redact:/a", "x://asked")
