"""`authz approval …`: list, show, approve, reject and watch approvals."""

import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Annotated, Final

import typer

from authz.approvals.card import Card
from authz.cli.options import ADMIN, Address, Format, OutputFormat
from authz.cli.passkeys import register_passkeys
from authz.cli.render import Terminal

# `render` does not import these, so that all other verbs start without the data of the card.
from authz.cli.render.approval import (
    approval_json,
    approval_rows,
    card_of,
    print_card,
    status_word,
)
from authz.errors import UsageError
from authz.tools.remote import ApprovalWatch, Remote
from authz_client.v1 import approvals_pb2

__all__ = ["register"]

_WHOLE_ID: Final = re.compile(r"[0-9a-f]{32}-\d+")
_MOST_PAGE: Final = 1_000
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_COLUMNS: Final = ("approval", "operation", "on behalf of", "agent", "waits for", "open for", "you")

Id = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="Id of the approval, or the beginning of the id of an open approval."
    ),
]
Yes = Annotated[
    bool,
    typer.Option("--yes", help="Do not ask for confirmation. To approve, --digest is needed, too."),
]
Digest = Annotated[
    str,
    typer.Option(help="SHA-256 of the card that you saw, as `authz approval show` prints it."),
]
Queue = Annotated[
    str,
    typer.Option(
        help="Queue that you answer for, for example approve:finance. Default: the only queue that you may answer for."
    ),
]
Endorse = Annotated[
    bool,
    typer.Option(
        "--endorse",
        help="Also endorse the values of the call: they count as chosen by the user for the operations, the time and the calls that the card lists.",
    ),
]
Comment = Annotated[str, typer.Option(help="Comment for the audit record. No agent sees it.")]


def register(app: typer.Typer) -> None:
    """Add the group of verbs to the command."""
    group = typer.Typer(
        help="List, show, approve, reject and watch approvals: calls that wait for a person.",
        no_args_is_help=True,
    )
    for verb in (list_, show, approve, reject, watch):
        group.command(verb.__name__.rstrip("_"))(verb)
    register_passkeys(group)
    app.add_typer(group, name="approval")


