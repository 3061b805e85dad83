"""Time and memory of `authz-analyze`: writes `bench/results/analysis.json`.

python -m bench.analysis.measure                cold, again, and after one changed policy, for four sizes; a comparison
python -m bench.analysis.measure --largest      the largest size alone; prints the figures, and writes nothing
python -m bench.analysis.measure --unoptimised  also writes figures of a development build, and names it

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
    analyzer_request,
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


class Watch:
    """Memory and CPU time of a process and all below it, sampled until it ends."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._ticks: dict[int, int] = {}
        self.peak_bytes = 0

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all processes that were seen, in seconds."""
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK")

    def sample(self) -> None:
        """Look at the processes. Pages that several share count for each."""
        parents: dict[int, int] = {}
        figures: dict[int, tuple[int, int]] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            # Fields 4, 14, 15 and 24 of proc(5), from the state, which is field 3.
            parents[int(entry.name)] = int(stat[1])
            figures[int(entry.name)] = (int(stat[11]) + int(stat[12]), int(stat[21]))
        below = {self._root}
        while more := {one for one, parent in parents.items() if parent in below} - below:
            below |= more
        known = [(one, figures[one]) for one in below if one in figures]
        self._ticks |= {one: ticks for one, (ticks, _) in known}
        pages = sum(pages for _, (_, pages) in known)
        self.peak_bytes = max(self.peak_bytes, pages * os.sysconf("SC_PAGE_SIZE"))


def run(subcommand: str, bundles: Mapping[str, Path], cache: Path | None) -> dict[str, Any]:
    """Run the analyzer once.

    Returns:
        Seconds, CPU seconds of all its processes, peak memory in megabytes, and the counts of the document.
    """
    files = {name: AnalyzerBundle(read_folder(folder)) for name, folder in bundles.items()}
    options = AnalysisOptions(now_ms=_NOW_MS, question_limit_ms=30_000, cache=cache)
    request = analyzer_request(files, options)
    start = time.monotonic()
    process = subprocess.Popen(
        [find_analyzer(), subcommand],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=analyzer_environment(),
    )
    watch = Watch(process.pid)
    done = threading.Event()

    def look() -> None:
        while not done.wait(_PAUSE_S):
            watch.sample()

    watcher = threading.Thread(target=look)
    watcher.start()
    output, _ = process.communicate(request)
    seconds = time.monotonic() - start
    done.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"the analyzer ended with {process.returncode}")
    document = json.loads(output)
    found = {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(watch.cpu_seconds, 1),
        "peak_mb": round(watch.peak_bytes / 1e6),
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
    parser.add_argument("--unoptimised", action="store_true")
    options = parser.parse_args()
    rows, load = [], [os.getloadavg()[0]]
    for size in (LARGEST,) if options.largest else SIZES:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(size, Path(folder)))
        load.append(os.getloadavg()[0])
        print(json.dumps(rows[-1], indent=1), flush=True)
    is_written = options.unoptimised or analyzer_profile() in machine.RELEASED
    if not options.largest and not is_written:
        print(
            "nothing is written: the analyzer is not optimised (`make analyzer`, or --unoptimised)"
        )
    elif not options.largest:
        document = {
            "machine": machine.facts(ROOT, analyzer_profile()),
            "load": round(max(load), 1),
            "rows": rows,
        }
        RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
