"""Rules and pins of one system: `catalog/<system>.accepted.yaml` and `catalog/<system>.proposed.yaml`.

Proposals are written anew each time. In the accepted file people change values and write comments, so its text is edited in
place: what an edit does not concern stays as it is, and an edit that would lose a comment is refused.
"""

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from authz.config.document import parse
from authz.errors import ConfigError, UsageError
from authz.tools.catalog.files import escape_unprintable, flow
from authz.tools.catalog.tool import plain

__all__ = ["Rules", "read_rules", "render_rules", "update_rules"]

_HEADERS: Final = {
    "accepted": "# Written by `authz catalog review` and `accept`. Values may be changed; rules of your own go elsewhere.\n",
    "proposed": "# Proposals of `authz catalog classify`: they decide about nothing until `authz catalog review`.\n",
}
_SECTIONS: Final = ("resources", "destinations", "classify", "accepted")
_DOUBLE_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'')
_COMMENT: Final = re.compile(r"(?:^|\s)(#.*)$")
_NO_WRAP: Final = 1_000_000
_MAX_REASON: Final = 800


@dataclass(slots=True)
class Rules:
    """Content of one of the two files, as far as commands write it."""

    classify: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Rules by operation id, without `match`."""
    accepted: dict[str, str] = field(default_factory=dict)
    """Digests by operation id."""
    resources: dict[str, Any] = field(default_factory=dict)
    """Collections that the rules name and no other file declares."""
    destinations: dict[str, Any] = field(default_factory=dict)
    """Destination classes, where no other file declares any."""
    why: dict[str, str] = field(default_factory=dict)
    """Comment above a proposal, by operation id."""


def read_rules(path: Path, text: str) -> Rules:
    """Read a file of rules.

    Args:
        path: Its path, which tells the kind, for messages.
        text: Its content; may be empty.

    Raises:
        UsageError: The file is not valid, or is a file of proposals with entries that would be lost when it is written again.
    """
    rules = Rules()
    if not text:
        return rules
    try:
        document = parse(text, str(path)).value
    except ConfigError as error:
        raise UsageError(str(error)) from error
    is_edited = path.name.endswith(".accepted.yaml")
    elsewhere = f"move what you wrote to another file, say {path.parent.parent / 'facts.yaml'}"
    if not is_edited and (unknown := set(document) - set(_SECTIONS)):
        raise UsageError(f"{path}: `{min(unknown)}` would be lost; {elsewhere}")
    entries = document.get("classify") or []
    for rule in entries if isinstance(entries, list) else []:
        match = rule.get("match") if isinstance(rule, dict) else None
        if not isinstance(rule, dict) or not isinstance(match, str):
            raise UsageError(f"{path}: a rule without `match`; {elsewhere}")
        if match in rules.classify or "*" in match:
            raise UsageError(f"{path}: the rule `{match}` would be lost; {elsewhere}")
        rules.classify[match] = {key: item for key, item in rule.items() if key != "match"}
    rules.why = _reasons(text, iter(rules.classify))
    for key in ("accepted", "resources", "destinations"):
        section = document.get(key) or {}
        if not isinstance(section, dict):
            raise UsageError(f"{path}: `{key}` is not a mapping")
        getattr(rules, key).update(section)
    return rules


def _reasons(text: str, matches: Iterator[str]) -> dict[str, str]:
    """Read the line above each rule, as `render_rules` writes it."""
    reasons, comment = {}, ""
    for line in text.splitlines():
        if line.startswith("  # "):
            comment = line.removeprefix("  # ")
        elif line.startswith("  - "):
            match, reason, comment = next(matches, ""), comment, ""
            if reason:
                reasons[match] = reason
    return reasons


def render_rules(kind: str, rules: Rules) -> str:
    """Write a file of rules.

    Args:
        kind: `proposed` or `accepted`.
        rules: Its content.

    Returns:
        The text; empty where there are no rules.
    """
    parts = []
    for key in ("resources", "destinations"):
        lines = [f"  {flow(k)}: {flow(v)}\n" for k, v in getattr(rules, key).items()]
        parts += [f"{key}:\n", *lines] if lines else []
    if rules.classify:
        lines = []
        for match, rule in sorted(rules.classify.items()):
            if why := rules.why.get(match):
                lines.append(f"  # {plain(why, _MAX_REASON)}\n")
            proposed = {"proposed": True} if kind == "proposed" else {}
            lines.append(f"  - {flow({'match': match, **proposed, **rule})}\n")
        parts.append("classify:\n" + "".join(lines))
    if rules.accepted:
        lines = [f"  {flow(k)}: {flow(v)}\n" for k, v in sorted(rules.accepted.items())]
        parts.append("accepted:\n" + "".join(lines))
    return _HEADERS[kind] + "".join(parts) if parts else ""


def update_rules(path: Path, text: str, rules: Rules) -> str:
    """Write the accepted rules into the text of their file, which keeps its comments and its layout.

    Args:
        path: The file, for messages.
        text: Its content; empty: there is no file yet.
        rules: Its new content.

    Returns:
        The new text; empty where there are no rules.

    Raises:
        UsageError: A comment would be lost, since the entry that it stands beside goes.
    """
    if not text:
        return render_rules("accepted", rules)
    yaml = _round_trip()
    document = yaml.load(text)
    if not isinstance(document, CommentedMap):
        document = CommentedMap()
    for section in _SECTIONS:
        if section == "classify":
            _update_classify(yaml, document, rules.classify)
        else:
            _update_mapping(yaml, document, section, getattr(rules, section))
    updated = ""
    if document:
        stream = io.StringIO()
        yaml.dump(document, stream)
        # ruamel.yaml writes characters plainly that a reviewer does not see, for example of a name that the server chose.
        updated = _DOUBLE_QUOTED.sub(lambda match: escape_unprintable(match[0]), stream.getvalue())
    _refuse_lost_comments(path, text, updated)
    return updated


def _round_trip() -> YAML:
    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes = True
    yaml.width = _NO_WRAP
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _update_mapping(
    yaml: YAML, document: CommentedMap, section: str, values: Mapping[str, Any]
) -> None:
    if not values:
        document.pop(section, None)
        return
    mapping = document.get(section)
    if not isinstance(mapping, CommentedMap):
        mapping = CommentedMap()
        _put_section(document, section, mapping)
    for name in [name for name in mapping if name not in values]:
        del mapping[name]
    for name, value in values.items():
        if name not in mapping:
            position = sum(other < name for other in mapping)
            mapping.insert(position, name, yaml.load(flow(value)))
        elif mapping[name] != value:
            mapping[name] = yaml.load(flow(value))


def _update_classify(
    yaml: YAML, document: CommentedMap, rules: Mapping[str, Mapping[str, Any]]
) -> None:
    if not rules:
        document.pop("classify", None)
        return
    sequence = document.get("classify")
    if not isinstance(sequence, CommentedSeq):
        sequence = CommentedSeq()
        _put_section(document, "classify", sequence)
    for position in reversed(range(len(sequence))):
        if sequence[position]["match"] not in rules:
            del sequence[position]
    entries = {str(entry["match"]): entry for entry in sequence}
    for match, rule in rules.items():
        if (entry := entries.get(match)) is None:
            position = sum(str(other["match"]) < match for other in sequence)
            sequence.insert(position, yaml.load(flow({"match": match, **rule})))
            continue
        for key in [key for key in entry if key != "match" and key not in rule]:
            del entry[key]
        for key, value in rule.items():
            if key not in entry or entry[key] != value:
                entry[key] = yaml.load(flow(value))


def _put_section(document: CommentedMap, section: str, content: object) -> None:
    """Put a new section at its place in the order of `_SECTIONS`."""
    before = set(_SECTIONS[: _SECTIONS.index(section)])
    position = max((at for at, key in enumerate(document, 1) if key in before), default=0)
    document.insert(position, section, content)


def _refuse_lost_comments(path: Path, old: str, new: str) -> None:
    kept = Counter(comment for _, comment in _comments(new))
    header = _HEADERS["accepted"].strip()
    for number, comment in _comments(old):
        if kept[comment] <= 0 and comment != header:
            raise UsageError(
                f"{path}:{number}: the comment would be lost with the entry that it stands beside; move or remove it"
            )
        kept[comment] -= 1


def _comments(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if comment := _COMMENT.search(_QUOTED.sub("", line)):
            yield number, comment[1].strip()
