"""Steps of a session, as every reader makes them."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from authz.audit import Lines
from authz.errors import UsageError
from authz.strict_json import refuse_constant, unique_members

__all__ = [
    "MAX_STEPS",
    "Caller",
    "SessionError",
    "SessionReading",
    "SessionStep",
    "json_lines",
    "milliseconds",
    "strict_loads",
]

MAX_STEPS: Final = 10_000
"""Steps of a session at most."""
_MAX_LINE: Final = 1_048_576
_MAX_GAPS: Final = 10_000


class SessionError(UsageError):
    """A session cannot be read at all."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Caller of calls that name none."""

    agent: str = ""
    """SPIFFE id; empty: no agent."""
    issuer: str = ""
    """Alias of the subject's issuer; empty: no subject."""
    sub: str = ""
    """`sub` of the subject."""
    template: str = ""
    """Template of the task that the session begins with; empty: no task."""
    prompt: str = ""
    """Prompt of that task."""

    def document(self) -> dict[str, Any]:
        """Return the caller as the engine takes it."""
        made: dict[str, Any] = {"agent": self.agent} if self.agent else {}
        if self.issuer:
            made["subject"] = {"issuer": self.issuer, "sub": self.sub}
        return made


@dataclass(frozen=True, slots=True)
class SessionStep:
    """One step."""

    line: int
    """Line of its source, from 1; 0 for a step that the command adds."""
    kind: str
    """`start`, `delegate`, `call`, `report` or `end`."""
    request: Mapping[str, Any]
    """The step as the engine takes it."""
    at_ms: int | None = None
    """Time, Unix time in milliseconds; `None` means the time of the step before."""
    recorded: Mapping[str, Any] | None = None
    """Recorded answer: outcome, reason_code, enforced. None: the source has none."""
    decision_id: str = ""
    """Id of the recorded decision; empty without one."""


@dataclass(slots=True)
class SessionReading:
    """Steps of a session, and the parts of its source that were not understood."""

    form: str
    """`audit`, `calls` or `mcp`."""
    steps: list[SessionStep] = field(default_factory=list)
    """Steps in order."""
    gaps: list[tuple[int, str]] = field(default_factory=list)
    """Line and description of each part that was not understood."""
    gap_count: int = 0
    """Number of these parts; at most 10,000 are listed."""
    lines: int = 0
    """Lines that were read."""
    others: Counter[str] = field(default_factory=Counter)
    """Understood lines that are not steps, by kind."""
    misses_call: bool = False
    """A call of the session is not among the steps, so its effects are missing."""

    def add(self, step: SessionStep) -> None:
        """Take a step in.

        Raises:
            SessionError: The session has too many steps.
        """
        if len(self.steps) >= MAX_STEPS:
            raise SessionError(f"the session has more than {MAX_STEPS} steps")
        self.steps.append(step)

    def gap(self, line: int, what: str) -> None:
        """Note a part that was not understood."""
        self.gap_count += 1
        if len(self.gaps) < _MAX_GAPS:
            self.gaps.append((line, what))


def strict_loads(text: bytes | str) -> Any:
    """Read JSON that every reader understands alike.

    Raises:
        ValueError: The text is not JSON, or names a member twice.
        RecursionError: It nests too deep.
    """
    return json.loads(text, object_pairs_hook=unique_members, parse_constant=refuse_constant)


def json_lines(stream: Lines, reading: SessionReading) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read objects, one a line. A line that is not an object, or is longer than 1 MiB, is noted as a gap.

    Yields:
        Number of the line, from 1, and the object.
    """
    number = 0
    while line := stream.readline(_MAX_LINE + 1):
        number += 1
        reading.lines += 1
        if len(line) > _MAX_LINE and not line.endswith(b"\n"):
            while (rest := stream.readline(_MAX_LINE)) and not rest.endswith(b"\n"):
                pass
            reading.gap(number, "longer than 1 MiB")
            reading.misses_call = True
            continue
        if not line.strip():
            reading.lines -= 1
            continue
        try:
            value = strict_loads(line)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            yield number, value
        else:
            reading.gap(number, "not a JSON object")
            reading.misses_call = True


def milliseconds(value: object) -> int | None:
    """Read a time: RFC 3339, or Unix time in seconds or milliseconds; `None` if the value is not a time."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        # Beyond the year 5138 in seconds, a number is in milliseconds.
        number = float(value)
        scale = 1 if number > 1e11 else 1_000
        return int(number * scale) if 0 <= number < 1e15 else None
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * 86_400_000 + since.seconds * 1_000 + since.microseconds // 1_000
