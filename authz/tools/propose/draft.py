"""Draft of a change of the bundle. It permits nothing until a person reviews it.

Roles are new and begin with `proposed-`, so that no policy names them. Rules of `classify` are `proposed`, so that they decide
nothing. Policies are comments. Callers choose the texts of a record: they are matched against the forms that a bundle can hold,
written as quoted values, and in comments without line breaks.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from authz.engine import effect_table
from authz.model import system_of
from authz.tools.catalog.files import flow
from authz.tools.catalog.propose import propose
from authz.tools.catalog.tool import Tool, plain
from authz.tools.propose.names import BundleNames, overlap
from authz.tools.propose.observations import BoundedEntries, Count, Observations
from authz.tools.propose.paths import Form, forms

__all__ = ["Draft", "draft"]

_PREFIX: Final = "proposed-"
_SHOWN: Final = 8
_KEYS: Final = ("agents", "subjects", "catalog", "classify", "routes")
_GENERIC: Final = frozenset({"api", "www", "localhost", "app", "svc", "authz"})
_BY_METHOD: Final = {
    "GET": "read",
    "HEAD": "read",
    "OPTIONS": "read",
    "PUT": "write",
    "PATCH": "write",
    "DELETE": "delete",
}
_SIMPLE: Final = frozenset({"read", "write", "delete", "execute", "grant"})


@dataclass(frozen=True, slots=True)
class Draft:
    """A change to review."""

    facts: str
    """YAML; empty where there is nothing to propose."""
    bare: bool
    """The YAML is comments only, which no bundle takes for a file of facts."""
    policies: str
    """Cedar, all of it comments; empty where no permit is missing."""
    entries: int
    """Number of entries to review."""


@dataclass(slots=True)
class _Writer:
    names: BundleNames
    lines: dict[str, list[str]] = field(default_factory=lambda: {key: [] for key in _KEYS})
    by_hand: list[str] = field(default_factory=list)
    entries: int = 0
    taken: set[str] = field(default_factory=set)
    roles: dict[str, str] = field(default_factory=dict)
    """Proposed roles by SPIFFE id, or by `<issuer>/`."""

    def add(self, key: str, comment: str, entry: str) -> None:
        """Write an entry of a key, with a comment above it."""
        self.lines[key] += [f"  # {plain(comment, 400)}", f"  {entry}"]
        self.entries += 1

    def hand(self, *lines: str) -> None:
        """Write what somebody has to put in place."""
        self.by_hand += [f"# {line}".rstrip() for line in lines]

    def name(self, wanted: str) -> str:
        """Make a role's name that nobody has."""
        base = _PREFIX + (re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip("-")[:100] or "role")
        name, number = base, 1
        while name in self.taken or name in self.names.roles:
            number += 1
            name = f"{base}-{number}"
        self.taken.add(name)
        return name


def draft(observed: Observations, names: BundleNames | None) -> Draft:
    """Draft a change of the bundle from recorded requests.

    Args:
        observed: The requests.
        names: Names of the bundle, or None without a bundle.
    """
    writer = _Writer(names or BundleNames())
    _agents(writer, observed, given=names is not None)
    _subjects(writer, observed)
    systems = _Systems(writer, observed)
    _operations(writer, observed, systems)
    _requests(writer, observed, systems)
    systems.write()
    _unreviewed(writer, observed)
    _strange(writer, observed)
    policies, permits = _policies(writer, observed)
    writer.entries += permits
    if not writer.entries:
        return Draft("", bare=True, policies="", entries=0)
    parts = [_head(observed, given=names is not None)]
    parts += [
        f"\n{key}:\n" + "".join(f"{line}\n" for line in writer.lines[key])
        for key in _KEYS
        if writer.lines[key]
    ]
    if writer.by_hand:
        while writer.by_hand[-1] == "#":
            writer.by_hand.pop()
        parts.append("\n" + "".join(f"{line}\n" for line in writer.by_hand))
    parts.append(_summary(observed))
    return Draft(
        facts="".join(parts),
        bare=not any(writer.lines.values()),
        policies=policies,
        entries=writer.entries,
    )


def _when(count: Count) -> str:
    times = "once" if count.times == 1 else f"{count.times} times"
    if not count.first:
        return times
    return (
        f"{times}, {count.first} to {count.last}" if count.times > 1 else f"{times}, {count.first}"
    )


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(plain(name, 200) for name in listed[:_SHOWN]) + more


def _by(callers: set[str]) -> str:
    return f"; asked by {_some(callers)}" if callers else "; by callers without a verified identity"


