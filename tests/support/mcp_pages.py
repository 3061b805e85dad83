"""An MCP server over stdio that lists its tools on pages, well or badly: `python mcp_pages.py MANNER`."""

import json
import sys
import time


def _tool(name: str) -> dict[str, object]:
    return {"name": name, "description": "", "inputSchema": {"type": "object"}}


def _page(manner: str, cursor: str | None) -> dict[str, object]:
    number = int(cursor or 0)
    if manner == "good":
        page: dict[str, object] = {"tools": [_tool(f"get_{number}")]}
        return {**page, "nextCursor": str(number + 1)} if number < 2 else page
    if manner == "circle":
        return {"tools": [], "nextCursor": "0"}
    if manner == "endless":
        return {"tools": [_tool(f"get_{number}")], "nextCursor": str(number + 1)}
    if manner == "huge":
        big = {**_tool(f"get_{number}"), "description": "x" * 1_000_000}
        return {"tools": [big], "nextCursor": str(number + 1)}
    time.sleep(30)
    return {"tools": []}


def main() -> None:
    """Answer until standard input ends."""
    manner = sys.argv[1]
    if manner == "dies":
        sys.exit("no \x1b[31mtoken\x1b[0m given")
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" not in asked:
            continue
        method = asked["method"]
        answer: dict[str, object] = {"jsonrpc": "2.0", "id": asked["id"]}
        if method == "initialize":
            answer["result"] = {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "pages", "version": "1"},
            }
        elif method == "tools/list":
            answer["result"] = _page(manner, (asked.get("params") or {}).get("cursor"))
        else:
            answer["error"] = {"code": -32601, "message": "no such method"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
