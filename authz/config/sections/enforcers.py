"""`enforcers`: callers that may ask about other agents."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import zip_longest
from typing import Final

from pydantic import Field

from authz.config.addresses import host_and_port
from authz.config.document import Path
from authz.config.findings import Finding
from authz.config.sections.listeners import DecisionListener, Lane
from authz.config.types import SYSTEM_ID, TRUST_DOMAIN, Name, Strict, Text

__all__ = ["Enforcer", "Relay", "ReportWay", "enforcer_findings"]

_ASKS: Final = re.compile(rf"system:(?:\*|{SYSTEM_ID.pattern})")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]+")
_MOST_SEGMENTS: Final = 32
_MAX_PATTERN: Final = 2048


class Relay(StrEnum):
    """A fact about the caller that an enforcer may relay."""

    PRINCIPAL = "principal"
    TASK = "task"
    CONFIDENCE = "confidence"
    LABELS = "labels"
    PROMPT = "prompt"
    SESSION = "session"


class ReportWay(StrEnum):
    """Way in which an enforcer reports the results of permitted operations."""

    SDK = "sdk"
    ACCESS_LOG = "access_log"


class Enforcer(Strict):
    """A caller that may ask about other agents (a policy enforcement point): a TLS peer (`match`) or a unix socket (`listener`)."""

    name: Name
    """Its name, in policies and records."""
    match: Text | None = None
    """SPIFFE IDs of the TLS peers that are this enforcer. `*` stands for one whole path segment. If several enforcers match a peer, the
    most specific counts. Needs a listener with `client_ca_file`.
    """
    listener: Name | None = None
    """The unix-socket listener whose callers are this enforcer. The mode of the socket's folder decides who may open it."""
    asks: tuple[Text, ...] = Field(default=(), max_length=1000)
    """Systems that it may ask about: `system:crm`, or `system:*`; required."""
    relays: tuple[Relay, ...] = Field(default=(), max_length=8)
    """Facts about the agent that are accepted on its word. `principal`: the agent's identity, as Envoy verified it on its own mTLS
    connection (`source.principal`). `labels`: the bundle's labels of a call, by the request's `labels` or, of a proxy, by `labels` of the
    namespace `authz` in its metadata. `prompt`: the text of a user, beside that user's token; such an enforcer is a front end, and no entry
    of the bundle's `agents` may match it. `session`: the context of the agent's session, by the request's `session_context` or, of a proxy,
    by `session_context` of the namespace `authz` in its metadata; likewise a front end. `task`, `confidence`: not in this version.
    """
    uids: tuple[int, ...] = Field(default=(), max_length=64)
    """User IDs of the processes that may be this enforcer, with `listener` on the fast lane. Any other process is refused. Required where
    `listener` is combined with `prompt` or `session` in `relays`.
    """
    reports: ReportWay | None = None
    """Way in which it reports the results of permitted operations. `sdk`: by `Report`. `access_log`: by Envoy's access log service. Its
    reports count if the bundle names the same way for the system (`reports`).
    """


def enforcer_findings(
    enforcers: Sequence[Enforcer],
    decisions: Mapping[str, DecisionListener],
    domains: Collection[str],
) -> Iterator[Finding]:
    """Yield errors of `enforcers` that the types cannot express."""
    taken: dict[str, str] = {}
    patterns: dict[str, str] = {}
    names: set[str] = set()
    for index, enforcer in enumerate(enforcers):
        path: Path = ("enforcers", index)
        if enforcer.name in names:
            yield Finding(path, f"enforcer `{enforcer.name}` is named twice.", "Rename one.")
        names.add(enforcer.name)
        yield from _asks(path, enforcer)
        yield from _relays(path, enforcer, domains)
        yield from _uids(path, enforcer, decisions)
        yield from _reports(path, enforcer, decisions)
        if enforcer.match is not None:
            yield from _match(path, enforcer.name, enforcer.match, decisions, domains)
            yield from _ties(path, enforcer.name, enforcer.match, patterns)
            patterns.setdefault(enforcer.match, enforcer.name)
        yield from _listener(path, enforcer, decisions, taken)


