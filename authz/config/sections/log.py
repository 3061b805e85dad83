"""`log`: the log of the node."""

from enum import StrEnum

from authz.config.types import Strict

__all__ = ["Log", "LogFormat", "LogLevel"]


class LogLevel(StrEnum):
    """Level of the log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """Format of the log."""

    JSON = "json"
    TEXT = "text"


class Log(Strict):
    """The log of the node, on standard error; decisions are in the audit."""

    level: LogLevel = LogLevel.INFO
    """Lowest level that is logged."""
    format: LogFormat = LogFormat.JSON
    """`json` for machines, `text` for people."""
