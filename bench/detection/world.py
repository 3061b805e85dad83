"""Parts of a simulated back end: tables of rows, systems that act on them, and the data that outsiders have seen."""

import copy
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

Row = dict[str, Any]
Result = dict[str, Any]

NEEDED: Final = object()
"""Default of a column that each row of the seed must give."""
_KINDS: Final[dict[Any, str]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    types.NoneType: "null",
}
_TYPES: Final[Mapping[str, type | types.UnionType]] = {
    "string": str,
    "integer": int,
    "number": int | float,
    "boolean": bool,
    "null": types.NoneType,
}
_WHOLE_NUMBER: Final = re.compile(r"-?[0-9]{1,15}")
_NUMBER: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,6})?")
_BOOLEANS: Final = {"true": True, "false": False}


class CorpusError(ValueError):
    """A scenario, a seed or a call has a form that it must not have."""


class RefusedError(Exception):
    """The back end itself refuses a call: there is no such row, or a rule of its own forbids it."""


@dataclass(frozen=True, slots=True)
class Table:
    """The form of a table.

    Attributes:
        key: the column that names a row.
        columns: each column and its default, or `NEEDED`.
        prefix: what keys begin with that the back end makes up.
        first: where the rows are numbered, the first number that the back end gives. Keys are then integers.
    """

    key: str
    columns: Mapping[str, Any]
    prefix: str = "new"
    first: int | None = None

    def row(self, given: Mapping[str, Any]) -> Row:
        """Returns a whole row.

        Args:
            given: the columns that it gives.

        Raises:
            CorpusError: a column is missing, unknown or of another type than its default.
        """
        unknown = set(given) - set(self.columns)
        if unknown:
            raise CorpusError(f"unknown columns {sorted(unknown)} in {dict(given)}")
        row = {}
        for name, default in self.columns.items():
            value = given.get(name, default)
            if value is NEEDED:
                raise CorpusError(f"`{name}` is missing in {dict(given)}")
            if default is not NEEDED and type(value) is not type(default):
                raise CorpusError(f"`{name}` is no {type(default).__name__} in {dict(given)}")
            row[name] = copy.deepcopy(value)
        return row


@dataclass(slots=True)
class World:
    """The state of a back end.

    Attributes:
        own: the domain of the organisation: addresses and hosts that end with it are inside.
        tables: rows by table.
        forms: the form of each table.
        seen: what each reader outside has been able to read at some moment; nothing takes it back.
    """

    own: str
    tables: dict[str, list[Row]] = field(default_factory=dict)
    forms: dict[str, Table] = field(default_factory=dict)
    seen: dict[str, set[str]] = field(default_factory=dict)
    _made: int = 0

    def rows(self, table: str) -> list[Row]:
        """Returns all rows of a table.

        Args:
            table: its name.

        Raises:
            CorpusError: there is no such table.
        """
        if table not in self.tables:
            raise CorpusError(f"there is no table `{table}`")
        return self.tables[table]

    def find(self, table: str, key: str | int) -> Row | None:
        """Returns a row by its key, or None.

        Args:
            table: the table's name.
            key: the row's; a number may be a text.
        """
        column = self.forms[table].key
        return next((row for row in self.rows(table) if str(row[column]) == str(key)), None)

    def get(self, table: str, key: str | int) -> Row:
        """Returns a row by its key.

        Args:
            table: the table's name.
            key: the row's.

        Raises:
            RefusedError: there is none.
        """
        row = self.find(table, key)
        if row is None:
            raise RefusedError(f"there is no `{key}` in {table}")
        return row

    def add(self, table: str, **given: Any) -> Row:
        """Adds a row and returns it.

        Args:
            table: the table's name.
            given: its columns; without one for the key, a key is made up.

        Raises:
            CorpusError: it has not the form of the table.
            RefusedError: there is a row of this key.
        """
        form = self.forms[table]
        while form.key not in given:
            self._made += 1
            name: str | int = f"{form.prefix}-{self._made}"
            if form.first is not None:
                name = form.first + self._made - 1
            if self.find(table, name) is None:
                given[form.key] = name
        row = form.row(given)
        if self.find(table, row[form.key]) is not None:
            raise RefusedError(f"there is a `{row[form.key]}` in {table}")
        self.rows(table).append(row)
        return row

    def drop(self, table: str, key: str | int) -> Row:
        """Removes a row for good and returns it.

        Args:
            table: the table's name.
            key: the row's.

        Raises:
            RefusedError: there is none.
        """
        row = self.get(table, key)
        self.rows(table).remove(row)
        return row

    def inside(self, address: str) -> bool:
        """Returns whether an address or a host is the organisation's own.

        Args:
            address: `name@domain`, or a host.
        """
        host = address.rpartition("@")[2].lower()
        return host == self.own or host.endswith("." + self.own)