def _listener(
    path: Path,
    enforcer: Enforcer,
    decisions: Mapping[str, DecisionListener],
    taken: dict[str, str],
) -> Iterator[Finding]:
    """Yield errors of the socket that an enforcer is known by. `taken`: enforcers by the listener of each."""
    name = enforcer.listener
    if enforcer.match is not None:
        if name is not None:
            yield Finding(
                path,
                f"enforcer `{enforcer.name}` has both `match` and `listener`. Any process that opens the socket would be this "
                "enforcer without a certificate.",
                "Keep one; for both ways in, give the other an entry and a name of its own.",
            )
    elif name is None:
        yield Finding(
            path,
            f"enforcer `{enforcer.name}` has neither `match` nor `listener`. No caller could be this enforcer.",
            "Add match: the SPIFFE id of a TLS peer; or listener: the name of a unix-socket listener.",
        )
    else:
        yield from _socket((*path, "listener"), enforcer.name, name, decisions, taken.get(name))
        taken[name] = enforcer.name


def _socket(
    path: Path,
    enforcer: str,
    name: str,
    decisions: Mapping[str, DecisionListener],
    other: str | None,
) -> Iterator[Finding]:
    listener = decisions.get(name)
    if listener is None:
        declared = ", ".join(sorted(decisions)) or "none"
        what = f"enforcer `{enforcer}` names listener `{name}`, which does not exist."
        yield Finding(path, what, f"Declared: {declared}.")
    elif host_and_port(listener.address) is not None:
        yield Finding(
            path,
            f"enforcer `{enforcer}` is bound to `{name}`, which is not a unix socket. "
            "Any caller that reaches the port would be this enforcer.",
            "Use a unix-socket listener, the mode of whose folder says who may open it; or match: its SPIFFE id.",
        )
    elif other is not None:
        what = f"enforcers `{other}` and `{enforcer}` share a listener."
        yield Finding(path, what, "Give each its own socket.")


def _match(
    path: Path,
    name: str,
    pattern: str,
    decisions: Mapping[str, DecisionListener],
    domains: Collection[str],
) -> Iterator[Finding]:
    """Yield errors by which a pattern could never match a peer."""
    at: Path = (*path, "match")
    domain, slash, rest = pattern.removeprefix("spiffe://").partition("/")
    segments = rest.split("/")
    is_plain = all(
        segment == "*" or (_SEGMENT.fullmatch(segment) and segment not in {".", ".."})
        for segment in segments
    )
    if (
        not pattern.startswith("spiffe://")
        or not slash
        or not TRUST_DOMAIN.fullmatch(domain)
        or not is_plain
        or len(segments) >= _MOST_SEGMENTS
        or len(pattern) > _MAX_PATTERN
    ):
        yield Finding(
            at,
            f"`{pattern}` is neither a SPIFFE id nor a pattern of SPIFFE ids. No caller could be enforcer `{name}`.",
            "Write `spiffe://trust.domain/ns/tools/sa/crm`; `*` stands for one whole segment of the path.",
        )
    elif domain not in domains:
        trusted = ", ".join(sorted(domains)) or "none"
        yield Finding(
            at,
            f"enforcer `{name}` is of trust domain `{domain}`, which is not trusted. Its certificate would be refused.",
            f"Add it under trust.domains; there: {trusted}.",
        )
    if not any(listener.is_mutual for listener in decisions.values()):
        yield Finding(
            at,
            f"enforcer `{name}` is known by its certificate, but no listener asks for one. No caller could be it.",
            "Give a listener tls: {client_ca_file: ...}.",
        )


def _ties(path: Path, name: str, pattern: str, before: Mapping[str, str]) -> Iterator[Finding]:
    """Yield earlier patterns that match an id of this one, if neither is more specific."""
    at: Path = (*path, "match")
    for other, first in before.items():
        if other == pattern:
            yield Finding(
                at,
                f"enforcers `{first}` and `{name}` have the same `match`. Which one a peer is would be chance.",
                "Remove one, or make one entry of both.",
            )
        elif _overlap(pattern, other) and _covers(pattern, other) == _covers(other, pattern):
            yield Finding(
                at,
                f"`{pattern}` of enforcer `{name}` and `{other}` of `{first}` match one id, and neither is the more "
                "specific. Which one a peer is would be chance.",
                "Narrow one of them.",
            )


