"""The operation and the arguments that a message of a client asks for: see docs/reference/mcp.md.

The same operations stand for the same messages behind a proxy, so one bundle serves both.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from authz.mcp.messages import Kind, Message, MessageError, quoted, refuse_alike
from authz_client.mcp_answers import tool_operation

__all__ = ["RESPONSE", "Question", "is_tool_call", "question_of"]

RESPONSE: Final = "response"
"""Method that stands for a client's answer to a request of the server."""
_CALLS: Final[dict[str, tuple[str, ...]]] = {
    "tools/call": ("name", "arguments", "task", "inputResponses", "requestState", "_meta"),
    "resources/read": ("uri", "inputResponses", "requestState", "_meta"),
    "prompts/get": ("name", "arguments", "inputResponses", "requestState", "_meta"),
}
_PROTOCOL: Final = frozenset(
    {
        *("initialize", "ping", "server/discover"),
        *("tools/list", "resources/list", "resources/templates/list", "prompts/list"),
        *("subscriptions/listen", "resources/subscribe", "resources/unsubscribe"),
        *("logging/setLevel", "completion/complete"),
        *("tasks/get", "tasks/result", "tasks/cancel", "tasks/list"),
        *("notifications/initialized", "notifications/roots/list_changed"),
        *("notifications/cancelled", "notifications/progress"),
        RESPONSE,
    }
)
_REFERENCES: Final = frozenset(
    {
        "progressToken",
        "dev.authz/task",
        "io.modelcontextprotocol/protocolVersion",
        "io.modelcontextprotocol/logLevel",
    }
)
_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
_FIXED: Final = frozenset(
    {
        *(
            "cancel",
            "context",
            "create",
            "createMessage",
            "elicitation",
            "form",
            "list",
            "listChanged",
        ),
        *(
            "promptsListChanged",
            "requests",
            "resourcesListChanged",
            "roots",
            "sampling",
            "tasks",
            "tools",
        ),
        *("toolsListChanged", "url", "experimental", "extensions"),
    }
)


@dataclass(frozen=True, slots=True)
class Question:
    """What Authz is asked about a message."""

    operation: str
    """Operation id."""
    arguments: bytes
    """One JSON object."""


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
    method = RESPONSE if message.kind is Kind.RESPONSE else message.method
    if method not in _PROTOCOL or method.startswith("notifications/") != (
        message.kind is Kind.NOTIFICATION
    ):
        return None
    arguments = _protocol_arguments(method, message)
    return Question(f"{system}.mcp", json.dumps(arguments).encode())


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
        operation = tool_operation(system, params["name"])
        return Question(operation, _with_answers(message, message.part("params", "arguments")))
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


def _protocol_arguments(method: str, message: Message) -> dict[str, Any]:
    """`method`, `level` and `uri`, and as `params` everything else that the client says in words of its own."""
    arguments: dict[str, Any] = {"method": method}
    params = message.params
    if message.kind is Kind.RESPONSE:
        key = "result" if "result" in message.value else "error"
        params = {} if message.value[key] == {} else {key: message.value[key]}
    rest: dict[str, Any] = {}
    for name, value in params.items():
        if (method, name) == ("logging/setLevel", "level") or (
            name == "uri" and method in {"resources/subscribe", "resources/unsubscribe"}
        ):
            arguments[name] = value
        elif _says_nothing(method, name, value):
            continue
        elif name == "_meta":
            own = {key: item for key, item in value.items() if not _is_reference(key, item)}
            rest |= {"_meta": own} if own else {}
        else:
            rest[name] = value
    return {**arguments, "params": rest} if rest else arguments


def _says_nothing(method: str, name: str, value: object) -> bool:
    """Whether a parameter only refers to another message, or comes of a fixed list."""
    return (method, name) == ("notifications/cancelled", "requestId") or (
        (method, name) == ("subscriptions/listen", "notifications") and _is_fixed(value)
    )


def _is_reference(name: str, value: object) -> bool:
    return name in _REFERENCES or (name == _CAPABILITIES and _is_fixed(value))


def _is_fixed(value: object) -> bool:
    if isinstance(value, dict):
        return all(name in _FIXED and _is_fixed(item) for name, item in value.items())
    return isinstance(value, bool)
