"""Tool calls of LangGraph and LangChain agents that wait for a person, by LangGraph's `interrupt`.

    from langchain.agents import create_agent
    from langchain.agents.middleware import wrap_tool_call
    from authz_client.integrations.langgraph import hold_tool_call, wait_for_answer

    @tool
    @authz.guard("mail.send")
    def send(to: str, body: str) -> str: ...

    agent = create_agent(model, [send], middleware=[wrap_tool_call(hold_tool_call)], checkpointer=saver)

    result = agent.invoke(messages, config)
    while held := result.get("__interrupt__"):
        for one in held:
            wait_for_answer(authz, one.value)
        result = agent.invoke(Command(resume={one.id: True for one in held}), config)

In your own graph, use `ToolNode(tools, wrap_tool_call=hold_tool_call)`. LangGraph runs an interrupted node again from its start, so send such a
node one call at a time with `Send`, as `create_agent` does. Otherwise, other tools of the same node run twice.

The graph can be resumed at any time, also in another process. The guard then checks the call again, and the tool runs if Authz permits it.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.messages import ToolMessage
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import interrupt

from authz_client.errors import Refused, StepUp
from authz_client.integrations._held import (
    await_answer,
    held_call,
    refusal_text,
    wait_for_answer,
)

__all__ = ["ahold_tool_call", "await_answer", "hold_tool_call", "wait_for_answer"]


def hold_tool_call(request: ToolCallRequest, execute: Callable[[ToolCallRequest], Any]) -> Any:
    """Run a tool. Interrupt the graph if a person must approve the call, and answer the model if the call is refused.

    Args:
        request: The call.
        execute: Runs the tool, whose function is guarded.

    Returns:
        The message of the tool, or a message with the status `error` if the call is refused.
    """
    while True:
        try:
            return execute(request)
        except StepUp as step_up:
            if not step_up.approval_id:
                return _refused(request, step_up)
            # Returns at once if the graph is resumed. Then the guard checks the call again.
            interrupt(held_call(step_up))
        except Refused as refused:
            return _refused(request, refused)


async def ahold_tool_call(
    request: ToolCallRequest, execute: Callable[[ToolCallRequest], Awaitable[Any]]
) -> Any:
    """Hold a call like `hold_tool_call`, for tools that are coroutines.

    Args:
        request: The call.
        execute: Runs the tool, whose function is guarded.

    Returns:
        The message of the tool, or a message with the status `error` if the call is refused.
    """
    while True:
        try:
            return await execute(request)
        except StepUp as step_up:
            if not step_up.approval_id:
                return _refused(request, step_up)
            interrupt(held_call(step_up))
        except Refused as refused:
            return _refused(request, refused)


def _refused(request: ToolCallRequest, refused: Refused) -> ToolMessage:
    return ToolMessage(
        content=refusal_text(refused),
        name=request.tool_call["name"],
        tool_call_id=request.tool_call["id"] or "",
        status="error",
    )
