"""The guard of an MCP session: what is judged is what is sent, and nothing passes that was not permitted."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.engine import seal_catalog
from authz.mcp.guard import Identity, McpGuard
from authz.mcp.messages import MessageError, elements, members, read_message
from authz.mcp.passed import Passed
from authz.mcp.questions import question_of
from authz.testing import Kernel
from authz.tools.catalog.files import render_catalog
from authz.tools.catalog.tool import Listing
from authz_client import Authz, Permit, ToolList, Unavailable
from authz_client.context import current_subject
from authz_client.errors import TransportError
from authz_client.mcp_answers import tool_operation
from tests.support.node import Node, decision

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOT = "spiffe://a.example/bot"
PAGE = {"type": "object", "properties": {"page": {"type": "string"}, "n": {"type": "number"}}}
TOOLS: list[dict[str, Any]] = [
    {"name": "read", "inputSchema": PAGE},
    {"name": "delete", "inputSchema": PAGE},
    {"name": "approve", "inputSchema": PAGE},
    {"name": "a b", "inputSchema": PAGE},
    {"name": "card", "inputSchema": PAGE},
    {"name": "stamp", "inputSchema": PAGE},
]
FACTS = """
agents: {{bot: ["spiffe://a.example/bot"]}}
destinations: {{external: {{match: "*", clearance: []}}}}
classify:
  - {{match: wiki.read, effects: [read], tier: standard}}
  - {{match: wiki.a_b, effects: [read], tier: standard}}
  - {{match: wiki.delete, effects: [delete], tier: standard}}
  - {{match: wiki.approve, effects: [write], tier: standard}}
  - {{match: wiki.card, effects: [read], tier: standard}}
  - {{match: wiki.stamp, effects: [read], tier: standard}}
  - {{match: wiki.resources.read, effects: [read], tier: standard}}
accepted: {{{pins}}}
"""
POLICY = """
@id("bot") permit(principal in Role::"bot",
  action in [Action::"wiki.read", Action::"wiki.a_b", Action::"wiki.approve", Action::"wiki.mcp", Action::"wiki.resources.read"], resource);
@id("card") @obligation("redact:/holder,redact:card,log_full") permit(principal in Role::"bot", action == Action::"wiki.card", resource);
@id("sheet") @obligation("redact:/holder,redact:card") permit(principal in Role::"bot", action == Action::"wiki.resources.read", resource)
  when { context.input.uri like "wiki://card*" };
@id("stamp") @obligation("custom:stamp") permit(principal in Role::"bot", action == Action::"wiki.stamp", resource);
@id("secret") forbid(principal, action == Action::"wiki.resources.read", resource)
  when { context.input.uri like "wiki://secret*" };
@id("no-completion") forbid(principal, action == Action::"wiki.mcp", resource)
  when { context.input has method && context.input.method == "completion/complete" };
@id("no-answer") forbid(principal, action == Action::"wiki.mcp", resource)
  when { context.input has method && context.input.method == "response" && context.input has params };
