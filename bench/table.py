"""Writes the README's table of figures from `bench/results/*.json`.

python -m bench.table            writes it
python -m bench.table --check    fails if the README says anything else
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import check

BEGIN = "<!-- bench: written by `python -m bench.table` -->"
END = "<!-- /bench -->"
ROOT = Path(__file__).resolve().parent.parent


class TableError(RuntimeError):
    """The results are none to publish, or the README has no place for them."""


def render(limits: list[dict[str, Any]], measured: check.Results) -> str:
    """Returns the table, without markers.

    Args:
        limits: of `check.thresholds`.
        measured: of `check.results`.

    Raises:
        TableError: no load results, or results of a development build.
    """
    if "load" not in measured:
        raise TableError("bench/results/load.json is missing; `make bench` writes it")
    for name, one in measured.items():
        profile = one["machine"]["build_profile"]
        if profile != "release":
            raise TableError(f"bench/results/{name}.json measured a {profile} build: not published")
    load = measured["load"]
    machine, versions = load["machine"], load["machine"]["versions"]
    lines = [
        (
            f"{machine['cores']} cores of {machine['cpu']}, Linux {machine['kernel']}, "
            f"grpcio {versions['grpcio']}, Python {versions['python']}; server and load generator share the cores; "
            f"{machine['date']}, revision `{machine['revision']}`, {machine['build_profile']} build."
        ),
        "",
        "| lane | asked over | policies | load | requests/s | p50 | p99 | server CPU a request | the transport's alone |",
        "|---|---|--:|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        _row(row) for row in load["rows"] if row["policies"] in _SHOWN or row["concurrency"] == 64
    ]
    lines += ["", "| goal | at most | measured | |", "|---|--:|--:|---|"]
    for verdict in check.judge(limits, measured):
        value = "-" if verdict.value is None else f"{verdict.value:g}"
        word = {True: "met", False: "**missed**", None: "not measured"}[verdict.met]
        lines.append(f"| {verdict.what} | {verdict.at_most:g} | {value} | {word} |")
    if "tasks" in measured:
        lines += ["", *_tasks(measured["tasks"])]
    return "\n".join(lines) + "\n"


_SHOWN = (1_000,)


def _row(row: Mapping[str, Any]) -> str:
    if row["concurrency"]:
        load = f"{row['concurrency']} at a time"
    else:
        load = f"{row['rate']:,}/s" + (", half of saturation" if row["half"] else "")
    return (
        f"| {row['lane']} | {row['surface']} | {row['policies']:,} | {load} | {row['rps']:,.0f} | "
        f"{row['p50_ms']:.2f} ms | {row['p99_ms']:.2f} ms | {row['server_cpu_us']:.0f} µs | {row['floor_cpu_us']:.0f} µs |"
    )


def _tasks(measured: Mapping[str, Any]) -> list[str]:
    machine = measured["machine"]
    lines = [
        (
            "What a task adds, in one process without transport, median of a call: "
            f"{machine['cores']} cores of {machine['cpu']}, Linux {machine['kernel']}; "
            f"{machine['date']}, revision `{machine['revision']}`, {machine['build_profile']} build."
        ),
        "",
        "| Check | state | without a task | on a task | ratio |",
        "|---|---|--:|--:|--:|",
    ]
    for ratio in measured["ratios"]:
        if ratio["time"] == "wall":
            without, on_task = (
                row["wall_us"]
                for task in (False, True)
                for row in measured["rows"]
                if (row["check"], row["state"], row["task"])
                == (ratio["ratio"], ratio["state"], task)
            )
            lines.append(
                f"| {ratio['ratio']} | {ratio['state']} | {without:.1f} µs | {on_task:.1f} µs | {ratio['median']:g} |"
            )
    return lines


def replaced(text: str, table: str) -> str:
    """Returns a text with the table between its markers.

    Raises:
        TableError: not exactly one pair of markers.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
        raise TableError(f"README.md needs the lines {BEGIN} and {END} once, in this order")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}{END}{rest.partition(END)[2]}"


def main() -> int:
    """Writes or checks the table.

    Returns:
        Exit status: 1 where the README differs or there is nothing to publish.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.table", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    arguments = parser.parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text()
    try:
        table = render(check.thresholds(ROOT / "bench"), check.results(ROOT / "bench" / "results"))
        wanted = replaced(text, table)
    except TableError as error:
        print(f"bench.table: {error}", file=sys.stderr)
        return 1
    if arguments.check:
        if wanted != text:
            print("bench.table: README.md differs; run `python -m bench.table`", file=sys.stderr)
            return 1
    else:
        readme.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
