"""Server interceptors of gRPC: a method runs only where its operation is permitted to its caller."""

import inspect
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
from google.protobuf.json_format import MessageToDict

from authz_client.base_errors import UsageError
from authz_client.client import Authz
from authz_client.context import Caller, caller, set_caller
from authz_client.errors import PublicCode, Refused, denied

__all__ = ["GuardedMethod", "aio_server_interceptor", "server_interceptor"]

_log: Final = logging.getLogger("authz_client")
_METHOD: Final = re.compile(r"/[\w.]+/\w+")
_HTTP_METHOD: Final = "POST"  # of every gRPC call
_MOST_WARNINGS: Final = 1000
_CODES: Final = {
    PublicCode.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    PublicCode.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    PublicCode.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class GuardedMethod:
    """Operation that a method performs."""

    operation: str
    """Operation id."""
    arguments: Callable[[Any], Mapping[str, Any]] | None = None
    """Makes the operation's arguments of the request message. Default: the message as JSON, with the names of the .proto file
    and with fields that are not set; 64-bit integers are strings, as in all JSON of protobuf."""


Methods: TypeAlias = Mapping[str, str | GuardedMethod | None]


def server_interceptor(
    authz: Authz, methods: Methods, *, origin: str = ""
) -> grpc.ServerInterceptor:
    """Make an interceptor of a `grpc.Server` that runs a method only where its operation is permitted to the caller.

    The caller is read from the metadata of the call, as by `Caller.from_headers`. Obligations and reports are those of
    `Authz.guard`; within the method `authz` asks about the same caller. A call that is not permitted ends with the status
    PERMISSION_DENIED, UNAUTHENTICATED, INVALID_ARGUMENT or UNAVAILABLE and a text that an agent may see.

    Args:
        authz: Client with `enforcer=True`.
        methods: Operation of each method, such as `{"/crm.Customers/Get": "crm.get"}`. None leaves a method open, for
            example `{"/grpc.health.v1.Health/Check": None}`. A method that is not listed is refused, and so is a listed one
            that takes a stream of requests: guard the function that it calls for each.
        origin: The server as its callers name it, such as `https://crm.example`, if they send DPoP proofs. Default: none is
            accepted.

    Returns:
        `grpc.server(executor, interceptors=[server_interceptor(…)])`.

    Raises:
        UsageError: `authz` is not an enforcer, or an entry of `methods` is not valid.
    """
    return _Interceptor(_Guards(authz, methods, origin))


def aio_server_interceptor(
    authz: Authz, methods: Methods, *, origin: str = ""
) -> grpc.aio.ServerInterceptor:
    """As `server_interceptor`, for a `grpc.aio.Server`, whose methods may be coroutines or functions.

    Args:
        authz: Client with `enforcer=True`.
        methods: Operation of each method. None leaves a method open. A method that is not listed is refused.
        origin: The server as its callers name it, if they send DPoP proofs. Default: none is accepted.

    Returns:
        `grpc.aio.server(interceptors=[aio_server_interceptor(…)])`.

    Raises:
        UsageError: `authz` is not an enforcer, or an entry of `methods` is not valid.
    """
    return _AioInterceptor(_Guards(authz, methods, origin))


@dataclass(frozen=True, slots=True)
class _Guarded:
    """The four kinds of functions that can stand behind a method, each guarded."""

    unary: Callable[..., Any]
    rows: Callable[..., Iterator[Any]]
    aunary: Callable[..., Any]
    arows: Callable[..., AsyncIterator[Any]]


class _Guards:
    """The guards of a server's methods."""

    def __init__(self, authz: Authz, methods: Methods, origin: str) -> None:
        if not authz.parts.session.enforcer:
            raise UsageError(
                "a server asks about its callers: give a client that was made with Authz(…, enforcer=True)"
            )
        self._origin = origin.removesuffix("/")
        self._guarded = {
            name: None if method is None else _guarded(authz, _checked(name, method))
            for name, method in methods.items()
        }
        for name in methods:
            if not _METHOD.fullmatch(name):
                raise UsageError(
                    f"not the name of a method: {name!r}; write /package.Service/Method"
                )
        self._warned: set[str] = set()

    def handler(self, details: Any, handler: Any, *, is_async: bool) -> Any:
        """The handler that runs instead of a method's own."""
        if handler is None:
            return None  # The server has no such method, and says so.
        name = details.method
        if name not in self._guarded:
            self._warn(name, "names no operation for it")
            return _refusing(handler, is_async=is_async)
        guarded = self._guarded[name]
        if guarded is None:
            return handler
        if handler.request_streaming:
            self._warn(name, "cannot judge a stream of requests")
            return _refusing(handler, is_async=is_async)
        url = f"{self._origin}{name}" if self._origin else ""
        who = Caller.from_headers(
            [(key, value) for key, value in details.invocation_metadata or ()],
            method=_HTTP_METHOD if url else "",
            url=url,
        )
        return _answering(handler, guarded, who)

    def _warn(self, name: str, why: str) -> None:
        if name not in self._warned and len(self._warned) < _MOST_WARNINGS:
            self._warned.add(name)
            _log.warning("every call of %s is refused: the interceptor %s", name, why)


def _checked(name: str, method: object) -> GuardedMethod:
    found = GuardedMethod(method) if isinstance(method, str) else method
    if not isinstance(found, GuardedMethod) or not found.operation:
        raise UsageError(f"{name}: give an operation id, a GuardedMethod, or None to leave it open")
    return found


def _arguments(request: Any) -> Mapping[str, Any]:
    # With fields that are not set: the first value of an enum is a choice as well, which policies must see.
    found: dict[str, Any] = MessageToDict(
        request, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found


def _guarded(authz: Authz, method: GuardedMethod) -> _Guarded:
    read = method.arguments or _arguments

    def arguments(request: Any, context: Any, behavior: Any) -> Mapping[str, Any]:
        del context, behavior
        return read(request)

    guard = authz.guard(method.operation, arguments=arguments)

    @guard
    def unary(request: Any, context: Any, behavior: Any) -> Any:
        return behavior(request, context)

    @guard
    def rows(request: Any, context: Any, behavior: Any) -> Iterator[Any]:
        yield from behavior(request, context)

    @guard
    async def aunary(request: Any, context: Any, behavior: Any) -> Any:
        return await behavior(request, context)

    @guard
    async def arows(request: Any, context: Any, behavior: Any) -> AsyncIterator[Any]:
        if inspect.isasyncgenfunction(behavior):
            async with aclosing(behavior(request, context)) as answers:
                async for answer in answers:
                    yield answer
        else:
            await behavior(request, context)  # It writes its answers itself.

    return _Guarded(unary, rows, aunary, arows)


def _answering(handler: Any, guarded: _Guarded, who: Caller) -> Any:
    """A handler of the same form that asks first."""
    behavior = handler.unary_stream if handler.response_streaming else handler.unary_unary
    # grpc.aio calls functions on threads, with a context for threads, and awaits coroutines.
    if inspect.iscoroutinefunction(behavior) or inspect.isasyncgenfunction(behavior):
        make = _aanswers if handler.response_streaming else _aanswer
    else:
        make = _answers if handler.response_streaming else _answer
    return _handler(handler, make(behavior, guarded, who))


def _answer(behavior: Any, guarded: _Guarded, who: Caller) -> Callable[..., Any]:
    def answer(request: Any, context: Any) -> Any:
        try:
            with caller(who):
                return guarded.unary(request, context, behavior)
        except Refused as refused:
            _abort(context, refused)

    return answer


def _answers(behavior: Any, guarded: _Guarded, who: Caller) -> Callable[..., Any]:
    def answers(request: Any, context: Any) -> Iterator[Any]:
        # A generator runs in the context of each reader; its own context keeps the caller out of theirs.
        inside = copy_context()
        inside.run(set_caller, who)
        try:
            rows: Any = inside.run(guarded.rows, request, context, behavior)
            try:
                while (row := inside.run(next, rows, _END)) is not _END:
                    yield row
            finally:
                inside.run(rows.close)
        except Refused as refused:
            _abort(context, refused)

    return answers


def _aanswer(behavior: Any, guarded: _Guarded, who: Caller) -> Callable[..., Any]:
    async def answer(request: Any, context: Any) -> Any:
        try:
            with caller(who):
                return await guarded.aunary(request, context, behavior)
        except Refused as refused:
            await _aabort(context, refused)

    return answer


def _aanswers(behavior: Any, guarded: _Guarded, who: Caller) -> Callable[..., Any]:
    async def answers(request: Any, context: Any) -> AsyncIterator[Any]:
        # grpc.aio runs each call in an asyncio task, which has a context of its own.
        set_caller(who)
        try:
            rows: Any = guarded.arows(request, context, behavior)
            async with aclosing(rows):
                async for row in rows:
                    yield row
        except Refused as refused:
            await _aabort(context, refused)

    return answers


_END: Final = object()


def _refusing(handler: Any, *, is_async: bool) -> Any:
    """A handler of the same form that refuses every call."""
    refused = denied("the interceptor does not let this method run")

    def refuse(requests: Any, context: Any) -> Any:
        del requests
        _abort(context, refused)

    async def arefuse(requests: Any, context: Any) -> Any:
        del requests
        await _aabort(context, refused)

    return _handler(handler, arefuse if is_async else refuse)


def _handler(like: Any, behavior: Callable[..., Any]) -> Any:
    kinds = (
        "stream" if streaming else "unary"
        for streaming in (like.request_streaming, like.response_streaming)
    )
    make: Any = getattr(grpc, f"{'_'.join(kinds)}_rpc_method_handler")
    return make(
        behavior,
        request_deserializer=like.request_deserializer,
        response_serializer=like.response_serializer,
    )


def _status(refused: Refused) -> tuple[grpc.StatusCode, str]:
    return _CODES.get(refused.public_code, grpc.StatusCode.PERMISSION_DENIED), str(refused)


def _trailers(refused: Refused) -> tuple[tuple[str, str], ...]:
    return (("dpop-nonce", refused.dpop_nonce),) if refused.dpop_nonce else ()


def _abort(context: Any, refused: Refused) -> None:
    if refused.dpop_nonce:
        context.set_trailing_metadata(_trailers(refused))
    context.abort(*_status(refused))


async def _aabort(context: Any, refused: Refused) -> None:
    await context.abort(*_status(refused), _trailers(refused))


class _Interceptor(grpc.ServerInterceptor):
    def __init__(self, guards: _Guards) -> None:
        self._guards = guards

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        return self._guards.handler(handler_call_details, handler, is_async=False)


class _AioInterceptor(grpc.aio.ServerInterceptor):
    def __init__(self, guards: _Guards) -> None:
        self._guards = guards

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        return self._guards.handler(handler_call_details, handler, is_async=True)