@id("person") @stepup("approve") forbid(principal, action == Action::"wiki.approve", resource)
  unless { context.satisfied.contains(Kind::"approve") };
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A bundle with a catalog of six tools."""
    folder: Path = tmp_path_factory.mktemp("bundle")
    (folder / "policies").mkdir()
    (folder / "catalog").mkdir()
    listing = Listing.of(TOOLS)
    document = {
        "system": "wiki",
        "server": {"name": "unknown", "version": ""},
        "tools": [tool.document() for tool in listing.tools],
    }
    sealed = seal_catalog(document)["tools"]
    pins = ", ".join(f'{tool["operation"]}: "{tool["digest"]}"' for tool in sealed)
    (folder / "bundle.yaml").write_text("name: test\ntasks: optional\n")
    (folder / "facts.yaml").write_text(FACTS.format(pins=pins))
    (folder / "policies" / "all.cedar").write_text(POLICY)
    (folder / "catalog" / "wiki.mcp.yaml").write_text(render_catalog("wiki", listing))
    with Kernel.load(str(folder)) as loaded:
        yield loaded


@pytest.fixture
def guard(kernel: Kernel) -> McpGuard:
    """A guard of a new session."""
    return McpGuard(kernel.act(BOT).client, "wiki", Identity())


def sent(guard: McpGuard, text: str) -> Passed:
    """Pass a message of the client."""
    return asyncio.run(guard.from_client(text.encode()))


def received(guard: McpGuard, text: str) -> Passed:
    """Pass a message of the server."""
    return asyncio.run(guard.from_server(text.encode()))


def call(name: str, arguments: str = "{}", more: str = "", request_id: str = "1") -> str:
    """A call of a tool."""
    params = f'{{"name":{json.dumps(name)},"arguments":{arguments}{more}}}'
    return f'{{"jsonrpc":"2.0","id":{request_id},"method":"tools/call","params":{params}}}'


def request(method: str, params: str = "{}", request_id: str = "1") -> str:
    """Any request."""
    return f'{{"jsonrpc":"2.0","id":{request_id},"method":"{method}","params":{params}}}'


def answered(passed: Passed) -> dict[str, Any]:
    """The answer to the client; nothing went to the server."""
    assert passed.to_server is None
    assert passed.to_client is not None
    answer: dict[str, Any] = json.loads(passed.to_client)
    return answer


@pytest.mark.parametrize(
    "text",
    [
        call("read"),
        call("read", '{ "page" : "a\\u00e9\\ud83d\\ude00", "n": 1.50e0 }'),
        '  {"params":{"arguments":{"page":"é\u2028"},"name":"read","_meta":{"x":[1, 2]}},"method":"tools/call","id":"a","jsonrpc":"2.0", "later": {"b":1}}  ',
        request("tools/list"),
        request(
            "initialize",
            '{"protocolVersion":"2025-06-18","capabilities":{"new":{}},"clientInfo":{"name":"x"}}',
        ),
        request("resources/read", '{"uri":"wiki://page/1"}'),
        '{"jsonrpc":"2.0","method":"notifications/initialized"}',
        '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}',
    ],
)
def test_a_permitted_message_is_sent_as_it_came(guard: McpGuard, text: str) -> None:
    """Byte for byte, but for blanks around it."""
    assert sent(guard, text) == Passed(to_server=text.strip())


@pytest.mark.parametrize(
    "name", ["delete", "unmapped", "a_b", "a%b", "A b", "tool.mcp", "mcp", "a" * 513, ""]
)
def test_a_tool_that_is_not_permitted_is_a_result_that_the_model_reads(
    guard: McpGuard, name: str
) -> None:
    """Also a tool that the catalog does not have."""
    answer = answered(sent(guard, call(name, request_id='"x"')))
    assert answer["id"] == "x"
    assert answer["result"]["isError"] is True
    decision = answer["result"]["_meta"]["dev.authz/decision"]
    assert decision["public_code"] == ("DENIED" if name == "delete" else "INVALID")
    assert answer["result"]["content"][0]["text"]
    assert "resultType" not in answer["result"]


def test_only_the_exact_name_of_a_tool_has_its_operation(guard: McpGuard) -> None:
    """A live tool whose name is only spelled like one of the catalog neither runs nor is listed."""
    assert sent(guard, call("a b")).to_server is not None
    assert sent(guard, call("a%b", request_id="2")).to_server is None
    assert sent(guard, request("tools/list", request_id="3")).to_server
    tools = '[{"name":"a%b"},{"name":"a b"},{"name":"a_b"},{"name":"A b"}]'
    told = received(guard, f'{{"jsonrpc":"2.0","id":3,"result":{{"tools":{tools}}}}}')
    assert answered(told)["result"]["tools"] == [{"name": "a b"}]


def test_the_newest_revision_has_a_type_of_result(guard: McpGuard) -> None:
    """Only there."""
    meta = ',"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}'
    assert answered(sent(guard, call("delete", more=meta)))["result"]["resultType"] == "complete"


def test_a_step_up_has_the_id_of_its_request(guard: McpGuard) -> None:
    """The text says that a person must approve."""
    result = answered(sent(guard, call("approve")))["result"]
    assert result["_meta"]["dev.authz/decision"]["public_code"] == "STEP_UP"
    assert "must approve" in result["content"][0]["text"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", -32700),
        ("[" * 100_000, -32700),
        ('{"jsonrpc":"2.0","id":1,"method":"ping","id":2}', -32700),
        (call("read", '{"page":"a","page":"b"}'), -32700),
        (call("read", '{"n":NaN}'), -32700),
        (f"[{call('read')}]", -32600),
        ('{"jsonrpc":"2.0","id":1,"Method":"ping","method":"ping"}', -32600),
        ('{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}', -32600),
        ('{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
        ('{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600),
        ('{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600),
        ('{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
        ('{"jsonrpc":"2.0","id":1,\r"method":"ping"}', -32600),
        ('{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', -32600),
        ('{"id":1,"method":"ping"}', -32600),
        (call("read", more=',"Name":"delete"'), -32600),
        (call("read", more=',"args":{}'), -32602),
        (call("read", "null"), -32602),
        (call("read", more=',"task":1'), -32602),
        (request("tools/call", '{"arguments":{}}'), -32602),
        (request("resources/read", '{"uri":7}'), -32602),
        (request("tools/future"), -32601),
        (request("notifications/initialized"), -32601),
        (request("completion/complete", '{"ref":{"type":"ref/prompt","name":"a"}}'), -32003),
        (request("resources/read", '{"uri":"wiki://secret/1"}'), -32003),
        (request("prompts/get", '{"name":"a"}'), -32003),
        (request("ping", '{"_meta":{"dev.authz/task":7}}'), -32003),
    ],
)
def test_a_message_that_means_two_things_or_is_not_permitted_is_an_error(
    guard: McpGuard, text: str, code: int
) -> None:
    """None of it reaches the server, and the session goes on."""
    assert answered(sent(guard, text))["error"]["code"] == code
    assert sent(guard, call("read")).to_server is not None


def test_half_a_character_ends_no_session(
    guard: McpGuard, caplog: pytest.LogCaptureFixture
) -> None:
    """JSON can write half of a character, UTF-8 cannot: the message is refused, and the next one is judged as ever."""
    for text in (
        request("ping", r'{"said": "\ud800"}'),
        call("read", more=r', "\ud800": 1'),
        request(r"\ud800"),
        call("read", r'{"page": "\ud800"}'),
        call("\ud800"),
    ):
        told = sent(guard, text)
        assert told.to_server is None
        assert told.to_client is not None
        told.to_client.encode()
    assert sent(guard, call("read", '{"page": "x"}', request_id="9")).to_server is not None
    caplog.text.encode()


def test_a_message_makes_one_line_of_the_log(
    guard: McpGuard, caplog: pytest.LogCaptureFixture
) -> None:
    """What a client writes cannot look like a line of the guard's own, nor change the colours of a terminal."""
    for text in (
        request(r"x\nauthz.mcp: all is well\u001b[0m"),
        call("read", more=r', "y\n\u009bz": 1'),
    ):
        assert sent(guard, text).to_server is None
    assert [record.getMessage().isprintable() for record in caplog.records] == [True, True]


