"""The fast lane's own server: it follows its TLS files, answers plain clients, and lets no peer stop another."""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from tests.support.flood import UNBOUNDED, Flood
from tests.support.minting import Authority
from tests.support.mutual import Pki, certificate, write
from tests.support.people import BOT, People, search
from tests.support.server import Server, code_of, layout
from tests.support.stalled import StalledCalls
from tests.support.surfaces import CHECK, ENVOY, decision_of, outcome, reason_name
from tests.support.svid import Signer
from tests.support.waiting import eventually, free_port

LOCAL: Final = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@pytest.fixture(scope="module")
def people(authority: Authority) -> People:
    """Good credentials."""
    return People.of(authority)


@pytest.fixture
def small(authority: Authority, tmp_path: Path) -> Iterator[Server]:
    """A server whose bounds are small and whose patience is short."""
    limits = {
        "connections": 16,
        "fast_concurrency": 16,
        "receive_timeout": "2s",
        "handshake_timeout": "1s",
        "idle_timeout": "3s",
    }
    with Server(layout(tmp_path, authority, "desk", {"limits": limits})) as server:
        yield server


def ask(server: Server, listener: str, request: bytes) -> str:
    """Asks on a connection of its own, and returns the outcome."""
    with grpc.insecure_channel(server.address(listener), LOCAL) as channel:
        send: Any = channel.unary_unary(f"/{CHECK}")
        return outcome(decision_of(send(request, timeout=5)))


def refused(server: Server, listener: str, reason: str) -> float:
    """How often a listener refused for a reason."""
    return server.metric("authz_fast_refused_total", listener=listener, reason=reason)


def closed(connection: socket.socket, within: float) -> bool:
    """Whether the other side closes a connection in time; whatever it sends is read."""
    connection.settimeout(within)
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            if not connection.recv(65_536):
                return True
        except TimeoutError:
            return False
        except OSError:
            return True
    return False


# --- TLS files


@pytest.fixture
def tls(authority: Authority, tmp_path: Path) -> Iterator[tuple[Server, Pki]]:
    """A server with a mutual TLS listener of the fast lane."""
    pki = Pki(tmp_path / "pki")
    place = layout(tmp_path / "server", authority, "desk")
    place.config["listeners"]["mutual"] = {
        "address": f"127.0.0.1:{free_port()}",
        "tls": {**pki.tls, "client_ca_file": str(pki.clients)},
        "lane": "fast",
    }
    place.write()
    pki.trust(place)
    with Server(place) as server:
        yield server, pki


def handshake(server: Server, pki: Pki, root: Path, caller: Signer | None = None) -> str:
    """Makes a real handshake and a call; returns the outcome, or why there was none."""
    svid = (caller or pki.a).svid(BOT)
    shown = grpc.ssl_channel_credentials(root.read_bytes(), svid.key_pem, svid.pem)
    with grpc.secure_channel(server.address("mutual"), shown, LOCAL) as channel:
        send: Any = channel.unary_unary(f"/{CHECK}")
        try:
            return outcome(decision_of(send(search(None), timeout=5)))
        except grpc.RpcError as error:
            return code_of(error).name


def test_a_renewed_certificate_is_served(tls: tuple[Server, Pki]) -> None:
    """New connections get the new certificate without a reload; those that are open go on."""
    server, pki = tls
    before = pki.folder / "root.pem"
    assert handshake(server, pki, before) == "PERMIT"
    svid = pki.a.svid(BOT)
    shown = grpc.ssl_channel_credentials(before.read_bytes(), svid.key_pem, svid.pem)
    with grpc.secure_channel(server.address("mutual"), shown, LOCAL) as channel:
        send: Any = channel.unary_unary(f"/{CHECK}")
        assert outcome(decision_of(send(search(None), timeout=5))) == "PERMIT"
        root = certificate("root2", None)
        write(pki.folder, "root2", root)
        write(pki.folder, "server", certificate("server", root))
        after = pki.folder / "root2.pem"
        eventually(lambda: handshake(server, pki, after) == "PERMIT", what="it is followed")
        assert handshake(server, pki, before) == "UNAVAILABLE"
        assert outcome(decision_of(send(search(None), timeout=5))) == "PERMIT"
    assert server.metric("authz_fast_tls_reloads_total", listener="mutual", result="ok") == 1
    assert "TLS files are renewed" in server.log.read_text()


