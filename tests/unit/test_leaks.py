"""The search for leaked secrets finds what it must."""

import base64
from urllib.parse import quote

import pytest

from tests.support.leaks import leaks

SECRET = 'sk-l1ve/9+Q"==%:x&'


@pytest.mark.parametrize("before", [b"", b"a", b"ab", b"abc"])
def test_a_secret_inside_of_base64_is_found(before: bytes) -> None:
    """Wherever it begins."""
    text = base64.b64encode(before + SECRET.encode() + b"after")
    assert leaks(SECRET, [("there", text)])
    assert leaks(SECRET, [("there", base64.urlsafe_b64encode(before + SECRET.encode()))])


def test_other_spellings_are_found() -> None:
    """And what is not there is not."""
    for text in (
        SECRET.encode(),
        SECRET.encode().hex().encode(),
        quote(SECRET, safe="").encode(),
        SECRET.replace('"', '\\"').encode(),
    ):
        assert leaks(SECRET, [("there", b"x" + text + b"y")])
    assert leaks(SECRET, [("there", b"sk-l1ve" + base64.b64encode(b"another secret"))]) == []
