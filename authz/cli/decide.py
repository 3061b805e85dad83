"""Verbs about one decision: eval (offline) and explain (of a running node)."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format

from authz.bundle import read_folder
from authz.cli.options import Vars, offline_variables
from authz.cli.show import Ended, Show
from authz.engine import Plan
from authz.errors import BundleError, UsageError
from authz.tools.remote import Remote
from authz.v1 import authorizer_pb2, decision_pb2

__all__ = ["register"]

_MAX_INPUT = 1_048_576


def register(app: typer.Typer) -> None:
    """Add the verbs.

    Args:
        app: The command.
    """
    app.command("eval")(evaluate)
    app.command("explain")(explain)


def evaluate(
    *,
    operation: Annotated[str, typer.Argument(help="Operation id, `<system>.<name>`.")],
    bundle: Annotated[Path, typer.Option("--bundle", "-b", help="Folder of the bundle.")] = Path(
        "bundle"
    ),
    input_: Annotated[
        str, typer.Option("--input", "-i", help="Arguments: one JSON object, or @file.")
    ] = "{}",
    agent: Annotated[str | None, typer.Option(help="SPIFFE id of the agent that acts.")] = None,
    subject: Annotated[
        str | None, typer.Option(help="On whose behalf: `<issuer alias>/<sub>`.")
    ] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=JSON", help='A claim of the subject, e.g. groups=["staff"].'),
    ] = None,
    service: Annotated[bool, typer.Option("--service", help="The subject is a service.")] = False,
    task: Annotated[
        str | None,
        typer.Option(metavar="TEMPLATE", help="On a task of this template, just started."),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=JSON", help='A parameter of the task, e.g. ticket="T-1".'),
    ] = None,
    prompt: Annotated[str, typer.Option(help="The user's words when the task was started.")] = "",
    var: Vars = None,
    output: Annotated[str, typer.Option("--output", "-o", help="text or json")] = "text",
) -> None:
    """Judge one request offline, on stated facts, and show every policy; exits with 2 unless permitted."""
    who = _who(agent, subject, claim, service=service)
    request: dict[str, Any] = {"as": who, "call": operation, "input": _object(input_)}
    if task is not None:
        if agent is None:
            raise UsageError("a task is an agent's: say --agent too")
        request["task"] = {"template": task, "params": _pairs("--param", param), "prompt": prompt}
    elif param or prompt:
        raise UsageError("--param and --prompt speak of a task: say --task too")
    show = Show()
    files = read_folder(bundle)
    plan = Plan.compile(files, offline_variables(files, var, show.note))
    try:
        decision = plan.eval(request, int(time.time() * 1000))
    except BundleError as error:
        # The bundle compiled: what cannot be read is the request.
        raise UsageError("; ".join(map(str, error.diagnostics))) from error
    if output == "json":
        show.json(decision)
    else:
        show.decision(decision)
    if decision.get("outcome") != "PERMIT":
        raise Ended(_NOT_PERMITTED)


def explain(
    *,
    operation: Annotated[str, typer.Argument(help="Operation id.")],
    input_: Annotated[
        str, typer.Option("--input", "-i", help="Arguments: one JSON object, or @file.")
    ] = "{}",
    agent_token: Annotated[
        Path | None, typer.Option(help="File with the agent's JWT-SVID.", dir_okay=False)
    ] = None,
    subject_token: Annotated[
        Path | None, typer.Option(help="File with the subject's token.", dir_okay=False)
    ] = None,
    token: Annotated[
        Path | None,
        typer.Option(help="File with your own token, for `authz.explain`.", dir_okay=False),
    ] = None,
    address: Annotated[
        str, typer.Option("--admin", envvar="AUTHZ_ADMIN", help="The administration socket.")
    ] = "unix:///run/authz/admin.sock",
) -> None:
    """Ask a running node to judge a request without effect, and to tell everything."""
    evidence = [
        decision_pb2.Evidence(
            role=role, scheme=decision_pb2.EVIDENCE_SCHEME_BEARER, token=_text(str(file))
        )
        for role, file in (
            (decision_pb2.EVIDENCE_ROLE_AGENT, agent_token),
            (decision_pb2.EVIDENCE_ROLE_SUBJECT, subject_token),
        )
        if file is not None
    ]
    request = authorizer_pb2.ExplainRequest(
        check=decision_pb2.CheckRequest(
            evidence=evidence,
            operation=operation,
            arguments_json=json.dumps(_object(input_)).encode(),
            mode=decision_pb2.MODE_PROBE,
        )
    )
    authorization = f"Bearer {_text(str(token))}" if token is not None else None
    answer = Remote(address).explain(request, authorization)
    Show().json(json_format.MessageToDict(answer.decision, preserving_proto_field_name=True))


_NOT_PERMITTED = 2


def _object(given: str) -> dict[str, Any]:
    text = _text(given[1:]) if given.startswith("@") else given
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--input is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError("--input is not a JSON object")
    return value


def _who(
    agent: str | None, subject: str | None, claim: list[str] | None, *, service: bool
) -> dict[str, Any]:
    if agent is None and subject is None:
        raise UsageError("say who acts: --agent, --subject, or both")
    if subject is None and (claim or service):
        raise UsageError("--claim and --service speak of a subject: say --subject too")
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
            "claims": _pairs("--claim", claim),
        }
    return who


def _pairs(flag: str, given: list[str] | None) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{flag} {text}: write NAME=JSON")
        try:
            pairs[name] = json.loads(value)
        except ValueError:
            pairs[name] = value
    return pairs


def _text(file: str) -> str:
    try:
        with Path(file).open("rb") as stream:
            return stream.read(_MAX_INPUT).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