def _head(observed: Observations, *, given: bool) -> str:
    lines = [
        f"Proposed by `authz propose` from {observed.all.times} decisions"
        + (f", {observed.all.first} to {observed.all.last}." if observed.all.first else "."),
        "Nothing here permits anything: no policy speaks of a role `proposed-…`, a rule that is `proposed` decides about nothing.",
        "Go through it: rename, complete or remove each entry, then drop `proposed: true`.",
    ]
    if not given:
        lines.append("No bundle was given: what it says already may be proposed again.")
    return "".join(f"# {line}\n" for line in lines)


def _agents(writer: _Writer, observed: Observations, *, given: bool) -> None:
    unsaid = []
    for agent, caller in sorted(observed.agents.entries.items()):
        if writer.names.has_role(agent) or (caller.roles and not given):
            continue
        if caller.roles is None and not given:
            unsaid.append(agent)
            continue
        words = [word for word in agent.split("/")[3:] if word not in {"ns", "sa"}]
        role = writer.roles[agent] = writer.name("-".join(words))
        comment = f"{_when(caller.count)}: no entry names it"
        writer.add("agents", comment, f"{flow(role)}: {flow([agent])}")
    if unsaid:
        writer.hand(f"Records of an earlier version do not tell the roles of: {_some(unsaid)}", "")


def _subjects(writer: _Writer, observed: Observations) -> None:
    for (issuer, kind), subjects in sorted(observed.subjects.entries.items()):
        if f"{issuer}/" in writer.roles:
            role = writer.roles[f"{issuer}/"]
            writer.hand(f"Subjects of `{issuer}` acted as {kind} too; `{role}` holds for both.", "")
            continue
        role = writer.roles[f"{issuer}/"] = writer.name(issuer)
        claims = [
            f"{name} ({len(values)} value{'s' if len(values) != 1 else ''})"
            for name, values in sorted(subjects.claims.items())
        ]
        comment = (
            f"{_when(subjects.count)}: {len(subjects.ids)} subjects of the issuer without a role; "
            f"claims that tell them apart: {_some(claims) or 'none is kept'}"
        )
        writer.add("subjects", comment, f"{flow(role)}: {flow({'issuer': issuer})}")


@dataclass(slots=True)
class _Operation:
    """An operation to declare."""

    name: str
    comment: str
    entry: dict[str, Any]
    rule: dict[str, Any]
    why: str
    route: dict[str, Any] | None = None
    route_comment: str = ""


class _Systems:
    """The systems to declare, and their operations."""

    def __init__(self, writer: _Writer, observed: Observations) -> None:
        self.writer = writer
        self.there = set(writer.names.systems) | observed.systems
        self.hosts: dict[str, str] = {}
        self.operations: dict[str, dict[str, _Operation]] = {}

    def at(self, host: str) -> str:
        """Find the system of a host, or name it by its first label that says something."""
        if system := self.writer.names.system_of(host):
            return system
        if host in self.hosts:
            return self.hosts[host]
        labels = host.split(":", maxsplit=1)[0].split(".")
        label = next((one for one in labels if one not in _GENERIC and not one.isdigit()), "web")
        base = re.sub(r"[^a-z0-9_-]", "-", label).lstrip("_-")[:100] or "web"
        name, number = base, 1
        while name in self.there or name in self.hosts.values() or name in self.operations:
            number += 1
            name = f"{base}-{number}"
        self.hosts[host] = name
        return name

    def add(self, system: str, operation: _Operation) -> None:
        """Take an operation in; a second of one name is told apart by a number."""
        listed = self.operations.setdefault(system, {})
        name, number = operation.name, 1
        while (
            operation.name in listed or f"{system}.{operation.name}" in self.writer.names.operations
        ):
            number += 1
            operation.name = f"{name}_{number}"
        listed[operation.name] = operation

    def write(self) -> None:
        """Write them: those of systems that the bundle has go there by hand, since a system stands in one place."""
        for system, listed in sorted(self.operations.items()):
            if system in self.there:
                self._by_hand(system, listed)
            else:
                self._new(system, listed)

    def _new(self, system: str, listed: dict[str, _Operation]) -> None:
        writer = self.writer
        hosts = sorted(host for host, name in self.hosts.items() if name == system and host)
        about = f"served at {_some(hosts)}; add its `origin`" if hosts else "asked for by name"
        lines = writer.lines["catalog"]
        lines += [f"  # {about}", f"  {flow(system)}:", "    kind: http", "    operations:"]
        for name, operation in sorted(listed.items()):
            lines.append(f"      # {plain(operation.comment, 400)}")
            lines.append(f"      {flow(name)}: {flow(operation.entry)}")
            writer.entries += 1
            rule = {"match": f"{system}.{name}", "proposed": True, **operation.rule}
            writer.add("classify", operation.why, f"- {flow(rule)}")
            if operation.route is not None:
                route = {**operation.route, "operation": f"{system}.{name}"}
                writer.add("routes", operation.route_comment, f"- {flow(route)}")

    def _by_hand(self, system: str, listed: dict[str, _Operation]) -> None:
        writer = self.writer
        if system in writer.names.tools:
            writer.hand(f"`{system}` was imported from an MCP server and has no such tools:")
            for name, operation in sorted(listed.items()):
                writer.hand(f"  {flow(name)}: {plain(operation.comment, 300)}")
                writer.entries += 1
            command = f"authz catalog import-mcp {system}; authz catalog review {system}"
            writer.hand(f"If the server has them: {command}", "")
            return
        writer.hand(f"The bundle has `{system}` already; add under its `operations`:")
        for name, operation in sorted(listed.items()):
            writer.hand(f"  # {plain(operation.comment, 300)}")
            writer.hand(f"  {flow(name)}: {flow(operation.entry)}")
            writer.entries += 1
        writer.hand("under `classify`:")
        for name, operation in sorted(listed.items()):
            rule = {"match": f"{system}.{name}", "proposed": True, **operation.rule}
            writer.hand(f"  # {plain(operation.why, 300)}", f"  - {flow(rule)}")
        routes = [one for one in listed.values() if one.route is not None]
        if routes:
            writer.hand("and under `routes`:")
        for operation in routes:
            route = {**(operation.route or {}), "operation": f"{system}.{operation.name}"}
            writer.hand(f"  # {plain(operation.route_comment, 300)}", f"  - {flow(route)}")
        writer.hand("")


