"""Operators that plant one mistake each in a bundle that has none.

Each operator yields `PlantedMistake`s: the changed files, the words that a message about the mistake must have, and the lines that
it may point at. None knows how `authz check` finds the mistake.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["OPERATORS", "Files", "Operator", "PlantedMistake"]

Files = Mapping[str, str]
"""Texts of a bundle, by path."""


@dataclass(frozen=True, slots=True)
class PlantedMistake:
    """A bundle with one mistake."""

    files: dict[str, str]
    """The files that differ."""
    words: tuple[str, ...]
    """Words that a message about the mistake has."""
    places: frozenset[str]
    """`file:line` of each line that the message may point at."""
    variables: tuple[str, ...] = field(default=())
    """Values of `--var`; empty: those of the configuration."""


Operator = Callable[[Files], Iterator[PlantedMistake]]

_PERMIT: Final = re.compile(r"permit \((?:[^;]*?)\);", re.DOTALL)
_RULE: Final = re.compile(r'(?:@\w+\((?:"[^"]*")?\)\s*)+(?:permit|forbid) ?\([^;]*;\n?', re.DOTALL)


def _places(path: str, text: str, pattern: str) -> set[str]:
    """Return the lines of a file in which a pattern occurs."""
    expression = re.compile(pattern)
    lines = text.splitlines()
    return {f"{path}:{number}" for number, line in enumerate(lines, 1) if expression.search(line)}


def _anywhere(files: Files, pattern: str) -> frozenset[str]:
    every: set[str] = set()
    for path, text in files.items():
        if not path.startswith("tests/"):
            every |= _places(path, text, pattern)
    return frozenset(every)


def _policies(files: Files) -> Iterator[tuple[str, str]]:
    return ((path, text) for path, text in files.items() if path.endswith(".cedar"))


def _systems(files: Files) -> list[str]:
    """Systems that a permit names as a whole."""
    named: set[str] = set()
    for _, text in _policies(files):
        for permit in _PERMIT.findall(text):
            named |= set(re.findall(r'Action::"system:([\w-]+)"', permit))
    return sorted(named)


def _lines_of_system(files: Files, system: str) -> frozenset[str]:
    """Lines that declare, classify or permit the operations of a system."""
    of_catalog = {
        path: text
        for path, text in files.items()
        if re.search(rf"^system: {system}$|^  {system}:$", text, re.MULTILINE)
    }
    return _anywhere(of_catalog, r"^      \w+:|name:") | _anywhere(files, rf'match: "?{system}\.')


def _owner(files: Files, key: str) -> tuple[str, str]:
    """The file with a top-level key, and its text."""
    for path, text in sorted(files.items()):
        if re.search(rf"^{key}:", text, re.MULTILINE) and not path.startswith("tests/"):
            return path, text
    raise AssertionError(f"no file has {key}")


def _appended(files: Files, key: str, entry: str) -> tuple[str, str]:
    """Add an entry at the beginning of a top-level key. Returns the file and its new text."""
    path, text = _owner(files, key)
    changed = re.sub(rf"^({key}:[^\n]*\n)", rf"\g<1>{entry}\n", text, count=1, flags=re.MULTILINE)
    assert changed != text
    return path, changed


def permit_forgets_system(files: Files) -> Iterator[PlantedMistake]:
    """No permit names a system any more: nobody may call its operations."""
    systems = _systems(files)
    for system in systems[:3]:
        if len(systems) < 2:
            return
        changed: dict[str, str] = {}
        for path, text in _policies(files):

            def without(permit: re.Match[str], system: str = system) -> str:
                one = rf'Action::"system:{system}"'
                kept = re.sub(rf"{one},\s*|,\s*{one}", "", permit[0])
                return re.sub(
                    rf'action == Action::"{system}\.[^"]*"', 'action == Action::"authz.probe"', kept
                )

            new = _PERMIT.sub(without, text)
            if new != text:
                changed[path] = new
        yield PlantedMistake(changed, (f"`{system}.",), _lines_of_system(files, system))


def system_without_permit(_files: Files) -> Iterator[PlantedMistake]:
    """A new system has a catalog and a meaning, and no policy."""
    catalog = (
        "catalog:\n  billing:\n    kind: http\n    origin: https://billing.example\n    operations:\n"
        "      charge: {input: {type: object}}\n"
    )
    classify = "classify:\n  - {match: billing.charge, effects: [write]}\n"
    added = {"billing.yaml": catalog + classify}
    yield PlantedMistake(
        added, ("`billing.charge`",), frozenset({"billing.yaml:6", "billing.yaml:8"})
    )


def forbid_without_condition(files: Files) -> Iterator[PlantedMistake]:
    """A forbid lost its condition: it takes an operation from everybody."""
    path, text = next(_policies(files))
    operations = re.findall(r"match: \"?([\w.-]+)\"?,", _owner(files, "classify")[1])
    for operation in operations[:2]:
        rule = f'\n@id("not-now")\n@reason("lost its condition")\nforbid (principal, action == Action::"{operation}", resource);\n'
        changed = {path: text.rstrip("\n") + "\n" + rule}
        places = _anywhere({**files, **changed}, rf'"{operation}"|{operation}|not-now')
        yield PlantedMistake(changed, (f"`{operation}`",), places)


def scope_forgets_system(files: Files) -> Iterator[PlantedMistake]:
    """The scope of the only template lacks a system: no task may call its operations."""
    path, text = _owner(files, "templates")
    systems = re.findall(r"^      - \{system: ([\w-]+)\}\n", text, re.MULTILINE)
    for system in systems[:3]:
        changed = {path: text.replace(f"      - {{system: {system}}}\n", "", 1)}
        if len(systems) > 1:
            yield PlantedMistake(changed, (f"`{system}.",), _lines_of_system(files, system))


def nobody_starts(files: Files) -> Iterator[PlantedMistake]:
    """The permits for starting the tasks of a template are gone."""
    for path, text in _policies(files):
        for template in sorted(set(re.findall(r'action == Action::"task:([\w-]+)"', text))):
            rules = [rule for rule in _RULE.findall(text) if f'"task:{template}"' in rule]
            kept = text
            for rule in rules:
                kept = kept.replace(rule, "")
            places = _anywhere(files, rf"^  {template}:")
            yield PlantedMistake({path: kept}, (f"`{template}`",), places)


def agent_lost_permit(files: Files) -> Iterator[PlantedMistake]:
    """The permit of the agents names a role of people: an agent may do nothing."""
    people = re.findall(r"^subjects:[^\n]*\n  ([\w-]+):", "\n".join(files.values()), re.MULTILINE)[
        0
    ]
    agents = re.findall(r"^agents:[^\n]*\n  ([\w-]+):", "\n".join(files.values()), re.MULTILINE)[0]
    for path, text in _policies(files):
        new = re.sub(
            rf'(permit \(\s*principal in Role::)"{agents}"(,\s*action in\s*\[Action::"system:)',
            rf'\g<1>"{people}"\g<2>',
            text,
        )
        if new != text:
            system = _systems(files)[0]
            yield PlantedMistake({path: new}, (f"`{system}.",), _lines_of_system(files, system))


def cap_below_operations(files: Files) -> Iterator[PlantedMistake]:
    """The cap of the only template is below the tier of operations in its scope."""
    path, text = _owner(files, "templates")
    for cap in ("low", "standard"):
        changed = {path: re.sub(r"tier_cap: \w+", f"tier_cap: {cap}", text, count=1)}
        template = re.findall(r"^templates:[^\n]*\n  ([\w-]+):", text, re.MULTILINE)[0]
        yield PlantedMistake(
            changed,
            (f"`{template}`", cap),
            _anywhere({**files, **changed}, r"tier_cap|^  \w+:$|- \{system|tier:|match:|name:"),
        )


def scope_entry_above_cap(files: Files) -> Iterator[PlantedMistake]:
    """A second template names one operation, and has no cap, which is then standard."""
    rules = _owner(files, "classify")[1].split("match: ")[1:]
    high = [rule.partition("\n")[0].partition(",")[0] for rule in rules if "tier: high" in rule]
    for operation in [one for one in high if re.fullmatch(r"[\w.]+", one)][:2]:
        entry = (
            "  small:\n    purpose: one thing\n    deadline: 1h\n    starters: []\n    scope:\n"
            f"      - {{operation: {operation}}}"
        )
        path, new = _appended(files, "templates", entry)
        changed = {path: new}
        yield PlantedMistake(
            changed, ("`small`", f"`{operation}`"), _anywhere(changed, rf"{operation}|^  small:")
        )


def label_never_yielded(files: Files) -> Iterator[PlantedMistake]:
    """A label is declared, a policy reads it, and no data carries it."""
    path, new = _appended(files, "labels", "  phi: {kind: confidentiality, description: health}")
    cedar, text = next(_policies(files))
    rule = (
        '\n@id("no-phi")\n@reason("health data stays")\nforbid (principal, action in Action::"effect:export", resource)\n'
        'when { context.session.labels.contains(Label::"phi") };\n'
    )
    changed = {path: new, cedar: text.rstrip("\n") + "\n" + rule}
    yield PlantedMistake(changed, ("`phi`",), _anywhere(changed, r"phi"))


def label_lost_its_sources(files: Files) -> Iterator[PlantedMistake]:
    """No operation and no collection brings a label any more."""
    path, text = _owner(files, "classify")
    data, facts = _owner(files, "resources")
    for label in sorted(set(re.findall(r"yields: \[(\w+)", text)))[:3]:
        if re.search(rf"from: {label}\b", facts):
            continue

        def without(held: re.Match[str], label: str = label) -> str:
            kept = [one.strip() for one in held[2].split(",") if one.strip() not in ("", label)]
            return f"{held[1]}: [{', '.join(kept)}]"

        changed = {path: re.sub(r"(yields): \[([^\]]*)\]", without, text)}
        source = changed.get(data, facts)
        head, key, rest = source.partition("resources:")
        body, mark, tail = rest.partition("\ndestinations:")
        changed[data] = head + key + re.sub(r"(labels): \[([^\]]*)\]", without, body) + mark + tail
        declared = _anywhere({**files, **changed}, rf"^  {label}:")
        yield PlantedMistake(changed, (f"`{label}`",), declared)


def worse_origin_passes(files: Files) -> Iterator[PlantedMistake]:
    """A forbid fires for an origin, and not for a worse one."""
    cedar, text = next(_policies(files))
    for condition in (
        'context.origins.recipient.contains(Origin::"claimed")',
        'context.origins.recipient.containsAny([Origin::"introduced", Origin::"claimed"])',
        'context.origins.recipient == [Origin::"unknown"]',
        '!context.origins.recipient.contains(Origin::"named")',
    ):
        head = '@id("who-chose")\n@reason("a stranger chose it")\nforbid (principal, action in Action::"effect:export", resource)'
        changed = {cedar: f"{text.rstrip()}\n\n{head}\nwhen {{ {condition} }};\n"}
        yield PlantedMistake(changed, ("`recipient`", "worse"), _anywhere(changed, r"origins"))


def unused_subject_role(files: Files) -> Iterator[PlantedMistake]:
    """A role of people that no policy names."""
    path, new = _appended(
        files, "subjects", "  auditor: {issuer: corp, claim: groups, contains: auditors}"
    )
    yield PlantedMistake({path: new}, ("`auditor`",), _anywhere({path: new}, r"^  auditor:"))


def unused_agent_class(files: Files) -> Iterator[PlantedMistake]:
    """A role of agents that no policy names."""
    path, new = _appended(
        files, "agents", '  reporter: ["spiffe://reports.example/agents/reporter"]'
    )
    yield PlantedMistake({path: new}, ("`reporter`",), _anywhere({path: new}, r"^  reporter:"))


def unused_collection(files: Files) -> Iterator[PlantedMistake]:
    """A collection that nothing acts on."""
    path, new = _appended(files, "resources", "  invoices: {}")
    yield PlantedMistake({path: new}, ("`invoices`",), _anywhere({path: new}, r"^  invoices:"))


def collection_lost(files: Files) -> Iterator[PlantedMistake]:
    """No operation acts on a collection any more."""
    path, text = _owner(files, "classify")
    for collection in sorted(set(re.findall(r"resource: \{collection: (\w+)", text)))[:3]:
        new = re.sub(rf",\s*resource: \{{collection: {collection}[^}}]*\}}", "", text)
        new = re.sub(rf"\n    resource: \{{collection: {collection}[^}}]*\}}", "", new)
        places = _anywhere({**files, path: new}, rf'^  {collection}:|"{collection}')
        yield PlantedMistake({path: new}, (f"`{collection}`",), places)


def issuer_misspelt(files: Files) -> Iterator[PlantedMistake]:
    """A role of people names an issuer that the configuration does not have."""
    path, text = _owner(files, "subjects")
    new = text.replace("issuer: corp", "issuer: crop", 1)
    yield PlantedMistake({path: new}, ("`crop`",), _anywhere({path: new}, "crop"))


def variable_misspelt(files: Files) -> Iterator[PlantedMistake]:
    """A variable that neither the configuration nor `--var` has."""
    path, text = _owner(files, "agents")
    new = re.sub(r'\["spiffe://[^/]+/', '["spiffe://${trust_domian}/', text, count=1)
    places = _anywhere({path: new}, "domian")
    yield PlantedMistake({path: new}, ("trust_domian",), places)
    yield PlantedMistake({path: new}, ("trust_domian",), places, ("trust_domain=dev.example",))


def sequence_names_nothing(files: Files) -> Iterator[PlantedMistake]:
    """A rule over the order of events names an operation that does not exist."""
    path, text = _owner(files, "sequences")
    first = re.findall(r"never: ([\w.]+)|forbid: ([\w.]+)", text)
    operation = next(filter(None, first[0]))
    new = text.replace(operation, operation + "s", 1)
    yield PlantedMistake({path: new}, (f"{operation}s",), _anywhere({path: new}, f"{operation}s"))


def role_misspelt_in_policy(files: Files) -> Iterator[PlantedMistake]:
    """A policy names a role that is not declared."""
    for path, text in _policies(files):
        role = re.search(r'Role::"([\w-]+)"', text)
        if role:
            wrong = role[1][0] + role[1][2] + role[1][1] + role[1][3:]
            new = text.replace(f'Role::"{role[1]}"', f'Role::"{wrong}"', 1)
            yield PlantedMistake({path: new}, (f"`{wrong}`",), _anywhere({path: new}, wrong))
            return


OPERATORS: Final[Mapping[str, Operator]] = {
    operator.__name__: operator
    for operator in (
        permit_forgets_system,
        system_without_permit,
        forbid_without_condition,
        scope_forgets_system,
        nobody_starts,
        agent_lost_permit,
        cap_below_operations,
        scope_entry_above_cap,
        label_never_yielded,
        label_lost_its_sources,
        worse_origin_passes,
        unused_subject_role,
        unused_agent_class,
        unused_collection,
        collection_lost,
        issuer_misspelt,
        variable_misspelt,
        sequence_names_nothing,
        role_misspelt_in_policy,
    )
}
"""Each operator by its name."""
