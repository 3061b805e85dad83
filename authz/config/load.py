"""From file, variables and flags to one checked `Config`.

Precedence: flag, then variable, then file, then default. Every value remembers where it came from, so that a
refusal can name the line, the variable or the flag.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FolderPath
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from authz.config.document import Document, Path, Value, parse, scalar, spell
from authz.config.findings import Finding
from authz.config.root import Config, findings, json_schema
from authz.config.types import LATER
from authz.errors import ConfigError
from authz.model import Diagnostic

__all__ = [
    "PREFIX",
    "Assignment",
    "Loaded",
    "environment_name",
    "is_key_variable",
    "load",
    "load_with_origins",
    "parse_assignment",
]

PREFIX: Final = "AUTHZ_"
"""Prefix of variables of the configuration."""
_MAX_FILE_BYTES: Final = 4_194_304
_NOT_KEYS: Final = frozenset(
    {
        "AUTHZ_CONFIG",
        "AUTHZ_ADMIN",
        "AUTHZ_SERVER",
        "AUTHZ_AGENT_TOKEN",
        "AUTHZ_TASK",
        "AUTHZ_ANALYZER",
    }
)
_REMOVED: Final[Mapping[Path, str]] = {
    ("limits", "processor"): "Remove it: Authz no longer binds threads to a processor."
}
"""Keys of earlier versions, each with the fix for a configuration that has it."""
# Kubernetes sets these in every pod of a namespace that has a service named `authz` or `authz-…`.
_SERVICE_LINK: Final = re.compile(
    r"AUTHZ_(.*_)?(SERVICE_(HOST|PORT(_.*)?)|PORT(_\d+_(TCP|UDP|SCTP)(_.*)?)?)"
)
_SEGMENT: Final = re.compile(r'"([^"]*)"|([^."=\[\]]+)')


@dataclass(frozen=True, slots=True)
class Assignment:
    """One value from a flag or variable."""

    path: Path
    """Key."""
    text: str
    """Value as given."""
    where: str
    """Name of the flag or variable."""


@dataclass(slots=True)
class _Tree:
    """The merged values and where they came from."""

    value: dict[str, Value] = field(default_factory=dict)
    where: dict[Path, tuple[str, int]] = field(default_factory=dict)

    def origin(self, path: Path) -> tuple[str, int]:
        """File (or flag) and line of a path, or of the nearest key above it."""
        for end in range(len(path), -1, -1):
            if found := self.where.get(path[:end]):
                return found
        return ("", 0)

    def merge(self, path: Path, value: Value, where: str) -> None:
        """Set one value; what it replaces goes away whole."""
        target: dict[str, Value] = self.value
        for part in path[:-1]:
            inner = target.get(str(part))
            if not isinstance(inner, dict):
                inner = {}
                target[str(part)] = inner
            target = inner
        target[str(path[-1])] = value
        for old in [key for key in self.where if key[: len(path)] == path]:
            del self.where[old]
        self.where[path] = (where, 0)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that knows where its values come from."""

    config: Config
    """The checked configuration."""
    tree: _Tree

    def origin(self, path: Path) -> str:
        """Tell where a value comes from.

        Args:
            path: Its key.

        Returns:
            `config.yaml:12`, a variable, `--set …`, or `default`.
        """
        value: Value = self.tree.value
        for part in path:
            if isinstance(value, dict) and part in value:
                value = value[str(part)]
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return "default"
        file, line = self.tree.origin(path)
        return f"{file}:{line}" if line else file


