"""The HTTP server: who called by certificate, and what is not waited for."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from authz.config import Tls
from authz.errors import ConfigError
from authz.server import tls_files
from authz.server.http import server as web
from authz.server.http.server import CLIENT_CHAIN, WebServer, WebSettings
from tests.support.mutual import Pki, certificate, write
from tests.support.svid import Signer
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Long enough for a handshake on a busy machine.
TIMEOUT = 1.0


async def tell(scope: Any, receive: Any, send: Any) -> None:
    """Answer what is known of the caller's certificates."""
    while (await receive()).get("more_body"):
        pass
    chain = [sha256(one).hexdigest() for one in scope["extensions"]["tls"][CLIENT_CHAIN]]
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(chain).encode()})


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    """Certificates of server and callers."""
    return Pki(tmp_path)


@contextmanager
def served(
    pki: Pki, *, callers: bool = True, connections: int = 64, timeout: float = 60
) -> Iterator[WebServer]:
    """A server on a port of its own."""
    authorities = {"client_ca_file": str(pki.clients)} if callers else {}
    tls = Tls(**pki.tls, **authorities)
    settings = WebSettings("http", "127.0.0.1:0", tls, connections, timeout)
    server = WebServer(settings, tell)
    try:
        server.start()
        yield server
    finally:
        server.close()


def get(server: WebServer, context: ssl.SSLContext) -> list[str]:
    """Ask who we are."""
    _, port = server.address.rsplit(":", 1)
    with httpx.Client(verify=context, trust_env=False) as client:
        return list(client.get(f"https://localhost:{port}/").json())


def known(der: bytes) -> str:
    """The name of a certificate."""
    return sha256(der).hexdigest()


def test_the_application_sees_the_certificate_of_the_caller(pki: Pki) -> None:
    """As it was shown, in DER."""
    svid = pki.a.svid()

    with served(pki) as server:
        assert get(server, pki.context("bot", svid, "http/1.1")) == [
            known(svid.certificate.public_bytes(web_der()))
        ]


def web_der() -> Any:
    """The encoding of a certificate in TLS."""
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    return Encoding.DER


def test_the_application_sees_what_came_with_it(pki: Pki) -> None:
    """The chain as it was sent: it is verified against the trust domain, not as TLS has built it."""
    middle = pki.a.intermediate("a.example")
    svid = middle.svid()
    context = pki.context("bot", svid, "http/1.1")
    (pki.folder / "chain.pem").write_bytes(svid.key_pem + svid.pem + middle.pem)
    context.load_cert_chain(pki.folder / "chain.pem")

    with served(pki) as server:
        assert get(server, context) == [
            known(svid.certificate.public_bytes(web_der())),
            known(middle.der),
        ]


def test_a_caller_without_a_certificate_is_nobody(pki: Pki) -> None:
    """Keys are fetched without one."""
    context = ssl.create_default_context(cafile=str(pki.folder / "root.pem"))

    with served(pki) as server:
        assert get(server, context) == []
    with served(pki, callers=False) as server:
        assert get(server, pki.context("bot", pki.a.svid(), "http/1.1")) == []


def test_two_connections_are_two_callers(pki: Pki) -> None:
    """Also at the same time; and one connection stays one caller over requests."""
    one, other = pki.a.svid(), pki.b.svid()

    with served(pki) as server:
        port = server.address.rsplit(":", 1)[1]
        first = httpx.Client(verify=pki.context("one", one, "http/1.1"), trust_env=False)
        second = httpx.Client(verify=pki.context("other", other, "http/1.1"), trust_env=False)
        with first, second:
            told = [
                client.get(f"https://localhost:{port}/").json()
                for client in (first, second, first, second)
            ]

    assert told[0] == told[2] != told[1] == told[3]


def test_a_certificate_that_tls_does_not_know_ends_the_connection(pki: Pki) -> None:
    """Before any request."""
    stranger = Signer.authority("x.example").svid()

    with (
        served(pki) as server,
        pytest.raises((httpx.TransportError, ssl.SSLError)),
    ):
        get(server, pki.context("stranger", stranger, "http/1.1"))


def closed_within(connection: socket.socket, seconds: float) -> bool:
    """Wait until the other side closes."""
    connection.settimeout(seconds)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: "])
def test_a_request_whose_head_does_not_come_is_not_waited_for(pki: Pki, sent: bytes) -> None:
    """The connection is closed, whether it brought nothing or half a head."""
    with served(pki, timeout=TIMEOUT) as server:
        port = int(server.address.rsplit(":", 1)[1])
        context = pki.context("bot", pki.a.svid(), "http/1.1")
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(sent)
            assert closed_within(connection, 30)


def test_a_head_that_drips_is_not_waited_for(pki: Pki) -> None:
    """Each byte does not begin the time anew."""
    with served(pki, timeout=TIMEOUT) as server:
        port = int(server.address.rsplit(":", 1)[1])
        context = pki.context("bot", pki.a.svid(), "http/1.1")
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(b"GET / HTTP/1.1\r\nx: ")

            def drip() -> bool:
                try:
                    connection.sendall(b"x")
                except OSError:
                    return True
                return False

            eventually(drip, what="the server closes")


