"""A function that runs only where its operation is permitted."""

import functools
import inspect
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast, final

from authz.client.arguments import Arguments, Reading
from authz.client.errors import Denied, denied
from authz.client.flow import Deadline, Flow, arun, run
from authz.client.obligations import Obligation

if TYPE_CHECKING:
    from authz.client.client import Asked, Authz

__all__ = ["Guard"]

Function = TypeVar("Function", bound=Callable[..., Any])


@final
class Guard:
    """Decorates functions.

    Args:
        operation: Id of the operation that the function performs.
        arguments: As of `Authz.guard`.
        resource: The parameter that holds the resource id; empty: none.
        secret: The keyword-only parameter that gets the secret of the system; empty: none.
        client: Gives the client that asks, with each call.
    """

    def __init__(
        self,
        operation: str,
        arguments: Arguments | None,
        resource: str,
        secret: str,
        client: "Callable[[], Authz]",
    ) -> None:
        self._operation = operation
        self._arguments = arguments
        self._resource = resource
        self._secret = secret
        self._client = client

    def decorate(self, function: Function) -> Function:
        """Decorate a function, of either kind.

        Args:
            function: What performs the operation.

        Returns:
            What asks first.

        Raises:
            UsageError: Its parameters are no arguments of an operation.
        """
        reading = Reading(function, self._arguments, self._resource, self._secret)
        wrapped: Callable[..., Any]
        if inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                client = self._client()
                flow = self._admitting(client, reading, args, kwargs, results=False)
                _, given = await arun(flow, client.transport)
                async for item in function(*args, **kwargs, **given):
                    yield item

            wrapped = stream
        elif _is_async(function):

            @functools.wraps(function)
            async def ask(*args: Any, **kwargs: Any) -> Any:
                client = self._client()
                flow = self._admitting(client, reading, args, kwargs, results=True)
                due, given = await arun(flow, client.transport)
                result = await function(*args, **kwargs, **given)
                return self._settled(client, due, result)

            wrapped = ask
        else:
            # What comes of a generator is no result yet.
            results = not inspect.isgeneratorfunction(function)

            @functools.wraps(function)
            def ask_here(*args: Any, **kwargs: Any) -> Any:
                client = self._client()
                flow = self._admitting(client, reading, args, kwargs, results=results)
                due, given = run(flow, client.transport)
                result = function(*args, **kwargs, **given)
                return self._settled(client, due, result)

            wrapped = ask_here
        if self._secret:
            # Whoever calls it neither gives nor sees the secret.
            decorated: Any = wrapped
            decorated.__signature__ = reading.signature
        return cast("Function", wrapped)

    def _admitting(
        self,
        client: "Authz",
        reading: Reading,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        results: bool,
    ) -> Flow[tuple[tuple[Obligation, ...], dict[str, Any]]]:
        """Ask, and do what is due before; returns the obligations, and the secret by its parameter."""
        judged, resource = reading.read(args, kwargs)
        deadline = Deadline.within(client.timeout)
        asked: Asked = {
            "resource": resource,
            "supported_obligations": client.obligations.supported(results=results),
        }
        if self._secret:
            asked["wants_credential"] = True
        permit = yield from client.checking(self._operation, judged, asked)
        # INVARIANT (what is judged is what runs): another thread or task may have changed a list meanwhile.
        if reading.read(args, kwargs) != (judged, resource):
            raise denied("the arguments changed while they were judged", operation=self._operation)
        given = json.loads(judged) if permit.obligations else {}
        due = tuple(
            Obligation(name, self._operation, given, permit.decision_id)
            for name in permit.obligations
        )
        try:
            client.obligations.before(due)
        except Exception as error:
            raise self._undone(error) from error
        if not self._secret:
            return due, {}
        who = client.caller(self._operation, None)
        leased = yield from client.credentials.leasing(permit, deadline, who)
        return due, {self._secret: leased}

    def _settled(self, client: "Authz", due: tuple[Obligation, ...], result: Any) -> Any:
        """Do what is due on the result."""
        try:
            return client.obligations.after(due, result)
        except Exception as error:
            raise self._undone(error) from error

    def _undone(self, error: Exception) -> Denied:
        what = f"an obligation could not be done: {type(error).__name__}"
        return denied(what, operation=self._operation)


def _is_async(function: Callable[..., Any]) -> bool:
    if isinstance(function, functools.partial):
        return _is_async(function.func)
    called = getattr(function, "__call__", None)  # noqa: B004 - looks at the method
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)
