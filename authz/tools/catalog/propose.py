"""Proposals: effects and tier of a tool, from the verbs in its name, its hints and its arguments.

A proposal is where a review starts, and never makes a tool look safer than it is. The name alone says what a tool does: a verb
of reading must stand in it before `read` is proposed. Everything else only adds effects or raises the tier: a verb of changing in
the description, a hint (MCP `ToolAnnotations`), an argument that removes or holds a program. A tool whose name says
nothing, or whose hints contradict its name, gets no proposal: it stays unreviewed, and a reviewer takes it for one that
executes, tier high.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from authz.engine import effect_table
from authz.tools.catalog.arguments import argument_types, enumerated, is_text
from authz.tools.catalog.tool import Tool
from authz.tools.catalog.values import ToolMeaning, ValueRules, argument_leaves, plural, value_rules
from authz.tools.catalog.words import (
    ANYTHING,
    CODE,
    CONTAINERS,
    DELETE,
    EXECUTE,
    FOR_GOOD,
    FORM,
    GRANT,
    JUDGES,
    MESSAGES,
    PUBLIC,
    QUERIES,
    READ,
    RIGHTS,
    SECRETS,
    SEND,
    STRONG_WRITE,
    VISITS,
    WRITE,
    described_verbs,
    name_verbs,
    without_prefix,
    word_set,
    words_of,
)

__all__ = ["Proposal", "noun_of", "propose"]


_COMPUTE: Final = word_set("decode echo encode hash sleep wait")
"""Verbs whose result comes from the arguments alone."""
_FILE_WRITERS: Final = word_set("convert download extract screenshot")
"""Verbs of reading that write a file where an argument says where."""
_SELECTORS: Final = word_set("action command method mode op operation operation_type verb")
"""Arguments that say what is done."""
_REMOVING: Final = word_set("archived delete deleted drop in_trash purge remove trashed")
"""Arguments that make a write a removal; also as the first part of a longer name."""
_FILES: Final = word_set("attachment attachments file files paths")
_URLS: Final = word_set("callback endpoint href link uri url urls webhook website")
_PEOPLE: Final = word_set("bcc cc email emails recipient recipients to")
_ACCOUNTS: Final = word_set(
    "account channel channel_id channelid chat chat_id phone phone_number user_id username"
)
_PATHS: Final = word_set("file_path filepath filename path")
_TARGET_PATHS: Final = _PATHS | word_set(
    "dest destination recipient list folder local_path output output_dir output_file output_path save_path target"
)
_ATTRIBUTES: Final = word_set(
    "content description details info information limit metadata name position priority settings state status title"
)
"""Words for a part of the thing before them: `set_card_limit` changes a card."""
_NO_NOUNS: Final = word_set("a all an and batch bulk multi multiple my new or the then")
_PREPOSITIONS: Final = word_set("as at between by for from in into of on to with")
_MOST_NOUN: Final = 3


@dataclass(frozen=True, slots=True)
class Proposal:
    """Probable effects and tier of a tool."""

    effects: tuple[str, ...]
    """Effects, in their order."""
    tier: str
    """The tier."""
    why: str
    """Reason of the proposal."""
    resource: Mapping[str, str] | None = None
    """`collection` and `id`, where one argument plainly names what is acted on."""
    destination: Mapping[str, Any] | None = None
    """`from` and `type`, where arguments name where data goes; always there with the effect `export`."""
    values: ValueRules = field(default_factory=ValueRules)
    """Roles of arguments, and fields of the result."""

    @property
    def comment(self) -> str:
        """Reason of the proposal, and its missing parts."""
        return "; ".join((self.why, *self.values.remarks))

    def rule(self) -> dict[str, Any]:
        """Give the meaning as it stands in a `classify` rule.

        Returns:
            `effects`, `tier`, and `resource`, `destination`, `objects` and so on where there are any.
        """
        found: dict[str, Any] = {"effects": list(self.effects), "tier": self.tier}
        if self.resource is not None:
            found["resource"] = dict(self.resource)
        if self.destination is not None:
            found["destination"] = dict(self.destination)
        return {**found, **self.values.rule()}


@dataclass(slots=True)
class _Finding:
    effects: set[str] = field(default_factory=set)
    tier: str = field(default_factory=lambda: effect_table().tiers[0])
    why: list[str] = field(default_factory=list)

    def add(self, effect: str, tier: str | None = None, why: str = "") -> None:
        self.effects.add(effect)
        self.at_least(tier or effect_table().default_tiers[effect])
        self.why += [why] if why else []

    def at_least(self, tier: str) -> None:
        self.tier = max(self.tier, tier, key=effect_table().rank)


def propose(
    system: str,
    tool: Tool,
    prefixes: frozenset[tuple[str, ...]] = frozenset(),
    default_noun: str = "",
) -> Proposal | None:
    """Propose what a tool does.

    Args:
        system: The system that it belongs to.
        tool: The tool.
        prefixes: Prefixes of the server's tool names: see `common_prefixes`.
        default_noun: Thing that the tool acts on, if its name does not say it.

    Returns:
        The proposal; None where the tool's name says nothing, or its hints contradict it.
    """
    words = without_prefix(tool.name, system, prefixes)
    verbs = name_verbs(words)
    described = described_verbs(tool.description or "")
    arguments = _Arguments.of(tool)
    found = _Finding()
    if not verbs or not all(_by_verb(found, verb, words, arguments) for verb in verbs):
        return None
    found.why.append(f"verb `{'`, `'.join(verbs)}`")
    _by_nouns(found, words, verbs)
    _by_description(found, described, words, arguments)
    if not _by_selector(found, words, arguments):
        return None
    _by_arguments(found, words, arguments)
    if not _by_hints(found, tool, arguments):
        return None
    destination = _destination(found, words, arguments)
    effects = effect_table().in_order(found.effects)
    noun = noun_of(words, verbs) or default_noun
    resource = None if destination else _resource(system, arguments, noun)
    meaning = ToolMeaning(
        system, verbs, noun, frozenset(effects), frozenset((destination or {}).get("from", ()))
    )
    values = value_rules(tool, meaning)
    return Proposal(effects, found.tier, "; ".join(found.why), resource, destination, values)


@dataclass(frozen=True, slots=True)
class _Arguments:
    """Arguments of a tool: their spelling, types and listed values by name."""

    names: tuple[str, ...]
    required: frozenset[str]
    words: Mapping[str, list[str]]
    spelled: Mapping[str, str]
    types: Mapping[str, frozenset[str]]
    declared: Mapping[str, frozenset[str]]
    """Types of the values of arguments that a pointer of a rule can name."""
    formats: Mapping[str, object]
    listed: Mapping[str, tuple[str, ...]]

    @staticmethod
    def of(tool: Tool) -> "_Arguments":
        properties = tool.properties
        words = {name: words_of(name) for name in properties}
        return _Arguments(
            names=tuple(properties),
            required=tool.required,
            words=words,
            spelled={name: "_".join(parts) for name, parts in words.items()},
            types={name: argument_types(tool.input, schema) for name, schema in properties.items()},
            declared={
                leaf.name: leaf.types for leaf in argument_leaves(tool)[0] if not leaf.folder
            },
            formats={name: schema.get("format") for name, schema in properties.items()},
            listed={name: enumerated(tool.input, schema) for name, schema in properties.items()},
        )

    def spellings(self) -> set[str]:
        return set(self.spelled.values())

    def texts(self) -> list[str]:
        """Names of arguments that may be a string or a list of strings."""
        return [name for name in self.names if is_text(self.types[name]) or self.lists(name)]

    def lists(self, name: str) -> bool:
        return "strings" in self.types[name]

    def written_file(self) -> str | None:
        """Name of an argument that may hold the path of a file that the tool writes."""
        endings = ("file_path", "dir_path", *_TARGET_PATHS)
        return next((name for name in self.names if self.spelled[name].endswith(endings)), None)

    def urls(self) -> list[str]:
        """Names of arguments that hold URLs."""
        return [
            name
            for name in self.texts()
            if self.formats[name] in ("uri", "url")
            or (self.words[name] and self.words[name][-1] in _URLS)
        ]


def _by_verb(found: _Finding, verb: str, words: Sequence[str], arguments: _Arguments) -> bool:
    """Add what a verb says; False where it says nothing certain."""
    others = set(words) - {verb}
    spelled = arguments.spellings()
    drops_files = verb == "drop" and bool(spelled & (_FILES | {"data"}))
    for_good = verb in FOR_GOOD and bool(others & CONTAINERS or not others)
    message = verb in {"post", "create", "add"} and bool(others & MESSAGES)
    pictures = verb == "take" and bool(others & {"screenshot", "snapshot"})
    computes = verb in _COMPUTE and not spelled & (_PATHS | _URLS | _FILES)
    writes_file = verb in _FILE_WRITERS and bool(spelled & _TARGET_PATHS)
    public = bool(others) and others - {"current", "local", "utc"} <= PUBLIC
    # The first that holds counts.
    meanings: tuple[tuple[bool, tuple[str, ...], str | None], ...] = (
        (verb in GRANT, ("grant",), None),
        (verb in DELETE and not drops_files, ("delete",), "critical" if for_good else None),
        (verb in EXECUTE, ("execute",), "critical" if set(words) & ANYTHING else None),
        (verb == "upload" or drops_files, ("export",), None),
        (verb == "export", ("read", "export"), None),
        (verb in SEND or message, ("export",), None),
        (verb in FORM, ("write", "export"), None),
        (verb in VISITS, ("read",) if arguments.urls() else ("write",), None),
        (computes, ("read",), "low"),
        (writes_file, ("read", "write"), None),
        (verb in STRONG_WRITE, ("write",), "high"),
        (verb in READ, ("read",), "low" if public else None),
        (pictures, ("read",), None),
        (verb in WRITE and bool(others & JUDGES), ("write",), "high"),
        (verb in WRITE, ("write",), None),
    )
    meaning = next((one for one in meanings if one[0]), None)
    if meaning is None:
        return False
    for effect in meaning[1]:
        found.add(effect, meaning[2])
    return True


def _by_nouns(found: _Finding, words: Sequence[str], verbs: Sequence[str]) -> None:
    others = set(words) - set(verbs)
    changes = bool(found.effects & {"write", "delete"})
    if changes and others & RIGHTS and "comment" not in others:
        found.add("grant", why="changes rights or credentials")
    if "read" in found.effects and others & SECRETS:
        found.at_least("high")
        found.why.append("may return secrets")
    if others & ANYTHING and "execute" not in found.effects and found.effects - {"read"}:
        found.add("execute", why="runs commands")
    if changes and others & DELETE:
        found.add("delete", why="a second verb removes")


def _by_description(
    found: _Finding, described: Sequence[str], words: Sequence[str], arguments: _Arguments
) -> None:
    """Add the effects of verbs in the description that the name does not have."""
    for verb in described:
        added = _Finding()
        _by_verb(added, verb, [verb, *words], arguments)
        # A tool that changes something may be described by any verb of changing.
        known = found.effects | ({"write"} if found.effects - {"read"} else set())
        for effect in sorted(added.effects - known):
            found.add(effect, why=f"the description says `{verb}`")


def _by_selector(found: _Finding, words: Sequence[str], arguments: _Arguments) -> bool:
    """Add what the values of an argument say that says what is done; False if its values are not listed."""
    for name in arguments.names:
        if arguments.spelled[name] not in _SELECTORS or not is_text(arguments.types[name]):
            continue
        listed = arguments.listed[name]
        if not listed and found.effects == {"read"} and arguments.spelled[name] not in CODE:
            return False
        for value in listed:
            for verb in name_verbs(words_of(value)):
                added = _Finding()
                _by_verb(added, verb, [verb, *words], arguments)
                for effect in sorted(added.effects - found.effects):
                    found.add(effect, why=f"`{verb}` is a value of `{name}`")
    return True


def _by_arguments(found: _Finding, words: Sequence[str], arguments: _Arguments) -> None:
    is_query = bool(set(words[-1:]) & QUERIES) or bool(set(words) & {"sql", "cypher"})
    for name in arguments.names:
        parts, spelled = arguments.words[name], arguments.spelled[name]
        if not parts:
            continue
        is_code = spelled in CODE or (is_query and spelled in QUERIES)
        if is_code and name in arguments.texts() and "delete" not in found.effects:
            found.add("execute", why=f"argument `{name}` holds a program")
        removes = spelled in _REMOVING or parts[0] in {"drop", "delete", "purge", "remove"}
        if removes and "write" in found.effects:
            found.add("delete", why=f"argument `{name}` removes")
    if arguments.urls() and found.effects & {"read", "write"}:
        found.add("export", why="an argument names a URL")


def _by_hints(found: _Finding, tool: Tool, arguments: _Arguments) -> bool:
    """Raise what hints say; False where they contradict the name."""
    read_only = tool.hint("readOnlyHint")
    if read_only is False and found.effects == {"read"} and (file := arguments.written_file()):
        found.add("write", why=f"argument `{file}` names a file, and readOnlyHint is false")
    changes = found.effects - {"read", "export"}
    if read_only is True and changes - {"execute"}:
        return False
    if read_only is False and found.effects == {"read"}:
        return False
    # Without readOnlyHint the hint is not void (MCP), and a tool that only reads destroys nothing.
    if tool.hint("destructiveHint") is True and read_only is not True:
        if found.effects <= {"read"}:
            return False
        found.at_least("high")
        found.why.append("destructiveHint")
    return True


def _destination(
    found: _Finding, words: Sequence[str], arguments: _Arguments
) -> dict[str, Any] | None:
    if "export" not in found.effects:
        return None

    def named(names: Iterable[str]) -> list[str]:
        wanted = set(names)
        return [
            name for name in arguments.names if arguments.spelled[name] in wanted and typed(name)
        ]

    def typed(name: str) -> bool:
        """Whether the type of the argument is one that a destination may have: see `pointer` of the bundle's reader."""
        return arguments.declared.get(name) == frozenset({"string"})

    people = named(_PEOPLE)
    mail = bool(set(words) & {"mail", "email", "emails"}) or any(
        arguments.formats[name] == "email" or "email" in name.lower() for name in people
    )
    urls = [name for name in arguments.urls() if typed(name)]
    choices = (
        (people if mail else [], "email"),
        (urls, "url"),
        (named({"iban"}), "iban"),
        (named(_ACCOUNTS) or people, "account"),
    )
    for names, kind in choices:
        if names:
            return {"from": [_pointer(name) for name in names], "type": kind}
    # No argument says where: every call counts as one to the least trusted class.
    return {"type": "url"}


