"""The operation and the arguments that a message of a client asks for: see docs/reference/mcp.md.

The same operations stand for the same messages behind a proxy, so one bundle serves both.
"""

import json
from dataclasses import dataclass
from typing import Final

from authz.engine import mcp_arguments
from authz.mcp.messages import Kind, Message, MessageError, quoted, refuse_alike
from authz_client.mcp_answers import tool_operation

__all__ = ["Question", "is_tool_call", "question_of"]

_CALLS: Final[dict[str, tuple[str, ...]]] = {
    "tools/call": ("name", "arguments", "task", "inputResponses", "requestState", "_meta"),
    "resources/read": ("uri", "inputResponses", "requestState", "_meta"),
    "prompts/get": ("name", "arguments", "inputResponses", "requestState", "_meta"),
}


@dataclass(frozen=True, slots=True)
class Question:
    """What Authz is asked about a message."""

    operation: str
    """Operation id."""
    arguments: bytes
    """One JSON object."""
    tool: str = ""
    """Exact name of the tool; empty for a message that calls no tool."""


def is_tool_call(message: Message) -> bool:
    """Tell whether a message calls a tool."""
    return message.kind is Kind.REQUEST and message.method == "tools/call"


def question_of(system: str, message: Message) -> Question | None:
    """Give the question about a message.

    Args:
        system: System of the server in the catalog.
        message: A message of the client.

    Returns:
        The question; None for a method that MCP does not have.

    Raises:
        MessageError: A parameter is missing, unknown or of a wrong form.
    """
    if message.method in _CALLS and message.kind is Kind.REQUEST:
        return _call(system, message)
    arguments = _protocol_arguments(message)
    return Question(f"{system}.mcp", arguments) if arguments is not None else None


def _call(system: str, message: Message) -> Question:
    known = _CALLS[message.method]
    params = message.params
    refuse_alike(params, known)
    if unknown := [name for name in params if name not in known]:
        raise MessageError(-32602, f"`params` has an unknown member `{quoted(unknown[0], 40)}`")
    if "task" in params and not isinstance(params["task"], dict):
        raise MessageError(-32602, "`task` is not an object")
    label = "uri" if message.method == "resources/read" else "name"
    if not isinstance(params.get(label), str):
        raise MessageError(-32602, f"`{label}` is missing, or is not a string")
    if not isinstance(params.get("arguments", {}), dict):
        raise MessageError(-32602, "`arguments` is not an object")
    if message.method == "tools/call":
        tool = _tool_name(params["name"])
        arguments = _with_answers(message, message.part("params", "arguments"))
        return Question(tool_operation(system, tool), arguments, tool)
    if message.method == "resources/read":
        return Question(f"{system}.resources.read", _with_answers(message, _object(message, "uri")))
    return Question(
        f"{system}.prompts.get", _with_answers(message, _object(message, "name", "arguments"))
    )


def _object(message: Message, *names: str) -> str:
    parts = [(name, message.part("params", name)) for name in names]
    return "{" + ",".join(f"{json.dumps(name)}:{part}" for name, part in parts if part) + "}"


def _with_answers(message: Message, arguments: str | None) -> bytes:
    """Add the client's answers to the server, which are arguments of the operation; the numbers stay as they came."""
    arguments = arguments or "{}"
    added = [
        f"{json.dumps(name)}:{part}"
        for name in ("inputResponses", "requestState")
        if (part := message.part("params", name)) is not None
    ]
    if not added:
        return arguments.encode()
    inner = arguments.strip()[1:-1].strip()
    # A tool with an argument of that name makes a duplicate member, which Authz refuses.
    return ("{" + ",".join([inner, *added] if inner else added) + "}").encode()


def _tool_name(name: str) -> str:
    """Refuse a name that is not Unicode text: a question to Authz cannot hold half of a character."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise MessageError(-32602, "`name` has half of a character") from None
    return name


def _protocol_arguments(message: Message) -> bytes | None:
    """Arguments that stand for a message of the protocol; None for a method that MCP does not have."""
    is_response = message.kind is Kind.RESPONSE
    if is_response:
        name = "result" if "result" in message.value else "error"
        params = f'{{"{name}":{message.part(name)}}}'
    else:
        params = message.part("params") or "{}"
    try:
        return mcp_arguments(
            None if is_response else message.method,
            params.encode(),
            is_notification=message.kind is Kind.NOTIFICATION,
        )
    except ValueError as error:
        raise MessageError(-32602, f"the parameters cannot be read: {error}") from error