@pytest.mark.parametrize(
    "text",
    [
        '{"jsonrpc":"2.0","method":"notifications/future"}',
        '{"jsonrpc":"2.0","method":"tools/call","params":{"name":"read"}}',
        '{"jsonrpc":"2.0","id":5,"result":{}}',
    ],
)
def test_what_expects_no_answer_gets_none(guard: McpGuard, text: str) -> None:
    """A call without an id is not a request; a response answers a request of the server or nothing."""
    assert sent(guard, text) == Passed()


def test_an_id_waits_for_one_answer(guard: McpGuard) -> None:
    """A second request with it is refused, and the refusal does not answer the first."""
    assert sent(guard, call("read")).to_server
    assert answered(sent(guard, call("delete")))["id"] is None
    result = '{"jsonrpc":"2.0","id":1,"result":{"content":[],"extra":1}}'
    assert received(guard, '{"jsonrpc":"2.0","id":"1","result":{}}') == Passed()
    assert received(guard, result) == Passed(to_client=result)
    assert received(guard, result) == Passed()


def test_a_list_has_only_what_could_be_permitted_as_the_server_wrote_it(guard: McpGuard) -> None:
    """Members that no SDK knows survive."""
    assert sent(guard, request("tools/list")).to_server
    kept = '{"name": "read", "inputSchema":{"type":"object"}, "new": 1.50}'
    tools = f'[{{"name":"delete"}} , {kept},{{"name":"unmapped"}},{{"name":7}},7]'
    answer = f'{{"id":1,"result":{{"nextCursor":"c", "tools": {tools},"x":[]}},"jsonrpc":"2.0"}}'
    expected = f'{{"id":1,"result":{{"nextCursor":"c", "tools": [{kept}],"x":[]}},"jsonrpc":"2.0"}}'
    assert received(guard, answer) == Passed(to_client=expected)


