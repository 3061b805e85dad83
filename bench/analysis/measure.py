"""Time and memory of `authz-analyze`: writes `bench/results/analysis.json`.

python -m bench.analysis.measure            cold, again, and after one changed policy, for four sizes; a comparison
python -m bench.analysis.measure --largest  the largest size alone; prints the figures, and writes nothing

Needs the analyzer: `make analyzer`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from authz.analysis.executable import (
    AnalysisOptions,
    AnalyzerBundle,
    analyzer_environment,
    find_analyzer,
)
from authz.bundle import read_folder
from bench import machine
from bench.analysis.bundle import Size, write

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = ROOT / "bench" / "results" / "analysis.json"
LARGEST: Final = Size(agents=100, operations=500, policies=200)
SIZES: Final = (Size(12, 60, 24), Size(25, 120, 50), Size(50, 240, 100), LARGEST)
_NOW_MS: Final = 1_795_564_800_000
_PAUSE_S: Final = 0.2


def analyzer_profile() -> str:
    """Return cargo's profile of the analyzer."""
    version = subprocess.run(
        [find_analyzer(), "--version"], capture_output=True, text=True, check=True
    )
    return version.stdout.split()[-1]


def tree_bytes(root: int) -> int:
    """Return the resident memory of a process and all below it, in bytes; shared pages count for each."""
    parents: dict[int, int] = {}
    resident: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            pages = int((entry / "statm").read_text().split()[1])
        except OSError:
            continue
        parents[int(entry.name)] = int(stat[1])
        resident[int(entry.name)] = pages * os.sysconf("SC_PAGE_SIZE")
    below = {root}
    while more := {one for one, parent in parents.items() if parent in below} - below:
        below |= more
    return sum(resident.get(one, 0) for one in below)


def run(subcommand: str, bundles: Mapping[str, Path], cache: Path | None) -> dict[str, Any]:
    """Run the analyzer once.

    Returns:
        Seconds, CPU seconds of all its processes, peak memory in megabytes, and the counts of the document.
    """
    files = {name: AnalyzerBundle(read_folder(folder)) for name, folder in bundles.items()}
    options = AnalysisOptions(now_ms=_NOW_MS, question_limit_ms=30_000, cache=cache)
    request: dict[str, Any] = {name: one.document() for name, one in files.items()}
    text = json.dumps({**request, "options": options.document()})
    before, start = os.times(), time.monotonic()
    process = subprocess.Popen(
        [find_analyzer(), subcommand],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=analyzer_environment(),
    )
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(_PAUSE_S):
            peak = max(peak, tree_bytes(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate(text)
    seconds = time.monotonic() - start
    done.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"the analyzer ended with {process.returncode}")
    after = os.times()
    document = json.loads(output)
    found = {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system,
            1,
        ),
        "peak_mb": round(peak / 1e6),
        **{
            key: document["counts"][key] for key in ("questions", "questions_cached", "not_decided")
        },
    }
    if subcommand == "diff":
        found |= {"changed": document["counts"]["changed"], "verdict": document["verdict"]}
    return found


def measure(size: Size, folder: Path) -> dict[str, Any]:
    """Measure one size: cold, again, after one changed policy, and the comparison of both bundles."""
    before, after, cache = folder / "before", folder / "after", folder / "cache"
    write(before, size)
    write(after, size, changed=True)
    return {
        "agents": size.agents,
        "operations": size.operations,
        "policies": size.policies,
        "cold": run("analyze", {"bundle": before}, cache),
        "again": run("analyze", {"bundle": before}, cache),
        "one_policy_changed": run("analyze", {"bundle": after}, cache),
        "diff": run("diff", {"old": before, "new": after}, None),
    }


def main() -> int:
    """Measure, and write or print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", action="store_true")
    options = parser.parse_args()
    rows = []
    for size in (LARGEST,) if options.largest else SIZES:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(size, Path(folder)))
        print(json.dumps(rows[-1], indent=1), flush=True)
    if not options.largest and analyzer_profile() not in machine.RELEASED:
        print("nothing is written: the analyzer is not optimised (`make analyzer`)")
    elif not options.largest:
        document = {"machine": machine.facts(ROOT, analyzer_profile()), "rows": rows}
        RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
