"""`authz propose`: from recorded decisions to a draft of a change of the bundle.

`observations` counts requests that the bundle does not cover, and `draft` writes entries for them. `sessions` gathers the work
that was done in one session, `kinds` derives kinds of task from it, and `kinds_draft` writes them as templates.
"""

from authz.tools.propose.draft import Draft, draft
from authz.tools.propose.kinds import Evidence, task_kinds
from authz.tools.propose.kinds_draft import draft_kinds, kinds_document
from authz.tools.propose.names import BundleNames
from authz.tools.propose.observations import Observations
from authz.tools.propose.sessions import ObservedWork

__all__ = [
    "BundleNames",
    "Draft",
    "Evidence",
    "Observations",
    "ObservedWork",
    "draft",
    "draft_kinds",
    "kinds_document",
    "task_kinds",
]
