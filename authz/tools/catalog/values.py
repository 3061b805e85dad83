"""Proposals for origins of values: which arguments carry authority, and which fields of a result bring ids and addresses.

Names and types of the schema alone decide, as with effects. A role only restricts: policies ask where a value with a role came
from. So a role is proposed for each argument that may have it. What a result introduces is written by anybody (the default)
until a reviewer says `by: owner`. Only `creates` lifts an origin once it is accepted, and only from an output schema.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from authz.tools.catalog.arguments import argument_types, enumerated, resolved, scalar_types
from authz.tools.catalog.tool import Tool
from authz.tools.catalog.words import CODE, CONTAINERS, QUERIES, word_set, words_of

__all__ = [
    "VALUE_KEYS",
    "ArgumentLeaf",
    "ToolMeaning",
    "ValueRules",
    "argument_leaves",
    "plural",
    "value_rules",
]

VALUE_KEYS: Final = ("objects", "creates", "introduces", "pairs", "coerces")
"""Keys of a `classify` rule about origins of values."""

_MOST_ENTRIES: Final = 16
_MOST_LEAVES: Final = 200
_MOST_SCHEMAS: Final = 200
_MOST_DEPTH: Final = 3
_MOST_RESULT_DEPTH: Final = 6

_MAKES: Final = word_set(
    "add book clone copy create duplicate fork insert new open register reserve schedule upload"
)
"""Verbs whose result usually has the id of a new thing."""
_NAMED_BY_CALLER: Final = word_set("add create insert new register")
"""Verbs for which a name is the name of a new object."""
_AMOUNTS: Final = word_set(
    "amount balance bid budget budgets charge cost costs credit deposit discount fee limit payment price quantity qty "
    "points refund sum tip total"
)
_MONEY: Final = word_set("amount price cost fee")
_MINOR: Final = word_set("cents minor pence")
_CURRENCIES: Final = word_set("currency currency_code currencycode iso_currency")
_IDS: Final = word_set(
    "guid handle id identifier ids iid key keys number numbers sku skus slug slugs uuid uuids"
)
_PLAIN_IDS: Final = word_set("guid id identifier ids iid number numbers uuid uuids")
_NAMES: Final = word_set("name names")
_PATHS: Final = word_set(
    "dir directory file filename filepath files folder folders path paths file_path"
)
_CREDENTIALS: Final = word_set("credential credentials passphrase passwd password pin secret token")
_CREDENTIAL_ENDS: Final = (
    "access_key",
    "api_key",
    "apikey",
    "client_secret",
    "connection_string",
    "private_key",
    "secret_key",
)
_NO_CREDENTIAL: Final = word_set("continuation cursor csrf max next page sync token_id")
"""Words before `token` that mean a place in a list."""
_PAGING: Final = word_set(
    "after before count cursor depth end from_index limit max_results max_count offset page page_number page_size page_token per_page "
    "perpage skip start start_at start_cursor start_index timeout timeout_ms top"
)
_NO_NUMBERS: Final = word_set("line order page phone port row sequence thought version")
"""Words before `number` that make it a place or an order."""
_NO_IDS: Final = word_set("correlation_id idempotency_key order_key request_id sort_key trace_id")
"""Marks of a request, and orders."""
_URLS: Final = word_set("callback endpoint href link uri uris url urls webhook website")
_EMAILS: Final = word_set("email emails mail")
_PEOPLE: Final = word_set(
    "assignee assignees attendee attendees bcc beneficiary cc collaborator collaborators email emails grantee guest guests "
    "invitee invitees member members participant participants payee recipient recipients reviewer reviewers username usernames"
)
_GRANTED: Final = _PEOPLE | word_set("contact employee owner person to user users")
"""Words for a person in tools that send something, or give rights."""
_HANDS_OVER: Final = word_set("deliver forward pay refund reply send ship")
_THINGS: Final = CONTAINERS | word_set(
    "board branch calendar card channel chat device group issue pipeline playlist product project queue repo section "
    "sprint stream team thread ticket"
)
"""Words that name one thing of a system, also without `id`."""
_WHICH: Final = word_set(
    "base current destination end first from last new old original parent root source start target to"
)
"""Words that say which of several things is meant."""
_ALIASES: Final = {
    "db": "database",
    "dir": "file",
    "directory": "file",
    "filename": "file",
    "filepath": "file",
    "files": "file",
    "folder": "file",
    "folders": "file",
    "path": "file",
    "paths": "file",
    "org": "organization",
    "pr": "pull_request",
    "pull": "pull_request",
    "repo": "repository",
}
_LISTS: Final = word_set(
    "data entries hits items list objects records result results rows values content response"
)
"""Names of lists that do not tell the kind of their elements."""
_RESULT_NAMES: Final = ("name", "title", "subject", "summary", "display_name", "label")
_RESULT_EMAILS: Final = word_set("attendees from organizer reply_to sender to recipients cc")

_COERCIONS: Final = (
    (
        frozenset({"integer"}),
        "integer",
        re.compile(
            r"\b(numeric|number|integer)s? (as|in) (a )?(string|text)|\bstring or (a )?(number|integer)",
            re.IGNORECASE,
        ),
    ),
    (
        frozenset({"number"}),
        "number",
        re.compile(
            r"\b(numeric|number)s? (as|in) (a )?(string|text)|\bstring or (a )?number",
            re.IGNORECASE,
        ),
    ),
    (
        frozenset({"boolean"}),
        "boolean",
        re.compile(
            r"[\"'`]true[\"'`] (and|or|/) ?[\"'`]false[\"'`]|\bstring or (a )?bool", re.IGNORECASE
        ),
    ),
    (
        frozenset({"string"}),
        "url",
        re.compile(
            r"(with or )?without (a |the )?(scheme|protocol|https?://)|(scheme|protocol|https?://)[^.;]{0,20} (is )?(optional|added|assumed|defaults)",
            re.IGNORECASE,
        ),
    ),
    (
        frozenset({"string"}),
        "folder",
        re.compile(
            r"trailing slash[^.;]{0,20} (optional|ignored|added|removed)|with or without (a |the )?trailing slash",
            re.IGNORECASE,
        ),
    ),
)
"""Types of an argument, the form that a server makes of it, and the words of a description that name the form."""
_MAX_TEXT: Final = 2_000


@dataclass(frozen=True, slots=True)
class ValueRules:
    """Keys of a `classify` rule about origins of values, and remarks for the reviewer."""

    objects: tuple[Mapping[str, Any], ...] = ()
    """Arguments that carry authority."""
    creates: tuple[Mapping[str, Any], ...] = ()
    """Ids of new things in the result."""
    introduces: tuple[Mapping[str, Any], ...] = ()
    """Ids and addresses in the result."""
    pairs: tuple[Mapping[str, Any], ...] = ()
    """Ids and their names in the result."""
    coerces: tuple[Mapping[str, Any], ...] = ()
    """Arguments that the server seems to take in a second form."""
    remarks: tuple[str, ...] = ()
    """Facts that no schema states, and values that no pointer can name."""

    def rule(self) -> dict[str, Any]:
        """Give the keys as they stand in a `classify` rule."""
        return {
            key: [dict(one) for one in entries]
            for key in VALUE_KEYS
            if (entries := getattr(self, key))
        }


@dataclass(frozen=True, slots=True)
class ToolMeaning:
    """Facts about a tool that the proposals for its values start from."""

    system: str
    """System that it belongs to."""
    verbs: tuple[str, ...]
    """Verbs of its name."""
    noun: str
    """Thing that its name speaks of, for example `pull_request`; empty if it names none."""
    effects: frozenset[str]
    """Proposed effects."""
    destinations: frozenset[str]
    """Pointers that already are destinations."""

    @property
    def only_reads(self) -> bool:
        """Whether it changes nothing, and sends nothing anywhere."""
        return self.effects <= {"read"}


@dataclass(frozen=True, slots=True)
class ArgumentLeaf:
    """One argument that a pointer of a rule can name."""

    pointer: str
    """JSON pointer, for example `/parent/page_id`."""
    name: str
    """Its name, without those of the objects around it."""
    words: tuple[str, ...]
    """Words of its name."""
    types: frozenset[str]
    """Types of its values; empty if they are objects or anything at all."""
    is_required: bool
    """The argument, and each object around it, must be there."""
    format: str
    """`format` of its schema."""
    description: str
    """Description of the server."""
    is_listed: bool
    """The schema lists its values."""
    is_list: bool
    """It may be a list."""

    @property
    def spelled(self) -> str:
        """Name in snake case."""
        return "_".join(self.words)

    @property
    def last(self) -> str:
        """Last word of the name."""
        return self.words[-1] if self.words else ""

    @property
    def folder(self) -> str:
        """Pointer of the object that it is a member of."""
        return self.pointer.rpartition("/")[0]


def argument_leaves(tool: Tool) -> tuple[list[ArgumentLeaf], list[str]]:
    """List the arguments that a pointer can name, and the lists of objects, in which no pointer can.

    Args:
        tool: The tool.

    Returns:
        The arguments, outer ones first, and pointers of lists of objects.
    """
    root = tool.input
    leaves: list[ArgumentLeaf] = []
    lists: list[str] = []
    pending: list[tuple[object, str, bool, int]] = [(root, "", True, 0)]
    # References can form a circle.
    for _ in range(_MOST_SCHEMAS):
        if not pending:
            break
        schema, at, is_required, depth = pending.pop(0)
        own = resolved(root, schema) or {}
        properties = own.get("properties")
        required = own.get("required")
        names = (
            {one for one in required if isinstance(one, str)}
            if isinstance(required, list)
            else set()
        )
        for name, value in properties.items() if isinstance(properties, Mapping) else ():
            if not isinstance(value, Mapping) or len(leaves) >= _MOST_LEAVES:
                continue
            pointer = f"{at}/{_token(str(name))}"
            target = resolved(root, value) or {}
            is_needed = is_required and name in names
            if isinstance(target.get("properties"), Mapping):
                if depth < _MOST_DEPTH:
                    pending.append((value, pointer, is_needed, depth + 1))
                continue
            if isinstance((resolved(root, target.get("items")) or {}).get("properties"), Mapping):
                lists.append(pointer)
            leaves.append(_leaf(root, pointer, value, target, is_required=is_needed))
    return leaves, lists[:_MOST_ENTRIES]


def _leaf(
    root: Mapping[str, Any],
    pointer: str,
    value: Mapping[str, Any],
    target: Mapping[str, Any],
    *,
    is_required: bool,
) -> ArgumentLeaf:
    name = pointer.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
    description = str(value.get("description") or target.get("description") or "")
    return ArgumentLeaf(
        pointer=pointer,
        name=name,
        words=tuple(words_of(name)),
        types=scalar_types(root, value),
        is_required=is_required,
        format=_format(root, target),
        description=description[:_MAX_TEXT],
        is_listed=bool(enumerated(root, value)),
        is_list="array" in argument_types(root, value),
    )


def _format(root: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return `format` of a schema, of its items, or of a branch of a nullable one."""
    unions = [schema.get(key) for key in ("anyOf", "oneOf")]
    branches = [one for union in unions if isinstance(union, list) for one in union]
    for one in (schema, schema.get("items"), *branches[:_MOST_ENTRIES]):
        own = resolved(root, one) or {}
        for inner in (own, resolved(root, own.get("items")) or {}):
            if isinstance(inner.get("format"), str):
                return str(inner["format"])
    return ""


