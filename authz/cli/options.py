"""Options that several verbs take, and what they come to."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from authz.config import Config, load, parse_assignment
from authz.config.load import Assignment
from authz.errors import UsageError

__all__ = [
    "BundleFolder",
    "ConfigFile",
    "Sets",
    "Vars",
    "configuration",
    "flags",
    "variables",
]

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        "--config-file",
        envvar="AUTHZ_CONFIG",
        help="The YAML file.",
        dir_okay=False,
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Sets any key, e.g. limits.threads=8. Repeatable."
    ),
]
BundleFolder = Annotated[Path, typer.Argument(help="Folder of the bundle.", file_okay=False)]
Vars = Annotated[
    list[str] | None,
    typer.Option("--var", metavar="NAME=VALUE", help="Value of ${NAME} in the bundle. Repeatable."),
]


def flags(**named: str | bool | Path | None) -> list[Assignment]:
    """Turn named flags into assignments.

    Args:
        named: Values by key, with `__` for a dot; those that were not given are None.

    Returns:
        One assignment for each that was given.
    """
    found = []
    for key, value in named.items():
        if value is None:
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        path = tuple(key.split("__"))
        found.append(Assignment(path, text, "--set " + ".".join(path)))
    return found


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
    assignments = [*named, *(parse_assignment(text) for text in sets or ())]
    return load(file, os.environ, assignments, working_folder=Path.cwd())


def variables(given: Sequence[str] | None) -> dict[str, str]:
    """Read `--var`.

    Args:
        given: Values as given.

    Returns:
        Values by name.

    Raises:
        UsageError: One is no assignment.
    """
    found = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--var {text}: write NAME=VALUE")
        found[name] = value
    return found
