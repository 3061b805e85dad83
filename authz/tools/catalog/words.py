"""Words of tool names: which of them are verbs, and the prefix that all tools of a server share."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from authz.tools.catalog.tool import Tool

__all__ = [
    "ANYTHING",
    "CODE",
    "CONTAINERS",
    "DELETE",
    "EXECUTE",
    "FORM",
    "FOR_GOOD",
    "GRANT",
    "JUDGES",
    "MESSAGES",
    "PUBLIC",
    "QUERIES",
    "READ",
    "RIGHTS",
    "SECRETS",
    "SEND",
    "STRONG_WRITE",
    "VISITS",
    "WRITE",
    "common_prefixes",
    "described_verbs",
    "name_verbs",
    "stem",
    "without_prefix",
    "word_set",
    "words_of",
]


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


# --- verbs that only return data

_CLEAR_READ: Final = word_set(
    "analyze browse calculate compare compute convert decode describe encode enumerate estimate explain explore extract fetch find "
    "get identify inspect lookup parse read retrieve summarize validate whoami"
)
"""Verbs of reading that are not nouns, too: they count wherever they stand in a name."""
READ: Final = _CLEAR_READ | word_set(
    "audit check count diff download echo filter grep hash help list look outline peek ping preview query scrape search "
    "show sleep tail view wait"
)
"""Verbs of reading. The ones that can be nouns (`list`, `query`) count only as the first word of a name."""

# --- verbs that change something

WRITE: Final = word_set(
    "accept acknowledge activate adapt add adjust advance alter annotate append apply archive arrange assign associate attach autofill "
    "batch block book bookmark branch build bump cancel capture change checkout choose cherry clean clear clone close collapse comment "
    "commit compact complete compose configure confirm connect copy cordon create customize cut deactivate decline deduplicate "
    "define defer deploy deprecate detach disable disassociate disconnect dismiss drag draw duplicate edit emulate enable end enqueue "
    "enroll exit expand extend favorite finish fix flag flip follow fork format freeze generate handle hide hold hover import increment index "
    "ingest init initialize insert install instantiate issue join keep label launch leave like link lock log login logout make manage map mark "
    "migrate modify move mute name new open optimize order pack park patch pause perform persist pick pin place plan populate post prepare "
    "press prioritize process protect provision pull push put quarantine queue react reassign rebuild record recreate redeploy refresh regenerate register "
    "reindex reject release relink reload rename render reopen reorder replace reply replicate repair report request reschedule reserve "
    "reset resize resolve restart restore restrict resume retry return revert review rewrite roll rollout rotate save scale schedule seed select set "
    "setup snooze solve sort spawn split squash stage star start stop store submit subscribe suspend swap switch sync synchronize tag take "
    "terminate toggle track train transfer transform transition translate trigger unarchive unassign unblock uncordon undo unfollow unlink unlock "
    "unmute unpin unregister unsnooze unstage unstar unsubscribe untag unwatch update upgrade upsert use vote watch worktree write"
) - word_set("download convert")
STRONG_WRITE: Final = word_set(
    "click merge press rollback overwrite force rebase drain evict kill terminate reboot shutdown rotate migrate scale"
)
"""Writes that are hard to undo."""
DELETE: Final = word_set(
    "clean cleanup delete del destroy drop erase expunge prune purge remove rm teardown trash truncate uninstall unpublish unset wipe"
)
FOR_GOOD: Final = word_set("destroy drop erase purge truncate wipe")
SEND: Final = word_set(
    "broadcast email export forward mail message notify pay publish refund reply send share sms text transmit tweet upload"
)
FORM: Final = word_set("fill type submit")
"""Puts what the agent says into somebody else's page."""
VISITS: Final = word_set("goto navigate visit crawl")
"""Opens the page that an argument names."""
EXECUTE: Final = word_set(
    "call debug eval evaluate exec execute interact invoke run script spawn deploy launch"
)
GRANT: Final = word_set(
    "allow authenticate authorize elevate grant impersonate invite permit promote revoke unshare"
)

