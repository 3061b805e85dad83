"""`authz why`: what a decision came from, what would permit it, and what a lot of them have in common."""

from authz.tools.why.groups import Group, Groups, Revision
from authz.tools.why.one import Closest, Why, explain
from authz.tools.why.policies import changed_policies

__all__ = [
    "Closest",
    "Group",
    "Groups",
    "Revision",
    "Why",
    "changed_policies",
    "explain",
]
