"""Unicode's data about characters: which have no ink, which belong to which script, and which look alike (UTS 39).

The data is `unicode.txt`, of one version of Unicode, so that a card is the same under every version of Python.
`scripts/unicode_data.py` writes it.
"""

import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

__all__ = [
    "character_label",
    "hidden_name",
    "is_mark",
    "is_pictograph",
    "mixes_scripts",
    "script_of",
    "scripts_of",
    "skeleton",
    "unicode_version",
]

_FILE: Final = "unicode.txt"
# Scripts that are written together in one word (UTS 39, "highly restrictive").
_TOGETHER: Final = (
    frozenset({"Latin", "Han", "Hiragana", "Katakana"}),
    frozenset({"Latin", "Han", "Bopomofo"}),
    frozenset({"Latin", "Han", "Hangul"}),
)


# IDNA divides the labels of a domain at these, too (RFC 3490, section 3.1).
_STOPS: Final = {0x3002: ".", 0xFF0E: ".", 0xFF61: "."}


def hidden_name(character: str) -> str | None:
    """Return the name of a character that has no ink of its own, such as a control or a bidi override; `None` for all others."""
    if " " <= character <= "~":
        return None
    return _data().hidden.value_of(character)


def is_mark(character: str) -> bool:
    """Return whether a character is drawn over the one before it."""
    return character > "~" and _data().marks.value_of(character) is not None


def is_pictograph(character: str) -> bool:
    """Return whether a character is a base of emoji."""
    return character > "~" and _data().pictographs.value_of(character) is not None


def script_of(character: str) -> str | None:
    """Return the script of a character, for example `Cyrillic`; `None` for digits, punctuation and marks of many scripts."""
    return _data().scripts.value_of(character)


def scripts_of(text: str) -> frozenset[str]:
    """Return the scripts of a text."""
    return frozenset(filter(None, map(script_of, text)))


def mixes_scripts(text: str) -> bool:
    """Return whether a word has letters of scripts that no language writes in one word."""
    scripts = scripts_of(text)
    return len(scripts) > 1 and not any(scripts <= together for together in _TOGETHER)


def skeleton(text: str) -> str:
    """Return the skeleton of a text (UTS 39, section 4): two texts with one skeleton look alike.

    Variants for typesetting, such as full-width letters, count as the character that they vary. Characters without ink are left
    out.
    """
    if text.isascii():
        return text.translate(_data().ascii_prototypes)
    prototypes = _data().prototypes
    plain = unicodedata.normalize("NFKD", text).translate(_STOPS)
    bare = (one for one in plain if hidden_name(one) is None)
    return unicodedata.normalize("NFD", "".join(prototypes.get(one, one) for one in bare))


def character_label(character: str) -> str:
    """Return a label of a character, for example `U+202E right-to-left override`."""
    point = f"U+{ord(character):04X}"
    # The names of Unicode 3.2 are in every Python, and never change.
    known = unicodedata.ucd_3_2_0.name(character, "").lower()
    name = hidden_name(character) or known or (script_of(character) or "")
    return f"{point} {name}".rstrip()


def unicode_version() -> str:
    """Return the version of Unicode of the data, for example `17.0`."""
    return _data().version


@dataclass(frozen=True, slots=True)
class _Ranges:
    """Values of ranges of code points."""

    firsts: tuple[int, ...]
    lasts: tuple[int, ...]
    values: tuple[str, ...]

    def value_of(self, character: str) -> str | None:
        """Return the value of the range that a character is in."""
        point = ord(character)
        place = bisect_right(self.firsts, point) - 1
        return self.values[place] if place >= 0 and point <= self.lasts[place] else None


@dataclass(frozen=True, slots=True)
class _Data:
    version: str
    hidden: _Ranges
    marks: _Ranges
    pictographs: _Ranges
    scripts: _Ranges
    prototypes: Mapping[str, str]
    ascii_prototypes: Mapping[int, str]
    """Prototypes of ASCII characters; a control has none."""


@cache
def _data() -> _Data:
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in files("authz.approvals").joinpath(_FILE).read_text("utf-8").splitlines():
        if line.startswith("["):
            lines = sections.setdefault(line.strip("[]"), [])
        elif not line.startswith("#"):
            lines.append(line)
    version = next(name for name in sections if name.startswith("version "))
    prototypes = dict(map(_prototype, sections["confusables"]))
    hidden = _ranges(sections["hidden"])
    return _Data(
        version=version.removeprefix("version "),
        hidden=hidden,
        marks=_ranges(sections["marks"]),
        pictographs=_ranges(sections["pictographs"]),
        scripts=_ranges(sections["scripts"]),
        prototypes=prototypes,
        ascii_prototypes={
            point: "" if hidden.value_of(chr(point)) else prototypes.get(chr(point), chr(point))
            for point in range(0x80)
        },
    )


def _ranges(lines: Iterable[str]) -> _Ranges:
    firsts, lasts, values = [], [], []
    for line in lines:
        span, _, value = line.partition(";")
        first, _, last = span.partition("-")
        firsts.append(int(first, 16))
        lasts.append(int(last or first, 16))
        values.append(value)
    return _Ranges(tuple(firsts), tuple(lasts), tuple(values))


def _prototype(line: str) -> tuple[str, str]:
    source, _, target = line.partition(";")
    return chr(int(source, 16)), "".join(chr(int(point, 16)) for point in target.split())