@pytest.mark.parametrize("result", ["{}", '{"tools":{}}', "[]", "7"])
def test_a_list_without_tools_is_an_error(guard: McpGuard, result: str) -> None:
    """The client learns it, and nothing else of it."""
    assert sent(guard, request("tools/list")).to_server
    answer = received(guard, f'{{"jsonrpc":"2.0","id":1,"result":{result}}}')
    assert answered(answer)["error"]["code"] == -32000


def test_a_request_of_the_server_gets_one_answer_of_the_client(guard: McpGuard) -> None:
    """An answer that policy refuses is an error for the server, so that it does not wait."""
    for request_id in (5, 6):
        asked = request("sampling/createMessage", '{"messages":[]}', str(request_id))
        assert received(guard, asked) == Passed(to_client=asked)
    empty = '{"jsonrpc":"2.0","id":5,"result":{}}'
    assert sent(guard, empty) == Passed(to_server=empty)
    assert sent(guard, empty) == Passed()
    refused = sent(guard, '{"jsonrpc":"2.0","id":6,"result":{"content":"secret"}}')
    assert refused.to_client is None
    assert refused.to_server is not None
    assert json.loads(refused.to_server)["error"]["code"] == -32003
    assert "secret" not in refused.to_server


def test_messages_of_the_server_pass_and_other_lines_are_dropped(guard: McpGuard) -> None:
    """Some servers print to standard output."""
    told = '{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"\u2028"}}'
    assert received(guard, told) == Passed(to_client=told)
    assert received(guard, "Server running on stdio") == Passed()


def test_a_task_is_named_once(kernel: Kernel) -> None:
    """By the command or by the message."""
    guard = McpGuard(kernel.act(BOT).client, "wiki", Identity(task="t1"))
    other = ',"_meta":{"dev.authz/task":"t2"}'
    decision = answered(sent(guard, call("read", more=other)))["result"]["_meta"]
    assert decision["dev.authz/decision"]["decision_id"] == ""


class _Down:
    """A node that cannot be reached."""

    def call(self, method: str, request: bytes, timeout: float) -> bytes:
        raise TransportError(14, f"{method} {len(request)} {timeout}")

    async def acall(self, method: str, request: bytes, timeout: float) -> bytes:  # noqa: ASYNC109 - part of the protocol
        return self.call(method, request, timeout)

    def close(self) -> None:
        """Has nothing open."""

    async def aclose(self) -> None:
        """Has nothing open."""


class _Odd(_Down):
    async def acall(self, method: str, request: bytes, timeout: float) -> bytes:  # noqa: ASYNC109 - part of the protocol
        raise RuntimeError(f"{method} {len(request)} {timeout}")


