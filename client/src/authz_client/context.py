"""Context of a call: the task that the code works on, and the caller that a tool server works for.

Both are context variables: they follow `await` and tasks of asyncio, and threads only by `contextvars.copy_context`.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from authz_client.v1 import decision_pb2

__all__ = [
    "CREDENTIAL_HEADER",
    "TASK_HEADER",
    "TASK_META",
    "Caller",
    "acting_for",
    "caller",
    "current_task",
    "outgoing_task",
    "within_task",
]

TASK_HEADER: Final = "authz-task"
"""The header, and the gRPC metadata, that names the task."""
CREDENTIAL_HEADER: Final = "authz-credential"
"""The header that carries a task credential where `authorization` holds another token."""
TASK_META: Final = "dev.authz/task"
"""The member of an MCP request's `_meta` that names the task."""
_SUBJECT_HEADER: Final = "authz-subject"
_BAGGAGE: Final = "authz.task"


@dataclass(frozen=True, slots=True)
class _Working:
    """The task that the code works on, and the task that it passes to others."""

    acting: str
    outgoing: str


_working: ContextVar[_Working | None] = ContextVar("authz_task", default=None)
_caller: ContextVar["Caller | None"] = ContextVar("authz_caller", default=None)
_subject: ContextVar[str | None] = ContextVar("authz_subject", default=None)


def current_task() -> str | None:
    """Tell which task the code works on.

    Returns:
        Id of the task. `None` outside a task.
    """
    working = _working.get()
    return working.acting or None if working is not None else None


def outgoing_task() -> str | None:
    """Tell which task calls to others carry: the current one, or a child within the block that delegated it.

    Returns:
        Id of the task. `None` outside a task.
    """
    working = _working.get()
    return working.outgoing or None if working is not None else None


@contextmanager
def within_task(task: str) -> Iterator[None]:
    """Work on a task that somebody else started, for example the task that a request names.

    Nothing is started or ended. Whether the task is the caller's, the server decides with each call.

    Args:
        task: Its id.

    Yields:
        Nothing.
    """
    with working(task, task):
        yield


@contextmanager
def working(acting: str, outgoing: str) -> Iterator[None]:
    """Set both tasks.

    Args:
        acting: The task that the code works on.
        outgoing: The task that calls to others carry.

    Yields:
        Nothing.
    """
    before = enter(acting, outgoing)
    try:
        yield
    finally:
        leave(before)


def enter(acting: str, outgoing: str) -> "_Working | None":
    """Set both tasks until `leave`.

    Args:
        acting: The task that the code works on.
        outgoing: The task that calls to others carry.

    Returns:
        The value before.
    """
    before = _working.get()
    _working.set(_Working(acting, outgoing))
    return before


def leave(before: "_Working | None") -> None:
    """Restore the context before `enter`.

    Args:
        before: Result of `enter`.
    """
    # Not by a token: a block may be left in another context than it was entered in, as by a fixture.
    _working.set(before)


@contextmanager
def acting_for(subject_token: str) -> Iterator[None]:
    """Act for a subject if the task names none.

    Args:
        subject_token: The subject's token.

    Yields:
        Nothing.
    """
    before = _subject.get()
    _subject.set(subject_token)
    try:
        yield
    finally:
        _subject.set(before)


def current_subject() -> str | None:
    """Tell whose token `acting_for` gave.

    Returns:
        The token. `None` outside `acting_for`.
    """
    return _subject.get()


