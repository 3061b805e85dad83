"""Finds a secret in bytes, however it is written there."""

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus


def spellings(secret: str) -> dict[str, bytes]:
    """Returns what may stand for a secret in bytes, by how it is written; what is hidden in base64 begins anywhere."""
    plain = secret.encode()
    found = {
        "plain": plain,
        "JSON": secret.replace("\\", "\\\\").replace('"', '\\"').encode(),
        "URL-encoded": quote(secret, safe="").encode(),
        "URL-encoded, lower case": _lower(quote(secret, safe="")).encode(),
        "form-encoded": quote_plus(secret).encode(),
        "path-encoded": quote(secret).encode(),
        "hex": plain.hex().encode(),
        "HEX": plain.hex().upper().encode(),
        "UTF-16": secret.encode("utf-16-le"),
        "backwards": plain[::-1],
    }
    for shift in range(3):
        # The first and last signs depend on what stands beside it.
        coded = base64.b64encode(b"\0" * shift + plain)
        inner = coded[-(-shift * 8 // 6) : (shift + len(plain)) * 8 // 6]
        found[f"base64, {shift}"] = inner
        found[f"base64url, {shift}"] = inner.replace(b"+", b"-").replace(b"/", b"_")
    return found


def _lower(text: str) -> str:
    pieces = text.split("%")
    return pieces[0] + "".join("%" + piece[:2].lower() + piece[2:] for piece in pieces[1:])


def leaks(secret: str, places: Iterable[tuple[str, bytes]]) -> list[str]:
    """Returns where a secret stands, and how it is written there."""
    words = spellings(secret)
    return [
        f"{name}: {how}" for name, data in places for how, word in words.items() if word in data
    ]


def files_under(*folders: Path) -> Iterator[tuple[str, bytes]]:
    """Reads every file of some folders, or the files themselves."""
    for folder in folders:
        for path in [folder] if folder.is_file() else sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield str(path), path.read_bytes()
