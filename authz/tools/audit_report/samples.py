"""Sample of decisions that nobody picks: it follows from the ids of all decisions of the period."""

import hashlib
import heapq
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authz.audit.reader import open_log
from authz.errors import UnavailableError
from authz.tools.audit_report.database import ReportDatabase

__all__ = ["Sample", "SampledDecision", "read_lines", "sample"]

_FILE_NAME: Final = re.compile(r"[0-9A-Za-z-]{1,64}")
_MAX_LINE: Final = 1_048_576


@dataclass(frozen=True, slots=True)
class SampledDecision:
    """A decision of the sample."""

    rank: str
    """SHA-256 of the seed, a space and the id, in hex."""
    decision_id: str
    file: int
    """Number of its file."""
    line: int
    """Line, from 1."""
    outcome: str
    code: str

    @property
    def name(self) -> str:
        """Name for its files."""
        if _FILE_NAME.fullmatch(self.decision_id):
            return self.decision_id
        return hashlib.sha256(self.decision_id.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample."""

    seed: str
    """SHA-256 of the ids of the population in ascending order, each with a line feed, in hex."""
    population: int
    """Judged calls of the period."""
    decisions: Sequence[SampledDecision]
    """Those with the smallest ranks, in the order of their ranks."""


def sample(data: ReportDatabase, size: int) -> Sample:
    """Choose decisions among the judged calls of the period.

    Args:
        data: Records of the period.
        size: Number of decisions; fewer if the period has fewer.
    """
    digest, population = hashlib.sha256(), 0
    for (name,) in data.rows("SELECT id FROM period WHERE is_call ORDER BY id"):
        digest.update(f"{name}\n".encode())
        population += 1
    seed = digest.hexdigest()

    def ranked() -> Iterator[tuple[str, str, int, int, str, str]]:
        rows = data.rows("SELECT id, file, line, outcome, code FROM period WHERE is_call")
        for row in rows:
            rank = hashlib.sha256(f"{seed} {row[0]}".encode()).hexdigest()
            yield rank, *row

    chosen = heapq.nsmallest(size, ranked())
    return Sample(seed, population, [SampledDecision(*row) for row in chosen])


def read_lines(chosen: Sample, files: Sequence[Path]) -> Iterator[tuple[SampledDecision, bytes]]:
    """Yield each sampled decision with the line of its record.

    Raises:
        UnavailableError: A file cannot be read, or changed meanwhile.
    """
    places: dict[int, dict[int, SampledDecision]] = {}
    for decision in chosen.decisions:
        places.setdefault(decision.file, {})[decision.line] = decision
    for number, lines in sorted(places.items()):
        yield from _lines_of(files[number], lines)


def _lines_of(
    file: Path, wanted: dict[int, SampledDecision]
) -> Iterator[tuple[SampledDecision, bytes]]:
    number = 0
    with open_log(file) as stream:
        while wanted and (line := stream.readline(_MAX_LINE + 1)):
            # The rest of an endless line is not a line of its own.
            while not line.endswith(b"\n") and len(line) > _MAX_LINE:
                if not (line := stream.readline(_MAX_LINE + 1)):
                    break
            number += 1
            if (decision := wanted.pop(number, None)) is not None:
                _check(file, decision, line)
                yield decision, line
    if wanted:
        raise UnavailableError(f"{file} changed while it was read; make the report again")


def _check(file: Path, decision: SampledDecision, line: bytes) -> None:
    try:
        name = json.loads(line).get("decision_id")
    except (ValueError, AttributeError, RecursionError):
        name = None
    if name != decision.decision_id:
        raise UnavailableError(f"{file} changed while it was read; make the report again")
