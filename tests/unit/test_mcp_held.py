"""A call that waits for a person in `authz mcp`: what each kind of client gets, and which states are refused."""

from __future__ import annotations

import asyncio
import json
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.mcp.guard import Identity, McpGuard
from authz.mcp.passed import Passed
from authz_client import Authz, StepUp
from authz_client.approval_code import binding_code
from authz_client.approval_texts import instructions
from authz_client.errors import ApprovalStatus, refusal_of
from authz_client.mcp_held import INPUT_KEY, MOST_ROUNDS, HeldCall, HeldStates, StateError
from authz_client.v1 import decision_pb2
from tests.support.node import Node, decision

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PAGE = "https://authz.corp.example/a/"
MODERN = "2026-07-28"
OPENS_PAGES: dict[str, Any] = {"elicitation": {"url": {}}}


@dataclass
class Desk:
    """A node whose calls a person must allow, and the person."""

    node: Node = field(default_factory=Node)
    url: str = PAGE
    kinds: tuple[str, ...] = ("approve",)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    allows: bool = True
    used: bool = False

    def __post_init__(self) -> None:
        """Let the node ask the person."""
        self.node.says("Check", self._check)

    def _check(self, request: decision_pb2.CheckRequest) -> decision_pb2.CheckResponse:
        if request.operation == "wiki.mcp":
            return decision("PERMITTED")
        if not self.answered.is_set() or self.used:
            challenge = decision_pb2.Challenge(approval_id="a1-1", url=f"{self.url}a1-1")
            challenge.expires_at.FromMilliseconds(1_796_083_200_500)
            return decision("APPROVAL_REQUIRED", challenge=challenge, step_up_kinds=self.kinds)
        if not self.allows:
            return decision("APPROVAL_REJECTED")
        self.used = True
        return decision("PERMITTED")

    def guard(self, wait: float = 5.0, task: str = "") -> McpGuard:
        """A guard of a new session."""
        return McpGuard(Authz(transport=self.node), "wiki", Identity(task=task), wait=wait)

    def presented(self) -> list[str]:
        """The approvals that questions about calls presented."""
        return [
            asked.approval_id
            for asked in self.node.requests("Check")
            if asked.operation != "wiki.mcp"
        ]


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk whose person has not answered."""
    made = Desk()

    async def wait_async(step_up: StepUp, timeout: float | None = None) -> ApprovalStatus:  # noqa: ASYNC109
        try:
            await asyncio.wait_for(made.answered.wait(), timeout)
        except TimeoutError:
            return ApprovalStatus.PENDING
        if not made.allows:
            step_up.reject_reason = "wrong_recipient"
            return ApprovalStatus.REJECTED
        return ApprovalStatus.APPROVED

    monkeypatch.setattr(StepUp, "wait_async", wait_async)
    return made


def call(
    tool: str = "delete",
    arguments: dict[str, Any] | None = None,
    *,
    request_id: int = 1,
    capabilities: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A call of a tool; of a client of revision 2026-07-28 if it has capabilities."""
    params: dict[str, Any] = {"name": tool, "arguments": arguments or {"page": "7"}, **more}
    if capabilities is not None:
        params["_meta"] = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": capabilities,
        }
    return {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}


async def sent(guard: McpGuard, message: dict[str, Any]) -> Passed:
    """Pass a message of the client."""
    return await guard.from_client(json.dumps(message).encode())


def answer(passed: Passed) -> dict[str, Any]:
    """The message to the client; nothing went to the server."""
    assert passed.to_server is None
    assert passed.to_client is not None
    return cast("dict[str, Any]", json.loads(passed.to_client))


async def later(guard: McpGuard) -> Passed:
    """What comes of a call that was kept open."""
    return await asyncio.wait_for(guard.later(), 10)


async def connected(guard: McpGuard, revision: str, capabilities: dict[str, Any]) -> None:
    """Shake hands by an older revision."""
    given = {"protocolVersion": revision, "capabilities": capabilities}
    params = {**given, "clientInfo": {"name": "c", "version": "1"}}
    asked = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    assert (await sent(guard, asked)).to_server
    result = {"protocolVersion": revision, "capabilities": {}, "serverInfo": {"name": "s"}}
    said = {"jsonrpc": "2.0", "id": 0, "result": result}
    assert (await guard.from_server(json.dumps(said).encode())).to_client


