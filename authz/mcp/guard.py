"""Guard of one session: checks each message of the client at Authz, and passes on the permitted messages."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar, final

from authz.mcp.held import Held, HeldCalls, PageDeclinedError, PageRequest
from authz.mcp.messages import (
    Kind,
    Message,
    MessageError,
    RequestId,
    elements,
    members,
    quoted,
    read_message,
    without_params,
)
from authz.mcp.passed import Passed, error_text, response_text
from authz.mcp.questions import Question, is_tool_call, question_of
from authz_client import (
    Authz,
    Caller,
    CheckOptions,
    Permit,
    Refused,
    StepUp,
    TokenSource,
    Unavailable,
    acting_for,
)
from authz_client.approval_texts import declined_text, tell_rejection
from authz_client.context import TASK_META
from authz_client.errors import denied
from authz_client.mcp_answers import declined_result, refused_error, refused_result
from authz_client.mcp_held import (
    CAPABILITIES_META,
    DEFAULT_WAIT_SECONDS,
    MOST_ROUNDS,
    STATE_REFUSED,
    ComingBack,
    HeldCall,
    HeldStates,
    Rung,
    StateError,
    ToldRequests,
    coming_back,
    input_required,
    rung_of,
)
from authz_client.redaction import RedactionError, redact_mcp, redact_mcp_resource, redactions
from authz_client.result_values import McpResult

__all__ = ["Identity", "McpGuard"]

_log: Final = logging.getLogger("authz.mcp")
_TYPED_REVISION: Final = "2026-07-28"
_REVISION_META: Final = "io.modelcontextprotocol/protocolVersion"
_MOST_WAITING: Final = 1_000
_ENDED: Final = -32000
_INVALID_PARAMS: Final = -32602
_OWN_PARAMS: Final = frozenset({"requestState", "inputResponses"})
_HOLDABLE: Final = frozenset({"tools/call", "resources/read", "prompts/get"})
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Identity:
    """Identity of the caller, besides the credential of the Authz client."""

    task: str = ""
    """Task of all calls. Default: the task that a message names, if any."""
    agent: TokenSource | None = None
    """The agent's token, if the client of Authz is an enforcer."""
    subject: TokenSource | None = None
    """Token of the subject that the agent acts for."""
    timeout: float = 1.0
    """Longest time of a token source, in seconds."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request of the client that its server has not answered."""

    method: str
    id_text: str
    task: str
    permit: Permit | None
    redactions: tuple[str, ...] = ()
    """Obligations on the result."""
    uri: str = ""
    """Resource that the request reads."""


@dataclass(slots=True)
class _Session:
    """Requests without an answer, of both ends."""

    of_client: dict[RequestId, _Waiting] = field(default_factory=dict)
    of_server: set[RequestId] = field(default_factory=set)
    capabilities: object = None
    """Of the client, as `initialize` declares them."""
    revision: str = ""
    """Revision of MCP that `initialize` agreed on."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A request of the client, with the question about it."""

    message: Message
    task: str
    question: Question
    rounds: int | None = None
    """Number of earlier rounds, from the state of this guard. None if the request has no such state."""


