"""Delivery of an audit log to other machines, from its files: at least once, and in order.

`files` finds the files of the log, `cursor` is how far a sink has it, and `tail` reads the next `batch`. `worker` sends batches to a
`target` on a thread of its own: `http`, `s3`, `otel` and `postgresql` are kinds of targets. `report` puts the status of a sink into words, and
`retention` removes segments that every sink has.
"""

from authz.audit.delivery.batch import Batch, BatchKind
from authz.audit.delivery.cursor import Gap, cursor_path
from authz.audit.delivery.http import HttpTarget, WebPlace
from authz.audit.delivery.report import age_of, lag_of, sink_detail, sink_lag, sink_problems
from authz.audit.delivery.retention import SegmentRetention
from authz.audit.delivery.tail import LogTail, TailStatus
from authz.audit.delivery.target import DeliveryError, DeliveryErrorKind, Rejection, Target
from authz.audit.delivery.worker import SinkSettings, SinkStatus, SinkWorker

__all__ = [
    "Batch",
    "BatchKind",
    "DeliveryError",
    "DeliveryErrorKind",
    "Gap",
    "HttpTarget",
    "LogTail",
    "Rejection",
    "SegmentRetention",
    "SinkSettings",
    "SinkStatus",
    "SinkWorker",
    "TailStatus",
    "Target",
    "WebPlace",
    "age_of",
    "cursor_path",
    "lag_of",
    "sink_detail",
    "sink_lag",
    "sink_problems",
]