def back(first: dict[str, Any], message: dict[str, Any], action: str = "accept") -> dict[str, Any]:
    """The call as the client repeats it."""
    answers = {INPUT_KEY: {"action": action}} if "inputRequests" in first["result"] else None
    params = {**message["params"], "requestState": first["result"]["requestState"]}
    if answers is not None:
        params["inputResponses"] = answers
    return {**message, "id": message["id"] + 100, "params": params}


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a test on one event loop."""
    asyncio.run(cast("Any", main()))


# --- revision 2026-07-28


def test_a_client_opens_the_page_and_comes_back(desk: Desk) -> None:
    """The result has one page and no word of the call; the repeated call reaches the server without the guard's state."""

    async def main() -> None:
        guard = desk.guard()
        message = call(capabilities=OPENS_PAGES)
        first = answer(await sent(guard, message))
        result = first["result"]
        assert result["resultType"] == "input_required"
        (question,) = result["inputRequests"].values()
        assert question["method"] == "elicitation/create"
        assert question["params"]["mode"] == "url"
        assert question["params"]["url"] == f"{PAGE}a1-1"
        assert binding_code("a1-1") in question["params"]["message"]
        assert "delete" not in json.dumps(question)
        desk.answered.set()
        passed = await sent(guard, back(first, message))
        assert passed.to_client is None
        assert passed.to_server is not None
        assert json.loads(passed.to_server) == {**message, "id": 101}
        assert desk.presented() == ["", "a1-1"]
        judged = [asked.arguments_json for asked in desk.node.requests("Check")]
        assert judged[0] == judged[1]

    run(main)


