"""`authz task …`: start, delegate, extend, read and end tasks."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import StrEnum
from typing import Annotated, Final

import typer
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from authz.cli.options import (
    ADMIN,
    Address,
    AgentToken,
    Format,
    OutputFormat,
    Server,
    SubjectToken,
    evidence,
)
from authz.cli.render import Terminal
from authz.cli.render.task import print_task_tree
from authz.engine import prompt_names, prompt_values, prompt_words
from authz.errors import ApiError, UsageError
from authz.tools.remote import Remote
from authz_client.v1 import admin_pb2, tasks_pb2

__all__ = ["register"]

_MOST_RELATIVES: Final = 1_000


class EndStatus(StrEnum):
    """Status that a task ends with."""

    COMPLETED = "completed"
    ABORTED = "aborted"
    REVOKED = "revoked"


class Status(StrEnum):
    """Status of a task."""

    ACTIVE = "active"
    COMPLETED = "completed"
    ABORTED = "aborted"
    REVOKED = "revoked"
    EXPIRED = "expired"


Id = Annotated[str, typer.Argument(help="Task id.")]

Params = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        metavar="NAME=VALUE",
        help="Parameter of the template: an integer, true, false, or a string. Write a string that looks like one of these in double quotes. Repeatable.",
    ),
]

Operations = Annotated[
    list[str] | None,
    typer.Option(
        "--operation",
        help="Operation that the task is limited to. Default: all operations of its scope. Repeatable.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the group of verbs to the command."""
    group = typer.Typer(
        help="Start, delegate, extend, read and end tasks, and show what a prompt names.",
        no_args_is_help=True,
    )
    for verb in (start, delegate, extend, get, list_, end, names):
        group.command(verb.__name__.rstrip("_"))(verb)
    app.add_typer(group, name="task")


