"""Checks a bundle for `authz check`: compiles it, and looks for parts that can have no effect."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from authz.engine import Plan, bundle_variables, with_sources
from authz.errors import BundleError
from authz.model import BundleFiles, Diagnostic, Severity

__all__ = ["CheckFacts", "CheckedBundle", "check_bundle", "with_stand_ins"]

_UNKNOWN_VARIABLE: Final = "unknown-variable"


@dataclass(frozen=True, slots=True)
class CheckFacts:
    """Facts about the node that will serve a bundle."""

    variables: Mapping[str, str]
    """Values of `${…}`, by name."""
    issuers: Collection[str] | None = None
    """Aliases of the issuers that the node trusts. `None`: not known."""
    has_guards: bool | None = None
    """The node believes a guard. `None`: not known."""
    is_complete: bool = False
    """The variables are those of a configuration: a variable without a value is an error."""


@dataclass(frozen=True, slots=True)
class CheckedBundle:
    """A bundle that compiles."""

    plan: Plan
    """The plan."""
    warnings: tuple[Diagnostic, ...]
    """All warnings, in the order of their places."""


def check_bundle(
    bundle: BundleFiles, facts: CheckFacts, note: Callable[[str], None] = lambda _: None
) -> CheckedBundle:
    """Check a bundle.

    Args:
        bundle: Its files.
        facts: Facts about the node.
        note: Called with a line for each variable that gets a stand-in, because no variable was given at all.

    Raises:
        BundleError: The bundle is not valid.
    """
    variables = dict(facts.variables)
    found: list[Diagnostic] = []
    missing = [name for name in bundle_variables(bundle) if name not in variables]
    if missing and not facts.is_complete:
        if variables:
            found += _unknown_variables(bundle, variables)
        variables = with_stand_ins(bundle, variables, note)
    plan = Plan.compile(bundle, variables)
    found += plan.warnings
    found += plan.lint(facts.issuers, has_guards=facts.has_guards)
    found.sort(key=lambda one: (one.file, one.line, one.column))
    return CheckedBundle(plan, with_sources(found, bundle.files))


def with_stand_ins(
    bundle: BundleFiles, given: Mapping[str, str], note: Callable[[str], None]
) -> dict[str, str]:
    """Add a stand-in for each variable of a bundle that was not given.

    A node refuses a bundle if a variable has no value. A command that only reads the bundle does not need the value.

    Args:
        bundle: The bundle's files.
        given: Values as given.
        note: Called with a line for each stand-in.

    Returns:
        Values by name.
    """
    values = dict(given)
    for name in bundle_variables(bundle):
        if name not in values:
            values[name] = f"{name.lower().replace('_', '-')}.example"
            note(
                f"${{{name}}} has no value; here it is {values[name]}. Give --var {name}=VALUE to change it"
            )
    return values


def _unknown_variables(bundle: BundleFiles, variables: Mapping[str, str]) -> list[Diagnostic]:
    """Return a warning for each variable without a value: one was given, so this one may be misspelt."""
    try:
        Plan.compile(bundle, variables)
    except BundleError as error:
        unknown = (one for one in error.diagnostics if one.code == _UNKNOWN_VARIABLE)
        return [replace(one, severity=Severity.WARNING) for one in unknown]
    return []
