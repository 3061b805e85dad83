"""Controls of published frameworks, and how far a bundle covers them.

A report is made in this order: `frameworks` reads the mapping, which is data beside it, `removal` leaves out one policy after the
other and runs the tests of the bundle, and `report` tells the state of each control. Nothing here prints.
"""

from authz.analysis.controls.frameworks import (
    AddressedBy,
    BuiltIn,
    Control,
    Framework,
    known_frameworks,
)
from authz.analysis.controls.removal import Removal, remove_policies
from authz.analysis.controls.report import (
    ControlReport,
    ControlState,
    ControlStatus,
    FrameworkStatus,
    PolicyEvidence,
    control_report,
    count_seen,
)

__all__ = [
    "AddressedBy",
    "BuiltIn",
    "Control",
    "ControlReport",
    "ControlState",
    "ControlStatus",
    "Framework",
    "FrameworkStatus",
    "PolicyEvidence",
    "Removal",
    "control_report",
    "count_seen",
    "known_frameworks",
    "remove_policies",
]
