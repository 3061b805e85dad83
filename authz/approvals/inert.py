"""Makes text of others safe to show: nothing in it can hide, reorder or imitate the text beside it.

Characters without ink become markers, for example `⟦U+202E right-to-left override⟧`. So do confusable characters of a word that
mixes scripts, and marks that pile up. The brackets of markers are themselves written as markers, so that no text can imitate one.
If text is left out, a count of the bytes stands in its place.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Final

from authz.approvals.characters import (
    character_label,
    hidden_name,
    is_mark,
    is_pictograph,
    mixes_scripts,
    script_of,
    scripts_of,
    skeleton,
)

__all__ = [
    "WHOLE",
    "Finding",
    "FindingKind",
    "InertText",
    "Kind",
    "Limit",
    "Piece",
    "is_binary",
    "make_inert",
    "visible",
]

OPEN: Final = "⟦"
CLOSE: Final = "⟧"
"""Brackets of markers."""

_MARKS_AT_MOST: Final = 4
"""Marks over one character. More marks would cover other lines (UTS 39, section 5.4)."""
_SPACES_AT_MOST: Final = 24
_EMPTY_LINES_AT_MOST: Final = 3
_FLAGGED_SPACES: Final = 64
_FLAGGED_LINES: Final = 16
_JOINER: Final = "\u200d"
_JOINERS: Final = "\u200c\u200d"
# Scripts whose spelling needs joiners.
_JOINING_SCRIPTS: Final = frozenset(
    {"Arabic", "Bengali", "Devanagari", "Gujarati", "Gurmukhi", "Kannada", "Malayalam"}
    | {"Oriya", "Sinhala", "Syriac", "Tamil", "Telugu"}
)
_SKIN_TONES: Final = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
_DELIMITERS: Final = "/\\.:@%?#&="
"""Characters that divide paths and ids."""
_EMOJI_SELECTORS: Final = "\ufe0e\ufe0f"
# Blanks of ordinary prose. The card makes them visible, but does not warn of them.
_ORDINARY_BLANKS: Final = frozenset("\t\u00a0\u202f\u2009\u00ad")
_SPACES: Final = re.compile(f" {{{_SPACES_AT_MOST + 1},}}")
_BINARY_AT_LEAST: Final = 8
"""Number of controls that make a text binary, if they are also a tenth of its characters."""


class Kind(StrEnum):
    """Kind of a value. It decides how strictly the characters of the value are judged."""

    PROSE = "prose"
    """Free text: words of any one script are ordinary."""
    NAME = "name"
    """Ids, paths and names: every character without ink is flagged."""
    ADDRESS = "address"
    """Mailboxes, hosts, URLs and account numbers: every character that looks like ASCII is flagged, too."""


class FindingKind(StrEnum):
    """Kind of a finding in a text."""

    HIDDEN = "hidden"
    """A character without ink."""
    MIXED = "mixed_scripts"
    """A word that mixes scripts."""
    CONFUSABLE = "confusable"
    """A character of an address that looks like an ASCII character."""
    PADDING = "padding"
    """Blanks that push text out of sight."""
    MARKS = "marks"
    """Marks that pile up."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A part of a text that a reader could misread."""

    kind: FindingKind
    detail: str
    """In words, for example `U+202E right-to-left override`."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a line."""

    text: str
    """Printable; never a control, bidi or invisible character."""
    is_marker: bool = False
    """True if the text stands for characters of the original, and is not part of the original."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Largest size of a text that is shown."""

    characters: int
    lines: int


WHOLE: Final = Limit(characters=1 << 20, lines=1 << 20)
"""Limit that every text of an approval stays below."""


@dataclass(frozen=True, slots=True)
class InertText:
    """Text of others that is safe to show."""

    lines: tuple[tuple[Piece, ...], ...]
    """At least one line."""
    hidden_bytes: int = 0
    """Bytes at the end of the original that are not shown."""
    findings: tuple[Finding, ...] = ()
    """Parts that a reader could misread, each once and in order, including parts that are not shown."""

    @property
    def text(self) -> str:
        """The lines with their markers, as one text."""
        return "\n".join("".join(piece.text for piece in line) for line in self.lines)


