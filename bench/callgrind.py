"""Counts the instructions of a program with callgrind.

Callgrind does not know the processor's instructions for SHA-256, so SHA-256 runs in software, and its instructions are also counted alone.
"""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[1]
_HASH: Final = re.compile(r"sha2::sha256|compress256|sha256::soft")


class CountError(RuntimeError):
    """The instructions could not be counted."""


def count(*command: str) -> dict[str, int]:
    """Returns the instructions of a run: `all`, and `hashing`, those of SHA-256, which are included in `all`.

    Args:
        command: the program and its arguments.

    Raises:
        CountError: The program, valgrind or its tool failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        run("valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *command)
        listed = run("callgrind_annotate", "--threshold=100", str(out))
    rows = [_row(line) for line in listed.splitlines()]
    named = [row for row in rows if row is not None]
    total = next(number for number, name in named if name.startswith("PROGRAM TOTALS"))
    return {
        "all": total,
        "hashing": sum(number for number, name in named if _HASH.search(name)),
    }


def run(*command: str) -> str:
    """Runs a command in the folder of the crates, and returns its standard output.

    Raises:
        CountError: It failed, or took longer than half an hour.
    """
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command,
            cwd=_ROOT / "native",
            capture_output=True,
            text=True,
            timeout=1_800,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CountError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise CountError(f"{command[0]} failed: {done.stderr[-1500:]}")
    return done.stdout


def _row(line: str) -> tuple[int, str] | None:
    found = re.match(r"\s*([\d,]+)\s+\([^)]*\)\s+(.*)", line)
    return (int(found[1].replace(",", "")), found[2]) if found else None
