"""Requests whose body may be read in two ways."""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from tests.support.received.request import (
    FORM,
    JSON,
    KEPT,
    MULTIPART,
    SMALL,
    Headers,
    Request,
    chunked,
    form,
    multipart,
    of_bank,
    of_crm,
)

#: Small money to who reads JSON, and much to a stranger for who reads a form.
_BOTH: Final = b'{"amount":5,"to":"acme","memo":"&amount=5000&to=eve&x="}'
_BOTH_NESTED: Final = (
    b'{"payment":{"amount":5,"to":"acme"},"meta":"&payment[amount]=5000&payment[to]=eve&x="}'
)


def content_types() -> Iterator[Request]:
    """Bodies under types that some read as JSON, and some as a form."""
    single = (
        *(
            "",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=cut",
            "text/plain",
        ),
        "application/x-www-form-urlencoded,application/+json",
        "application/x-www-form-urlencoded, application/json",
        "application/x-www-form-urlencoded;application/json",
        "application/json,application/x-www-form-urlencoded",
        "application/json, multipart/form-data; boundary=cut",
        "application/json;x=application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded+json",
        *("application/+json", "application/vnd.api+json", "application/merge-patch+json"),
        *("application/jsonp", "application/json-seq", "application/csp-report", "text/json"),
        *("APPLICATION/JSON", "application/json;", "application/json; boundary=cut", "json", "*/*"),
        *(
            "application /json",
            "application/json x",
            '"application/json"',
            "application/octet-stream",
        ),
    )
    for value in single:
        yield of_bank(_BOTH, ("content-type", value))
        yield of_bank(_BOTH_NESTED, ("content-type", value), target="/payments")
    yield of_bank(_BOTH)
    yield of_bank(_BOTH_NESTED, target="/payments")
    yield of_bank(SMALL)
    yield of_bank(form())
    yield of_bank(form(), *JSON)
    yield of_bank(form(), *FORM)
    yield of_bank(multipart(amount="5000", to="eve"), *MULTIPART)
    for pair in ((JSON, FORM), (FORM, JSON), (JSON, JSON), (JSON, MULTIPART)):
        yield of_bank(_BOTH, *pair[0], *pair[1])
    yield of_bank(chunked(_BOTH, 9), ("transfer-encoding", "chunked"))
    yield from _other_types()


def _other_types() -> Iterator[Request]:
    """Bodies for a route that lists another type of JSON."""
    body = b'{"note":"&note=eve&flag=true&_method=DELETE&x="}'
    patch = "application/merge-patch+json"
    for value in (
        *(patch, f"{patch};charset=utf-8", f"{patch}; charset=utf-16", f"{patch};", patch.upper()),
        *(
            f"{patch},application/x-www-form-urlencoded",
            f"application/x-www-form-urlencoded,{patch}",
        ),
        *(f"{patch}, application/json", f"{patch};x=1", "application/x-www-form-urlencoded+json"),
        *(
            "application/json-patch+json",
            "application/vnd.api+json",
            "application/+json",
            "text/json",
        ),
    ):
        yield of_crm("PATCH", "/customers/42", ("content-type", value), body=body)
    for pair in (
        (("content-type", patch), *FORM),
        (*FORM, ("content-type", patch)),
        (("content-type", patch), *JSON),
    ):
        yield of_crm("PATCH", "/customers/42", *pair, body=body)
    yield of_crm("PATCH", "/customers/42", body=body)


def charsets() -> Iterator[Request]:
    """JSON in other encodings of characters than UTF-8."""
    for charset in (
        "utf-16",
        "utf-16le",
        "utf-32",
        "utf-7",
        "latin1",
        "iso-8859-1",
        "utf8",
        "ascii",
    ):
        kind = ("content-type", f"application/json; charset={charset}")
        yield of_bank(SMALL, kind)
        if charset.startswith("utf-"):
            yield of_bank(SMALL.decode().encode(charset), kind)
    yield of_bank(SMALL.decode().encode("utf-16"), *JSON)
    yield of_bank(SMALL, ("content-type", "application/json; charset=utf-8; charset=utf-16"))
    yield of_bank(b'{"amount":5,"to":"acme","memo":"\xff"}', *JSON)
    yield of_bank(b'{"amount":5,"to":"acme","memo":"\xc0\xaf"}', *JSON)


