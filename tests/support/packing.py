"""Wheels of the tree as it is, with the extension of the test run, in place of a release build."""

import base64
import hashlib
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from authz import __version__

ROOT: Final = Path(__file__).parents[2]


def pack(folder: Path) -> list[Path]:
    """Write the wheels of the server and of the client.

    Returns:
        The wheels.
    """
    server = _wheel(folder, ROOT, ROOT, "authz", "cp311-abi3-linux_x86_64")
    client = _wheel(folder, ROOT / "client", ROOT / "client/src", "authz_client", "py3-none-any")
    return [server, client]


def _wheel(folder: Path, project: Path, source: Path, package: str, tag: str) -> Path:
    settings = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    name = str(settings["name"]).replace("-", "_")
    info = f"{name}-{__version__}.dist-info"
    files = {
        path.relative_to(source).as_posix(): path.read_bytes()
        for path in sorted((source / package).rglob("*"))
        # `make analyzer` puts a program into authz/bin, which Git ignores, so maturin leaves it out, too.
        if path.is_file() and not {"__pycache__", "bin"} & set(path.relative_to(source).parts)
    }
    files[f"{info}/METADATA"] = "".join(f"{line}\n" for line in _metadata(settings)).encode()
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: false\nTag: {tag}\n".encode()
    )
    record = "".join(
        f"{path},{_digest(content)},{len(content)}\n" for path, content in files.items()
    )
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    wheel = folder / f"{name}-{__version__}-{tag}.whl"
    # Stored, not packed: nobody sends it anywhere.
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return wheel


def _metadata(settings: dict[str, Any]) -> Iterator[str]:
    yield from ("Metadata-Version: 2.1", f"Name: {settings['name']}", f"Version: {__version__}")
    yield from (f"Requires-Dist: {one}" for one in settings["dependencies"])
    for extra, wanted in settings.get("optional-dependencies", {}).items():
        yield f"Provides-Extra: {extra}"
        yield from (f'Requires-Dist: {one} ; extra == "{extra}"' for one in wanted)


def _digest(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"
