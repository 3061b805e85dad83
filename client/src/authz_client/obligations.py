"""Obligations of permits, and the functions of an application that carry them out.

A client states those that it has handlers for, and no others, so the server denies a permit with another one. Should
one come all the same, the call is denied here.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from authz_client.base_errors import UsageError
from authz_client.redaction import ANY_POINTER, redact, redactions

__all__ = ["Obligation", "Obligations", "is_supported"]

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
        self._redacts = False

    def enable_redaction(self) -> None:
        """Support `redact:/POINTER` with any JSON pointer, and `redact:card`, `redact:email` and `redact:iban`.

        They are carried out on the result of a guarded call: values of JSON, a JSON text, or the result of an MCP tool.
        A result that cannot be searched is not returned. A handler of the application for the same name takes precedence.
        """
        self._redacts = True

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
        names = [
            name for name, handler in self._handlers.items() if results or handler.after is None
        ]
        if self._redacts and results:
            names += [name for name in redactions() if name not in self._handlers]
        return tuple(names)

    def before(self, obligations: Iterable[Obligation]) -> None:
        """Carry out the obligations that are due before the operation.

        Args:
            obligations: Those of the permit.
        """
        for obligation in obligations:
            handler = self._handler(obligation)
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
            handler = self._handler(obligation)
            if handler.after is not None:
                result = handler.after(obligation, result)
        return result

    def _handler(self, obligation: Obligation) -> _ObligationFunctions:
        """Find the handler. A permit with an obligation that has none was refused before."""
        own = self._handlers.get(obligation.name)
        if own is not None or not self._redacts:
            return own or self._handlers[obligation.name]
        return _ObligationFunctions(None, lambda one, result: redact(result, one.name))


def is_supported(obligation: str, supported: Collection[str]) -> bool:
    """Tell whether an obligation is among those that were listed.

    Args:
        obligation: As the permit says it.
        supported: What `supported_obligations` listed; `redact:/` there stands for any JSON pointer.
    """
    return obligation in supported or (
        obligation.startswith(ANY_POINTER) and ANY_POINTER in supported
    )