class _Shape:
    """The JSON Schema, asked about paths."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.root = schema

    def options(self, node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Resolve references and alternatives."""
        if "$ref" in node:
            name = str(node["$ref"]).rsplit("/", 1)[-1]
            merged = {**self.root["$defs"][name], **{k: v for k, v in node.items() if k != "$ref"}}
            yield from self.options(merged)
        elif "anyOf" in node:
            for option in node["anyOf"]:
                yield from self.options({**option, **({LATER: True} if node.get(LATER) else {})})
        else:
            yield node

    def child(self, node: Mapping[str, Any], key: str | int) -> Mapping[str, Any] | None:
        """Find the schema of one key or item."""
        for option in self.options(node):
            if isinstance(key, int):
                if isinstance(items := option.get("items"), dict):
                    return items
                continue
            if key in option.get("properties", {}):
                found: Mapping[str, Any] = option["properties"][key]
                return found
            if isinstance(more := option.get("additionalProperties"), dict):
                return more
        return None

    def at(self, path: Path) -> Mapping[str, Any] | None:
        """Find the schema of a path."""
        node: Mapping[str, Any] | None = self.root
        for part in path:
            node = self.child(node, part) if node is not None else None
        return node

    def names(self, path: Path) -> list[str]:
        """List the keys that may stand at a path."""
        node = self.at(path)
        options = self.options(node) if node is not None else ()
        return [name for option in options for name in option.get("properties", {})]

    def textual(self, path: Path) -> bool:
        """Tell whether the value is a text, so that a flag's is taken as it is."""
        node = self.at(path)
        if node is None:
            return False
        kinds = {str(option.get("type")) for option in self.options(node)} - {"null"}
        return kinds == {"string"}

    def walk(self, tokens: Sequence[str]) -> list[Path]:
        """Find every path that a variable's words can mean."""
        return list(self._walk(self.root, tokens, (), named=False))

    def _walk(
        self, node: Mapping[str, Any], tokens: Sequence[str], path: Path, *, named: bool
    ) -> Iterator[Path]:
        if not tokens:
            # `AUTHZ_LISTENERS_MAIN_TLS_CERT_FILE` is a key of `main`, not a listener of that long name.
            if not (named and any("properties" in option for option in self.options(node))):
                yield path
            return
        for option in self.options(node):
            properties = option.get("properties", {})
            for name, inner in properties.items():
                words = name.split("_")
                if list(tokens[: len(words)]) == words:
                    yield from self._walk(inner, tokens[len(words) :], (*path, name), named=False)
            if isinstance(more := option.get("additionalProperties"), dict):
                for end in range(1, len(tokens) + 1):
                    name = "_".join(tokens[:end])
                    if name not in properties:
                        yield from self._walk(more, tokens[end:], (*path, name), named=True)

    def every(self, node: Mapping[str, Any] | None = None, path: Path = ()) -> Iterator[Path]:
        """List every key; `<name>` stands for a name that the operator chooses."""
        for option in self.options(self.root if node is None else node):
            for name, inner in option.get("properties", {}).items():
                yield (*path, name)
                yield from self.every(inner, (*path, name))
            if isinstance(more := option.get("additionalProperties"), dict):
                yield from self.every(more, (*path, "<name>"))
            if isinstance(items := option.get("items"), dict):
                yield from self.every(items, (*path, 0))


def parse_assignment(text: str) -> Assignment:
    """Read the value of `--set`.

    Args:
        text: `a.b=c`; a name with dots in it is quoted: `trust.domains."a.example".bundle.file=b.json`.

    Returns:
        The assignment.

    Raises:
        ConfigError: It is none.
    """
    where = f"--set {text.split('=', 1)[0]}"
    fix = "Write `--set key.name=value`."
    path: list[str] = []
    at = 0
    while match := _SEGMENT.match(text, at):
        path.append(match[1] if match[1] is not None else match[2])
        at = match.end()
        if at < len(text) and text[at] == "=":
            return Assignment(tuple(path), text[at + 1 :], where)
        if at >= len(text) or text[at] != ".":
            break
        at += 1
    raise ConfigError((Diagnostic("not an assignment.", where, fix=fix),))


def environment_name(path: Path) -> str:
    """Name the variable of a key.

    Args:
        path: The key.

    Returns:
        `AUTHZ_LIMITS_THREADS`.
    """
    return PREFIX + "_".join(str(part).replace("-", "_").upper() for part in path)


