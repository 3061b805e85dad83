"""The published schema describes each key by the docstring below its field."""

from typing import Any

from authz.config import json_schema


def _undescribed(schema: dict[str, Any]) -> list[str]:
    definitions = {"": schema, **schema["$defs"]}
    return [
        f"{name}.{key}"
        for name, definition in definitions.items()
        for key, value in definition.get("properties", {}).items()
        if not value.get("description")
    ]


def test_each_key_is_described() -> None:
    """Also keys that a model inherits, and keys of listeners, which have names of the operator's choice beside them."""
    assert _undescribed(json_schema()) == []


def test_descriptions_are_read_on_request_only() -> None:
    """Each start of a node loads the configuration, and needs none of them."""
    assert "Config.bundle" not in _undescribed(json_schema())
    assert _undescribed(json_schema(is_described=False))
