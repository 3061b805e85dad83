"""Errors of the server, and the repetition of work that another transaction disturbed."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

__all__ = ["PAUSE", "repeat", "server_errors"]

_T = TypeVar("_T")

PAUSE: Final = 0.01
"""Seconds between two looks at the server."""
_TRIES: Final = 20


def server_errors() -> tuple[type[Exception], ...]:
    """Return the errors of a connection and of its server."""
    from asyncpg import InterfaceError, PostgresError  # noqa: PLC0415 - an extra

    return PostgresError, InterfaceError, OSError


async def repeat(work: Callable[[], Awaitable[_T]]) -> _T:
    """Do work again if another transaction changed the same row of a catalog: PostgreSQL does not wait its turn there."""
    from asyncpg.exceptions import (  # noqa: PLC0415 - an extra
        DeadlockDetectedError,
        DependentObjectsStillExistError,
        InternalServerError,
        SerializationError,
    )

    # The last is of a lease that grants something of its own to a role which is being dropped.
    errors = (
        DeadlockDetectedError,
        InternalServerError,
        SerializationError,
        DependentObjectsStillExistError,
    )
    for _ in range(_TRIES - 1):
        try:
            return await work()
        except errors:
            await asyncio.sleep(PAUSE * (1 + secrets.randbelow(4)))
    return await work()