def ignored_bodies() -> Iterator[Request]:
    """Bodies that name the arguments of an operation, where its route ignores the body."""
    target = "/quotes?amount=5&to=acme"
    values = {"amount": "5000", "to": "eve"}
    bodies: tuple[tuple[bytes, Headers], ...] = (
        *(
            (body, kind)
            for body in (form(), b"to=eve", form("amount[]"))
            for kind in (FORM, (), JSON)
        ),
        *(
            (form(name), FORM)
            for name in ("amount[x]", "Amount", "%61mount", "amount%5B%5D", " amount")
        ),
        (multipart(**values), MULTIPART),
        (multipart(**{"amount[]": "5000"}), MULTIPART),
        *((json.dumps({"amount": 5000, "to": "eve"}).encode(), kind) for kind in (JSON, FORM, ())),
        (b'{"amount":5000}', (("content-type", "application/vnd.api+json"),)),
        (b'{"amount":5000}', (("content-type", "text/plain"),)),
        (b'{"Amount":5000}', JSON),
        (b'{"amount[]":5000}', JSON),
        (b'[{"amount":5000}]', JSON),
        (form(), (("content-type", "application/x-www-form-urlencoded; charset=utf-8"),)),
        (form(), (("content-type", "APPLICATION/X-WWW-FORM-URLENCODED"),)),
        (form(), (("content-type", "application/x-www-form-urlencoded,text/plain"),)),
        (form(), (("content-type", "multipart/related; boundary=cut"),)),
        (multipart(**values), (("content-type", "multipart/mixed; boundary=cut"),)),
        (form(), (*JSON, *FORM)),
        (form(), (*FORM, ("content-encoding", "identity"))),
        (gzip.compress(form(), mtime=0), (*FORM, ("content-encoding", "gzip"))),
        (gzip.compress(b'{"amount":5000}', mtime=0), (*JSON, ("content-encoding", "gzip"))),
        (chunked(form(), 4), (*FORM, ("transfer-encoding", "chunked"))),
    )
    for body, headers in bodies:
        yield of_bank(body, *headers, target=target)
    for body, headers in (
        (b"id=43", FORM),
        (b'{"id":"43"}', JSON),
        (multipart(id="43"), MULTIPART),
    ):
        yield of_crm("POST", "/customers/42", *headers, body=body)