def load(
    file: FolderPath | None,
    environment: Mapping[str, str],
    assignments: Sequence[Assignment] = (),
    *,
    working_folder: FolderPath,
) -> Config:
    """Read, merge and check the configuration.

    Args:
        file: The YAML file, if there is one.
        environment: Variables; those that begin with `AUTHZ_` count.
        assignments: Values of flags, the last wins.
        working_folder: Where relative paths of flags and variables start.

    Returns:
        The checked configuration; all its paths are absolute.

    Raises:
        ConfigError: With every defect that was found.
    """
    return load_with_origins(file, environment, assignments, working_folder=working_folder).config


def load_with_origins(
    file: FolderPath | None,
    environment: Mapping[str, str],
    assignments: Sequence[Assignment] = (),
    *,
    working_folder: FolderPath,
) -> Loaded:
    """Read, merge and check the configuration, and keep where each value comes from.

    Args:
        file: The YAML file, if there is one.
        environment: Variables; those that begin with `AUTHZ_` count.
        assignments: Values of flags, the last wins.
        working_folder: Where relative paths of flags and variables start.

    Returns:
        The checked configuration with its origins.

    Raises:
        ConfigError: With every defect that was found.
    """
    shape = _Shape(json_schema(is_described=False))
    document = _read(file) if file is not None else Document()
    tree = _Tree(
        document.value,
        {
            # A key that is missing at the top has no line of its own.
            **({(): (document.file, 1)} if document.file else {}),
            **{path: (document.file, line) for path, line in document.lines.items()},
        },
    )
    from_file = _paths(tree.value, shape, file.parent.resolve() if file else working_folder)
    tree.value = from_file
    defects: list[Diagnostic] = []
    for source in (_from_environment(environment, shape, defects), assignments):
        for item in source:
            value: Value = item.text if shape.textual(item.path) else scalar(item.text, item.where)
            tree.merge(item.path, value, item.where)
    tree.value = _paths(tree.value, shape, working_folder)
    defects.extend(_later_keys(tree, shape))
    try:
        config = Config.model_validate_json(json.dumps(tree.value))
    except ValidationError as error:
        described = _Shape(json_schema())
        defects.extend(_explain(item, tree, described) for item in error.errors(include_url=False))
        raise ConfigError(_sorted(defects)) from error
    defects.extend(_place(finding, tree) for finding in findings(config))
    if defects:
        raise ConfigError(_sorted(defects))
    return Loaded(config, tree)


def _read(file: FolderPath) -> Document:
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            at = Diagnostic("larger than 4 MiB.", str(file), fix="Give the configuration file.")
            raise ConfigError((at,))
        return parse(content.decode(), str(file))
    except OSError as error:
        at = Diagnostic(f"cannot be read: {error.strerror}.", str(file), fix="Check `--config`.")
        raise ConfigError((at,)) from error
    except UnicodeDecodeError as error:
        at = Diagnostic("not UTF-8.", str(file), fix="Save it as UTF-8.")
        raise ConfigError((at,)) from error


def is_key_variable(name: str) -> bool:
    """Return whether an environment variable means a key of the configuration: it may be another one's, or Kubernetes' own."""
    return name.startswith(PREFIX) and name not in _NOT_KEYS and not _SERVICE_LINK.fullmatch(name)


def _from_environment(
    environment: Mapping[str, str], shape: _Shape, defects: list[Diagnostic]
) -> list[Assignment]:
    found = []
    for name in sorted(environment):
        if not is_key_variable(name):
            continue
        paths = shape.walk(name.removeprefix(PREFIX).lower().split("_"))
        if len(paths) == 1:
            found.append(Assignment(paths[0], environment[name], name))
        elif paths:
            several = " or ".join(f"`{spell(path)}`" for path in paths)
            fix = "Set it in the file or by `--set`."
            defects.append(Diagnostic(f"may mean {several}.", name, fix=fix))
        else:
            removed = {environment_name(path): path for path in _REMOVED}.get(name)
            if removed is not None:
                what = f"`{spell(removed)}` is not a key of this version any more."
                defects.append(Diagnostic(what, name, fix=_REMOVED[removed]))
                continue
            known = [environment_name(key) for key in shape.every() if 0 not in key]
            near = difflib.get_close_matches(name, known, 1)
            fix = (
                f"Did you mean `{near[0]}`?" if near else "Unset it, or see `authz config schema`."
            )
            defects.append(Diagnostic("names no key of the configuration.", name, fix=fix))
    return found


