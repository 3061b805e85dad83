"""Options that several verbs take, and what they come to."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from authz.config import Config, Loaded, load_with_origins, parse_assignment
from authz.config.load import Assignment
from authz.errors import UsageError
from authz.model import BundleFiles

__all__ = [
    "BundleFolder",
    "ConfigFile",
    "Sets",
    "Vars",
    "configuration",
    "flags",
    "loaded",
    "offline_variables",
    "variables",
]

_VARIABLE: Final = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]{0,63})\}")

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
    """Read `--var`, and let something stand in for each variable that was not given.

    A node refuses a bundle of which a variable has no value; whoever only looks at one need not know it.

    Args:
        bundle: The bundle's files.
        given: Values as given.
        note: Told what stands in.

    Returns:
        Values by name.

    Raises:
        UsageError: One is no assignment.
    """
    found = variables(given)
    # What an MCP server says of its tools is not filled in.
    texts = (
        content.decode(errors="replace")
        for name, content in bundle.files.items()
        if not name.endswith(".mcp.yaml")
    )
    for name in sorted({name for text in texts for name in _VARIABLE.findall(text)} - set(found)):
        found[name] = f"{name.lower().replace('_', '-')}.example"
        note(f"${{{name}}} is {found[name]} here; say --var {name}=VALUE for another")
    return found


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
