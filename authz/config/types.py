"""Types of configuration values: durations, paths, names, and the mark of a secret."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
)
from pydantic.json_schema import WithJsonSchema
from pydantic_core import PydanticCustomError

__all__ = [
    "ENTRY_NAME",
    "LATER",
    "SYSTEM_ID",
    "TRUST_DOMAIN",
    "Address",
    "Duration",
    "FilePath",
    "HeaderName",
    "Identifier",
    "Name",
    "QualifiedName",
    "Secret",
    "SecretEntries",
    "Strict",
    "SystemId",
    "Text",
    "later",
]

LATER: Final = "x-not-in-this-version"
"""Mark of a key of a later version: the schema has it, and a configuration that uses it is refused."""
ENTRY_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
"""Name of an entry that the configuration chooses."""
SYSTEM_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,255}")
"""Id of a system, as in the bundle."""
TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
"""A SPIFFE trust domain."""
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)")


def _seconds(value: object) -> object:
    """Parse a duration such as `200ms`, `10s`, `5m`, `1h` or `7d`."""
    if isinstance(value, float):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        kind, message = "duration", "a duration is a number and a unit: 200ms, 10s, 5m, 1h, 7d"
        raise PydanticCustomError(kind, message)
    return float(match[1]) * _UNITS[match[2]]


def _spelled(seconds: float) -> str:
    """Format a duration so that it can be parsed again."""
    return f"{seconds:g}s" if seconds >= 1 or not seconds else f"{seconds * 1000:g}ms"


Duration = Annotated[
    float,
    BeforeValidator(_seconds),
    PlainSerializer(_spelled, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$", "format": "duration"}),
]
"""Seconds; written as a number and a unit."""
FilePath = Annotated[
    str, StringConstraints(min_length=1), WithJsonSchema({"type": "string", "format": "path"})
]
"""A path. A relative path of a file starts at that file's folder, any other at the working folder."""
Address = Annotated[
    str, StringConstraints(min_length=1), WithJsonSchema({"type": "string", "format": "address"})
]
"""`host:port`, `[::1]:port`, or `unix:///path`."""
Name = Annotated[str, StringConstraints(pattern=f"^{ENTRY_NAME.pattern}$")]
"""A name of an entry: lower case."""
Text = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
"""A text that is not empty."""
SystemId = Annotated[str, StringConstraints(pattern=f"^{SYSTEM_ID.pattern}$")]
"""Id of a system, as in the bundle."""
Identifier = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f.]{1,63}$")]
"""A name in PostgreSQL, as stored: unquoted, case-sensitive, without a dot."""
QualifiedName = Annotated[
    str, StringConstraints(pattern=r"^[^\x00-\x1f.]{1,63}\.[^\x00-\x1f.]{1,63}$")
]
"""Schema and name."""
HeaderName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9!#$%&'*+.^_`|~-]{1,128}$")]
"""A header's name, in lower case."""


def later(meaning: str) -> Any:
    """Return the field of a key of a later version.

    Args:
        meaning: Its meaning, as one sentence.
    """
    return Field(
        default=None,
        description=f"{meaning} Not in this version.",
        json_schema_extra={LATER: True},
    )


class Strict(BaseModel):
    """No unknown keys, no conversions, no change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True, slots=True)
class Secret:
    """Mark of a field whose value is never shown: `Annotated[Text | None, Secret()]`."""


@dataclass(frozen=True, slots=True)
class SecretEntries:
    """Mark of a mapping with names of the operator's choice: an entry whose name says that it is secret is never shown."""
