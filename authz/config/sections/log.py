"""`log`: the log of the node."""

from enum import StrEnum

from authz.config.types import Strict

__all__ = ["Log", "LogFormat", "LogLevel"]


class LogLevel(StrEnum):
    """What is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How it is logged."""

    JSON = "json"
    TEXT = "text"


class Log(Strict):
    """The log of the node, on standard error; decisions are in the audit."""

    level: LogLevel = LogLevel.INFO
    """Least level that is logged."""
    format: LogFormat = LogFormat.JSON
    """`json` for machines, `text` for people."""
