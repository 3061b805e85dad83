"""Verbs about tasks, and the kill switch."""

import getpass
import json
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from typer.core import TyperCommand

from authz.cli.history import ADMIN, Address
from authz.cli.show import Show
from authz.engine import prompt_names
from authz.errors import UsageError
from authz.tools.remote import Remote
from authz.v1 import admin_pb2, decision_pb2, tasks_pb2

__all__ = ["AgentToken", "Json", "Server", "SubjectToken", "evidence", "register"]


class Target(StrEnum):
    """What can be revoked."""

    AGENT = "agent"
    SESSION = "session"
    TASK = "task"
    JTI = "jti"
    KEY = "key"
    OPERATION = "operation"
    SYSTEM = "system"
    ISSUER = "issuer"
    SUBJECT = "subject"


class Ending(StrEnum):
    """How a task ends."""

    COMPLETED = "completed"
    ABORTED = "aborted"
    REVOKED = "revoked"


class Status(StrEnum):
    """How a task stands."""

    ACTIVE = "active"
    COMPLETED = "completed"
    ABORTED = "aborted"
    REVOKED = "revoked"
    EXPIRED = "expired"


Server = Annotated[
    str,
    typer.Option(
        "--server",
        envvar="AUTHZ_SERVER",
        help="Where decisions are asked for, `host:port` or `unix:///path`; by the administration socket its owner needs no "
        "token to read and to end.",
    ),
]
AgentToken = Annotated[
    Path | None, typer.Option(help="File with the agent's JWT-SVID.", dir_okay=False)
]
SubjectToken = Annotated[
    Path | None, typer.Option(help="File with the subject's token.", dir_okay=False)
]
Id = Annotated[str, typer.Argument(help="Task id.")]
Params = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        metavar="NAME=VALUE",
        help="A parameter of the template: a whole number, true, false, or a text; in double quotes a text anyway. Repeatable.",
    ),
]
Operations = Annotated[
    list[str] | None,
    typer.Option("--operation", help="Only this operation of the wider scope. Repeatable."),
]
Json = Annotated[str, typer.Option("--output", "-o", help="text or json")]


def register(app: typer.Typer) -> None:
    """Add the verbs.

    Args:
        app: The command.
    """
    task = typer.Typer(
        name="task",
        help="Start, delegate, extend, read and end tasks, and show what a prompt names.",
        no_args_is_help=True,
    )
    for verb in (start, delegate, extend, get, list_, end, names):
        task.command(verb.__name__.rstrip("_"))(verb)
    app.add_typer(task)
    app.command(
        "revoke",
        cls=_Revoke,
        epilog="Example: authz revoke agent spiffe://corp.example/ns/support/sa/bot --reason 'prompt injection'",
    )(revoke)
    forget = typer.Typer(
        name="forget", help="Forget labels that outlive their tasks.", no_args_is_help=True
    )
    for forgets in (forget_agent, forget_pair, forget_collection, forget_object):
        forget.command(
            forgets.__name__.removeprefix("forget_"),
            epilog="Example: authz forget pair spiffe://corp.example/ns/support/sa/bot corp/alice --reason 'reviewed'",
        )(forgets)
    app.add_typer(forget)


def start(
    *,
    template: Annotated[str, typer.Argument(help="Template in the bundle.")],
    param: Params = None,
    assignee: Annotated[
        str, typer.Option(help="SPIFFE id of the agent that gets it; none: the starter.")
    ] = "",
    prompt: Annotated[str, typer.Option(help="The user's words.")] = "",
    operation: Operations = None,
    agent_token: AgentToken = None,
    subject_token: SubjectToken = None,
    server: Server = ADMIN,
    output: Json = "text",
) -> None:
    """Start a root task, as a subject or as an agent that the template lists.

    The prompt counts as the user's word with a subject's token for an `alone_audience`, and without an agent's.
    """
    request = tasks_pb2.StartRequest(
        evidence=evidence(agent_token, subject_token),
        template=template,
        params=_params(param),
        assignee=assignee,
        prompt=prompt,
        scope=_scope(operation),
    )
    answer = Remote(server).task("Start", request, tasks_pb2.StartResponse())
    _show([answer.task], output)


