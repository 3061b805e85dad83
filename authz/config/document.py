"""YAML that keeps the line of each value."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from authz.errors import ConfigError
from authz.model import Diagnostic

__all__ = ["Document", "Path", "Value", "parse", "scalar", "spell"]


Path = tuple[str | int, ...]
"""Path of a value in the tree."""
Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]
"""A value: those of JSON."""

_MAX_DEPTH = 32
_MAX_NODES = 20_000
_TAGS = {
    "tag:yaml.org,2002:null",
    "tag:yaml.org,2002:bool",
    "tag:yaml.org,2002:int",
    "tag:yaml.org,2002:float",
    "tag:yaml.org,2002:str",
}


@dataclass(frozen=True, slots=True)
class Document:
    """A tree of values with the place that each came from."""

    value: dict[str, Value] = field(default_factory=dict)
    """The tree."""
    lines: Mapping[Path, int] = field(default_factory=dict)
    """Line of each key and item, from 1."""
    file: str = ""
    """Name for messages."""


def spell(path: Path) -> str:
    """Return a path as it is written in `--set`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        word = part if part and not set(part) & set('."[]= ') else f'"{part}"'
        text += f".{word}" if text else word
    return text


class _Reader:
    """Turns YAML nodes into values; refuses texts that two readers could understand differently."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Path, int] = {}
        self._nodes = 0

    def refuse(self, node: yaml.Node, what: str, fix: str) -> ConfigError:
        mark = node.start_mark
        at = Diagnostic(what, self.file, mark.line + 1, mark.column + 1, fix)
        return ConfigError((at,))

    def value(self, node: yaml.Node, path: Path) -> Value:
        self._nodes += 1
        if len(path) > _MAX_DEPTH or self._nodes > _MAX_NODES:
            raise self.refuse(
                node, "too large or too deep.", "Aliases count each time they are used."
            )
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            items: list[Value] = []
            for index, item in enumerate(node.value):
                self.lines[(*path, index)] = item.start_mark.line + 1
                items.append(self.value(item, (*path, index)))
            return items
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or not isinstance(key_node.value, str):
                raise self.refuse(key_node, "a key must be a text.", "Write `key: value`.")
            key = key_node.value
            if key in found:
                raise self.refuse(
                    key_node,
                    f"`{spell((*path, key))}` is given twice.",
                    "Keep one: parsers differ in which of the two counts.",
                )
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, (*path, key))
        return found

    def _scalar(self, node: yaml.Node) -> Value:
        text = str(node.value)
        if node.tag not in _TAGS:
            if node.tag == "tag:yaml.org,2002:timestamp":
                return text
            raise self.refuse(node, f"`{node.tag}` is not read here.", "Write a plain value.")
        loader = yaml.SafeLoader("")
        try:
            made: Value = loader.construct_object(node)
        finally:
            loader.dispose()
        return made


def parse(text: str, file: str) -> Document:
    """Read one YAML document.

    Args:
        text: The document; empty means no keys.
        file: Name for messages.

    Returns:
        The tree with its lines.

    Raises:
        ConfigError: Not YAML, not a mapping, a key given twice, or too large.
    """
    reader = _Reader(file)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = str(getattr(error, "problem", None) or "not YAML")
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        at = Diagnostic(f"not YAML: {problem}.", file, line, column, "Fix the syntax.")
        raise ConfigError((at,)) from error
    if node is None:
        return Document(file=file)
    if not isinstance(node, yaml.MappingNode):
        raise reader.refuse(node, "not a mapping.", "Write `key: value` lines.")
    value = reader.value(node, ())
    assert isinstance(value, dict)  # noqa: S101 - a mapping node gives a dict
    return Document(value, reader.lines, file)


def scalar(text: str, where: str) -> Value:
    """Read the value of a flag or variable, which may be any YAML value.

    Args:
        text: As given.
        where: Name of the flag or variable, for messages.

    Returns:
        The value.

    Raises:
        ConfigError: Not YAML.
    """
    reader = _Reader(where)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        at = Diagnostic("the value is not YAML.", where, fix="Quote it, or fix it.")
        raise ConfigError((at,)) from error
    return None if node is None else reader.value(node, ())
