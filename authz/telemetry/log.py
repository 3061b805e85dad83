"""Structured logs on one stream: JSON lines for machines, or text for people.

A logger is made once and handed on; nothing is configured for the whole process.
"""

import logging
import re
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

from authz.config import Log, LogFormat
from authz.telemetry.context import current_trace

__all__ = ["Logger", "make_logger"]

Logger = structlog.typing.FilteringBoundLogger
"""What is handed on."""

# Every text in the form of a compact JWS is hidden: no log line may ever carry a usable token.
_TOKEN: Final = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]*")


def _hide_tokens(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str) and "eyJ" in value:
            event[key] = _TOKEN.sub("(token)", value)
    return event


def _add_trace(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    event.update(current_trace())
    return event


def make_logger(settings: Log, stream: TextIO) -> Logger:
    """Make the node's logger.

    Args:
        settings: Level and format.
        stream: Where lines go.

    Returns:
        The logger.
    """
    last: structlog.typing.Processor
    if settings.format is LogFormat.JSON:
        last = structlog.processors.JSONRenderer(sort_keys=True)
    else:
        last = structlog.dev.ConsoleRenderer(colors=stream.isatty())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    logger: Logger = structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=[
            structlog.processors.add_log_level,
            _add_trace,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            structlog.processors.UnicodeDecoder(),
            _hide_tokens,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return logger