def noun_of(words: Sequence[str], verbs: Sequence[str]) -> str:
    """Name the thing that a tool's name speaks of.

    Args:
        words: Words of the name, without prefix.
        verbs: Verbs among them.

    Returns:
        For example `pull_request` for `create_pull_request`; empty if the name says none.
    """
    rest = [word for word in words if word not in verbs and word not in _NO_NOUNS]
    # `list_issues_by_user`: what stands before a preposition is the thing.
    end = next((at for at, word in enumerate(rest) if word in _PREPOSITIONS and at), len(rest))
    rest = rest[:end]
    while len(rest) > 1 and rest[-1] in _ATTRIBUTES:
        rest = rest[:-1]
    return "_".join(rest[-_MOST_NOUN:])


def _resource(system: str, arguments: _Arguments, noun: str) -> dict[str, str] | None:
    """Name what is acted on, where exactly one argument says it: a required one, or else an optional one."""
    candidates = [
        (name, collection)
        for name in arguments.names
        if (collection := _collection(arguments, name, noun)) is not None
    ]
    required = [one for one in candidates if one[0] in arguments.required]
    chosen = required or candidates
    scoped = arguments.spellings() & word_set(
        "owner repo repository database collection namespace project_id organization"
    )
    if len(chosen) != 1 or scoped - {arguments.spelled[chosen[0][0]]}:
        return None
    name, collection = chosen[0]
    return {"collection": f"{system}.{collection}", "id": _pointer(name)}


def _collection(arguments: _Arguments, name: str, noun: str) -> str | None:
    """Plural of the thing that an argument names; None if it names none."""
    parts, types = arguments.words[name], arguments.declared.get(name, frozenset())
    is_list = "array" in arguments.types[name]
    if not parts or not types or is_list or not types <= {"string", "integer"}:
        return None
    if arguments.spelled[name] in _PATHS:
        return "files"
    if len(parts) > 1 and parts[-1] in {"path", "id", "number", "key"}:
        return plural(parts[-2])
    return plural(noun or "object") if parts == ["id"] else None


def _pointer(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")
