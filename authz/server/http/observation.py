"""Endpoints of the metrics listener: metrics, liveness and readiness."""

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from authz.server.http.endpoints import Endpoint
from authz.server.status.readiness import Readiness
from authz.telemetry.metrics import CONTENT_TYPE

__all__ = ["endpoints"]

_SCRAPES: Final = 4


def endpoints(render: Callable[[], bytes], readiness: Readiness) -> tuple[Endpoint, ...]:
    """Return the endpoints.

    Args:
        render: Returns the metrics in text form.
        readiness: Reports the status of the node.
    """
    scrapes = asyncio.Semaphore(_SCRAPES)

    async def metrics(_request: Request) -> Response:
        # Many scrapes at once must not keep `/readyz` waiting.
        if scrapes.locked():
            return PlainTextResponse("too many scrapes at once\n", status_code=429)
        async with scrapes:
            text = await run_in_threadpool(render)
        return Response(text, media_type=None, headers={"content-type": CONTENT_TYPE})

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        report = readiness.report()
        return JSONResponse(report.detail, status_code=200 if report.ready else 503)

    return (
        Endpoint("/metrics", metrics),
        Endpoint("/healthz", healthz),
        Endpoint("/readyz", readyz),
    )
