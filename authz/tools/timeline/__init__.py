"""Timeline of one session for `authz audit show`: `events` reads one record, `timeline` finds and orders those of a session."""

from authz.tools.timeline.events import (
    Approval,
    Place,
    TimelineEvent,
    end_of_approval,
    read_event,
)
from authz.tools.timeline.timeline import (
    ApprovalHistory,
    Damage,
    JoinedLabel,
    Summary,
    Timeline,
    collect,
)

__all__ = [
    "Approval",
    "ApprovalHistory",
    "Damage",
    "JoinedLabel",
    "Place",
    "Summary",
    "Timeline",
    "TimelineEvent",
    "collect",
    "end_of_approval",
    "read_event",
]
