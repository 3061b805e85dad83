"""Requests whose host, path or query may be read in two ways."""

from collections.abc import Iterator

from tests.support.received.request import JSON, SMALL, Request, of_bank, of_crm


def hosts() -> Iterator[Request]:
    """Hosts in other spellings, in several places, or none."""
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


def paths() -> Iterator[Request]:
    """Paths that servers decode or normalise differently."""
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
        yield of_crm("GET", path)
    for path in ("*", "", "customers/42", "?q=a", "/\u00e9"):
        yield of_crm("GET", path)


def queries() -> Iterator[Request]:
    """Queries that parsers read differently."""
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
        yield of_crm("GET", f"/customers?{query}")
    for query in (
        "amount=5&to=acme&amount=5000",
        "amount=5&to=acme&amount[]=5000",
        "amount=5&to=acme&to=eve",
        "amount[]=5&to=acme",
    ):
        yield of_bank(b"", target=f"/quotes?{query}")
    for query in (
        "trace[amount]=5000",
        "trace=1&amount=5000",
        "trace=1%26amount=5000",
        "trace=1;amount=5000",
        "amount=5000",
        "trace&to=eve",
    ):
        yield of_bank(SMALL, *JSON, target=f"/transfers?{query}")
    yield of_bank(
        b'{"payment":{"amount":5,"to":"acme"}}', *JSON, target="/payments?payment[amount]=5000"
    )
