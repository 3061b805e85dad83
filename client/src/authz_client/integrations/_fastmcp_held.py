"""Tool calls of a FastMCP server that wait for a person."""

import asyncio
import hashlib
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NoReturn, final

import jwt
from fastmcp.server.middleware import MiddlewareContext
from fastmcp.tools.base import InputRequiredToolResult, ToolResult
from mcp.shared.exceptions import MCPError
from mcp_types import InputRequiredResult, TextContent

from authz_client.approval_texts import declined_text, page_message, tell_rejection
from authz_client.context import Caller
from authz_client.errors import Refused, StepUp, denied
from authz_client.mcp_answers import declined_result
from authz_client.mcp_held import (
    MOST_HELD,
    MOST_ROUNDS,
    STATE_REFUSED,
    HeldCall,
    HeldStates,
    Rung,
    StateError,
    ToldRequests,
    coming_back,
    input_required,
    rung_of,
)
from authz_client.permit import Permit

__all__ = ["AnsweredError", "HeldTools", "caller_id", "error_result", "without_own_state"]

_log: Final = logging.getLogger("authz_client")
_INVALID_PARAMS: Final = -32602
_ACCEPT: Final = "accept"
_CONTINUATION: Final = ("requestState", "inputResponses")

Ask = Callable[[str], Awaitable[Permit]]
"""Checks the call at the node. The argument is the id of the approval to present."""


class AnsweredError(Exception):
    """The call has a result although its tool did not run.

    Args:
        result: The result.
    """

    def __init__(self, result: ToolResult) -> None:
        super().__init__("answered")
        self.result = result


def error_result(told: Mapping[str, Any]) -> ToolResult:
    """Turn a `CallToolResult` with `isError` into a result of FastMCP.

    Args:
        told: The result, as JSON.
    """
    content = [TextContent(type="text", text=part["text"]) for part in told["content"]]
    return ToolResult(content=content, meta=told["_meta"], is_error=True)


def caller_id(who: Caller | None) -> str:
    """Return a name of a caller, so that only the same caller can return a state.

    Tokens may be renewed between two calls, so the name has their issuer and subject. The node verifies them at each check.

    Args:
        who: The caller.
    """
    if who is None:
        return ""
    tokens = (who.agent_token, who.subject_token, who.credential_token)
    return json.dumps([who.task, *(_token_id(token) for token in tokens)])


def _token_id(token: str | None) -> object:
    if token is None:
        return None
    try:
        # The token is not verified here: the name only separates the states of callers, and the node verifies the token.
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        claims = {}
    if isinstance(claims.get("sub"), str):
        return [str(claims.get("iss", "")), claims["sub"]]
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def without_own_state(message: Any) -> Any:
    """Remove the state of the middleware from a message, because it is not an argument of the tool.

    Args:
        message: The call.

    Raises:
        MCPError: The state stands beside answers to other questions.
    """
    try:
        if coming_back(_continuation(message)) is None:
            return message
    except StateError as error:
        _refuse(error)
    return message.model_copy(update={"request_state": None, "input_responses": None})


