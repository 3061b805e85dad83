"""Counts the instructions of an audit record: `python -m bench.audit` writes bench/results/audit.json.

A run of 2,000 records less a run of 1,000, with callgrind; each record is synced on its own.
"""

import json
import sys
from pathlib import Path
from typing import Final

from bench import callgrind, machine
from bench.micro import target_folder

_ROOT: Final = Path(__file__).parents[1]
_COUNTS: Final = (1_000, 2_000)
_BYTES: Final = 2_500
_FORMS: Final = ("plain", "chain")


def main() -> None:
    """Build the program, count, print the figures and keep them."""
    callgrind.run(
        "cargo", "build", "--release", "--locked", "-p", "authz-state", "--example=audit_records"
    )
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
    few, many = (callgrind.count(str(program), str(count), str(_BYTES), form) for count in _COUNTS)
    records = _COUNTS[1] - _COUNTS[0]
    return {name: round((many[name] - few[name]) / records) for name in few}


if __name__ == "__main__":
    main()
