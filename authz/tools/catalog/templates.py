"""First set of templates for one system, from the names of its tools.

One template reads everything of the system. For each kind of object one template reads and changes it, and others remove it, give
rights to it, or run something: each small, so that a task gets no more than its work needs. The templates begin with `proposed-`,
so that no policy starts their tasks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from authz.engine import effect_table
from authz.tools.catalog.files import flow
from authz.tools.catalog.propose import noun_of
from authz.tools.catalog.review import Catalog, WorklistItem
from authz.tools.catalog.tool import plain
from authz.tools.catalog.values import plural
from authz.tools.catalog.words import common_prefixes, name_verbs, without_prefix

__all__ = ["draft_templates"]

_ENOUGH: Final = 12
"""Number of templates from which on a person no longer finds the right one."""
_SHOWN: Final = 12
_MOST_NAME: Final = 200
_DEADLINE: Final = "30m"
_USES: Final = {"change": 10, "remove": 1, "share": 1, "run": 3}
"""Calls of one operation in a task, by the effect of the template."""


@dataclass(frozen=True, slots=True)
class _Template:
    name: str
    purpose: str
    reads: tuple[str, ...]
    changes: tuple[str, ...]
    uses: int
    tier: str


@dataclass(frozen=True, slots=True)
class _Operation:
    """An operation of the system, a case of a split tool included."""

    id: str
    tool: str
    """Name of its tool."""
    effects: frozenset[str]
    tier: str

    @property
    def only_reads(self) -> bool:
        return self.effects == {"read"}


def draft_templates(catalog: Catalog) -> str:
    """Write a first set of templates as YAML.

    Args:
        catalog: The system, with its rules and proposals.

    Returns:
        Content for a file of the bundle; only comments if no tool has a rule or a proposal.
    """
    items = catalog.items()
    operations = list(_operations(catalog, items))
    known = {one.tool for one in operations}
    split = sorted(item.operation for item in items if "split" in item.rule)
    unknown = sorted(
        item.operation for item in items if item.tool.name not in known and "split" not in item.rule
    )
    # Long names can become one where they are cut.
    by_name = {one.name: one for one in _templates(catalog, operations)}
    templates = list(by_name.values())
    unreviewed = sum(item.state != "reviewed" for item in items if item.tool.name in known)
    lines = [
        f"# Proposed by `authz catalog templates {catalog.system}` from {len(known)} tools.",
        "# Nothing here permits anything: no policy speaks of a template `proposed-…`.",
        "# Keep the kinds of work that your agents do, rename them, and remove the operations that the work does not need.",
    ]
    if unreviewed:
        lines.append(
            f"# Not reviewed: {unreviewed} of these tools. Run `authz catalog review {catalog.system}` first."
        )
    if len(templates) > _ENOUGH:
        lines.append(f"# {len(templates)} kinds are too many to choose from: keep about {_ENOUGH}.")
    if split:
        lines.append(f"# In no template until their split is accepted: {_some(split)}.")
    if unknown:
        lines.append(f"# In no template, since nobody said what they do: {_some(unknown)}.")
    if templates:
        lines += ["", "templates:"]
    for position, template in enumerate(templates):
        lines += [""] if position else []
        lines += _render(template)
    return "".join(f"{line}\n" for line in lines)


def _operations(catalog: Catalog, items: Sequence[WorklistItem]) -> Iterator[_Operation]:
    described = catalog.bundle.plan.describe().operations
    for item in items:
        # A split tool is not an operation itself; its cases are operations.
        cases = [
            one
            for name, one in described.items()
            if one.is_case and name.startswith(f"{item.operation}.")
        ]
        for one in cases:
            yield _Operation(one.id, item.tool.name, one.effects, one.tier)
        if not cases and item.effects and "split" not in item.rule:
            yield _Operation(item.operation, item.tool.name, frozenset(item.effects), item.tier)


def _templates(catalog: Catalog, operations: Sequence[_Operation]) -> Iterator[_Template]:
    system = catalog.system
    prefixes = common_prefixes(catalog.listing.tools)
    reads = [one for one in operations if one.only_reads]
    if reads:
        yield _template(f"read-{system}", f"read {system}", reads, [], 0)
    things: dict[str, list[_Operation]] = {}
    for one in operations:
        words = without_prefix(one.tool, system, prefixes)
        things.setdefault(plural(noun_of(words, name_verbs(words)) or "object"), []).append(one)
    for name, group in sorted(_joined(things).items()):
        own = [one for one in group if one.only_reads]
        for does in ("change", "share", "remove", "run"):
            changes = [one for one in group if _does(one) == does]
            if changes:
                purpose = f"{does} {name.replace('_', ' ')} of {system}"
                yield _template(f"{does}-{system}-{name}", purpose, own, changes, _USES[does])


def _joined(things: dict[str, list[_Operation]]) -> dict[str, list[_Operation]]:
    """Join the parts of a thing with the thing: `issue_comments` with `issues`."""
    joined: dict[str, list[_Operation]] = {}
    for name, group in sorted(things.items(), key=lambda thing: (len(thing[0]), thing[0])):
        whole = next((one for one in joined if name.startswith(f"{one.removesuffix('s')}_")), name)
        joined.setdefault(whole, []).extend(group)
    return joined


def _does(operation: _Operation) -> str:
    """Say what an operation does at most: run, share, remove, change, or read."""
    for effect, does in (("execute", "run"), ("grant", "share"), ("delete", "remove")):
        if effect in operation.effects:
            return does
    return "read" if operation.only_reads else "change"


def _template(
    name: str,
    purpose: str,
    reads: Sequence[_Operation],
    changes: Sequence[_Operation],
    uses: int,
) -> _Template:
    return _Template(
        # A tool's name may be longer than that of a template.
        name=f"proposed-{name.replace('_', '-')}"[:_MOST_NAME],
        purpose=purpose[:_MOST_NAME],
        reads=tuple(sorted(one.id for one in reads)),
        changes=tuple(sorted(one.id for one in changes)),
        uses=uses,
        tier=max((one.tier for one in (*reads, *changes)), key=effect_table().rank),
    )


def _render(template: _Template) -> Iterator[str]:
    yield f"  {flow(template.name)}:"
    yield f"    purpose: {flow(template.purpose)}"
    yield f"    deadline: {_DEADLINE}"
    yield f"    tier_cap: {template.tier}"
    yield "    scope:"
    if template.reads:
        yield f"      - {{operations: {flow(list(template.reads))}}}"
    for operation in template.changes:
        yield f"      - {flow({'operation': operation, 'uses': template.uses})}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(plain(name, 100) for name in names[:_SHOWN]) + more
