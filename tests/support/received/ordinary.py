"""Requests as clients send them every day: all of them are permitted."""

import json
import random
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from tests.support.received.request import CHUNKED, Headers, Request, chunked

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
_PATCH: Final = ("content-type", "application/merge-patch+json")
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


def ordinary(random_: random.Random) -> Request:
    """Returns one request of a random kind."""
    write = random_.choice(
        [_transfer, _sandbox, _pay, _quote, _search, _get, _update, _touch, _tenant, _file]
    )
    request = write(random_)
    decor = tuple(random_.sample(_DECOR, random_.randrange(5)))
    headers = (*request.headers, *decor)
    if random_.random() < 0.2 and CHUNKED not in headers:
        lower = tuple((name.lower(), value) for name, value in headers)
        return replace(request, headers=lower, is_http2=True)
    return replace(request, headers=headers)


def _json(random_: random.Random, host: str, method: str, target: str, value: Any) -> Request:
    text = json.dumps(
        value, ensure_ascii=random_.random() < 0.5, indent=random_.choice([None, None, 1])
    )
    body = text.encode()
    headers: Headers = (("content-type", random_.choice(_TYPES)),)
    if random_.random() < 0.3:
        headers += (CHUNKED,)
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
    request = _json(random_, "crm.example", "PATCH", _customer(random_), value)
    if random_.random() < 0.3:
        return replace(request, headers=(_PATCH, *request.headers[1:]))
    return request


def _touch(random_: random.Random) -> Request:
    return Request("ordinary", "POST", _customer(random_), "crm.example")


def _tenant(random_: random.Random) -> Request:
    name = random_.choice(["x-tenant", "X-Tenant", "X-TENANT"])
    value = random_.choice(["t1", "acme-eu", "a b", "T.1"])
    return Request("ordinary", "GET", "/tenant", "crm.example", ((name, value),))


def _file(random_: random.Random) -> Request:
    target = f"/files/public/{quote(random_.choice(_FILES), safe='(),')}"
    return Request("ordinary", "GET", target, "files.example")
