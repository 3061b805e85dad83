"""Middleware for FastMCP 4 that guards each tool, resource and prompt of a server.

    from fastmcp import FastMCP
    from authz_client import Authz
    from authz_client.integrations.fastmcp import AuthzMiddleware

    authz = Authz("unix:///run/authz/crm.sock", enforcer=True)
    server = FastMCP("crm", middleware=[AuthzMiddleware(authz, "crm")])

Add it last, so that no other middleware changes the arguments after they were judged.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeAlias

from fastmcp.server.dependencies import get_http_request
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.tools.base import Tool, ToolResult
from mcp.shared.exceptions import MCPError

from authz_client.arguments import encoded
from authz_client.base_errors import UsageError
from authz_client.client import Authz
from authz_client.context import Caller
from authz_client.errors import Refused, Unavailable, denied
from authz_client.integrations._fastmcp_held import (
    AnsweredError,
    HeldTools,
    caller_id,
    error_result,
    without_own_state,
)
from authz_client.mcp_answers import refused_error, refused_result, tool_operation
from authz_client.mcp_held import DEFAULT_WAIT_SECONDS, HeldCall
from authz_client.obligations import Obligation
from authz_client.permit import Permit
from authz_client.questions import ToolList

if TYPE_CHECKING:
    from authz_client.questions import CheckOptions

__all__ = ["AuthzMiddleware"]

_log: Final = logging.getLogger("authz_client")
_TASK_RESULT: Final = "task"


_Ask: TypeAlias = Callable[[bytes, "CheckOptions"], Awaitable[Permit]]


@dataclass(frozen=True, slots=True)
class _Call:
    """A permitted call, with the obligations that follow it."""

    permit: Permit
    due: tuple[Obligation, ...]


class AuthzMiddleware(Middleware):  # type: ignore[misc]  # where FastMCP is not installed
    """Asks Authz before a tool runs, a resource is read or a prompt is given, and lists only tools that could be permitted.

    The operation of a tool is `<system>.<name>`, as `authz catalog import-mcp` names it. A tool that the catalog does not have, by
    its exact name, is refused. The caller is that of the HTTP request. Over standard input and output there is none: an enforcer
    then refuses, and any other client asks for itself.

    Args:
        authz: Client of the node, normally an enforcer.
        system: System of the server in the bundle's catalog.
        operations: Operation ids by tool name, for tools whose operation has another id.
        public_url: URL of the endpoint as callers know it. Required for callers that send DPoP proofs.
        wait: Seconds that a call of a tool waits for the answer of a person, once the agent or its user knows of the request. 0: never.
    """

    def __init__(
        self,
        authz: Authz,
        system: str,
        *,
        operations: Mapping[str, str] | None = None,
        public_url: str = "",
        wait: float = DEFAULT_WAIT_SECONDS,
    ) -> None:
        self._authz = authz
        self._system = system
        self._operations = dict(operations or {})
        self._public_url = public_url
        self._held = HeldTools(wait)

    # --- tools

    async def on_call_tool(
        self, context: MiddlewareContext[Any], call_next: CallNext[Any, ToolResult]
    ) -> ToolResult:
        """Run a tool if its call is permitted, and report the result.

        Args:
            context: The call.
            call_next: Runs the tool.

        Returns:
            Result of the tool; a result with `isError` if the call is refused.
        """
        message = without_own_state(context.message)
        operation = self._operation(message.name)

        def ask(judged: bytes, asked: "CheckOptions") -> Awaitable[Permit]:
            call = HeldCall(caller_id(asked.get("caller")), operation, message.name, judged)
            return self._held.permit(context, call, partial(self._asked, call, asked))

        try:
            call = await self._admitted(operation, message, tool=message.name, ask=ask)
        except AnsweredError as answered:
            return answered.result
        except Refused as refused:
            return _result(refused)
        outcome: Literal["ok", "failed"] = "failed"
        returned: Any = None
        try:
            result = await call_next(context)
            if not getattr(result, "is_error", False):
                outcome = "ok"
            returned = self._settled(call, result)
        except Refused as refused:
            return _result(refused)
        else:
            return returned
        finally:
            # The result of a call that runs as a task of the server comes later; without a report all its labels count.
            if getattr(message, _TASK_RESULT, None) is None:
                await self._report(call.permit, outcome, returned)

    async def on_list_tools(
        self, context: MiddlewareContext[Any], call_next: CallNext[Any, Sequence[Tool]]
    ) -> Sequence[Tool]:
        """List the tools that could be permitted.

        Args:
            context: The request.
            call_next: Lists all tools.

        Returns:
            Tools, in their order.

        Raises:
            MCPError: The caller is refused, or the node does not answer.
        """
        tools = await call_next(context)
        try:
            # Operations of tools that are named one by one may be of another system.
            system = "" if self._operations else self._system
            listed = await self._authz.alist_tools(system, caller=self._caller(None))
        except Refused as refused:
            _raise(refused)
        return [tool for tool in tools if self._is_listed(tool.name, listed)]

    # --- resources and prompts

    async def on_read_resource(
        self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]
    ) -> Any:
        """Read a resource if `<system>.resources.read` is permitted.

        Args:
            context: The request.
            call_next: Reads it.

        Raises:
            MCPError: It is not permitted.
        """
        message = context.message
        given = {"uri": str(message.uri)}
        return await self._other("resources.read", given, context, call_next)

    async def on_get_prompt(
        self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]
    ) -> Any:
        """Give a prompt if `<system>.prompts.get` is permitted.

        Args:
            context: The request.
            call_next: Gives it.

        Raises:
            MCPError: It is not permitted.
        """
        message = context.message
        given = {"name": message.name}
        if message.arguments is not None:
            given["arguments"] = message.arguments
        return await self._other("prompts.get", given, context, call_next)

    async def _other(
        self,
        name: str,
        arguments: Mapping[str, Any],
        context: MiddlewareContext[Any],
        call_next: CallNext[Any, Any],
    ) -> Any:
        outcome: Literal["ok", "failed"] = "failed"
        try:
            call = await self._admitted(f"{self._system}.{name}", context.message, arguments)
        except Refused as refused:
            _raise(refused)
        try:
            result = await call_next(context)
            outcome = "ok"
            return self._settled(call, result)
        except Refused as refused:
            _raise(refused)
        finally:
            await self._report(call.permit, outcome)

    # --- the question

    def _operation(self, tool: str) -> str:
        return self._operations.get(tool) or tool_operation(self._system, tool)

    def _is_listed(self, tool: str, listed: ToolList) -> bool:
        operation = self._operations.get(tool)
        if operation:
            return operation in listed.operations
        return listed.has_tool(self._system, tool)

    def _caller(self, message: Any) -> Caller | None:
        meta = _meta(message)
        try:
            request = get_http_request()
        except RuntimeError:
            # Standard input and output: the process of the caller is not known.
            return None
        return Caller.from_headers(
            request.headers.items(),
            meta=meta,
            method=request.method if self._public_url else "",
            url=self._public_url,
        )

    async def _admitted(
        self,
        operation: str,
        message: Any,
        arguments: Mapping[str, Any] | None = None,
        *,
        tool: str = "",
        ask: "_Ask | None" = None,
    ) -> _Call:
        """Ask, and carry out the obligations before the call; every failure is a refusal."""
        judged = _arguments(message, arguments, operation)
        try:
            who = self._caller(message)
            asked: CheckOptions = {"supported_obligations": self._authz.obligations.supported()}
            if who is not None:
                asked["caller"] = who
            if tool not in self._operations:
                asked["tool"] = tool
            if ask is not None:
                permit = await ask(judged, asked)
            else:
                permit = await self._authz.acheck(operation, judged, **asked)
        except (Refused, AnsweredError, MCPError):
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise Unavailable.of(what, operation) from error
        due = tuple(
            Obligation(name, operation, json.loads(judged), permit.decision_id)
            for name in permit.obligations
        )
        # INVARIANT (what is judged is what runs): other code of this process may have changed the arguments meanwhile.
        if _arguments(message, arguments, operation) != judged:
            await self._report(permit, "aborted")
            raise denied("the arguments changed while they were judged", operation=operation)
        try:
            self._authz.obligations.before(due)
        except Exception as error:
            await self._report(permit, "aborted")
            what = f"an obligation could not be done: {type(error).__name__}"
            raise denied(what, operation=operation) from error
        return _Call(permit, due)

    async def _asked(self, call: HeldCall, asked: "CheckOptions", approval_id: str) -> Permit:
        if approval_id:
            asked = {**asked, "approval_id": approval_id}
        return await self._authz.acheck(call.operation, call.arguments, **asked)

    def _settled(self, call: _Call, result: Any) -> Any:
        """Carry out the obligations on the result."""
        try:
            return self._authz.obligations.after(call.due, result)
        except Exception as error:
            what = f"an obligation could not be done: {type(error).__name__}"
            raise denied(what, operation=call.permit.operation) from error

    async def _report(
        self, permit: Permit, result: Literal["ok", "failed", "aborted"], returned: object = None
    ) -> None:
        """Report the result, with the values that the permit asks for."""
        try:
            await self._authz.areport(permit, result, returned=returned)
        except Exception as error:  # noqa: BLE001 - what was done stays done
            _log.warning("the report of decision %s was lost: %s", permit.decision_id, error)


def _arguments(message: Any, given: Mapping[str, Any] | None, operation: str) -> bytes:
    """Arguments of the operation as JSON: also the client's answers to questions of the server."""
    arguments = dict(message.arguments or {}) if given is None else dict(given)
    for name, value in (
        ("inputResponses", getattr(message, "input_responses", None)),
        ("requestState", getattr(message, "request_state", None)),
    ):
        if value is not None:
            if name in arguments:
                raise denied(f"an argument is named `{name}`", operation=operation)
            arguments[name] = value
    try:
        return encoded(arguments)
    except UsageError as error:
        raise denied(str(error), operation=operation, reason_code="BAD_INPUT") from error


def _meta(message: Any) -> Mapping[str, object] | None:
    meta = getattr(message, "meta", None)
    if meta is None:
        return None
    if isinstance(meta, Mapping):
        return meta
    dumped: Mapping[str, object] = meta.model_dump(by_alias=True)
    return dumped


def _result(refused: Refused) -> ToolResult:
    return error_result(refused_result(refused))


def _raise(refused: Refused) -> NoReturn:
    error = refused_error(refused)
    raise MCPError(error["code"], error["message"], error["data"]) from refused