@pytest.mark.parametrize("node", [_Down(), _Odd()])
def test_without_authz_nothing_passes(node: _Down) -> None:
    """No call, no list, no message of the protocol; the client keeps its session."""
    guard = McpGuard(Authz(transport=node, credentials="x", timeout=0.2), "wiki", Identity())
    result = answered(sent(guard, call("read")))["result"]
    assert result["_meta"]["dev.authz/decision"]["public_code"] == "UNAVAILABLE"
    assert answered(sent(guard, request("tools/list")))["error"]["code"] == -32003
    assert answered(sent(guard, request("resources/read", '{"uri":"a:b"}')))["error"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('"result":{"content":[]}', "ok"),
        ('"result":{"content":[],"isError":false}', "ok"),
        ('"result":{"content":[],"isError":true}', "failed"),
        ('"error":{"code":-1,"message":"m"}', "failed"),
        ('"result":7', "failed"),
    ],
)
def test_the_outcome_of_a_call_is_reported(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, answer: str, expected: str
) -> None:
    """A lost report does not hold the result back."""
    client = kernel.act(BOT).client
    reported: list[str] = []

    async def report(permit: Permit, result: str, **_: object) -> None:
        assert permit.operation == "wiki.read"
        reported.append(result)
        raise Unavailable.of("lost")

    async def check(operation: str, *_: object, **__: object) -> Permit:
        return Permit("d", operation, (), True, "r", (), "")

    monkeypatch.setattr(client, "areport", report)
    monkeypatch.setattr(client, "acheck", check)
    guard = McpGuard(client, "wiki", Identity())
    assert sent(guard, call("read")).to_server
    text = f'{{"jsonrpc":"2.0","id":1,{answer}}}'
    assert received(guard, text) == Passed(to_client=text)
    assert reported == [expected]


REPORTED = [
    # content of the result, values of its report
    ('"structuredContent":{"id":7,"n":870.00},"content":[]', [("/id", 7), ("/n", "870.00")]),
    ('"content":[{"type":"text","text":"{\\"id\\":7}"}],"nextCursor":"2"', [("/id", 7)]),
    ('"structuredContent":{},"content":[{"type":"text","text":"{\\"id\\":7}"}]', []),
    ('"content":[{"type":"text","text":"made 7"}]', []),
    ('"content":[{"type":"text","text":"{\\"id\\":7,\\"id\\":8}"}]', []),
    ('"content":7', []),
    ('"structuredContent":{"id":7},"content":[],"isError":true', []),
]


@pytest.mark.parametrize("is_enforcer", [True, False])
@pytest.mark.parametrize(("answer", "values"), REPORTED)
def test_values_of_a_result_are_reported(
    answer: str, values: list[tuple[str, object]], *, is_enforcer: bool
) -> None:
    """By an enforcer, once for each result; and the client gets what the server wrote."""
    permit = decision("PERMITTED", reservation_id="r", report_values=["/id", "/n"])
    node = Node().says("Check", permit)
    client = (
        Authz(transport=node, enforcer=True, timeout=20)
        if is_enforcer
        else Authz(transport=node, credentials="svid", timeout=20)
    )
    guard = McpGuard(client, "wiki", Identity(agent=_Token("svid") if is_enforcer else None))
    assert sent(guard, call("read")).to_server
    text = f'{{"jsonrpc":"2.0","id":1,"result":{{{answer}}}}}'
    assert received(guard, text) == Passed(to_client=text)
    (report,) = node.requests("Report")
    found = [(one.pointer, getattr(one, str(one.WhichOneof("value")))) for one in report.values]
    assert found == (values if is_enforcer else [])


class _Token:
    """A token source."""

    def __init__(self, text: str) -> None:
        self.text = text

    def token(self, timeout: float) -> str:
        return f"{self.text} {timeout}"

    async def atoken(self, timeout: float) -> str:  # noqa: ASYNC109 - part of the protocol
        return self.token(timeout)


