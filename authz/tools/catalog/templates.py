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
_DEADLINE: Final = "30m"
_USES: Final = {"change": 10, "remove": 1, "share": 1, "run": 3}
"""Calls of one operation in a task, by what the template does."""


@dataclass(frozen=True, slots=True)
class _Template:
    name: str
    purpose: str
    reads: tuple[str, ...]
    changes: tuple[str, ...]
    uses: int
    tier: str


def draft_templates(catalog: Catalog) -> str:
    """Write a first set of templates as YAML.

    Args:
        catalog: The system, with its rules and proposals.

    Returns:
        Content for a file of the bundle; only comments if no tool has a rule or a proposal.
    """
    items = [item for item in catalog.items() if item.effects]
    unknown = sorted(item.operation for item in catalog.items() if not item.effects)
    templates = list(_templates(catalog, items))
    unreviewed = sum(item.state != "reviewed" for item in items)
    lines = [
        f"# Proposed by `authz catalog templates {catalog.system}` from {len(items)} tools.",
        "# Nothing here permits anything: no policy speaks of a template `proposed-…`.",
        "# Keep the kinds of work that your agents do, rename them, and remove the operations that the work does not need.",
    ]
    if unreviewed:
        lines.append(
            f"# Effects of {unreviewed} tools are not reviewed: `authz catalog review {catalog.system}` first."
        )
    if len(templates) > _ENOUGH:
        lines.append(f"# {len(templates)} kinds are too many to choose from: keep about {_ENOUGH}.")
    if unknown:
        lines.append(f"# In no template, since nobody said what they do: {_some(unknown)}.")
    if templates:
        lines += ["", "templates:"]
    for position, template in enumerate(templates):
        lines += [""] if position else []
        lines += _render(template)
    return "".join(f"{line}\n" for line in lines)


def _templates(catalog: Catalog, items: Sequence[WorklistItem]) -> Iterator[_Template]:
    system = catalog.system
    prefixes = common_prefixes(catalog.listing.tools)
    reads = [item for item in items if set(item.effects) == {"read"}]
    if reads:
        yield _template(f"read-{system}", f"read {system}", reads, [], 0)
    things: dict[str, list[WorklistItem]] = {}
    for item in items:
        words = without_prefix(item.tool.name, system, prefixes)
        things.setdefault(plural(noun_of(words, name_verbs(words)) or "object"), []).append(item)
    for things_name, group in sorted(_joined(things).items()):
        own = [item for item in group if set(item.effects) == {"read"}]
        for does in ("change", "share", "remove", "run"):
            changes = [item for item in group if _does(item) == does]
            if changes:
                name = f"{does}-{system}-{things_name}"
                purpose = f"{does} {things_name.replace('_', ' ')} of {system}"
                yield _template(name, purpose, own, changes, _USES[does])


def _joined(things: dict[str, list[WorklistItem]]) -> dict[str, list[WorklistItem]]:
    """Join the parts of a thing with the thing: `issue_comments` with `issues`."""
    joined: dict[str, list[WorklistItem]] = {}
    for name, group in sorted(things.items(), key=lambda thing: (len(thing[0]), thing[0])):
        whole = next((one for one in joined if name.startswith(f"{one.removesuffix('s')}_")), name)
        joined.setdefault(whole, []).extend(group)
    return joined


def _does(item: WorklistItem) -> str:
    """Say what a tool does at most: run, share, remove, change, or read."""
    effects = set(item.effects)
    for effect, does in (("execute", "run"), ("grant", "share"), ("delete", "remove")):
        if effect in effects:
            return does
    return "change" if effects - {"read"} else "read"


def _template(
    name: str,
    purpose: str,
    reads: Sequence[WorklistItem],
    changes: Sequence[WorklistItem],
    uses: int,
) -> _Template:
    tiers = [item.tier for item in (*reads, *changes)]
    return _Template(
        name=f"proposed-{name.replace('_', '-')}",
        purpose=purpose,
        reads=tuple(sorted(item.operation for item in reads)),
        changes=tuple(sorted(item.operation for item in changes)),
        uses=uses,
        tier=max(tiers, key=effect_table().rank),
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
