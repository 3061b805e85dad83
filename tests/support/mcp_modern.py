"""An MCP server on the newest SDK, which speaks the stateless revision: `python mcp_modern.py PORT`."""

import sys

from mcp.server.mcpserver import MCPServer

server = MCPServer("sums")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def drop(table: str) -> str:
    """Drop a table."""
    return f"dropped {table}"


if __name__ == "__main__":
    server.run("streamable-http", port=int(sys.argv[1]))
