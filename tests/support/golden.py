"""Cases of golden messages: a comment, commands, files and what is expected, in one text (txtar)."""

import re
from dataclasses import dataclass, field

_FILE = re.compile(r"^-- (.+) --$", re.MULTILINE)
_EXPECTED = "expected"
_GONE = "gone "


@dataclass
class Case:
    """One case."""

    head: str
    """Comment and commands, as written."""
    commands: list[str]
    """What is run."""
    files: dict[str, str] = field(default_factory=dict)
    """What stands in its folder."""
    removed: list[str] = field(default_factory=list)
    """Files of the base that do not."""
    expected: str = ""
    """What is said."""


def parse(text: str) -> Case:
    """Reads a case."""
    parts = _FILE.split(text)
    head = parts[0]
    case = Case(
        head, [line.removeprefix("$ ") for line in head.splitlines() if line.startswith("$ ")]
    )
    for name, content in zip(parts[1::2], parts[2::2], strict=True):
        body = content.removeprefix("\n")
        if name == _EXPECTED:
            case.expected = body
        elif name.startswith(_GONE):
            case.removed.append(name.removeprefix(_GONE))
        else:
            case.files[name] = body
    return case


def render(case: Case, expected: str) -> str:
    """Writes a case down with what is said now."""
    parts = [case.head]
    parts += [f"-- {_GONE}{name} --\n" for name in case.removed]
    parts += [f"-- {name} --\n{content}" for name, content in case.files.items()]
    return "".join([*parts, f"-- {_EXPECTED} --\n", expected])
