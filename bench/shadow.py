"""Counts the instructions of a decision with and without a shadow bundle: `python -m bench.shadow` writes bench/results/shadow.json.

A run of 513 requests less a run of 1, with callgrind, on one thread with warm tokens. The shadow bundle is the bundle that serves, so that
each decision is judged twice and compared. With `--profile dev` a development build is counted.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from bench import callgrind, machine
from bench.load import still
from bench.micro import target_folder

_ROOT: Final = Path(__file__).parents[1]
_POLICIES: Final = 104
_COUNTS: Final = (1, 513)
_SURFACES: Final = ("check", "ext_authz")
_FORMS: Final = ((), ("shadow",))
_FOLDERS: Final = {"release": "release", "dev": "debug"}


def main() -> None:
    """Build the program, count, print the figures and keep them."""
    parser = argparse.ArgumentParser(prog="python -m bench.shadow", description=__doc__)
    parser.add_argument("--profile", choices=tuple(_FOLDERS), default="release")
    profile = parser.parse_args().profile
    words = ("--locked", "--workspace", "--example=checks", f"--profile={profile}")
    callgrind.run("cargo", "build", *words)
    program = target_folder(_ROOT) / _FOLDERS[profile] / "examples/checks"
    with tempfile.TemporaryDirectory() as folder:
        still.write(_ROOT, Path(folder), _POLICIES)
        figures = {surface: _figures(program, folder, surface) for surface in _SURFACES}
    result = {
        "machine": machine.facts(_ROOT, profile),
        "policies": _POLICIES,
        "instructions": figures,
        "check_over_plain": ratio(figures["check"]),
        "ext_authz_over_plain": ratio(figures["ext_authz"]),
    }
    text = json.dumps(result, indent=2)
    (_ROOT / "bench/results/shadow.json").write_text(text + "\n")
    sys.stdout.write(text + "\n")


def ratio(figures: dict[str, dict[str, int]]) -> float:
    """Returns the instructions of a decision with a shadow bundle over those of a decision without one, both without SHA-256.

    Args:
        figures: instructions by form (`plain`, `shadow`) and kind (`all`; `hashing`: those of SHA-256, included in `all`).
    """
    plain, shadow = (
        figures[form]["all"] - figures[form]["hashing"] for form in ("plain", "shadow")
    )
    return round(shadow / plain, 3)


def _figures(program: Path, folder: str, surface: str) -> dict[str, Any]:
    counted = [_count(str(program), folder, surface, form) for form in _FORMS]
    return dict(zip(("plain", "shadow"), counted, strict=True))


def _count(program: str, folder: str, surface: str, form: tuple[str, ...]) -> dict[str, int]:
    """Returns instructions a request: all, and those of SHA-256."""
    few, many = (callgrind.count(program, folder, surface, str(count), *form) for count in _COUNTS)
    requests = _COUNTS[1] - _COUNTS[0]
    return {name: round((many[name] - few[name]) / requests) for name in few}


if __name__ == "__main__":
    main()
