"""Report of a period for `authz audit report`.

A record passes `database` (each decision once, on disk), `statistics` and `samples` (queries), and `report`, which writes the files
with `documents`. `period` reads the bounds.
"""

from authz.tools.audit_report.documents import ReportFolder
from authz.tools.audit_report.period import Period, read_period
from authz.tools.audit_report.report import GivenBundle, ReportInput, ReportResult, write_report

__all__ = [
    "GivenBundle",
    "Period",
    "ReportFolder",
    "ReportInput",
    "ReportResult",
    "read_period",
    "write_report",
]