def _tampered(state: str) -> str:
    return state[:-3] + ("A" if state[-3] != "A" else "B") + state[-2:]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (lambda params: {**params, "requestState": _tampered(params["requestState"])}, "changed"),
        (lambda params: {**params, "requestState": params["requestState"][:40]}, "changed"),
        (lambda params: {**params, "requestState": "authz1."}, "changed"),
        (lambda params: {**params, "requestState": "authz1." + "A" * 9_000}, "too long"),
        (lambda params: {**params, "requestState": "authz1.é"}, "changed"),
        (lambda params: {**params, "arguments": {"page": "8"}}, "another call"),
        (lambda params: {**params, "arguments": {"page": "7", "more": None}}, "another call"),
        (lambda params: {**params, "name": "purge"}, "another call"),
        (
            lambda params: {**params, "inputResponses": {INPUT_KEY: {}, "other": {}}},
            "other questions",
        ),
        (lambda params: {**params, "inputResponses": []}, "other questions"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    desk: Desk, changed: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With an error, before the node is asked, and although a person allowed the first call."""

    async def main() -> None:
        guard = desk.guard()
        message = call(capabilities=OPENS_PAGES)
        again = back(answer(await sent(guard, message)), message)
        desk.answered.set()
        error = answer(await sent(guard, {**again, "params": changed(again["params"])}))["error"]
        assert error["code"] == -32602
        assert "requestState" in error["message"]
        assert desk.presented() == [""]

    run(main)
    assert why in caplog.text


def test_a_state_is_used_once(desk: Desk) -> None:
    """A second call with the same state is refused, also where the first is permitted."""

    async def main() -> None:
        guard = desk.guard()
        message = call(capabilities=OPENS_PAGES)
        again = back(answer(await sent(guard, message)), message)
        desk.answered.set()
        assert (await sent(guard, again)).to_server
        assert answer(await sent(guard, {**again, "id": 999}))["error"]["code"] == -32602
        assert desk.presented() == ["", "a1-1"]

    run(main)


def test_a_state_belongs_to_its_process_and_its_task(desk: Desk) -> None:
    """Another guard, and the same guard for another task, refuse it."""

    async def main() -> None:
        guard, other = desk.guard(), desk.guard()
        message = call(capabilities=OPENS_PAGES)
        desk_meta = message["params"]["_meta"]
        again = back(answer(await sent(guard, message)), message)
        desk.answered.set()
        assert answer(await sent(other, again))["error"]["code"] == -32602
        named = {**again["params"], "_meta": {**desk_meta, "dev.authz/task": "t-2"}}
        assert answer(await sent(guard, {**again, "params": named}))["error"]["code"] == -32602
        assert desk.presented() == [""]

    run(main)


def test_a_state_expires() -> None:
    """After one hour."""
    now = 1_000.0
    states = HeldStates(lambda: now)
    held = HeldCall("", "wiki.delete", "delete", b"{}")
    step_up = _step_up()
    early, late = states.seal(step_up, held), states.seal(step_up, held, 3)
    now += 3_599
    assert states.open(early, held) == ("a1-1", 0)
    now += 1
    with pytest.raises(StateError, match="expired"):
        states.open(late, held)


def test_old_states_give_way() -> None:
    """No more than some thousand are kept, so a client cannot fill the memory."""
    states, held, step_up = HeldStates(), HeldCall("", "wiki.delete", "", b"{}"), _step_up()
    first = states.seal(step_up, held)
    newest = [states.seal(step_up, held) for _ in range(4_096)][-1]
    with pytest.raises(StateError, match="used before"):
        states.open(first, held)
    assert states.open(newest, held) == ("a1-1", 0)


@pytest.mark.parametrize("end", [1_000.0, 10_000.0, 100_000.0])
def test_a_state_has_one_spelling(end: float) -> None:
    """Also where the last character of base64 has bits that mean nothing: the length of the time decides."""
    states, held = HeldStates(lambda: end), HeldCall("", "wiki.delete", "", b"{}")
    state = states.seal(_step_up(), held)
    letters = string.ascii_letters + string.digits + "-_"
    for other in (*(state[:-1] + letter for letter in letters), state.removeprefix("authz1.")):
        if other != state:
            with pytest.raises(StateError, match="changed"):
                states.open(other, held)
    assert states.open(state, held) == ("a1-1", 0)


@given(st.text(max_size=200), st.integers(0, 300), st.binary(min_size=1, max_size=3))
def test_no_other_text_is_a_state(text: str, place: int, bits: bytes) -> None:
    """Neither any text, nor a state with changed characters."""
    states, held = HeldStates(), HeldCall("", "wiki.delete", "", b"{}")
    state = states.seal(_step_up(), held)
    at = 7 + place % (len(state) - 7)
    forged = state[:at] + bits.hex()[: len(state) - at] + state[at + len(bits.hex()) :]
    for bad in (text, "authz1." + text, *([forged] if forged != state else [])):
        with pytest.raises(StateError):
            states.open(bad, held)


def test_a_client_comes_back_until_it_is_told_to_stop(desk: Desk) -> None:
    """Each time the call stays open for a while; at the end the model reads what to do."""

    async def main() -> None:
        guard = desk.guard(wait=0.01)
        message = call(capabilities=OPENS_PAGES)
        given = answer(await sent(guard, message))
        for rounds in range(MOST_ROUNDS):
            assert await sent(guard, back(given, message)) == Passed()
            given = answer(await later(guard))
            if rounds + 1 < MOST_ROUNDS:
                assert given["result"]["resultType"] == "input_required"
                assert "inputRequests" not in given["result"]
        assert given["result"]["resultType"] == "complete"
        assert given["result"]["isError"] is True
        assert f"{PAGE}a1-1" in given["result"]["content"][1]["text"]

    run(main)


def test_an_answer_ends_the_wait_of_a_client_that_came_back(desk: Desk) -> None:
    """The call then goes to the server, once."""

    async def main() -> None:
        guard = desk.guard()
        message = call(capabilities=OPENS_PAGES)
        first = answer(await sent(guard, message))
        assert await sent(guard, back(first, message)) == Passed()
        desk.answered.set()
        passed = await later(guard)
        assert passed.to_server is not None
        assert json.loads(passed.to_server)["id"] == 101
        assert answer(await sent(guard, message))["result"]["resultType"] == "input_required"

    run(main)


@pytest.mark.parametrize("action", ["decline", "cancel"])
def test_a_user_who_does_not_open_the_page_ends_the_call(desk: Desk, action: str) -> None:
    """The model reads it, and nothing is asked."""

    async def main() -> None:
        guard = desk.guard()
        message = call(capabilities=OPENS_PAGES)
        first = answer(await sent(guard, message))
        desk.answered.set()
        result = answer(await sent(guard, back(first, message, action)))["result"]
        assert result["isError"] is True
        assert "did not open the page" in result["content"][0]["text"]
        assert desk.presented() == [""]

    run(main)


def test_a_call_that_continues_a_question_of_the_server_keeps_the_server_s_state(
    desk: Desk,
) -> None:
    """The guard does not put its own state in its place: the model reads the page's address."""

    async def main() -> None:
        guard = desk.guard()
        message = call(capabilities=OPENS_PAGES, requestState="server's", inputResponses={"q": {}})
        result = answer(await sent(guard, message))["result"]
        assert result["isError"] is True
        assert f"{PAGE}a1-1" in result["content"][1]["text"]
        (asked,) = desk.node.requests("Check")
        assert json.loads(asked.arguments_json)["requestState"] == "server's"

    run(main)


# --- revision 2025-11-25


def test_an_older_client_is_asked_to_open_the_page(desk: Desk) -> None:
    """By a request of the guard, while the call stays open."""

    async def main() -> None:
        guard = desk.guard()
        await connected(guard, "2025-11-25", OPENS_PAGES)
        asked = answer(await sent(guard, call()))
        assert asked["method"] == "elicitation/create"
        assert asked["params"]["mode"] == "url"
        assert asked["params"]["url"] == f"{PAGE}a1-1"
        opened = {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept"}}
        assert await sent(guard, opened) == Passed()
        desk.answered.set()
        done = answer(await later(guard))
        assert done["method"] == "notifications/elicitation/complete"
        assert done["params"]["elicitationId"] == asked["params"]["elicitationId"]
        passed = await later(guard)
        assert passed.to_server == json.dumps(call())
        result = {"jsonrpc": "2.0", "id": 1, "result": {"content": []}}
        assert (await guard.from_server(json.dumps(result).encode())).to_client
        # The answer is used up.
        assert answer(await sent(guard, call(request_id=2)))["method"] == "elicitation/create"

    run(main)


def test_an_answer_that_comes_first_closes_the_question(desk: Desk) -> None:
    """Where another person answers while the client still asks its user."""

    async def main() -> None:
        guard = desk.guard()
        await connected(guard, "2025-11-25", OPENS_PAGES)
        asked = answer(await sent(guard, call()))
        desk.answered.set()
        cancelled = answer(await later(guard))
        assert cancelled["method"] == "notifications/cancelled"
        assert cancelled["params"]["requestId"] == asked["id"]
        assert (await later(guard)).to_server
        # An answer to the closed question goes nowhere.
        opened = {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "decline"}}
        assert await sent(guard, opened) == Passed()

    run(main)


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ({"result": {"action": "decline"}}, "did not open the page"),
        ({"result": {"action": "cancel"}}, "did not open the page"),
        ({"error": {"code": -32603, "message": "no browser"}}, f"{PAGE}a1-1"),
        ({"result": {}}, f"{PAGE}a1-1"),
        ({"result": {"action": 7}}, f"{PAGE}a1-1"),
    ],
)
def test_a_page_that_nobody_opens_ends_the_wait(
    desk: Desk, response: dict[str, Any], text: str
) -> None:
    """The model reads why."""

    async def main() -> None:
        guard = desk.guard()
        await connected(guard, "2025-11-25", OPENS_PAGES)
        asked = answer(await sent(guard, call()))
        assert await sent(guard, {"jsonrpc": "2.0", "id": asked["id"], **response}) == Passed()
        result = answer(await later(guard))["result"]
        assert result["isError"] is True
        assert text in " ".join(part["text"] for part in result["content"])

    run(main)