@dataclass(frozen=True, slots=True, repr=False)
class Caller:
    """Who called a tool server, as far as its request says it; the decision proves it or refuses it."""

    agent_token: str | None = None
    """The agent's credential."""
    subject_token: str | None = None
    """The subject's credential."""
    task: str | None = None
    """The task that it names."""
    scheme: decision_pb2.EvidenceScheme.ValueType = decision_pb2.EVIDENCE_SCHEME_BEARER
    """How the agent's credential was presented."""
    proof: str = ""
    """Proof of possession of the credential that was shown by the scheme DPoP."""
    credential_token: str | None = None
    """The task credential, where it came in a header of its own."""
    credential_scheme: decision_pb2.EvidenceScheme.ValueType = decision_pb2.EVIDENCE_SCHEME_BEARER
    """How the task credential was presented."""
    http_method: str = ""
    """Method of the request, which a proof must be for."""
    http_uri: str = ""
    """URL of the request as its sender knows it, which a proof must be for."""
    conflict: str = ""
    """Part of the request that occurs twice with different values; every question about such a caller is denied."""

    def __repr__(self) -> str:
        """Shows no credential."""
        return f"Caller(task={self.task!r})"

    @staticmethod
    def from_headers(
        headers: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]],
        *,
        meta: Mapping[str, object] | None = None,
        method: str = "",
        url: str = "",
    ) -> "Caller":
        """Read the headers of an HTTP request, or the metadata of a gRPC call.

        Args:
            headers: As a mapping, or as pairs, such as ASGI's; names in any case.
            meta: `_meta` of the MCP request, where there is one.
            method: Method of the HTTP request; without it and the URL no DPoP proof is taken.
            url: Its URL as its sender knows it: of the public name, not of a host behind a proxy.

        Returns:
            The caller.
        """
        pairs: Iterable[tuple[str | bytes, str | bytes]]
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        found: dict[str, list[str]] = {}
        for name, value in pairs:
            found.setdefault(_text(name).lower(), []).append(_text(value))
        conflicts = [
            name
            for name in (
                "authorization",
                _SUBJECT_HEADER,
                TASK_HEADER,
                "dpop",
                CREDENTIAL_HEADER,
            )
            if len(found.get(name, ())) > 1
        ]
        agent, scheme = _authorization(_only(found, "authorization"))
        if agent is None and found.get("authorization"):
            conflicts.append("authorization")
        credential, credential_scheme = _credential(
            _only(found, CREDENTIAL_HEADER),
            proved=bool(found.get("dpop")) and scheme != decision_pb2.EVIDENCE_SCHEME_DPOP,
        )
        if credential is None and found.get(CREDENTIAL_HEADER):
            conflicts.append(CREDENTIAL_HEADER)
        named = (meta or {}).get(TASK_META)
        if named is not None and not isinstance(named, str):
            conflicts.append(TASK_META)
        said = {
            _only(found, TASK_HEADER),
            named if isinstance(named, str) else None,
            *_of_baggage(found.get("baggage", ())),
        } - {None, ""}
        if len(said) > 1:
            conflicts.append("the task")
        return Caller(
            agent_token=agent,
            subject_token=_bare(_only(found, _SUBJECT_HEADER)),
            task=min((task for task in said if task), default=None),
            scheme=scheme,
            proof=_only(found, "dpop") or "",
            credential_token=credential,
            credential_scheme=credential_scheme,
            http_method=method,
            http_uri=url,
            conflict=", ".join(dict.fromkeys(conflicts)),
        )


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _only(found: Mapping[str, list[str]], name: str) -> str | None:
    values = found.get(name, ())
    return values[0].strip() if len(values) == 1 else None


def _authorization(value: str | None) -> tuple[str | None, decision_pb2.EvidenceScheme.ValueType]:
    """The token of an `authorization` value, and its scheme; of any other form: none."""
    scheme, _, token = (value or "").partition(" ")
    token = token.strip()
    known = {
        "bearer": decision_pb2.EVIDENCE_SCHEME_BEARER,
        "dpop": decision_pb2.EVIDENCE_SCHEME_DPOP,
    }.get(scheme.lower())
    if known is None or not token or " " in token or "," in token:
        return None, decision_pb2.EVIDENCE_SCHEME_BEARER
    return token, known


def _credential(
    value: str | None, *, proved: bool
) -> tuple[str | None, decision_pb2.EvidenceScheme.ValueType]:
    """The task credential of a header of its own, with or without a scheme; a bare one with a proof is by DPoP."""
    if value is None:
        return None, decision_pb2.EVIDENCE_SCHEME_BEARER
    if " " in value:
        return _authorization(value)
    scheme = decision_pb2.EVIDENCE_SCHEME_DPOP if proved else decision_pb2.EVIDENCE_SCHEME_BEARER
    return value or None, scheme


def _bare(value: str | None) -> str | None:
    """A token with or without `Bearer`."""
    if not value:
        return None
    scheme, _, rest = value.partition(" ")
    return rest.strip() if scheme.lower() == "bearer" and rest else value


def _of_baggage(values: Iterable[str]) -> Iterator[str]:
    """The tasks that W3C baggage names."""
    for value in values:
        for member in value.split(","):
            name, equals, text = member.split(";", 1)[0].partition("=")
            if equals and name.strip() == _BAGGAGE:
                yield unquote(text.strip())


@contextmanager
def caller(who: Caller) -> Iterator[None]:
    """Ask about a caller: within the block a client with `enforcer=True` asks whether *it* may.

    Args:
        who: The caller.

    Yields:
        Nothing.
    """
    before = _caller.get()
    _caller.set(who)
    try:
        yield
    finally:
        _caller.set(before)


def set_caller(who: Caller) -> None:
    """Ask about a caller until the context ends, for code that runs in a copy of the context.

    Args:
        who: The caller.
    """
    _caller.set(who)


def current_caller() -> "Caller | None":
    """Return the caller that the code works for.

    Returns:
        The caller. `None` if the code works for no caller.
    """
    return _caller.get()
