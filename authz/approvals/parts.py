"""Typed parts of a card, and the digest over them. A terminal and a page show the same parts.

There are four kinds of parts: `Plain` (words of Authz and of the bundle), `Inert` (text of the agent or of a request, never words
of Authz), `Flag` (a reason to look twice) and `Time`. No part has a control, bidi or invisible character. Renderers must still
escape the characters that have a meaning in their own format, such as `<` in HTML.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from authz.approvals.inert import InertText
from authz.approvals.lookalikes import FlagCode

__all__ = [
    "Card",
    "Flag",
    "Inert",
    "Part",
    "Plain",
    "Row",
    "Section",
    "Source",
    "Time",
    "Tone",
    "digest_of",
]

_DOMAIN: Final = b"authz.v1 card 1\0"


class Source(StrEnum):
    """Author of an inert text."""

    AGENT = "the agent's text"
    REQUEST = "from the request"
    LIST = "from a list"
    EARLIER = "from an earlier call"
    PERSON = "a person's text"


class Tone(StrEnum):
    """Weight of a plain text."""

    NORMAL = "normal"
    QUIET = "quiet"
    """Detail, such as an id."""
    STRONG = "strong"
    """Text that the reader must not miss, such as a number of bytes that are not shown."""


@dataclass(frozen=True, slots=True)
class Plain:
    """Words of Authz and of the bundle."""

    text: str
    tone: Tone = Tone.NORMAL


@dataclass(frozen=True, slots=True)
class Inert:
    """Text that somebody else wrote."""

    text: InertText
    source: Source = Source.AGENT


@dataclass(frozen=True, slots=True)
class Flag:
    """A reason to look twice."""

    code: FlagCode
    text: str
    """Sentence. It ends with a colon if a reference follows."""
    reference: Inert | None = None
    """Known value that the flagged value resembles."""
    reference_source: str = ""
    """Source of the reference, in words."""


@dataclass(frozen=True, slots=True)
class Time:
    """A point in time, which renderers show in the reader's time zone."""

    unix_ms: int


Part: TypeAlias = Plain | Inert | Flag | Time
"""Part of a row."""


@dataclass(frozen=True, slots=True)
class Row:
    """A label and its parts."""

    label: tuple[Plain | Inert, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """Rows below a heading."""

    id: str
    """Stable name, for example `arguments`."""
    heading: str
    rows: tuple[Row, ...]
    is_agent_text: bool = False
    """The section is the agent's text, and is labelled so."""
    hidden_bytes: int = 0
    """Number of bytes that this view leaves out. A row of the section states it."""


@dataclass(frozen=True, slots=True)
class Card:
    """The description of one call that a person reads before answering."""

    approval_id: str
    title: str
    """The operation in words, for example `send out: bank.transfer`."""
    code: str
    """Six characters that stand on every channel that shows this approval."""
    sections: tuple[Section, ...]
    """Description of the call. The digest covers it."""
    status: Section
    """State of the approval, which changes while people answer. Not part of the digest."""
    flags: tuple[Flag, ...]
    """All flags of the sections, each once."""
    hidden_bytes: int
    """Bytes of the call that this view leaves out."""
    cannot_be_shown: str
    """Reason why the call cannot be shown and can only be rejected. Empty if it can be shown."""
    digest: bytes
    """SHA-256 over everything in `title`, `code` and `sections`."""

    @property
    def needs_whole_view(self) -> bool:
        """True if the call can only be approved from a card that is built with `whole=True`."""
        return self.hidden_bytes > 0

    @property
    def can_be_approved(self) -> bool:
        """True if this view shows everything that a person must see before approving."""
        return not self.hidden_bytes and not self.cannot_be_shown


def digest_of(title: str, code: str, sections: Iterable[Section]) -> bytes:
    """Return the SHA-256 over everything that a card shows. It is the same for every renderer."""
    value = [title, code, [_section_value(section) for section in sections]]
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(_DOMAIN + text.encode("ascii")).digest()


_Value: TypeAlias = "str | int | bool | list[_Value] | None"


def _section_value(section: Section) -> _Value:
    rows: list[_Value] = [
        [[_part_value(part) for part in row.label], [_part_value(part) for part in row.parts]]
        for row in section.rows
    ]
    return [section.id, section.heading, section.is_agent_text, section.hidden_bytes, rows]


def _part_value(part: Part) -> _Value:
    match part:
        case Plain():
            return ["plain", part.text, part.tone.value]
        case Inert():
            lines: list[_Value] = [
                [[piece.text, piece.is_marker] for piece in line] for line in part.text.lines
            ]
            return ["inert", part.source.value, lines, part.text.hidden_bytes]
        case Flag():
            reference = None if part.reference is None else _part_value(part.reference)
            return ["flag", part.code.value, part.text, reference, part.reference_source]
        case Time():
            return ["time", part.unix_ms]
