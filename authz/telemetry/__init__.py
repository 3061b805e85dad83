"""Telemetry of the node: its log, its metrics and its traces."""

from authz.telemetry.log import Logger, make_logger
from authz.telemetry.metrics import Metrics
from authz.telemetry.traces import TraceExport

__all__ = ["Logger", "Metrics", "TraceExport", "make_logger"]