def value_rules(tool: Tool, meaning: ToolMeaning) -> ValueRules:
    """Propose roles of arguments, and fields of the result.

    Args:
        tool: The tool.
        meaning: Its verbs, effects and destinations.
    """
    leaves, lists = argument_leaves(tool)
    objects = _objects(leaves, meaning)
    remarks = [
        f"{pointer} is a list of objects, in which no pointer can name ids" for pointer in lists
    ]
    creates: list[dict[str, Any]] = []
    introduces: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    reads = "read" in meaning.effects
    makes = bool(set(meaning.verbs) & _MAKES) and not meaning.only_reads
    if tool.output is None:
        if makes:
            remarks.append(
                "no output schema: if the result has the id of the new thing, write `creates`"
            )
        if reads:
            remarks.append("no output schema: write `introduces` and `pairs` for ids in the result")
    else:
        if makes:
            creates = _creates(tool.output, meaning)
        if reads:
            introduces, pairs = _introduces(tool.output, meaning)
        if introduces or pairs:
            remarks.append(
                "fields of a result are written by anybody; say `by: owner` where outsiders cannot write them"
            )
    coerces = _coerces(leaves)
    if coerces:
        remarks.append("`coerces` is from the description: try it, then review")
    return ValueRules(
        tuple(objects),
        tuple(creates),
        tuple(introduces),
        tuple(pairs),
        tuple(coerces),
        tuple(remarks),
    )


