"""A small MCP server on stdio, without an SDK: `python mcp_small.py LOG`. It appends each line that it gets to a file.

Tools: `read` answers, `big` answers with many bytes, `exit` ends the process with status 7 before it answers, `slow` never answers,
`ask` asks the client for a sample first, `make` answers with the id `n-1` and `change` takes an id. It says on standard error that it started, and ends when its input ends.
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
            result = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": server}
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
        else:
            _say(id=request_id, result={})
    with log.open("a") as stream:
        stream.write("end\n")


if __name__ == "__main__":
    main()