def delegate(
    *,
    parent: Annotated[str, typer.Argument(help="Id of the parent.")],
    assignee: Annotated[str, typer.Argument(help="SPIFFE id of the agent that gets the child.")],
    template: Annotated[str, typer.Option(help="Template; none: the parent's.")] = "",
    param: Params = None,
    operation: Operations = None,
    agent_token: AgentToken = None,
    server: Server = ADMIN,
    output: Json = "text",
) -> None:
    """Start a child of a task, as the agent that has the task."""
    remote, shown = Remote(server), evidence(agent_token, None)
    above: list[tasks_pb2.ScopeEntry] = []
    if operation:
        asked = tasks_pb2.GetRequest(evidence=shown, task=parent)
        above.extend(remote.task("Get", asked, tasks_pb2.GetResponse()).task.scope)
    request = tasks_pb2.DelegateRequest(
        evidence=shown,
        parent=parent,
        assignee=assignee,
        template=template,
        params=_params(param),
        scope=_below(above, operation),
    )
    answer = remote.task("Delegate", request, tasks_pb2.DelegateResponse())
    _show([answer.task], output)


def extend(
    *,
    task: Id,
    prompt: Annotated[str, typer.Argument(help="The user's further words.")],
    agent_token: AgentToken = None,
    subject_token: SubjectToken = None,
    server: Server = ADMIN,
    output: Json = "text",
) -> None:
    """Add what the user named in a further turn, as the subject of the task.

    It counts as the user's word with a subject's token for an `alone_audience`, and without an agent's.
    """
    request = tasks_pb2.ExtendRequest(
        evidence=evidence(agent_token, subject_token), task=task, prompt=prompt
    )
    answer = Remote(server).task("Extend", request, tasks_pb2.ExtendResponse())
    _show([answer.task], output)


def get(
    *,
    task: Id,
    agent_token: AgentToken = None,
    subject_token: SubjectToken = None,
    server: Server = ADMIN,
    output: Json = "text",
) -> None:
    """Show one task."""
    request = tasks_pb2.GetRequest(evidence=evidence(agent_token, subject_token), task=task)
    answer = Remote(server).task("Get", request, tasks_pb2.GetResponse())
    _show([answer.task], output)


def list_(
    *,
    assignee: Annotated[str, typer.Option(help="Only those of this agent.")] = "",
    session: Annotated[str, typer.Option(help="Only those of this task tree.")] = "",
    status: Annotated[Status | None, typer.Option(help="Only those that stand so.")] = None,
    most: Annotated[int, typer.Option(help="At most so many.", min=1)] = 100,
    agent_token: AgentToken = None,
    subject_token: SubjectToken = None,
    server: Server = ADMIN,
    output: Json = "text",
) -> None:
    """List tasks."""
    remote = Remote(server)
    found: list[tasks_pb2.Task] = []
    token = ""
    while len(found) < most:
        request = tasks_pb2.TasksListRequest(
            evidence=evidence(agent_token, subject_token),
            assignee=assignee,
            session=session,
            status=_status(status),
            page_size=min(most - len(found), 1000),
            page_token=token,
        )
        answer = remote.task("List", request, tasks_pb2.TasksListResponse())
        found.extend(answer.tasks)
        token = answer.next_page_token
        if not token:
            break
    _show(found, output)


def end(
    *,
    task: Id,
    status: Annotated[Ending, typer.Option(help="How it ends.")] = Ending.COMPLETED,
    agent_token: AgentToken = None,
    subject_token: SubjectToken = None,
    server: Server = ADMIN,
    output: Json = "text",
) -> None:
    """End a task, and all below it."""
    request = tasks_pb2.EndRequest(
        evidence=evidence(agent_token, subject_token), task=task, status=_status(status)
    )
    answer = Remote(server).task("End", request, tasks_pb2.EndResponse())
    show = Show()
    if output == "json":
        show.json({"task": task, "ended": answer.ended})
    else:
        show.line(f"{answer.ended} tasks ended")


def names(
    *,
    prompt: Annotated[str, typer.Argument(help="The user's words; `-`: those on standard input.")],
    output: Json = "text",
) -> None:
    """Show what a prompt names where it counts as the user's word, and why other words of it name nothing.

    It reads as the server does, and asks no server.
    """
    readings = prompt_names(sys.stdin.read() if prompt == "-" else prompt)
    show = Show()
    if output == "json":
        show.json(
            {
                "names": [
                    {"text": one.text, "kind": one.kind, "name": one.name}
                    for one in readings
                    if not one.why
                ],
                "unnamed": [{"text": one.text, "why": one.why} for one in readings if one.why],
            }
        )
        return
    show.table(
        ("word", "names", "why not"),
        [
            (one.text, f"{one.kind} {one.name}" if not one.why else "nothing", one.why)
            for one in readings
        ],
    )
    if not any(not one.why for one in readings):
        show.line("The prompt names nothing.")