class System:
    """One tool server. Its public methods are its tools, their docstrings the tools' descriptions.

    Attributes:
        name: of the system; an operation is `<name>.<method>`.
        tables: those that it brings.
        reading: tools that change nothing.
        coerces: whether the server takes `"200"` for an integer and `"true"` for a boolean, as many MCP servers do.
        texts: tool → its free texts: arguments that are only read by people. Every other argument is an authority
            argument: it says who gets something, or what is read, changed, paid or run.
    """

    name: ClassVar[str]
    tables: ClassVar[Mapping[str, Table]] = {}
    reading: ClassVar[frozenset[str]] = frozenset()
    coerces: ClassVar[bool] = False
    texts: ClassVar[Mapping[str, frozenset[str]]] = {}

    def __init__(self, world: World) -> None:
        self._world = world

    def _exposed(self) -> Iterator[tuple[str, str]]:
        """Yields each reader outside and a text that it can read now."""
        yield from ()

    def exposed(self) -> Iterator[tuple[str, str]]:
        """Yields each reader outside and a text that it can read now."""
        return self._exposed()

    @classmethod
    def tools(cls) -> dict[str, Callable[..., Result]]:
        """Returns the tools by their names, in the order in which they stand."""
        return {
            name: method
            for name, method in vars(cls).items()
            if isinstance(method, types.FunctionType) and not name.startswith("_")
        }

    @classmethod
    def authority(cls, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the authority arguments of a call, as the server takes them; one that is its tool's default is left out.

        Args:
            tool: the tool's name.
            arguments: of the call.
        """
        method = cls.tools()[tool]
        forms, parameters = _schema(method)["properties"], inspect.signature(method).parameters
        texts = cls.texts.get(tool, frozenset())
        given = {
            name: _coerced(value, forms[name]) if cls.coerces else value
            for name, value in sorted(arguments.items())
            if name not in texts
        }
        return {name: value for name, value in given.items() if value != parameters[name].default}

    @classmethod
    def listing(cls) -> list[dict[str, Any]]:
        """Returns the tools as an answer to MCP's `tools/list` has them."""
        return [
            {
                "name": name,
                "description": inspect.getdoc(method) or "",
                "inputSchema": _schema(method),
                "annotations": {"readOnlyHint": name in cls.reading},
            }
            for name, method in cls.tools().items()
        ]


def _schema(method: Callable[..., Result]) -> dict[str, Any]:
    hints = typing.get_type_hints(method)
    parameters = list(inspect.signature(method).parameters.values())[1:]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {one.name: _form(hints[one.name]) for one in parameters},
        "additionalProperties": False,
    }
    needed = [one.name for one in parameters if one.default is inspect.Parameter.empty]
    return schema | ({"required": needed} if needed else {})


def _form(hint: Any) -> dict[str, Any]:
    """Returns the JSON schema of a parameter's type: a scalar, a choice of texts, an object, a list, or one of several types."""
    if hint in _KINDS:
        return {"type": _KINDS[hint]}
    if typing.is_typeddict(hint):
        members = typing.get_type_hints(hint)
        return {
            "type": "object",
            "properties": {name: _form(member) for name, member in members.items()},
            "additionalProperties": False,
            "required": list(members),
        }
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin is list:
        return {"type": "array", "items": _form(arguments[0])}
    if origin is typing.Literal:
        return {"type": "string", "enum": list(arguments)}
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_form(one) for one in arguments]}
    raise CorpusError(f"a tool takes no {hint}")


