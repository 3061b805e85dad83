"""Verbs for development: demo, and keys of a throw-away trust domain."""

import asyncio
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from authz.cli.credentials import register_keys
from authz.cli.show import Ended, Show
from authz.errors import UsageError
from authz.tools.demo import Demo
from authz.tools.demo.mesh import Call, Mesh, Step
from authz.tools.keys import DevDomain

__all__ = ["register"]

_DIFFERS = 2
KeyFolder = Annotated[Path, typer.Argument(help="Where the keys lie.", file_okay=False)]
_ISSUER = "https://idp.dev.example"


def register(app: typer.Typer) -> None:
    """Add the verbs.

    Args:
        app: The command.
    """
    group = typer.Typer(
        help="Keys that sign task credentials; keys and tokens for development.",
        no_args_is_help=True,
    )
    group.command("make")(make)
    group.command("token")(token)
    register_keys(group)
    app.add_typer(group, name="keys")
    app.command("demo")(demo)


def demo(
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Stay up, and print lines for grpcurl, ghz and curl.")
    ] = False,
    mesh: Annotated[
        bool,
        typer.Option(
            "--mesh", help="MCP servers behind a gateway, and an agent that knows nothing."
        ),
    ] = False,
) -> None:
    """Make real calls in a throw-away trust domain, over gRPC and Envoy; exits with 2 if one comes out wrong."""
    show = Show()
    if mesh:
        if keep:
            raise UsageError("--keep goes without --mesh")
        _mesh(show)
        return
    with Demo(show.note) as running:
        rows = list(running.rows())
        show.table(
            ("", "by", "who", "asked", "expected", "got", "ms", ""),
            [
                (
                    "ok" if row.well else "WRONG",
                    row.by,
                    row.who,
                    row.asked,
                    row.expected,
                    row.got,
                    f"{row.milliseconds:.2f}",
                    row.note,
                )
                for row in rows
            ],
        )
        wrong = sum(not row.well for row in rows)
        show.line(
            f"{len(rows) - wrong} as expected, {wrong} not; build profile: {running.profile}"
            + ("" if running.profile != "debug" else " (latencies say nothing about a release)")
        )
        if keep:
            show.line(running.paste())
            show.note("staying up; Ctrl-C ends it")
            _wait_for_signal()
    if wrong:
        raise Ended(_DIFFERS)


def _mesh(show: Show) -> None:
    async def steps(add: Callable[[tuple[str, ...]], None]) -> list[Step]:
        return [step async for step in running.steps(lambda call: add(_called(call)))]

    with Mesh(show.note) as running:
        columns = ("the agent calls", "with", "and gets", "judged", "because of")
        with show.live(columns) as add:
            seen = asyncio.run(steps(add))
        show.table(
            ("", "step", "expected", "got", "ms"),
            [
                (
                    "ok" if step.well else "WRONG",
                    step.what,
                    step.expected,
                    step.got,
                    f"{step.milliseconds:.0f}" if step.milliseconds else "",
                )
                for step in seen
            ],
        )
        show.line(running.why)
    if not all(step.well for step in seen):
        raise Ended(_DIFFERS)


def _called(call: Call) -> tuple[str, ...]:
    judged = call.judged
    observed = judged is not None and not judged.enforced
    return (
        call.done.tool,
        ", ".join(map(str, call.done.arguments.values())),
        "an error" if call.done.held else "an answer",
        "nobody could" if judged is None else judged.outcome + (", only noted" if observed else ""),
        "" if judged is None or judged.outcome == "PERMIT" else judged.policies or judged.reason,
    )


def _wait_for_signal() -> None:
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    stop.wait()
    for number, handler in before.items():
        signal.signal(number, handler)


def make(
    *,
    folder: KeyFolder,
    domain: Annotated[str, typer.Option(help="SPIFFE trust domain.")] = "dev.example",
    issuer: Annotated[str, typer.Option(help="`iss` of subject tokens.")] = _ISSUER,
) -> None:
    """Make keys of a trust domain and an issuer for development, never for production, if the folder has none: bundle.json and jwks.json."""
    made = DevDomain.open(folder, domain, issuer)
    Show().line(f"{folder}: trust domain {made.domain}, issuer {made.issuer}")


def token(
    *,
    folder: KeyFolder,
    audience: Annotated[str, typer.Option(help="`aud`.")] = "authz",
    agent: Annotated[
        str | None, typer.Option(help="Path of the SPIFFE id, e.g. /ns/support/sa/bot.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="`sub` of a subject token.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="A value of the claim `groups`.")] = None,
    lifetime: Annotated[int, typer.Option(help="Seconds.")] = 3600,
) -> None:
    """Print a token signed with the keys of a folder, for development."""
    if not folder.is_dir():
        raise UsageError(f"{folder} has no keys; run: authz keys make {folder}")
    keys = DevDomain.open(folder, "dev.example", _ISSUER)
    if (agent is None) == (subject is None):
        raise UsageError("say whose: --agent or --subject")
    if agent is not None:
        if not agent.startswith("/"):
            raise UsageError("--agent is a path: /ns/…/sa/…")
        print(keys.svid(agent, audience, lifetime=lifetime))
    else:
        claims = {"groups": list(group)} if group else {}
        print(keys.subject_token(subject or "", audience, claims, lifetime=lifetime))