@pytest.mark.parametrize("is_enforcer", [True, False])
def test_each_question_names_agent_subject_and_task(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, *, is_enforcer: bool
) -> None:
    """An enforcer asks about the agent; an agent asks for itself, on behalf of the subject."""
    client = kernel.act(BOT).client
    asked: list[Any] = []

    async def check(operation: str, _: bytes, **said: Any) -> Permit:
        asked.append((operation, said, current_subject()))
        return Permit("d", operation, (), True, "r", (), "")

    async def listed(system: str, **said: Any) -> ToolList:
        asked.append((system, said, current_subject()))
        return ToolList(frozenset(), frozenset())

    reports: list[str] = []

    async def report(permit: Permit, result: str, **_: object) -> None:
        reports.append(f"{permit.operation} {result}")

    monkeypatch.setattr(client, "acheck", check)
    monkeypatch.setattr(client, "alist_tools", listed)
    monkeypatch.setattr(client, "areport", report)
    agent = _Token("agent") if is_enforcer else None
    guard = McpGuard(client, "wiki", Identity("t1", agent, _Token("subject"), 2.0))
    assert sent(guard, request("resources/read", '{"uri":"a:b"}')).to_server
    assert received(guard, '{"jsonrpc":"2.0","id":1,"result":{}}').to_client
    assert sent(guard, request("tools/list")).to_server
    assert received(guard, '{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}').to_client
    assert [one[0] for one in asked] == ["wiki.resources.read", "wiki.mcp", "wiki"]
    assert reports == ["wiki.resources.read ok", "wiki.mcp ok"]
    for _, said, subject in asked:
        assert said["task"] == "t1"
        who = said.get("caller")
        if is_enforcer:
            assert (who.agent_token, who.subject_token) == ("agent 2.0", "subject 2.0")
            assert subject is None
        else:
            assert who is None
            assert subject == "subject 2.0"


def test_unanswered_requests_are_answered_at_the_end(guard: McpGuard) -> None:
    """So that the client does not wait for a server that is gone."""
    assert sent(guard, call("read", request_id='"q"')).to_server
    (left,) = guard.left_unanswered("gone")
    assert json.loads(left) == {
        "jsonrpc": "2.0",
        "id": "q",
        "error": {"code": -32000, "message": "gone"},
    }
    assert guard.left_unanswered("gone") == []


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(
    arguments=st.dictionaries(st.text(), _JSON, max_size=4),
    indent=st.sampled_from([None, 1]),
    plain=st.booleans(),
)
def test_the_judged_arguments_are_the_sent_arguments(
    arguments: dict[str, Any], indent: int | None, *, plain: bool
) -> None:
    """The same characters, whatever they are."""
    text = json.dumps(arguments, ensure_ascii=plain, indent=indent).replace("\n", " ")
    try:
        message = read_message(call("read", text).encode("utf-8", "surrogatepass"))
    except MessageError:
        with pytest.raises(UnicodeDecodeError):
            text.encode("utf-8", "surrogatepass").decode()
        return
    question = question_of("wiki", message)
    assert question is not None
    assert question.arguments == text.encode()


@given(st.binary(max_size=80))
def test_no_bytes_make_the_reader_fail(line: bytes) -> None:
    """They are a message, or a `MessageError`."""
    try:
        message = read_message(line)
    except MessageError:
        return
    assert json.loads(message.text) == message.value


@given(st.lists(_JSON, max_size=4))
def test_parts_are_found(values: list[Any]) -> None:
    """As `json` reads them."""
    text = f' {{"a" : {json.dumps(values, indent=1)} , "b":1}}'
    begin, end = members(text)["a"]
    assert json.loads(text[begin:end]) == values
    assert [json.loads(text[first:last]) for first, last in elements(text, begin)] == values


@pytest.mark.parametrize(
    "tool",
    [
        "read",
        "a b",
        "mcp",
        "resources.read",
        "prompts.get",
        ".x",
        "-x",
        "/x",
        "_x",
        "ä",
        "a.b/c-d",
        "Mcp",
    ],
)
def test_a_tool_has_the_operation_that_its_catalog_says(tool: str) -> None:
    """The client and the engine spell it alike."""
    document = {
        "system": "s",
        "server": {"name": "", "version": ""},
        "tools": [{"name": tool, "input": {"type": "object"}}],
    }
    assert seal_catalog(document)["tools"][0]["operation"] == tool_operation("s", tool)


# --- obligations


