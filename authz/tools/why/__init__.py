"""`authz why`: explanation of one decision, and groups of refused decisions."""

from authz.tools.why.comparison import changed_policies
from authz.tools.why.explanation import ClosestPermit, Explanation, explain
from authz.tools.why.groups import Group, Groups, Revision

__all__ = [
    "ClosestPermit",
    "Explanation",
    "Group",
    "Groups",
    "Revision",
    "changed_policies",
    "explain",
]
