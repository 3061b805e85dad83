"""An agent on the official MCP SDK, of either major version, that shows a task credential with each request.

Run by the interpreter whose SDK is meant: `python mcp_credential.py FOLDER… < plan.json`, where the folders hold `authz_client` and its
dependencies. A plan is `{hidden, node, issuer, svid, task, operation, arguments, bound, header, url, calls: [[tool, arguments],
…], fetch: [URL, …], revoke}`. The answer is `{library, calls: [{is_error, text}], fetched: [status, …]}`, or `{failed}`.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from importlib import import_module
from importlib.metadata import version
from typing import Any

sys.path.extend(sys.argv[1:])


async def _run(plan: dict[str, Any]) -> dict[str, Any]:
    # The HTTP library of the other SDK is not installed where only one SDK is.
    sys.modules[plan["hidden"]] = None  # type: ignore[assignment]
    from mcp import ClientSession  # noqa: PLC0415
    from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415

    from authz_client import Authz  # noqa: PLC0415

    issuer = plan["issuer"]
    async with AsyncExitStack() as stack:
        authz = await stack.enter_async_context(
            Authz(plan["node"], credentials=plan["svid"], credential_issuer=issuer, timeout=20)
        )
        credential: Any = await authz.credentials.aissue(
            plan["operation"], plan["arguments"], task=plan["task"], bound=plan["bound"]
        )
        name = "httpx" if version("mcp").startswith("1.") else "httpx2"
        library: Any = import_module(name)
        integration: Any = import_module(f"authz_client.integrations.{name}")
        auth = integration.credential_auth(credential, header=plan["header"])
        http = await stack.enter_async_context(library.AsyncClient(auth=auth, timeout=60))
        transport = streamable_http_client(plan["url"], http_client=http)
        streams = await stack.enter_async_context(transport)
        session = await stack.enter_async_context(ClientSession(streams[0], streams[1]))
        await session.initialize()
        await session.list_tools()
        calls = [await _call(session, *call) for call in plan["calls"]]
        fetched = [
            (await http.get(url, follow_redirects=True)).status_code for url in plan["fetch"]
        ]
        if plan["revoke"]:
            await authz.credentials.arevoke(credential)
            calls += [await _call(session, *call) for call in plan["calls"]]
        library = type(http).__module__.partition(".")[0]
        return {"library": library, "calls": calls, "fetched": fetched}


async def _call(session: Any, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    result = (await session.call_tool(tool, arguments)).model_dump(mode="json", by_alias=True)
    text = " ".join(part.get("text") or "" for part in result["content"])
    return {"is_error": bool(result.get("isError")), "text": text}


def main() -> None:
    """Does what standard input says."""
    try:
        done = asyncio.run(asyncio.wait_for(_run(json.load(sys.stdin)), 45))
    except BaseException as error:  # noqa: BLE001 - groups of groups
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        done = {"failed": f"{type(error).__name__}: {error}"}
    json.dump(done, sys.stdout)


if __name__ == "__main__":
    main()
