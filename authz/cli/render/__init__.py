"""Prints results: the terminal, and the tables and texts that are more than a few lines.

`terminal` knows how to print; `decision`, `status` and `why` each know one kind of result.
"""

from authz.cli.render.decision import print_decision
from authz.cli.render.status import status_rows
from authz.cli.render.terminal import CommandExit, Terminal
from authz.cli.render.why import print_groups, print_why

__all__ = [
    "CommandExit",
    "Terminal",
    "print_decision",
    "print_groups",
    "print_why",
    "status_rows",
]