# --- arguments


def _objects(leaves: Sequence[ArgumentLeaf], meaning: ToolMeaning) -> list[dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for leaf in leaves:
        if leaf.pointer in meaning.destinations or not leaf.types or not leaf.words:
            continue
        if (entry := _object(leaf, leaves, meaning)) is None:
            continue
        # Required and optional arguments stand apart, so that a reviewer sees what `when_absent` is about.
        key = repr((sorted((k, v) for k, v in entry.items() if k != "from"), leaf.is_required))
        if key in entries and len(entries[key]["from"]) < _MOST_ENTRIES:
            entries[key]["from"].append(leaf.pointer)
        else:
            entries.setdefault(key, entry)
    return list(entries.values())[:_MOST_ENTRIES]


def _object(
    leaf: ArgumentLeaf, leaves: Sequence[ArgumentLeaf], meaning: ToolMeaning
) -> dict[str, Any] | None:
    """Give the role of one argument; None without one."""
    entry: dict[str, Any] | None = None
    if "string" in leaf.types and _is_credential(leaf):
        entry = {"role": "credential"}
    elif "string" in leaf.types and _is_command(leaf, meaning):
        entry = {"role": "command"}
    elif meaning.only_reads or leaf.types == {"boolean"} or leaf.is_listed:
        return None
    elif _is_amount(leaf, leaves):
        entry = _amount(leaf, leaves)
    elif leaf.types == {"string"} and (leaf.format in {"uri", "url"} or leaf.last in _URLS):
        entry = {"role": "target", "type": "url"}
    elif leaf.types == {"string"} and (kind := _recipient(leaf, meaning)) is not None:
        entry = {"role": "recipient", "type": kind}
    elif "boolean" not in leaf.types and (noun := _target(leaf, leaves, meaning)):
        entry = {"role": "target", "collection": f"{meaning.system}.{plural(noun)}"}
    return {"from": [leaf.pointer], **entry} if entry is not None else None


def _is_credential(leaf: ArgumentLeaf) -> bool:
    if set(leaf.words) & _NO_CREDENTIAL:
        return False
    return leaf.last in _CREDENTIALS or leaf.spelled.endswith(_CREDENTIAL_ENDS)


def _is_command(leaf: ArgumentLeaf, meaning: ToolMeaning) -> bool:
    if not meaning.effects & {"execute", "delete"}:
        return False
    return leaf.spelled in CODE or ("execute" in meaning.effects and leaf.spelled in QUERIES)


def _is_amount(leaf: ArgumentLeaf, leaves: Sequence[ArgumentLeaf]) -> bool:
    if leaf.last in _IDS or leaf.spelled in _CURRENCIES or leaf.last == "type":
        return False
    is_paged = leaf.last == "limit" and any(
        one.spelled in _PAGING - {"limit"} for one in leaves if one.folder == leaf.folder
    )
    return not is_paged and (leaf.last in _AMOUNTS or bool(set(leaf.words) & _MONEY))


def _amount(leaf: ArgumentLeaf, leaves: Sequence[ArgumentLeaf]) -> dict[str, Any]:
    entry: dict[str, Any] = {"role": "amount"}
    currency = next(
        (
            one.pointer
            for one in leaves
            if one.folder == leaf.folder
            and one.spelled in _CURRENCIES
            and one.types == {"string"}
            and not one.is_list
        ),
        None,
    )
    if currency is not None:
        entry["currency"] = currency
    if set(leaf.words) & _MINOR:
        entry["scale"] = 100
    return entry


def _recipient(leaf: ArgumentLeaf, meaning: ToolMeaning) -> str | None:
    """Give the type of a recipient: a person or an account that gets data or rights."""
    if leaf.last == "iban":
        return "iban"
    is_mail = leaf.format == "email" or bool(set(leaf.words) & _EMAILS)
    if leaf.format == "email" or leaf.last in _PEOPLE:
        return "email" if is_mail else "account"
    if leaf.last == "to" and len(leaf.words) > 1 and leaf.words[-2] in _HANDS_OVER:
        return "account"
    if "account" in leaf.words and set(leaf.words) & {
        "destination",
        "payee",
        "recipient",
        "target",
        "to",
    }:
        return "account"
    gives = meaning.effects & {"grant", "export"}
    is_id = len(leaf.words) > 1 and leaf.last in {"id", "ids"}
    person = leaf.words[-2] if is_id else leaf.last
    return "account" if gives and person in _GRANTED else None


def _target(leaf: ArgumentLeaf, leaves: Sequence[ArgumentLeaf], meaning: ToolMeaning) -> str | None:
    """Give the noun of the thing that an argument names; None if it names none."""
    words, last = leaf.words, leaf.last
    is_place = last in {"number", "numbers"} and bool(set(words) & _NO_NUMBERS)
    if leaf.spelled in _PAGING | _NO_IDS or is_place:
        return None
    own = meaning.noun or "object"
    if last in _IDS:
        return last if len(words) == 1 and last not in _PLAIN_IDS else _noun(words[:-1]) or own
    if words[0] == "id" and len(words) > 1:
        return _noun(words[1:]) or own
    return _thing(leaf, leaves, meaning) if "string" in leaf.types else None


def _thing(leaf: ArgumentLeaf, leaves: Sequence[ArgumentLeaf], meaning: ToolMeaning) -> str | None:
    """Give the noun of a thing that an argument names by its path, its name, or its kind."""
    words, last = leaf.words, leaf.last
    noun: str | None = None
    if last in _PATHS:
        is_thing = len(words) > 1 and _singular(words[-2]) in _THINGS
        noun = _noun(words[:-1] if is_thing else (last,))
    elif last in _NAMES:
        noun = _named(leaf, leaves, meaning)
    elif _singular(last) in _THINGS:
        is_new = len(words) == 1 and last == meaning.noun and bool(set(meaning.verbs) & _MAKES)
        noun = None if is_new else _noun((last,))
    elif "account" in words:
        noun = "account"
    elif last in {"source", "destination"} and {"source", "destination"} <= {
        one.spelled for one in leaves
    }:
        noun = "file"
    return noun


def _named(leaf: ArgumentLeaf, leaves: Sequence[ArgumentLeaf], meaning: ToolMeaning) -> str | None:
    """Give the noun of the thing that a name stands for; None for the name of a new thing, and for a new name."""
    if set(meaning.verbs) & _NAMED_BY_CALLER and "delete" not in meaning.effects:
        return None
    if len(leaf.words) > 1:
        return _noun(leaf.words[:-1]) or meaning.noun or "object"
    has_id = any(one.last in _IDS for one in leaves if one.is_required)
    return meaning.noun or "object" if leaf.is_required and not has_id else None


def _noun(words: Sequence[str]) -> str:
    """Give the thing that words speak of, in the singular; empty if they say only which one."""
    words = [word for word in words if word not in _WHICH]
    if not words:
        return ""
    last = _singular(words[-1])
    if last == "request" and len(words) > 1:
        return f"{words[-2]}_request"
    return _ALIASES.get(last, last)


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def plural(noun: str) -> str:
    """Give the name of a collection of things."""
    noun = _ALIASES.get(noun, noun)
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    if noun.endswith(("ch", "sh", "x", "ss")):
        return f"{noun}es"
    return noun if noun.endswith("s") else f"{noun}s"


def _coerces(leaves: Iterable[ArgumentLeaf]) -> list[dict[str, Any]]:
    """Read second forms from descriptions."""
    entries = []
    for leaf in leaves:
        for types, form, said in _COERCIONS:
            if form == "url" and not (leaf.format in {"uri", "url"} or leaf.last in _URLS):
                continue
            if form == "folder" and leaf.last not in _PATHS:
                continue
            if leaf.types == types and said.search(leaf.description):
                entries.append({"from": leaf.pointer, "to": form})
                break
    return entries[:_MOST_ENTRIES]


# --- results


@dataclass(frozen=True, slots=True)
class _Item:
    """An object of a result."""

    pointer: str
    noun: str
    """Thing that it is, by the name of its list; empty if the name says nothing."""
    properties: Mapping[str, Any]
    is_listed: bool


def _items(root: Mapping[str, Any]) -> Iterator[_Item]:
    """Walk the objects of a result."""
    pending: list[tuple[object, str, str, bool, int]] = [(root, "", "", False, 0)]
    # References can form a circle.
    for _ in range(_MOST_SCHEMAS):
        if not pending:
            break
        schema, at, noun, is_listed, depth = pending.pop(0)
        own = resolved(root, schema)
        if own is None or depth > _MOST_RESULT_DEPTH:
            continue
        if isinstance(own.get("properties"), Mapping):
            yield _Item(at, noun, own["properties"], is_listed)
            for name, value in list(own["properties"].items())[:_MOST_LEAVES]:
                last = (words_of(str(name)) or [""])[-1]
                own_noun = "" if last in _LISTS else _noun((last,)) if last else ""
                pending.append((value, f"{at}/{_token(str(name))}", own_noun, is_listed, depth + 1))
        elif own.get("items") is not None:
            pending.append((own["items"], f"{at}/*", noun, True, depth + 1))


def _creates(output: Mapping[str, Any], meaning: ToolMeaning) -> list[dict[str, Any]]:
    """Find the id of a new thing: the outermost one."""
    for item in _items(output):
        noun = meaning.noun or item.noun
        if (name := _id_of(output, item, noun)) is not None:
            return [
                {
                    "id": f"{item.pointer}/{_token(name)}",
                    "collection": f"{meaning.system}.{plural(noun or 'object')}",
                }
            ]
    return []


def _introduces(
    output: Mapping[str, Any], meaning: ToolMeaning
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    introduces, pairs = [], []
    for item in _items(output):
        noun = item.noun or meaning.noun
        collection = f"{meaning.system}.{plural(noun or 'object')}"
        spelled = {"_".join(words_of(str(name))): str(name) for name in item.properties}
        id_ = _id_of(output, item, noun)
        if id_ is not None:
            pointer = f"{item.pointer}/{_token(id_)}"
            introduces.append({"from": pointer, "collection": collection})
            name = next(
                (spelled[one] for one in (*_RESULT_NAMES, f"{noun}_name") if one in spelled), None
            )
            if name is not None and "string" in scalar_types(output, item.properties[name]):
                pairs.append(
                    {
                        "id": pointer,
                        "name": f"{item.pointer}/{_token(name)}",
                        "collection": collection,
                    }
                )
        is_mail = "subject" in spelled
        for word, name in spelled.items():
            if _is_address(output, item.properties[name], word, is_mail=is_mail):
                star = "/*" if _is_list(output, item.properties[name]) else ""
                introduces.append({"from": f"{item.pointer}/{_token(name)}{star}", "type": "email"})
    return introduces[:_MOST_ENTRIES], pairs[:_MOST_ENTRIES]


def _id_of(root: Mapping[str, Any], item: _Item, noun: str) -> str | None:
    spelled = {"_".join(words_of(str(name))): str(name) for name in item.properties}
    for word in ("id", f"{noun}_id", f"{noun}_key", f"{noun}_number", "uuid", "key", "number"):
        name = spelled.get(word)
        if name is None or (word in {"key", "number"} and not item.is_listed):
            continue
        types = scalar_types(root, item.properties[name])
        if types and types <= {"string", "integer"} and not _is_list(root, item.properties[name]):
            return name
    return None


def _is_address(root: Mapping[str, Any], schema: object, word: str, *, is_mail: bool) -> bool:
    own = resolved(root, schema) or {}
    items = resolved(root, own.get("items")) or {}
    if scalar_types(root, schema) != {"string"}:
        return False
    if "email" in {own.get("format"), items.get("format")}:
        return True
    return word.rpartition("_")[2] in {"email", "emails"} or (is_mail and word in _RESULT_EMAILS)


def _is_list(root: Mapping[str, Any], schema: object) -> bool:
    return (resolved(root, schema) or {}).get("items") is not None


def _token(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
