"""Proposals: effects and tier of a tool, from the verb in its name, its hints and the names of its arguments.

A proposal is where a review starts. The verb alone says what a tool does; a hint (MCP `ToolAnnotations`) can raise
what the verb says, or contradict it, and never lowers it. A tool whose name says nothing, or whose hints contradict
its name, gets no proposal: it stays unreviewed, and is to be taken for one that executes, tier high. Descriptions are
not read: they are written by whoever wants the tool to be used.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from authz.tools.catalog.tool import Tool

__all__ = ["EFFECTS", "TIERS", "Proposal", "prefix_of", "propose", "words_of"]

EFFECTS: Final = ("read", "write", "delete", "export", "execute", "grant")
"""All effects, in order."""
TIERS: Final = ("low", "standard", "high", "critical")
"""All tiers, in order."""

_DEFAULT_TIER: Final = {
    "read": "standard",
    "write": "standard",
    "delete": "high",
    "export": "high",
    "execute": "high",
    "grant": "critical",
}


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_READ: Final = _set(
    "browse calculate check compare compute count describe diff download enumerate explain fetch find get grep help inspect list load "
    "lookup look peek query read retrieve scan screenshot search show snapshot summarize tail view watch whoami"
)
_INFORMATION: Final = _set(
    "content contents diff history index indexes info information log logs message messages metadata schema "
    "schemas screenshot size snapshot stat state statistics stats status summary tree usage version versions"
)
"""Nouns that, last in a name without a verb, are what the tool returns."""
_COMPUTE: Final = _set("convert decode echo encode hash sleep wait")
"""Verbs whose result comes from the arguments alone."""
_PUBLIC: Final = _set("date health now ping time timezone timezones version")
"""Words for public data."""
_WRITE: Final = _set(
    "accept acknowledge add append apply archive assign attach cancel change checkout clear clone close comment commit "
    "complete configure copy create define disable dismiss drag duplicate edit enable fork generate handle hover import "
    "increment init initialize insert install label link lock log make mark modify move mute new open patch pause pin "
    "post press push put reject rename reopen reorder replace reset resize resolve restart restore resume retry save schedule "
    "set snooze stage star start stash stop store subscribe sync tag toggle transfer transition trigger unassign unlink "
    "unlock unmute unpin unstar unsubscribe update upgrade upsert write emulate"
)
_STRONG_WRITE: Final = _set("click merge press rollback overwrite force rebase")
"""Writes that are hard to undo."""
_DELETE: Final = _set(
    "delete del destroy drop erase purge remove rm trash truncate uninstall unpublish wipe"
)
_FOR_GOOD: Final = _set("destroy drop erase purge truncate wipe")
_CONTAINERS: Final = _set(
    "account bucket cluster collection database db keyspace namespace organization project repo repository schema table "
    "tenant topic volume workspace"
)
_SEND: Final = _set(
    "broadcast email export forward mail message notify pay publish reply send share sms text transmit tweet upload"
)
_FORM: Final = _set("fill type submit")
"""Puts what the agent says into somebody else's page."""
_VISITS: Final = _set("goto navigate visit")
"""Goes where an argument says, or back."""
_OTHERS: Final = _VISITS | {"take"}
"""Verbs that count wherever they stand in a name."""
_EXECUTE: Final = _set("call debug deploy eval evaluate exec execute invoke run script")
_ANYTHING: Final = _set("bash cmd command powershell sh shell sudo terminal unsafe")
_GRANT: Final = _set("authorize grant impersonate invite permit promote revoke")
_RIGHTS: Final = _set(
    "acl admin administrator collaborator collaborators credential credentials member members owner permission "
    "permissions policy policies privilege privileges role roles token tokens"
)
_SECRETS: Final = _set(
    "cookie cookies credential credentials env environment key keys password passwords secret secrets token tokens"
)
_JUDGES: Final = _set("approval approve review")
"""Words for things that other people act on."""
_MESSAGES: Final = _set("mail message messages notification sms thread tweet")
_CODE: Final = _set("code command expression function script shell sql statement")
"""Arguments that hold a program."""
_REMOVING: Final = _set("archived delete deleted drop in_trash purge remove trashed")
"""Arguments that make a write a removal; also as the first part of a longer name."""
_FILES: Final = _set("attachment attachments file files paths")
_URLS: Final = _set("callback endpoint href link uri url urls webhook website")
_PEOPLE: Final = _set("bcc cc email emails recipient recipients to")
_ACCOUNTS: Final = _set(
    "account channel channel_id channelid chat chat_id iban phone phone_number user_id username"
)
_PATHS: Final = _set("file_path filepath filename path")
_NOISE: Final = _set("a an the api mcp tool and or of for in on to by with all my me")
_PLURALS: Final = {"repo": "repositories", "repository": "repositories"}