def _operations(writer: _Writer, observed: Observations, systems: _Systems) -> None:
    for operation, missing in sorted(observed.unknown.entries.items()):
        if operation in writer.names.operations:
            continue
        system, _, name = operation.partition(".")
        rule, why = _meaning(system, name)
        comment = f"{_when(missing.count)}{_by(missing.callers)}"
        if system not in writer.names.tools:
            comment += "; no record holds its arguments: write their JSON Schema as `input`"
        systems.add(system, _Operation(name, comment, {}, rule, why))


def _meaning(system: str, name: str) -> tuple[dict[str, Any], str]:
    """Propose a rule from the verb of a name, or the strictest likely rule if the verb says nothing certain."""
    proposal = propose(system, Tool(name, {}))
    if proposal is None or not set(proposal.effects) <= _SIMPLE:
        return {"effects": ["execute"], "tier": "high"}, "the name says nothing certain"
    return {"effects": list(proposal.effects), "tier": proposal.tier}, proposal.why


def _requests(writer: _Writer, observed: Observations, systems: _Systems) -> None:
    written: list[Form] = []
    # Of two routes that match one request, the one with ids is written: it also matches the requests of the other.
    wide = sorted(forms(observed.requests.entries), key=lambda form: -len(form.names))
    for form in wide:
        comment = f"{_when(form.request.count)}"
        if form.why:
            comment += f"; taken for an id: {_some(form.why)}"
        there = writer.names.overlapping_route(form.method, form.host, form.path)
        if there == form.path:
            continue
        twin = there or next(
            (
                other.path
                for other in written
                if (other.method, other.host) == (form.method, form.host)
                and overlap(other.path, form.path)
            ),
            "",
        )
        if twin:
            writer.hand(
                f"{form.method} {form.host}{form.path}: {plain(comment, 200)}",
                f"  would be matched by {twin} too, and a bundle with both is refused: widen one, or tell them apart by `headers`.",
                "",
            )
            writer.entries += 1
            continue
        written.append(form)
        systems.add(systems.at(form.host), _operation(form, comment))


def _operation(form: Form, comment: str) -> _Operation:
    words = ["id" if segment == "*" else segment for segment in form.segments if segment]
    name = "_".join([form.method.lower(), *words])
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:180].rstrip("._-")
    arguments: dict[str, dict[str, str]] = {one: {"path": one} for one in form.names}
    required = list(arguments)
    strange = False
    for member in sorted(form.request.query):
        if member.startswith("{"):
            strange = True
            continue
        argument = member if member not in arguments else f"query_{member}"
        arguments[argument] = {"query": member}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {one: {"type": "string"} for one in arguments},
    }
    if required:
        schema["required"] = required
    route: dict[str, Any] = {"method": form.method}
    if form.host:
        route["host"] = form.host
    route["path"] = form.path
    if arguments:
        route["arguments"] = arguments
    hints = []
    if strange:
        hints.append("its query had members with other names")
    if form.request.body:
        hints.append("it had a body: map its members, `{json: /x}`, or say `ignore: [body]`")
    effect = _BY_METHOD.get(form.method, "execute")
    return _Operation(
        name=name,
        comment=f"{form.method} {form.host}{form.path}: {comment}",
        entry={"input": schema} if arguments else {},
        rule={"effects": [effect], "tier": effect_table().default_tiers[effect]},
        why=f"method {form.method}",
        route=route,
        route_comment="; ".join([comment, *hints]),
    )


