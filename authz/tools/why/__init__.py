"""`authz why`: what a decision came from, what would permit it, and what a lot of them have in common."""

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