def test_renewed_client_authorities_count(tls: tuple[Server, Pki]) -> None:
    """A caller of an authority that was added gets in, one of an authority that was removed does not."""
    server, pki = tls
    root = pki.folder / "root.pem"
    assert handshake(server, pki, root) == "PERMIT"
    stranger = Signer.authority("a.example")
    assert handshake(server, pki, root, stranger) == "UNAVAILABLE"
    pki.clients.write_bytes(stranger.pem)
    eventually(lambda: handshake(server, pki, root) == "UNAVAILABLE", what="it is removed")
    # Its handshake is now good; its trust domain still knows nothing of that authority.
    assert handshake(server, pki, root, stranger) == "DENY"
    assert refused(server, "mutual", "tls_handshake") >= 2


@pytest.mark.parametrize("file", ["server.pem", "server.key", "clients.pem"])
@pytest.mark.parametrize("content", ["nothing", "words", "of another"])
def test_a_bad_new_file_changes_nothing(tls: tuple[Server, Pki], file: str, content: str) -> None:
    """The files before go on serving; it is logged, counted, and a problem, until the file is good again."""
    server, pki = tls
    path = pki.folder / file
    good = path.read_bytes()
    kind = b"PRIVATE KEY" if file.endswith(".key") else b"CERTIFICATE"
    words = b"-----BEGIN " + kind + b"-----\nd29yZHM=\n-----END " + kind + b"-----\n"
    write(pki.folder, "other", certificate("other", pki.root))
    if content == "of another" and file == "clients.pem":
        pytest.skip("authorities belong to no key")
    other = (pki.folder / f"other{path.suffix}").read_bytes()
    path.write_bytes({"nothing": b"", "words": words, "of another": other}[content])

    def problems() -> list[str]:
        return [line for line in server.readiness()["problems"] if "TLS files" in line]

    eventually(lambda: len(problems()) == 1, what="it is a problem")
    assert "listener `mutual`" in problems()[0]
    status, _ = server.http("/readyz")
    assert status == 200
    assert handshake(server, pki, pki.folder / "root.pem") == "PERMIT"
    count = server.metric("authz_fast_tls_reloads_total", listener="mutual", result="refused")
    assert count == 1
    log = server.log.read_text()
    assert "TLS files are refused; the files before stay in use" in log
    assert good.decode().splitlines()[1] not in log
    path.write_bytes(good)
    eventually(lambda: not problems(), what="it is good again")


# --- unix sockets


def test_a_plain_client_on_a_unix_socket(server_of_sockets: Server, people: People) -> None:
    """Grpcio sends the percent-encoded path as `:authority`, others send `localhost`."""
    server, request = server_of_sockets, search(people.bot)
    path = server.address("crm-only-fast").removeprefix("unix:")
    for target in (f"unix:{path}", f"unix://{path}"):
        for options in (LOCAL, (*LOCAL, ("grpc.default_authority", "localhost"))):
            with grpc.insecure_channel(target, options) as channel:
                send: Any = channel.unary_unary(f"/{CHECK}")
                for _ in range(3):
                    answer = decision_of(send(request, timeout=5))
                    assert outcome(answer) == "PERMIT"


