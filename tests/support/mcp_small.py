"""A small MCP server on stdio, without an SDK: `python mcp_small.py LOG`. It appends each line that it gets to a file.

Tools: `read` answers, `big` answers with many bytes, `exit` ends the process with status 7 before it answers, `slow` never answers,
`ask` asks the client for a sample first, `make` answers with the id `n-1` and `change` takes an id. It has the resources `small://card`,
`small://note` and `small://photo`. It says on standard error that it started, and ends when its input ends.
"""

import json
import sys
from pathlib import Path
from typing import Any


def _say(**members: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **members}) + "\n")
    sys.stdout.flush()


def _call(request_id: object, name: str) -> None:
    if name == "exit":
        sys.exit(7)
    if name == "slow":
        return
    if name == "ask":
        _say(id="s1", method="sampling/createMessage", params={"messages": []})
    text = "x" * 3_000_000 if name == "big" else name
    is_error = name == "fail"
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": is_error}
    if name == "make":
        result["structuredContent"] = {"note": {"id": "n-1"}}
    _say(id=request_id, result=result)


_CARD = {"holder": "Ann Lee", "number": "4111 1111 1111 1111", "limit": 500}
_RESOURCES: dict[str, dict[str, str]] = {
    "small://card": {"mimeType": "application/json", "text": json.dumps(_CARD)},
    "small://note": {"mimeType": "text/plain", "text": "Ann Lee has a card."},
    "small://photo": {"mimeType": "image/png", "blob": "QW5uIExlZQ=="},
}


def _read(request_id: object, uri: str) -> None:
    if uri in _RESOURCES:
        _say(id=request_id, result={"contents": [{"uri": uri, **_RESOURCES[uri]}]})
    else:
        _say(id=request_id, error={"code": -32002, "message": "no card of Ann Lee"})


def main() -> None:
    """Answer until the input ends."""
    log = Path(sys.argv[1])
    sys.stderr.write("small server started\n")
    sys.stderr.flush()
    sys.stdout.write("a line that is no message\n")
    names = ["read", "big", "exit", "slow", "ask", "fail", "secret", "make", "change"]
    for line in sys.stdin:
        with log.open("a") as stream:
            stream.write(line)
        message = json.loads(line)
        request_id, method = message.get("id"), message.get("method")
        if request_id is None or method is None:
            continue
        if method == "initialize":
            server = {"name": "small", "version": "1"}
            can: dict[str, Any] = {"tools": {}, "resources": {}}
            result = {"protocolVersion": "2025-06-18", "capabilities": can, "serverInfo": server}
            _say(id=request_id, result=result)
        elif method == "tools/list":
            properties = {"n": {"type": "number"}, "id": {"type": "string"}}
            schema = {"type": "object", "properties": properties}
            _say(
                id=request_id,
                result={"tools": [{"name": name, "inputSchema": schema} for name in names]},
            )
        elif method == "tools/call":
            _call(request_id, message["params"]["name"])
        elif method == "resources/read":
            _read(request_id, message["params"]["uri"])
        else:
            _say(id=request_id, result={})
    with log.open("a") as stream:
        stream.write("end\n")


if __name__ == "__main__":
    main()
