"""Arguments of an operation, from those of a function to JSON."""

import dataclasses
import enum
import inspect
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeAlias, final

from authz_client.base_errors import UsageError

__all__ = ["Arguments", "Reading", "encoded"]

Arguments: TypeAlias = Callable[..., Mapping[str, Any]] | Mapping[str, str]
"""A function that takes what the decorated one takes and gives the operation's arguments, or a mapping from each
argument to the parameter that holds it."""

_BOUND: Final = ("self", "cls")


def encoded(arguments: Mapping[str, Any] | bytes | None) -> bytes:
    """Write arguments as one JSON object.

    Args:
        arguments: The arguments, or their JSON.

    Returns:
        JSON.

    Raises:
        UsageError: They have no form in JSON.
    """
    if isinstance(arguments, bytes):
        return arguments
    try:
        plain = dict(arguments or {})
        return json.dumps(plain, ensure_ascii=False, allow_nan=False, default=_plain).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the arguments cannot be written as JSON: {error}") from error


def _plain(value: object) -> object:
    """Convert a value that JSON has no type for."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json", by_alias=True)
    raise TypeError(f"{type(value).__name__} has no form in JSON; give `arguments` to the guard")


@final
class Reading:
    """How the arguments of an operation are read from those of a function.

    Args:
        function: The function.
        arguments: As given to the guard.
        apart: The parameters that are not arguments of the operation.
        given: Parameters that the guard gives, not the caller of the function.

    Raises:
        UsageError: A parameter does not exist, or cannot become an argument by its name.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: Arguments | None,
        apart: Collection[str] = (),
        given: Collection[str] = (),
    ) -> None:
        self.signature = _without(function, given)
        self._apart = frozenset(apart)
        self._arguments = arguments
        parameters = self.signature.parameters
        named = set(arguments.values()) if isinstance(arguments, Mapping) else set()
        unknown = (named | self._apart) - set(parameters)
        if unknown:
            raise UsageError(f"{_name(function)} has no parameter `{min(unknown)}`")
        kinds = (inspect.Parameter.VAR_POSITIONAL,)
        if arguments is None and any(one.kind in kinds for one in parameters.values()):
            what = f"{_name(function)} takes any number of arguments: give `arguments` to the guard"
            raise UsageError(what)

    def read(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[bytes, Mapping[str, str]]:
        """Read one call.

        Args:
            args: Its positional arguments.
            kwargs: Its arguments by name.

        Returns:
            The operation's arguments as JSON, and the values of the other parameters.

        Raises:
            UsageError: They have no form in JSON.
            TypeError: The function does not take them.
        """
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        held = {name: bound.arguments[name] for name in self._apart}
        apart = {name: "" if value is None else str(value) for name, value in held.items()}
        if callable(self._arguments):
            return encoded(self._arguments(*args, **kwargs)), apart
        if self._arguments is not None:
            given = {name: bound.arguments[held] for name, held in self._arguments.items()}
            return encoded(given), apart
        found: dict[str, Any] = {}
        for position, (name, parameter) in enumerate(self.signature.parameters.items()):
            if name in self._apart or (position == 0 and name in _BOUND):
                continue
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                found.update(bound.arguments[name])
            else:
                found[name] = bound.arguments[name]
        return encoded(found), apart


def _without(function: Callable[..., Any], given: Collection[str]) -> inspect.Signature:
    """Signature for callers of the function: without the parameters that the guard gives."""
    signature = inspect.signature(function)
    if not given:
        return signature
    parameters = dict(signature.parameters)
    for name in given:
        found = parameters.pop(name, None)
        if found is None or found.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise UsageError(f"{_name(function)} has no keyword-only parameter `{name}`")
    return signature.replace(parameters=tuple(parameters.values()))


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))
