"""What the node says about itself: its log and its metrics."""

from authz.telemetry.log import Logger, make_logger
from authz.telemetry.metrics import Metrics

__all__ = ["Logger", "Metrics", "make_logger"]
