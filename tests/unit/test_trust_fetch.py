"""Fetching keys: from checked addresses only, by a verified server, bounded in size and time."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING

import pytest

from authz.config.urls import shown, url_defect
from authz.trust.addresses import Reach, refusal
from authz.trust.fetch import Fetcher, FetchError, FetchRequest, WebVerifier
from tests.support.keyserver import Answer, KeyServer, WebAuthority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

PRIVATE = Reach(private=True)
KEYS = json.dumps({"keys": []})


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> tuple[WebAuthority, Path]:
    """An authority, and its file."""
    made = WebAuthority()
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    file.write_bytes(made.pem)
    return made, file


@pytest.fixture
def server(ca: tuple[WebAuthority, Path]) -> Iterator[KeyServer]:
    """A server that gives an empty key set at `/keys`."""
    authority, file = ca
    with KeyServer(authority.leaf(file.parent)) as running:
        running.answers["/keys"] = Answer(KEYS)
        yield running


@pytest.fixture
def tls(ca: tuple[WebAuthority, Path]) -> WebVerifier:
    """Believes the authority."""
    return WebVerifier(str(ca[1]))


# --- addresses


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("127.0.0.1", "loopback"),
        ("127.8.9.1", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("10.1.2.3", "a private address"),
        ("172.31.255.255", "a private address"),
        ("192.168.0.1", "a private address"),
        ("100.64.0.1", "a private address"),
        ("fd00::1", "a private address"),
        ("::ffff:10.0.0.1", "a private address"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("169.254.169.254", "a metadata service"),
        ("::ffff:169.254.169.254", "a metadata service"),
        ("64:ff9b::a9fe:a9fe", "a metadata service"),
        ("100.100.100.200", "a metadata service"),
        ("168.63.129.16", "a metadata service"),
        ("fd00:ec2::254", "a metadata service"),
        ("0.0.0.0", "not a public address"),
        ("::", "not a public address"),
        ("224.0.0.1", "not a public address"),
        ("ff02::1", "not a public address"),
        ("255.255.255.255", "not a public address"),
        ("192.0.2.1", "not a public address"),
        ("198.18.0.1", "not a public address"),
        ("2001::1", "not a public address"),
        ("2002:7f00:1::1", "not a public address"),
        ("2001:db8::1", "not a public address"),
        ("::127.0.0.1", "not a public address"),
        ("8.8.8.8", None),
        ("64:ff9b::808:808", None),
        ("2606:4700::1111", None),
    ],
)
def test_only_public_addresses_are_asked(address: str, what: str | None) -> None:
    """Whatever way an inner address is written."""
    assert refusal(ipaddress.ip_address(address), Reach()) == what


def test_what_is_permitted_is_permitted_and_nothing_else() -> None:
    """Private means private: neither link-local nor the metadata services, which nothing opens."""
    listed = Reach(
        networks=(ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("0.0.0.0/0"))
    )
    for address, by_private, by_list, by_loopback in [
        ("127.0.0.1", True, True, True),
        ("::1", True, False, True),
        ("10.1.2.3", True, True, False),
        ("fd00::1", True, False, False),
        ("169.254.1.1", False, True, False),
        ("169.254.169.254", False, False, False),
        ("100.100.100.200", False, False, False),
        ("8.8.8.8", True, True, False),
    ]:
        given = ipaddress.ip_address(address)
        reaches = (PRIVATE, listed, Reach(loopback_only=True))
        permitted = tuple(refusal(given, reach) is None for reach in reaches)
        assert permitted == (by_private, by_list, by_loopback), address


@pytest.mark.parametrize(
    ("url", "defect"),
    [
        ("https://idp.example/keys?tenant=1", None),
        ("https://[2606:4700::1111]:8443/keys", None),
        ("http://idp.example/keys", "is not https"),
        ("ftp://idp.example/keys", "is not https"),
        ("file:///etc/passwd", "is not a URL with a host"),
        ("https:///keys", "is not a URL with a host"),
        ("https://idp.example:0/", "is not a URL with a host"),
        ("https://idp.example:99999/", "is not a URL"),
        ("https://me:pw@idp.example/", "carries a user or password"),
        ("https://idp.example/#x", "has a fragment"),
        ("https://idp.example/a b", "is not a URL"),
        ("https://idp.example/\r\nx: y", "is not a URL"),
        ("https://idp.exämple/", "is not a URL"),
        ("https://idp.example\\@evil.example/", "is not a URL"),
        ("https://[::1/", "is not a URL"),
        ("x" * 3000, "is not a URL"),
    ],
)
def test_a_url_is_held_to_what_every_reader_reads_alike(url: str, defect: str | None) -> None:
    """Nothing that two parsers could take for two hosts."""
    assert url_defect(url) == defect


def test_plain_http_is_for_loopback_alone() -> None:
    """And only where it is asked for."""
    assert url_defect("http://127.0.0.1:1/keys") == "is not https"
    assert url_defect("http://127.0.0.1:1/keys", plain=True) is None
    assert url_defect("http://localhost/keys", plain=True) is None
    assert url_defect("http://10.0.0.1/keys", plain=True) is not None
    assert url_defect("http://localhost.evil.example/keys", plain=True) is not None


def test_a_query_is_not_shown() -> None:
    """It may hold a key."""
    assert shown("https://a.example/keys?apikey=1") == "https://a.example/keys"


# --- fetching


def test_a_document_is_fetched(server: KeyServer, tls: WebVerifier) -> None:
    """By name, from a server whose certificate is of a configured authority."""
    fetched = Fetcher().get(FetchRequest(server.url("/keys"), PRIVATE, tls))

    assert (fetched.text, fetched.fresh_for) == (KEYS, None)
    assert server.asked == ["/keys"]


@pytest.mark.parametrize(
    ("headers", "fresh_for"),
    [
        ({}, None),
        ({"cache-control": "public, max-age=600"}, 600.0),
        ({"cache-control": "max-age=600", "age": "100"}, 500.0),
        ({"cache-control": "max-age=600", "age": "1000"}, 0.0),
        ({"cache-control": "max-age=600", "age": "-9"}, 600.0),
        ({"cache-control": "no-store"}, 0.0),
        ({"cache-control": "no-cache, max-age=600"}, 0.0),
        ({"cache-control": "max-age=soon"}, None),
        ({"cache-control": "x-max-age=5"}, None),
    ],
)
def test_the_time_that_a_server_names_is_read(
    server: KeyServer, tls: WebVerifier, headers: dict[str, str], fresh_for: float | None
) -> None:
    """RFC 9111 section 5.2.2."""
    server.answers["/keys"].headers = headers

    assert Fetcher().get(FetchRequest(server.url("/keys"), PRIVATE, tls)).fresh_for == fresh_for


def test_a_refused_address_is_never_connected_to(server: KeyServer, tls: WebVerifier) -> None:
    """Without the permission, the server would be found by the same URL."""
    with pytest.raises(FetchError, match=r"127\.0\.0\.1 is loopback"):
        Fetcher().get(FetchRequest(server.url("/keys", "127.0.0.1"), Reach(), tls))

    assert server.asked == []


def test_the_address_that_was_checked_is_the_one_that_is_asked(
    server: KeyServer, tls: WebVerifier
) -> None:
    """A resolver that gives another answer the second time is not asked a second time."""
    answers = iter([["8.8.8.8"], ["127.0.0.1"]])
    asked: list[str] = []

    def rebinding(host: str, _port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    with pytest.raises(FetchError):
        Fetcher(rebinding).get(FetchRequest(server.url("/keys"), Reach(), tls, timeout=0.3))

    assert asked == ["localhost"]
    assert server.asked == []


def test_of_several_addresses_only_those_permitted_are_asked(
    server: KeyServer, tls: WebVerifier
) -> None:
    """The rest is left out."""
    request = FetchRequest(server.url("/keys"), PRIVATE, tls)
    assert Fetcher(lambda *_: ["169.254.169.254", "127.0.0.1"]).get(request).text == KEYS
    with pytest.raises(FetchError, match=r"169\.254\.169\.254 is a metadata service"):
        Fetcher(lambda *_: ["169.254.169.254", "fe80::1"]).get(request)
    with pytest.raises(FetchError, match="its host has no address"):
        Fetcher(lambda *_: []).get(request)


def test_proxies_of_the_environment_are_not_asked(
    server: KeyServer, tls: WebVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would resolve the name itself."""
    with KeyServer(None) as proxy:
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url())
        assert Fetcher().get(FetchRequest(server.url("/keys"), PRIVATE, tls)).text == KEYS
        assert proxy.asked == []


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(status=302, headers={"location": "https://169.254.169.254/"}), "redirects are not"),
        (Answer(status=308, headers={"location": "/other"}), "redirects are not followed"),
        (Answer(status=404), "it answers 404"),
        (Answer(status=500), "it answers 500"),
        (Answer(status=204), "it answers 204"),
        (Answer(b"\xff", headers={}), "not UTF-8"),
        (Answer(b"x", headers={"content-encoding": "gzip"}), "compressed"),
        (Answer(b" " * (1_048_576 + 1)), "larger than 1 MiB"),
    ],
)
def test_a_bad_answer_is_refused(
    server: KeyServer, tls: WebVerifier, answer: Answer, why: str
) -> None:
    """And nothing else is asked for."""
    server.answers["/keys"] = answer
    server.answers["/other"] = Answer(KEYS)

    with pytest.raises(FetchError, match=why):
        Fetcher().get(FetchRequest(server.url("/keys"), PRIVATE, tls))

    assert server.asked == ["/keys"]