def _paths(tree: dict[str, Value], shape: _Shape, folder: FolderPath) -> dict[str, Value]:
    """Make the relative paths and socket addresses of a tree absolute."""

    def convert(value: Value, path: Path) -> Value:
        if isinstance(value, dict):
            return {key: convert(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [convert(inner, (*path, index)) for index, inner in enumerate(value)]
        if not isinstance(value, str) or not value:
            return value
        node = shape.at(path)
        formats = {str(o.get("format")) for o in shape.options(node)} if node is not None else set()
        if "path" in formats:
            return str(folder / value)
        if "address" in formats and value.startswith("unix:"):
            return "unix://" + str(folder / value.removeprefix("unix:").removeprefix("//"))
        return value

    return {key: convert(inner, (key,)) for key, inner in tree.items()}


def _later_keys(tree: _Tree, shape: _Shape) -> Iterator[Diagnostic]:
    def walk(value: Value, path: Path) -> Iterator[Path]:
        if path:
            node = shape.at(path)
            if node is not None and value is not None:
                marks = [option.get(LATER) for option in shape.options(node)]
                if node.get(LATER) or any(marks):
                    yield path
                    return
        children: Iterator[tuple[str | int, Value]] = iter(())
        if isinstance(value, dict):
            children = iter(value.items())
        elif isinstance(value, list):
            children = iter(enumerate(value))
        for key, inner in children:
            yield from walk(inner, (*path, key))

    for path in walk(tree.value, ()):
        file, line = tree.origin(path)
        what = f"`{spell(path)}` is not in this version."
        yield Diagnostic(what, file, line, fix="Remove it; without it, this version is safe.")


def _explain(error: ErrorDetails, tree: _Tree, shape: _Shape) -> Diagnostic:
    path: Path = tuple(error["loc"])
    # A loc may end in a name of pydantic's own, such as `[key]`; only the keys of the tree count.
    file, line = tree.origin(path)
    kind, said = error["type"], error["msg"]
    parent, last = path[:-1], path[-1] if path else ""
    if kind == "extra_forbidden" and path in _REMOVED:
        what = f"`{spell(path)}` is not a key of this version any more."
        return Diagnostic(what, file, line, fix=_REMOVED[path])
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(last), shape.names(parent), 1, 0.6)
        under = f" under `{spell(parent)}`" if parent else ""
        known = ", ".join(sorted(shape.names(parent)))
        fix = f"Did you mean `{near[0]}`?" if near else f"Known: {known}."
        return Diagnostic(f"unknown key `{last}`{under}.", file, line, fix=fix)
    if kind == "missing":
        node = shape.at(path)
        options = shape.options(node) if node is not None else ()
        said_of = [str(option.get("description", "")) for option in options]
        meaning = next((text for text in said_of if text), "")
        fix = f"Add `{last}`: {meaning[:1].lower()}{meaning[1:]}" if meaning else f"Add `{last}`."
        under = f"`{spell(parent)}` has no `{last}`." if parent else f"`{last}` is missing."
        return Diagnostic(under, file, line, fix=fix)
    said = (said[:1].lower() + said[1:]).replace("input should be", "it must be")
    return Diagnostic(f"`{spell(path)}`: {said}.", file, line, fix="See `authz config schema`.")


def _place(finding: Finding, tree: _Tree) -> Diagnostic:
    file, line = tree.origin(finding.path)
    return Diagnostic(finding.what, file, line, fix=finding.fix)


def _sorted(defects: Sequence[Diagnostic]) -> tuple[Diagnostic, ...]:
    return tuple(sorted(defects, key=lambda d: (d.file, d.line, d.what)))
