"""Ordinary requests with random changes, which may leave them in order or not."""

import random
from dataclasses import replace
from typing import Final

from tests.support.received.ordinary import ordinary
from tests.support.received.request import CHUNKED, FORM, JSON, Request

_PIECES: Final = (
    *"[]&=;+,?#/\\.'\"{}:\t \xa0\xe9",
    *("%00", "%2e", "%2f", "%25", "%5B", "%20", "%0d%0a", "%C3%A9", "%E2%80%8B", "[]", "//", ".."),
    *("&&", "&to=eve", "&amount=5000", "&_method=DELETE", "&q=b", "&tag[]=x", "&__proto__[q]=1"),
    *("\\u0000", "\\u0061", "1e2", "-0", "0x5", "true", "null", "5000"),
)


def mutated(random_: random.Random) -> Request:
    """Returns an ordinary request after one to three changes."""
    request = ordinary(random_)
    for _ in range(random_.randrange(1, 4)):
        request = _change(random_, request)
    return replace(request, group="mutations")


def _change(random_: random.Random, request: Request) -> Request:
    # A chunk of another length than it says would only be waited for.
    is_chunked = CHUNKED in request.headers
    match random_.choice(("target", "body", "value", "type", "method")):
        case "body" if request.body and not is_chunked:
            body = _text(random_, request.body.decode("latin-1"))
            return replace(request, body=body.encode("latin-1"))
        case "value" if request.headers:
            index = random_.randrange(len(request.headers))
            headers = list(request.headers)
            name, value = headers[index]
            if name != CHUNKED[0]:
                headers[index] = (name, _text(random_, value))
            return replace(request, headers=tuple(headers))
        case "type":
            return replace(request, headers=(*request.headers, *random_.choice((FORM, JSON))))
        case "method":
            return replace(request, method=random_.choice(("POST", "PATCH", "GET", "DELETE")))
    return replace(request, target="/" + _text(random_, request.target[1:]))


def _text(random_: random.Random, text: str) -> str:
    """Returns a text with a piece put in, taken out or said twice, or the rest in the other case."""
    start = random_.randrange(len(text) + 1)
    end = min(len(text), start + random_.randrange(1, 9))
    match random_.choice(("insert", "insert", "remove", "repeat", "swap")):
        case "insert":
            piece: str = random_.choice(_PIECES)
            return text[:start] + piece + text[start:]
        case "remove":
            return text[:start] + text[end:]
        case "repeat":
            return text[:end] + text[start:]
    return text[:start] + text[start:].swapcase()
