"""Collects what criterion measured of the parts: a decision, a verification."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Crate, its features, the benchmark, and which of its functions: compiling 10,000 policies with nothing cached takes too
# long to be repeated here.
BENCHES = (
    ("authz-kernel", "test-support", "decide", "^decide/|/(read and )?compile$"),
    ("authz-token", "test-support", "verify", "ES256"),
)
# Decisions that remember, for `bench.history`.
HISTORY = ("authz-kernel", "", "history", "rules, ")


class MicroError(RuntimeError):
    """A part could not be measured."""


def run(
    root: Path, benches: Sequence[tuple[str, str, str, str]], *, quick: bool
) -> list[dict[str, Any]]:
    """Runs the benchmarks of the parts and reads their estimates.

    Args:
        root: folder of the repository.
        benches: such as `BENCHES`.
        quick: shorter, and so less certain.

    Returns:
        For each benchmark its name, the median and its 95 % confidence interval, in microseconds.

    Raises:
        MicroError: cargo failed, took longer than ten minutes, or criterion wrote nothing.
    """
    folder = target_folder(root) / "criterion"
    # Estimates of benchmarks that no longer exist would stand among the new ones.
    shutil.rmtree(folder, ignore_errors=True)
    warm, measured = ("0.2", "0.5") if quick else ("1", "3")
    for crate, features, bench, functions in benches:
        # Without features of its own it is built as the extension is, and shares that build.
        which = ["--package", crate, "--features", features] if features else ["--workspace"]
        command = ["cargo", "bench", "--quiet", "--locked", *which]
        command += ["--bench", bench, "--", "--noplot", functions]
        command += ["--warm-up-time", warm, "--measurement-time", measured]
        try:
            done = subprocess.run(
                command, cwd=root / "native", capture_output=True, timeout=600, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MicroError(f"{crate}'s {bench}: {error}") from error
        if done.returncode != 0:
            words = done.stderr.decode(errors="replace")[-1500:]
            raise MicroError(f"{crate}'s {bench} failed: {words}")
    found = collect(folder)
    if not found:
        raise MicroError(f"criterion wrote nothing below {folder}")
    return found


def target_folder(root: Path) -> Path:
    """Returns cargo's target folder."""
    return Path(os.environ.get("CARGO_TARGET_DIR") or root / "native" / "target")


def collect(folder: Path) -> list[dict[str, Any]]:
    """Reads criterion's folder: `<group>/<function>/<value>/new/{benchmark,estimates}.json`.

    Args:
        folder: criterion's.
    """
    rows: list[dict[str, Any]] = []
    for file in sorted(folder.glob("**/new/estimates.json")):
        name = json.loads((file.parent / "benchmark.json").read_text())["full_id"]
        median = json.loads(file.read_text())["median"]
        interval = median["confidence_interval"]
        rows.append(
            {
                "name": name,
                "median_us": round(median["point_estimate"] / 1e3, 3),
                "low_us": round(interval["lower_bound"] / 1e3, 3),
                "high_us": round(interval["upper_bound"] / 1e3, 3),
            }
        )
    return rows
