"""A server that permits everything. A test of a refusal must fail against it.

Every decision is PERMIT, every other method succeeds, and every page over HTTP is 200, whatever the request says. A permit may name the
reason of a refusal, as an answer of a broken server might. Methods that are named refuse instead, rightly: against a server all of
whose methods do, a test of a refusal must pass.
"""

import json
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self

import grpc
from google.protobuf import message, message_factory
from google.rpc import error_details_pb2, status_pb2

from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2
from authz_client.v1 import (
    admin_pb2,
    authorizer_pb2,
    credentials_pb2,
    decision_pb2,
    options_pb2,
    reason_pb2,
    tasks_pb2,
)
from tests.support.server import Server
from tests.support.surfaces import reason_rows

_FILES: Final = (admin_pb2, authorizer_pb2, credentials_pb2, tasks_pb2, external_auth_pb2)
_HOUR: Final = 3600
_MESSAGE: Final = "stolen"


def decision(reason: str = "PERMITTED", *, permits: bool = True) -> decision_pb2.Decision:
    """Returns a decision.

    Args:
        reason: Short name of the reason code that it names.
        permits: Whether it is a permit, whatever it names; otherwise the refusal of that reason.
    """
    row = reason_rows()["PERMITTED" if permits else reason]
    made = decision_pb2.Decision(
        decision_id=str(uuid.uuid4()),
        outcome=_outcome(row.public_code),
        public_code=options_pb2.PublicCode.Value(f"PUBLIC_CODE_{row.public_code}"),
        next_action=options_pb2.NextAction.Value(f"NEXT_ACTION_{row.next_action}"),
        retry=options_pb2.Retry.Value(f"RETRY_{row.retry}"),
        reason_code=reason_pb2.ReasonCode.Value(f"REASON_CODE_{reason}"),
        message=_MESSAGE,
        enforced=True,
    )
    made.decided_at.GetCurrentTime()
    return made


def envoy_answer(
    reason: str = "PERMITTED", *, permits: bool = True
) -> external_auth_pb2.CheckResponse:
    """Returns an answer to Envoy.

    Args:
        reason: As of `decision`.
        permits: As of `decision`.
    """
    row = reason_rows()[reason]
    named = decision_pb2.Outcome.Name(_outcome(row.public_code)).removeprefix("OUTCOME_")
    told = {"decision_id": str(uuid.uuid4()), "reason_code": reason, "decision": named}
    answer = external_auth_pb2.CheckResponse()
    answer.status.SetInParent()
    if permits:
        answer.ok_response.SetInParent()
    else:
        shown = {name: getattr(row, name) for name in ("public_code", "next_action", "retry")}
        answer.status.code = row.grpc_code
        answer.denied_response.status.code = row.http_status  # type: ignore[assignment]
        answer.denied_response.body = json.dumps(shown)
        if row.http_status == 401:
            header = answer.denied_response.headers.add().header
            header.key, header.value = "www-authenticate", "Bearer"
    answer.dynamic_metadata.update(told)
    return answer


def _outcome(public_code: str) -> decision_pb2.Outcome.ValueType:
    name = public_code if public_code in ("PERMIT", "STEP_UP") else "DENY"
    return decision_pb2.Outcome.Value(f"OUTCOME_{name}")


def answer_to(
    method: str, request: bytes, reason: str = "PERMITTED", *, permits: bool = True
) -> bytes:
    """Answers a method.

    Args:
        method: `/<service>/<method>`, with or without the first slash.
        request: Bytes of the request, in any form.
        reason: Reason that decisions name.
        permits: Whether decisions are permits, whatever they name.

    Returns:
        Bytes of the answer.

    Raises:
        KeyError: There is no such method.
    """
    descriptor = _methods()["/" + method.removeprefix("/")]
    if descriptor.output_type.file.package == "envoy.service.auth.v3":
        return envoy_answer(reason, permits=permits).SerializeToString()
    answer: Any = message_factory.GetMessageClass(descriptor.output_type)()
    if descriptor.output_type.name in ("CheckResponse", "ExplainResponse"):
        answer.decision.CopyFrom(decision(reason, permits=permits))
    elif descriptor.output_type.name == "BatchCheckResponse":
        items = range(max(1, _items(request)))
        answer.decisions.extend(decision(reason, permits=permits) for _ in items)
    elif descriptor.output_type.name in _FILLED:
        _FILLED[descriptor.output_type.name](answer, request)
    return bytes(answer.SerializeToString())


def _items(request: bytes) -> int:
    try:
        return len(authorizer_pb2.BatchCheckRequest.FromString(request).items)
    except message.DecodeError:
        return 0


@cache
def _methods() -> dict[str, Any]:
    return {
        f"/{service.full_name}/{method.name}": method
        for file in _FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if not (method.client_streaming or method.server_streaming)
    }


def _fill_task(answer: Any, request: bytes) -> None:
    del request
    answer.task.id = str(uuid.uuid4())
    answer.task.session = str(uuid.uuid4())
    answer.task.status = tasks_pb2.TASK_STATUS_ACTIVE
    answer.task.deadline.FromSeconds(int(time.time()) + _HOUR)