@dataclass(frozen=True, slots=True)
class Proposal:
    """Probable effects and tier of a tool."""

    effects: tuple[str, ...]
    """In the order of `EFFECTS`."""
    tier: str
    """One of `TIERS`."""
    why: str
    """Reason of the proposal."""
    resource: Mapping[str, str] | None = None
    """`collection` and `id`, where one argument plainly names what is acted on."""
    destination: Mapping[str, Any] | None = None
    """`from` and `type`, where arguments name where data goes; always there with the effect `export`."""

    def rule(self) -> dict[str, Any]:
        """Give the meaning as it stands in a `classify` rule.

        Returns:
            `effects`, `tier`, and `resource` and `destination` where there are any.
        """
        found: dict[str, Any] = {"effects": list(self.effects), "tier": self.tier}
        if self.resource is not None:
            found["resource"] = dict(self.resource)
        if self.destination is not None:
            found["destination"] = dict(self.destination)
        return found


@dataclass(slots=True)
class _Finding:
    effects: set[str] = field(default_factory=set)
    tier: str = "low"
    why: list[str] = field(default_factory=list)

    def add(self, effect: str, tier: str | None = None, why: str = "") -> None:
        self.effects.add(effect)
        self.at_least(tier or _DEFAULT_TIER[effect])
        self.why += [why] if why else []

    def at_least(self, tier: str) -> None:
        self.tier = max(self.tier, tier, key=TIERS.index)


def words_of(name: str) -> list[str]:
    """Split a name into its words.

    Args:
        name: As `listIssues`, `list_issues`, `API-list-issues`.

    Returns:
        The words, lower case.
    """
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    return [word.lower() for word in re.split(r"[^A-Za-z0-9]+", spaced) if word]


def prefix_of(tools: Iterable[Tool]) -> str:
    """Find the word that the name of every tool begins with, as in `browser_click`, `browser_type`.

    Args:
        tools: The tools of one server.

    Returns:
        The word; empty where there is none, or the server has one tool only.
    """
    first = [words[0] for tool in tools if (words := words_of(tool.name))]
    return first[0] if len(first) > 1 and len(set(first)) == 1 else ""


def propose(system: str, tool: Tool, prefix: str = "") -> Proposal | None:
    """Propose what a tool does.

    Args:
        system: The system that it belongs to.
        tool: The tool.
        prefix: The word that the names of all its tools begin with: see `prefix_of`.

    Returns:
        The proposal; None where the tool's name says nothing, or its hints contradict it.
    """
    own = set(words_of(system))
    words = words_of(tool.name)
    words = words[1:] if prefix and words[:1] == [prefix] else words
    words = [word for word in words if word not in _NOISE]
    words = [word for word in words if word not in own] or words
    found = _Finding()
    verb = _verb(words)
    if verb is None or not _by_verb(found, verb, words, tool):
        return None
    _by_arguments(found, tool)
    if not _by_hints(found, tool):
        return None
    destination = _destination(found, words, tool)
    effects = tuple(effect for effect in EFFECTS if effect in found.effects)
    resource = None if destination else _resource(system, tool)
    return Proposal(effects, found.tier, "; ".join(found.why), resource, destination)


def _verb(words: list[str]) -> str | None:
    """Find the word that says what is done: the first, the last, or the most dangerous one."""
    dangerous = (_DELETE - {"drop"}) | _GRANT | {"exec", "execute", "eval"}
    known = _READ | _COMPUTE | _WRITE | _STRONG_WRITE | _DELETE | _SEND | _FORM | _EXECUTE | _GRANT
    if not words:
        return None
    # A method of HTTP in front of a verb is how the call is made, and not what it does.
    if words[0] == "post" and words[1:2] and words[1] in _READ:
        return words[1]
    candidates = [word for word in (words[0], words[-1]) if word in known]
    candidates += [word for word in words if word in dangerous or word in _OTHERS]
    candidates += [word for word in (words[-1], words[0]) if word in _INFORMATION]
    return candidates[0] if candidates else None


def _by_verb(found: _Finding, verb: str, words: list[str], tool: Tool) -> bool:
    """Add what the verb says; False where it says nothing certain."""
    others = set(words) - {verb}
    arguments = _arguments(tool)
    drops_files = verb == "drop" and bool(arguments & (_FILES | {"data"}))
    for_good = verb in _FOR_GOOD and bool(others & _CONTAINERS or not others)
    message = verb in {"post", "create", "add"} and bool(others & _MESSAGES)
    # `git_log` returns the log; `log_event` writes one.
    informs = verb in _INFORMATION and words[-1] == verb
    pictures = verb == "take" and bool(others & {"screenshot", "snapshot"})
    computes = verb in _COMPUTE and not arguments & (_PATHS | _URLS | _FILES)
    public = bool(others) and others - {"current", "local", "utc"} <= _PUBLIC
    # The first that holds counts.
    meanings: tuple[tuple[bool, tuple[str, ...], str | None], ...] = (
        (verb in _GRANT, ("grant",), None),
        (verb in _DELETE and not drops_files, ("delete",), "critical" if for_good else None),
        (verb in _EXECUTE, ("execute",), "critical" if set(words) & _ANYTHING else None),
        (verb == "upload" or drops_files, ("export",), None),
        (verb == "export", ("read", "export"), None),
        (verb in _SEND or message, ("export",), None),
        (verb in _FORM, ("write", "export"), None),
        (verb in _VISITS, ("read",) if _urls(tool) else ("write",), None),
        (computes, ("read",), "low"),
        (verb in _STRONG_WRITE, ("write",), "high"),
        (verb in _READ or informs, ("read",), "low" if public else None),
        (pictures, ("read",), None),
        (verb in _WRITE and bool(others & _JUDGES), ("write",), "high"),
        (verb in _WRITE, ("write",), None),
    )
    meaning = next((one for one in meanings if one[0]), None)
    if meaning is None:
        return False
    for effect in meaning[1]:
        found.add(effect, meaning[2])
    found.why.append(f"verb `{verb}`")
    _by_nouns(found, others, verb)
    return True


