"""Writes the table of the calls that the engine answers, for Rust and for Python, from the protos."""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "authz.v1"
SERVICE = 6  # FileDescriptorProto.service, as it stands in the paths of source comments
METHOD = 2  # ServiceDescriptorProto.method


class SurfaceError(Exception):
    """Two calls have one surface."""


@dataclass(frozen=True, slots=True)
class Surface:
    """Call that the engine answers.

    Attributes:
        name: Its word in metrics, audit records and configuration.
        path: Its service and method, or its HTTP path.
        comment: What the call does.
    """

    name: str
    path: str
    comment: str

    @property
    def variant(self) -> str:
        """Name in Rust."""
        return "".join(word.capitalize() for word in self.name.split("_"))

    @property
    def member(self) -> str:
        """Name in Python."""
        return self.name.upper()


# Calls that are not methods of our own protos.
OTHERS = (
    Surface(
        "ext_authz",
        "envoy.service.auth.v3.Authorization/Check",
        "Judges one HTTP request for Envoy.",
    ),
    Surface(
        "access_log",
        "envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs",
        "Takes one message of Envoy's access log.",
    ),
    Surface("credential_exchange", "/oauth/token", "Exchanges tokens over HTTP (RFC 8693)."),
    Surface(
        "security_event",
        "/shared-signals",
        "Takes a security event of an identity provider (RFC 8935).",
    ),
)


def read(descriptors: bytes) -> tuple[Surface, ...]:
    """Reads the methods that have the option `surface` out of a descriptor set with source comments.

    Args:
        descriptors: Serialized google.protobuf.FileDescriptorSet.

    Returns:
        Calls in the order of the protos; those of other protocols last.

    Raises:
        SurfaceError: Two calls have one surface.
    """
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors)
    # The option's value is read with a class of a pool that knows the option.
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    option: Any = pool.FindExtensionByName(f"{PACKAGE}.surface")
    options = message_factory.GetMessageClass(
        pool.FindMessageTypeByName("google.protobuf.MethodOptions")
    )
    surfaces = []
    for file in files.file:
        if file.package != PACKAGE:
            continue
        for path, comment, method in _methods(file):
            read_options: Any = options.FromString(method.options.SerializeToString())
            if read_options.HasExtension(option):
                surfaces.append(Surface(read_options.Extensions[option], path, comment))
    surfaces += OTHERS
    names = [surface.name for surface in surfaces]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SurfaceError(f"two calls have one surface: {', '.join(twice)}")
    return tuple(surfaces)


def _methods(
    file: descriptor_pb2.FileDescriptorProto,
) -> Iterator[tuple[str, str, descriptor_pb2.MethodDescriptorProto]]:
    comments = {
        tuple(place.path): " ".join(place.leading_comments.split())
        for place in file.source_code_info.location
    }
    for at, service in enumerate(file.service):
        for number, method in enumerate(service.method):
            comment = comments.get((SERVICE, at, METHOD, number), "")
            yield f"{file.package}.{service.name}/{method.name}", comment, method


def rust(surfaces: tuple[Surface, ...]) -> str:
    """Returns the text of `surface.rs`, not yet formatted."""
    return "\n".join(
        [
            "//! Calls that the engine answers: the methods of `proto/authz/v1` with the option `surface`, and calls of",
            "//! other protocols.",
            "",
            "use serde::Deserialize;",
            "",
            "/// Kind of call that the engine answers. Each listener answers some of them.",
            "#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash)]",
            '#[serde(rename_all = "snake_case")]',
            "pub enum Surface {",
            *(line for surface in surfaces for line in _rust_variant(surface)),
            "}",
            "",
            "impl Surface {",
            "/// All surfaces.",
            f"pub const ALL: [Self; {len(surfaces)}] = [",
            *(f"Self::{surface.variant}," for surface in surfaces),
            "];",
            "",
            "/// Word in metrics, audit records and configuration.",
            "#[must_use] pub const fn as_str(self) -> &'static str { match self {",
            *(f'Self::{surface.variant} => "{surface.name}",' for surface in surfaces),
            "}}",
            "",
            "/// Surface of that name.",
            "#[must_use] pub fn from_name(name: &str) -> Option<Self> {",
            "Self::ALL.into_iter().find(|surface| surface.as_str() == name) }",
            "",
            "/// Service and method, or HTTP path: `path` of an audit record.",
            "#[must_use] pub const fn path(self) -> &'static str { match self {",
            *(f'Self::{surface.variant} => "{surface.path}",' for surface in surfaces),
            "}}",
            "}",
            "",
        ]
    )


def _rust_variant(surface: Surface) -> Iterator[str]:
    for line in textwrap.wrap(f"`{surface.path}`. {surface.comment}", 110):
        yield f"/// {line}"
    yield f"{surface.variant},"


def python(surfaces: tuple[Surface, ...]) -> str:
    """Returns the text of `surfaces.py`."""
    services: dict[str, list[Surface]] = {}
    for surface in surfaces:
        service, _, method = surface.path.partition("/")
        if service and method:
            services.setdefault(service, []).append(surface)
    return "\n".join(
        [
            '"""Calls that the engine answers."""',
            "",
            "from collections.abc import Mapping",
            "from enum import StrEnum",
            "from typing import Final",
            "",
            '__all__ = ["METHODS", "Surface"]',
            "",
            "",
            "class Surface(StrEnum):",
            '    """Kind of call that the engine answers. Each listener answers some of them."""',
            "",
            *(line for surface in surfaces for line in _python_member(surface)),
            "",
            "METHODS: Final[Mapping[str, Mapping[str, Surface]]] = {",
            *(line for service in services.items() for line in _python_service(*service)),
            "}",
            '"""Surface of each method, by its service."""',
            "",
        ]
    )


def _python_member(surface: Surface) -> Iterator[str]:
    yield f'    {surface.member} = "{surface.name}"'
    yield f'    """`{surface.path}`. {surface.comment}"""'


def _python_service(service: str, surfaces: list[Surface]) -> Iterator[str]:
    yield f'    "{service}": {{'
    for surface in surfaces:
        yield f'        "{surface.path.partition("/")[2]}": Surface.{surface.member},'
    yield "    },"