@final
class McpGuard:
    """Decides about the messages of one client and one server, one message at a time.

    Args:
        authz: Client of the node. It belongs to the agent, or is an enforcer.
        system: System of the server in the bundle's catalog.
        identity: Task and tokens.
        wait: Longest wait of a call for the answer of a person after the client knows the approval, in seconds.
    """

    def __init__(
        self,
        authz: Authz,
        system: str,
        identity: Identity,
        *,
        wait: float = DEFAULT_WAIT_SECONDS,
    ) -> None:
        self._authz = authz
        self._system = system
        self._identity = identity
        self._wait = wait
        self._session = _Session()
        self._states = HeldStates()
        self._told = ToldRequests()
        self._held = HeldCalls()

    # --- from the client

    async def from_client(self, line: bytes) -> Passed:
        """Decide about a message of the client.

        Args:
            line: The line.

        Returns:
            The message for the server if it is permitted, otherwise the answer to the client.
        """
        try:
            message = read_message(line)
        except MessageError as error:
            _log.warning("refused a message of the client: %s", error)
            return Passed(to_client=error_text("null", error.code, str(error)))
        if message.kind is Kind.REQUEST and (reason := self._not_taken(message)):
            # The id belongs to another request, so the answer must not have it.
            _log.warning("refused a message of the client: %s", reason)
            return Passed(to_client=error_text("null", -32600, reason))
        try:
            return await self._from_client(message)
        except MessageError as error:
            _log.warning("refused a message of the client: %s", error)
            if message.kind is not Kind.REQUEST:
                return Passed()
            return Passed(to_client=error_text(message.id_text, error.code, str(error)))

    def _not_taken(self, message: Message) -> str:
        """Return the reason why a request cannot wait for an answer. Empty if it can."""
        if message.id in self._session.of_client or message.id in self._held:
            return "the `id` belongs to a request that waits for an answer"
        if len(self._session.of_client) >= _MOST_WAITING:
            return f"more than {_MOST_WAITING} requests wait for an answer"
        return ""

    async def _from_client(self, message: Message) -> Passed:
        if message.kind is Kind.RESPONSE:
            return await self._answer_to_server(message)
        if message.method == "notifications/cancelled" and self._held.cancel(message):
            return Passed()
        try:
            call = self._call(message)
        except Refused as refused:
            _log_refusal(message.method, refused)
            return self._refused(message, refused)
        if message.method == "initialize":
            self._session.capabilities = message.params.get("capabilities")
        if message.method in _HOLDABLE and (back := _coming_back(message)):
            try:
                approval_id, rounds = self._states.open(back.state, self._held_call(call))
            except StateError as error:
                raise _refused_state(error) from error
            if back.is_declined:
                return _declined(message, approval_id)
            # The server never sees the state of this guard, and the node judges the call without it.
            call = replace(call, rounds=rounds)
            return await self._decided(call, approval_id)
        return await self._decided(call)

    def _call(self, message: Message) -> _Call:
        """Read the check of a message, without the state of this guard, which is not an argument."""
        task = self._task(message)
        if message.method in _HOLDABLE and _coming_back(message):
            message = without_params(message, _OWN_PARAMS)
        question = question_of(self._system, message)
        if question is None:
            raise denied("a method that MCP does not have", reason_code="UNKNOWN_OPERATION")
        return _Call(message, task, question)

    async def _decided(self, call: _Call, approval_id: str = "") -> Passed:
        """Check a call of the client, and pass it on, answer it, or keep it open."""
        try:
            permit = await self._check(call, approval_id)
        except StepUp as step_up:
            _log_refusal(call.message.method, step_up)
            return self._stepped_up(call, step_up, approval_id)
        except Refused as refused:
            _log_refusal(call.message.method, refused)
            return self._refused(call.message, refused)
        return self._forwarded(call, permit)

    def _forwarded(self, call: _Call, permit: Permit) -> Passed:
        message = call.message
        if message.kind is Kind.REQUEST and message.id is not None:
            # The result of a call that runs as a task of the server comes later, by another message.
            reported = permit if "task" not in message.params else None
            waiting = _Waiting(
                message.method,
                message.id_text,
                call.task,
                reported,
                tuple(permit.obligations),
                str(message.params.get("uri", "")),
            )
            self._session.of_client[message.id] = waiting
        return Passed(to_server=message.text)

    async def _answer_to_server(self, message: Message) -> Passed:
        if self._held.answer(message):
            return Passed()
        if message.id is None or message.id not in self._session.of_server:
            raise MessageError(-32600, "a response to no request of the server")
        self._session.of_server.discard(message.id)
        try:
            question = question_of(self._system, message)
            if question is None:
                raise denied("a method that MCP does not have", reason_code="UNKNOWN_OPERATION")
            await self._check(_Call(message, self._identity.task, question))
        except Refused as refused:
            _log_refusal("response", refused)
            error = refused_error(refused)
            return Passed(to_server=response_text(message.id_text, error=error))
        return Passed(to_server=message.text)

    # --- calls that wait for a person

    def _stepped_up(self, call: _Call, step_up: StepUp, approval_id: str) -> Passed:
        """Answer a call that a person must approve first, or keep it open."""
        message = call.message
        if message.kind is not Kind.REQUEST or message.method not in _HOLDABLE:
            return self._refused(message, step_up)
        was_told = bool(step_up.approval_id) and self._told.tell(step_up.approval_id)
        if call.rounds is not None and step_up.approval_id == approval_id:
            return self._held_open(call, step_up, asks=False)
        rung = self._rung(message, step_up)
        if rung is Rung.INPUT_REQUIRED:
            return self._asked_to_come_back(call, step_up, 0, asks=True)
        if rung is Rung.ELICITATION:
            return self._held_open(call, step_up, asks=True)
        if was_told:
            # The agent repeats the call. The call now waits, so that the agent need not repeat it many times.
            return self._held_open(call, step_up, asks=False)
        return self._refused(message, step_up)

    def _rung(self, message: Message, step_up: StepUp) -> Rung:
        named = message.meta.get(_REVISION_META)
        if isinstance(named, str):
            revision, capabilities = named, message.meta.get(CAPABILITIES_META)
        else:
            revision, capabilities = self._session.revision, self._session.capabilities
        carries_state = not _OWN_PARAMS.isdisjoint(message.params)
        return rung_of(
            step_up, revision=revision, capabilities=capabilities, carries_state=carries_state
        )

    def _held_call(self, call: _Call) -> HeldCall:
        question = call.question
        return HeldCall(call.task, question.operation, question.tool, question.arguments)

    def _asked_to_come_back(
        self, call: _Call, step_up: StepUp, rounds: int, *, asks: bool
    ) -> Passed:
        state = self._states.seal(step_up, self._held_call(call), rounds)
        result = input_required(step_up, state, asks=asks)
        return Passed(to_client=response_text(call.message.id_text, result=result))

    def _held_open(self, call: _Call, step_up: StepUp, *, asks: bool) -> Passed:
        """Keep a call open until a person has answered or the time has passed. `later` then returns its outcome."""
        message = call.message
        if message.id is None or not self._wait or not self._held.has_room():
            return self._still_open(call, step_up)
        page = self._held.ask(step_up) if asks else None
        held = Held(message.id, message.id_text)
        self._held.start(held, partial(self._held_answer, call, step_up, page), page)
        return Passed(to_client=page.text if page is not None else None)

    async def _held_answer(self, call: _Call, step_up: StepUp, page: PageRequest | None) -> Passed:
        message = call.message
        try:
            await self._held.until_answered(step_up, page, self._wait)
        except PageDeclinedError:
            return _declined(message, step_up.approval_id)
        try:
            permit = await self._check(call, step_up.approval_id)
        except StepUp as again:
            return self._still_open(call, again)
        except Refused as refused:
            tell_rejection(refused, step_up)
            _log_refusal(message.method, refused)
            return self._refused(message, refused)
        return self._forwarded(call, permit)

    def _still_open(self, call: _Call, step_up: StepUp) -> Passed:
        """Answer a call that no person approved in time: the client repeats the call, or the model reads the next step."""
        if call.rounds is not None and call.rounds + 1 < MOST_ROUNDS and self._wait:
            return self._asked_to_come_back(call, step_up, call.rounds + 1, asks=False)
        return self._refused(call.message, step_up)

    async def later(self) -> Passed:
        """Wait for the next message that does not follow from a message of either end: the outcome of an open call."""
        while True:
            held, passed = await self._held.next_outgoing()
            if held is None or self._held.end(held):
                return passed
            # The client cancelled the call after it was decided, so the server does not get it.
            waiting = self._session.of_client.pop(held.id, None) if passed.to_server else None
            if waiting is not None and waiting.permit is not None:
                await self._aborted(waiting.permit)

    async def _aborted(self, permit: Permit) -> None:
        if permit.reservation_id:
            try:
                await self._authz.areport(permit, "aborted")
            except Exception as error:  # noqa: BLE001 - without a report all labels count
                _log.warning("the report of decision %s was lost: %s", permit.decision_id, error)

    # --- the question

    def _task(self, message: Message) -> str:
        named = message.meta.get(TASK_META)
        if named is not None and (not isinstance(named, str) or not named):
            raise denied(f"`{TASK_META}` is not the id of a task", reason_code="UNKNOWN_TASK")
        if named and self._identity.task and named != self._identity.task:
            raise denied("the message names another task", reason_code="TASK_CONFLICT")
        return self._identity.task or named or ""

    async def _check(self, call: _Call, approval_id: str = "") -> Permit:
        question = call.question

        async def ask(who: Caller | None) -> Permit:
            asked: CheckOptions = {"task": call.task, "tool": question.tool}
            if _can_redact(call.message):
                asked["supported_obligations"] = redactions()
            if approval_id:
                asked["approval_id"] = approval_id
            if who is not None:
                asked["caller"] = who
            return await self._authz.acheck(question.operation, question.arguments, **asked)

        return await self._asked(ask)

    async def _asked(self, ask: Callable[[Caller | None], Awaitable[Answer]]) -> Answer:
        """Check as the agent, or as an enforcer for the agent. Every failure is a refusal."""
        identity = self._identity
        try:
            subject = await identity.subject.atoken(identity.timeout) if identity.subject else None
            if identity.agent is not None:
                token = await identity.agent.atoken(identity.timeout)
                return await ask(Caller(agent_token=token, subject_token=subject))
            with acting_for(subject) if subject else nullcontext():
                return await ask(None)
        except Refused:
            raise
        except Exception as error:
            # INVARIANT (fail closed): a failure of this process permits nothing.
            raise Unavailable.of(f"{type(error).__name__}: {error}") from error

    def _refused(self, message: Message, refused: Refused) -> Passed:
        if message.kind is Kind.NOTIFICATION:
            return Passed()
        if is_tool_call(message):
            result = refused_result(refused, typed=_is_typed(message))
            return Passed(to_client=response_text(message.id_text, result=result))
        return Passed(to_client=response_text(message.id_text, error=refused_error(refused)))

    # --- from the server

    async def from_server(self, line: bytes) -> Passed:
        """Pass on a message of the server.

        Args:
            line: The line.

        Returns:
            The message for the client; a line that is not a message is dropped.
        """
        try:
            message = read_message(line)
        except MessageError as error:
            _log.warning("dropped a line of the server: %s", error)
            return Passed()
        if message.kind is Kind.REQUEST:
            return self._request_of_server(message)
        if message.kind is Kind.NOTIFICATION or message.id is None:
            return Passed(to_client=message.text)
        return await self._response_of_server(message, message.id)

    async def _response_of_server(self, message: Message, request_id: RequestId) -> Passed:
        waiting = self._session.of_client.pop(request_id, None)
        if waiting is None:
            _log.warning("dropped a response of the server to no request")
            return Passed()
        if waiting.permit is not None:
            await self._report(waiting.permit, message)
        if waiting.method == "initialize":
            self._session.revision = _agreed_revision(message)
        if waiting.method == "tools/list" and "result" in message.value:
            return await self._filtered(message, waiting)
        if waiting.redactions:
            return Passed(to_client=_redacted(message, waiting))
        return Passed(to_client=message.text)

    def _request_of_server(self, message: Message) -> Passed:
        if len(self._session.of_server) >= _MOST_WAITING:
            text = f"more than {_MOST_WAITING} requests wait for an answer"
            return Passed(to_server=error_text(message.id_text, _ENDED, text))
        if message.id is not None:
            self._session.of_server.add(message.id)
        return Passed(to_client=message.text)

    async def _report(self, permit: Permit, message: Message) -> None:
        """Report before the client has the result, so that the next check takes it into account."""
        if not permit.reservation_id:
            return
        result = message.value.get("result")
        try:
            if not isinstance(result, dict) or result.get("isError") is True:
                await self._authz.areport(permit, "failed")
            else:
                await self._authz.areport(permit, "ok", returned=McpResult(result))
        except Exception as error:  # noqa: BLE001 - the tool has run; without a report all its labels count
            _log.warning("the report of decision %s was lost: %s", permit.decision_id, error)

    async def _filtered(self, message: Message, waiting: _Waiting) -> Passed:
        """Keep the tools that could be permitted, each as the server wrote it."""
        try:
            listed = await self._asked(
                lambda who: self._authz.alist_tools(
                    self._system, task=waiting.task or None, caller=who
                )
            )
        except Refused as refused:
            _log_refusal("tools/list", refused)
            return Passed(to_client=response_text(message.id_text, error=refused_error(refused)))
        tools = (
            message.value["result"].get("tools")
            if isinstance(message.value["result"], dict)
            else None
        )
        if not isinstance(tools, list):
            _log.warning("the server answered tools/list without a list of tools")
            error = {"code": _ENDED, "message": "The server gave no list of tools."}
            return Passed(to_client=response_text(message.id_text, error=error))
        start, _ = members(message.text)["result"]
        begin, end = members(message.text, start)["tools"]
        spans = elements(message.text, begin)
        kept = [
            message.text[first:last]
            for tool, (first, last) in zip(tools, spans, strict=True)
            if listed.has_tool(self._system, _name(tool))
        ]
        _log.info("tools/list: %d of %d tools shown", len(kept), len(tools))
        before, after = message.text[:begin], message.text[end:]
        return Passed(to_client=f"{before}[{','.join(kept)}]{after}")

    # --- at the end

    def left_unanswered(self, reason: str) -> list[str]:
        """Answer the requests that the server will not answer.

        Their permits get no report: Authz then counts every label that the calls can bring.

        Args:
            reason: Text for the client.

        Returns:
            Error responses for the client.
        """
        waiting = [one.id_text for one in self._session.of_client.values()]
        self._session.of_client.clear()
        return [error_text(id_text, _ENDED, reason) for id_text in waiting + self._held.stop()]


