"""Pages that people send to each other: one HTML file without scripts, and without anything to fetch."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from authz.tools.catalog.tool import plain

__all__ = ["PAGE_POLICY", "PAGE_STYLE", "Page"]

_MOST_TEXT: Final = 4_000
# No source is allowed, so that a text of a stranger could load nothing even if it were read as HTML.
PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
PAGE_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: .2rem; }
h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: .6rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #8884; }
th { font-weight: 600; }
td, dd { overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; }
dt { font-weight: 600; }
dd { margin: 0; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { background: #8881; padding: .6rem; overflow-x: auto; }
.PERMIT { color: #1a7f37; font-weight: 600; }
.STEP_UP { color: #9a6700; font-weight: 600; }
.DENY { color: #cf222e; font-weight: 600; }
.note { color: #6e7781; }
"""
_OUTCOMES: Final = frozenset({"PERMIT", "STEP_UP", "DENY"})


def _text(value: str) -> str:
    return escape(plain(value, _MOST_TEXT))


class Page:
    """A page. Every text is escaped, and loses control characters and line breaks.

    Args:
        title: Title of the page.
        note: A line below it.
    """

    def __init__(self, title: str, note: str = "") -> None:
        self._title = _text(title)
        self._parts = [f"<h1>{self._title}</h1>"]
        self.note(note)

    def heading(self, text: str) -> None:
        """Add a heading."""
        self._parts.append(f"<h2>{_text(text)}</h2>")

    def note(self, text: str) -> None:
        """Add a line in grey. An empty text adds nothing."""
        if text:
            self._parts.append(f'<p class="note">{_text(text)}</p>')

    def line(self, text: str) -> None:
        """Add a line."""
        self._parts.append(f"<p>{_text(text)}</p>")

    def outcome(self, outcome: str, text: str) -> None:
        """Add a line that begins with an outcome."""
        self._parts.append(f"<p>{_cell(outcome)} {_text(text)}</p>")

    def facts(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Add names with their values; those without a value are left out."""
        rows = "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in pairs if v)
        if rows:
            self._parts.append(f"<dl>{rows}</dl>")

    def items(self, texts: Iterable[str]) -> None:
        """Add a list."""
        items = "".join(f"<li>{_text(text)}</li>" for text in texts)
        if items:
            self._parts.append(f"<ul>{items}</ul>")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Add a table; outcomes are coloured."""
        head = "".join(f"<th>{_text(column)}</th>" for column in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows
        )
        self._parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def source(self, lines: Iterable[str]) -> None:
        """Add lines of a file."""
        text = "\n".join(
            escape("".join(c if c.isprintable() else " " for c in line)) for line in lines
        )
        if text:
            self._parts.append(f"<pre>{text}</pre>")

    def render(self) -> str:
        """Return the page."""
        body = "\n".join(self._parts)
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{PAGE_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{self._title}</title>\n<style>{PAGE_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
        )


def _cell(text: str) -> str:
    word = text.split(" ", 1)[0]
    if word in _OUTCOMES:
        return f'<span class="{word}">{_text(text)}</span>'
    return _text(text)
