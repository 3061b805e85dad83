"""The configuration as it may be shown: without the values of fields that are marked as secret."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel

from authz.config.document import Value
from authz.config.root import Config
from authz.config.types import Secret, SecretEntries

__all__ = ["REDACTED", "redacted"]

REDACTED: Final = "(redacted)"
"""Shown instead of a secret."""

# Names of entries that the operator chooses, such as variables of the bundle.
_SECRET_NAME: Final = re.compile(
    r"(?i)(?:^|[_-])(?:password|passwd|secret|token|api_?key|private_?key|credential|dsn)s?(?:$|[_-])"
)
_USER_INFO: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/\s@]+@")


def redacted(config: Config) -> dict[str, Value]:
    """Return a configuration without its secrets, as plain values.

    Hidden are fields marked with `Secret`, entries of fields marked with `SecretEntries` whose names say that they are secret,
    and the user information of every URL. Keys of later versions are left out.
    """
    shown = _show(config, config.model_dump(mode="json", exclude_none=True), ())
    assert isinstance(shown, dict)  # noqa: S101 - a model dumps to a dict
    return shown


def _show(value: Any, dumped: Value, marks: Iterable[object]) -> Value:
    """Show a value by its dump; `marks` is the metadata of its field."""
    marks = tuple(marks)
    if any(isinstance(mark, Secret) for mark in marks):
        return REDACTED
    if isinstance(dumped, dict):
        by_name = any(isinstance(mark, SecretEntries) for mark in marks)
        return {
            key: REDACTED
            if by_name and _SECRET_NAME.search(key)
            else _show(_member(value, key), inner, _marks_of(value, key))
            for key, inner in dumped.items()
        }
    if isinstance(dumped, list):
        return [_show(item, inner, ()) for item, inner in zip(value, dumped, strict=True)]
    if isinstance(dumped, str):
        return _USER_INFO.sub(rf"\g<scheme>{REDACTED}@", dumped)
    return dumped


def _member(value: BaseModel | Mapping[str, Any], key: str) -> Any:
    return getattr(value, key) if isinstance(value, BaseModel) else value[key]


def _marks_of(value: BaseModel | Mapping[str, Any], key: str) -> Iterable[object]:
    """Return the metadata of a model's field; entries of a mapping have none."""
    fields = type(value).model_fields if isinstance(value, BaseModel) else {}
    return fields[key].metadata if key in fields else ()