def list_(
    *,
    queue: Annotated[
        str, typer.Option(help="Only approvals of this queue, for example approve:finance.")
    ] = "",
    most: Annotated[int, typer.Option(help="Maximum number of approvals.", min=1)] = 100,
    address: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """List open approvals, the oldest first."""
    found = _open_approvals(Remote(address), queue, most)
    found.sort(key=lambda one: one.created_at.ToNanoseconds())
    terminal = Terminal()
    if style is OutputFormat.JSON:
        terminal.json({"approvals": [approval_json(one) for one in found]})
        return
    if not found:
        terminal.line("No call waits for a person.")
        return
    terminal.table(_COLUMNS, approval_rows(found))
    terminal.hint("Show one with: authz approval show ID")


def show(
    *,
    approval: Id,
    whole: Annotated[
        bool, typer.Option("--whole", help="Show every value in full, without a limit of length.")
    ] = False,
    address: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Show the card of an approval: the call, and the rules that need a person."""
    remote = Remote(address)
    found = _get(remote, approval)
    terminal = Terminal()
    card = card_of(found, whole=whole or style is OutputFormat.JSON)
    if style is OutputFormat.JSON:
        terminal.json({**approval_json(found), "card_digest": card.digest.hex()})
        return
    print_card(terminal, card)
    terminal.hint(_next_step(found))


def approve(
    *,
    approval: Id,
    yes: Yes = False,
    digest: Digest = "",
    queue: Queue = "",
    comment: Comment = "",
    endorse: Endorse = False,
    address: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Show the card of an approval, and approve the call after you type y.

    The user who runs the command must be a person of `approvals.people`. The agent may then make exactly this call, once, within
    ten minutes.
    """
    remote = Remote(address)
    found = _get(remote, approval)
    if endorse and not found.HasField("endorses"):
        raise UsageError(
            "--endorse: the rules that hold this call let nobody endorse its values; approve this call only"
        )
    question = "Approve this call, and endorse its values" if endorse else "Approve this call"
    status = approvals_pb2.APPROVAL_STATUS_APPROVED
    request = _answer(found, status, digest, question, yes=yes)
    request.queue, request.comment, request.endorse = queue, comment, endorse
    _send(remote, request, style)


def reject(
    *,
    approval: Id,
    reason: Annotated[
        str,
        typer.Option(
            help="Name of a reason of the bundle. The agent may see it. The command asks for it if it is missing."
        ),
    ] = "",
    yes: Yes = False,
    digest: Digest = "",
    queue: Queue = "",
    comment: Comment = "",
    address: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Show the card of an approval, and reject the call after you type y.

    Afterwards Authz denies the same call of this agent without asking people, for the `memory` of the agent, 24 hours by default.
    """
    remote = Remote(address)
    found = _get(remote, approval)
    chosen = _reason(found.reject_reasons, reason, is_asked=not yes)
    status = approvals_pb2.APPROVAL_STATUS_REJECTED
    request = _answer(found, status, digest, "Reject this call", yes=yes)
    request.queue, request.comment, request.reject_reason = queue, comment, chosen
    _send(remote, request, style)


def watch(
    *,
    task: Annotated[str, typer.Option(help="Only approvals of this task.")] = "",
    address: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Print open approvals and each change of an approval, until you press Ctrl-C."""
    terminal = Terminal()
    with _until_interrupted(
        lambda: Remote(address).watch_approvals(approvals_pb2.WatchRequest(task=task))
    ) as changes:
        for change in changes:
            one = change.approval
            if style is OutputFormat.JSON:
                terminal.json_line(approval_json(one))
            else:
                waits = ", ".join(one.waits_for)
                behalf = f" for {one.subject}" if one.subject else ""
                terminal.line(
                    f"{one.id}  {status_word(one.status)}  {one.operation}{behalf}"
                    + (f"  waits for {waits}" if waits else "")
                )


@contextmanager
def _until_interrupted(begin: Callable[[], ApprovalWatch]) -> Iterator[ApprovalWatch]:
    """Begin a stream that SIGINT and SIGTERM end.

    Python raises `KeyboardInterrupt` wherever the main thread is, and drops it in a finalizer. So a handler, which never
    raises, wakes a thread that cancels the stream. `SimpleQueue.put` may interrupt itself; an event may not.
    """
    ends: SimpleQueue[bool] = SimpleQueue()
    before = {
        number: signal.signal(number, lambda *_: ends.put(True))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        watch = begin()

        def cancel_at_end() -> None:
            if ends.get():
                watch.cancel()

        threading.Thread(target=cancel_at_end, name="end-of-watch", daemon=True).start()
        yield watch
    finally:
        ends.put(False)
        for number, handler in before.items():
            signal.signal(number, handler)


def _open_approvals(remote: Remote, queue: str, most: int) -> list[approvals_pb2.Approval]:
    request = approvals_pb2.ApprovalsListRequest(queue=queue)
    found: list[approvals_pb2.Approval] = []
    while len(found) < most:
        request.page_size = min(most - len(found), _MOST_PAGE)
        answer = remote.approval("List", request, approvals_pb2.ApprovalsListResponse())
        found.extend(answer.approvals)
        request.page_token = answer.next_page_token
        if not request.page_token:
            break
    return found


def _get(remote: Remote, given: str) -> approvals_pb2.Approval:
    wanted = given if _WHOLE_ID.fullmatch(given) else _find(remote, given)
    request = approvals_pb2.ApprovalsGetRequest(approval_id=wanted)
    return remote.approval("Get", request, approvals_pb2.ApprovalsGetResponse()).approval


def _find(remote: Remote, start: str) -> str:
    """Return the id of the only open approval whose id begins with a text."""
    found = [one.id for one in _open_approvals(remote, "", _MOST_PAGE) if one.id.startswith(start)]
    if len(found) != 1:
        count = "several open approvals begin" if found else "no open approval begins"
        raise UsageError(f"{count} with {start}: give the whole id, of `authz approval list`")
    return found[0]


def _answer(
    found: approvals_pb2.Approval,
    status: "approvals_pb2.ApprovalStatus.ValueType",
    digest: str,
    question: str,
    *,
    yes: bool,
) -> approvals_pb2.ResolveRequest:
    """Show the card and ask, or compare the card with the digest that the user gave."""
    _check_answerable(found)
    is_approval = status == approvals_pb2.APPROVAL_STATUS_APPROVED
    card = _seen_card(found, digest) if digest else card_of(found, whole=True)
    if is_approval and card.cannot_be_shown:
        raise UsageError(f"you can only reject it: {card.cannot_be_shown}")
    if is_approval and card.needs_whole_view:
        raise UsageError(
            f"{card.hidden_bytes} bytes of the call are not on the card of --digest: see `authz approval show --whole`"
        )
    if yes and is_approval and not digest:
        raise UsageError("--yes needs --digest: the SHA-256 of the card that you saw")
    if not yes:
        _ask(card, question)
    return approvals_pb2.ResolveRequest(
        approval_id=found.id, status=status, digest=found.digest, card_digest=card.digest
    )


def _seen_card(found: approvals_pb2.Approval, digest: str) -> Card:
    """Return the card that has a digest: the whole card, or the card that `show` prints."""
    if not _DIGEST.fullmatch(digest):
        raise UsageError(
            "--digest is the SHA-256 of the card, 64 characters: see `authz approval show`"
        )
    for whole in (True, False):
        card = card_of(found, whole=whole)
        if card.digest.hex() == digest:
            return card
    raise UsageError(
        "--digest is not the digest of this card: the call or its card is another one. Show the card again, and read it"
    )


def _check_answerable(found: approvals_pb2.Approval) -> None:
    if found.status != approvals_pb2.APPROVAL_STATUS_PENDING:
        raise UsageError(
            f"the approval does not wait for an answer: it is {status_word(found.status)}"
        )
    if not found.answerable or found.needs_passkey:
        raise UsageError(f"you cannot answer it here: {_obstacle(found)}")


def _obstacle(found: approvals_pb2.Approval) -> str:
    if found.needs_passkey:
        return "it needs a passkey, so answer it at the approvals page"
    queues = ", ".join(found.waits_for) or "nobody"
    return (
        f"it waits for {queues}, and `approvals.people` does not map your user to a person who may answer. "
        "Add your user to `approvals.people`, or answer at the approvals page"
    )


def _next_step(found: approvals_pb2.Approval) -> str:
    if found.status != approvals_pb2.APPROVAL_STATUS_PENDING:
        return ""
    if not found.answerable or found.needs_passkey:
        return f"You cannot answer it here: {_obstacle(found)}."
    return f"Answer with: authz approval approve {found.id}, or reject"


def _ask(card: Card, question: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError(
            "the command cannot ask without a terminal: show the card with `authz approval show`, and give --yes --digest"
        )
    print_card(Terminal(), card)
    if not typer.confirm(f"{question}?", default=False):
        raise UsageError("the approval was not answered")


def _reason(reasons: Mapping[str, str], given: str, *, is_asked: bool) -> str:
    """Return the name of a reason of the bundle."""
    listed = ", ".join(sorted(reasons)) or "none"
    if given:
        if given not in reasons:
            raise UsageError(f"--reason {given}: the bundle has no such reason. It has: {listed}")
        return given
    if not reasons:
        return ""
    if not is_asked or not sys.stdin.isatty():
        raise UsageError(f"give --reason, one of these (the agent may see it): {listed}")
    terminal = Terminal()
    terminal.table(("reason", "text for the agent"), sorted(reasons.items()))
    return _reason(reasons, str(typer.prompt("Reason")), is_asked=False)


def _send(remote: Remote, request: approvals_pb2.ResolveRequest, style: OutputFormat) -> None:
    answered = remote.approval("Resolve", request, approvals_pb2.ResolveResponse()).approval
    terminal = Terminal()
    if style is OutputFormat.JSON:
        terminal.json(approval_json(answered))
        return
    terminal.line(f"{answered.id} is {status_word(answered.status)}")
    if answered.status == approvals_pb2.APPROVAL_STATUS_PENDING:
        terminal.line(f"It still waits for {', '.join(answered.waits_for)}.")