def _can_redact(message: Message) -> bool:
    """Return whether the response to a message is a result that this guard redacts. The result of a task comes by another message."""
    if message.kind is not Kind.REQUEST or "task" in message.params:
        return False
    return message.method in {"tools/call", "resources/read"}


def _redacted(message: Message, waiting: _Waiting) -> str:
    """Carry out the obligations on the response of a tool or of a resource. What cannot be redacted is left out."""
    is_resource = waiting.method == "resources/read"
    if "result" not in message.value:
        # The text of an error may repeat what the server read.
        error = message.value.get("error")
        code = error.get("code") if isinstance(error, dict) else None
        code = code if isinstance(code, int) else _ENDED
        failed = "The resource was not read" if is_resource else "The tool failed"
        return error_text(message.id_text, code, f"{failed}. The server's message is redacted.")
    result = message.value["result"]
    try:
        for obligation in waiting.redactions:
            if is_resource:
                result = redact_mcp_resource(result, obligation, waiting.uri)
            else:
                result = redact_mcp(result, obligation)
        return response_text(message.id_text, result=result)
    except (RedactionError, ValueError) as error:
        _log.warning("left out the result of %s: %s", waiting.method, error)
        done = "The resource was read" if is_resource else "The tool has run"
        text = f"{done}. Its result cannot be redacted, so it is left out."
        return error_text(message.id_text, _ENDED, text)


