"""The `authz` command.

Exit codes: 0 it is well (or permitted), 1 wrong use or a failure, 2 tests fail or the answer is not a permit,
3 the bundle or the configuration is refused.
"""

import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from authz.cli import bundle, catalog, config, credentials, decide, dev, node, past, tasks, why
from authz.cli.show import Ended, Show
from authz.errors import AuthzError, UsageError

__all__ = ["application", "main"]

_USAGE = 2


def application() -> typer.Typer:
    """Make the command with all its verbs.

    Returns:
        The application.
    """
    app = typer.Typer(
        name="authz",
        help="Decides, at the moment of execution, whether an AI agent may perform one action.",
        epilog=(
            "Exit codes: 0 well (or permitted); 1 wrong use, or a failure; 2 tests fail, or the answer is not a "
            "permit; 3 bundle or configuration refused."
        ),
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for part in (node, bundle, catalog, decide, past, why, tasks, credentials, config, dev):
        part.register(app)
    return app


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command.

    Args:
        arguments: What follows its name; none: the process's own.

    Raises:
        SystemExit: Always, with the exit code.
    """
    show = Show()
    try:
        application()(args=list(arguments) if arguments is not None else None, prog_name="authz")
    except AuthzError as error:
        show.error(error)
        sys.exit(error.exit_code)
    except Ended as ended:
        sys.exit(ended.code)
    except SystemExit as stop:
        # Two means something else here; the parser of arguments uses it for wrong use.
        sys.exit(1 if stop.code == _USAGE else stop.code)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        show.error(UsageError(f"{where}{error.strerror or error}"))
        sys.exit(1)
    sys.exit(0)