_DESCRIBED: Final = word_set(
    "add append approve archive assign cancel change close create delete deploy destroy disable edit enable erase execute "
    "forward grant insert install invite kill merge modify move overwrite pay post publish purge push remove rename replace "
    "reply restart revoke schedule send submit terminate transfer trigger uninstall unpublish update upload upsert wipe write"
)
"""Verbs of changing that count in a description; the others (`returns`, `handles`, `runs a search`) are said of tools that read, too."""
_ACTS: Final = WRITE | STRONG_WRITE | DELETE | SEND | FORM | VISITS | EXECUTE | GRANT
_NOUNS: Final = word_set(
    "batch block book bookmark branch build call change clean comment commit copy crawl cut debug draft email end export fill fix flag "
    "follow force fork format hold merge import index invite issue label launch like link lock log login mail make map mark "
    "message move name new open order pack patch pause permit pick pin place plan plugin post press process pull push queue record refresh "
    "release reply report request reserve reset return review roll run save scale schedule script seed select set setup share sms split "
    "stage star start stop store submit switch sync tag take text track train transfer transform transition translate "
    "trigger tweet type update upgrade use vote watch worktree message"
)
"""Verbs that can be nouns: behind a verb of reading they say what is read, as in `get_commit`."""
_JOINS: Final = word_set("and or then")
_PREPOSED: Final = word_set("batch bulk multi quick")
_NOISE: Final = word_set("a an the api mcp tool of for in on to by with from all my me as")

# --- nouns

PUBLIC: Final = word_set("date now ping time timezone timezones")
"""Words for public data."""
CONTAINERS: Final = word_set(
    "account bucket cluster collection database db keyspace namespace organization project repo repository schema table "
    "tenant topic volume workspace"
)
CODE: Final = word_set(
    "code command commands cypher expression function script shell sql statement"
)
"""Arguments that hold a program."""
QUERIES: Final = word_set("query queries statement sql")
"""Arguments, and last words of names, that hold a program if both do."""
ANYTHING: Final = word_set("bash cmd command powershell sh shell sudo terminal unsafe")
RIGHTS: Final = word_set(
    "acl admin administrator collaborator collaborators credential credentials member members owner permission "
    "permissions policy policies privilege privileges role roles sharing token tokens"
)
SECRETS: Final = word_set(
    "cookie cookies credential credentials env environment key keys password passwords secret secrets token tokens"
)
JUDGES: Final = word_set("approval approve review")
"""Words for things that other people act on."""
MESSAGES: Final = word_set("mail message messages notification sms thread tweet")

_MOST_PREFIX: Final = 3
_SENTENCES: Final = 2
_MOST_TEXT: Final = 2_000


def words_of(name: str) -> list[str]:
    """Split a name into its words.

    Args:
        name: As `listIssues`, `list_issues`, `API-list-issues`.

    Returns:
        The words, lower case.
    """
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    spaced = re.sub(r"([A-Z])([A-Z][a-z])", r"\1 \2", spaced)
    return [word.lower() for word in re.split(r"[^A-Za-z0-9]+", spaced) if word]


# --- prefixes


def common_prefixes(tools: Iterable[Tool]) -> frozenset[tuple[str, ...]]:
    """Find the prefixes that a server puts before the names of several of its tools, as in `jira_get_issue`, `jira_create_issue`.

    Args:
        tools: The tools of one server.

    Returns:
        Prefixes, each of one to three words, none of them a verb.
    """
    names = [words for tool in tools if (words := _bare_words(tool.name))]
    followers: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for words in names:
        for length in range(1, min(_MOST_PREFIX, len(words) - 1) + 1):
            if _is_verb(words[length - 1]):
                break
            followers[tuple(words[:length])].add(words[length])
    # Two different verbs that are nothing else show that the words before them are a prefix, and not a verb that we do not know:
    # `sanitize_list` and `sanitize_query` share no prefix.
    return frozenset(
        prefix
        for prefix, next_words in followers.items()
        if sum(word in _CLEAR_READ or word in _ACTS - _NOUNS for word in next_words) > 1
    )


def without_prefix(
    name: str, system: str, prefixes: frozenset[tuple[str, ...]] = frozenset()
) -> list[str]:
    """Split a tool's name into words, without the words that say whose tool it is.

    Args:
        name: Name of the tool, for example `mcp__github__list_issues`.
        system: System of the tool.
        prefixes: Those of the server's names.

    Returns:
        The words; the last one always stays.
    """
    own = set(words_of(system))
    words = _bare_words(name)
    while len(words) > 1:
        longest = max((len(one) for one in prefixes if tuple(words[: len(one)]) == one), default=0)
        if longest and longest < len(words):
            words = words[longest:]
        elif words[0] in own and not _is_verb(words[0]):
            words = words[1:]
        else:
            break
    return words