def visible(text: str) -> str:
    """Return a text on one line, with markers instead of characters that cannot be seen."""
    return make_inert(text).text.replace("\n", f"{OPEN}line break{CLOSE}")


def is_binary(text: str) -> bool:
    """Return whether a text is binary data."""
    controls = sum(
        1 for one in text if one not in "\t\n\r" and (one < " " or "\x7f" <= one <= "\x9f")
    )
    surrogates = sum(1 for one in text if "\ud800" <= one <= "\udfff" or one == "\ufffd")
    unreadable = controls + surrogates
    return unreadable >= _BINARY_AT_LEAST and unreadable * 10 >= len(text)


def make_inert(text: str, kind: Kind = Kind.PROSE, limit: Limit = WHOLE) -> InertText:
    """Make a text safe to show.

    Args:
        text: Text of others. It may hold any code point, also halves of surrogate pairs.
        kind: Kind of the value.
        limit: Largest size. Text beyond it is counted in `hidden_bytes`.
    """
    findings: dict[Finding, None] = {}
    lines = _render(text, kind, findings)
    head = _head(text, limit)
    if len(head) == len(text):
        return InertText(lines, findings=tuple(findings))
    hidden = _size(text) - _size(head)
    return InertText(_render(head, kind, {}), hidden, tuple(findings))


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _head(text: str, limit: Limit) -> str:
    """Return the part of a text that fits a limit."""
    head = text[: limit.characters]
    lines = head.split("\n")
    return head if len(lines) <= limit.lines else "\n".join(lines[: limit.lines])


def _render(text: str, kind: Kind, findings: dict[Finding, None]) -> tuple[tuple[Piece, ...], ...]:
    # If all line breaks are of one kind, one marker states it. A carriage return in another place has a marker of its own.
    is_dos = "\r\n" in text and not re.search(r"\r(?!\n)|(?<!\r)\n", text)
    lines = [
        tuple(_merged(_line(line, kind, findings)))
        for line in text.split("\r\n" if is_dos else "\n")
    ]
    if len(lines) > 1 and kind is not Kind.PROSE:
        findings[Finding(FindingKind.HIDDEN, "line breaks")] = None
    rendered = list(_without_empty_runs(lines, findings))
    if is_dos:
        rendered.append((_marker("line breaks: carriage return, line feed"),))
    return tuple(rendered)


def _marker(label: str) -> Piece:
    return Piece(f"{OPEN}{label}{CLOSE}", is_marker=True)