def json_bodies() -> Iterator[Request]:
    """JSON that parsers read differently, or do not read."""
    for body in (
        *(b'{"amount":5,"amount":5000,"to":"acme"}', b'{"amount":5000,"amount":5,"to":"acme"}'),
        *(
            b'{"amount":5,"am\\u006funt":5000,"to":"acme"}',
            b'{"amount":5,"Amount":5000,"to":"acme"}',
        ),
        *(b'{"amount":5,"amount[]":5000,"to":"acme"}', b'{"amount":5,"to":"acme","to ":"eve"}'),
        *(
            b'\xef\xbb\xbf{"amount":5,"to":"acme"}',
            b'{"amount":5,"to":"acme"}\x00',
            b'\x00{"amount":5,"to":"acme"}',
        ),
        *(
            b'{"amount":5,"to":"acme\\u0000"}',
            b'{"amount":5,"to":"acme\x00"}',
            b'{"amount":5,"to":"acme","\\u0000":1}',
        ),
        *(
            b'{"amount":5.0,"to":"acme"}',
            b'{"amount":5e0,"to":"acme"}',
            b'{"amount":50e-1,"to":"acme"}',
        ),
        *(
            b'{"amount":-0,"to":"acme"}',
            b'{"amount":0.0,"to":"acme"}',
            b'{"amount":05,"to":"acme"}',
            b'{"amount":+5,"to":"acme"}',
        ),
        *(
            b'{"amount":-9007199254740993,"to":"acme"}',
            b'{"amount":-99999999999999999999,"to":"acme"}',
        ),
        *(
            b'{"amount":-1e400,"to":"acme"}',
            b'{"amount":NaN,"to":"acme"}',
            b'{"amount":-Infinity,"to":"acme"}',
        ),
        *(
            b'{"amount":"5","to":"acme"}',
            b'{"amount":true,"to":"acme"}',
            b'{"amount":null,"to":"acme"}',
            b'{"amount":[5],"to":"acme"}',
        ),
        *(
            b'{"amount":{"x":5},"to":"acme"}',
            b'{"amount":5,"to":["acme"]}',
            b'{"amount":5,"to":["acme","eve"]}',
            b'{"amount":5,"to":null}',
        ),
        *(
            b'{"amount":5,/*,"amount":5000,*/"to":"acme"}',
            b'{"amount":5,"to":"acme"}//x',
            b'{"amount":5,"to":"acme",}',
            b"{'amount':5,'to':'acme'}",
        ),
        *(
            b'{"amount":5,"to":"acme"}{"amount":5000}',
            b'{"amount":5,"to":"acme"}\n{"amount":5000}',
            b'[{"amount":5,"to":"acme"}]',
        ),
        *(
            b'{"amount":5,"to":"acme"',
            b"{",
            b"",
            b"null",
            b"5",
            b'"x"',
            b"{}",
            b' \n{"amount":5,"to":"acme"}\r\n ',
            b'\x0b{"amount":5,"to":"acme"}',
        ),
        *(
            b'{"amount":5,"to":"acme","memo":"\\ud800"}',
            b'{"amount":5,"to":"acme","memo":"\\ud83d\\ude00"}',
            b'{"amount":5,"to":"acme","memo":"\\x41"}',
        ),
        *(
            b'{"amount":5,"to":"acme","__proto__":{"amount":5000}}',
            b'{"amount":5,"to":"acme","constructor":{"prototype":{"amount":5000}}}',
        ),
        *(
            b'{"amount":5,"to":"acme","memo":"a\nb"}',
            b'{"amount":5,"to":"acme","memo":"\x1b"}',
            b'{"amount":5,"to":"acme","memo":"\\u2028\\u202e"}',
        ),
        *(
            b'{"amount":5,"to":"acme","memo":"\xef\xbf\xbf"}',
            b'{"amount":5,"to":"acme","":1}',
            b'{"amount":5,"to":"ACME"}',
            b'{"amount":5,"to":"acme "}',
        ),
        *(
            b'{"amount":5,"to":"acme","json_class":"String"}',
            b'{"amount":5,"to":"acme","memo":{"a":1}}',
            b'{"amount":5,"to":"acme","memo":' + b"[" * 40 + b"]" * 40 + b"}",
        ),
        b'{"amount":5,"to":"acme","memo":"' + b"x" * 60_000 + b'"}',
        b'{"amount":5,"to":"acme","memo":"' + b"x" * 70_000 + b'"}',
    ):
        yield of_bank(body, *JSON)
    for body in (
        b'{"payment":{"amount":5,"to":"acme"},"payment":{"amount":5000,"to":"eve"}}',
        b'{"payment":{"amount":5,"to":"acme"},"payment[amount]":5000}',
        b'{"payment":{"amount":5,"to":"acme"},"payment/amount":5000}',
        b'{"payment":{"amount":5,"to":"acme"},"payment.amount":5000}',
        b'{"payment":{"amount":5,"to":"acme","amount[]":5000}}',
        b'{"payment":[{"amount":5,"to":"acme"}]}',
        b'{"payment":{"amount":5,"to":"acme"},"amount":5000}',
        b'{"payment":{"amount":5,"to":"acme"},"meta":{"payment":{"amount":5000}}}',
        b'{"payment":{"amount":5,"to":"acme"},"meta":{"a":1,"a":2}}',
        b'{"payment":{"amount":5,"to":"acme"},"meta":{"__proto__":{"amount":5000}}}',
    ):
        yield of_bank(body, *JSON, target="/payments")
    for rating in ("4.50", "4.00", "45e-1", "0.1", "1e2", "4.123456789", "-0.0", "1e-7", "5.00001"):
        body = f'{{"note":"x","rating":{rating}}}'.encode()
        yield of_crm("PATCH", "/customers/42", *JSON, body=body)


