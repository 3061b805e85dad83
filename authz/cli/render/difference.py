"""The text of `authz diff`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from authz.analysis.texts import inert_markdown
from authz.cli.render.terminal import Terminal

__all__ = ["difference_markdown", "print_difference"]

Row = Mapping[str, Any]

_SHOWN_KEYS: Final = ("input", "session", "satisfied", "destination", "exception", "tier")


def print_difference(terminal: Terminal, document: Row) -> None:
    """Print the proof half of a comparison: verdict, one request, open questions and changed facts."""
    for line in _lines(document):
        terminal.line(line)


def difference_markdown(document: Row) -> str:
    """Write the proof half of a comparison in Markdown, for a comment on a pull request. No string of a bundle is markup."""
    lines = [f"### Permissions: {inert_markdown(_verdict(document))}", ""]
    for line in _lines(document):
        indent = "  " if line.startswith("  ") else ""
        lines.append(f"{indent}- {inert_markdown(line.strip(), 2_000)}")
    return "\n".join(lines) + "\n"


def _lines(document: Row) -> Iterator[str]:
    counts = document["counts"]
    yield (
        f"{document['old']['name']} {document['old']['digest'][:12]} → "
        f"{document['new']['name']} {document['new']['digest'][:12]}: "
        f"{counts['changed']} of {counts['operations']} operations have other policies or arguments"
    )
    yield from _policies(document["policies"])
    yield _verdict(document)
    operations: Sequence[Row] = document["operations"]
    found = [one for one in operations if one["verdict"] == "path_found"]
    if found:
        yield from _request(found[0])
        yield from (f"  also: {_name(one)}" for one in found[1:])
    yield from _open(operations)
    yield from _facts(document["facts"])
    if document["assumptions"] and any(one["verdict"] == "proved" for one in operations):
        yield "Assumptions of each proof:"
        yield from (f"  {text}" for text in document["assumptions"])


def _policies(policies: Row) -> Iterator[str]:
    for change in ("added", "removed", "changed"):
        if policies[change]:
            yield f"policies {change}: {', '.join(policies[change])}"


def _verdict(document: Row) -> str:
    verdict = document["verdict"]
    if verdict == "proved":
        return "Proved: nothing is newly permitted."
    if verdict == "path_found":
        count = len(
            {one["operation"] for one in document["operations"] if one["verdict"] == verdict}
        )
        return f"NEWLY PERMITTED: requests for {count} operation{'s' if count != 1 else ''}."
    if document["solver"] is None:
        return "Not proved: no solver answered."
    return "Not proved: see below."


def _name(operation: Row) -> str:
    new = ", a new operation" if operation["is_new"] else ""
    return f"{operation['operation']} for {operation['principal_type']}{new}"


def _request(found: Row) -> Iterator[str]:
    request = found["request"]
    yield f"  {_name(found)}: permitted by {', '.join(found['permits'])}"
    if not found["is_new"]:
        before = ", ".join(found["denied_by"])
        yield f"  before: {f'denied by {before}' if before else 'no permit matched'}"
    yield f"  principal: {request['principal']}"
    yield f"  resource: {request['resource']}"
    free = frozenset(request.get("any", ()))
    for key in _SHOWN_KEYS:
        if key in request["context"]:
            value = "any" if key in free else _text(request["context"][key])
            yield f"  context.{key}: {value}"


def _text(value: object) -> str:
    """Write a value as JSON; entities as Cedar writes them."""
    return json.dumps(_short(value), ensure_ascii=True)


def _short(value: object) -> object:
    if isinstance(value, dict):
        entity = value.get("__entity")
        if isinstance(entity, dict):
            return f"{entity['type']}::{entity['id']}"
        return {name: _short(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value]
    return value


def _open(operations: Sequence[Row]) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for one in operations:
        if one["verdict"] == "not_decided":
            reasons.setdefault(one["reason"], []).append(_name(one))
    for reason, names in reasons.items():
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield f"not decided: {shown}: {reason}"


def _facts(facts: Sequence[Row]) -> Iterator[str]:
    if facts:
        yield "Changed facts that the proof does not cover:"
    for fact in facts:
        name = f" `{fact['name']}`" if fact["name"] else ""
        yield f"  {fact['section']}{name} {fact['change']}: {fact['effect']}"
