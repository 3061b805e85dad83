"""`authz explain`: ask a running node to judge a request without effect."""

import json
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import json_format

from authz.cli.options import (
    ADMIN,
    Address,
    AgentToken,
    Arguments,
    SubjectToken,
    evidence,
    json_object,
    read_text,
)
from authz.cli.render import Terminal
from authz.errors import ApiError, UsageError
from authz.tools.remote import Remote
from authz_client.v1 import authorizer_pb2, decision_pb2

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("explain")(explain)


def explain(
    *,
    operation: Annotated[str, typer.Argument(help="Operation id.")],
    input_: Arguments = "{}",
    agent_token: AgentToken = None,
    subject_token: SubjectToken = None,
    token: Annotated[
        Path | None,
        typer.Option(
            help="File with your own token, which must be permitted `authz.explain`.",
            dir_okay=False,
        ),
    ] = None,
    address: Address = ADMIN,
) -> None:
    """Ask a running node to judge a request without effect, and print the decision with all details."""
    request = authorizer_pb2.ExplainRequest(
        check=decision_pb2.CheckRequest(
            evidence=evidence(agent_token, subject_token),
            operation=operation,
            arguments_json=json.dumps(json_object(input_)).encode(),
            mode=decision_pb2.MODE_PROBE,
        )
    )
    authorization = f"Bearer {read_text(token)}" if token is not None else None
    try:
        answer = Remote(address).explain(request, authorization)
    except ApiError as error:
        if token is None and error.reason == "NO_CREDENTIAL":
            raise UsageError(
                "the node wants to know who asks: give your own token (--token FILE), and let a policy permit you "
                '`Action::"authz.explain"`'
            ) from error
        raise
    Terminal().json(json_format.MessageToDict(answer.decision, preserving_proto_field_name=True))