@final
class HeldTools:
    """Calls of one server that wait for a person.

    Args:
        wait: Seconds that a call stays open.
    """

    def __init__(self, wait: float) -> None:
        self._wait = wait
        self._states = HeldStates()
        self._told = ToldRequests()
        self._held = 0

    async def permit(self, context: MiddlewareContext[Any], call: HeldCall, ask: Ask) -> Permit:
        """Check a call, and wait for the person who must approve it.

        Args:
            context: The call, as it came.
            call: The call, without a state of the middleware.
            ask: Checks the call at the node.

        Returns:
            The permit.

        Raises:
            AnsweredError: The client must come back, or its user did not open the page.
            Refused: The call may not run.
            MCPError: The returned state is not valid for the call.
        """
        approval_id, rounds = self._opened(context, call)
        try:
            return await ask(approval_id)
        except StepUp as step_up:
            if not step_up.approval_id:
                raise
            was_told = self._told.tell(step_up.approval_id)
            rung = Rung.RESULT
            if rounds is None or step_up.approval_id != approval_id:
                rounds, rung = None, _rung(context, step_up)
            if rung is Rung.INPUT_REQUIRED:
                raise self._come_back(step_up, call, 0, asks=True) from step_up
            if rung is Rung.RESULT and rounds is None and not was_told:
                # The model tells the user and calls again. The next call stays open.
                raise
            await self._until_answered(context, step_up, asks=rung is Rung.ELICITATION)
            return await self._asked_again(ask, step_up, call, rounds)

    def _opened(self, context: MiddlewareContext[Any], call: HeldCall) -> tuple[str, int | None]:
        """Open a returned state. Return the id of the approval, and the number of earlier rounds."""
        try:
            back = coming_back(_continuation(context.message))
            if back is None:
                return "", None
            approval_id, rounds = self._states.open(back.state, call)
        except StateError as error:
            _refuse(error)
        _hide_state(context)
        if back.is_declined:
            raise _declined(approval_id)
        return approval_id, rounds

    async def _asked_again(
        self, ask: Ask, step_up: StepUp, call: HeldCall, rounds: int | None
    ) -> Permit:
        try:
            return await ask(step_up.approval_id)
        except StepUp as again:
            if rounds is None or rounds + 1 >= MOST_ROUNDS or not self._wait:
                raise
            raise self._come_back(again, call, rounds + 1, asks=False) from again
        except Refused as refused:
            tell_rejection(refused, step_up)
            raise

    def _come_back(
        self, step_up: StepUp, call: HeldCall, rounds: int, *, asks: bool
    ) -> AnsweredError:
        result = input_required(step_up, self._states.seal(step_up, call, rounds), asks=asks)
        return AnsweredError(InputRequiredToolResult(InputRequiredResult.model_validate(result)))

    async def _until_answered(
        self, context: MiddlewareContext[Any], step_up: StepUp, *, asks: bool
    ) -> None:
        """Wait for the answer, and ask the client to open the page meanwhile."""
        if not self._wait or self._held >= MOST_HELD:
            return
        self._held += 1
        answered = asyncio.create_task(_answered(step_up, self._wait))
        opened = asyncio.create_task(_page_action(context, step_up)) if asks else None
        try:
            async with asyncio.timeout(self._wait):
                if opened is not None:
                    await asyncio.wait({answered, opened}, return_when=asyncio.FIRST_COMPLETED)
                    if opened.done() and opened.result() in {"decline", "cancel"}:
                        raise _declined(step_up.approval_id)
                    if opened.done() and opened.result() != _ACCEPT:
                        return
                await answered
        except TimeoutError:
            pass
        finally:
            self._held -= 1
            running = [task for task in (answered, opened) if task is not None]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


async def _answered(step_up: StepUp, seconds: float) -> None:
    """Wait for the answer. If the wait fails, return, so that the call is checked again."""
    try:
        await step_up.wait_async(seconds)
    except Refused as refused:
        _log.warning("cannot wait for request %s: %s", step_up.approval_id, refused.message)


async def _page_action(context: MiddlewareContext[Any], step_up: StepUp) -> str:
    """Ask the client to open the page. Return an empty text if the client cannot."""
    fastmcp = context.fastmcp_context
    if fastmcp is None:
        return ""
    try:
        result = await fastmcp.session.elicit_url(
            page_message(step_up),
            step_up.url,
            f"authz-{secrets.token_hex(12)}",
            related_request_id=fastmcp.request_id,
        )
    except Exception as error:  # noqa: BLE001 - the model then reads the page's address
        _log.info("the client shows no page: %s", type(error).__name__)
        return ""
    return str(result.action)


def _rung(context: MiddlewareContext[Any], step_up: StepUp) -> Rung:
    fastmcp = context.fastmcp_context
    if fastmcp is None or fastmcp.request_context is None:
        return Rung.RESULT
    session = fastmcp.session
    declared = session.client_capabilities
    capabilities = declared.model_dump(by_alias=True, exclude_none=True) if declared else None
    message = context.message
    carries_state = bool(_continuation(message)) and coming_back(_continuation(message)) is None
    return rung_of(
        step_up,
        revision=session.protocol_version,
        capabilities=capabilities,
        carries_state=carries_state,
    )


def _continuation(message: Any) -> dict[str, Any]:
    """The parameters by which a client continues a call, as JSON."""
    state = getattr(message, "request_state", None)
    answers = getattr(message, "input_responses", None)
    given: dict[str, Any] = {}
    if state is not None:
        given["requestState"] = state
    if answers is not None:
        given["inputResponses"] = {
            name: answer.model_dump(by_alias=True) if hasattr(answer, "model_dump") else answer
            for name, answer in answers.items()
        }
    return given


def _hide_state(context: MiddlewareContext[Any]) -> None:
    """Hide the continuation from the tool, which FastMCP reads from the request and not from the message."""
    fastmcp = context.fastmcp_context
    request = getattr(fastmcp.request_context, "_srctx", None) if fastmcp is not None else None
    if request is not None and isinstance(request.params, Mapping):
        request.params = {
            name: value for name, value in request.params.items() if name not in _CONTINUATION
        }


def _declined(approval_id: str) -> AnsweredError:
    refused = denied("the user did not open the page", reason_code="APPROVAL_REQUIRED")
    return AnsweredError(error_result(declined_result(refused, declined_text(approval_id))))


def _refuse(error: StateError) -> NoReturn:
    _log.warning("refused a state of a held call: %s", error)
    reason = {"reason": "invalid_request_state"}
    raise MCPError(_INVALID_PARAMS, STATE_REFUSED, reason) from error
