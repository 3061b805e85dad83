"""Report of a period for `authz audit report`.

`report` reads the log into `database` (each decision once, on disk); `node_records` keeps records that are not decisions there. `statistics`
and `samples` are queries, the modules that end in `_files` write their results with `documents`, and `report` writes the README. `period`
reads the bounds, `members` reads members of records, and `inputs` has what is given.
"""

from authz.tools.audit_report.documents import ReportFolder
from authz.tools.audit_report.inputs import GivenBundle, NodeLog, ReportInput
from authz.tools.audit_report.period import Period, read_period
from authz.tools.audit_report.report import ReportResult, write_report

__all__ = [
    "GivenBundle",
    "NodeLog",
    "Period",
    "ReportFolder",
    "ReportInput",
    "ReportResult",
    "read_period",
    "write_report",
]