def test_a_held_call_can_be_cancelled(desk: Desk) -> None:
    """Its id is taken until then; afterwards nothing reaches the server, also where the answer came at the same time."""

    async def main() -> None:
        guard = desk.guard()
        await connected(guard, "2025-11-25", OPENS_PAGES)
        await sent(guard, call())
        taken = answer(await sent(guard, call()))
        assert taken["error"]["code"] == -32600
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
        desk.answered.set()
        await asyncio.sleep(0.05)
        assert await sent(guard, cancel) == Passed()
        desk.used = False
        second = asyncio.create_task(guard.later())
        await asyncio.sleep(0.05)
        assert answer(await second)["method"] == "notifications/cancelled"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(guard.later(), 0.05)
        assert (await sent(guard, call())).to_server

    run(main)


def test_the_end_of_the_session_answers_held_calls(desk: Desk) -> None:
    """With an error each."""

    async def main() -> None:
        guard = desk.guard()
        await connected(guard, "2025-11-25", OPENS_PAGES)
        await sent(guard, call())
        (left,) = guard.left_unanswered("gone")
        assert json.loads(left)["id"] == 1

    run(main)


@pytest.mark.parametrize(
    ("revision", "capabilities"),
    [
        ("2025-06-18", OPENS_PAGES),
        ("2025-11-25", {}),
        ("2025-11-25", {"elicitation": {}}),
        ("2025-11-25", {"elicitation": {"form": {}}}),
        ("2025-11-25", {"elicitation": {"url": True}}),
    ],
)
def test_a_client_that_opens_no_pages_gets_a_result(
    desk: Desk, revision: str, capabilities: dict[str, Any]
) -> None:
    """The model reads the page's address; its second call stays open until the person has answered."""

    async def main() -> None:
        guard = desk.guard()
        await connected(guard, revision, capabilities)
        result = answer(await sent(guard, call()))["result"]
        assert result["isError"] is True
        text = result["content"][1]["text"]
        assert f"{PAGE}a1-1 (request a1-1, code {binding_code('a1-1')})" in text
        assert "make the same call again" in text
        told = result["_meta"]["dev.authz/decision"]["approval"]
        assert told == {
            "id": "a1-1",
            "url": f"{PAGE}a1-1",
            "expires_at": "2026-12-01T00:00:00.500Z",
        }
        assert await sent(guard, call(request_id=2)) == Passed()
        desk.answered.set()
        passed = await later(guard)
        assert passed.to_server == json.dumps(call(request_id=2))

    run(main)


