"""`authz propose`: from what the audit saw to a change of the bundle that somebody reviews."""

from authz.tools.propose.draft import Draft, draft
from authz.tools.propose.known import Known
from authz.tools.propose.seen import Seen

__all__ = ["Draft", "Known", "Seen", "draft"]
