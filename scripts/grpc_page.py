"""Writes the page of the gRPC API from the protos: services, messages and enumerations, with their comments."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from google.protobuf import descriptor_pb2

PACKAGE = "authz.v1"
# Fields of FileDescriptorProto, DescriptorProto, ServiceDescriptorProto and EnumDescriptorProto in paths of source comments.
FILE_MESSAGE, FILE_ENUM, FILE_SERVICE = 4, 5, 6
MESSAGE_FIELD, SERVICE_METHOD, ENUM_VALUE = 2, 2, 2
REPEATED = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
LINKED = (
    descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
    descriptor_pb2.FieldDescriptorProto.TYPE_ENUM,
)
# Messages that describe the protos themselves.
LEFT_OUT = ("ReasonRow",)
# Enumerations with a page of their own.
HAS_PAGE = {"ReasonCode": "reason-codes.md"}

INTRODUCTION = """\
# gRPC API

Every message and method of the package `authz.v1`, from [`proto/authz/v1`](../../proto/authz/v1).
Use it if there is no [SDK](sdk-api.md) for your language. Messages are proto3: a field that is not set has its default, which the text names where it means something.

- **Address**: a listener of the [configuration](configuration/listeners.md). `Admin` is served by the listener `admin` only.
- **Errors**: `Check` and `BatchCheck` answer with status OK and a decision, also for a malformed request. The other methods fail with a status whose details hold the same public code.
- **Envoy** asks by `envoy.service.auth.v3.Authorization`: [ext_authz](ext-authz.md).
- `Approvals`: on the listener `admin`, everybody who can open it lists, shows and watches all approvals, and people of `approvals.people` answer. On a listener for decisions an agent reads and watches the approval of its own call, by its id and the evidence of the call. Listeners of `lane: fast` do not serve it.
- `grpc.health.v1` and reflection are served, too.
"""


@dataclass(frozen=True)
class Comments:
    """Comments of one file, by the path of the described element."""

    by_path: dict[tuple[int, ...], str]

    def at(self, *path: int) -> str:
        """Return a comment as one line of Markdown."""
        return " ".join(self.by_path.get(path, "").split())


def page(descriptors: bytes) -> str:
    """Describes the package.

    Args:
        descriptors: Serialized google.protobuf.FileDescriptorSet with source comments.

    Returns:
        Markdown.
    """
    every = descriptor_pb2.FileDescriptorSet.FromString(descriptors).file
    files = [file for file in every if file.package == PACKAGE]
    comments = {
        file.name: Comments(
            {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        )
        for file in files
    }
    parts = [INTRODUCTION, "## Services\n"]
    for file in files:
        parts += _services(file, comments[file.name])
    parts.append("## Messages\n")
    messages = sorted(
        (message.name, _message(message, comments[file.name], index))
        for file in files
        for index, message in enumerate(file.message_type)
        if message.name not in LEFT_OUT
    )
    parts += [text for _, text in messages]
    parts.append("## Enumerations\n")
    enumerations = sorted(
        (enum.name, _enum(enum, comments[file.name], index))
        for file in files
        for index, enum in enumerate(file.enum_type)
        if enum.name not in HAS_PAGE
    )
    parts += [text for _, text in enumerations]
    return "\n".join(parts).rstrip() + "\n"


def _services(file: descriptor_pb2.FileDescriptorProto, comments: Comments) -> Iterator[str]:
    for index, service in enumerate(file.service):
        rows = [
            (
                f"`{method.name}`",
                _link(method.input_type),
                _link(method.output_type),
                comments.at(FILE_SERVICE, index, SERVICE_METHOD, number),
            )
            for number, method in enumerate(service.method)
        ]
        yield f"### `{service.name}`\n\n{comments.at(FILE_SERVICE, index)}\n"
        yield _table(("method", "takes", "returns", "meaning"), rows)


def _message(message: descriptor_pb2.DescriptorProto, comments: Comments, index: int) -> str:
    entries = {
        f".{PACKAGE}.{message.name}.{nested.name}": nested
        for nested in message.nested_type
        if nested.options.map_entry
    }
    rows = []
    for number, field in enumerate(message.field):
        meaning = comments.at(FILE_MESSAGE, index, MESSAGE_FIELD, number)
        if field.HasField("oneof_index") and not field.proto3_optional:
            meaning = f"One of `{message.oneof_decl[field.oneof_index].name}`. {meaning}"
        rows.append((f"`{field.name}`", str(field.number), _type(field, entries), meaning))
    text = f"### `{message.name}`\n\n{comments.at(FILE_MESSAGE, index)}\n"
    return f"{text}\n{_table(('field', 'number', 'type', 'meaning'), rows)}" if rows else text


def _enum(enum: descriptor_pb2.EnumDescriptorProto, comments: Comments, index: int) -> str:
    rows = [
        (f"`{value.name}`", str(value.number), comments.at(FILE_ENUM, index, ENUM_VALUE, number))
        for number, value in enumerate(enum.value)
    ]
    text = f"### `{enum.name}`\n\n{comments.at(FILE_ENUM, index)}\n"
    return f"{text}\n{_table(('value', 'number', 'meaning'), rows)}"


def _type(
    field: descriptor_pb2.FieldDescriptorProto, entries: dict[str, descriptor_pb2.DescriptorProto]
) -> str:
    entry = entries.get(field.type_name)
    if entry is not None:
        key, value = entry.field
        return f"map of {_type(key, {})} to {_type(value, {})}"
    name = (
        _link(field.type_name)
        if field.type in LINKED
        else descriptor_pb2.FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    )
    if field.label == REPEATED:
        return f"list of {name}"
    return f"{name}, optional" if field.proto3_optional else name


def _link(full_name: str) -> str:
    name = full_name.removeprefix(f".{PACKAGE}.")
    if name.startswith("."):
        return f"`{name.removeprefix('.')}`"
    return f"[`{name}`]({HAS_PAGE.get(name) or '#' + name.lower()})"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"