def test_obligations_on_a_result_are_carried_out(guard: McpGuard) -> None:
    """The client gets the result without the values, also where a text repeats them."""
    assert sent(guard, call("card")).to_server == call("card")
    value = {"holder": "Ann Lee", "number": "4111 1111 1111 1111", "limit": 500}
    result = {
        "structuredContent": value,
        "content": [
            {"type": "text", "text": json.dumps(value)},
            {"type": "text", "text": "Ann Lee has a card."},
        ],
    }
    passed = received(guard, json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}))
    assert passed.to_client is not None
    answer = json.loads(passed.to_client)
    cleaned = {"holder": "[redacted]", "number": "[redacted]", "limit": 500}
    assert answer["result"]["structuredContent"] == cleaned
    assert json.loads(answer["result"]["content"][0]["text"]) == cleaned
    assert "Ann Lee" not in passed.to_client
    assert "4111" not in passed.to_client


@pytest.mark.parametrize(
    "outcome",
    [
        {"error": {"code": -32001, "message": "no card of Ann Lee", "data": {"holder": "Ann Lee"}}},
        {"result": {"content": "Ann Lee"}},
        {"result": "Ann Lee"},
        {
            "result": {
                "structuredContent": {"holder": {"deep": 1}, "number": ["Ann Lee"] * 0},
                "content": [{"type": "text", "text": "Ann Lee"}],
            }
        },
    ],
)
def test_a_response_that_cannot_be_redacted_is_left_out(
    guard: McpGuard, outcome: dict[str, Any]
) -> None:
    """Errors repeat what a tool read, too."""
    sent(guard, call("card"))
    passed = received(guard, json.dumps({"jsonrpc": "2.0", "id": 1, **outcome}))
    assert passed.to_client is not None
    assert "Ann Lee" not in passed.to_client
    assert json.loads(passed.to_client)["id"] == 1


def test_obligations_on_a_resource_are_carried_out(guard: McpGuard) -> None:
    """The client gets the contents without the values; of an error it gets the code."""
    read = request("resources/read", '{"uri":"wiki://card/1"}')
    assert sent(guard, read).to_server == read
    value = {"holder": "Ann Lee", "number": "4111 1111 1111 1111", "limit": 500}
    contents = [
        {"uri": "wiki://card/1", "mimeType": "application/json", "text": json.dumps(value)},
        {"uri": "wiki://holders/Ann Lee", "text": "[1]", "_meta": {"of": "Ann Lee"}},
        {"uri": "wiki://card/1", "blob": "QW5uIExlZQ=="},
    ]
    passed = received(
        guard, json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"contents": contents}})
    )
    assert passed.to_client is not None
    first, *others = json.loads(passed.to_client)["result"]["contents"]
    assert json.loads(first.pop("text")) == {
        "holder": "[redacted]",
        "number": "[redacted]",
        "limit": 500,
    }
    assert first == {"uri": "wiki://card/1", "mimeType": "application/json"}
    assert others == [
        {"uri": "about:redacted", "text": "[1]"},
        {"uri": "wiki://card/1", "text": "[redacted]"},
    ]

    sent(guard, read)
    error = {"code": -32002, "message": "no card of Ann Lee"}
    passed = received(guard, json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}))
    assert passed.to_client is not None
    assert json.loads(passed.to_client)["error"]["code"] == -32002
    assert "Ann Lee" not in passed.to_client


@pytest.mark.parametrize(
    "result", ['"Ann Lee"', '{"contents":"Ann Lee"}', '{"contents":["Ann Lee"]}']
)
def test_contents_that_cannot_be_redacted_are_left_out(guard: McpGuard, result: str) -> None:
    """The client gets an error in their place."""
    sent(guard, request("resources/read", '{"uri":"wiki://card/1"}'))
    passed = received(guard, f'{{"jsonrpc":"2.0","id":1,"result":{result}}}')
    assert passed.to_client is not None
    assert json.loads(passed.to_client)["error"]["message"].startswith("The resource was read.")
    assert "Ann Lee" not in passed.to_client


def test_a_call_with_another_obligation_is_refused(guard: McpGuard) -> None:
    """The proxy states only what it can do; a call whose result comes later states nothing."""
    answer = answered(sent(guard, call("stamp")))
    assert answer["result"]["isError"] is True
    answer = answered(sent(guard, call("card", more=',"task":{}')))
    assert answer["result"]["isError"] is True
