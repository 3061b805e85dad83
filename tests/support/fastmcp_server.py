"""A FastMCP server: `python fastmcp_server.py bare [OUTPUT]` on stdio and unguarded, or `… PORT AUTHZ [WAIT]` over HTTP and guarded.

Run by an interpreter that has FastMCP. It prints the tools that ran, or writes them into the file `OUTPUT`.
"""

import sys
from pathlib import Path

from fastmcp import FastMCP

from authz_client import Authz, guard
from authz_client.base_errors import UsageError
from authz_client.integrations.fastmcp import AuthzMiddleware

_OUTPUT: list[Path] = []


def _say(text: str) -> None:
    for path in _OUTPUT:
        with path.open("a") as stream:
            stream.write(text + "\n")
        return
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def read(page: str, most: int | None = None) -> str:
    """Read a page."""
    _say(f"ran read {page} {most}")
    return f"page {page}"


def delete(page: str) -> str:
    """Delete a page."""
    _say(f"ran delete {page}")
    return "deleted"


def broken(page: str) -> str:
    """Read a page, and fail."""
    raise ValueError(page)


def create(title: str) -> dict[str, str]:
    """Create a page, and return it."""
    _say(f"ran create {title}")
    return {"page": "p-7", "title": title}


def see_also(page: str) -> str:
    """Read the pages that a page refers to."""
    _say(f"ran see_also {page}")
    return f"more than {page}"


def alike(page: str) -> str:
    """Is not in the catalog, under a name that gives the same operation as `see_also`."""
    _say(f"ran alike {page}")
    return page


def later(page: str) -> str:
    """Is not in the catalog."""
    _say(f"ran later {page}")
    return page


def page(page: str) -> str:
    """Give a page as a resource."""
    _say(f"ran page {page}")
    return f"page {page}"


def _server(authz: str, wait: float = 50) -> FastMCP:
    made = FastMCP("crm")
    if authz:
        client = Authz(authz, enforcer=True, timeout=5)
        made.add_middleware(AuthzMiddleware(client, "crm", wait=wait))

    for tool in (read, delete, create, broken, see_also):
        made.tool(tool)
    for tool, name in ((later, "later"), (alike, "see also")) if authz else ():
        made.tool(tool, name=name)
    made.resource("crm://page/{page}")(page)
    return made


def _wrong_order() -> str:
    def read(page: str) -> str:
        return page

    try:
        guard("crm.read")(FastMCP("wrong").tool(read))
    except UsageError as error:
        return str(error)
    return "not told"


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        _OUTPUT.extend(Path(path) for path in sys.argv[2:])
        _server("").run(transport="stdio", show_banner=False)
    elif sys.argv[1] == "wrong-order":
        _say(_wrong_order())
    else:
        _server(sys.argv[2], *map(float, sys.argv[3:])).run(
            transport="http", port=int(sys.argv[1]), show_banner=False, log_level="error"
        )
