"""The configuration as it may be shown: secrets never leave."""

import re
from typing import Final

from authz.config.document import Value
from authz.config.schema import Config

__all__ = ["REDACTED", "redacted"]

REDACTED: Final = "(redacted)"
"""What stands in the place of a secret."""

_SECRET_NAME: Final = re.compile(
    r"(?i)(?:^|[_-])(?:password|passwd|secret|token|api_?key|private_?key|credential|dsn)s?(?:$|[_-])"
)
_OPEN_NAME: Final = re.compile(r"(?i)^(?:max_token_bytes|token_cache|token_label)$")
_USER_INFO: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/\s@]+@")


def redacted(config: Config) -> dict[str, Value]:
    """Show a configuration without its secrets.

    A value is hidden where its name says that it is a secret, and user information is hidden in every URL.

    Args:
        config: The configuration.

    Returns:
        A tree of plain values, without keys of later versions.
    """
    shown = _hide(config.model_dump(mode="json", exclude_none=True), "")
    assert isinstance(shown, dict)  # noqa: S101 - a model dumps to a dict
    return shown


def _hide(value: Value, name: str) -> Value:
    if isinstance(value, dict):
        return {key: _hide(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_hide(inner, name) for inner in value]
    if _SECRET_NAME.search(name) and not _OPEN_NAME.match(name):
        return REDACTED
    if isinstance(value, str):
        return _USER_INFO.sub(rf"\g<scheme>{REDACTED}@", value)
    return value
