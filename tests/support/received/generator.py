"""Generates requests: ordinary ones, and those by which two readers of one request may understand two things."""

import gzip
import json
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

Headers = tuple[tuple[str, str], ...]

JSON: Final = (("content-type", "application/json"),)
FORM: Final = (("content-type", "application/x-www-form-urlencoded"),)
#: Of a request behind which another one stands.
_KEPT: Final = ("connection", "keep-alive")
MULTIPART: Final = (("content-type", "multipart/form-data; boundary=cut"),)


@dataclass(frozen=True)
class Request:
    """One request, as its bytes are written.

    Args:
        group: What it tries; `ordinary` where it tries nothing.
        method: Its method.
        target: Its target, as it is.
        host: Of the header `host`; None where `headers` holds it.
        headers: All others but those of the caller's credentials and the length of the body.
        body: Its body.
        is_cut: Whether the client stops sending in the middle of the body.
    """

    group: str
    method: str
    target: str
    host: str | None
    headers: Headers = ()
    body: bytes = b""
    is_cut: bool = False

    @property
    def is_ordinary(self) -> bool:
        """True where it must be permitted."""
        return self.group == "ordinary"

    @property
    def is_kept(self) -> bool:
        """True where another request stands behind it, on the same connection."""
        return _KEPT in self.headers

    def write(self, *more: tuple[str, str]) -> bytes:
        """Returns its bytes, with more headers."""
        names = {name.lower() for name, _ in self.headers}
        lines = [f"{self.method} {self.target} HTTP/1.1"]
        if self.host is not None:
            lines.append(f"host: {self.host}")
        if self.body and not names & {"content-length", "transfer-encoding"}:
            lines.append(f"content-length: {len(self.body)}")
        lines += [f"{name}: {value}" for name, value in (*self.headers, *more)]
        if not self.is_kept:
            lines.append("connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + self.body

    def __str__(self) -> str:
        headers = ", ".join(f"{name}: {value[:60]}" for name, value in self.headers)
        return f"{self.method} {self.target[:60]} {self.host} [{headers}] {self.body[:90]!r}"


def requests(seed: int) -> list[Request]:
    """Returns every request: the same ones for a seed."""
    random_ = random.Random(seed)
    made = [_ordinary(random_) for _ in range(180)]
    for group, write in SUSPICIOUS.items():
        made += [replace(request, group=group) for request in write()]
    random_.shuffle(made)
    return made


def form(amount: str = "amount", to: str = "to") -> bytes:
    """Returns a form that pays much to a stranger, and would change a method."""
    return f"{amount}=5000&{to}=eve".encode()


def multipart(**fields: str) -> bytes:
    """Returns a multipart form."""
    parts = (
        f'--cut\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    return ("".join(parts) + "--cut--\r\n").encode()


def chunked(body: bytes, *sizes: int) -> bytes:
    """Returns a body in chunks of the given sizes, the rest in one."""
    pieces = []
    for size in sizes:
        pieces.append(body[:size])
        body = body[size:]
    whole = (f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in [*pieces, body] if piece)
    return b"".join(whole) + b"0\r\n\r\n"


# --- ordinary requests

_TEXTS: Final = (
    *("thanks", "for lunch", "a & b", "x=1", "50% off", "invoice #12", "O'Hara", "ünïcode ☃", "😀"),
    *('"quoted" and \\', "two\nlines", "tab\there", "<b>bold</b>", "1;2", "&amount=5000&to=eve&x="),
    *(
        "[brackets]",
        "{braces}",
        "a,b,c",
        "true",
        "null",
        "12",
        "+49 30 1234",
        "https://x.example/?a=b",
    ),
)
_IDS: Final = ("42", "c-42", "C42", "a_b", "v1.2", "x~y", "a b", "a@b.example", "é", "日本", "7")
_FILES: Final = (
    "readme.txt",
    "Report 1.pdf",
    "ü.txt",
    "a-b_c.md",
    "2026.csv",
    "x(1).txt",
    "a,b.txt",
)
_QUERIES: Final = (
    "smith",
    "a b",
    "a&b",
    "a=b",
    "50%",
    "ünï",
    "x+y",
    "#1",
    "a/b",
    "a?b",
    "1;2",
    "😀",
)
_TYPES: Final = (
    "application/json",
    "application/json; charset=utf-8",
    "application/json;charset=UTF-8",
    'application/json; charset="utf-8"',
)
_DECOR: Final = (
    *(("user-agent", "curl/8.5.0"), ("accept", "*/*"), ("accept-language", "de, en;q=0.8")),
    *(
        ("accept-encoding", "gzip, br"),
        ("cookie", "theme=dark; seen=1"),
        ("cache-control", "no-cache"),
    ),
    *(
        ("x-request-id", "11111111-1111-4111-8111-111111111111"),
        ("referer", "https://app.example/"),
    ),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    *(("origin", "https://app.example"), ("x-forwarded-proto", "https"), ("dnt", "1")),
    *(("x-forwarded-for", "192.0.2.7"), ("if-none-match", '"abc"'), ("te", "trailers")),
)


def _ordinary(random_: random.Random) -> Request:
    write = random_.choice(
        [_transfer, _sandbox, _pay, _quote, _search, _get, _update, _touch, _tenant, _file]
    )
    request = write(random_)
    decor = tuple(random_.sample(_DECOR, random_.randrange(5)))
    return replace(request, headers=(*request.headers, *decor))


def _json(random_: random.Random, host: str, method: str, target: str, value: Any) -> Request:
    text = json.dumps(
        value, ensure_ascii=random_.random() < 0.5, indent=random_.choice([None, None, 1])
    )
    body = text.encode()
    headers: Headers = (("content-type", random_.choice(_TYPES)),)
    if random_.random() < 0.3:
        headers += (("transfer-encoding", "chunked"),)
        body = chunked(body, random_.randrange(1, 5), random_.randrange(1, 9))
    return Request("ordinary", method, target, host, headers, body)


def _money(random_: random.Random, *, memo: bool) -> dict[str, Any]:
    value: dict[str, Any] = {"amount": random_.randrange(1, 100), "to": "acme"}
    if memo and random_.random() < 0.8:
        value["memo"] = random_.choice(_TEXTS)
    items = list(value.items())
    random_.shuffle(items)
    return dict(items)


def _transfer(random_: random.Random) -> Request:
    target = random_.choice(["/transfers", "/transfers?trace=1", "/transfers?trace=a%26b"])
    return _json(random_, "bank.example", "POST", target, _money(random_, memo=True))


def _sandbox(random_: random.Random) -> Request:
    value = {**_money(random_, memo=True), "amount": random_.randrange(-9, 10**9), "to": "eve"}
    return _json(random_, "sandbox.example", "POST", "/transfers", value)


def _pay(random_: random.Random) -> Request:
    value: dict[str, Any] = {"payment": _money(random_, memo=False)}
    if random_.random() < 0.5:
        value["meta"] = {"note": random_.choice(_TEXTS)}
    return _json(random_, "bank.example", "POST", "/payments", value)


def _quote(random_: random.Random) -> Request:
    target = f"/quotes?amount={random_.randrange(1, 100)}&to=acme"
    if random_.random() < 0.5:
        return Request("ordinary", "POST", target, "bank.example")
    return _json(random_, "bank.example", "POST", target, {"comment": random_.choice(_TEXTS)})


def _search(random_: random.Random) -> Request:
    members = [("q", random_.choice(_QUERIES))]
    if random_.random() < 0.5:
        members.append(("limit", str(random_.randrange(1, 100))))
    members += [("tag", random_.choice(_QUERIES)) for _ in range(random_.randrange(4))]
    if random_.random() < 0.3:
        members.append(("utm_source", "mail"))
    random_.shuffle(members)
    plus = random_.random() < 0.5

    def encode(text: str) -> str:
        encoded = quote(text, safe="/?@:" if random_.random() < 0.5 else "")
        return encoded.replace("%20", "+") if plus else encoded

    query = "&".join(f"{name}={encode(value)}" for name, value in members)
    return Request("ordinary", "GET", f"/customers?{query}", "crm.example")


def _customer(random_: random.Random) -> str:
    return f"/customers/{quote(random_.choice(_IDS), safe='@~')}"


def _get(random_: random.Random) -> Request:
    host = random_.choice(["crm.example", "crm.example", "crm.example:443", "CRM.example"])
    return Request("ordinary", "GET", _customer(random_), host)


def _update(random_: random.Random) -> Request:
    value: dict[str, Any] = {"note": random_.choice(_TEXTS)}
    if random_.random() < 0.5:
        value["rating"] = random_.choice([1, 4, 4.5, 0.25, -3, 2.75])
    if random_.random() < 0.5:
        value["flag"] = random_.random() < 0.5
    return _json(random_, "crm.example", "PATCH", _customer(random_), value)


def _touch(random_: random.Random) -> Request:
    return Request("ordinary", "POST", _customer(random_), "crm.example")


def _tenant(random_: random.Random) -> Request:
    name = random_.choice(["x-tenant", "X-Tenant", "X-TENANT"])
    value = random_.choice(["t1", "acme-eu", "a b", "T.1"])
    return Request("ordinary", "GET", "/tenant", "crm.example", ((name, value),))


def _file(random_: random.Random) -> Request:
    target = f"/files/public/{quote(random_.choice(_FILES), safe='(),')}"
    return Request("ordinary", "GET", target, "files.example")


# --- suspicious requests

_SMALL: Final = b'{"amount":5,"to":"acme"}'
#: Small money to who reads JSON, and much to a stranger for who reads a form.
_BOTH: Final = b'{"amount":5,"to":"acme","memo":"&amount=5000&to=eve&x="}'
_BOTH_NESTED: Final = (
    b'{"payment":{"amount":5,"to":"acme"},"meta":"&payment[amount]=5000&payment[to]=eve&x="}'
)


def _of_bank(body: bytes, *headers: tuple[str, str], target: str = "/transfers") -> Request:
    return Request("", "POST", target, "bank.example", headers, body)


def _of_crm(method: str, target: str, *headers: tuple[str, str], body: bytes = b"") -> Request:
    return Request("", method, target, "crm.example", headers, body)


def _content_types() -> Iterator[Request]:
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
        yield _of_bank(_BOTH, ("content-type", value))
        yield _of_bank(_BOTH_NESTED, ("content-type", value), target="/payments")
    yield _of_bank(_BOTH)
    yield _of_bank(_BOTH_NESTED, target="/payments")
    yield _of_bank(_SMALL)
    yield _of_bank(form())
    yield _of_bank(form(), *JSON)
    yield _of_bank(form(), *FORM)
    yield _of_bank(multipart(amount="5000", to="eve"), *MULTIPART)
    for pair in ((JSON, FORM), (FORM, JSON), (JSON, JSON), (JSON, MULTIPART)):
        yield _of_bank(_BOTH, *pair[0], *pair[1])
    yield _of_bank(chunked(_BOTH, 9), ("transfer-encoding", "chunked"))


def _charsets() -> Iterator[Request]:
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
        yield _of_bank(_SMALL, kind)
        if charset.startswith("utf-"):
            yield _of_bank(_SMALL.decode().encode(charset), kind)
    yield _of_bank(_SMALL.decode().encode("utf-16"), *JSON)
    yield _of_bank(_SMALL, ("content-type", "application/json; charset=utf-8; charset=utf-16"))
    yield _of_bank(b'{"amount":5,"to":"acme","memo":"\xff"}', *JSON)
    yield _of_bank(b'{"amount":5,"to":"acme","memo":"\xc0\xaf"}', *JSON)


def _ignored_bodies() -> Iterator[Request]:
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
        yield _of_bank(body, *headers, target=target)
    for body, headers in (
        (b"id=43", FORM),
        (b'{"id":"43"}', JSON),
        (multipart(id="43"), MULTIPART),
    ):
        yield _of_crm("POST", "/customers/42", *headers, body=body)


def _overrides() -> Iterator[Request]:
    names = (
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X_HTTP_Method_Override",
    )
    for name in names:
        for value in ("DELETE", "delete", "PATCH", "DELETE,POST"):
            yield _of_crm("POST", "/customers/42", (name, value))
        yield _of_crm("GET", "/customers/42", (name, "DELETE"))
    yield _of_crm("POST", "/customers/42", (names[0], "POST"), (names[0], "DELETE"))
    for body, headers in (
        *((b"_method=DELETE", kind) for kind in (FORM, (), MULTIPART, JSON)),
        (b"_method=delete", FORM),
        (b"%5Fmethod=DELETE", FORM),
        (b"x=1&_method=PATCH", FORM),
        (multipart(_method="DELETE"), MULTIPART),
        *((b'{"_method":"DELETE"}', kind) for kind in (JSON, ())),
        (b'{"x":"&_method=DELETE&y="}', ()),
        (b'{"x":"&_method=DELETE&y="}', FORM),
    ):
        yield _of_crm("POST", "/customers/42", *headers, body=body)
    for query in ("_method=DELETE", "%5Fmethod=DELETE", "_method[]=DELETE"):
        yield _of_crm("POST", f"/customers/42?{query}")
    yield _of_bank(_SMALL, *JSON, target="/transfers?_method=DELETE")
    yield _of_bank(b'{"amount":5,"to":"acme","_method":"DELETE"}', *JSON)


def _forwarding() -> Iterator[Request]:
    much = b'{"amount":5000,"to":"eve"}'
    for name, value in (
        *(("X-Forwarded-Host", host) for host in ("bank.example", "bank.example, sandbox.example")),
        *(
            ("X-Forwarded-Host", host)
            for host in ("sandbox.example, bank.example", "bank.example:443")
        ),
        *(
            ("Forwarded", text)
            for text in ("host=bank.example", 'for=192.0.2.1;host="bank.example"')
        ),
        *(
            ("X-Host", "bank.example"),
            ("X-Original-Host", "bank.example"),
            ("X-Real-Host", "bank.example"),
        ),
        *(("X-Forwarded-Server", "bank.example"), ("X-HTTP-Host-Override", "bank.example")),
        *(("X-Forwarded-Port", "8443"), ("X-Forwarded-Scheme", "https"), ("X-Forwarded-Ssl", "on")),
        *(
            ("X-Forwarded-Prefix", "/admin"),
            ("X-Script-Name", "/admin"),
            ("X-Forwarded-Path", "/payments"),
        ),
        *(
            ("X-Original-URL", "/payments"),
            ("X-Rewrite-URL", "/payments"),
            ("X-Original-URI", "/payments"),
        ),
        *(("X-Envoy-Original-Path", "/payments"), ("X-Forwarded-Uri", "/payments")),
        *(
            ("X-Accel-Redirect", "/payments"),
            ("X-Sendfile", "/etc/passwd"),
            ("X-Original-Method", "DELETE"),
        ),
        *(
            ("X-Forwarded-Method", "DELETE"),
            ("X-Rewrite-URI", "/payments"),
            ("X-Original-Path", "/payments"),
        ),
        *(
            ("X_Forwarded_Host", "bank.example"),
            ("SCRIPT_NAME", "/admin"),
            ("PATH_INFO", "/payments"),
        ),
    ):
        yield Request("", "POST", "/transfers", "sandbox.example", (*JSON, (name, value)), much)
    two = (("X-Forwarded-Host", "sandbox.example"), ("X-Forwarded-Host", "bank.example"))
    yield Request("", "POST", "/transfers", "sandbox.example", (*JSON, *two), much)


def _hosts() -> Iterator[Request]:
    much = b'{"amount":5000,"to":"eve"}'
    for host in (
        *(
            "SANDBOX.EXAMPLE",
            "sandbox.example:443",
            "sandbox.example.",
            "sandbox.example:bank.example",
        ),
        *(
            "bank.example@sandbox.example",
            "sandbox.example@bank.example",
            "sandbox.example,bank.example",
        ),
        *(
            "sandbox.example/",
            "sandbox.example#bank.example",
            " sandbox.example",
            "",
            "sandbox.example:",
        ),
        *("bank.example:443", "bank.example."),
    ):
        yield Request("", "POST", "/transfers", host, JSON, much)
    for target in (
        "http://bank.example/transfers",
        "http://sandbox.example/transfers",
        "https://bank.example/transfers",
    ):
        yield Request("", "POST", target, "sandbox.example", JSON, much)
    twice = (("host", "sandbox.example"), ("host", "bank.example"))
    yield Request("", "POST", "/transfers", None, (*JSON, *twice), much)
    yield Request("", "POST", "/transfers", None, (*JSON, *reversed(twice)), much)
    yield Request("", "POST", "/transfers", None, JSON, much)


def _paths() -> Iterator[Request]:
    for path in (
        *(
            "/files/secret/../public/a",
            "/files/public/../secret/a",
            "/files/public/./a",
            "/files/./public/a",
        ),
        *(
            "/files/public/..%2fsecret",
            "/files/public%2fa",
            "/files/public%2Fa/b",
            "/files/%2e%2e/public/a",
        ),
        *(
            "/files/public/%2e",
            "/files/public/%2E%2E",
            "/files/public/..",
            "/files/public/.",
            "//files/public/a",
        ),
        *(
            "/files//public/a",
            "/files/public//a",
            "/files/public/a/",
            "/files/public/a//",
            "/FILES/public/a",
        ),
        *(
            "/files/PUBLIC/a",
            "/files/Public/a",
            "/files/public/a;v=1",
            "/files/public;x=secret/a",
            "/files;/public/a",
        ),
        *(
            "/files/public/a%3Bv",
            "/files/public/a%00",
            "/files/public/a%0a",
            "/files/public/a%0d%0ab",
            "/files/public/a%7f",
        ),
        *(
            "/files/public/%61",
            "/files/%70ublic/a",
            "/%66iles/public/a",
            "/files/public/a%25",
            "/files/public/%252e",
        ),
        *(
            "/files/public/a%3Fx=1",
            "/files/public/a%23b",
            "/files/public\\a",
            "/files/public/a\\..\\b",
            "/files/public/a%5cb",
        ),
        *(
            "/files/public/%C3",
            "/files/public/%C0%AF",
            "/files/public/%E0%80%AF",
            "/files/public/a%",
            "/files/public/a%2",
        ),
        *(
            "/files/public/a%zz",
            "/files/public/e%CC%81",
            "/files/public/%EF%BC%8F",
            "/files/public/%E2%80%AE",
            "/files/public/a#b",
        ),
        *(
            "/files/public/a%20",
            "/files/public/%20",
            "/files/public/a.",
            "/files/public/...",
            "/files/public/a+b",
            "/files/public/a%2Bb",
        ),
        *(
            "/files/public/a&b=c",
            "/files/public/a=b",
            "/files/public/a:b",
            "/files/public/%7Bname%7D",
            "/files/public/*",
        ),
        *(
            "/files/public/a%22",
            "/files/public/%E2%80%8B",
            "/files/public/%EF%BB%BFa",
            "/files/public/a%C2%A0",
            "/files/public/a.json",
        ),
    ):
        yield Request("", "GET", path, "files.example")
    for path in (
        "/Customers/42",
        "/customers/42/",
        "/customers/",
        "/customers/42%2f..%2f43",
        "/customers/%34%32",
        "/customers/+",
    ):
        yield _of_crm("GET", path)
    for path in ("*", "", "customers/42", "?q=a", "/\u00e9"):
        yield _of_crm("GET", path)


def _queries() -> Iterator[Request]:
    for query in (
        *(
            "q=a&q=b",
            "q=a&q[]=b",
            "q[]=a",
            "q[0]=a",
            "q[x]=a",
            "q=a;limit=7",
            "q=a;q=b",
            "q.x=a",
            "Q=a",
            "q=a&Q=b",
        ),
        *(
            "q",
            "q=",
            "=a",
            "q=a&&limit=5",
            "q=a&",
            "&q=a",
            "q=a&limit",
            "q=a&limit=",
            "?q=a",
            "q=a?limit=7",
        ),
        *(
            "q=a&limit=5&limit=6",
            "q=a&limit=05",
            "q=a&limit=5.0",
            "q=a&limit=1e1",
            "q=a&limit=%2B5",
            "q=a&limit=+5",
        ),
        *(
            "q=a&limit=5+",
            "q=a&limit=0x5",
            "q=a&limit=-0",
            "q=a&limit=%EF%BC%95",
            "q=a&limit=5_0",
            "q=a&limit=5%00",
        ),
        *(
            "q=a&limit=9007199254740993",
            "q=a&limit=99999999999999999999",
            "q=a&limit=-1",
            "q=a&limit=true",
        ),
        *(
            "q=a&tag[]=b",
            "q=a&tag[1]=b",
            "q=a&tag=b&tag[]=c",
            "q=a&tag[x]=b",
            "q=a&tag=b,c",
            "q=a&tag=",
        ),
        "q=a&" + "&".join(f"tag={n}" for n in range(25)),
        "q=a&" + "&".join(f"tag={n}" for n in range(120)),
        *(
            "q=%00",
            "q=%FF",
            "q=%C0%80",
            "q=%",
            "q=%4",
            "q=%zz",
            "q=a%0ab",
            "q=a%23b",
            "q=a#b",
            "q=a%26limit%3D7",
        ),
        *(
            "q=a&utm_source=1&utm_source=2",
            "q=a&utm_source[q]=b",
            "q=a&utm_source[]=b",
            "q=a&utm_source=1%26q=b",
        ),
        *(
            "q=a&__proto__[q]=b",
            "q=a&constructor[prototype][limit]=7",
            "q=a&hasOwnProperty=b",
            "q=a&toString=b",
        ),
        *(
            "q=a+b",
            "q=a%2Bb",
            "q=a%20b",
            "q=a\tb",
            "q=a\\b",
            'q="a"',
            "q=<a>",
            "q=`a`",
            "q=[a]",
            "q={a}",
            "q=a|b",
            "q=a^b",
        ),
        *(
            "%71=a",
            "q%00=a",
            "q%5B%5D=a",
            "q=a&limit%5B%5D=7",
            "q =a",
            "+q=a",
            "q=a&utm_source=%FF",
            "q=\u00e9",
        ),
    ):
        yield _of_crm("GET", f"/customers?{query}")
    for query in (
        "amount=5&to=acme&amount=5000",
        "amount=5&to=acme&amount[]=5000",
        "amount=5&to=acme&to=eve",
        "amount[]=5&to=acme",
    ):
        yield _of_bank(b"", target=f"/quotes?{query}")
    for query in (
        "trace[amount]=5000",
        "trace=1&amount=5000",
        "trace=1%26amount=5000",
        "trace=1;amount=5000",
        "amount=5000",
        "trace&to=eve",
    ):
        yield _of_bank(_SMALL, *JSON, target=f"/transfers?{query}")
    yield _of_bank(
        b'{"payment":{"amount":5,"to":"acme"}}', *JSON, target="/payments?payment[amount]=5000"
    )


def _json_bodies() -> Iterator[Request]:
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
        yield _of_bank(body, *JSON)
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
        yield _of_bank(body, *JSON, target="/payments")
    for rating in ("4.50", "4.00", "45e-1", "0.1", "1e2", "4.123456789", "-0.0", "1e-7", "5.00001"):
        body = f'{{"note":"x","rating":{rating}}}'.encode()
        yield _of_crm("PATCH", "/customers/42", *JSON, body=body)


def _precision() -> Iterator[Request]:
    for rating in (
        "9007199254740993",
        "0.30000000000000004",
        "0.300000000000000041",
        "1e300",
        "123456789012345678.5",
    ):
        body = f'{{"note":"x","rating":{rating}}}'.encode()
        yield _of_crm("PATCH", "/customers/42", *JSON, body=body)


def _encodings() -> Iterator[Request]:
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
        yield _of_bank(_SMALL, *JSON, ("content-encoding", encoding))
    yield _of_bank(packed, *JSON, ("content-encoding", "gzip"))
    yield _of_bank(zlib.compress(_SMALL), *JSON, ("content-encoding", "deflate"))
    yield _of_bank(_SMALL, *JSON, ("content-encoding", "identity"), ("content-encoding", "gzip"))
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
        yield _of_bank(chunked(_SMALL, 3), *JSON, ("transfer-encoding", encoding))
    both = (("transfer-encoding", "chunked"), ("content-length", str(len(_SMALL))))
    yield _of_bank(chunked(_SMALL, 3), *JSON, *both)
    yield _of_bank(chunked(_SMALL, 3), *JSON, *reversed(both))
    for length in ("5", "024", "+24", "24,24", "24, 5", "0x18", "-1", ""):
        yield _of_bank(_SMALL, *JSON, ("content-length", length))
    yield _of_bank(_SMALL, *JSON, ("content-length", "24"), ("content-length", "5"))
    cut = _of_bank(_SMALL, *JSON, ("content-length", "60"))
    yield replace(cut, is_cut=True)
    yield replace(
        _of_bank(chunked(_SMALL, 3)[:-5], *JSON, ("transfer-encoding", "chunked")), is_cut=True
    )
    hidden = _of_bank(b'{"amount":5000,"to":"eve"}', *JSON).write()
    yield _of_bank(b"0\r\n\r\n" + hidden, *JSON, ("transfer-encoding", "chunked"), _KEPT)
    yield _of_bank(_SMALL + hidden, *JSON, ("content-length", str(len(_SMALL))), _KEPT)
    yield _of_bank(
        b"18;x=1\r\n" + _SMALL + b"\r\n0\r\n\r\n", *JSON, ("transfer-encoding", "chunked")
    )
    yield _of_bank(
        b"18\r\n" + _SMALL + b"\r\n0\r\nx-forwarded-host: bank.example\r\n\r\n",
        *JSON,
        ("transfer-encoding", "chunked"),
    )
    yield _of_crm("GET", "/customers/42", *JSON, body=b'{"id":"43"}')
    yield _of_crm("GET", "/customers/42", *FORM, body=b"id=43")
    yield _of_crm("GET", "/customers?q=a", *FORM, body=b"q=b")
    yield _of_crm(
        "GET", "/customers?q=a", *FORM, ("transfer-encoding", "chunked"), body=chunked(b"q=b")
    )


def _upgrades() -> Iterator[Request]:
    key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    socket = (
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        key,
        ("sec-websocket-version", "13"),
    )
    clear = (
        ("upgrade", "h2c"),
        ("connection", "Upgrade, HTTP2-Settings"),
        ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
    )
    for headers in (
        socket,
        clear,
        (("upgrade", "TLS/1.0"), ("connection", "Upgrade")),
        (("upgrade", "websocket"),),
    ):
        yield _of_crm("GET", "/customers?q=a", *headers)
        yield _of_bank(_SMALL, *JSON, *headers)
    for named in ("x-authz-agent", "x-tenant", "content-length", "host", "x-authz-decision-id"):
        yield _of_crm("GET", "/tenant", ("x-tenant", "t1"), ("connection", f"close, {named}"))
    for method in (
        "get",
        "Get",
        "HEAD",
        "OPTIONS",
        "TRACE",
        "CONNECT",
        "PUT",
        "PROPFIND",
        "G ET",
        "GET\t",
        "DELETE",
    ):
        yield _of_crm(method, "/customers/42")


def _headers() -> Iterator[Request]:
    for pair in (("t1", "t2"), ("t1", "t1"), ("t1", "")):
        yield _of_crm("GET", "/tenant", *(("x-tenant", value) for value in pair))
    for value in (
        "t1,t2",
        "t1, t2",
        "",
        " t1 ",
        "\tt1",
        "t1;v=2",
        "t\t1",
        "%74",
        "t\xe9",
        "t\xc3\xa9",
        "t\x7f",
        '"t1"',
        "t1\r\n t2",
        "=?utf-8?q?t?=",
    ):
        yield _of_crm("GET", "/tenant", ("x-tenant", value))
    for name in ("x_tenant", "X_Tenant", "x-tenant ", "x-tenant\t", "x.tenant", "-x-tenant"):
        yield _of_crm("GET", "/tenant", (name, "t2"))
        yield _of_crm("GET", "/tenant", ("x-tenant", "t1"), (name, "t2"))
    yield _of_crm("GET", "/tenant")
    for name in (
        "x-authz-agent",
        "x-authz-subject",
        "x_authz_agent",
        "x-authz-decision-id",
        "authz-note",
    ):
        yield _of_crm("GET", "/customers?q=a", (name, "root"))
    for text in (
        "content_type",
        "content_length",
        "Transfer_Encoding",
        "http-host",
        "range",
        "expect",
        "max-forwards",
    ):
        yield _of_bank(_SMALL, *JSON, (text, "5"))


#: What each group tries, by its name.
SUSPICIOUS: Final[dict[str, Callable[[], Iterator[Request]]]] = {
    "content-types": _content_types,
    "charsets": _charsets,
    "ignored-bodies": _ignored_bodies,
    "overrides": _overrides,
    "forwarding": _forwarding,
    "hosts": _hosts,
    "paths": _paths,
    "queries": _queries,
    "json-bodies": _json_bodies,
    "precision": _precision,
    "encodings": _encodings,
    "upgrades": _upgrades,
    "headers": _headers,
}
