"""Services: the parts of a node that run from its start to its end, as a list."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from authz.telemetry import Logger

__all__ = ["Service", "close_all", "drain_all", "start_all"]


def _nothing(*_: Any) -> None:
    """Do nothing: most services lack one of the steps."""


@dataclass(frozen=True, slots=True)
class Service:
    """A part of a node that runs. Steps that it does not need do nothing."""

    name: str
    """Name, for the log."""
    start: Callable[[], object] = _nothing
    """Starts the work; raises `AuthzError` where the node cannot serve."""
    drain: Callable[[float], object] = _nothing
    """Refuses new work and returns at once. Work in flight may take so many seconds."""
    close: Callable[[], object] = _nothing
    """Waits for work in flight and frees resources; also for a service that was never started."""


def start_all(services: Sequence[Service]) -> None:
    """Start services, in the order of the list."""
    for service in services:
        service.start()


def drain_all(services: Sequence[Service], grace: float, log: Logger) -> None:
    """Let all services refuse new work, the last one first."""
    for service in reversed(services):
        _do(service, "drain", partial(service.drain, grace), log)


def close_all(services: Sequence[Service], log: Logger) -> None:
    """Close services, the last one first."""
    for service in reversed(services):
        _do(service, "close", service.close, log)


def _do(service: Service, step: str, work: Callable[[], object], log: Logger) -> None:
    """Run a step. A service that fails must not keep the others from closing."""
    try:
        work()
    except Exception as error:
        log.exception(
            "a service failed to stop", service=service.name, step=step, error=repr(error)
        )
