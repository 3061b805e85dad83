"""Recorded decisions judged again by another bundle: `judgement` reads the answer for one record, `report` counts answers.

`authz replay` and `authz diff --log` print the report.
"""

from authz.tools.replay.judgement import (
    CATEGORIES,
    Answer,
    Category,
    Judgement,
    NotReplayed,
    judge_record,
)
from authz.tools.replay.report import Change, Counts, Gap, ReplayReport

__all__ = [
    "CATEGORIES",
    "Answer",
    "Category",
    "Change",
    "Counts",
    "Gap",
    "Judgement",
    "NotReplayed",
    "ReplayReport",
    "judge_record",
]
