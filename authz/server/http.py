"""Metrics and health over HTTP."""

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from authz.server.readiness import Readiness
from authz.telemetry.metrics import CONTENT_TYPE

__all__ = ["application"]


def application(render: Callable[[], bytes], readiness: Readiness) -> Starlette:
    """Make the routes.

    Args:
        render: Gives the metrics text.
        readiness: Tells how the node stands.

    Returns:
        The ASGI application.
    """

    def metrics(_request: Request) -> Response:
        return Response(render(), media_type=None, headers={"content-type": CONTENT_TYPE})

    def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    def readyz(_request: Request) -> Response:
        report = readiness.report()
        return JSONResponse(report.detail, status_code=200 if report.ready else 503)

    return Starlette(
        routes=[
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ]
    )
