"""Obligations of permits, and the functions of an application that carry them out.

A client states those that it has handlers for, and no others, so the server denies a permit with another one. Should
one come all the same, the call is denied here.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from authz_client.base_errors import UsageError

__all__ = ["Obligation", "Obligations"]

_MOST: Final = 64


@dataclass(frozen=True, slots=True)
class Obligation:
    """One obligation of one permit, as its handlers see it."""

    name: str
    """As the policy's `@obligation` says it."""
    operation: str
    """An obligation of a permitted call."""
    arguments: Mapping[str, Any]
    """The arguments that were judged."""
    decision_id: str
    """The permit."""


Before = Callable[[Obligation], None]
"""Runs before the operation; where it raises, the operation does not run."""
After = Callable[[Obligation, Any], Any]
"""Takes the result of the operation and returns the result for its caller. If it raises, the caller gets no result."""


@dataclass(frozen=True, slots=True)
class _ObligationFunctions:
    before: Before | None
    after: After | None


@final
class Obligations:
    """Handlers by the obligation's name."""

    def __init__(self) -> None:
        self._handlers: dict[str, _ObligationFunctions] = {}

    def register(
        self, name: str, *, before: Before | None = None, after: After | None = None
    ) -> None:
        """Support an obligation.

        Args:
            name: As the policy's `@obligation` says it, such as `redact:pii`.
            before: Runs before the operation.
            after: Runs on the result of the operation.

        Raises:
            UsageError: No handler is given, the name has one, or there are too many.
        """
        if before is None and after is None:
            raise UsageError(f"obligation `{name}`: give `before`, `after` or both")
        if name in self._handlers:
            raise UsageError(f"obligation `{name}` has a handler already")
        if not name or len(self._handlers) >= _MOST:
            raise UsageError(f"obligation `{name}`: at most {_MOST} with a name are supported")
        self._handlers[name] = _ObligationFunctions(before, after)

    def supported(self, *, results: bool = True) -> tuple[str, ...]:
        """List the supported obligations.

        Args:
            results: The operation returns a result that handlers can work on.

        Returns:
            Names.
        """
        return tuple(
            name for name, handler in self._handlers.items() if results or handler.after is None
        )

    def before(self, obligations: Iterable[Obligation]) -> None:
        """Carry out the obligations that are due before the operation.

        Args:
            obligations: Those of the permit.
        """
        for obligation in obligations:
            handler = self._handlers[obligation.name]
            if handler.before is not None:
                handler.before(obligation)

    def after(self, obligations: Iterable[Obligation], result: Any) -> Any:
        """Carry out the obligations that are due on the result.

        Args:
            obligations: Those of the permit.
            result: Result of the operation.

        Returns:
            What its caller gets.
        """
        for obligation in obligations:
            handler = self._handlers[obligation.name]
            if handler.after is not None:
                result = handler.after(obligation, result)
        return result
