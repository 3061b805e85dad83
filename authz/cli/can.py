"""`authz can`: tell who can do what."""

import time
from typing import Annotated, Any

import typer

from authz.bundle import read_folder
from authz.cli.options import BundleFolder, Vars, named_values, offline_variables
from authz.cli.render import Terminal
from authz.cli.render.can import can_page, print_can
from authz.engine import Plan
from authz.errors import BundleError, UsageError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("can", epilog="Example: authz can bundle --agent support-agent --subject staff")(
        can
    )


def can(
    *,
    folder: BundleFolder,
    agent: Annotated[
        list[str] | None,
        typer.Option(
            help="Role of agents, or SPIFFE id of one. Repeatable. Default: each role of agents."
        ),
    ] = None,
    subject: Annotated[
        list[str] | None,
        typer.Option(
            help="Role of people, or one person: `<issuer alias>/<sub>`. Repeatable. Default: each role of people, and nobody."
        ),
    ] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=JSON",
            help='Claim of the person of --subject, for example groups=["staff"]. Repeatable.',
        ),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Only tasks of this template. Default: the best of all.")
    ] = None,
    operation: Annotated[
        str,
        typer.Option(help="Only this operation, or those of a system: `crm.get` or `crm`."),
    ] = "",
    var: Vars = None,
    format_: Annotated[str, typer.Option("--format", help="text, json or html")] = "text",
) -> None:
    """Tell who can do what: the best outcome of each operation, for each role of agents on behalf of each role of people.

    The rules of the bundle answer, without arguments, history and proof of a call. A rule that depends on them is listed as a
    condition. Use authz eval to judge one call.
    """
    if format_ not in {"text", "json", "html"}:
        raise UsageError(f"--format {format_}: text, json or html")
    terminal = Terminal()
    files = read_folder(folder)
    plan = Plan.compile(files, offline_variables(files, var, terminal.note))
    query = _query(agent, subject, claim, template)
    try:
        table = plan.can(query, int(time.time() * 1000))
    except BundleError as error:
        # The bundle compiled: what cannot be read is the query.
        raise UsageError("; ".join(one.what for one in error.diagnostics)) from error
    _narrow(table, operation)
    if format_ == "json":
        terminal.json(table)
    elif format_ == "html":
        print(can_page(plan.name, plan.revision, table), end="")
    else:
        print_can(terminal, table)


def _query(
    agents: list[str] | None,
    subjects: list[str] | None,
    claims: list[str] | None,
    template: str | None,
) -> dict[str, Any]:
    people = [one for one in subjects or () if "/" in one]
    if claims and len(people) != 1:
        raise UsageError("--claim requires one --subject `<issuer alias>/<sub>`")
    query: dict[str, Any] = {
        "agents": agents or [],
        "subject_roles": [one for one in subjects or () if "/" not in one],
        "subjects": [
            {"issuer": issuer, "sub": sub, "claims": named_values("--claim", claims)}
            for issuer, _, sub in (one.partition("/") for one in people)
        ],
    }
    return query if template is None else {**query, "template": template}


def _narrow(table: dict[str, Any], operation: str) -> None:
    """Keep the rows of one operation, or of one system."""
    if not operation:
        return
    known: set[str] = set()
    for chain in table["chains"]:
        known |= {row["operation"] for row in chain["rows"]}
        chain["rows"] = [
            row for row in chain["rows"] if operation in (row["operation"], row["system"])
        ]
    if not any(chain["rows"] for chain in table["chains"]):
        raise UsageError(
            f"--operation {operation}: the bundle has {', '.join(sorted(known)[:8])}, …"
        )
