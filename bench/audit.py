"""Counts the instructions of an audit record: `python -m bench.audit` writes bench/results/audit.json.

A run of 2,000 records less a run of 1,000, with callgrind; each record is synced on its own. Callgrind does not know the processor's
instructions for SHA-256, so hashing is counted in software and told apart.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench import machine
from bench.micro import target_folder

_ROOT: Final = Path(__file__).parents[1]
_COUNTS: Final = (1_000, 2_000)
_BYTES: Final = 2_500
_FORMS: Final = ("plain", "chain")
_HASH: Final = re.compile(r"sha2::sha256|compress256|sha256::soft")


class CountError(RuntimeError):
    """The instructions could not be counted."""


def main() -> None:
    """Build the program, count, print the figures and keep them."""
    _run("cargo", "build", "--release", "--locked", "-p", "authz-state", "--example=audit_records")
    program = target_folder(_ROOT) / "release/examples/audit_records"
    figures = {form: _count(program, form) for form in _FORMS}
    chained, plain = figures["chain"], figures["plain"]
    result = {
        "machine": machine.facts(_ROOT, "release"),
        "record_bytes": _BYTES,
        "instructions": figures,
        "added_by_chain": chained["all"] - plain["all"],
        "added_without_hashing": chained["all"] - chained["hashing"] - plain["all"],
    }
    text = json.dumps(result, indent=2)
    (_ROOT / "bench/results/audit.json").write_text(text + "\n")
    sys.stdout.write(text + "\n")


def _count(program: Path, form: str) -> dict[str, int]:
    """Returns instructions a record: all, and those of SHA-256."""
    few, many = (_profile(program, form, count) for count in _COUNTS)
    records = _COUNTS[1] - _COUNTS[0]
    return {name: round((many[name] - few[name]) / records) for name in few}


def _profile(program: Path, form: str, count: int) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        _run(
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={out}",
            str(program),
            str(count),
            str(_BYTES),
            form,
        )
        listed = _run("callgrind_annotate", "--threshold=100", str(out))
    rows = [_row(line) for line in listed.splitlines()]
    named = [row for row in rows if row is not None]
    total = next(number for number, name in named if name.startswith("PROGRAM TOTALS"))
    return {
        "all": total,
        "hashing": sum(number for number, name in named if _HASH.search(name)),
    }


def _row(line: str) -> tuple[int, str] | None:
    found = re.match(r"\s*([\d,]+)\s+\([^)]*\)\s+(.*)", line)
    return (int(found[1].replace(",", "")), found[2]) if found else None


def _run(*command: str) -> str:
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


if __name__ == "__main__":
    main()