def test_a_person_who_rejects_ends_the_wait(desk: Desk) -> None:
    """The model reads that the operation may not be performed; nothing reaches the server."""

    async def main() -> None:
        guard = desk.guard()
        await sent(guard, call())
        assert await sent(guard, call(request_id=2)) == Passed()
        desk.allows = False
        desk.answered.set()
        result = answer(await later(guard))["result"]
        assert result["_meta"]["dev.authz/decision"]["public_code"] == "DENIED"
        assert result["content"][1]["text"] == "A person rejected it: wrong_recipient."

    run(main)


@pytest.mark.parametrize("capabilities", [None, OPENS_PAGES])
def test_a_guard_that_does_not_wait_answers_at_once(
    desk: Desk, capabilities: dict[str, Any] | None
) -> None:
    """With `wait=0` no call stays open."""

    async def main() -> None:
        guard = desk.guard(wait=0)
        message = call(capabilities=capabilities)
        first = answer(await sent(guard, message))
        again = back(first, message) if capabilities is not None else call(request_id=2)
        assert answer(await sent(guard, again))["result"]["isError"] is True

    run(main)


def test_only_so_many_calls_stay_open(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next is answered at once."""
    monkeypatch.setattr("authz.mcp.held.MOST_HELD", 2)

    async def main() -> None:
        guard = desk.guard()
        await sent(guard, call())
        assert await sent(guard, call(request_id=2)) == Passed()
        assert await sent(guard, call(request_id=3)) == Passed()
        assert answer(await sent(guard, call(request_id=4)))["result"]["isError"] is True

    run(main)


def test_a_failure_while_a_call_waits_permits_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client gets an error."""

    async def broken(*_: Any) -> None:
        raise RuntimeError("broken")

    async def main() -> None:
        guard = desk.guard()
        await sent(guard, call())
        monkeypatch.setattr("authz.mcp.held.HeldCalls.until_answered", broken)
        assert await sent(guard, call(request_id=2)) == Passed()
        desk.answered.set()
        assert answer(await later(guard))["error"]["code"] == -32000

    run(main)


# --- texts


def _step_up(kinds: tuple[str, ...] = ("approve",), approval: str = "a1-1") -> StepUp:
    challenge = {"approval_id": approval} if approval else {}
    said = decision("APPROVAL_REQUIRED", challenge=challenge, step_up_kinds=kinds)
    found = refusal_of(said.decision, "wiki.delete")
    assert isinstance(found, StepUp)
    return found


@pytest.mark.parametrize(
    ("kinds", "who"),
    [
        (("approve",), "another person"),
        (("confirm",), "the user"),
        (("approve:finance", "confirm"), "a person with the role finance and the user"),
        (("two_person",), "two other people"),
        ((), "another person"),
    ],
)
def test_an_agent_reads_that_nobody_can_be_asked(kinds: tuple[str, ...], who: str) -> None:
    """Instead of an address."""
    text = instructions(_step_up(kinds, ""))
    assert text == (
        f"This needs approval by {who}, and nobody can be asked here: "
        "tell your user to contact the owner of the system."
    )


def test_a_step_up_that_needs_no_person_names_none() -> None:
    """For example one that a fresher credential lifts."""
    assert instructions(_step_up(("fresh_credential",), "")) == ""


def test_a_code_is_the_same_at_both_ends() -> None:
    """The engine gives the same codes: its tests have the same two."""
    assert binding_code("a1-1") == "GMNZS3"
    assert binding_code("0123456789abcdef0123456789abcdef-7") == "CF6XWA"


def test_a_request_without_a_page_names_its_id() -> None:
    """So that a person can answer it by the command."""
    text = instructions(_step_up())
    assert f"request a1-1, code {binding_code('a1-1')}" in text
    assert "http" not in text