@dataclass(frozen=True, slots=True)
class Backend:
    """The systems of a domain and their state.

    Attributes:
        world: the state.
        systems: by name.
    """

    world: World
    systems: Mapping[str, System]

    @classmethod
    def make(
        cls,
        systems: Sequence[type[System]],
        own: str,
        seeds: Sequence[Mapping[str, Sequence[Mapping[str, Any]]]],
    ) -> "Backend":
        """Makes a back end.

        Args:
            systems: of the domain.
            own: the organisation's domain.
            seeds: table → rows; a row whose key stands in an earlier seed changes that row.

        Raises:
            CorpusError: a seed has another form than the tables.
        """
        world = World(own)
        for system in systems:
            world.forms.update(system.tables)
        world.tables = {name: [] for name in world.forms}
        for seed in seeds:
            for table, rows in seed.items():
                if table not in world.forms:
                    raise CorpusError(f"there is no table `{table}`")
                for row in rows:
                    _put(world, table, row)
        backend = cls(world, {system.name: system(world) for system in systems})
        backend._look()
        return backend

    def call(self, operation: str, arguments: Mapping[str, Any]) -> Result:
        """Executes a call and returns its result.

        Args:
            operation: `<system>.<tool>`.
            arguments: of the tool.

        Raises:
            CorpusError: there is no such tool, or it takes other arguments.
            RefusedError: the back end refuses the call.
        """
        name, _, tool = operation.partition(".")
        system = self.systems.get(name)
        method = None if system is None else system.tools().get(tool)
        if method is None:
            raise CorpusError(f"there is no operation `{operation}`")
        schema = _schema(method)
        if not set(schema.get("required", ())) <= set(arguments) <= set(schema["properties"]):
            raise CorpusError(f"`{operation}` does not take {sorted(arguments)}")
        given = copy.deepcopy(dict(arguments))
        for key, value in given.items():
            form = schema["properties"][key]
            given[key] = _coerced(value, form) if system and system.coerces else value
            if not _fits(given[key], form):
                raise CorpusError(f"`{operation}`: {key} does not fit {form}")
        result = copy.deepcopy(method(system, **given))
        self._look()
        return result

    def _look(self) -> None:
        for system in self.systems.values():
            for reader, text in system.exposed():
                self.world.seen.setdefault(reader, set()).add(text)


def _put(world: World, table: str, given: Mapping[str, Any]) -> None:
    form = world.forms[table]
    key = given.get(form.key)
    if not isinstance(key, str if form.first is None else int):
        raise CorpusError(f"a row of {table} has no `{form.key}`: {dict(given)}")
    old = world.find(table, key)
    if old is None:
        world.rows(table).append(form.row(given))
    else:
        old.update(form.row(old | dict(given)))


def _coerced(value: Any, schema: Mapping[str, Any]) -> Any:
    """Returns a value as a server takes it that reads numbers and booleans out of texts."""
    forms = schema.get("anyOf", [schema])
    if any(_fits(value, one) for one in forms):
        return value
    kinds = {one["type"] for one in forms}
    if isinstance(value, list | Mapping):
        return _coerced_within(value, forms)
    if isinstance(value, str):
        if "integer" in kinds and _WHOLE_NUMBER.fullmatch(value):
            return int(value)
        if "number" in kinds and _NUMBER.fullmatch(value):
            return float(value)
        if "boolean" in kinds:
            return _BOOLEANS.get(value.lower(), value)
    return value


def _coerced_within(value: Any, forms: Sequence[Mapping[str, Any]]) -> Any:
    """Returns a list or an object with each of its elements or members as the server takes it."""
    if isinstance(value, list):
        items = next((form["items"] for form in forms if form["type"] == "array"), None)
        return value if items is None else [_coerced(one, items) for one in value]
    members: Mapping[str, Any] = next(
        (form["properties"] for form in forms if form["type"] == "object"), {}
    )
    return {
        key: _coerced(one, members[key]) if key in members else one for key, one in value.items()
    }


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    if "anyOf" in schema:
        return any(_fits(value, one) for one in schema["anyOf"])
    if schema["type"] == "array":
        return isinstance(value, list) and all(_fits(one, schema["items"]) for one in value)
    if schema["type"] == "object":
        members = schema["properties"]
        return (
            isinstance(value, Mapping)
            and value.keys() == members.keys()
            and all(_fits(one, members[key]) for key, one in value.items())
        )
    kinds = _TYPES[schema["type"]]
    return (
        isinstance(value, kinds)
        and (isinstance(value, bool) == (schema["type"] == "boolean"))
        and value in schema.get("enum", (value,))
    )
