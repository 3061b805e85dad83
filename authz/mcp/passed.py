"""What comes of a message: texts for the two ends of a session."""

import json
from dataclasses import dataclass
from typing import Any

__all__ = ["Passed", "error_text", "request_text", "response_text"]


@dataclass(frozen=True, slots=True)
class Passed:
    """What comes of a message: texts for the two ends, each None if that end gets nothing."""

    to_server: str | None = None
    to_client: str | None = None


def response_text(id_text: str, **outcome: dict[str, Any]) -> str:
    """Write a response.

    Args:
        id_text: The request's id as it came.
        outcome: `result` or `error`.
    """
    # In ASCII: a text may quote half of a character, which JSON can write and UTF-8 cannot.
    body = json.dumps(outcome, separators=(",", ":"), allow_nan=False)
    return f'{{"jsonrpc":"2.0","id":{id_text},{body[1:]}'


def error_text(id_text: str, code: int, message: str) -> str:
    """Write an error response.

    Args:
        id_text: The request's id as it came.
        code: Code of JSON-RPC.
        message: Text.
    """
    return response_text(id_text, error={"code": code, "message": message})


def request_text(method: str, params: dict[str, Any], request_id: str = "") -> str:
    """Write a request to the client, or a notification.

    Args:
        method: The method.
        params: Its parameters.
        request_id: Id of a request; empty for a notification.
    """
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    if request_id:
        message["id"] = request_id
    return json.dumps(message, separators=(",", ":"))
