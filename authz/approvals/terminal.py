"""Renders a card on a terminal.

Text of the agent or of the request stands on lines of its own behind a bar, so that a reader can tell it from the words of Authz
without colours.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, tzinfo
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from authz.approvals.parts import Card, Flag, Inert, Part, Plain, Row, Section, Time, Tone

__all__ = ["TerminalCard"]

_BAR: Final = "│ "
_INDENT: Final = "  "
_WARNING: Final = "! "
_BETWEEN: Final = " · "
_NARROWEST: Final = 20
_STYLES: Final = {Tone.NORMAL: "", Tone.QUIET: "dim", Tone.STRONG: "bold"}


class TerminalCard:
    """A card as rich prints it.

    Args:
        card: The card.
        zone: Time zone of the reader. Default: the time zone of the machine.
    """

    def __init__(self, card: Card, zone: tzinfo | None = None) -> None:
        self._card = card
        self._zone = zone

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines of the card."""
        width = max(options.max_width, _NARROWEST)
        yield Text(self._card.title, style="bold")
        for section in (*self._card.sections, self._card.status):
            yield Text()
            yield from self._section(section, console, width)
        if self._card.needs_whole_view:
            yield Text()
            text = f"{self._card.hidden_bytes} bytes are not shown. Only the whole view can be approved."
            yield from _wrapped(Text(text, style="bold"), "", console, width)
        yield Text()
        yield from _wrapped(
            Text(f"Card {self._card.digest.hex()}", style="dim"), "", console, width
        )

    def _section(self, section: Section, console: Console, width: int) -> Iterator[Text]:
        style = "bold yellow" if section.id == "flags" else "bold underline"
        yield from _wrapped(Text(section.heading, style=style), "", console, width)
        for row in section.rows:
            for line, prefix in self._row(row):
                yield from _wrapped(line, prefix, console, width)

    def _row(self, row: Row) -> Iterator[tuple[Text, str]]:
        words = [self._words(part) for part in row.parts if isinstance(part, Plain | Time)]
        label = [part.text for part in row.label if isinstance(part, Plain)]
        if len(label) == len(row.label) and len(words) == len(row.parts):
            # Words of Authz alone need no bar, so they stand beside their label.
            yield Text.assemble(f"{' '.join(label)}: ", Text(_BETWEEN).join(words)), _INDENT
            return
        yield from self._parts(row.label, _INDENT)
        yield from self._parts(row.parts, _INDENT * 2)

    def _parts(self, parts: Iterable[Part], indent: str) -> Iterator[tuple[Text, str]]:
        """Yield each line with its prefix. Words of Authz share a line; each other part has lines of its own."""
        words: list[Text] = []
        for part in parts:
            match part:
                case Plain() | Time():
                    words.append(self._words(part))
                case Inert() | Flag():
                    yield from _joined(words, indent)
                    words = []
                    yield from (
                        _inert(part, indent) if isinstance(part, Inert) else _flag(part, indent)
                    )
        yield from _joined(words, indent)

    def _words(self, part: Plain | Time) -> Text:
        if isinstance(part, Time):
            return Text(self._local(part))
        return Text(part.text, style=_STYLES[part.tone])

    def _local(self, time: Time) -> str:
        moment = datetime.fromtimestamp(time.unix_ms / 1000, UTC).astimezone(self._zone)
        return moment.strftime("%Y-%m-%d %H:%M:%S UTC%z")


def _joined(words: list[Text], indent: str) -> Iterator[tuple[Text, str]]:
    if words:
        yield Text(_BETWEEN).join(words), indent


def _inert(part: Inert, indent: str) -> Iterator[tuple[Text, str]]:
    for line in part.text.lines:
        text = Text()
        for piece in line:
            text.append(piece.text, style="reverse" if piece.is_marker else "cyan")
        yield text, indent + _BAR


def _flag(part: Flag, indent: str) -> Iterator[tuple[Text, str]]:
    text = Text(_WARNING + part.text, style="bold yellow")
    if part.reference is None:
        yield text, indent
        return
    yield Text.assemble(text, f" ({part.reference_source})"), indent
    yield from _inert(part.reference, indent + _INDENT)


def _wrapped(line: Text, prefix: str, console: Console, width: int) -> Iterator[Text]:
    """Yield a line in as many lines as it needs, each with the prefix."""
    room = max(width - len(prefix), _NARROWEST // 2)
    for part in line.wrap(console, room, overflow="fold") or [Text()]:
        yield Text.assemble(prefix, part)
