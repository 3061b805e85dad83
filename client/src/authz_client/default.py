"""`guard` and `task` of the client of the whole process, which may be set after functions were decorated."""

from collections.abc import Callable
from typing import Any, TypeVar, Unpack, overload

from authz_client.arguments import Arguments
from authz_client.client import Authz
from authz_client.errors import Unavailable
from authz_client.guard import Guard
from authz_client.tasks import TaskBlock, TaskOptions

__all__ = ["guard", "task", "use", "used"]

Function = TypeVar("Function", bound=Callable[..., Any])
Result = TypeVar("Result")

_used: Authz | None = None


def use(client: Authz | None) -> None:
    """Set the client of `guard` and `task`.

    Args:
        client: The client. With None every guarded function refuses to run.
    """
    global _used  # noqa: PLW0603 - one a process is the point
    _used = client


def used() -> Authz | None:
    """Tell the client of `guard` and `task`.

    Returns:
        The client. `None` if no client is set.
    """
    return _used


def _client() -> Authz:
    if _used is None:
        raise Unavailable.of("no client is set: call `authz_client.use(Authz(…))`")
    return _used


@overload
def guard(
    operation: str,
    *,
    arguments: Arguments | None = None,
    resource: str = "",
    idempotency_key: str = "",
    wait_for_approval: float = 0.0,
) -> Callable[[Function], Function]: ...


@overload
def guard(
    operation: str,
    *,
    arguments: Arguments | None = None,
    resource: str = "",
    idempotency_key: str = "",
    secret: str,
    report: str = "",
    wait_for_approval: float = 0.0,
) -> Callable[[Callable[..., Result]], Callable[..., Result]]: ...


@overload
def guard(
    operation: str,
    *,
    arguments: Arguments | None = None,
    resource: str = "",
    idempotency_key: str = "",
    report: str,
    wait_for_approval: float = 0.0,
) -> Callable[[Callable[..., Result]], Callable[..., Result]]: ...


def guard(
    operation: str,
    *,
    arguments: Arguments | None = None,
    resource: str = "",
    idempotency_key: str = "",
    secret: str = "",
    report: str = "",
    wait_for_approval: float = 0.0,
) -> Callable[[Any], Any]:
    """As `Authz.guard`, of the client that `use` sets.

    Args:
        operation: Its id, `<system>.<name>`.
        arguments: As of `Authz.guard`.
        resource: The parameter that holds the resource id.
        idempotency_key: The parameter that holds the key of an enforcer that executes at most once a key.
        secret: The keyword-only parameter that gets the secret of a system that knows no tokens.
        report: The keyword-only parameter that gets the `Report`.
        wait_for_approval: Seconds to wait where a person must answer. Default: raise `StepUp` at once.

    Returns:
        The decorator.
    """
    return Guard(
        operation,
        arguments,
        resource,
        idempotency_key=idempotency_key,
        secret=secret,
        report=report,
        wait_for_approval=wait_for_approval,
        client=lambda: _client().parts,
    ).decorate


def task(template: str, **options: Unpack[TaskOptions]) -> TaskBlock:
    """As `Authz.task`, of the client that `use` sets.

    Args:
        template: The template in the bundle.
        options: Further options of the start.

    Returns:
        The block.
    """
    return _client().task(template, **options)