def _overlap(one: str, other: str) -> bool:
    pairs = list(zip_longest(one.split("/"), other.split("/")))
    return all(a == b or (a and b and "*" in {a, b}) for a, b in pairs)


def _covers(wide: str, narrow: str) -> bool:
    pairs = list(zip_longest(wide.split("/"), narrow.split("/")))
    return all(a == b or (b and a == "*") for a, b in pairs)


def _relays(path: Path, enforcer: Enforcer, domains: Collection[str]) -> Iterator[Finding]:
    for index, relay in enumerate(enforcer.relays):
        if relay not in {Relay.PRINCIPAL, Relay.LABELS, Relay.PROMPT, Relay.SESSION}:
            yield Finding(
                (*path, "relays", index),
                f"enforcer `{enforcer.name}` relays `{relay}`, which is not in this version.",
                "Remove it; without it, Authz does not believe these statements of the enforcer.",
            )
    if Relay.PRINCIPAL in enforcer.relays and not domains:
        yield Finding(
            (*path, "relays"),
            f"enforcer `{enforcer.name}` relays principals, but no trust domain is configured. Each would be refused.",
            "Add trust.domains.",
        )


def _uids(
    path: Path, enforcer: Enforcer, decisions: Mapping[str, DecisionListener]
) -> Iterator[Finding]:
    """Yield a front end behind a socket that any agent of the same folder could open."""
    is_socket = enforcer.match is None
    listener = decisions.get(enforcer.listener or "")
    facts = {Relay.PROMPT: "prompts", Relay.SESSION: "contexts of sessions"}
    spoken = next((words for relay, words in facts.items() if relay in enforcer.relays), None)
    if is_socket and spoken is not None and not enforcer.uids:
        yield Finding(
            (*path, "relays"),
            f"enforcer `{enforcer.name}` relays {spoken}, and any process that opens its socket counts as this enforcer. An agent that may open it could speak "
            "for its user.",
            "Add uids: [...], the users that the front end runs as; or match: its SPIFFE id.",
        )
    if not enforcer.uids:
        return
    at: Path = (*path, "uids")
    if not is_socket:
        yield Finding(
            at,
            f"enforcer `{enforcer.name}` is known by its certificate, and has `uids`.",
            "Remove uids.",
        )
    elif listener is not None and listener.lane is not Lane.FAST:
        yield Finding(
            at,
            f"enforcer `{enforcer.name}` has `uids`, but listener `{enforcer.listener}` is of the Python lane, which is not "
            "told the user of a process.",
            "Give the listener lane: fast, which then answers Tasks.Start and Tasks.Extend too; or match: its SPIFFE id.",
        )
    for uid in enforcer.uids:
        if not 0 <= uid < 2**32 - 1:
            yield Finding(at, f"`{uid}` is not a user id.", "Give the number that `id -u` prints.")


def _reports(
    path: Path, enforcer: Enforcer, decisions: Mapping[str, DecisionListener]
) -> Iterator[Finding]:
    if enforcer.reports is not ReportWay.ACCESS_LOG:
        return
    ways = [
        listener
        for name, listener in decisions.items()
        if (name == enforcer.listener if enforcer.match is None else listener.is_mutual)
    ]
    if ways and all(listener.lane is Lane.FAST for listener in ways):
        yield Finding(
            (*path, "reports"),
            f"enforcer `{enforcer.name}` reports by access log, which the fast lane does not take. Each of its permits would "
            "count as used, even if the call failed.",
            "Let it log to a listener of the Python lane"
            + ("." if enforcer.match is not None else ", on which it then also asks."),
        )


def _asks(path: Path, enforcer: Enforcer) -> Iterator[Finding]:
    if not enforcer.asks:
        yield Finding(
            path,
            f"enforcer `{enforcer.name}` may ask about no system.",
            'Add asks: ["system:crm"], or ["system:*"] for all.',
        )
    for index, asked in enumerate(enforcer.asks):
        if not _ASKS.fullmatch(asked):
            yield Finding(
                (*path, "asks", index),
                f"`{asked}` names no system.",
                'Write "system:crm", or "system:*" for all.',
            )
