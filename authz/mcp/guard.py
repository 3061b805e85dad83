"""Guard of one session: asks Authz about each message of the client, and passes on what is permitted."""

import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, final

from authz.mcp.messages import (
    Kind,
    Message,
    MessageError,
    RequestId,
    elements,
    members,
    quoted,
    read_message,
)
from authz.mcp.questions import is_tool_call, question_of
from authz_client import (
    Authz,
    Caller,
    CheckOptions,
    Permit,
    Refused,
    TokenSource,
    Unavailable,
    acting_for,
)
from authz_client.context import TASK_META
from authz_client.errors import denied
from authz_client.mcp_answers import refused_error, refused_result
from authz_client.result_values import McpResult

__all__ = ["Identity", "McpGuard", "Passed"]

_log: Final = logging.getLogger("authz.mcp")
_TYPED_REVISION: Final = "2026-07-28"
_REVISION_META: Final = "io.modelcontextprotocol/protocolVersion"
_MOST_WAITING: Final = 1_000
_ENDED: Final = -32000
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, beside the credential that the client of Authz has."""

    task: str = ""
    """Task of all calls. Default: the task that a message names, if any."""
    agent: TokenSource | None = None
    """The agent's token, if the client of Authz is an enforcer."""
    subject: TokenSource | None = None
    """Token of the subject that the agent acts for."""
    timeout: float = 1.0
    """Seconds that a token source may take."""


@dataclass(frozen=True, slots=True)
class Passed:
    """What comes of a message: texts for the two ends, each None if that end gets nothing."""

    to_server: str | None = None
    to_client: str | None = None


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request of the client that its server has not answered."""

    method: str
    id_text: str
    task: str
    permit: Permit | None


@dataclass(slots=True)
class _Session:
    """Requests without an answer, of both ends."""

    of_client: dict[RequestId, _Waiting] = field(default_factory=dict)
    of_server: set[RequestId] = field(default_factory=set)


@final
class McpGuard:
    """Decides about the messages of one client and one server, one message at a time.

    Args:
        authz: Client of the node. It belongs to the agent, or is an enforcer.
        system: System of the server in the bundle's catalog.
        identity: Task and tokens.
    """

    def __init__(self, authz: Authz, system: str, identity: Identity) -> None:
        self._authz = authz
        self._system = system
        self._identity = identity
        self._session = _Session()

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
            return Passed(to_client=_error_text("null", error.code, str(error)))
        if message.kind is Kind.REQUEST and (reason := self._not_taken(message)):
            # The id belongs to another request, so the answer must not have it.
            _log.warning("refused a message of the client: %s", reason)
            return Passed(to_client=_error_text("null", -32600, reason))
        try:
            return await self._from_client(message)
        except MessageError as error:
            _log.warning("refused a message of the client: %s", error)
            if message.kind is not Kind.REQUEST:
                return Passed()
            return Passed(to_client=_error_text(message.id_text, error.code, str(error)))

    def _not_taken(self, message: Message) -> str:
        """Reason why a request cannot wait for an answer; empty if it can."""
        if message.id in self._session.of_client:
            return "the `id` belongs to a request that waits for an answer"
        if len(self._session.of_client) >= _MOST_WAITING:
            return f"more than {_MOST_WAITING} requests wait for an answer"
        return ""

    async def _from_client(self, message: Message) -> Passed:
        if message.kind is Kind.RESPONSE:
            return await self._answer_to_server(message)
        try:
            task = self._task(message)
            permit = await self._check(message, task)
        except Refused as refused:
            _log_refusal(message.method, refused)
            return self._refused(message, refused)
        if message.kind is Kind.REQUEST and message.id is not None:
            # The result of a call that runs as a task of the server comes later, by another message.
            reported = permit if "task" not in message.params else None
            waiting = _Waiting(message.method, message.id_text, task, reported)
            self._session.of_client[message.id] = waiting
        return Passed(to_server=message.text)

    async def _answer_to_server(self, message: Message) -> Passed:
        if message.id is None or message.id not in self._session.of_server:
            raise MessageError(-32600, "a response to no request of the server")
        self._session.of_server.discard(message.id)
        try:
            await self._check(message, self._identity.task)
        except Refused as refused:
            _log_refusal("response", refused)
            error = refused_error(refused)
            return Passed(to_server=_response(message.id_text, error=error))
        return Passed(to_server=message.text)

    def _task(self, message: Message) -> str:
        named = message.meta.get(TASK_META)
        if named is not None and (not isinstance(named, str) or not named):
            raise denied(f"`{TASK_META}` is not the id of a task", reason_code="UNKNOWN_TASK")
        if named and self._identity.task and named != self._identity.task:
            raise denied("the message names another task", reason_code="TASK_CONFLICT")
        return self._identity.task or named or ""

    async def _check(self, message: Message, task: str) -> Permit:
        question = question_of(self._system, message)
        if question is None:
            raise denied("a method that MCP does not have", reason_code="UNKNOWN_OPERATION")

        async def ask(who: Caller | None) -> Permit:
            asked: CheckOptions = {"task": task, "tool": question.tool}
            if who is not None:
                asked["caller"] = who
            return await self._authz.acheck(question.operation, question.arguments, **asked)

        return await self._asked(ask)

    async def _asked(self, ask: Callable[[Caller | None], Awaitable[Answer]]) -> Answer:
        """Ask as the agent, or as an enforcer about the agent; every failure is a refusal."""
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
            typed = message.meta.get(_REVISION_META) == _TYPED_REVISION
            result = refused_result(refused, typed=typed)
            return Passed(to_client=_response(message.id_text, result=result))
        return Passed(to_client=_response(message.id_text, error=refused_error(refused)))

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
        if waiting.method == "tools/list" and "result" in message.value:
            return await self._filtered(message, waiting)
        return Passed(to_client=message.text)

    def _request_of_server(self, message: Message) -> Passed:
        if len(self._session.of_server) >= _MOST_WAITING:
            text = f"more than {_MOST_WAITING} requests wait for an answer"
            return Passed(to_server=_error_text(message.id_text, _ENDED, text))
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
            return Passed(to_client=_response(message.id_text, error=refused_error(refused)))
        tools = (
            message.value["result"].get("tools")
            if isinstance(message.value["result"], dict)
            else None
        )
        if not isinstance(tools, list):
            _log.warning("the server answered tools/list without a list of tools")
            error = {"code": _ENDED, "message": "The server gave no list of tools."}
            return Passed(to_client=_response(message.id_text, error=error))
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
        waiting = list(self._session.of_client.values())
        self._session.of_client.clear()
        return [_error_text(one.id_text, _ENDED, reason) for one in waiting]


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


def _response(id_text: str, **outcome: dict[str, Any]) -> str:
    # In ASCII: a text may quote half of a character, which JSON can write and UTF-8 cannot.
    body = json.dumps(outcome, separators=(",", ":"))
    return f'{{"jsonrpc":"2.0","id":{id_text},{body[1:]}'


def _error_text(id_text: str, code: int, message: str) -> str:
    return _response(id_text, error={"code": code, "message": message})
