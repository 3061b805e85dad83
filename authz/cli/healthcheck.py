"""`authz healthcheck`: tell a container's supervisor whether a node is ready."""

import urllib.error
import urllib.request
from typing import Annotated

import typer

from authz.errors import UnavailableError, UsageError
from authz.tools.remote import Remote

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("healthcheck")(healthcheck)


def healthcheck(
    *,
    address: Annotated[
        str,
        typer.Argument(
            help="URL of the readiness endpoint, or a gRPC address (`host:port` or `unix:///path`)."
        ),
    ] = "http://127.0.0.1:8282/readyz",
    service: Annotated[
        str, typer.Option(help="gRPC service to check. Default: the whole node.")
    ] = "",
) -> None:
    """Check that a node is ready, for example in `HEALTHCHECK` of a container. Exit code 1 if not."""
    if address.startswith(("http://", "https://")):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(address, timeout=5) as answer:
                ready = answer.status == 200
        except urllib.error.HTTPError:
            ready = False
        except (OSError, ValueError) as error:
            raise UnavailableError(f"{address} cannot be reached: {error}") from error
    elif "://" in address and not address.startswith("unix://"):
        raise UsageError(f"{address}: give http://, unix:// or host:port")
    else:
        ready = Remote(address).healthy(service)
    if not ready:
        raise UnavailableError(f"{address} is not ready")
