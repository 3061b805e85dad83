"""Files to start from: a bundle that a newcomer can edit, and a configuration for development."""

import json
import os
from collections.abc import Iterator
from datetime import date
from importlib.abc import Traversable
from importlib.resources import files
from pathlib import Path
from typing import Final

from authz.errors import UsageError

__all__ = ["write_dev_config", "write_template"]

_SETTINGS: Final = "people.yaml"
_MODE: Final = """\
# Whether denials are enforced. `observe`: each decision is made and recorded, and the call passes.
# `authz why --observed` lists the calls that would be held. Then write `mode: enforce`.
mode:
  default: observe
  owner: you@corp.example      # who answers for it: write your team here
  until: {until}            # from then on it is enforced; at most 90 days ahead
"""


def write_template(
    folder: Path, observe_until: date | None = None, *, full: bool = False
) -> tuple[Path, ...]:
    """Copy a template.

    Args:
        folder: Folder to create; it must not exist, or be empty.
        observe_until: Last day on which denials are recorded and not enforced. With None they are enforced at once.
        full: Write the bundle that has every kind of rule, instead of the small one.

    Returns:
        The files that were written. The first one holds `mode`, if the bundle observes.

    Raises:
        UsageError: The folder has something in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty; name a new folder")
    template = files("authz.tools") / "templates" / ("full" if full else "first")
    contents = dict(_walk(template, ""))
    if observe_until is not None:
        mode = _MODE.format(until=observe_until.isoformat()).encode()
        place = "mode.yaml" if full else _SETTINGS
        contents = {place: b"", **contents}
        contents[place] += b"\n" + mode if contents[place] else mode
    for name, content in contents.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return tuple(folder / name for name in contents)


def write_dev_config(folder: Path, bundle: Path, domain: str, issuer: str) -> Path:
    """Write the configuration of a node for development beside its keys.

    Args:
        folder: Folder of the keys, as `authz keys make` writes it.
        bundle: Folder of the bundle.
        domain: SPIFFE trust domain of the keys.
        issuer: `iss` of subject tokens, which the bundle calls `corp`.

    Returns:
        The file.

    Raises:
        UsageError: The bundle is not a folder, or the file exists.
    """
    if not bundle.is_dir():
        raise UsageError(f"{bundle} is not a folder; write a bundle: authz init {bundle}")
    target = folder / "config.yaml"
    text = (files("authz.tools") / "templates" / "dev" / "config.yaml").read_text()
    values = {"bundle": os.path.relpath(bundle.resolve(), folder.resolve())}
    for name, value in {**values, "domain": domain, "issuer": issuer}.items():
        text = text.replace(f"@{name}@", json.dumps(value))
    try:
        with target.open("x") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise UsageError(f"{target} exists; remove it, or name another folder") from error
    return target


def _walk(at: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(at.iterdir(), key=lambda entry: entry.name):
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _walk(entry, f"{name}/")
        else:
            yield name, entry.read_bytes()
