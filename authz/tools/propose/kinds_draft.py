"""Draft of templates for kinds of task. It permits nothing until a person reviews it.

Templates are new and begin with `proposed-`, so that no policy names them. Policies are comments. Names and purposes are made of
ids of operations, never of a text of a caller.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from authz.tools.catalog.files import flow
from authz.tools.catalog.tool import plain
from authz.tools.propose.draft import Draft
from authz.tools.propose.kinds import Evidence, Example, ScopeEntry, TaskKind, TaskKinds, Uncovered

__all__ = ["draft_kinds", "kinds_document"]

_MINUTE: Final = 60
_HOUR: Final = 3_600
_SHOWN: Final = 12
_MOST_LINE: Final = 600


def draft_kinds(found: TaskKinds, evidence: Evidence, *, given: bool) -> Draft:
    """Draft templates and the policies that start their tasks.

    Args:
        found: The kinds of task.
        evidence: Evidence that each of them has.
        given: The bundle was given, so that effects of operations are known.
    """
    lines = list(_head(found, evidence, given=given))
    if found.kinds:
        lines += ["", "templates:"]
        for position, kind in enumerate(found.kinds):
            lines += [""] if position else []
            lines += _template(kind, found)
    if rest := _rest(found):
        lines += ["", *[f"# {line}".rstrip() for line in rest]]
    return Draft(
        facts="".join(f"{line}\n" for line in lines),
        bare=not found.kinds,
        policies=_policies(found),
        entries=len(found.kinds),
    )


def _head(found: TaskKinds, evidence: Evidence, *, given: bool) -> Iterator[str]:
    yield (
        f"# Proposed by `authz propose --templates` from {found.decisions} calls in "
        f"{_number(found.observed, 'session')}, {found.clean} of them without a denial, "
        f"of {_number(found.subjects, 'subject')}."
    )
    share = _share(found.covered, found.clean)
    yield (
        f"# {_number(len(found.kinds), 'template')} "
        f"{'covers' if len(found.kinds) == 1 else 'cover'} {found.covered} of these {found.clean} sessions ({share})."
    )
    strong = evidence.strong
    yield (
        f"# Evidence for an operation: {evidence.sessions} sessions, {evidence.subjects} subjects; "
        f"{strong.sessions} and {strong.subjects} where it deletes, grants or executes."
    )
    yield "# Nothing here permits anything: no policy speaks of a template `proposed-…`, and the policies are comments."
    yield "# Rename each template, write its purpose, and remove the operations that its work does not need."
    if not given:
        yield "# No bundle was given, so that the effects of operations are unknown: each operation counts as `execute`."


def _template(kind: TaskKind, found: TaskKinds) -> Iterator[str]:
    yield (
        f"  # {kind.sessions} of {found.clean} sessions ({_share(kind.sessions, found.clean)}), "
        f"{_number(kind.subjects, 'subject')}, longest {_duration(kind.longest_seconds)}"
    )
    for example in kind.examples:
        yield f"  # for example {plain(_example(example), _MOST_LINE)}"
    yield f"  {flow(kind.name)}:"
    yield f"    purpose: {flow(kind.purpose)}"
    yield f"    deadline: {_duration(kind.deadline_seconds)}"
    yield f"    tier_cap: {kind.tier_cap}"
    if kind.max_depth:
        yield f"    max_depth: {kind.max_depth}"
    if kind.is_alone and kind.agent_roles:
        yield f"    # some of it was done for no subject: agents that start it need `starters: {flow(list(kind.agent_roles))}`"
    yield "    scope:"
    plain_reads = [entry for entry in kind.entries if _is_plain(entry)]
    if plain_reads:
        names = [entry.operation for entry in plain_reads]
        yield f"      - {{operations: {flow(names)}}}"
    for entry in kind.entries:
        if _is_plain(entry):
            continue
        yield f"      # {plain(_evidence(entry), _MOST_LINE)}"
        yield f"      - {flow(_scope(entry))}"


def _is_plain(entry: ScopeEntry) -> bool:
    """Whether an entry has neither a limit nor a remark."""
    return not (
        entry.uses or entry.prefix or entry.values or entry.fixed or entry.per_session or entry.held
    )


def _scope(entry: ScopeEntry) -> dict[str, Any]:
    scope: dict[str, Any] = {"operation": entry.operation}
    if entry.prefix:
        scope["resources"] = {"path_prefix": entry.prefix}
    if entry.values:
        scope["arguments"] = {
            _pointer(name): {"one_of": [value]} for name, value in entry.values.items()
        }
    if entry.uses:
        scope["uses"] = entry.uses
    return scope


def _pointer(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _evidence(entry: ScopeEntry) -> str:
    parts = [_number(entry.sessions, "session")]
    if entry.uses:
        parts.append(f"up to {_number(entry.most_calls, 'call')} in one")
    if entry.held:
        parts.append(f"{_number(entry.held, 'call')} held, and still held in such a task")
    if entry.fixed:
        parts.append(f"one value in all sessions, to limit with one_of: {', '.join(entry.fixed)}")
    if entry.per_session:
        names = ", ".join(entry.per_session)
        parts.append(f"one value in each session, to make a parameter: {names}")
    return "; ".join(parts)


def _example(example: Example) -> str:
    counts = Counter(example.operations)
    steps = ", ".join(name if n == 1 else f"{name} ({n} times)" for name, n in counts.items())
    where = f" (decision {example.decision_id})" if example.decision_id else ""
    return f"{example.at or 'at an unknown time'}{where}: {steps}"


def _rest(found: TaskKinds) -> list[str]:
    """Say what the templates leave out, and why."""
    lines = [
        *_not_covered(found.uncovered),
        *_without_evidence(found.rare),
        *_with_denials(found),
        *_not_counted(found),
    ]
    return lines[:-1] if lines and not lines[-1] else lines


def _not_covered(uncovered: Sequence[Uncovered]) -> Iterator[str]:
    if not uncovered:
        return
    yield "Sessions that no template covers, and the steps that the nearest template would deny:"
    for one in uncovered[:_SHOWN]:
        nearest = f"`{one.nearest}` denies {_some(one.denied)}"
        yield (
            f"  {_number(one.sessions, 'session')} with {_some(one.operations)}: "
            f"{nearest if one.nearest else 'no template is near'}"
        )
    if (more := len(uncovered) - _SHOWN) > 0:
        yield f"  and {more} more sets of operations (--format json lists them)"
    yield ""


def _without_evidence(rare: Sequence[tuple[str, int, int]]) -> Iterator[str]:
    if not rare:
        return
    yield "Operations without enough evidence:"
    for name, sessions, subjects in rare[:_SHOWN]:
        yield f"  {name}: {_number(sessions, 'session')}, {_number(subjects, 'subject')}"
    if (more := len(rare) - _SHOWN) > 0:
        yield f"  and {more} more (--format json lists them)"
    yield ""


def _with_denials(found: TaskKinds) -> Iterator[str]:
    if not found.refusals:
        return
    codes = ", ".join(f"{plain(code, 60)} {n}" for code, n in sorted(found.refusals.items()))
    yield f"Sessions with denials, which shape no template: {codes}."
    if found.kinds:
        yield f"In {found.stopped} of them each template would also deny a step that was let through."
    yield ""


def _not_counted(found: TaskKinds) -> Iterator[str]:
    if found.held:
        yield f"Sessions that left a held call behind, and so shape no template: {found.held}"
    if found.too_wide:
        yield f"Sessions with too many operations to be one task: {found.too_wide}"
    if found.gone:
        yield f"Operations that the bundle does not have: {_some(found.gone)}"
    if found.dropped:
        yield f"Templates left out, since there were too many (--max-templates): {found.dropped}"
    if found.left_out:
        yield f"Not kept, since there were too many sessions: {found.left_out} calls"


def _policies(found: TaskKinds) -> str:
    """Write the policies that start tasks of the templates, and give them to agents; all of it comments."""
    if not found.kinds:
        return ""
    lines = [
        "Policies that start tasks of the proposed templates. All of it is comment.",
        "Take over what should be permitted, with a reason, and with the name that you gave to the template.",
    ]
    for kind in found.kinds:
        name = kind.name
        lines += ["", f"{name}: {_number(kind.sessions, 'session')}"]
        starters = (
            kind.subject_roles if not kind.is_alone else (*kind.subject_roles, *kind.agent_roles)
        )
        if not starters:
            lines.append(
                "No role was held in enough of these sessions: name the role that starts it."
            )
        for number, role in enumerate(dict.fromkeys(starters), 1):
            lines += [
                f'@id("start-{name}-{number}") @reason("to be written")',
                f"permit(principal in Role::{_quoted(role)}, action == Action::{_quoted('task:' + name)}, resource);",
            ]
        if kind.agent_roles and kind.subject_roles:
            agents = " || ".join(f"resource in Role::{_quoted(role)}" for role in kind.agent_roles)
            subjects = " || ".join(
                f"principal in Role::{_quoted(role)}" for role in kind.subject_roles
            )
            lines += [
                f'@id("give-{name}") @reason("to be written")',
                f"permit(principal, action == Action::{_quoted('give:' + name)}, resource)",
                f"when {{ ({subjects}) && ({agents}) }};",
            ]
    return "".join(f"// {line}".rstrip() + "\n" for line in lines)


def kinds_document(found: TaskKinds, evidence: Evidence) -> dict[str, Any]:
    """Write the kinds of task as a JSON document.

    Args:
        found: The kinds of task.
        evidence: Evidence that each of them has.

    Returns:
        `templates`, each with `template` as it stands in a bundle; `sessions`; `not_covered`; `without_evidence`.
    """
    return {
        "evidence": {**asdict(evidence), "strong": asdict(evidence.strong)},
        "calls": found.decisions,
        "sessions": {
            "observed": found.observed,
            "without_denial": found.clean,
            "covered": found.covered,
            "subjects": found.subjects,
            "with_denials": dict(sorted(found.refusals.items())),
            "with_denials_and_stopped": found.stopped,
            "left_held": found.held,
            "too_wide": found.too_wide,
            "calls_not_kept": found.left_out,
        },
        "templates": [
            {
                "name": kind.name,
                "template": _entry(kind),
                "sessions": kind.sessions,
                "subjects": kind.subjects,
                "share": round(kind.sessions / found.clean, 4),
                "longest_seconds": kind.longest_seconds,
                "subject_roles": list(kind.subject_roles),
                "agent_roles": list(kind.agent_roles),
                "parameters": {
                    entry.operation: list(entry.per_session)
                    for entry in kind.entries
                    if entry.per_session
                },
                "examples": [asdict(one) for one in kind.examples],
            }
            for kind in found.kinds
        ],
        "not_covered": [asdict(one) for one in found.uncovered],
        "without_evidence": [
            {"operation": name, "sessions": sessions, "subjects": subjects}
            for name, sessions, subjects in found.rare
        ],
        "not_in_bundle": list(found.gone),
        "templates_left_out": found.dropped,
    }


def _entry(kind: TaskKind) -> dict[str, Any]:
    template: dict[str, Any] = {
        "purpose": kind.purpose,
        "deadline": _duration(kind.deadline_seconds),
        "tier_cap": kind.tier_cap,
    }
    if kind.max_depth:
        template["max_depth"] = kind.max_depth
    template["scope"] = [_scope(entry) for entry in kind.entries]
    return template


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _share(part: int, whole: int) -> str:
    return f"{100 * part // whole}%" if whole else "0%"


def _duration(seconds: int) -> str:
    if seconds % _HOUR == 0 and seconds:
        return f"{seconds // _HOUR}h"
    return f"{-(-seconds // _MINUTE)}m"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


def _quoted(text: str) -> str:
    """Write a text for Cedar: what could end it, or the line, is left out."""
    return '"' + plain(text, 600).replace("\\", "").replace('"', "") + '"'