def _merged(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield pieces, with adjacent pieces of plain text joined."""
    for is_marker, group in groupby(pieces, lambda piece: piece.is_marker):
        if is_marker:
            yield from group
        else:
            yield Piece("".join(piece.text for piece in group))


def _without_empty_runs(
    lines: Iterable[tuple[Piece, ...]], findings: dict[Finding, None]
) -> Iterator[tuple[Piece, ...]]:
    """Yield lines. A marker replaces a long run of lines without text."""
    for is_empty, group in groupby(lines, _is_empty):
        run = list(group)
        if not is_empty or len(run) <= _EMPTY_LINES_AT_MOST:
            yield from run
            continue
        if len(run) >= _FLAGGED_LINES:
            findings[Finding(FindingKind.PADDING, f"{len(run)} lines without text")] = None
        yield (_marker(f"{len(run)} lines without text"),)


def _is_empty(line: tuple[Piece, ...]) -> bool:
    return not any(piece.is_marker or piece.text.strip(" ") for piece in line)


def _line(line: str, kind: Kind, findings: dict[Finding, None]) -> Iterator[Piece]:
    marked = _marked_in_words(line, kind, findings)
    marks = 0
    place = 0
    while place < len(line):
        character = line[place]
        marks = marks + 1 if is_mark(character) else 0
        if spaces := _SPACES.match(line, place):
            count = len(spaces[0])
            if count >= _FLAGGED_SPACES:
                findings[Finding(FindingKind.PADDING, f"{count} spaces")] = None
            yield _marker(f"{count} spaces")
            place = spaces.end()
            continue
        if hidden_name(character) is not None:
            if not _is_ordinary(line, place, kind):
                findings[Finding(FindingKind.HIDDEN, character_label(character))] = None
            yield _marker(character_label(character))
        elif character in OPEN + CLOSE:
            findings[Finding(FindingKind.HIDDEN, "a bracket of these markers")] = None
            yield _marker(character_label(character))
        elif marks and (marks > _MARKS_AT_MOST or marks > place or line[place - marks] == " "):
            findings[Finding(FindingKind.MARKS, character_label(character))] = None
            yield _marker(character_label(character))
        elif place in marked:
            yield _marker(character_label(character))
        else:
            yield Piece(character)
        place += 1


def _is_ordinary(line: str, place: int, kind: Kind) -> bool:
    """Return whether ordinary text has a character without ink at this place."""
    character = line[place]
    before, after = line[place - 1 : place], line[place + 1 : place + 2]
    if character in _EMOJI_SELECTORS:
        return bool(before) and (is_pictograph(before) or before in "0123456789#*")
    if character == _JOINER and before and after and is_pictograph(after):
        return is_pictograph(before) or before in _EMOJI_SELECTORS or before in _SKIN_TONES
    if kind is not Kind.PROSE:
        return False
    if character in _JOINERS and before and after:
        script = script_of(before)
        return script in _JOINING_SCRIPTS and script_of(after) == script
    return character in _ORDINARY_BLANKS


def _marked_in_words(line: str, kind: Kind, findings: dict[Finding, None]) -> frozenset[int]:
    """Return the places of characters that imitate other characters."""
    if line.isascii():
        return frozenset()
    marked: set[int] = set()
    for first, last in _words(line):
        marked |= _marked_in_word(line, first, last, kind, findings)
    if kind is not Kind.PROSE:
        for place, character in enumerate(line):
            if character <= "~" or character.isalnum() or place in marked:
                continue
            looks = skeleton(character)
            if looks.isascii() and looks and (kind is Kind.ADDRESS or looks in _DELIMITERS):
                detail = f"{character_label(character)} looks like `{looks}`"
                findings[Finding(FindingKind.CONFUSABLE, detail)] = None
                marked.add(place)
    return frozenset(marked)


def _words(line: str) -> Iterator[tuple[int, int]]:
    """Yield the index of the first character of each word, and the index after its last character."""
    first: int | None = None
    for place, character in enumerate(line):
        is_part = character.isalnum() or is_mark(character) or hidden_name(character) is not None
        if is_part and first is None:
            first = place
        elif not is_part and first is not None:
            yield first, place
            first = None
    if first is not None:
        yield first, len(line)


def _marked_in_word(
    line: str, first: int, last: int, kind: Kind, findings: dict[Finding, None]
) -> set[int]:
    word = line[first:last]
    if word.isascii():
        return set()
    places = [place for place in range(first, last) if line[place] > "~"]
    if mixes_scripts(word):
        # Units such as `kΩ` mix scripts too, but their letters do not look like letters of ASCII.
        strange = {
            place
            for place in places
            if script_of(line[place]) not in (None, "Latin")
            and (kind is not Kind.PROSE or _looks_like_ascii(line[place]))
        }
        if strange:
            findings[Finding(FindingKind.MIXED, " and ".join(sorted(scripts_of(word))))] = None
        return strange
    if kind is Kind.PROSE or not _looks_like_ascii(word):
        return set()
    # A Turkish file name is ordinary Latin text. A typesetting variant of a letter is not.
    alike = {
        place
        for place in places
        if hidden_name(line[place]) is None
        and not is_mark(line[place])
        and (kind is Kind.ADDRESS or script_of(line[place]) != "Latin" or _is_variant(line[place]))
    }
    if alike:
        detail = f"looks like `{skeleton(word)}`"
        findings[Finding(FindingKind.CONFUSABLE, detail)] = None
    return alike


def _looks_like_ascii(text: str) -> bool:
    looks = skeleton(text)
    return bool(looks) and looks.isascii()


def _is_variant(character: str) -> bool:
    return unicodedata.normalize("NFKC", character) != character
