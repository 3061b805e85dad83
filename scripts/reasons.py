"""Writes the table of reason codes for Rust, and its page for people, from the protos."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.rpc import code_pb2

OPTIONS = "authz/v1/options.proto"
REASONS = "authz/v1/reason.proto"
ENUM = 5  # FileDescriptorProto.enum_type, as it stands in the paths of source comments
VALUE = 2  # EnumDescriptorProto.value


class ReasonError(Exception):
    """The table in `reason.proto` is not whole."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value of an enum.

    Attributes:
        name: its name without the enum's prefix.
        number: its number.
        comment: comment in the proto.
        row: what follows from it; only reason codes have one.
    """

    name: str
    number: int
    comment: str
    row: "Row | None" = None

    @property
    def variant(self) -> str:
        """Its name in Rust."""
        return "".join(word.capitalize() for word in self.name.split("_"))


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table, as `ReasonRow` in `options.proto` describes it."""

    public_code: Value
    next_action: Value
    retry: Value
    grpc_code: int
    http_status: int
    title: str
    fix: str

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """The columns in words."""
        enums = (self.public_code, self.next_action, self.retry)
        names = (*(value.name for value in enums), code_pb2.Code.Name(self.grpc_code))
        public_code, next_action, retry, grpc_code = (f"`{name}`" for name in names)
        return public_code, next_action, retry, grpc_code, str(self.http_status)


@dataclass(frozen=True, slots=True)
class Enum:
    """An enum of the protos.

    Attributes:
        name: its name.
        comment: comment in the proto.
        values: all values but UNSPECIFIED, which is never sent.
    """

    name: str
    comment: str
    values: tuple[Value, ...]

    def by_number(self, number: int) -> Value:
        """Returns the value of that number."""
        return next(value for value in self.values if value.number == number)


def read(descriptors: bytes) -> tuple[tuple[Enum, ...], Enum]:
    """Reads the table out of a descriptor set with source comments.

    Args:
        descriptors: serialized google.protobuf.FileDescriptorSet.

    Returns:
        The enums of the columns, and the reason codes with their rows.

    Raises:
        ReasonError: a code has no full row, or the codes are out of order.
    """
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors)
    # The option's values are read with classes of a pool that knows the option.
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    option: Any = pool.FindExtensionByName("authz.v1.reason")
    options_class = message_factory.GetMessageClass(
        pool.FindMessageTypeByName("google.protobuf.EnumValueOptions")
    )
    by_name = {file.name: file for file in files.file}
    columns = {enum.name: enum for enum in _enums(by_name[OPTIONS])}
    (codes,) = _enums(by_name[REASONS])
    raw = {value.number: value.options for value in by_name[REASONS].enum_type[0].value}
    rows = []
    for code in codes.values:
        options: Any = options_class.FromString(raw[code.number].SerializeToString())
        if not options.HasExtension(option):
            raise ReasonError(f"{REASONS}: {code.name} has no row: add the option (reason)")
        row = _row(code, options.Extensions[option], columns)
        rows.append(Value(code.name, code.number, code.comment, row))
    numbers = [code.number for code in codes.values]
    if numbers != sorted(numbers):
        raise ReasonError(f"{REASONS}: numbers must ascend, since their order is their precedence")
    return tuple(columns.values()), Enum(codes.name, codes.comment, tuple(rows))


def _enums(file: descriptor_pb2.FileDescriptorProto) -> Iterator[Enum]:
    comments = {
        tuple(place.path): place.leading_comments.strip()
        for place in file.source_code_info.location
    }
    for index, enum in enumerate(file.enum_type):
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
        values = tuple(
            Value(
                value.name.removeprefix(prefix),
                value.number,
                comments[ENUM, index, VALUE, place],
            )
            for place, value in enumerate(enum.value)
            if value.number
        )
        yield Enum(enum.name, comments[ENUM, index], values)


def _row(code: Value, row: Any, columns: dict[str, Enum]) -> Row:
    # gRPC's OK is 0, which proto3 does not tell from a field that is not set.
    missing = {field.name for field in row.DESCRIPTOR.fields} - {"grpc_code"}
    missing -= {field.name for field, _ in row.ListFields()}
    if missing:
        raise ReasonError(f"{REASONS}: {code.name} has no {', '.join(sorted(missing))}")
    return Row(
        columns["PublicCode"].by_number(row.public_code),
        columns["NextAction"].by_number(row.next_action),
        columns["Retry"].by_number(row.retry),
        row.grpc_code,
        row.http_status,
        row.title,
        row.fix,
    )