def _status(status: Ending | Status | None) -> tasks_pb2.TaskStatus.ValueType:
    if status is None:
        return tasks_pb2.TASK_STATUS_UNSPECIFIED
    return tasks_pb2.TaskStatus.Value(f"TASK_STATUS_{status.name}")


def evidence(agent: Path | None, subject: Path | None) -> list[decision_pb2.Evidence]:
    """Read the evidence of a call.

    Args:
        agent: File with the agent's token.
        subject: File with the subject's.

    Returns:
        What was given.
    """
    pairs = (
        (decision_pb2.EVIDENCE_ROLE_AGENT, agent),
        (decision_pb2.EVIDENCE_ROLE_SUBJECT, subject),
    )
    return [
        decision_pb2.Evidence(
            role=role,
            scheme=decision_pb2.EVIDENCE_SCHEME_BEARER,
            token=file.read_text().strip(),
        )
        for role, file in pairs
        if file is not None
    ]


def _params(given: Iterable[str] | None) -> Struct:
    params = Struct()
    for one in given or ():
        name, equals, text = one.partition("=")
        if not equals or not name:
            raise UsageError(f"--param {one}: NAME=VALUE")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        # Only what a template can declare: anything else, such as `null`, is meant as a text.
        params[name] = value if isinstance(value, (bool, int, str)) else text
    return params


def _scope(operations: Iterable[str] | None) -> list[tasks_pb2.ScopeEntry]:
    return [tasks_pb2.ScopeEntry(operation=operation) for operation in operations or ()]


def _below(
    above: Iterable[tasks_pb2.ScopeEntry], operations: Iterable[str] | None
) -> list[tasks_pb2.ScopeEntry]:
    """What a child is given: the parent's limits, which it would be refused without."""
    wide = list(above)
    found: list[tasks_pb2.ScopeEntry] = []
    for operation in operations or ():
        entries = [entry for entry in wide if entry.operation == operation]
        found.extend(entries or _scope([operation]))
    return found


def _show(tasks: list[tasks_pb2.Task], output: str) -> None:
    show = Show()
    if output == "json":
        told = [json_format.MessageToDict(one, preserving_proto_field_name=True) for one in tasks]
        show.json({"tasks": told})
        return
    show.table(
        ("task", "status", "template", "assignee", "on behalf of", "until"),
        [
            (
                one.id,
                tasks_pb2.TaskStatus.Name(one.status).removeprefix("TASK_STATUS_").lower(),
                one.template,
                one.assignee,
                one.subject or "itself",
                one.deadline.ToJsonString(),
            )
            for one in tasks
        ],
    )


_JSON_OUTPUT: Final = frozenset({"-ojson", "-otext"})


class _Revoke(TyperCommand):
    """Takes the word after the target for its value, although ids of keys and tokens may begin with a dash."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the value behind `--`, where nothing is read as an option."""
        options = [option for option in self.params if option.param_type_name == "option"]
        names = {"-h", "--help", "-", *(name for option in options for name in option.opts)}
        # The word after one of these is its own, for example of `--reason key`.
        takers = {
            name
            for option in options
            if not getattr(option, "is_flag", False)
            for name in option.opts
        }
        for at in range(len(args) - 1 if "--" not in args else 0):
            word, value = args[at], args[at + 1]
            is_target = word in set(Target) and (at == 0 or args[at - 1] not in takers)
            is_option = value.partition("=")[0] in names or value in _JSON_OUTPUT
            if is_target and value.startswith("-") and not is_option:
                args = [*args[:at], *args[at + 2 :], "--", word, value]
                break
        return super().parse_args(ctx, args)


