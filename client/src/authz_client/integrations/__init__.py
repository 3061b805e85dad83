"""Code for other libraries: one module each, with that library's name.

    httpx, httpx2    credentials and tasks on HTTP requests
    grpc             credentials and tasks on gRPC calls; a server whose methods are guarded
    mcp              tasks on requests of MCP client sessions
    fastmcp          middleware that guards each tool of a FastMCP server

A module imports the library of its name, which the extra of that name installs: `pip install authz-client[httpx]`. Modules of
this package import the rest of the client; nothing of the client imports them.
"""