@pytest.fixture(scope="module")
def server_of_sockets(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server."""
    with Server(layout(tmp_path_factory.mktemp("sockets"), authority, "desk")) as server:
        yield server


# --- bounds


def test_a_peer_that_is_full_stops_no_other(small: Server, people: People) -> None:
    """Connections of one address beyond its half are closed; another address, and another listener, is answered."""
    request = search(people.bot)
    port = small.port("main-fast")
    with contextlib.ExitStack() as held:
        full = []
        for _ in range(24):
            connection = socket.create_connection(("127.0.0.1", port), 2)
            held.enter_context(connection)
            connection.sendall(PREFACE)
            full.append(connection)
        eventually(lambda: refused(small, "main-fast", "peer_connections") >= 16, what="it is full")
        # Eight are kept: half of the sixteen.
        assert small.metric("authz_fast_connections", listener="main-fast") == 8
        other = socket.create_connection(("127.0.0.1", port), 2, source_address=("127.0.0.2", 0))
        held.enter_context(other)
        other.sendall(PREFACE)
        assert other.recv(9)
        assert ask(small, "crm-only-fast", request) == "PERMIT"
        assert ask(small, "main", request) == "PERMIT"
    eventually(lambda: ask_or_none(small, "main-fast", request) == "PERMIT", what="it has room")


def ask_or_none(server: Server, listener: str, request: bytes) -> str:
    """The outcome, or the code of the error."""
    try:
        return ask(server, listener, request)
    except grpc.RpcError as error:
        return code_of(error).name


def test_messages_that_never_come_hold_up_nobody_else(small: Server, people: People) -> None:
    """A peer with all of its calls open is denied; other peers are answered meanwhile, and it is afterwards."""
    request = search(people.bot)
    with StalledCalls(small.port("main-fast"), CHECK, 16):
        eventually(
            lambda: refused(small, "main-fast", "peer_calls") >= 8, what="its calls are refused"
        )
        with grpc.insecure_channel(small.address("main-fast"), LOCAL) as channel:
            send: Any = channel.unary_unary(f"/{CHECK}")
            assert reason_name(decision_of(send(request, timeout=5))) == "OVERLOADED"
        begun = time.monotonic()
        for listener in ("crm-only-fast", "main"):
            assert ask(small, listener, request) == "PERMIT"
        assert time.monotonic() - begun < 1.5
        assert small.http("/readyz")[0] == 200
        eventually(
            lambda: refused(small, "main-fast", "receive_timeout") >= 8, what="they are given up"
        )
        assert ask(small, "main-fast", request) == "PERMIT"


def test_what_never_begins_is_closed(small: Server) -> None:
    """A connection without HTTP/2, and one on which nothing is asked."""
    port = small.port("main-fast")
    with socket.create_connection(("127.0.0.1", port)) as silent:
        assert closed(silent, 3)
    with socket.create_connection(("127.0.0.1", port)) as half:
        half.sendall(PREFACE[:20])
        assert closed(half, 3)
    assert refused(small, "main-fast", "preface_timeout") == 2
    with socket.create_connection(("127.0.0.1", port)) as idle:
        idle.sendall(PREFACE)
        begun = time.monotonic()
        assert closed(idle, 12)
        assert time.monotonic() - begun > 2
    assert refused(small, "main-fast", "idle") == 1


def test_an_idle_client_connects_again(small: Server, people: People) -> None:
    """A channel whose connection was closed for idleness notices nothing but the time of a new one."""
    request = search(people.bot)
    with grpc.insecure_channel(small.address("main-fast"), LOCAL) as channel:
        send: Any = channel.unary_unary(f"/{CHECK}")
        assert outcome(decision_of(send(request, timeout=5))) == "PERMIT"
        eventually(lambda: refused(small, "main-fast", "idle") >= 1, what="it is closed")
        assert outcome(decision_of(send(request, timeout=5))) == "PERMIT"


def test_a_handshake_that_is_not_made_is_closed(tls: tuple[Server, Pki]) -> None:
    """A TLS listener waits no longer for its client's greeting than for anything else."""
    server, _ = tls
    with socket.create_connection(("127.0.0.1", server.port("mutual"))) as silent:
        assert closed(silent, 8)
    assert refused(server, "mutual", "tls_timeout") == 1
    context = ssl.create_default_context()
    with (
        socket.create_connection(("127.0.0.1", server.port("mutual"))) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


def test_no_stream_is_opened_beyond_the_bound(small: Server) -> None:
    """Streams that are reset at once, more header fields than there may be, and endless headers end the connection."""
    port = small.port("main-fast")
    method = f"/{CHECK}".encode()
    block = b"\x83\x86\x04" + bytes([len(method)]) + method + b"\x01\x01x"

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload

    resets = b"".join(
        frame(1, 4, 2 * number + 1, block) + frame(3, 0, 2 * number + 1, (8).to_bytes(4))
        for number in range(2_000)
    )
    endless = frame(1, 0, 1, block) + frame(9, 0, 1, b"\x00\x01a\x01b" * 3_000) * 40
    for rude in (resets, endless):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            with contextlib.suppress(OSError):
                connection.sendall(PREFACE + rude)
            assert closed(connection, 5)


# --- floods


def ask_for(server: Server, listener: str, request: bytes, seconds: float) -> list[str]:
    """Asks again and again with a deadline of a second; returns the outcomes, and the codes of errors."""
    until = time.monotonic() + seconds
    said = []
    with grpc.insecure_channel(server.address(listener), LOCAL) as channel:
        send: Any = channel.unary_unary(f"/{CHECK}")
        while time.monotonic() < until:
            try:
                said.append(outcome(decision_of(send(request, timeout=1))))
            except grpc.RpcError as error:
                said.append(code_of(error).name)
            time.sleep(0.02)
    return said


@pytest.mark.parametrize("kind", [*UNBOUNDED, "empty data"])
def test_a_flood_of_frames_stops_no_other_listener(
    server_of_sockets: Server, people: People, kind: str
) -> None:
    """Connections that send frames without calls are closed; other listeners answer meanwhile, in time."""
    server, request = server_of_sockets, search(people.bot)
    before = refused(server, "main-fast", "frames")
    with Flood(server.port("main-fast"), kind, 200):
        for listener in ("crm-only-fast", "main"):
            said = ask_for(server, listener, request, 2)
            assert set(said) == {"PERMIT"}, listener
            assert len(said) > 4, listener
    if kind in UNBOUNDED:
        assert refused(server, "main-fast", "frames") > before
    eventually(
        lambda: ask_or_none(server, "main-fast", request) == "PERMIT", what="the flood is over"
    )


def test_calls_of_a_client_that_left_are_not_judged(
    server_of_sockets: Server, people: People
) -> None:
    """What a client sent before it closed its connections is dropped, and the next caller is answered."""
    server, request = server_of_sockets, search(people.bot)

    def permits() -> float:
        return server.metric("authz_decisions_total", decision="permit")

    with Flood(server.port("main-fast"), "calls", 150, request) as flood:
        said = ask_for(server, "crm-only-fast", request, 2)
        flood.stop()
    before = permits()
    eventually(
        lambda: server.metric("authz_fast_connections", listener="main-fast") == 0,
        what="all connections are closed",
    )
    assert server.metric("authz_fast_calls", listener="main-fast") == 0
    # At most those that were in flight, of some ten thousand.
    assert permits() - before < 1_200
    assert ask(server, "main-fast", request) == "PERMIT"
    assert set(said) == {"PERMIT"}


def test_calls_that_are_given_up_are_counted(server_of_sockets: Server) -> None:
    """A call whose connection ends before its message came is dropped, and no decision is made."""
    server = server_of_sockets
    before = refused(server, "main-fast", "gone")
    with StalledCalls(server.port("main-fast"), CHECK, 20):
        eventually(
            lambda: server.metric("authz_fast_calls", listener="main-fast") == 20, what="they began"
        )
    eventually(
        lambda: server.metric("authz_fast_calls", listener="main-fast") == 0, what="they ended"
    )
    assert refused(server, "main-fast", "gone") == before + 20


# --- compression


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("method", [CHECK, ENVOY])
def test_compressed_messages_are_not_accepted(
    small: Server, people: People, algorithm: grpc.Compression, method: str
) -> None:
    """They are refused by gRPC's own status, which says what is accepted; none is unpacked."""
    with grpc.insecure_channel(small.address("main-fast"), LOCAL, algorithm) as channel:
        send: Any = channel.unary_unary(f"/{method}")
        with pytest.raises(grpc.RpcError) as raised:
            send(search(people.bot), timeout=5)
    assert code_of(raised.value) is grpc.StatusCode.UNIMPLEMENTED
    error: Any = raised.value
    assert "compressed messages are not accepted" in error.details()
    assert refused(small, "main-fast", "compressed") >= 1
    assert ask(small, "main-fast", search(people.bot)) == "PERMIT"