def _unreviewed(writer: _Writer, observed: Observations) -> None:
    listed = sorted(observed.unreviewed.entries.items())
    if not listed:
        return
    writer.hand("In the catalog, and nobody reviewed them as they are:")
    for (code, operation), missing in listed:
        system = system_of(operation)
        tools = system in writer.names.tools
        how = f"authz catalog review {system}" if tools else "write a `classify` rule"
        writer.hand(f"  {operation}: {code}, {_when(missing.count)}{_by(missing.callers)}: {how}")
        writer.entries += 1
    writer.hand("")


def _strange(writer: _Writer, observed: Observations) -> None:
    """Tell what strangers asked for, in comments alone: anybody can name anything, as often as they like."""
    listed = sorted(observed.strange.entries.items())
    if not listed:
        return
    writer.hand(
        "Requested by callers without a verified identity, and so not proposed.",
        "Give those that you know an identity, and propose again.",
    )
    for asked, count in listed:
        writer.hand(f"  {plain(asked, 700)}: {_when(count)}")
        writer.entries += 1
    writer.hand("")


def _policies(writer: _Writer, observed: Observations) -> tuple[str, int]:
    groups: dict[str, list[tuple[str, str]]] = {}
    for (kind, name, operation), refused in sorted(observed.refused.entries.items()):
        role = name
        if kind == "Agent":
            role = writer.roles.get(name, "")
        elif kind != "Role":
            role = writer.roles.get(name.partition("/")[0] + "/", "")
        principal = (
            f"principal in Role::{_quoted(role)}"
            if role
            else f"principal == {kind}::{_quoted(name)}"
        )
        comment = f"{_when(refused.count)}{_by(refused.callers)}"
        groups.setdefault(principal, []).append((operation, comment))
    if not groups:
        return "", 0
    lines = [
        "Permits that were missing: operations that `mode: observe` let through although no policy permits them.",
        "All of it is comment. Take over what should be permitted, with a reason; leave the rest: it will be denied.",
    ]
    for number, (principal, actions) in enumerate(sorted(groups.items()), 1):
        lines += ["", f'@id("proposed-{number}") @reason("to be written")']
        lines.append(f"permit({principal}, action in [")
        for operation, comment in actions:
            lines.append(f"  Action::{_quoted(operation)},  // {plain(comment, 300)}")
        lines.append("], resource);")
    text = "".join(f"// {line}".rstrip() + "\n" for line in lines)
    return text, sum(map(len, groups.values()))


def _quoted(text: str) -> str:
    """Write a text for Cedar: what could end it, or the line, is left out."""
    return '"' + plain(text, 600).replace("\\", "").replace('"', "") + '"'


def _summary(observed: Observations) -> str:
    lines: list[str] = []
    if observed.roles.entries:
        lines.append("Roles that were held:")
        lines += [
            f"  {role}: {_when(count)}" for role, count in sorted(observed.roles.entries.items())
        ]
    if observed.passed.entries:
        lines.append(
            "Let through by `mode: observe`, by reason (`authz why --observed` tells more):"
        )
        lines += [
            f"  {plain(code, 60)} {plain(operation, 260)}".rstrip() + f": {_when(count)}"
            for (code, operation), count in sorted(observed.passed.entries.items())
        ]
    if observed.unreadable.times:
        lines.append(f"Of a form that no bundle could have: {_when(observed.unreadable)}")
    lines += list(_left_out(observed))
    return "\n" + "".join(f"# {line}\n" for line in lines) if lines else ""


def _left_out(observed: Observations) -> Iterator[str]:
    kinds: tuple[tuple[str, BoundedEntries[Any, Any]], ...] = (
        ("requests without a route", observed.requests),
        ("unknown operations", observed.unknown),
        ("operations that nobody reviewed", observed.unreviewed),
        ("requests of strangers", observed.strange),
        ("agents", observed.agents),
        ("issuers", observed.subjects),
        ("roles", observed.roles),
        ("missing permits", observed.refused),
        ("reasons", observed.passed),
    )
    for what, counted in kinds:
        if counted.left_out:
            yield f"Not kept, since there were too many {what}: {counted.left_out} decisions"
