"""Answers of MCP to a refused request, and the operation that a tool is.

The forms are those that a server gives behind a proxy: a tool call gets a result that the model reads, any other request a JSON-RPC
error, and both keep the client's session.
"""

import re
from typing import Any, Final

from authz_client.approval_texts import instructions
from authz_client.errors import NextAction, PublicCode, Refused, StepUp, public_text_of

__all__ = [
    "DECISION_META",
    "declined_result",
    "public_members",
    "refused_error",
    "refused_result",
    "tool_operation",
]

DECISION_META: Final = "dev.authz/decision"
"""Member of `_meta` of a result, or of `data` of an error, that holds what an agent may see of the decision."""
_BUILT_IN: Final = frozenset({"mcp", "resources.read", "prompts.get"})
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9._\-/]")
_METHOD_NOT_FOUND: Final = -32601
_INVALID_PARAMS: Final = -32602
_REFUSED: Final = -32003


def tool_operation(system: str, tool: str) -> str:
    """Give the operation of a tool, as `authz catalog import-mcp` names it.

    Several names can give one operation, so a question about a call also names the tool (`CheckOptions.tool`).

    Args:
        system: System of the MCP server in the catalog.
        tool: Name of the tool.

    Returns:
        `<system>.<name>`: characters that an operation cannot have are `_`.
    """
    if tool in _BUILT_IN:
        return f"{system}.tool.{tool}"
    name = _NOT_IN_A_NAME.sub("_", tool)
    return f"{system}._{name}" if name.startswith((".", "-", "/")) else f"{system}.{name}"


def refused_result(refused: Refused, *, typed: bool = False) -> dict[str, Any]:
    """Give the result of a tool call that may not run.

    Args:
        refused: The refusal.
        typed: Whether the revision of MCP is 2026-07-28, whose results have a `resultType`.

    Returns:
        A `CallToolResult` with `isError`, whose texts the model reads.
    """
    texts = [public_text_of(refused)]
    if isinstance(refused, StepUp) and (text := instructions(refused)):
        texts.append(text)
    if refused.shown_reason:
        texts.append(refused.shown_reason)
    return _error_result(texts, refused, typed=typed)


def declined_result(refused: Refused, text: str, *, typed: bool = False) -> dict[str, Any]:
    """Give the result of a tool call whose user did not open the page of its request.

    Args:
        refused: The refusal.
        text: Text for the model.
        typed: As of `refused_result`.

    Returns:
        A `CallToolResult` with `isError`.
    """
    return _error_result([text], refused, typed=typed)


def _error_result(texts: list[str], refused: Refused, *, typed: bool) -> dict[str, Any]:
    result: dict[str, Any] = {
        "_meta": {DECISION_META: public_members(refused)},
        "content": [{"type": "text", "text": text} for text in texts],
        "isError": True,
    }
    if typed:
        result["resultType"] = "complete"
    return result


def refused_error(refused: Refused) -> dict[str, Any]:
    """Give the JSON-RPC error of any other request that may not run.

    Args:
        refused: The refusal.

    Returns:
        `code`, `message` and `data`.
    """
    code = _REFUSED
    if refused.public_code is PublicCode.INVALID:
        is_unknown = refused.next_action is NextAction.CONTACT_OWNER
        code = _METHOD_NOT_FOUND if is_unknown else _INVALID_PARAMS
    data: dict[str, Any] = {DECISION_META: public_members(refused)}
    if isinstance(refused, StepUp) and (text := instructions(refused)):
        data["instructions"] = text
    if refused.shown_reason:
        data["reason"] = refused.shown_reason
    return {"code": code, "message": public_text_of(refused), "data": data}


def public_members(refused: Refused) -> dict[str, Any]:
    """Give the part of a refusal that an agent may see, as the member `dev.authz/decision` holds it.

    Args:
        refused: The refusal.
    """
    members: dict[str, Any] = {
        "decision_id": refused.decision_id,
        "public_code": refused.public_code.value,
        "next_action": refused.next_action.value,
        "retry": refused.retry.value,
    }
    if isinstance(refused, StepUp) and refused.approval_id:
        approval = members["approval"] = {"id": refused.approval_id}
        if refused.expires_at is not None:
            end = refused.expires_at.isoformat(timespec="milliseconds")
            approval["expires_at"] = end.replace("+00:00", "Z")
        if refused.url:
            approval["url"] = refused.url
    return members