def _fill_issue(answer: Any, request: bytes) -> None:
    try:
        bound = bool(credentials_pb2.IssueRequest.FromString(request).proof)
    except message.DecodeError:
        bound = False
    answer.token, answer.token_type = "a.b.c", "DPoP" if bound else "Bearer"
    answer.expires_at.FromSeconds(int(time.time()) + _HOUR)


def _fill_introspect(answer: Any, _: bytes) -> None:
    answer.active = True


def _fill_end(answer: Any, _: bytes) -> None:
    answer.ended = 1


def _fill_reload(answer: Any, _: bytes) -> None:
    answer.reloaded = True


_FILLED: Final[dict[str, Callable[[Any, bytes], None]]] = {
    "StartResponse": _fill_task,
    "DelegateResponse": _fill_task,
    "ExtendResponse": _fill_task,
    "GetResponse": _fill_task,
    "IssueResponse": _fill_issue,
    "IntrospectResponse": _fill_introspect,
    "EndResponse": _fill_end,
    "ReloadResponse": _fill_reload,
}


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, says: str, reason: str, refusing: Collection[str]) -> None:
        self._says = says
        self._reason = reason
        self._refusing = refusing

    def service(self, details: Any) -> Any:
        """Handles every unary method that is known."""
        name = details.method.removeprefix("/")
        if details.method not in _methods():
            return None
        refuses = name in self._refusing

        def handle(request: bytes, context: Any) -> bytes:
            if refuses and name.endswith("/Introspect"):
                return b""
            if refuses and not name.endswith(("/Check", "/BatchCheck", "/Explain")):
                self._abort(context)
            reason = self._reason if refuses else self._says
            return answer_to(name, request, reason, permits=not refuses)

        return grpc.unary_unary_rpc_method_handler(handle)

    def _abort(self, context: Any) -> None:
        info = error_details_pb2.ErrorInfo(reason=self._reason, domain="authz.dev")
        code = reason_rows()[self._reason].grpc_code
        status = status_pb2.Status(code=code, message=_MESSAGE)
        status.details.add().Pack(info)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        (known,) = (one for one in grpc.StatusCode if one.value[0] == code)
        context.abort(known, _MESSAGE)


class _Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b"{}" if self.path != "/metrics" else b""
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@dataclass
class PermissiveServer(Server):
    """A server in this process on the addresses of a layout, which permits everything.

    Attributes:
        says: Short name of the reason that permits name.
        refusing: Methods, `<service>/<method>`, that refuse after all.
        reason: Short name of the reason that refusals and records name.
        ready: What `/readyz` says.
    """

    says: str = "PERMITTED"
    refusing: Collection[str] = ()
    reason: str = "PERMITTED"
    ready: bool = True
    _stops: list[Callable[[], Any]] = field(default_factory=list)

    def start(self) -> Self:
        """Listens on every address of the layout."""
        server = grpc.server(
            ThreadPoolExecutor(8),
            handlers=[_Handler(self.says, self.reason, self.refusing)],
            options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
        )
        for listener in self.place.config["listeners"].values():
            tls = listener.get("tls")
            if listener["address"] == self._pages("metrics"):
                self._serve_pages(listener["address"], None)
            elif listener["address"] == self._pages("http"):
                self._serve_pages(listener["address"], tls)
            elif tls is None:
                server.add_insecure_port(listener["address"].replace("unix://", "unix:"))
            else:
                pair = [Path(tls[name]).read_bytes() for name in ("key_file", "cert_file")]
                server.add_secure_port(
                    listener["address"], grpc.ssl_server_credentials([(pair[0], pair[1])])
                )
        server.start()
        self._stops.append(lambda: server.stop(None).wait(5))
        self.log.touch()
        return self

    def _pages(self, name: str) -> str | None:
        listener = self.place.config["listeners"].get(name)
        return None if listener is None else str(listener["address"])

    def _serve_pages(self, address: str, tls: Any) -> None:
        host, _, port = address.rpartition(":")
        pages = ThreadingHTTPServer((host, int(port)), _Page)
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls["cert_file"], tls["key_file"])
            pages.socket = context.wrap_socket(pages.socket, server_side=True)
        threading.Thread(target=pages.serve_forever, args=(0.05,), daemon=True).start()
        self._stops += [pages.shutdown, pages.server_close]

    def close(self) -> None:
        """Stops listening."""
        self.disconnect()
        for stop in self._stops:
            stop()
        self._stops.clear()

    def http(self, path: str) -> tuple[int, str]:
        """Says whether it is ready, and counts nothing."""
        status = 200 if self.ready else 503
        return status, "" if path == "/metrics" else json.dumps({"ready": self.ready})

    def samples(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """Has none."""
        return iter(())

    def record(self, decision_id: str) -> dict[str, Any]:
        """Returns a record that names the reason."""
        told = {"reason_code": self.reason}
        return {"decision_id": decision_id, "result": told, "input": {"chain": []}}
