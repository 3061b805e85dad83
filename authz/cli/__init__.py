"""The `authz` command: one module for each verb, or for each group of verbs, named as on the command line.

A new verb is a module with `register(app)` and a row in `VERBS`. Verbs import `options` (what several verbs take),
`decision_log` (where recorded decisions are read) and `render` (what is printed), and never each other.

Exit codes: 0 success (or permitted), 1 wrong use or a failure, 2 tests fail, an analysis has findings or the answer is not a
permit, 3 the bundle or the configuration is refused.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NoReturn

import typer

from authz.cli.render import CommandExit, Terminal
from authz.errors import AuthzError, UsageError

__all__ = ["VERBS", "application", "main"]

VERBS: Final = (
    "serve",
    "status",
    "healthcheck",
    "version",
    "init",
    "check",
    "fmt",
    "test",
    "analyze",
    "coverage",
    "schema",
    "bundle",
    "catalog",
    "mcp",
    "diff",
    "can",
    "eval",
    "explain",
    "propose",
    "replay",
    "simulate",
    "why",
    "audit",
    "task",
    "approval",
    "revoke",
    "forget",
    "credential",
    "exception",
    "config",
    "keys",
    "demo",
)
"""Every verb and group of verbs, in the order of the help. The module of each has the same name."""

_PARSER_USAGE: Final = 2


def application(verbs: Sequence[str] = VERBS) -> typer.Typer:
    """Make the command.

    Args:
        verbs: Verbs that it has. Default: all.

    Returns:
        The application.
    """
    app = typer.Typer(
        name="authz",
        help="Decides, at the moment of execution, whether an AI agent may perform one action.",
        epilog=(
            "Exit codes: 0 success (or permitted); 1 wrong use, or a failure; 2 tests fail, an analysis has "
            "findings, or the answer is not a permit; 3 the bundle or the configuration is not valid."
        ),
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    # Without a callback, typer makes a command of one verb that verb, and no longer reads its name.
    app.callback()(lambda: None)
    for verb in verbs:
        import_module(f"authz.cli.{verb}").register(app)
    return app


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command.

    Args:
        arguments: Words after the command's name. Default: those of the process.

    Raises:
        SystemExit: Always, with the exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Only the module of the verb is loaded: `authz check` needs no server, which takes half of the start-up time to import.
    app = application(words[:1] if words[:1] and words[0] in VERBS else VERBS)
    terminal = Terminal()
    try:
        app(args=words, prog_name="authz")
    except AuthzError as error:
        terminal.error(error)
        sys.exit(error.exit_code)
    except CommandExit as end:
        sys.exit(end.code)
    except SystemExit as end:
        # The argument parser ends wrong use with 2, which means a failed test here.
        sys.exit(1 if end.code == _PARSER_USAGE else end.code)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        terminal.error(UsageError(f"{where}{error.strerror or error}"))
        sys.exit(1)
    sys.exit(0)