def start(
    *,
    template: Annotated[str, typer.Argument(help="Template in the bundle.")],
    param: Params = None,
    assignee: Annotated[
        str,
        typer.Option(
            help="SPIFFE id of the agent that gets the task. Default: the agent that starts it."
        ),
    ] = "",
    prompt: Annotated[str, typer.Option(help="Prompt of the user.")] = "",
    operation: Operations = None,
    agent_token: AgentToken = None,
    subject_token: SubjectToken = None,
    server: Server = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Start a root task, as a subject or as an agent that the template lists.

    Destinations in the prompt count as named by the user if you show a subject's token for an `alone_audience` and no agent's token.
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
    _show([answer.task], style)


def delegate(
    *,
    parent: Annotated[str, typer.Argument(help="Id of the parent.")],
    assignee: Annotated[str, typer.Argument(help="SPIFFE id of the agent that gets the child.")],
    template: Annotated[
        str, typer.Option(help="Template of the child. Default: that of the parent.")
    ] = "",
    param: Params = None,
    operation: Operations = None,
    agent_token: AgentToken = None,
    server: Server = ADMIN,
    style: Format = OutputFormat.TEXT,
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
    _show([answer.task], style)


def extend(
    *,
    task: Id,
    prompt: Annotated[str, typer.Argument(help="Prompt of the user.")],
    agent_token: AgentToken = None,
    subject_token: SubjectToken = None,
    server: Server = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Add the prompt of a further turn to a task, as its subject.

    Destinations in it count as named by the user if you show a subject's token for an `alone_audience` and no agent's token.
    """
    request = tasks_pb2.ExtendRequest(
        evidence=evidence(agent_token, subject_token), task=task, prompt=prompt
    )
    answer = Remote(server).task("Extend", request, tasks_pb2.ExtendResponse())
    _show([answer.task], style)


def get(
    *,
    task: Id,
    agent_token: AgentToken = None,
    subject_token: SubjectToken = None,
    server: Server = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Show one task, in the tree of its session: its scope, and the tasks above and below it that the caller may see."""
    shown, remote = evidence(agent_token, subject_token), Remote(server)
    request = tasks_pb2.GetRequest(evidence=shown, task=task)
    answer = remote.task("Get", request, tasks_pb2.GetResponse())
    if style is OutputFormat.JSON:
        _show([answer.task], style)
        return
    asked = tasks_pb2.TasksListRequest(
        evidence=shown, session=answer.task.session, page_size=_MOST_RELATIVES
    )
    relatives: list[tasks_pb2.Task] = []
    # A caller that sees the task may still not list its session.
    with suppress(ApiError):
        relatives.extend(remote.task("List", asked, tasks_pb2.TasksListResponse()).tasks)
    print_task_tree(Terminal(), answer.task, relatives)


def list_(
    *,
    assignee: Annotated[str, typer.Option(help="Only tasks of this agent (SPIFFE id).")] = "",
    session: Annotated[str, typer.Option(help="Only tasks of this session.")] = "",
    status: Annotated[Status | None, typer.Option(help="Only tasks with this status.")] = None,
    most: Annotated[int, typer.Option(help="Number of tasks at most.", min=1)] = 100,
    agent_token: AgentToken = None,
    subject_token: SubjectToken = None,
    server: Server = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """List tasks."""
    remote = Remote(server)
    tasks: list[tasks_pb2.Task] = []
    token = ""
    while len(tasks) < most:
        request = tasks_pb2.TasksListRequest(
            evidence=evidence(agent_token, subject_token),
            assignee=assignee,
            session=session,
            status=_status(status),
            page_size=min(most - len(tasks), 1000),
            page_token=token,
        )
        answer = remote.task("List", request, tasks_pb2.TasksListResponse())
        tasks.extend(answer.tasks)
        token = answer.next_page_token
        if not token:
            break
    _show(tasks, style)


def end(
    *,
    task: Id,
    status: Annotated[
        EndStatus, typer.Option(help="Status that the task ends with.")
    ] = EndStatus.COMPLETED,
    agent_token: AgentToken = None,
    subject_token: SubjectToken = None,
    server: Server = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """End a task and its descendants."""
    request = tasks_pb2.EndRequest(
        evidence=evidence(agent_token, subject_token), task=task, status=_status(status)
    )
    answer = Remote(server).task("End", request, tasks_pb2.EndResponse())
    terminal = Terminal()
    if style is OutputFormat.JSON:
        terminal.json({"task": task, "ended": answer.ended})
    else:
        terminal.line(f"{answer.ended} tasks ended")


def names(
    *,
    prompt: Annotated[
        str | None,
        typer.Argument(help="Prompt of the user; `-` for standard input. Not with `--task`."),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            help="Id of a task: ask the server what the task names. It keeps no prompt, so it checks the values that you give."
        ),
    ] = "",
    value: Annotated[
        list[str] | None,
        typer.Option(
            help="Value of a call, such as `email:bob@acme.example`, `amount:EUR 870` or `orders/4711` (collection and id): "
            "show whether the prompt names it. Repeatable."
        ),
    ] = None,
    system: Annotated[
        str,
        typer.Option(
            help="With `--task`: system of the ids and amounts. Default: all systems of the bundle."
        ),
    ] = "",
    collection: Annotated[
        str,
        typer.Option(
            help="With `--task`: collection of the values, which are then ids. Default: each value names its own."
        ),
    ] = "",
    admin: Address = ADMIN,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Show what a prompt names, and why its other words name nothing; or what a task names.

    It reads a prompt as the server does, without a server. Exits with 1 if the prompt does not name a `--value`, or if the value is
    `claimed` or `unknown` in the task.
    """
    if task:
        if prompt is not None:
            raise UsageError("give a prompt or --task, not both")
        request = admin_pb2.TaskNamesRequest(
            task=task, values=value, system=system, collection=collection
        )
        _show_names_of_task(request, Remote(admin).task_names(request), style)
        return
    if system or collection:
        raise UsageError("--system and --collection need --task: a prompt alone has no bundle")
    if prompt is None:
        raise UsageError("give a prompt (`-` for standard input), or --task with the id of a task")
    text = sys.stdin.read() if prompt == "-" else prompt
    if value:
        _show_values(text, value, style)
        return
    _show_readings(text, style)


def _show_readings(text: str, style: OutputFormat) -> None:
    readings = prompt_names(text)
    words = prompt_words(text)
    terminal = Terminal()
    if style is OutputFormat.JSON:
        terminal.json(
            {
                "names": [
                    {"text": one.text, "kind": one.kind, "name": one.name}
                    for one in readings
                    if not one.why
                ],
                "unnamed": [{"text": one.text, "why": one.why} for one in readings if one.why],
                "words": words,
            }
        )
        return
    terminal.table(
        ("word", "names", "why not"),
        [
            (one.text, f"{one.kind} {one.name}" if not one.why else "nothing", one.why)
            for one in readings
        ],
    )
    if not any(not one.why for one in readings):
        terminal.line("The prompt names nothing.")
    if words:
        kept = " ".join("|" if word is None else word for word in words)
        terminal.line(f"Words for ids and names, with | for a gap: {kept}")


def _show_names_of_task(
    request: admin_pb2.TaskNamesRequest, answer: admin_pb2.TaskNamesResponse, style: OutputFormat
) -> None:
    terminal = Terminal()
    if style is OutputFormat.JSON:
        terminal.json(
            json_format.MessageToDict(
                answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        )
    else:
        for line in _lines_about(request.task, answer):
            terminal.line(line)
        if answer.values:
            terminal.line("")
            terminal.table(
                ("value", "origin", "system", "why", "what `named` lacks"),
                [
                    (one.value, one.origin, one.system, one.why, one.missing)
                    for one in answer.values
                ],
            )
    if any(one.origin in {"claimed", "unknown"} for one in answer.values):
        raise typer.Exit(1)


def _lines_about(task: str, answer: admin_pb2.TaskNamesResponse) -> Iterator[str]:
    """Say in sentences what a task names, besides the candidate values."""
    yield f"Authz keeps keyed hashes of the prompts of task {task}, and no prompt: it cannot show their words."
    speakers = {"user": "The user", "harness": "A harness", "agent": "An agent"}
    for spoken in answer.spoken:
        if spoken.words or spoken.names:
            who = speakers.get(spoken.by, spoken.by)
            count = f"{spoken.words} of {answer.most_words} words, {spoken.names} destinations and amounts"
            yield f"{who} said: {count}."
    if not any(spoken.words or spoken.names for spoken in answer.spoken):
        yield "Nobody named anything in it."
    if answer.words_full:
        yield "The record of its words is full: words that came later name nothing."
    if answer.words_missing:
        yield "The record of its words is missing, so they name nothing. It is removed at the latest end of a task."
    if answer.parameters:
        yield f"Parameters that name their values: {', '.join(answer.parameters)}."
    for template in answer.templates:
        yield f"The template {template.template} names: {', '.join(template.names)}."
    if answer.known_values:
        yield f"Its session knows values from reports: {answer.known_values} of {answer.most_values} entries."
    if not answer.values:
        yield "Give --value to check a value of a call."


def _show_values(prompt: str, values: list[str], style: OutputFormat) -> None:
    told = prompt_values(prompt, values)
    for one in told:
        if one.error:
            raise UsageError(f"--value {one.value}: {one.error}.")
    terminal = Terminal()
    if style is OutputFormat.JSON:
        terminal.json({"values": [{"value": one.value, "named": one.named} for one in told]})
    else:
        rows = [(one.value, "named" if one.named else "not named") for one in told]
        terminal.table(("value", "in the prompt"), rows)
    if not all(one.named for one in told):
        raise typer.Exit(1)


def _status(status: EndStatus | Status | None) -> tasks_pb2.TaskStatus.ValueType:
    if status is None:
        return tasks_pb2.TASK_STATUS_UNSPECIFIED
    return tasks_pb2.TaskStatus.Value(f"TASK_STATUS_{status.name}")


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
    """Make the scope of a child with the parent's limits; without them the node would refuse it."""
    wide = list(above)
    found: list[tasks_pb2.ScopeEntry] = []
    for operation in operations or ():
        entries = [entry for entry in wide if entry.operation == operation]
        found.extend(entries or _scope([operation]))
    return found


def _show(tasks: list[tasks_pb2.Task], style: OutputFormat) -> None:
    terminal = Terminal()
    if style is OutputFormat.JSON:
        told = [json_format.MessageToDict(one, preserving_proto_field_name=True) for one in tasks]
        terminal.json({"tasks": told})
        return
    terminal.table(
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