def revoke(
    *,
    target: Annotated[Target, typer.Argument(help="What `value` is.")],
    value: Annotated[
        str,
        typer.Argument(
            help="A SPIFFE id; the id of a session, task, token, key (or SHA-256 of a certificate, in hex), operation "
            "or system; an issuer's alias or a trust domain; a subject, ISSUER/SUB."
        ),
    ],
    undo: Annotated[
        bool,
        typer.Option(
            "--undo",
            help="Lift the revocation of an agent, subject, operation, system, issuer or key. Requires --reason. A task, "
            "session or credential that ended stays ended.",
        ),
    ] = False,
    reason: Annotated[
        str, typer.Option(help="Why; stands in records and in the message of each refusal.")
    ] = "",
    by: Annotated[
        str, typer.Option(help="Who; stands in records. Default: the name of your login.")
    ] = "",
    address: Address = ADMIN,
    output: Annotated[str, typer.Option("--output", "-o", help="text or json")] = "text",
) -> None:
    """Revoke: refuse a target from now on, and end live tasks of an agent, subject, session or task; --undo lifts it."""
    if undo and not reason.strip():
        message = "--undo requires --reason: why the revocation is lifted"
        raise UsageError(message)
    request = admin_pb2.AdminRevokeRequest(reason=reason, by=by or _login(), undo=undo)
    setattr(request, target.value, value)
    answer = Remote(address).revoke(request)
    if answer.undone != undo:
        message = (
            "the node is of an earlier version: it cannot lift a revocation, and revoked instead"
        )
        raise UsageError(message)
    show = Show()
    if output == "json":
        shown = {"target": target.value, "value": value, "tasks_ended": answer.tasks_ended}
        show.json({**shown, "undone": True} if undo else shown)
    elif undo:
        show.line(f"{target.value} {value} is no longer revoked; what ended stays ended")
    else:
        show.line(f"revoked {target.value} {value}; {answer.tasks_ended} tasks ended")


def _login() -> str:
    """Return the login name of the user who runs the command, or an empty string if there is none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


Agent = Annotated[str, typer.Argument(help="SPIFFE id of the agent.")]
Collection = Annotated[str, typer.Argument(help="Collection of the bundle.")]
Why = Annotated[str, typer.Option(help="Why. The audit record shows it.")]
Denials = Annotated[
    bool,
    typer.Option(
        "--denials",
        help="Also forget denials and completed rules, and let the agent start tasks again after its denials ended one.",
    ),
]


def forget_agent(
    *,
    agent: Agent,
    reason: Why,
    denials: Denials = False,
    address: Address = ADMIN,
    output: Json = "text",
) -> None:
    """Forget the labels that an agent carries, for all subjects."""
    request = admin_pb2.ForgetRequest(agent=agent, reason=reason, denials=denials)
    _forget(request, f"agent {agent}", address, output)


def forget_pair(
    *,
    agent: Agent,
    subject: Annotated[
        str,
        typer.Argument(
            help="Subject as ISSUER/SUB, with the issuer's alias. Default: the agent acting for itself."
        ),
    ] = "",
    reason: Why,
    denials: Denials = False,
    address: Address = ADMIN,
    output: Json = "text",
) -> None:
    """Forget the labels that an agent carries for one subject."""
    pair = admin_pb2.Pair(agent=agent, subject=subject)
    request = admin_pb2.ForgetRequest(pair=pair, reason=reason, denials=denials)
    _forget(request, f"pair {agent} {subject}".rstrip(), address, output)


def forget_collection(
    *, collection: Collection, reason: Why, address: Address = ADMIN, output: Json = "text"
) -> None:
    """Forget the labels of a collection and of all objects in it."""
    request = admin_pb2.ForgetRequest(collection=collection, reason=reason)
    _forget(request, f"collection {collection}", address, output)


def forget_object(
    *,
    collection: Collection,
    id_: Annotated[str, typer.Argument(metavar="ID", help="Id of the object.")],
    reason: Why,
    address: Address = ADMIN,
    output: Json = "text",
) -> None:
    """Forget the labels of one object."""
    written = admin_pb2.WrittenObject(collection=collection, id=id_)
    request = admin_pb2.ForgetRequest(object=written, reason=reason)
    _forget(request, f"object {collection}/{id_}", address, output)


def _forget(request: admin_pb2.ForgetRequest, what: str, address: str, output: str) -> None:
    answer = Remote(address).forget(request)
    show = Show()
    if output == "json":
        show.json({"target": what, "records": answer.records})
    else:
        show.line(f"forgot what the {what} carried; {answer.records} records changed")