def _bare_words(name: str) -> list[str]:
    """Words without `mcp__<server>__`, as clients spell the tools of several servers, and without `API-`."""
    match = re.fullmatch(r"mcp__.+?__(.+)", name)
    words = words_of(match[1] if match else name)
    while len(words) > 1 and words[0] in {"api", "mcp", "tool"}:
        words = words[1:]
    return words


# --- verbs


def _is_verb(word: str) -> bool:
    return word in READ or word in _ACTS


def name_verbs(words: Sequence[str]) -> tuple[str, ...]:
    """Find the verbs of a name: everything that the tool says it does.

    Args:
        words: Words of the name, without prefix.

    Returns:
        The verbs, in order; none if the name does not say what is done. If all are of `READ`, the name says
        that the tool reads.
    """
    joined = {at + 1 for at, word in enumerate(words) if word in _JOINS}
    kept = [
        (word, at in joined)
        for at, word in enumerate(words)
        if word not in _NOISE and word not in _JOINS
    ]
    while len(kept) > 1 and kept[0][0] in _PREPOSED:
        kept = kept[1:]
    if not kept:
        return ()
    return _verbs(kept, checks=list(words[:2]) in (["check", "in"], ["check", "out"]))


def _verbs(kept: Sequence[tuple[str, bool]], *, checks: bool) -> tuple[str, ...]:
    first, rest = kept[0][0], kept[1:]
    # A method of HTTP in front of a verb is the transport of the call, not its effect.
    if first == "post" and [word for word, _ in rest] in (["search"], ["query"]):
        return (rest[0][0],)
    if checks:
        return ("checkout",)
    unmistakable = tuple(
        word for word, is_joined in rest if word in _ACTS - _NOUNS or (is_joined and _is_verb(word))
    )
    if _is_verb(first):
        is_noun = (first in _NOUNS or (first in READ and first not in _CLEAR_READ)) and not any(
            is_joined for _, is_joined in rest
        )
        # `email_send`, `list_create`: a noun, and then what is done with it.
        return unmistakable if unmistakable and is_noun else (first, *unmistakable)
    # The first word says nothing: `network_request` and `approve_request` have no verb that is known.
    reads = tuple(word for word, _ in rest if word in _CLEAR_READ)
    acts = tuple(word for word, _ in rest if word in _ACTS)
    return (*acts, *reads) if unmistakable or reads else ()


def described_verbs(description: str) -> tuple[str, ...]:
    """Find verbs of changing in the first sentences of a description.

    A description can add a verb and never takes one away: it is written by the author of the server.

    Args:
        description: The description.

    Returns:
        Such verbs, in order, as they stand in `WRITE` and the other lists.
    """
    text = description[:_MOST_TEXT]
    found: list[str] = []
    sentences = re.split(r"(?<=[.!?])\s+|\n+", text.strip())
    for sentence in sentences[:_SENTENCES]:
        words = re.findall(r"[A-Za-z]+|[,;:/&()]", sentence)
        for at, word in enumerate(words):
            before = words[at - 1].lower() if at else ""
            starts = at == 0 or before in {"and", "or", "then", "&", "/", "also"}
            verb = stem(word.lower())
            # `Lists releases and updates`: a noun, not an action.
            is_noun = verb in _NOUNS and at > 0
            if starts and verb in _DESCRIBED and not is_noun:
                found.append(verb)
    return tuple(dict.fromkeys(found))


def stem(word: str) -> str:
    """Give the verb of a third person: `deletes`, `copies`, `pushes`.

    Args:
        word: Word in lower case.

    Returns:
        The verb if a list has it, otherwise the word.
    """
    candidates = [word]
    if word.endswith("ies"):
        candidates.append(f"{word[:-3]}y")
    if word.endswith("es"):
        candidates.append(word[:-2])
    if word.endswith("s"):
        candidates.append(word[:-1])
    return next((one for one in candidates if _is_verb(one)), word)
