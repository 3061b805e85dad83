"""Prints results: the terminal, and the tables and texts that are more than a few lines.

`terminal` knows how to print, `page` how to write HTML; `approval`, `can`, `decision`, `difference`, `exceptions`, `status`, `task`, `timeline` and `why` each know one kind of result.
`github` writes annotations of GitHub Actions, and `analysis` the text of an analysis. Every module but `terminal` is imported by its own name, so that a verb loads only what it prints.
"""

from authz.cli.render.terminal import CommandExit, Terminal

__all__ = ["CommandExit", "Terminal"]