def test_a_handshake_that_does_not_come_is_not_waited_for(pki: Pki) -> None:
    """The connection is closed."""
    with served(pki, timeout=TIMEOUT) as server:
        port = int(server.address.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as plain:
            assert closed_within(plain, 30)


def test_requests_that_come_in_time_are_served_one_after_the_other(pki: Pki) -> None:
    """The time-out of a head ends with the head."""
    with served(pki, timeout=TIMEOUT) as server:
        port = server.address.rsplit(":", 1)[1]
        context = pki.context("bot", pki.a.svid(), "http/1.1")
        with httpx.Client(verify=context, trust_env=False) as client:
            for _ in range(3):
                assert client.post(f"https://localhost:{port}/", content=b"x").status_code == 200
                time.sleep(TIMEOUT * 0.8)


def test_slow_connections_give_way_to_requests_that_come_whole(pki: Pki) -> None:
    """However many there are: the oldest is closed for each new one, whether its head or its body is missing."""
    with served(pki, connections=4) as server, ExitStack() as stack:
        port = int(server.address.rsplit(":", 1)[1])
        context = pki.context("bot", pki.a.svid(), "http/1.1")

        def slow(begun: bytes) -> ssl.SSLSocket:
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            made = stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
            made.sendall(begun)
            return made

        held = [slow(b"GET / HTTP/1.1\r\n") for _ in range(4)]
        held += [slow(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n") for _ in range(4)]
        with httpx.Client(verify=context, trust_env=False) as client:
            for _ in range(3):
                assert client.get(f"https://localhost:{port}/").status_code == 200
        assert all(closed_within(one, 30) for one in held[:4])


def test_more_requests_than_may_be_are_refused() -> None:
    """429, at once, where each connection waits for an answer of ours."""
    answer = threading.Event()

    async def hold(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.to_thread(answer.wait, 30)
        await tell(scope, receive, send)

    settings = WebSettings("http", "127.0.0.1:0", None, 2, 60)
    server = WebServer(settings, hold)
    server.start()
    try:
        url = f"http://{server.address}/"
        with ThreadPoolExecutor(2) as pool, httpx.Client(trust_env=False) as client:
            held = [pool.submit(httpx.get, url, timeout=30, trust_env=False) for _ in range(2)]
            eventually(lambda: server.busy == 2, what="both wait")
            refused = client.get(url, timeout=30)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            answer.set()
            assert [one.result().status_code for one in held] == [200, 200]
    finally:
        answer.set()
        server.close()


def test_a_renewed_certificate_is_taken_up_and_a_bad_one_is_not(
    pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a restart; half a pair leaves the one before."""
    monkeypatch.setattr(web, "_RELOAD", 0.05)
    context = pki.context("bot", pki.a.svid(), "http/1.1")

    def shown(server: WebServer) -> bytes:
        port = int(server.address.rsplit(":", 1)[1])
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            return connection.getpeercert(binary_form=True) or b""

    with served(pki) as server:
        before = shown(server)
        key = (pki.folder / "server.key").read_bytes()
        write(pki.folder, "server", certificate("server", pki.root))
        renewed = (pki.folder / "server.key").read_bytes()
        eventually(lambda: shown(server) != before, what="the new one")
        after = shown(server)
        (pki.folder / "server.key").write_bytes(key)
        time.sleep(0.3)
        assert shown(server) == after
        (pki.folder / "server.key").write_bytes(renewed)


def test_a_certificate_with_another_key_is_refused_at_the_start(pki: Pki) -> None:
    """With what is wrong."""
    write(pki.folder, "other", certificate("other", pki.root))
    tls = Tls(cert_file=pki.tls["cert_file"], key_file=str(pki.folder / "other.key"))

    with pytest.raises(ConfigError, match="the key of another certificate"):
        WebServer(WebSettings("http", "127.0.0.1:0", tls), tell)


def test_a_pair_of_files_is_checked_once_and_not_before_each_handshake(
    pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is in use or was refused: callers who have proved nothing would choose how often a key is loaded."""
    made: list[Callable[[], object]] = []
    checked: list[object] = []
    check = tls_files._check_pair

    def counted(tls: Tls, files: tls_files.TlsFiles) -> None:
        checked.append(files)
        check(tls, files)

    def keep(_: object, fetch: Callable[[], object], **__: object) -> None:
        made.append(fetch)

    monkeypatch.setattr(tls_files, "_check_pair", counted)
    monkeypatch.setattr("grpc.dynamic_ssl_server_credentials", keep)
    tls_files.credentials(Tls(cert_file=pki.tls["cert_file"], key_file=pki.tls["key_file"]))
    (fetch,) = made
    key = (pki.folder / "server.key").read_bytes()
    assert [fetch(), fetch(), len(checked)] == [None, None, 1]
    write(pki.folder, "server", certificate("server", pki.root))
    renewed = (pki.folder / "server.key").read_bytes()
    (pki.folder / "server.key").write_bytes(key)
    assert [fetch(), fetch(), len(checked)] == [None, None, 2]
    (pki.folder / "server.key").write_bytes(renewed)
    assert fetch() is not None
    assert [fetch(), fetch(), len(checked)] == [None, None, 3]


def test_an_address_that_is_taken_is_refused(pki: Pki) -> None:
    """With the name of the listener."""
    with (
        served(pki) as server,
        pytest.raises(ConfigError, match="listener `metrics` cannot be bound"),
    ):
        WebServer(WebSettings("metrics", server.address, None), tell)


def test_a_unix_socket_is_served_too(tmp_path: Path) -> None:
    """With the mode that other sockets have."""
    (tmp_path / "run").mkdir(mode=0o700)
    path = tmp_path / "run" / "http.sock"
    server = WebServer(WebSettings("http", f"unix://{path}", None), tell)
    server.start()
    try:
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport) as client:
            assert client.get("http://localhost/").json() == []
        assert path.stat().st_mode & 0o777 == 0o660
    finally:
        server.close()
