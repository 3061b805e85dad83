"""Options that several verbs take, and readers of their values."""

import json
import os
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from authz.bundle import with_stand_ins
from authz.config import Config, Loaded, load_with_origins, parse_assignment
from authz.config.load import Assignment
from authz.errors import UsageError
from authz.model import BundleFiles
from authz_client.v1 import decision_pb2

__all__ = [
    "ADMIN",
    "Address",
    "AgentToken",
    "Arguments",
    "BundleFolder",
    "ConfigFile",
    "Format",
    "Header",
    "NoSolver",
    "OutputFormat",
    "QuestionTimeLimit",
    "ReportFile",
    "Server",
    "Sets",
    "SolverCache",
    "SubjectToken",
    "Vars",
    "configuration",
    "evidence",
    "flags",
    "json_object",
    "loaded",
    "named_values",
    "offline_variables",
    "output_path",
    "read_text",
    "variables",
]

_FORMATS: Final = frozenset({"text", "json", "markdown", "html", "sarif", "github"})
ADMIN: Final = "unix:///run/authz/admin.sock"
"""Default address of a node's administration socket."""
_MAX_INPUT: Final = 1_048_576

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        "--config-file",
        envvar="AUTHZ_CONFIG",
        help="Configuration file (YAML).",
        dir_okay=False,
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set any key of the configuration, for example limits.threads=8. Repeatable.",
    ),
]
BundleFolder = Annotated[Path, typer.Argument(help="Folder of the bundle.", file_okay=False)]
Vars = Annotated[
    list[str] | None,
    typer.Option("--var", metavar="NAME=VALUE", help="Value of ${NAME} in the bundle. Repeatable."),
]


class OutputFormat(StrEnum):
    """Format of the output of verbs that print text or JSON."""

    TEXT = "text"
    JSON = "json"


Format = Annotated[OutputFormat, typer.Option("--format", help="text or json")]


def output_path(path: Path | None) -> Path | None:
    """Check the value of `--output`, which is a file or a folder.

    Raises:
        UsageError: The value is the name of a format.
    """
    if path is not None and str(path) in _FORMATS:
        raise UsageError(f"--output takes a file; use --format {path}, or write ./{path}")
    return path


NoSolver = Annotated[
    bool, typer.Option("--no-solver", help="Ask no solver, so that nothing is proved.")
]
SolverCache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Folder with the solver's answers of earlier runs, at most 256 MiB. Default: no answers are kept.",
        file_okay=False,
    ),
]
QuestionTimeLimit = Annotated[
    float,
    typer.Option(
        "--question-time-limit",
        metavar="SECONDS",
        help="Time limit of each question to the solver, in seconds.",
        min=0.001,
        max=3_600,
    ),
]
ReportFile = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        callback=output_path,
        help="File to write the report to. Default: print.",
        dir_okay=False,
    ),
]
Arguments = Annotated[
    str, typer.Option("--input", "-i", help="Arguments: one JSON object, or @file.")
]
Address = Annotated[
    str,
    typer.Option(
        "--admin",
        envvar="AUTHZ_ADMIN",
        help="Administration socket of the node.",
    ),
]
Server = Annotated[
    str,
    typer.Option(
        "--server",
        envvar="AUTHZ_SERVER",
        help="Address of the server, `host:port` or `unix:///path`. The owner of the administration socket needs no token to "
        "read and end tasks.",
    ),
]
AgentToken = Annotated[
    Path | None, typer.Option(help="File with the agent's JWT-SVID.", dir_okay=False)
]
Header = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        metavar="NAME=VALUE",
        help="Request header for the URL; the value env:VARIABLE takes it from the environment. Repeatable.",
    ),
]
SubjectToken = Annotated[
    Path | None, typer.Option(help="File with the subject's token.", dir_okay=False)
]


def flags(**named: str | bool | Path | None) -> list[Assignment]:
    """Turn named flags into assignments.

    Args:
        named: Values by key, with `__` for a dot; those that were not given are None.

    Returns:
        One assignment for each that was given.
    """
    assignments = []
    for key, value in named.items():
        if value is None:
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        path = tuple(key.split("__"))
        assignments.append(Assignment(path, text, "--set " + ".".join(path)))
    return assignments


def configuration(
    file: Path | None, sets: Sequence[str] | None, named: Sequence[Assignment] = ()
) -> Config:
    """Load the configuration with the process's variables.

    Args:
        file: The YAML file.
        sets: Values of `--set`.
        named: Values of named flags; `--set` wins over them.

    Returns:
        The checked configuration.

    Raises:
        ConfigError: It is refused.
    """
    return loaded(file, sets, named).config


def loaded(
    file: Path | None, sets: Sequence[str] | None, named: Sequence[Assignment] = ()
) -> Loaded:
    """Load the configuration with the process's variables.

    Args:
        file: The YAML file.
        sets: Values of `--set`.
        named: Values of named flags; `--set` wins over them.

    Returns:
        The checked configuration, with where each value comes from.

    Raises:
        ConfigError: It is refused.
    """
    assignments = [*named, *(parse_assignment(text) for text in sets or ())]
    return load_with_origins(file, os.environ, assignments, working_folder=Path.cwd())


def offline_variables(
    bundle: BundleFiles, given: Sequence[str] | None, note: Callable[[str], None]
) -> dict[str, str]:
    """Read `--var`, and use a stand-in for each variable that was not given.

    Args:
        bundle: The bundle's files.
        given: Values as given.
        note: Called with a line for each stand-in.

    Returns:
        Values by name.

    Raises:
        UsageError: A value is not NAME=VALUE.
    """
    return with_stand_ins(bundle, variables(given), note)


def named_values(flag: str, given: Sequence[str] | None) -> dict[str, Any]:
    """Read options of the form NAME=JSON. A value that is not JSON is a string.

    Args:
        flag: Name of the option, for messages.
        given: Values as given.

    Returns:
        Values by name.

    Raises:
        UsageError: A value is not NAME=JSON.
    """
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


def variables(given: Sequence[str] | None) -> dict[str, str]:
    """Read `--var`.

    Args:
        given: Values as given.

    Returns:
        Values by name.

    Raises:
        UsageError: A value is not NAME=VALUE.
    """
    values = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--var {text}: write NAME=VALUE")
        values[name] = value
    return values


def evidence(agent: Path | None, subject: Path | None) -> list[decision_pb2.Evidence]:
    """Read the tokens of a call.

    Args:
        agent: File with the agent's token.
        subject: File with the subject's token.

    Returns:
        One bearer token for each file.

    Raises:
        UsageError: A file cannot be read.
    """
    files = (
        (decision_pb2.EVIDENCE_ROLE_AGENT, agent),
        (decision_pb2.EVIDENCE_ROLE_SUBJECT, subject),
    )
    scheme = decision_pb2.EVIDENCE_SCHEME_BEARER
    return [
        decision_pb2.Evidence(role=role, scheme=scheme, token=read_text(file))
        for role, file in files
        if file is not None
    ]


def json_object(given: str) -> dict[str, Any]:
    """Read `--input`: a JSON object, or `@` and the name of a file that holds one.

    Raises:
        UsageError: The value is not a JSON object, or the file cannot be read.
    """
    text = read_text(Path(given[1:])) if given.startswith("@") else given
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--input is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError("--input is not a JSON object")
    return value


def read_text(file: Path) -> str:
    """Read at most 1 MiB of a UTF-8 file, without white space at its ends.

    Raises:
        UsageError: The file cannot be read, or is not UTF-8.
    """
    try:
        with file.open("rb") as stream:
            return stream.read(_MAX_INPUT).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
