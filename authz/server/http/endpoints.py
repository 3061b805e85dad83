"""Endpoints: URL paths of an HTTP listener, each with its handler."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["Endpoint", "application"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path and its handler."""

    path: str
    """Absolute path."""
    handle: Callable[[Request], Awaitable[Response]]
    """Answers a request."""
    method: str = "GET"
    """HTTP method; GET has HEAD, too."""


def application(endpoints: Iterable[Endpoint]) -> Starlette:
    """Return the ASGI application of a listener."""
    return Starlette(
        routes=[
            Route(endpoint.path, endpoint.handle, methods=[endpoint.method])
            for endpoint in endpoints
        ]
    )
