"""Starlette, whose handlers read a form as a form and everything else as JSON.

Answers every request with what Starlette understood of it. The environment says the routes: pairs of method and template.
"""

import json
import os
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


async def _body(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").startswith(_FORMS):
        return {"form": dict(await request.form())}
    try:
        return {"json": await request.json()}
    except ValueError:
        return {}


def _answer(template: str) -> Any:
    async def view(request: Request) -> JSONResponse:
        query = request.query_params
        return JSONResponse(
            {
                "method": request.method,
                "host": request.url.hostname,
                "template": template,
                "path": request.url.path,
                "sources": {
                    "path": request.path_params,
                    "query": dict(query),
                    **await _body(request),
                },
                "lists": {name: query.getlist(name) for name in query},
                "headers": list(request.headers.items()),
            }
        )

    return view


app = Starlette(
    routes=[
        Route(template, _answer(template), methods=[method], name=f"{method} {template}")
        for method, template in json.loads(os.environ["ROUTES"])
    ]
)