def _by_nouns(found: _Finding, others: set[str], verb: str) -> None:
    changes = bool(found.effects & {"write", "delete"})
    if changes and others & _RIGHTS and "comment" not in others:
        found.add("grant", why="changes rights or credentials")
    if "read" in found.effects and others & _SECRETS:
        found.at_least("high")
        found.why.append("may return secrets")
    if others & _ANYTHING and "execute" not in found.effects and verb not in _READ:
        found.add("execute", why="runs commands")
    if changes and verb not in _DELETE and others & _DELETE:
        found.add("delete", why="a second verb removes")


def _arguments(tool: Tool) -> set[str]:
    return {"_".join(words_of(name)) for name in tool.properties}


def _by_arguments(found: _Finding, tool: Tool) -> None:
    for name in tool.properties:
        words = words_of(name)
        if not words:
            continue
        spelled = "_".join(words)
        if spelled in _CODE and _takes_text(tool, name) and "delete" not in found.effects:
            found.add("execute", why=f"argument `{name}` holds a program")
        removes = spelled in _REMOVING or words[0] in {"drop", "delete", "purge", "remove"}
        if removes and "write" in found.effects:
            found.add("delete", why=f"argument `{name}` removes")
    if _urls(tool) and found.effects & {"read", "write"}:
        found.add("export", why="an argument names a URL")


def _takes_text(tool: Tool, name: str) -> bool:
    kind = tool.properties[name].get("type")
    return kind in {"string", None} or (isinstance(kind, list) and "string" in kind)


def _by_hints(found: _Finding, tool: Tool) -> bool:
    """Raise what hints say; False where they contradict the name."""
    read_only = tool.hint("readOnlyHint")
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


def _urls(tool: Tool) -> list[str]:
    found = []
    for name, schema in tool.properties.items():
        words = words_of(name)
        if not _takes_text(tool, name) and not _is_list(schema):
            continue
        if schema.get("format") in {"uri", "url"} or (words and words[-1] in _URLS):
            found.append(name)
    return found


def _is_list(schema: Mapping[str, Any]) -> bool:
    items = schema.get("items")
    return (
        schema.get("type") == "array"
        and isinstance(items, Mapping)
        and items.get("type") == "string"
    )


def _destination(found: _Finding, words: list[str], tool: Tool) -> dict[str, Any] | None:
    if "export" not in found.effects:
        return None

    def named(names: Iterable[str]) -> list[str]:
        wanted = set(names)
        listed = [name for name in tool.properties if "_".join(words_of(name)) in wanted]
        return [
            name
            for name in listed
            if tool.properties[name].get("type") == "string" or _is_list(tool.properties[name])
        ]

    people = named(_PEOPLE)
    mail = bool(set(words) & {"mail", "email", "emails"}) or any(
        tool.properties[name].get("format") == "email" or "email" in name.lower() for name in people
    )
    for names, kind in (
        (people if mail else [], "email"),
        (
            [
                name
                for name in _urls(tool)
                if tool.properties[name].get("type") in {"string", "array"}
            ],
            "url",
        ),
        (named(_ACCOUNTS) or people, "account"),
    ):
        if names:
            return {"from": [_pointer(name) for name in names], "type": kind}
    # No argument says where: every call counts as one to the least trusted class.
    return {"type": "url"}


def _resource(system: str, tool: Tool) -> dict[str, str] | None:
    """Name what is acted on, where exactly one argument that must be there says it."""
    candidates = []
    for name in tool.properties:
        words = words_of(name)
        kind = tool.properties[name].get("type")
        if name not in tool.required or kind not in {"string", "integer"} or not words:
            continue
        if "_".join(words) in _PATHS:
            candidates.append((name, "files"))
        elif (words[-1] == "path" and len(words) > 1) or (
            words[-1] in {"id", "number", "key"} and len(words) > 1
        ):
            candidates.append((name, _plural(words[-2])))
        elif words == ["id"]:
            candidates.append((name, "objects"))
    scoped = _arguments(tool) & _set(
        "owner repo repository database collection namespace project_id organization"
    )
    if len(candidates) != 1 or scoped - {"_".join(words_of(candidates[0][0]))}:
        return None
    name, collection = candidates[0]
    return {"collection": f"{system}.{collection}", "id": _pointer(name)}


def _plural(noun: str) -> str:
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return noun if noun.endswith("s") else f"{noun}s"


def _pointer(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")
