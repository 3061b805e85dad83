"""`authz config …`: print or check the configuration."""

import json
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
import yaml

from authz.bundle import compile_bundle, read_folder
from authz.cli.options import ConfigFile, Sets, configuration, loaded
from authz.cli.render import Terminal
from authz.config import json_schema, redacted
from authz.config.document import Value, spell
from authz.engine import Trust
from authz.trust import read_trust, trust_spec

__all__ = ["register"]


class ConfigFormat(StrEnum):
    """Format of the printed configuration."""

    YAML = "yaml"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Add the group of verbs to the command."""
    group = typer.Typer(help="Print or check the configuration.", no_args_is_help=True)
    group.command("print")(print_)
    group.command("validate")(validate)
    group.command("schema")(schema)
    app.add_typer(group, name="config")


def print_(
    *,
    config: ConfigFile = None,
    sets: Sets = None,
    style: Annotated[
        ConfigFormat, typer.Option("--format", help="yaml or json")
    ] = ConfigFormat.YAML,
    origins: Annotated[
        bool, typer.Option("--origins", help="Print one value a line, with its source.")
    ] = False,
) -> None:
    """Print the configuration with defaults and without secrets."""
    loaded_config = loaded(config, sets)
    shown = redacted(loaded_config.config)
    if origins:
        listed = [
            (spell(path), value, loaded_config.origin(path)) for path, value in _leaves(shown, ())
        ]
        if style is ConfigFormat.JSON:
            Terminal().json([{"key": k, "value": v, "origin": o} for k, v, o in listed])
        for key, value, origin in listed if style is ConfigFormat.YAML else ():
            print(f"{key}: {json.dumps(value, ensure_ascii=False)}  # {origin}")
    elif style is ConfigFormat.JSON:
        Terminal().json(shown)
    else:
        print(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), end="")


def _leaves(
    value: Value, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], Value]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, index))
    else:
        yield path, value


def validate(
    *,
    config: ConfigFile = None,
    sets: Sets = None,
    files: Annotated[
        bool,
        typer.Option(
            "--files", help="Also read the keys and the bundle, and run the tests of the bundle."
        ),
    ] = False,
) -> None:
    """Check the configuration, and with --files the keys and the bundle, too. Exit code 3 if one is not valid."""
    terminal = Terminal()
    checked = configuration(config, sets)
    terminal.line("the configuration is valid")
    if not files:
        return
    trust = Trust.compile(trust_spec(checked, read_trust(checked)))
    for warning in trust.warnings:
        terminal.note(f"warning: {warning}")
    terminal.line("the keys are valid")
    bundle = read_folder(
        Path(checked.bundle.path),
        max_bytes=checked.limits.bundle_max_bytes,
        max_files=checked.limits.bundle_max_files,
        require_manifest=checked.bundle.require_manifest,
    )
    compiled = compile_bundle(bundle, checked.vars, int(time.time() * 1000))
    terminal.diagnostics(compiled.plan.warnings)
    plan = compiled.plan
    terminal.line(
        f"the bundle is valid: {plan.name} {plan.revision}, {compiled.tests.passed} tests"
    )


def schema() -> None:
    """Print the configuration's JSON Schema."""
    Terminal().json(json_schema())
