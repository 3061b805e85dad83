"""The requests: at least 1,000 distinct ones for each surface, as files for ghz."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_tools import protoc

from bench.load.bundle import Bundle, route_path
from bench.load.credentials import Credentials

REQUESTS = 1024
# The surfaces: the method that answers, and its request and answer.
METHODS = {
    "check": ("authz.v1.Authorizer/Check", "authz.v1.CheckRequest", "authz.v1.CheckResponse"),
    "ext_authz": (
        "envoy.service.auth.v3.Authorization/Check",
        "envoy.service.auth.v3.CheckRequest",
        "envoy.service.auth.v3.CheckResponse",
    ),
}


@dataclass(frozen=True, slots=True)
class Protos:
    """Descriptors, for ghz as a file and for Python as message classes.

    Attributes:
        path: serialised `FileDescriptorSet` with all imports.
        pool: the same, loaded.
    """

    path: Path
    pool: descriptor_pool.DescriptorPool

    def new(self, name: str) -> Message:
        """Returns an empty message of a type, by its full name."""
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(name))()

    def parse(self, name: str, raw: bytes) -> Message:
        """Returns a message of a type from its bytes.

        Raises:
            google.protobuf.message.DecodeError: the bytes are not such a message.
        """
        message = self.new(name)
        message.ParseFromString(raw)
        return message


def compile_protos(root: Path, path: Path) -> Protos:
    """Compiles both surfaces' protos into one descriptor set.

    Args:
        root: folder of the repository.
        path: where the set is written.

    Raises:
        RuntimeError: the compiler refused them.
    """
    include = Path(protoc.__file__).parent / "_proto"
    status: int = protoc.main(
        [
            "protoc",
            f"-I{root / 'proto'}",
            f"-I{root / 'proto' / 'thirdparty'}",
            f"-I{include}",
            "--include_imports",
            f"--descriptor_set_out={path}",
            "authz/v1/authorizer.proto",
            "authz/v1/credentials.proto",
            "envoy/service/auth/v3/external_auth.proto",
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc refused the protos below {root / 'proto'}")
    files = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return Protos(path, pool)


def messages(
    protos: Protos, surface: str, bundle: Bundle, credentials: Credentials, count: int = REQUESTS
) -> Iterator[bytes]:
    """Yields distinct requests that are all permitted.

    Args:
        protos: the descriptors.
        surface: `check` or `ext_authz`.
        bundle: whose operations are asked for.
        credentials: who asks; request i is sent by agent i for another subject.
        count: how many.
    """
    for index in range(count):
        operation = bundle.operations[index % len(bundle.operations)]
        agent = credentials.agents[index % len(credentials.agents)]
        # 7 is coprime to 256: each agent meets other subjects in the next round.
        subject = credentials.subjects[(index * 7 + index // 256) % len(credentials.subjects)]
        arguments: dict[str, str | int] = {
            "id": f"account-{index:05}",
            "amount": 100 + index,
            "currency": "EUR",
            "note": f"invoice {index} of november",
        }
        build = _check if surface == "check" else _ext_authz
        yield build(protos, operation, arguments, agent, subject).SerializeToString()


def write(path: Path, requests: Iterable[bytes]) -> Path:
    """Writes messages as ghz reads several of them: each after its length as a varint."""
    path.write_bytes(b"".join(_varint(len(raw)) + raw for raw in requests))
    return path


def _check(
    protos: Protos, operation: str, arguments: dict[str, str | int], agent: str, subject: str
) -> Message:
    request = protos.new("authz.v1.CheckRequest")
    # Set by name: the classes come from descriptors, so a type checker knows none of the fields.
    _fill(
        request,
        {
            "operation": operation,
            "arguments_json": json.dumps(arguments, separators=(",", ":")).encode(),
            "evidence": [
                {"role": 1, "scheme": 1, "token": agent},
                {"role": 2, "scheme": 1, "token": subject},
            ],
        },
    )
    return request


def _ext_authz(
    protos: Protos, operation: str, arguments: dict[str, str | int], agent: str, subject: str
) -> Message:
    """What a stock Envoy sends for a GET without body: eight headers, addresses, time."""
    request = protos.new("envoy.service.auth.v3.CheckRequest")
    query = {name: value for name, value in arguments.items() if name != "id"}
    path = f"{route_path(operation)}/{arguments['id']}?{urlencode(query)}"
    _fill(
        request,
        {
            "attributes": {
                "source": {
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 40000}}
                },
                "destination": {
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 8443}}
                },
                "request": {
                    "time": Timestamp(seconds=1_790_000_000),
                    "http": {
                        "id": "12345678901234567890",
                        "method": "GET",
                        "headers": {
                            ":authority": "api.bench.example",
                            ":method": "GET",
                            ":path": path,
                            ":scheme": "https",
                            "accept": "application/json",
                            "authorization": f"Bearer {agent}",
                            "authz-subject": subject,
                            "user-agent": "bench/1.0",
                            "x-forwarded-proto": "https",
                            "x-request-id": "0199a1c2-7f00-7000-8000-0123456789ab",
                        },
                        "path": path,
                        "host": "api.bench.example",
                        "scheme": "https",
                        "size": -1,
                        "protocol": "HTTP/1.1",
                    },
                },
            }
        },
    )
    return request


def _fill(message: Message, values: dict[str, object]) -> None:
    for name, value in values.items():
        field = getattr(message, name)
        if isinstance(value, list):
            for item in value:
                _fill(field.add(), item)
        elif isinstance(value, dict) and isinstance(field, Message):
            field.SetInParent()
            _fill(field, value)
        elif isinstance(value, dict):
            field.update(value)
        elif isinstance(value, Message):
            # Another pool has another class for the same message.
            field.ParseFromString(value.SerializeToString())
        else:
            setattr(message, name, value)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