def precision() -> Iterator[Request]:
    """Numbers that no double holds."""
    for rating in (
        "9007199254740993",
        "0.30000000000000004",
        "0.300000000000000041",
        "1e300",
        "123456789012345678.5",
    ):
        body = f'{{"note":"x","rating":{rating}}}'.encode()
        yield of_crm("PATCH", "/customers/42", *JSON, body=body)


def encodings() -> Iterator[Request]:
    """Bodies that are compressed, cut off, or of an uncertain length."""
    packed = gzip.compress(b'{"amount":5000,"to":"eve"}', mtime=0)
    for encoding in (
        "gzip",
        "x-gzip",
        "GZIP",
        "deflate",
        "br",
        "identity",
        "identity, gzip",
        "gzip, identity",
        "",
        "compress",
    ):
        yield of_bank(SMALL, *JSON, ("content-encoding", encoding))
    yield of_bank(packed, *JSON, ("content-encoding", "gzip"))
    yield of_bank(zlib.compress(SMALL), *JSON, ("content-encoding", "deflate"))
    yield of_bank(SMALL, *JSON, ("content-encoding", "identity"), ("content-encoding", "gzip"))
    for encoding in (
        "chunked",
        "Chunked",
        "gzip, chunked",
        "chunked, chunked",
        "chunked, identity",
        "identity",
        "xchunked",
        " chunked",
        "\x0bchunked",
    ):
        yield of_bank(chunked(SMALL, 3), *JSON, ("transfer-encoding", encoding))
    both = (("transfer-encoding", "chunked"), ("content-length", str(len(SMALL))))
    yield of_bank(chunked(SMALL, 3), *JSON, *both)
    yield of_bank(chunked(SMALL, 3), *JSON, *reversed(both))
    for length in ("5", "024", "+24", "24,24", "24, 5", "0x18", "-1", ""):
        yield of_bank(SMALL, *JSON, ("content-length", length))
    yield of_bank(SMALL, *JSON, ("content-length", "24"), ("content-length", "5"))
    cut = of_bank(SMALL, *JSON, ("content-length", "60"))
    yield replace(cut, is_cut=True)
    yield replace(
        of_bank(chunked(SMALL, 3)[:-5], *JSON, ("transfer-encoding", "chunked")), is_cut=True
    )
    hidden = of_bank(b'{"amount":5000,"to":"eve"}', *JSON).write()
    yield of_bank(b"0\r\n\r\n" + hidden, *JSON, ("transfer-encoding", "chunked"), KEPT)
    yield of_bank(SMALL + hidden, *JSON, ("content-length", str(len(SMALL))), KEPT)
    yield of_bank(b"18;x=1\r\n" + SMALL + b"\r\n0\r\n\r\n", *JSON, ("transfer-encoding", "chunked"))
    yield of_bank(
        b"18\r\n" + SMALL + b"\r\n0\r\nx-forwarded-host: bank.example\r\n\r\n",
        *JSON,
        ("transfer-encoding", "chunked"),
    )
    yield of_crm("GET", "/customers/42", *JSON, body=b'{"id":"43"}')
    yield of_crm("GET", "/customers/42", *FORM, body=b"id=43")
    yield of_crm("GET", "/customers?q=a", *FORM, body=b"q=b")
    yield of_crm(
        "GET", "/customers?q=a", *FORM, ("transfer-encoding", "chunked"), body=chunked(b"q=b")
    )
