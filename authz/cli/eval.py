"""`authz eval`: judge one request offline."""

import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from authz.bundle import read_folder
from authz.cli.options import (
    Arguments,
    Format,
    OutputFormat,
    Vars,
    json_object,
    named_values,
    offline_variables,
)
from authz.cli.render import CommandExit, Terminal
from authz.cli.render.decision import print_decision
from authz.engine import Plan
from authz.errors import BundleError, UsageError

__all__ = ["register"]

_NOT_PERMITTED: Final = 2


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("eval")(evaluate)


def evaluate(
    *,
    operation: Annotated[str, typer.Argument(help="Operation id, `<system>.<name>`.")],
    bundle: Annotated[Path, typer.Option("--bundle", "-b", help="Folder of the bundle.")] = Path(
        "bundle"
    ),
    input_: Arguments = "{}",
    agent: Annotated[str | None, typer.Option(help="SPIFFE id of the agent that acts.")] = None,
    subject: Annotated[
        str | None, typer.Option(help="Subject that the agent acts for: `<issuer alias>/<sub>`.")
    ] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=JSON",
            help='Claim of the subject, for example groups=["staff"]. Repeatable.',
        ),
    ] = None,
    service: Annotated[bool, typer.Option("--service", help="The subject is a service.")] = False,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TEMPLATE",
            help="Template of the task in which the call is made; the task has just started.",
        ),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=JSON", help='Parameter of the task, for example ticket="T-1". Repeatable.'
        ),
    ] = None,
    prompt: Annotated[
        str, typer.Option(help="Prompt of the user with which the task was started.")
    ] = "",
    var: Vars = None,
    style: Format = OutputFormat.TEXT,
) -> None:
    """Judge one request offline, with facts from options, and show the result of every policy. Exit code 2 unless permitted."""
    who = _who(agent, subject, claim, service=service)
    request: dict[str, Any] = {"as": who, "call": operation, "input": json_object(input_)}
    if task is not None:
        if agent is None:
            raise UsageError("--task requires --agent")
        request["task"] = {
            "template": task,
            "params": named_values("--param", param),
            "prompt": prompt,
        }
    elif param or prompt:
        raise UsageError("--param and --prompt require --task")
    terminal = Terminal()
    files = read_folder(bundle)
    plan = Plan.compile(files, offline_variables(files, var, terminal.note))
    try:
        decision = plan.eval(request, int(time.time() * 1000))
    except BundleError as error:
        # The bundle compiled: what cannot be read is the request.
        raise UsageError("; ".join(map(str, error.diagnostics))) from error
    if style is OutputFormat.JSON:
        terminal.json(decision)
    else:
        print_decision(terminal, decision)
    if decision.get("outcome") != "PERMIT":
        raise CommandExit(_NOT_PERMITTED)


def _who(
    agent: str | None, subject: str | None, claim: list[str] | None, *, service: bool
) -> dict[str, Any]:
    if agent is None and subject is None:
        raise UsageError("give --agent, --subject, or both")
    if subject is None and (claim or service):
        raise UsageError("--claim and --service require --subject")
    who: dict[str, Any] = {}
    if agent is not None:
        who["agent"] = agent
    if subject is not None:
        alias, slash, sub = subject.partition("/")
        if not slash or not sub:
            raise UsageError("--subject is `<issuer alias>/<sub>`")
        who["subject"] = {
            "issuer": alias,
            "sub": sub,
            "kind": "service" if service else "user",
            "claims": named_values("--claim", claim),
        }
    return who