def test_an_error_is_an_answer_where_it_is_asked_for(server: KeyServer, tls: WebVerifier) -> None:
    """Only with the statuses that are named; a redirect is followed in no case."""
    server.answers["/keys"] = Answer('{"error": "slow_down"}', status=400)
    request = FetchRequest(server.url("/keys"), PRIVATE, tls, also_accepts=frozenset({302, 400}))

    document = Fetcher().get(request)
    assert (document.status, document.text) == (400, '{"error": "slow_down"}')
    for status, message in ((403, "it answers 403"), (302, "redirects are not followed")):
        server.answers["/keys"] = Answer("{}", status=status)
        with pytest.raises(FetchError, match=message):
            Fetcher().get(request)


def test_the_largest_answer_is_read(server: KeyServer, tls: WebVerifier) -> None:
    """One byte less than too much."""
    server.answers["/keys"] = Answer(b" " * 1_048_576)

    assert len(Fetcher().get(FetchRequest(server.url("/keys"), PRIVATE, tls)).text) == 1_048_576


def test_an_answer_without_end_is_cut_off(server: KeyServer, tls: WebVerifier) -> None:
    """Whatever it claims about its length."""

    def flood(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not server.ended.is_set():
            handler.wfile.write(b" " * 65_536)

    server.answers["/keys"] = Answer(send=flood)

    with pytest.raises(FetchError, match="larger than 1 MiB"):
        Fetcher().get(FetchRequest(server.url("/keys"), PRIVATE, tls))


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_server_that_drips_is_left(server: KeyServer, tls: WebVerifier, part: str) -> None:
    """Each byte comes in time; all of them would not."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        if part == "body":
            handler.send_response(200)
            handler.end_headers()
        while not server.ended.wait(0.05):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    server.answers["/keys"] = Answer(send=drip)
    began = time.monotonic()

    with pytest.raises(FetchError, match=r"in time|within"):
        Fetcher().get(FetchRequest(server.url("/keys"), PRIVATE, tls, timeout=0.4))

    assert time.monotonic() - began < 20


def _interim(send: Callable[[bytes], object]) -> None:
    send(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 500)


def _extensions(send: Callable[[bytes], object]) -> None:
    send(b"1;" + b"x" * 8_000 + b"\r\n \r\n")


def _small_chunks(send: Callable[[bytes], object]) -> None:
    send(b"000001\r\n \r\n" * 800)


def _header(send: Callable[[bytes], object]) -> None:
    send(b"x" * 4_096)


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
WITHOUT_END = {
    "interim answers": (b"", _interim),
    "headers": (b"HTTP/1.1 200 OK\r\nx: ", _header),
    "headers after interim answers": (
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nx: ",
        _header,
    ),
    "chunk extensions": (CHUNKED, _extensions),
    "small chunks": (CHUNKED, _small_chunks),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\nx: ", _header),
}


@pytest.mark.parametrize("pause", [0.0, 0.05], ids=["fast", "slow"])
@pytest.mark.parametrize("kind", WITHOUT_END)
def test_what_surrounds_a_document_is_bounded(
    server: KeyServer, tls: WebVerifier, kind: str, pause: float
) -> None:
    """Naive way: only the document's own bytes count, so a server holds the node up for ever with what is around them."""
    begin, go_on = WITHOUT_END[kind]
    sent = 0

    def send(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.wfile.write(begin)
        while not server.ended.wait(pause):
            go_on(handler.wfile.write)
            sent += 1

    server.answers["/keys"] = Answer(send=send)
    began = time.monotonic()
    limit = 0.5 if pause else 30.0
    why = (
        r"within 0\.5 s|did not end in time"
        if pause
        else "larger than|not valid HTTP: Receive buffer too long"
    )

    with pytest.raises(FetchError, match=why):
        Fetcher().get(FetchRequest(server.url("/keys"), PRIVATE, tls, limit, max_bytes=16_384))

    assert time.monotonic() - began < 10
    assert sent > 0


@pytest.mark.parametrize("kind", ["interim answers", "chunk extensions", "small chunks"])
def test_all_bytes_have_one_bound(server: KeyServer, tls: WebVerifier, kind: str) -> None:
    """The bound is told, and is that of the document with a share for what surrounds it."""
    begin, go_on = WITHOUT_END[kind]

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(begin)
        while not server.ended.is_set():
            go_on(handler.wfile.write)

    server.answers["/keys"] = Answer(send=send)

    with pytest.raises(FetchError, match=r"all that surrounds the document.*than 1441792 bytes"):
        Fetcher().get(FetchRequest(server.url("/keys"), PRIVATE, tls, 30.0))


def test_records_of_tls_are_counted(ca: tuple[WebAuthority, Path], tls: WebVerifier) -> None:
    """A server that sends nothing but TLS records without content is left, too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca[0].leaf(ca[1].parent))
    ended = threading.Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            server = context.wrap_bio(incoming, outgoing, server_side=True)
            while True:
                try:
                    server.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    connection.sendall(outgoing.read())
                    incoming.write(connection.recv(65_536))
            connection.sendall(outgoing.read())
            while not ended.is_set():
                # A record of 16 bytes of content each: more frame than content.
                for _ in range(200):
                    server.write(b"HTTP/1.1 100 C\r\n")
                    server.write(b"\r\n")
                connection.sendall(outgoing.read())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        try:
            url = f"https://localhost:{listener.getsockname()[1]}/keys"
            with pytest.raises(FetchError, match="all that surrounds the document"):
                Fetcher().get(FetchRequest(url, PRIVATE, tls, 30.0))
        finally:
            ended.set()
            thread.join(5)


def test_a_server_that_closes_without_a_word_is_read(server: KeyServer, tls: WebVerifier) -> None:
    """Where the document has no length, its end is the connection's."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + KEYS.encode())
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)

    server.answers["/keys"] = Answer(send=send)

    assert Fetcher().get(FetchRequest(server.url("/keys"), PRIVATE, tls)).text == KEYS


def test_a_server_that_never_shakes_hands_is_left(tls: WebVerifier) -> None:
    """The connection opens, and nothing follows."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(FetchError, match=r"no answer within 0\.3 s"):
            Fetcher().get(FetchRequest(f"https://localhost:{port}/", PRIVATE, tls, timeout=0.3))


def test_nobody_there_is_told(tls: WebVerifier) -> None:
    """With the system's own words."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(FetchError, match="Connection refused"):
        Fetcher().get(FetchRequest(f"https://127.0.0.1:{port}/", PRIVATE, tls))


def test_what_is_no_http_is_refused(tls: WebVerifier, server: KeyServer) -> None:
    """For example because something else listens there."""

    def babble(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"220 smtp.example ESMTP\r\n")

    server.answers["/keys"] = Answer(send=babble)

    with pytest.raises(FetchError, match="its answer is not valid HTTP"):
        Fetcher().get(FetchRequest(server.url("/keys"), PRIVATE, tls))


def test_a_server_of_another_authority_is_refused(server: KeyServer, tmp_path: Path) -> None:
    """Those of the system do not know it either."""
    other = tmp_path / "other.pem"
    other.write_bytes(WebAuthority("other").pem)
    for tls in (WebVerifier(str(other)), WebVerifier()):
        with pytest.raises(FetchError, match="its certificate is refused"):
            Fetcher().get(FetchRequest(server.url("/keys"), PRIVATE, tls))
    assert server.asked == []


def test_a_server_of_another_name_is_refused(
    ca: tuple[WebAuthority, Path], tls: WebVerifier, tmp_path: Path
) -> None:
    """The certificate is good, and not of the host in the URL."""
    with KeyServer(ca[0].leaf(tmp_path, names=("other.example",))) as other:
        with pytest.raises(FetchError, match="its certificate is refused"):
            Fetcher().get(FetchRequest(other.url("/keys"), PRIVATE, tls))
        assert other.asked == []


def test_a_file_of_authorities_that_is_none_is_told(server: KeyServer, tmp_path: Path) -> None:
    """Missing, or no PEM."""
    bad = tmp_path / "bad.pem"
    for content in (None, b"no pem"):
        if content is not None:
            bad.write_bytes(content)
        with pytest.raises(FetchError, match=r"`ca_file` .* cannot be read"):
            Fetcher().get(FetchRequest(server.url("/keys"), PRIVATE, WebVerifier(str(bad))))


def test_plain_http_is_fetched_for_development_only() -> None:
    """From loopback, where it is asked for."""
    with KeyServer(None) as plain:
        plain.answers["/keys"] = Answer(KEYS)
        url = plain.url("/keys")
        assert Fetcher().get(FetchRequest(url, Reach(loopback_only=True))).text == KEYS
        with pytest.raises(FetchError, match="is not https"):
            Fetcher().get(FetchRequest(url, PRIVATE))
        with pytest.raises(FetchError, match=r"8\.8\.8\.8 is not loopback"):
            Fetcher(lambda *_: ["8.8.8.8"]).get(FetchRequest(url, Reach(loopback_only=True)))


def test_a_thread_of_its_own_is_not_needed(server: KeyServer, tls: WebVerifier) -> None:
    """Two at once do not mix."""
    for number in range(4):
        server.answers[f"/{number}"] = Answer(json.dumps({"n": number}))
    found: dict[int, str] = {}

    def fetch(number: int) -> None:
        found[number] = Fetcher().get(FetchRequest(server.url(f"/{number}"), PRIVATE, tls)).text

    threads = [threading.Thread(target=fetch, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert {number: json.loads(text)["n"] for number, text in found.items()} == {
        number: number for number in range(4)
    }