def _name(tool: object) -> str:
    name = tool.get("name") if isinstance(tool, dict) else None
    return name if isinstance(name, str) else ""


def _log_refusal(method: str, refused: Refused) -> None:
    _log.warning(
        "%s refused: %s %s (decision %s)%s",
        f"{quoted(method)} {quoted(refused.operation)}".strip(),
        refused.public_code.value,
        refused.reason_code,
        refused.decision_id or "none",
        f": {refused.message}" if refused.message else "",
    )


def _is_typed(message: Message) -> bool:
    return message.meta.get(_REVISION_META) == _TYPED_REVISION


def _agreed_revision(message: Message) -> str:
    result = message.value.get("result")
    revision = result.get("protocolVersion") if isinstance(result, dict) else None
    return revision if isinstance(revision, str) else ""


def _coming_back(message: Message) -> ComingBack | None:
    try:
        return coming_back(message.params)
    except StateError as error:
        raise _refused_state(error) from error


def _refused_state(error: StateError) -> MessageError:
    _log.warning("refused a state of a held call: %s", error)
    return MessageError(_INVALID_PARAMS, STATE_REFUSED)


def _declined(message: Message, approval_id: str) -> Passed:
    """Answer a call whose user did not open the page."""
    text = declined_text(approval_id)
    refused = denied("the user did not open the page", reason_code="APPROVAL_REQUIRED")
    if is_tool_call(message):
        result = declined_result(refused, text, typed=_is_typed(message))
        return Passed(to_client=response_text(message.id_text, result=result))
    error = {**refused_error(refused), "message": text}
    return Passed(to_client=response_text(message.id_text, error=error))
