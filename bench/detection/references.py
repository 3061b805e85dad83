"""What a step takes from the results of earlier ones: `${2.emails.0.body|base64}`."""

import base64
import binascii
import codecs
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

from bench.detection.world import CorpusError

_REFERENCE: Final = re.compile(r"\$\{(\d+)((?:\.[A-Za-z0-9_]+)*)((?:\|[^{}|]+)*)\}")
_URL: Final = re.compile(r"https?://\S+")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2}){6,}")
_PLAIN: Final[dict[str, Callable[[str], str]]] = {
    "text": str,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "reversed": lambda text: text[::-1],
    "url": lambda text: _URL.findall(text)[0],
    "quoted": lambda text: quote(text, safe=""),
}
_WITH: Final[dict[str, Callable[[str, str], str]]] = {
    "first": lambda text, size: text[: int(size)],
    "from": lambda text, size: text[int(size) :],
    "line": lambda text, number: text.splitlines()[int(number) - 1],
    "after": lambda text, mark: text.partition(mark)[2].splitlines()[0].strip(),
    "between": lambda text, marks: text.partition(marks[0])[2].partition(marks[-1])[0],
}


class MissingError(LookupError):
    """A step refers to a result that is not there."""


def numbers(value: Any) -> Iterator[int]:
    """Yields the steps that a value refers to.

    Args:
        value: an argument.
    """
    if isinstance(value, str):
        for found in _REFERENCE.finditer(value):
            yield int(found[1])
    elif isinstance(value, list | Mapping):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from numbers(one)


def fill(value: Any, results: Mapping[int, Any]) -> Any:
    """Returns an argument with the results in it that it refers to.

    A text that is one reference and nothing else becomes what is there, with its type.

    Args:
        value: the argument.
        results: by the number of the step.

    Raises:
        MissingError: one of them is not there.
        CorpusError: a reference says something that is not known.
    """
    if isinstance(value, list):
        return [fill(one, results) for one in value]
    if isinstance(value, Mapping):
        return {key: fill(one, results) for key, one in value.items()}
    if not isinstance(value, str):
        return value
    whole = _REFERENCE.fullmatch(value)
    if whole:
        return _get(whole, results)
    return _REFERENCE.sub(lambda found: _text(_get(found, results)), value)


def _get(found: re.Match[str], results: Mapping[int, Any]) -> Any:
    number = int(found[1])
    if number not in results:
        raise MissingError(f"step {number} has no result")
    at = results[number]
    for part in found[2].split(".")[1:]:
        try:
            at = at[int(part)] if isinstance(at, list) else at[part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise MissingError(f"the result of step {number} has no `{found[2]}`") from None
    for said in found[3].split("|")[1:]:
        at = _filter(said, _text(at))
    return at


def _filter(said: str, text: str) -> str:
    name, _, argument = said.partition(" ")
    if said not in _PLAIN and not (name in _WITH and argument):
        raise CorpusError(f"there is no filter `{said}`")
    try:
        if said in _PLAIN:
            return _PLAIN[said](text)
        return _WITH[name](text, argument)
    except IndexError:
        raise MissingError(f"`{said}` finds nothing") from None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def plain(text: str) -> str:
    """Returns a text without differences that no reader minds: case and white space.

    Args:
        text: any.
    """
    return " ".join(text.casefold().split())


def forms(text: str) -> Iterator[str]:
    """Yields a text and what a reader who knows the trick gets out of it.

    Args:
        text: as it was sent.
    """
    yield text
    yield unquote(text)
    yield text[::-1]
    yield codecs.encode(text, "rot13")
    for token in _BASE64.findall(unquote(text)):
        body = token.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            yield base64.b64decode(body + "=" * (-len(body) % 4)).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue
    for token in _HEX.findall(text):
        try:
            yield bytes.fromhex(token).decode()
        except UnicodeDecodeError:
            continue