def rust(columns: tuple[Enum, ...], codes: Enum) -> str:
    """Returns the text of `reason.rs`, not yet formatted."""
    return "\n".join(
        [
            "//! Reason codes of decisions, and the parts of an answer that their callers see: the table",
            "//! of `proto/authz/v1/reason.proto`.",
            *(line for enum in (*columns, codes) for line in _rust_enum(enum)),
            *_rust_rows(codes),
        ]
    )


def _rust_enum(enum: Enum) -> Iterator[str]:
    yield ""
    yield from _rust_comment(enum.comment)
    yield "#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]"
    yield "#[repr(u16)]"
    yield f"pub enum {enum.name} {{"
    for value in enum.values:
        yield from _rust_comment(value.comment)
        yield f"{value.variant} = {value.number},"
    yield "}\n"
    yield f"impl {enum.name} {{"
    yield "/// Every value, in the order of their numbers."
    variants = ", ".join(f"Self::{value.variant}" for value in enum.values)
    yield f"pub const ALL: [Self; {len(enum.values)}] = [{variants}];\n"
    yield "/// Its name in the proto, without the prefix."
    yield "#[must_use] pub const fn as_str(self) -> &'static str { match self {"
    for value in enum.values:
        yield f'Self::{value.variant} => "{value.name}",'
    yield "}}\n"
    yield "/// The value of that name, as [`Self::as_str`] gives it."
    yield "#[must_use] pub fn from_name(name: &str) -> Option<Self> {"
    yield "Self::ALL.into_iter().find(|value| value.as_str() == name) }\n"
    yield "/// Its number in the proto."
    yield "#[must_use] pub const fn number(self) -> i32 { self as i32 }"
    yield "}"


def _rust_rows(codes: Enum) -> Iterator[str]:
    yield """
        /// What follows from a reason code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct ReasonRow {
            /// What the agent sees.
            pub public_code: PublicCode,
            /// What the agent can do.
            pub next_action: NextAction,
            /// Whether asking again can help.
            pub retry: Retry,
            /// Canonical gRPC status code (google.rpc.Code).
            pub grpc_code: i32,
            /// HTTP status of the answer.
            pub http_status: u16,
            /// One sentence: what happened.
            pub title: &'static str,
            /// One sentence: how to fix it.
            pub fix: &'static str,
        }

        impl ReasonCode {
            /// What follows from this code.
            #[must_use]
            pub const fn row(self) -> &'static ReasonRow {
                match self {"""
    for code, row in _rows(codes):
        yield f"""Self::{code.variant} => &ReasonRow {{
            public_code: PublicCode::{row.public_code.variant},
            next_action: NextAction::{row.next_action.variant},
            retry: Retry::{row.retry.variant},
            grpc_code: {row.grpc_code},
            http_status: {row.http_status},
            title: {_rust_string(row.title)},
            fix: {_rust_string(row.fix)},
        }},"""
    yield "}}}\n"


def _rows(codes: Enum) -> Iterator[tuple[Value, Row]]:
    return ((code, code.row) for code in codes.values if code.row)


def _rust_comment(comment: str) -> Iterator[str]:
    return (f"/// {line.strip()}".rstrip() for line in comment.splitlines())


def _rust_string(text: str) -> str:
    # In lines that fit: rustfmt gives up on an expression with a longer one.
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    lines = textwrap.wrap(escaped, 60, break_long_words=False, break_on_hyphens=False)
    return '"' + f" \\\n{' ' * 22}".join(lines) + '"'


def page(codes: Enum) -> str:
    """Returns the text of the page on reason codes."""
    table = [
        f"| [{code.name}](#{code.name.lower()}) | {code.number} | {' | '.join(row.cells)} |"
        for code, row in _rows(codes)
    ]
    return "\n".join(
        [
            "# Reason codes\n",
            "Every decision has one reason code. If several denials apply, Authz reports the first in this",
            "list. Enforcers and the audit see the code; an agent sees only the public code, the action that",
            "it can take next, and whether a retry can help.\n",
            "| code | number | public code | next action | retry | gRPC | HTTP |",
            "|---|---|---|---|---|---|---|",
            *table,
            *(line for code, row in _rows(codes) for line in _section(code, row)),
            "",
        ]
    )


def _section(code: Value, row: Row) -> Iterator[str]:
    public_code, next_action, retry, grpc_code, http_status = row.cells
    yield f"\n## {code.name}\n"
    yield f"{row.title}\n"
    yield f"**How to fix it.** {row.fix}\n"
    yield f"The agent sees {public_code}, next action {next_action}, retry {retry}."
    yield f"gRPC status {grpc_code}, HTTP status {http_status}."
