"""Prints results: the terminal, and the tables and texts that are more than a few lines.

`terminal` knows how to print, `page` how to write HTML; `approval`, `can`, `decision`, `difference`, `exceptions`, `status`, `task`, `timeline` and `why` each know one kind of result.
`github` writes annotations of GitHub Actions, and `analysis` the text of an analysis. `analysis`, `github` and `receipt` are imported by their own names.
"""

from authz.cli.render.can import can_page, print_can
from authz.cli.render.decision import print_decision
from authz.cli.render.exceptions import (
    breakglass_json,
    breakglass_rows,
    exception_rows,
    time_left,
)
from authz.cli.render.page import Page
from authz.cli.render.status import approval_status_rows, status_rows
from authz.cli.render.task import print_task_tree
from authz.cli.render.terminal import CommandExit, Terminal
from authz.cli.render.timeline import timeline_lines, timeline_page
from authz.cli.render.why import groups_page, print_groups, print_why, why_page

__all__ = [
    "CommandExit",
    "Page",
    "Terminal",
    "approval_status_rows",
    "breakglass_json",
    "breakglass_rows",
    "can_page",
    "exception_rows",
    "groups_page",
    "print_can",
    "print_decision",
    "print_groups",
    "print_task_tree",
    "print_why",
    "status_rows",
    "time_left",
    "timeline_lines",
    "timeline_page",
    "why_page",
]
